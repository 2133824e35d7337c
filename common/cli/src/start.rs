//! From the command line to the exit code.

use std::process::ExitCode;

use clap::{CommandFactory, FromArgMatches, error::Error};
use doorstep_telemetry::log;
use tokio::runtime::Runtime;

use crate::{CliError, ExitReason};

/// Parses the command line of a program that takes [`crate::args::TelemetryArgs`]; `log` is its default filter.
///
/// # Errors
/// The exit code, if the arguments are invalid, or help or the version was printed.
pub fn parse<C: CommandFactory + FromArgMatches>(log: &'static str) -> Result<C, ExitCode> {
    let read = C::command()
        .mut_arg("log", |arg| arg.default_value(log))
        .try_get_matches()
        .and_then(|matches| C::from_arg_matches(&matches));
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
pub fn run(
    work: impl Future<Output = Result<(), CliError>> + Send + 'static,
) -> Result<(), CliError> {
    let runtime = Runtime::new()
        .map_err(|e| CliError::new(ExitReason::Failed, format!("cannot start the runtime: {e}")))?;
    // Spawned as a task: a future in `block_on` itself runs outside the runtime's threads and is woken slowly.
    let done = runtime.block_on(async { tokio::spawn(work).await });
    // A blocked thread, such as one that reads input, must not keep the program from ending.
    runtime.shutdown_background();
    done.map_err(|e| CliError::new(ExitReason::Internal, format!("broke off: {e}")))?
}

/// Returns the exit code, and prints a failure on standard error.
pub fn exit_code(result: Result<(), CliError>) -> ExitCode {
    log::end();
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("error: {failure}");
            ExitCode::from(failure.reason.code())
        }
    }
}
