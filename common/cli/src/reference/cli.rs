//! Pages of a program's command line and of its settings, from its arguments.

use std::collections::{BTreeMap, BTreeSet};

use clap::{Arg, ArgAction, Args, Command, builder::StyledStr};

use super::cell;
use crate::{
    args::{BrokerArgs, EndpointArgs, StoreArgs, TelemetryArgs},
    completions::with_completions,
    management::ManagementArgs,
};

/// The number of commands from which a shared option is described once, at the end of a page.
const SHARED_FROM: usize = 3;

/// Returns a section for each command that has no subcommands, and one for the options that several commands have.
#[must_use]
pub fn command_line(program: Command) -> String {
    let mut command = with_completions(program);
    command.build();
    let mut commands = Vec::new();
    leaves(&command, &mut commands);
    let mut uses: BTreeMap<String, usize> = BTreeMap::new();
    for arg in commands.iter().flat_map(|command| options(command)) {
        *uses.entry(row(arg)).or_default() += 1;
    }
    let is_shared = |arg: &Arg| {
        !arg.is_positional() && uses.get(&row(arg)).is_some_and(|uses| *uses >= SHARED_FROM)
    };
    let codes = text(command.get_after_help());
    let mut page = String::new();
    let mut shared = BTreeSet::new();
    for command in commands {
        let own: Vec<_> = options(command).filter(|arg| !is_shared(arg)).collect();
        let others: Vec<_> = options(command).filter(|arg| is_shared(arg)).collect();
        page += &section(command, &own, &others, &codes);
        shared.extend(others.into_iter().map(row));
    }
    if !shared.is_empty() {
        page += "## Options of several commands\n\n";
        page += HEAD;
        page.extend(shared);
        page.push('\n');
    }
    page + "```text\n" + codes.trim_end() + "\n```\n"
}

/// Returns a table of the variables that several programs read.
#[must_use]
pub fn shared_settings() -> String {
    table(variables(&shared()))
}

/// Returns a table of the variables that this program reads beside those.
#[must_use]
pub fn settings(program: &Command) -> String {
    let shared = variables(&shared());
    let mut own = variables(program);
    own.retain(|name, _| !shared.contains_key(name));
    table(own)
}

fn shared() -> Command {
    let command = Command::new("shared");
    let command = StoreArgs::augment_args(BrokerArgs::augment_args(command));
    let command = EndpointArgs::augment_args(TelemetryArgs::augment_args(command));
    ManagementArgs::augment_args(command)
}

fn table(rows: BTreeMap<String, String>) -> String {
    let mut table =
        "| variable | flag | default | meaning |\n| --- | --- | --- | --- |\n".to_owned();
    table.extend(rows.into_values());
    table
}

/// Returns the rows of all variables by their names.
fn variables(command: &Command) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    for arg in command.get_arguments() {
        let Some(variable) = arg.get_env() else {
            continue;
        };
        let variable = variable.to_string_lossy();
        let row = format!(
            "| `{variable}` | `{}` | {} | {} |\n",
            name(arg),
            default(arg),
            meaning(arg)
        );
        found.insert(variable.into_owned(), row);
    }
    for command in command.get_subcommands() {
        found.extend(variables(command));
    }
    found
}

fn leaves<'a>(command: &'a Command, found: &mut Vec<&'a Command>) {
    let is_told = |sub: &&Command| sub.get_name() != "help" && !sub.is_hide_set();
    let mut subs = command.get_subcommands().filter(is_told).peekable();
    if subs.peek().is_none() || !command.is_subcommand_required_set() {
        found.push(command);
    }
    for sub in subs {
        leaves(sub, found);
    }
}

/// Returns the arguments that get a row, positional ones first.
fn options(command: &Command) -> impl Iterator<Item = &Arg> {
    let is_told =
        |arg: &&Arg| !arg.is_hide_set() && !matches!(arg.get_id().as_str(), "help" | "version");
    let positional = command.get_arguments().filter(|arg| arg.is_positional());
    let others = command.get_arguments().filter(|arg| !arg.is_positional());
    positional.chain(others).filter(is_told)
}

const HEAD: &str = "| option | default | meaning |\n| --- | --- | --- |\n";

fn section(command: &Command, own: &[&Arg], others: &[&Arg], codes: &str) -> String {
    let name = command.get_bin_name().unwrap_or(command.get_name());
    let about = command.get_long_about().or(command.get_about());
    let usage = command.clone().render_usage().to_string();
    let usage = usage.trim_start_matches("Usage: ").trim_end();
    let usage: Vec<_> = usage.lines().map(str::trim).collect();
    let mut section = format!("## {name}\n\n{}\n\n", cell_free(&text(about)));
    section += &format!("```text\n{}\n```\n\n", usage.join("\n"));
    if !own.is_empty() {
        section += HEAD;
        section.extend(own.iter().map(|arg| row(arg)));
        section.push('\n');
    }
    if !others.is_empty() {
        let names: Vec<_> = others
            .iter()
            .map(|arg| format!("`{}`", self::name(arg)))
            .collect();
        section += &format!(
            "Also, as [several commands](#options-of-several-commands): {}.\n\n",
            names.join(", ")
        );
    }
    let examples = text(command.get_after_long_help().or(command.get_after_help()));
    if !examples.is_empty() && examples != codes {
        section += &format!("```text\n{}\n```\n\n", examples.trim_end());
    }
    section
}

/// Formats a paragraph in which Markdown finds no tags.
fn cell_free(text: &str) -> String {
    text.split("\n\n")
        .map(cell)
        .collect::<Vec<_>>()
        .join("\n\n")
}

fn row(arg: &Arg) -> String {
    let variable = arg
        .get_env()
        .map(|name| format!("<br>`{}`", name.to_string_lossy()));
    let option = format!("`{}`{}", with_value(arg), variable.unwrap_or_default());
    format!("| {option} | {} | {} |\n", default(arg), meaning(arg))
}

fn name(arg: &Arg) -> String {
    match arg.get_long() {
        Some(long) => format!("--{long}"),
        None => with_value(arg),
    }
}

fn with_value(arg: &Arg) -> String {
    let id = arg.get_id().as_str().to_uppercase();
    let names = arg.get_value_names().unwrap_or_default();
    let value = names.first().map_or(id.as_str(), |name| name.as_str());
    match (arg.get_long(), arg.get_action()) {
        (None, _) => value.to_owned(),
        (Some(long), ArgAction::Set | ArgAction::Append) => format!("--{long} {value}"),
        (Some(long), _) => format!("--{long}"),
    }
}

fn default(arg: &Arg) -> String {
    let defaults: Vec<_> = arg
        .get_default_values()
        .iter()
        .map(|value| value.to_string_lossy())
        .collect();
    match defaults.is_empty() || !arg.get_action().takes_values() {
        true => String::new(),
        false => format!("`{}`", defaults.join(",")),
    }
}

fn meaning(arg: &Arg) -> String {
    let help = text(arg.get_long_help().or(arg.get_help()));
    let values: Vec<_> = arg
        .get_possible_values()
        .iter()
        .map(|value| format!("`{}`", value.get_name()))
        .collect();
    let mut meaning = cell(&help.replace("\n\n", " "));
    if !meaning.ends_with('.') {
        meaning.push('.');
    }
    if !values.is_empty() && arg.get_action().takes_values() {
        meaning += &format!(" One of {}.", values.join(", "));
    }
    meaning
}

fn text(styled: Option<&StyledStr>) -> String {
    styled.map(ToString::to_string).unwrap_or_default()
}
