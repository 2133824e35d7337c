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

use doorstep_cli::{CliError, ShutdownSignal, output::SuspendBar, start};

use crate::{
    cli::Cli,
    import::{Pickups, Retail},
    settings::{Job, Settings},
    stop::ended_at_once,
};

/// The default log filter. It leaves out the reports of `doorstep_messaging` and lapin on the connection, which the
/// sender prints for the user.
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
    let _tracing = settings.telemetry.start("doorstep-producer", SuspendBar);
    start::run(run(settings.job))
}

async fn run(job: Job) -> Result<(), CliError> {
    let stop = ShutdownSignal::listen(ended_at_once)?;
    match job {
        Job::Retail(settings, reading, output) => {
            import::run(Retail::new(reading), settings, output, stop).await
        }
        Job::Pickups(settings, calendar, output) => {
            import::run(Pickups::new(calendar), settings, output, stop).await
        }
        Job::Publish(file, output) => publish::run(file, output, stop).await,
        Job::Demo(settings) => demo::run(*settings, stop).await,
    }
}
