//! From the command line to the exit code.

use std::{env, process::ExitCode};

use clap::{CommandFactory, FromArgMatches, error::Error};
use doorstep_telemetry::log;
use tokio::runtime::Runtime;

use crate::{
    CliError, ExitReason,
    completions::{print_if_asked, with_completions},
};

/// Parses the command line of a program that takes [`crate::args::TelemetryArgs`]; `log` is its default filter.
///
/// # Errors
/// The exit code, if the arguments are invalid, or help, the version or a shell's completions were printed.
pub fn parse<C: CommandFactory + FromArgMatches>(log: &'static str) -> Result<C, ExitCode> {
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
