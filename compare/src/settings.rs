//! The arguments of a comparison, and the settings made from them.

use std::{
    ops::RangeInclusive,
    path::{Path, PathBuf},
    time::Duration,
};

use clap::Args;
use doorstep_cli::{
    SettingsErrors,
    args::BrokerArgs,
    parse::{duration_within, number_arg},
};
use doorstep_messaging::BrokerSettings;

use crate::scenario::LoadProfile;

/// The limit of the share of their capacity that slow consumers are offered: above it, random pauses alone let queues
/// grow.
const MAX_SHARE_OF_CAPACITY: f64 = 0.6;
/// The bounds on the time of slow work: less is no different from fast work, and with more too little is done to be
/// counted.
const DELAYS: RangeInclusive<Duration> = Duration::from_millis(4)..=Duration::from_secs(1);

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

/// The settings of a comparison.
#[derive(Debug)]
pub(crate) struct CompareSettings {
    pub(crate) args: CompareArgs,
    pub(crate) pace: LoadProfile,
    /// The broker; the comparison's own namespaces begin with this one.
    pub(crate) broker: BrokerSettings,
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
        let svg = self.svg.as_deref().map_or(Ok(()), is_writable);
        let svg = wrong.check("--svg", svg);
        let broker = self.broker.check(wrong);
        svg?;
        Some(CompareSettings {
            pace: pace?,
            broker: broker?,
            args: self,
        })
    }
}

/// Rejects a path that could not be written at the end, after all measurements.
fn is_writable(path: &Path) -> Result<(), String> {
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
    Ok(())
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
