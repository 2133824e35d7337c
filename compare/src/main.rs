//! The comparison of synchronous and asynchronous processing. The same consumers do the same checkouts and tracking
//! updates both ways, while they are healthy, slow, overloaded and down.
//!
//! - [`args`] defines the command line, and [`settings`] its meaning.
//! - [`comparison`] measures every scenario in both modes; [`run`] measures one of them.
//! - [`items`] is the load, [`load`] sends it, and [`scenario`] names scenarios and modes.
//! - [`work`] is the two roles, [`worker`] the process that runs them, and [`consumer_process`] starts and kills it.
//! - [`store_reader`] reads the roles' stores.
//! - [`stats`] and [`verdict`] are pure; [`report`], [`table`] and [`chart`] show them.
//!
//! The comparison uses a namespace of its own and a temporary folder, and deletes both at the end. It changes nothing
//! else on the broker.

mod args;
mod chart;
mod comparison;
mod consumer_process;
mod items;
mod load;
mod progress;
mod report;
mod run;
mod scenario;
mod settings;
mod stats;
mod store_reader;
mod table;
mod verdict;
mod work;
mod worker;

use std::process::ExitCode;

use doorstep_cli::{output::SuspendBar, start};

use crate::args::Cli;

/// Default log filter: without the reports of `doorstep_messaging` and lapin on connections, which end with the consumers.
const DEFAULT_FILTER: &str = "warn,doorstep_messaging=error,lapin=off";

fn main() -> ExitCode {
    start::program(DEFAULT_FILTER, "doorstep-compare", SuspendBar, Cli::check)
}

/// Message printed when a second signal ends the program at once.
fn ended_at_once() {
    eprintln!("error: ended at once: all names left on the broker begin with the one above");
}
