//! Pending publish calls: one entry per call, regardless of its number of messages.

use std::sync::Arc;

use tokio::sync::oneshot;

use super::{
    PublishOutcome, message::Message, sequence_map::SequenceMap, stats::PublisherCounters,
};

/// A call: messages in, one outcome each back.
#[derive(Debug)]
pub(super) struct PublishCall {
    pub(super) messages: Vec<Message>,
    pub(super) done: oneshot::Sender<Vec<PublishOutcome>>,
}

/// A message's position in its call.
#[derive(Debug, Clone, Copy)]
pub(super) struct MessageIndex {
    call: u64,
    index: usize,
}

/// Calls without a complete result.
#[derive(Debug)]
pub(super) struct PublishCalls {
    open: SequenceMap<PendingPublish>,
    /// The call whose messages are being sent, and its unsent messages.
    current: Option<(u64, std::iter::Enumerate<std::vec::IntoIter<Message>>)>,
    counters: Arc<PublisherCounters>,
}

#[derive(Debug)]
struct PendingPublish {
    outcomes: Vec<PublishOutcome>,
    missing: usize,
    done: oneshot::Sender<Vec<PublishOutcome>>,
}

impl PublishCalls {
    pub(super) fn new(counters: Arc<PublisherCounters>) -> Self {
        Self {
            open: SequenceMap::new(),
            current: None,
            counters,
        }
    }

    /// Returns whether another call may start. Calls are sent one after the other, so that their messages keep their order.
    pub(super) fn wants_more(&self) -> bool {
        self.current.is_none()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.open.is_empty()
    }

    pub(super) fn start(&mut self, call: PublishCall) {
        let count = call.messages.len();
        let number = self.open.push(PendingPublish {
            // Overwritten one by one; the call completes only when all are.
            outcomes: vec![PublishOutcome::Disconnected; count],
            missing: count,
            done: call.done,
        });
        self.current = Some((number, call.messages.into_iter().enumerate()));
    }

    /// Returns the next message to send.
    pub(super) fn next_message(&mut self) -> Option<(MessageIndex, Message)> {
        let (call, messages) = self.current.as_mut()?;
        let call = *call;
        let next = messages.next();
        if messages.len() == 0 {
            self.current = None;
        }
        next.map(|(index, message)| (MessageIndex { call, index }, message))
    }

    /// Records an outcome, and completes the call if it was the last.
    pub(super) fn resolve(&mut self, position: MessageIndex, outcome: PublishOutcome) {
        let Some(open) = self.open.get_mut(position.call) else {
            return;
        };
        self.counters.resolved(outcome);
        open.outcomes[position.index] = outcome;
        open.missing -= 1;
        if open.missing == 0
            && let Some(open) = self.open.take(position.call)
        {
            // Fails if the caller was dropped, which is fine.
            let _ = open.done.send(open.outcomes);
        }
    }

    pub(super) fn resolve_waiting(&mut self, outcome: PublishOutcome) {
        while let Some((position, _)) = self.next_message() {
            self.resolve(position, outcome);
        }
    }
}
