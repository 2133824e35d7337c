//! `cargo xtask bench`: Doorstep against the bare client, measured side by side.

use std::path::{PathBuf, absolute};
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::Args;
use doorstep_broker::Footprint;

use crate::workspace::{Profile, build, checked, find_broker, own_vhost, program};

/// Measure publishing, consuming and RPC against the bare client, interleaved in one run.
///
/// Builds for release and finds or starts a broker; the measured queues are in a virtual host of their own.
///
/// Example: cargo xtask bench --json target/bench.json
#[derive(Debug, Args)]
#[command(verbatim_doc_comment)]
pub(crate) struct Bench {
    /// Write the figures to this file as well.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Arguments for the bench program: `cargo xtask bench -- --help`.
    #[arg(last = true)]
    arguments: Vec<String>,
}

impl Bench {
    pub(crate) fn run(&self) -> Result<ExitCode> {
        build(&[
            "--release",
            "--package",
            "doorstep-tests",
            "--bin",
            "doorstep-bench",
        ])?;
        let found = find_broker("bench", Footprint::Full)?;
        let broker = own_vhost(found.broker(), "bench")?;
        let mut bench = program(Profile::Release, "doorstep-bench")?;
        bench.env("DOORSTEP_AMQP_URL", broker.amqp_url());
        if let Ok(management) = broker.management() {
            bench.env("DOORSTEP_MANAGEMENT_URL", management.url_with_login());
        }
        if let Some(file) = &self.json {
            // The program runs in another folder than this.
            let file = absolute(file).context("the folder for --json is unknown")?;
            bench.arg("--json").arg(file);
        }
        let status = bench
            .args(&self.arguments)
            .status()
            .context("cannot run doorstep-bench")?;
        checked("doorstep-bench", status)?;
        Ok(ExitCode::SUCCESS)
    }
}
