//! Doorstep's producer: wiring only. What can be typed is in `cli`, what it means in `settings`, what is done in `import`, `publish` and
//! `demo`.

mod again;
mod chunk;
mod cli;
mod demo;
mod failure;
mod import;
mod lines;
mod output;
mod progress;
mod publish;
mod send;
mod settings;
mod stop;
mod tally;
mod telemetry;

use std::process::ExitCode;

use clap::Parser;
use tokio::runtime::Runtime;

use crate::{
    cli::Cli,
    failure::{Failure, Reason},
    import::{Pickups, Retail},
    settings::{Job, Settings},
    stop::Stop,
};

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version come as errors, too.
            let _ = error.print();
            let is_wrong = error.use_stderr();
            return ExitCode::from(if is_wrong { Reason::Settings.code() } else { 0 });
        }
    };
    match start(cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("error: {failure}");
            ExitCode::from(failure.reason.code())
        }
    }
}

fn start(cli: Cli) -> Result<(), Failure> {
    let settings = Settings::check(cli)?;
    // Lasts to the end, where the last spans are handed over.
    let _tracing = telemetry::start(settings.telemetry);
    let runtime = Runtime::new()
        .map_err(|e| Failure::new(Reason::Failed, format!("cannot start the runtime: {e}")))?;
    // In a task, since what runs in `block_on` itself runs beside the runtime's threads and is slow to hear from them.
    let done = runtime.block_on(async { tokio::spawn(run(settings.job)).await });
    // A thread that waits for input must not keep the program from ending.
    runtime.shutdown_background();
    done.map_err(|e| Failure::new(Reason::Failed, format!("broke off: {e}")))?
}

async fn run(job: Job) -> Result<(), Failure> {
    let stop = Stop::listen()?;
    match job {
        Job::Retail(settings, output) => {
            import::run(Retail::default(), settings, output, stop).await
        }
        Job::Pickups(settings, calendar, output) => {
            import::run(Pickups::new(calendar), settings, output, stop).await
        }
        Job::Publish(file, output) => publish::run(file, output, stop).await,
        Job::Demo(settings) => demo::run(settings, stop).await,
    }
}
