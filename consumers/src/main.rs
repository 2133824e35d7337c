//! Doorstep's consumers. `cli` has the arguments, `settings` their validation, `commands` the work, and `roles` the
//! consumers of events.

mod cli;
mod commands;
mod exit_codes;
mod format;
mod idle;
mod progress;
mod roles;
mod settings;
mod stores;

use std::{io, process::ExitCode};

use doorstep_cli::start;

use crate::cli::Cli;

/// The default filter of the log.
const DEFAULT_FILTER: &str = "info";

fn main() -> ExitCode {
    start::program(
        DEFAULT_FILTER,
        "doorstep-consumers",
        io::stderr,
        |cli: Cli, wrong| {
            let telemetry = cli.telemetry.check(wrong);
            telemetry.zip(settings::prepare(cli.command, wrong))
        },
    )
}
