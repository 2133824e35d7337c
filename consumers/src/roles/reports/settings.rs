//! The settings of requested reports.

use std::{
    ops::RangeInclusive,
    path::{Path, PathBuf},
    time::Duration,
};

use clap::Args;
use doorstep_cli::parse::{duration_within, number_arg};
use doorstep_runtime::task::{Task, TaskPolicy, TaskSet};

use super::{
    files::ReportFolder,
    tasks::{RemoveReport, RenderReport, ReportResources},
};

/// The default retention: seven days, as long as the gateway's links are valid.
const RETENTION: &str = "168h";
const RETENTIONS: RangeInclusive<Duration> = Duration::from_mins(1)..=Duration::from_hours(8_784);
const TIMEOUTS: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_hours(24);
const PACES: RangeInclusive<Duration> = Duration::ZERO..=Duration::from_mins(1);
/// From 1 MiB to 1 TiB.
const SIZES: RangeInclusive<u64> = 1 << 20..=1 << 40;
const SIZE: u64 = 1 << 30;

/// The settings of requested reports.
#[derive(Debug, Clone, Args)]
pub(crate) struct ReportSettings {
    /// The folder with the files of requested reports, which the gateway reads [default: `reports` in the folder of the
    /// stores].
    #[arg(long, env = "DOORSTEP_REPORTS_DIR", value_name = "FOLDER")]
    reports_dir: Option<PathBuf>,

    /// The time that the files of a requested report are kept. From 1m to 8784h.
    #[arg(
        long,
        env = "DOORSTEP_REPORT_RETENTION",
        value_name = "TIME",
        default_value = RETENTION, value_parser = duration_within(RETENTIONS))]
    pub(crate) report_retention: Duration,

    /// The maximum of bytes of all files of requested reports, from 1048576 on. Beyond it, or beyond 10000 files, the
    /// oldest reports are removed.
    #[arg(
        long,
        env = "DOORSTEP_REPORTS_MAX_BYTES",
        value_name = "NUMBER",
        default_value_t = SIZE, value_parser = number_arg(SIZES))]
    reports_max_bytes: u64,

    /// The time that one attempt to make a report may take, from 1s to 24h.
    #[arg(
        long,
        env = "DOORSTEP_REPORT_TIMEOUT",
        value_name = "TIME",
        default_value = "30m", value_parser = duration_within(TIMEOUTS))]
    report_timeout: Duration,

    /// The pause after each day of a report, which leaves the disk to others. From 0s to 1m.
    #[arg(
        long,
        env = "DOORSTEP_REPORT_PACE",
        value_name = "TIME",
        default_value = "0s", value_parser = duration_within(PACES))]
    report_pace: Duration,
}

impl ReportSettings {
    /// Returns the tasks of the role whose store is in this folder.
    pub(crate) fn tasks(&self, stores: &Path) -> TaskSet {
        let path = self.reports_dir.clone();
        let path = path.unwrap_or_else(|| stores.join("reports"));
        let resources = ReportResources {
            folder: ReportFolder::new(path, self.reports_max_bytes),
            pace: self.report_pace,
        };
        let policy = TaskPolicy {
            timeout: self.report_timeout,
            ..RenderReport::POLICY
        };
        TaskSet::new()
            .with_policy::<RenderReport>(resources.clone(), policy)
            .with::<RemoveReport>(resources)
    }
}
