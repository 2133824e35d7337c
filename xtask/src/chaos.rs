//! `cargo xtask chaos`: thousands of orders while the processes that serve them are killed, and a check of the final
//! states.

use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::Args;
use doorstep_broker::Footprint;

use crate::workspace::{Profile, build_programs, checked, find_broker, own_vhost, program};

/// Place thousands of orders while gateway, payments and restaurant are killed, and check the final states.
///
/// Some orders are declined, rejected, cancelled or repeated. At the end the ledger must balance, nothing may be held
/// or reserved, and every role's state must agree with the customers' answers. Everything is in a virtual host of its
/// own.
///
/// Example: cargo xtask chaos --orders 2000
#[derive(Debug, Args)]
#[command(verbatim_doc_comment)]
pub(crate) struct Chaos {
    /// The number of orders.
    #[arg(long, default_value_t = 10_000)]
    orders: usize,
    /// The same seed plans the same orders; the moments of the kills are random.
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

impl Chaos {
    pub(crate) fn run(&self) -> Result<ExitCode> {
        build_programs(&["gateway", "consumers", "doorstep-chaos"])?;
        let found = find_broker("chaos", Footprint::Full)?;
        let broker = own_vhost(found.broker(), "chaos")?;
        let status = program(Profile::Dev, "doorstep-chaos")?
            .env("DOORSTEP_AMQP_URL", broker.amqp_url())
            .args(["--orders", &self.orders.to_string()])
            .args(["--seed", &self.seed.to_string()])
            .status()
            .context("cannot run doorstep-chaos")?;
        checked("doorstep-chaos", status)?;
        Ok(ExitCode::SUCCESS)
    }
}
