//! Doorstep's HTTP gateway: wiring only. `cli` defines the command line, `settings` validates it, and `commands` runs
//! it.
//!
//! - [`routes`] has one file for each resource, and [`http`] the transport.
//! - [`checkout`] places orders, and recovers those that another process left.
//! - [`domain`] is the gateway's own role: users, orders and deliveries.
//! - [`auth`] authenticates users: passwords, tokens and the key that signs them.
//! - [`limits`] has every limit, from connections to login attempts.

mod app;
mod auth;
mod backends;
mod checkout;
mod cli;
mod commands;
mod domain;
mod error_mapping;
mod exit_codes;
mod feeds;
mod http;
mod issue;
mod limits;
mod openapi;
mod outages;
#[cfg(test)]
mod reference;
mod repository;
mod routes;
mod settings;
mod user_cache;

use std::{io, process::ExitCode};

use doorstep_cli::{CliError, ShutdownSignal, start};

use crate::{
    cli::Cli,
    commands::{serve, store, user},
    settings::{Job, Settings},
};

/// Default log filter: without the reports of `doorstep_messaging` and lapin on the connection, which is logged as an outage.
const DEFAULT_FILTER: &str = "warn,doorstep_messaging=error,lapin=off";

fn main() -> ExitCode {
    match start::parse::<Cli>(DEFAULT_FILTER) {
        Ok(cli) => start::exit_code(begin(cli)),
        Err(code) => code,
    }
}

fn begin(cli: Cli) -> Result<(), CliError> {
    let settings = Settings::check(cli)?;
    // Stays until the end, when the last spans are exported.
    let _tracing = settings.telemetry.start("doorstep-gateway", io::stderr);
    start::run(run(settings.job))
}

async fn run(job: Job) -> Result<(), CliError> {
    let stop = ShutdownSignal::listen(ended_at_once)?;
    match job {
        Job::Serve(settings) => serve::run(*settings, stop).await,
        Job::OpenApi => serve::print_openapi(),
        Job::User(job) => user::run(job).await,
        Job::Store(folder, job) => store::run(&folder, job).await,
    }
}

/// Message printed when a second signal ends the program at once.
fn ended_at_once() {
    eprintln!(
        "error: ended at once: requests in flight may have taken effect; sending them again changes nothing"
    );
}
