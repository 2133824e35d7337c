//! Doorstep's producer: wiring only. `cli` defines the command line, `settings` validates it, and `import`, `publish`
//! and `demo` run it.

mod chunk;
mod cli;
mod demo;
mod exit_codes;
mod import;
mod lines;
mod output;
mod progress;
mod publish;
mod publish_pipeline;
mod resend;
mod settings;
mod stop;
mod tally;

use std::process::ExitCode;

use doorstep_cli::{output::SuspendBar, start};

use crate::cli::Cli;

/// The default log filter. It leaves out the reports of `doorstep_messaging` and lapin on the connection, which the
/// sender prints for the user.
const DEFAULT_FILTER: &str = "warn,doorstep_messaging=error,lapin=off";

fn main() -> ExitCode {
    start::program(
        DEFAULT_FILTER,
        "doorstep-producer",
        SuspendBar,
        |cli: Cli, wrong| {
            let telemetry = cli.telemetry.check(wrong);
            telemetry.zip(settings::prepare(cli.command, wrong))
        },
    )
}
