//! Who waits for which outcomes: one entry for each call, however many messages it brought.

use std::sync::Arc;

use tokio::sync::oneshot;

use super::{PublishOutcome, sequence_map::SequenceMap};
use crate::{counts::PublisherCounters, message::Message};

/// One call: messages in, as many outcomes back.
#[derive(Debug)]
pub(super) struct PublishCall {
    pub(super) messages: Vec<Message>,
    pub(super) done: oneshot::Sender<Vec<PublishOutcome>>,
}

/// A message's place in its call.
#[derive(Debug, Clone, Copy)]
pub(super) struct MessageIndex {
    job: u64,
    index: usize,
}

/// The calls that are not answered yet.
#[derive(Debug)]
pub(super) struct PublishCalls {
    open: SequenceMap<PendingCall>,
    /// The call whose messages go out now, and those of its messages that have not.
    current: Option<(u64, std::iter::Enumerate<std::vec::IntoIter<Message>>)>,
    counts: Arc<PublisherCounters>,
}

#[derive(Debug)]
struct PendingCall {
    outcomes: Vec<PublishOutcome>,
    missing: usize,
    done: oneshot::Sender<Vec<PublishOutcome>>,
}

impl PublishCalls {
    pub(super) fn new(counts: Arc<PublisherCounters>) -> Self {
        Self {
            open: SequenceMap::new(),
            current: None,
            counts,
        }
    }

    /// Whether another call may be taken in: one after the other, so that their messages keep their order.
    pub(super) fn wants_more(&self) -> bool {
        self.current.is_none()
    }

    /// Whether nobody waits for anything.
    pub(super) fn is_empty(&self) -> bool {
        self.open.is_empty()
    }

    pub(super) fn take_in(&mut self, job: PublishCall) {
        let count = job.messages.len();
        let number = self.open.push(PendingCall {
            // Overwritten one by one; the call is only answered when all are.
            outcomes: vec![PublishOutcome::Disconnected; count],
            missing: count,
            done: job.done,
        });
        self.current = Some((number, job.messages.into_iter().enumerate()));
    }

    /// The next message to go out.
    pub(super) fn next_message(&mut self) -> Option<(MessageIndex, Message)> {
        let (job, messages) = self.current.as_mut()?;
        let job = *job;
        let next = messages.next();
        if messages.len() == 0 {
            self.current = None;
        }
        next.map(|(index, message)| (MessageIndex { job, index }, message))
    }

    /// Notes an outcome and answers the call if it was the last one missing.
    pub(super) fn resolve(&mut self, place: MessageIndex, outcome: PublishOutcome) {
        let Some(open) = self.open.get_mut(place.job) else {
            return;
        };
        self.counts.resolved(outcome);
        open.outcomes[place.index] = outcome;
        open.missing -= 1;
        if open.missing == 0
            && let Some(open) = self.open.take(place.job)
        {
            // Whoever has gone away does not want to know.
            let _ = open.done.send(open.outcomes);
        }
    }

    /// Resolves every message that has not gone out.
    pub(super) fn resolve_waiting(&mut self, outcome: PublishOutcome) {
        while let Some((place, _)) = self.next_message() {
            self.resolve(place, outcome);
        }
    }
}
