//! The settings of a comparison.

use std::path::PathBuf;

use doorstep_cli::args::BrokerVariables;
use doorstep_messaging::BrokerSettings;

use crate::scenario::LoadProfile;

/// What to compare, and how to show it.
#[derive(Debug)]
pub(crate) struct CompareSettings {
    /// The same seed offers the same.
    pub(crate) seed: u64,
    /// How much is offered.
    pub(crate) pace: LoadProfile,
    /// What is written to standard output.
    pub(crate) form: Form,
    /// Where to put a picture.
    pub(crate) svg: Option<PathBuf>,
    /// The broker; the comparison's own namespaces begin with this one.
    pub(crate) broker: BrokerSettings,
    /// The way to reach it, for the process of the consumers.
    pub(crate) variables: BrokerVariables,
}

/// What is written to standard output.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    /// Tables and a verdict.
    Text,
    /// All figures, in JSON.
    Json,
}
