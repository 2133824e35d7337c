//! Doorstep's consumers: wiring only. What can be typed is in `cli`, what it means in `settings`, what is done in `commands`, and who
//! applies events in `roles`.

mod cli;
mod commands;
mod failure;
mod health;
mod idle;
mod output;
mod progress;
mod roles;
mod settings;
mod stop;
mod stores;
mod telemetry;
mod text;

use std::process::ExitCode;

use clap::Parser;
use tokio::runtime::Runtime;

use crate::{
    cli::Cli,
    commands::{dead, export, health as health_command, run, show, status, topology},
    failure::{Failure, Reason},
    settings::{Job, Settings},
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
    let done = runtime.block_on(async { tokio::spawn(work(settings.job)).await });
    // Whatever still waits for something must not keep the program from ending.
    runtime.shutdown_background();
    done.map_err(|e| Failure::new(Reason::Internal, format!("broke off: {e}")))?
}

async fn work(job: Job) -> Result<(), Failure> {
    match job {
        Job::Run(job) => run::run(*job).await,
        Job::Status {
            roles,
            folder,
            broker,
            form,
        } => status::status(&roles, &folder, &broker, form).await,
        Job::Health {
            address,
            question,
            form,
        } => health_command::health(address, question, form).await,
        Job::Show { place, key, form } => show::show(&place, &key, form).await,
        Job::Export { place, output } => export::export(&place, output).await,
        Job::Dead(job) => dead::work(*job).await,
        Job::TopologyShow { namespace, form } => topology::show(&namespace, form),
        Job::TopologyDefinitions { namespace, vhost } => topology::definitions(&namespace, &vhost),
        Job::TopologyVerify {
            roles,
            broker,
            form,
        } => topology::verify(&roles, &broker, form).await,
        Job::TopologyPermissions { asked, form } => topology::permissions(&asked, form),
    }
}
