//! From the command line to the exit code.

use std::{env, pin::Pin, process::ExitCode};

use clap::{CommandFactory, FromArgMatches, error::Error};
use doorstep_telemetry::log;
use tokio::runtime::Runtime;
use tracing_subscriber::fmt::MakeWriter;

use crate::{
    CliError, ExitReason, SettingsErrors,
    args::TelemetrySettings,
    completions::{print_if_asked, with_completions},
};

/// The work of a command, ready to begin.
pub type Work = Pin<Box<dyn Future<Output = Result<(), CliError>> + Send>>;

/// Returns the work of a command whose settings are valid.
#[allow(
    clippy::unnecessary_wraps,
    reason = "the value of a check that has found no error"
)]
pub fn work(work: impl Future<Output = Result<(), CliError>> + Send + 'static) -> Option<Work> {
    Some(Box::pin(work))
}

/// Runs a program: parses its command line, has it checked as a whole, starts log and traces in the name of `service`, and does its work.
pub fn program<C, W>(
    filter: &'static str,
    service: &'static str,
    log_to: W,
    check: impl FnOnce(C, &mut SettingsErrors) -> Option<(TelemetrySettings, Work)>,
) -> ExitCode
where
    C: CommandFactory + FromArgMatches,
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let program = match parse(filter) {
        Ok(program) => program,
        Err(code) => return code,
    };
    let mut errors = SettingsErrors::of_arguments();
    let checked = check(program, &mut errors);
    exit_code(errors.into_result(checked).and_then(|(telemetry, work)| {
        // Kept to the end, when the last spans are exported.
        let _tracing = telemetry.start(service, log_to);
        run(work)
    }))
}

/// Parses the command line of a program that takes [`crate::args::TelemetryArgs`]; `log` is its default filter.
///
/// # Errors
/// The exit code, if the arguments are invalid, or help, the version or a shell's completions were printed.
fn parse<C: CommandFactory + FromArgMatches>(log: &'static str) -> Result<C, ExitCode> {
    let mut program = with_completions(C::command()).mut_arg("log", |arg| arg.default_value(log));
    let typed = program.try_get_matches_from_mut(env::args_os());
    if let Ok(typed) = &typed
        && print_if_asked(&mut program, typed)
    {
        return Err(ExitCode::SUCCESS);
    }
    let read = typed.and_then(|typed| C::from_arg_matches(&typed));
    read.map_err(|error: Error| {
        // Help and version come as errors, too.
        let _ = error.print();
        let is_wrong = error.use_stderr();
        ExitCode::from(if is_wrong {
            ExitReason::Settings.code()
        } else {
            0
        })
    })
}

/// Runs a program's work to its end on a runtime of its own.
///
/// # Errors
/// The failure of the work; [`ExitReason::Internal`] if it panicked.
fn run(work: impl Future<Output = Result<(), CliError>> + Send + 'static) -> Result<(), CliError> {
    let runtime =
        Runtime::new().map_err(|e| CliError::failed(format!("cannot start the runtime: {e}")))?;
    // Spawned as a task: a future in `block_on` itself runs outside the runtime's threads and is woken slowly.
    let done = runtime.block_on(async { tokio::spawn(work).await });
    // A blocked thread, such as one that reads input, must not keep the program from ending.
    runtime.shutdown_background();
    done.map_err(|e| CliError::internal(format!("broke off: {e}")))?
}

/// Returns the exit code, and prints a failure on standard error.
fn exit_code(result: Result<(), CliError>) -> ExitCode {
    log::end();
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("error: {failure}");
            ExitCode::from(failure.reason.code())
        }
    }
}
