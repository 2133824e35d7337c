//! The comparison of synchronous and asynchronous: the same checkouts and the same tracking updates, done both ways by the same consumers,
//! measured while these are well, slow, overloaded and down.
//!
//! - [`args`] is what can be typed, and [`settings`] what it means.
//! - [`comparison`] measures every scenario both ways; [`run`] measures one of them.
//! - [`items`] is what users want, and when; [`load`] lets them want it; [`scenario`] is what is compared.
//! - [`work`] is the two roles, [`worker`] the process that runs them, and [`consumer_process`] starts and kills it.
//! - [`completions`] is what the roles' stores say.
//! - [`stats`] and [`verdict`] are pure; [`report`], [`table`] and [`chart`] show them.
//!
//! All of it happens in a namespace of its own and in a temporary folder, and both are deleted in the end. The broker is only used.

mod args;
mod chart;
mod comparison;
mod completions;
mod consumer_process;
mod items;
mod load;
mod progress;
mod report;
mod run;
mod scenario;
mod settings;
mod stats;
mod table;
mod verdict;
mod work;
mod worker;

use std::process::ExitCode;

use doorstep_cli::{CliError, ShutdownSignal, output::SuspendBar, start};

use crate::args::{Cli, Job};

/// Default log filter: without the reports of `doorstep_messaging` and lapin on connections, which end with the consumers.
const DEFAULT_FILTER: &str = "warn,doorstep_messaging=error,lapin=off";

fn main() -> ExitCode {
    match start::parse::<Cli>(DEFAULT_FILTER) {
        Ok(cli) => start::exit_code(begin(cli)),
        Err(code) => code,
    }
}

fn begin(cli: Cli) -> Result<(), CliError> {
    let (telemetry, job) = cli.check()?;
    // Lasts to the end, where the last spans are handed over.
    let _tracing = telemetry.start("doorstep-compare", SuspendBar);
    start::run(run(job))
}

async fn run(job: Job) -> Result<(), CliError> {
    let stop = ShutdownSignal::listen(ended_at_once)?;
    match job {
        Job::Compare(settings) => comparison::run(settings, stop).await,
        Job::Work(settings) => worker::work(settings).await,
    }
}

/// Message printed when a second signal ends the program at once.
fn ended_at_once() {
    eprintln!("error: ended at once: what is left on the broker begins with the name above");
}
