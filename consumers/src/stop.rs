//! The message of a second stop signal, which ends the program at once.

pub(crate) fn ended_at_once() {
    tracing::warn!("ended at once: what was not settled comes again");
}
