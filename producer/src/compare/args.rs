//! What can be typed behind `compare`, and what makes settings of it.

use std::{ops::RangeInclusive, path::PathBuf, time::Duration};

use clap::Args;
use doorstep_program::{
    SettingsErrors,
    args::{BrokerArgs, StoreArgs},
    parse::{duration, number},
};

use super::{CompareSettings, Form, WorkSettings, scenario::LoadProfile};

/// The command by which this program starts itself as the consumers of a comparison.
pub(crate) const WORK_COMMAND: &str = "compare-work";

/// The end of its help.
pub(crate) const COMPARE_HELP: &str = "\
Examples:
  producer compare --seconds 5 --svg compare.svg
  producer compare --rate 50 --delay 8ms --json > compare.json";

/// The most of their capacity that slow consumers are offered: above it the pauses of chance alone let queues grow.
const MOST_OF_CAPACITY: f64 = 0.6;
/// What slow work can take: less is no different from quick work, and of more too little is done to be counted.
const DELAYS: RangeInclusive<Duration> = Duration::from_millis(4)..=Duration::from_secs(1);

/// What to compare.
#[derive(Debug, Args)]
pub(crate) struct CompareArgs {
    /// For how long users come, in each scenario and each way, from 1 to 60.
    #[arg(long, value_name = "SECONDS", default_value = "8")]
    pub(crate) seconds: String,

    /// Checkouts a second, from 1 to 1000, with four tracking updates for each; not where consumers are overloaded, which are offered
    /// three times what they can do.
    #[arg(long, value_name = "NUMBER", default_value = "12")]
    pub(crate) rate: String,

    /// What a checkout takes where consumers are slow or overloaded, from 4ms to 1s; an update takes a quarter of it.
    #[arg(long, value_name = "TIME", default_value = "40ms")]
    pub(crate) delay: String,

    /// The same seed offers the same.
    #[arg(long, value_name = "NUMBER", default_value = "1")]
    pub(crate) seed: String,

    /// Write all figures to standard output as JSON instead of tables.
    #[arg(long)]
    pub(crate) json: bool,

    /// Where to put a picture of it.
    #[arg(long, value_name = "FILE")]
    pub(crate) svg: Option<PathBuf>,

    #[command(flatten)]
    pub(crate) broker: BrokerArgs,
}

/// What the consumers of a comparison are told.
#[derive(Debug, Args)]
pub(crate) struct CompareWorkArgs {
    /// What a checkout takes.
    #[arg(long)]
    pub(crate) checkout_takes: String,

    /// What a tracking update takes.
    #[arg(long)]
    pub(crate) update_takes: String,

    #[command(flatten)]
    pub(crate) store: StoreArgs,

    #[command(flatten)]
    pub(crate) broker: BrokerArgs,
}

impl CompareArgs {
    /// Checks them.
    pub(crate) fn check(self, wrong: &mut SettingsErrors) -> Option<CompareSettings> {
        let seconds = wrong.check("--seconds", number(&self.seconds, 1..=60));
        let rate = wrong.check("--rate", number(&self.rate, 1..=1000));
        let delay = wrong.check("--delay", delay(&self.delay));
        let seed = wrong.check("--seed", number(&self.seed, 0..=u64::MAX));
        let pace = (|| {
            let pace = LoadProfile {
                rate: rate?,
                delay: delay?,
                lasts: Duration::from_secs(seconds?),
            };
            wrong.check("--rate", within_capacity(pace))
        })();
        let svg = match self.svg {
            Some(path) => wrong.check("--svg", picture(path)).map(Some),
            None => Some(None),
        };
        let broker = self.broker.check(wrong);
        Some(CompareSettings {
            seed: seed?,
            pace: pace?,
            form: if self.json { Form::Json } else { Form::Text },
            svg: svg?,
            broker: broker?,
            variables: self.broker.variables(),
        })
    }
}

/// Refuses what could not be written in the end, after all has been measured.
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

fn delay(text: &str) -> Result<Duration, String> {
    let delay = duration(text)?;
    if DELAYS.contains(&delay) {
        return Ok(delay);
    }
    Err(format!(
        "{text:?} is not from {:?} to {:?}",
        DELAYS.start(),
        DELAYS.end()
    ))
}

/// Refuses what slow consumers could not keep up with: that is what the overloaded ones are for.
fn within_capacity(pace: LoadProfile) -> Result<LoadProfile, String> {
    if pace.share_of_capacity() <= MOST_OF_CAPACITY {
        return Ok(pace);
    }
    let most = (MOST_OF_CAPACITY / pace.delay.as_secs_f64()).floor();
    Err(format!(
        "slow consumers that take {:?} for each cannot keep up with {} checkouts a second: at most {most}, or a shorter --delay",
        pace.delay, pace.rate
    ))
}

impl CompareWorkArgs {
    /// Checks them.
    pub(crate) fn check(self, wrong: &mut SettingsErrors) -> Option<WorkSettings> {
        let checkout_takes = wrong.check("--checkout-takes", duration(&self.checkout_takes));
        let update_takes = wrong.check("--update-takes", duration(&self.update_takes));
        let broker = self.broker.check(wrong);
        Some(WorkSettings {
            broker: broker?,
            folder: self.store.folder,
            checkout_takes: checkout_takes?,
            update_takes: update_takes?,
        })
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Typed {
        #[command(flatten)]
        args: CompareArgs,
    }

    fn check(words: &[&str]) -> Result<CompareSettings, String> {
        let words = ["compare"].iter().chain(words);
        let mut wrong = SettingsErrors::default();
        let settings = Typed::try_parse_from(words).unwrap().args.check(&mut wrong);
        wrong
            .into_result(settings)
            .map_err(|failure| failure.to_string())
    }

    #[test]
    fn without_options_slow_consumers_keep_up() {
        let settings = check(&[]).unwrap();
        assert!(settings.pace.share_of_capacity() <= 0.5);
        assert_eq!(settings.form, Form::Text);
        assert!(!format!("{settings:?}").contains("guest:guest"));
    }

    #[test]
    fn all_that_is_wrong_is_told_at_once() {
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
    fn slow_consumers_are_not_offered_what_they_cannot_do() {
        let said = check(&["--rate", "60", "--delay", "20ms"]).unwrap_err();
        assert!(said.contains("at most 30"), "{said}");
        assert!(check(&["--rate", "60", "--delay", "10ms"]).is_ok());
    }
}
