//! The role of [`works`](doorstep_tests::works) in a process of its own, for tests in which processes with tasks crash.
//! With a broker it consumes from its queue, and otherwise it runs the tasks alone. Its argument is the maximum of
//! crashes. It runs until it is ended.

use std::path::Path;

use anyhow::{Context, Result};
use doorstep_runtime::runner;
use doorstep_store::{SqliteStore, sqlite::Options};
use doorstep_tests::{
    WORKS, run_settings,
    works::{Outside, Works, quick_limits, tasks},
};

fn main() -> Result<()> {
    let runtime = tokio::runtime::Runtime::new()?;
    runtime.block_on(async { tokio::spawn(run()).await })?
}

async fn run() -> Result<()> {
    let folder = std::env::var("DOORSTEP_DATA_DIR").context("DOORSTEP_DATA_DIR")?;
    let folder = Path::new(&folder);
    let store = SqliteStore::open(folder, WORKS.role, &Options::default())?;
    let tasks = tasks(&Outside::new(folder));
    let mut limits = quick_limits();
    if let Some(crashes) = std::env::args().nth(1) {
        limits.max_crashes = crashes.parse()?;
    }
    let role = match std::env::var("DOORSTEP_AMQP_URL") {
        Ok(url) => {
            let mut settings = run_settings(&url, &[WORKS]);
            settings.limits = limits;
            runner::start_with_tasks(Works, tasks, store, settings)
        }
        Err(_) => {
            // An address without a listener.
            let mut settings = run_settings("amqp://127.0.0.1:1", &[]);
            settings.limits = limits;
            runner::start_without_queue(Works, tasks, store, settings)
        }
    };
    role.join().await?;
    Ok(())
}
