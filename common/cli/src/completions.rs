//! `PROGRAM completions SHELL`: prints a script by which a shell completes commands, options and values.

use std::io;

use clap::{Arg, ArgMatches, Command, value_parser};
use clap_complete::{Shell, generate};

const NAME: &str = "completions";
const SHELL: &str = "SHELL";

/// Adds the command to a program.
#[must_use]
pub fn with_completions(program: Command) -> Command {
    let name = program.get_name().to_owned();
    let examples = format!(
        "Examples:\n  {name} completions bash > ~/.local/share/bash-completion/completions/{name}\n  {name} completions fish > ~/.config/fish/completions/{name}.fish"
    );
    let shell = Arg::new(SHELL)
        .help("The shell")
        .required(true)
        .value_parser(value_parser!(Shell));
    let command = Command::new(NAME)
        .about("Print a script with which a shell completes commands and options")
        .arg(shell)
        .after_help(examples);
    program.subcommand(command)
}

/// Prints the script, if that is what was typed. Returns whether it was.
pub(crate) fn print_if_asked(program: &mut Command, typed: &ArgMatches) -> bool {
    let Some((NAME, typed)) = typed.subcommand() else {
        return false;
    };
    if let Some(shell) = typed.get_one::<Shell>(SHELL) {
        let name = program.get_name().to_owned();
        generate(*shell, program, name, &mut io::stdout());
    }
    true
}
