//! The queues of a role, each on a connection of its own: a failure in the quarantine must not delay the main queue.

use doorstep_messaging::{AckOutcome, Batch, ChannelId, QueueName, Subscription};

/// The subscriptions of a role.
#[derive(Clone, Copy)]
pub(super) struct Intake<'a> {
    pub(super) queue: &'a Subscription,
    pub(super) quarantine: &'a Subscription,
}

impl Intake<'_> {
    /// Waits for the next batch of either queue; neither can starve the other. Returns `None` once one of them is
    /// closed. Cancel-safe.
    pub(super) async fn next_batch(self, events: usize, bytes: usize) -> Option<Batch> {
        tokio::select! {
            batch = self.queue.next_batch(events, bytes) => batch,
            batch = self.quarantine.next_batch(events, bytes) => batch,
        }
    }

    /// Acks on the channel that the deliveries came by.
    pub(super) async fn ack(
        self,
        queue: &QueueName,
        channel: ChannelId,
        up_to_tag: u64,
    ) -> AckOutcome {
        let from = if self.quarantine.consumes(queue) {
            self.quarantine
        } else {
            self.queue
        };
        from.ack_up_to(channel, up_to_tag).await
    }

    pub(super) fn unacked(self) -> usize {
        self.queue.unacked() + self.quarantine.unacked()
    }
}
