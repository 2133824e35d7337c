//! What is said where the user wanted to stop.

use doorstep_cli::{CliError, ExitReason};

/// What is said where a second signal ends the program at once.
pub(crate) fn ended_at_once() {
    eprintln!(
        "error: ended at once: what was under way may have arrived; sending it again changes nothing"
    );
}

/// The end by the user's wish.
pub(crate) fn interrupted(so_far: &str) -> CliError {
    CliError::new(ExitReason::Interrupted, format!("interrupted: {so_far}"))
}

/// The end by the user's wish before anything was sent.
pub(crate) fn nothing_sent() -> CliError {
    interrupted("nothing was sent yet")
}
