//! Messages when the user stops the program.

use doorstep_cli::CliError;

/// Prints the message when a second signal ends the program at once.
pub(crate) fn ended_at_once() {
    eprintln!(
        "error: ended at once: events in flight may have arrived; sending them again changes nothing"
    );
}

/// Returns the error when the user stops the program.
pub(crate) fn interrupted(so_far: &str) -> CliError {
    CliError::interrupted(format!("interrupted: {so_far}"))
}

/// Returns the error when the user stops the program before any event was published.
pub(crate) fn nothing_sent() -> CliError {
    interrupted("nothing was sent yet")
}
