//! What is said where a second signal ends the program at once.

pub(crate) fn ended_at_once() {
    tracing::warn!("ended at once: what was not settled comes again");
}
