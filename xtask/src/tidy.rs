//! `cargo xtask tidy`: counts of prose, length, circles and names against ceilings.

use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::Args;

use crate::workspace::{cargo, exit_code};

/// Count prose, lengths, circles of files and retired names in the tracked sources against ceilings.
///
/// Prints each measure with its value, its ceiling and its goal. A value above its ceiling fails, with the worst places; so
/// does one far below, with the ceiling to write. The ceilings are in xtask/tidy/src/ceilings.rs, the retired names in
/// vocabulary.txt beside it.
///
/// Example: cargo xtask tidy openings circles
#[derive(Debug, Args)]
#[command(verbatim_doc_comment)]
pub(crate) struct Tidy {
    /// Measures whose every place is listed.
    #[arg(value_name = "MEASURE")]
    listed: Vec<String>,
}

impl Tidy {
    pub(crate) fn run(&self) -> Result<ExitCode> {
        let status = cargo()
            .args(["run", "--quiet", "--package", "doorstep-tidy", "--"])
            .args(&self.listed)
            .status()
            .context("cannot run cargo")?;
        Ok(exit_code(status.success()))
    }
}
