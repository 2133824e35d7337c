//! The outcomes of a publish.

use strum::IntoStaticStr;

/// The outcome of a publish. Any message except a `Confirmed` one may be resent with the same id: it may have been published after all, and
/// consumers recognize the duplicate by its id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, IntoStaticStr)]
#[strum(serialize_all = "snake_case")]
pub enum PublishOutcome {
    /// The broker has stored it in every queue bound to it.
    Confirmed,
    /// No queue is bound for it; the broker dropped it.
    Unroutable,
    /// A queue rejected it, for example because it is full.
    Rejected,
    /// No confirm within the timeout.
    TimedOut,
    /// There is no connection, or it broke before the confirm.
    Disconnected,
    /// The broker blocks publishing, usually for lack of memory or disk.
    Blocked,
    /// The broker closed the channel because of this message alone: its user may not publish it, or it is too large. The text is in
    /// [`last_rejection`](crate::ConnectionStatus::last_rejection). If several messages were in flight, all of them are `Disconnected`;
    /// when they are resent one by one, the bad message gets this.
    Unpublishable,
}

impl PublishOutcome {
    pub(super) fn as_str(self) -> &'static str {
        self.into()
    }
}
