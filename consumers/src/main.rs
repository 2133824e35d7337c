//! Doorstep's consumers. `cli` has the arguments, `settings` their validation, `commands` the work, and `roles` the
//! consumers of events.

mod cli;
mod commands;
mod exit_codes;
mod format;
mod idle;
mod output_format;
mod progress;
mod roles;
mod settings;
mod stop;
mod stores;

use std::{io, process::ExitCode};

use doorstep_cli::{CliError, start};

use crate::{
    cli::Cli,
    commands::{
        dead_letters, export, health as health_command, run, show, sources, status, store, streams,
        topology,
    },
    settings::{Action, Settings},
};

/// The default filter of the log.
const DEFAULT_FILTER: &str = "info";

fn main() -> ExitCode {
    match start::parse::<Cli>(DEFAULT_FILTER) {
        Ok(cli) => start::exit_code(begin(cli)),
        Err(code) => code,
    }
}

fn begin(cli: Cli) -> Result<(), CliError> {
    let settings = Settings::check(cli)?;
    // Kept to the end, when the last spans are exported.
    let _tracing = settings.telemetry.start("doorstep-consumers", io::stderr);
    start::run(work(settings.job))
}

async fn work(job: Action) -> Result<(), CliError> {
    match job {
        Action::Run(job) => run::run(*job).await,
        Action::Status {
            roles,
            folder,
            broker,
            form,
        } => status::status(&roles, &folder, &broker, form).await,
        Action::Health {
            address,
            question,
            form,
        } => health_command::health(address, question, form).await,
        Action::Show { place, key, form } => show::show(&place, &key, form).await,
        Action::Export { place, output } => export::export(&place, output).await,
        Action::DeadLetters(job) => dead_letters::work(*job).await,
        Action::SkipGap {
            place,
            gap,
            by,
            mode,
        } => streams::skip_gap(&place, &gap, &by, mode).await,
        Action::Store(job) => store::work(job).await,
        Action::SourcesList { place, form } => sources::list(&place, form).await,
        Action::SourcesTransfer {
            place,
            source,
            to,
            former,
            by,
        } => sources::transfer(&place, &source, &to, former, &by).await,
        Action::TopologyShow { namespace, form } => topology::show(&namespace, form),
        Action::TopologyDefinitions {
            namespace,
            vhost,
            users_of,
        } => topology::definitions(&namespace, &vhost, users_of.as_ref()),
        Action::TopologyVerify(job) => topology::verify(&job).await,
        Action::TopologyPermissions { asked, form } => topology::permissions(&asked, form),
    }
}
