//! The choice between text and JSON.

/// The form of a command's output.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum OutputFormat {
    /// Lines and tables, for people.
    Text,
    /// JSON, for programs.
    Json,
}
