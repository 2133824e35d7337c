//! Doorstep's HTTP gateway: wiring only. `cli` defines the command line, `settings` validates it, and `commands` runs
//! it.
//!
//! - [`routes`] has one file for each resource, and [`http`] the transport.
//! - [`checkout`] places orders, and recovers those that another process left.
//! - [`domain`] is the gateway's own role: users, orders and deliveries.
//! - [`auth`] authenticates users: passwords, tokens and the key that signs them.
//! - [`limits`] has every limit, from connections to login attempts.

mod access_log;
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
mod limits;
mod openapi;
mod outages;
mod readiness_issue;
#[cfg(test)]
mod reference;
mod report_files;
mod repository;
mod routes;
mod settings;
mod user_cache;

use std::{io, process::ExitCode};

use doorstep_cli::start;

use crate::cli::Cli;

/// Default log filter. It leaves out the reports of `doorstep_messaging` and lapin on the connection, which the gateway
/// logs as an outage.
const DEFAULT_FILTER: &str = "warn,doorstep_messaging=error,lapin=off";

fn main() -> ExitCode {
    start::program(
        DEFAULT_FILTER,
        "doorstep-gateway",
        io::stderr,
        |cli: Cli, wrong| {
            let telemetry = cli.telemetry.check(wrong);
            telemetry.zip(settings::prepare(cli.command, wrong))
        },
    )
}

/// Message printed when a second signal ends the program at once.
fn ended_at_once() {
    eprintln!(
        "error: ended at once: requests in flight may have taken effect; sending them again changes nothing"
    );
}
