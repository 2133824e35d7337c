//! The settings of a comparison.

use std::path::PathBuf;

use doorstep_cli::args::BrokerVariables;
use doorstep_messaging::BrokerSettings;

use crate::scenario::LoadProfile;

/// Scenarios to compare, and the form of the report.
#[derive(Debug)]
pub(crate) struct CompareSettings {
    /// The same seed offers the same items.
    pub(crate) seed: u64,
    pub(crate) pace: LoadProfile,
    pub(crate) form: OutputFormat,
    /// The path of the chart.
    pub(crate) svg: Option<PathBuf>,
    /// The broker; the comparison's own namespaces begin with this one.
    pub(crate) broker: BrokerSettings,
    /// The broker's settings as environment variables of the consumers.
    pub(crate) variables: BrokerVariables,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum OutputFormat {
    /// Tables and a verdict, for people.
    Text,
    /// All figures in JSON, for programs.
    Json,
}
