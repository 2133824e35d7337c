//! The message of a second stop signal, which ends the program at once.

pub(crate) fn ended_at_once() {
    tracing::warn!("ended at once: unacked deliveries will be redelivered");
}
