//! Arguments, and their conversion to settings.

use std::{ops::RangeInclusive, path::PathBuf, time::Duration};

use clap::{Args, Parser, Subcommand};
use doorstep_cli::{
    SettingsErrors, ShutdownSignal,
    args::{BrokerArgs, StoreArgs, TelemetryOptions, TelemetrySettings},
    parse::{duration_arg, duration_within, number_arg},
    start::{Work, work},
};

use crate::{
    comparison,
    consumer_process::WORK_COMMAND,
    ended_at_once,
    scenario::LoadProfile,
    settings::{CompareSettings, OutputFormat},
    worker::{self, WorkSettings},
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

/// The limit of the share of their capacity that slow consumers are offered: above it, random pauses alone let queues
/// grow.
const MAX_SHARE_OF_CAPACITY: f64 = 0.6;
/// The bounds on the time of slow work: less is no different from fast work, and with more too little is done to be
/// counted.
const DELAYS: RangeInclusive<Duration> = Duration::from_millis(4)..=Duration::from_secs(1);

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
            Some(Command::Work(args)) => args.check(wrong).and_then(|settings| {
                work(async move {
                    let _stop = stop()?;
                    worker::work(settings).await
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

/// The arguments of a comparison.
#[derive(Debug, Args)]
pub(crate) struct CompareArgs {
    /// Time for which users arrive, in each scenario and each mode, in seconds from 1 to 60.
    #[arg(long, value_name = "SECONDS", default_value = "8", value_parser = number_arg(1..=60_u64))]
    pub(crate) seconds: u64,

    /// Checkouts per second, from 1 to 1000, with four tracking updates for each. Overloaded consumers get three times
    /// their capacity instead.
    #[arg(long, value_name = "NUMBER", default_value = "12", value_parser = number_arg(1..=1000_u32))]
    pub(crate) rate: u32,

    /// Time of a checkout with slow or overloaded consumers, from 4ms to 1s; an update takes a quarter of it.
    #[arg(long, value_name = "TIME", default_value = "40ms", value_parser = duration_within(DELAYS))]
    pub(crate) delay: Duration,

    /// Seed of the load: the same seed offers the same items.
    #[arg(long, value_name = "NUMBER", default_value = "1", value_parser = number_arg(0..=u64::MAX))]
    pub(crate) seed: u64,

    /// Write all figures to standard output as JSON instead of tables.
    #[arg(long)]
    pub(crate) json: bool,

    /// Path of a chart of the results.
    #[arg(long, value_name = "FILE")]
    pub(crate) svg: Option<PathBuf>,

    #[command(flatten)]
    pub(crate) broker: BrokerArgs,
}

/// The arguments of the process that runs the consumers.
#[derive(Debug, Args)]
pub(crate) struct CompareWorkArgs {
    /// Time that a checkout takes.
    #[arg(long, value_parser = duration_arg())]
    pub(crate) checkout_takes: Duration,

    /// Time that a tracking update takes.
    #[arg(long, value_parser = duration_arg())]
    pub(crate) update_takes: Duration,

    #[command(flatten)]
    pub(crate) store: StoreArgs,

    #[command(flatten)]
    pub(crate) broker: BrokerArgs,
}

impl CompareArgs {
    pub(crate) fn check(self, wrong: &mut SettingsErrors) -> Option<CompareSettings> {
        let pace = LoadProfile {
            rate: self.rate,
            delay: self.delay,
            lasts: Duration::from_secs(self.seconds),
        };
        let pace = if wrong.is_empty() {
            wrong.check("--rate", within_capacity(pace))
        } else {
            None
        };
        let svg = wrong.check("--svg", self.svg.map(picture).transpose());
        let broker = self.broker.check(wrong);
        Some(CompareSettings {
            seed: self.seed,
            pace: pace?,
            form: if self.json {
                OutputFormat::Json
            } else {
                OutputFormat::Text
            },
            svg: svg?,
            broker: broker?,
            variables: self.broker.variables(),
        })
    }
}

/// Rejects a path that could not be written at the end, after all measurements.
fn picture(path: PathBuf) -> Result<PathBuf, String> {
    let shown = path.display();
    let folder = path
        .parent()
        .filter(|folder| !folder.as_os_str().is_empty());
    if path.is_dir() {
        return Err(format!("{shown} is a folder, name a file"));
    }
    if folder.is_some_and(|folder| !folder.is_dir()) {
        return Err(format!(
            "{shown} cannot be written: there is no such folder"
        ));
    }
    Ok(path)
}

/// Rejects a load above the capacity of slow consumers, which only the overloaded scenario offers.
fn within_capacity(pace: LoadProfile) -> Result<LoadProfile, String> {
    if pace.share_of_capacity() <= MAX_SHARE_OF_CAPACITY {
        return Ok(pace);
    }
    let most = (MAX_SHARE_OF_CAPACITY / pace.delay.as_secs_f64()).floor();
    Err(format!(
        "slow consumers that take {:?} for a checkout cannot keep up with {} per second: at most {most}, or a shorter --delay",
        pace.delay, pace.rate
    ))
}

impl CompareWorkArgs {
    pub(crate) fn check(self, wrong: &mut SettingsErrors) -> Option<WorkSettings> {
        let broker = self.broker.check(wrong);
        Some(WorkSettings {
            broker: broker?,
            folder: self.store.folder,
            checkout_takes: self.checkout_takes,
            update_takes: self.update_takes,
        })
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
        assert_eq!(settings.form, OutputFormat::Text);
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
