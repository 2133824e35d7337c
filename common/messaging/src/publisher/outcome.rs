//! The outcomes of a publish.

/// What became of a message. Everything but `Confirmed` may be sent again, with the same id: it may have been published all the
/// same, and whoever consumes it tells by the id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum PublishOutcome {
    /// The broker has it, on disk in every queue that wants it.
    Confirmed,
    /// No queue wants it; it is nowhere.
    Unroutable,
    /// A queue refused it, being full for instance.
    Refused,
    /// The broker has not said in time.
    TimedOut,
    /// The connection is away, or broke before the broker had said.
    Disconnected,
    /// The broker takes nothing for now, usually for want of memory or disk.
    Blocked,
    /// The broker closed the channel over this message alone: its user may not publish it, or it is too large. The words are in
    /// [`last_refusal`](crate::ConnectionStatus::last_refusal). If several messages were under way, all of them are `Disconnected`; sent one by one, the message
    /// concerned gets this.
    Unpublishable,
}

impl PublishOutcome {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Confirmed => "confirmed",
            Self::Unroutable => "unroutable",
            Self::Refused => "refused",
            Self::TimedOut => "timed_out",
            Self::Disconnected => "disconnected",
            Self::Blocked => "blocked",
            Self::Unpublishable => "unpublishable",
        }
    }
}
