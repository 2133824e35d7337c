//! The ledger in a process of its own, for tests in which processes crash. It also serves requests, and runs until it
//! is ended.

use std::path::Path;

use anyhow::{Context, Result};
use doorstep_runtime::runner;
use doorstep_store::{SqliteStore, sqlite::Options};
use doorstep_tests::{LEDGER_WITH_RPC, ledger::Ledger, run_settings};

fn main() -> Result<()> {
    let runtime = tokio::runtime::Runtime::new()?;
    runtime.block_on(async { tokio::spawn(run()).await })?
}

async fn run() -> Result<()> {
    let variable = |name| std::env::var(name).context(name);
    let folder = variable("DOORSTEP_DATA_DIR")?;
    let store = SqliteStore::open(
        Path::new(&folder),
        LEDGER_WITH_RPC.role,
        &Options::default(),
    )?;
    let settings = run_settings(&variable("DOORSTEP_AMQP_URL")?, &[LEDGER_WITH_RPC]);
    runner::start(Ledger, store, settings).join().await?;
    Ok(())
}
