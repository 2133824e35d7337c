//! `cargo xtask rush`: very many orders while everything that somebody waits for is killed, and a check of the books.

use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::Args;
use doorstep_broker::Footprint;

use crate::checkout::{Profile, build, checked, find_broker, own_vhost, program};

/// Place thousands of orders while gateway, payments and restaurant are killed, and check the books.
///
/// Some orders are declined, refused, cancelled or asked for twice. At the end the ledger must balance, nothing may be held or
/// reserved any more, and every role's books must agree with what the customers were told. Everything is in a virtual host of its own.
///
/// Example: cargo xtask rush --orders 2000
#[derive(Debug, Args)]
#[command(verbatim_doc_comment)]
pub(crate) struct Rush {
    /// How many orders are wanted.
    #[arg(long, default_value_t = 10_000)]
    orders: usize,
    /// The same seed wants the same orders; when the kills come is left to chance.
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

impl Rush {
    pub(crate) fn run(&self) -> Result<ExitCode> {
        let packages = ["doorstep-producer", "doorstep-consumers", "doorstep-tests"];
        let mut arguments: Vec<&str> = packages.iter().flat_map(|p| ["--package", p]).collect();
        arguments.push("--bins");
        build(&arguments)?;
        let found = find_broker("rush", Footprint::Full)?;
        let broker = own_vhost(found.broker(), "rush")?;
        let status = program(Profile::Dev, "doorstep-rush")?
            .env("DOORSTEP_AMQP_URL", broker.amqp_url())
            .args(["--orders", &self.orders.to_string()])
            .args(["--seed", &self.seed.to_string()])
            .status()
            .context("cannot run doorstep-rush")?;
        checked("doorstep-rush", status)?;
        Ok(ExitCode::SUCCESS)
    }
}
