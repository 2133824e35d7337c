//! The command line, and its conversion to work.

use clap::{Parser, Subcommand};
use doorstep_cli::{
    SettingsErrors, ShutdownSignal,
    args::{TelemetryOptions, TelemetrySettings},
    start::{Work, work},
};

use crate::{
    comparison,
    consumer_process::WORK_COMMAND,
    ended_at_once,
    settings::CompareArgs,
    worker::{self, CompareWorkArgs},
};

/// The end of `--help`.
const HELP: &str = "\
Examples:
  compare --seconds 5 --svg compare.svg
  compare --rate 50 --delay 8ms --json > compare.json

Exit codes:
  0    done
  1    something was lost or done twice, or failed in a way that the other codes do not cover
  64   wrong usage or settings; all wrong settings are listed at once
  69   the broker cannot be reached, or the consumers of the comparison do not start
  70   internal error: a bug in the program
  73   a store cannot be created or opened
  74   reading or writing a store or file failed
  130  stopped by SIGINT or SIGTERM: a second signal ends at once";

/// Does the same work synchronously and asynchronously, and compares the results for users.
///
/// The same seeded checkouts and tracking updates are offered twice: as commands over RPC, which get a reply once the
/// work is done, and as events, which are confirmed once the broker has stored them. The same consumers process both
/// while they are healthy, slow, overloaded and down. The report shows response times, errors, lost items and late
/// items. A comparison takes about two minutes, and needs a broker and no other program of Doorstep. It uses a
/// namespace of its own and a temporary folder (TMPDIR), which it deletes at the end. It touches nothing else on the
/// broker.
#[derive(Debug, Parser)]
#[command(
    name = "compare",
    version,
    after_help = HELP,
    max_term_width = 100,
    args_conflicts_with_subcommands = true,
    disable_help_subcommand = true
)]
pub(crate) struct Cli {
    #[command(subcommand)]
    command: Option<Command>,

    #[command(flatten)]
    compare: CompareArgs,

    #[command(flatten)]
    telemetry: TelemetryOptions,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the consumers of a comparison, which starts and kills them.
    #[command(name = WORK_COMMAND, hide = true)]
    Work(CompareWorkArgs),
}

impl Cli {
    /// Checks the arguments, and returns the work.
    pub(crate) fn check(self, wrong: &mut SettingsErrors) -> Option<(TelemetrySettings, Work)> {
        let tls = match &self.command {
            Some(Command::Work(args)) => &args.broker.tls,
            None => &self.compare.broker.tls,
        };
        let telemetry = self.telemetry.check(tls, wrong);
        let stop = || ShutdownSignal::listen(ended_at_once);
        let work = match self.command {
            Some(Command::Work(args)) => args.broker.check(wrong).and_then(|broker| {
                work(async move {
                    let _stop = stop()?;
                    worker::work(broker, args).await
                })
            }),
            None => self
                .compare
                .check(wrong)
                .and_then(|settings| work(async move { comparison::run(settings, stop()?).await })),
        };
        telemetry.zip(work)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use clap::CommandFactory;
    use doorstep_cli::{
        reference::{assert_section, command_line},
        variables::unknown_to_warnings,
    };

    use super::*;
    use crate::settings::CompareSettings;

    fn check(words: &[&str]) -> Result<CompareSettings, String> {
        let words = ["compare"].iter().chain(words);
        let typed = Cli::try_parse_from(words).unwrap();
        let mut wrong = SettingsErrors::of_arguments();
        let settings = typed.compare.check(&mut wrong);
        wrong
            .into_result(settings)
            .map_err(|failure| failure.to_string())
    }

    #[test]
    fn without_options_slow_consumers_keep_up() {
        let settings = check(&[]).unwrap();
        assert!(settings.pace.share_of_capacity() <= 0.5);
        assert!(!settings.args.json);
        assert!(!format!("{settings:?}").contains("guest:guest"));
    }

    #[test]
    fn all_errors_are_reported_together() {
        let words = [
            "--seconds",
            "61",
            "--rate",
            "0",
            "--delay",
            "2s",
            "--seed",
            "-",
            "--svg",
            "/",
            "--namespace",
            "?",
        ];
        let said = check(&words).unwrap_err();
        for name in [
            "6 settings",
            "--seconds",
            "--rate",
            "--delay",
            "--seed",
            "--svg",
            "--namespace",
        ] {
            assert!(said.contains(name), "{name} is not in {said}");
        }
    }

    #[test]
    fn slow_consumers_get_a_feasible_load() {
        let said = check(&["--rate", "60", "--delay", "20ms"]).unwrap_err();
        assert!(said.contains("at most 30"), "{said}");
        assert!(check(&["--rate", "60", "--delay", "10ms"]).is_ok());
        // A wrong delay is no reason to complain of the rate.
        let said = check(&["--rate", "200", "--delay", "5h"]).unwrap_err();
        assert!(!said.contains("--rate"), "{said}");
    }

    #[test]
    fn the_command_is_well_formed() {
        Cli::command().debug_assert();
        assert_eq!(unknown_to_warnings(&Cli::command()), BTreeSet::new());
    }

    #[test]
    fn reference_page_of_the_command_line() {
        assert_section("cli-compare.md", "commands", &command_line(Cli::command()));
    }
}
