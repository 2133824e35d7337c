//! The settings of a comparison.

use std::path::PathBuf;

use doorstep_cli::args::BrokerVariables;
use doorstep_messaging::BrokerSettings;

use crate::scenario::LoadProfile;

/// Scenarios to compare, and the form of the report.
#[derive(Debug)]
pub(crate) struct CompareSettings {
    /// The same seed offers the same.
    pub(crate) seed: u64,
    /// Offered load.
    pub(crate) pace: LoadProfile,
    /// Form of standard output.
    pub(crate) form: Form,
    /// Target of the chart.
    pub(crate) svg: Option<PathBuf>,
    /// The broker; the comparison's own namespaces begin with this one.
    pub(crate) broker: BrokerSettings,
    /// The way to reach it, for the process of the consumers.
    pub(crate) variables: BrokerVariables,
}

/// Form of standard output.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    /// Tables and a verdict.
    Text,
    /// All figures, in JSON.
    Json,
}
