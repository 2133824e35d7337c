//! The broker's verdict on each message published on a channel, with returned messages matched to their publishes.
//!
//! A message is first handed to lapin ([`UnwrittenPublishes`]), then written, then confirmed.
//!
//! # Matching returned messages
//! The broker returns an unroutable message before it confirms it. lapin attaches a return to the next confirm that completes, and a
//! confirm of several messages completes them in the order of a hash map. So message A, which was returned, may complete as a plain ack
//! while its return is attached to B's confirm. Therefore returns are matched by exchange, routing key and message id, and no message is
//! decided before every confirm that may carry its return has been checked:
//!
//! 1. Take every completed confirm.
//! 2. The barrier. lapin completes all messages of one ack frame on its own thread, under the lock of its `Acknowledgements`, and A may
//!    have completed in the middle of that. `wait_for_confirms` takes the same lock, so after one poll the current frame is complete,
//!    including B. (It then waits for later confirms, possibly forever, so it is polled once and dropped.) A's return cannot be attached to
//!    a confirm of a later frame: returns are attached in order, one per confirm, and the broker confirms returned messages in the order in
//!    which it returned them. So at the end of A's frame, A and all messages returned before A are confirmed: enough confirms to carry all
//!    their returns.
//! 3. Take every confirm completed by now, and collect the returns of both rounds.
//! 4. Decide the first round. The second round waits for the next barrier.

use std::{
    collections::HashMap,
    future::Future,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, Wake, Waker},
};

use futures_util::{FutureExt, Stream, stream::FuturesUnordered};
use lapin::{Channel, Confirmation, PublisherConfirm, message::BasicReturnMessage};

use super::{PublishOutcome, sequence_map::SequenceMap, write_queue::UnwrittenPublishes};
use crate::{
    connection::error::{broker_reply, reply},
    publisher::message::{Returned, Sent},
};

/// A completed confirm: the message's number and lapin's result.
pub(super) type Completed = (u64, lapin::Result<Confirmation>);

/// The verdict on a message.
pub(super) enum Verdict {
    Confirmed(PublishOutcome),
    /// The channel ended or is not in confirm mode, for this reason.
    Broken(String, Ended),
}

/// The extent of a channel's end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ended {
    /// The broker closed only the channel.
    ChannelAlone,
    /// The broker closed only the channel, because of one of its messages.
    OverMessage,
    /// The connection, as far as is known.
    Connection,
}

/// In-flight messages, by number. `F` is the future that hands a message to lapin.
pub(super) struct Confirms<F> {
    unwritten: UnwrittenPublishes<F>,
    pending: FuturesUnordered<PendingConfirm>,
    /// Completed, undecided: waiting for a barrier.
    undecided: Vec<Completed>,
    returned: Returns,
}

impl<F: Future<Output = lapin::Result<PublisherConfirm>>> Confirms<F> {
    pub(super) fn new() -> Self {
        Self {
            unwritten: UnwrittenPublishes::new(),
            pending: FuturesUnordered::new(),
            undecided: Vec::new(),
            returned: Returns::default(),
        }
    }

    /// Returns the number of messages without a confirm, including those whose callers have given up.
    pub(super) fn pending(&self) -> usize {
        self.unwritten.len() + self.pending.len()
    }

    pub(super) fn push(&mut self, number: u64, publish: F) {
        if let Some(written) = self.unwritten.push(number, publish) {
            self.written(number, written);
        }
    }

    /// Waits until at least one message has completed. Cancel-safe: completed messages are kept.
    pub(super) async fn some_completed(&mut self) {
        std::future::poll_fn(|cx| {
            self.take_written(cx);
            if !self.undecided.is_empty() {
                return Poll::Ready(());
            }
            match Pin::new(&mut self.pending).poll_next(cx) {
                Poll::Ready(Some(completed)) => {
                    self.undecided.push(completed);
                    Poll::Ready(())
                }
                // Nothing is in flight, so nothing can complete.
                Poll::Ready(None) | Poll::Pending => Poll::Pending,
            }
        })
        .await;
    }

    /// Decides all completed messages: records the returns, then passes each message to `decided`.
    pub(super) fn decide<T>(
        &mut self,
        channel: &Channel,
        in_flight: &mut SequenceMap<T>,
        mut decided: impl FnMut(&Returns, &mut SequenceMap<T>, Completed),
    ) {
        self.take_completed();
        let mut recorded = 0;
        while !self.undecided.is_empty() {
            let first_round = self.undecided.len();
            let _ = channel.wait_for_confirms().now_or_never();
            self.take_completed();
            for (_, confirmation) in &mut self.undecided[recorded..] {
                self.returned.record(confirmation, in_flight.next_number());
            }
            for completed in self.undecided.drain(..first_round) {
                decided(&self.returned, in_flight, completed);
            }
            // The second round is the first of the next iteration; its returns are recorded.
            recorded = self.undecided.len();
        }
        self.returned.forget_before(in_flight.first_number());
    }

    /// Takes every completed confirm. After a number of polls, the set may report pending although a confirm is ready; it then wakes its
    /// poller. So pending is trusted only without a wake-up.
    fn take_completed(&mut self) {
        let flag = Arc::new(WokenFlag(AtomicBool::new(false)));
        let waker = Waker::from(flag.clone());
        let mut context = Context::from_waker(&waker);
        loop {
            self.take_written(&mut context);
            match Pin::new(&mut self.pending).poll_next(&mut context) {
                Poll::Ready(Some(completed)) => {
                    self.undecided.push(completed);
                }
                Poll::Pending if flag.0.swap(false, Ordering::AcqRel) => {}
                Poll::Ready(None) | Poll::Pending => return,
            }
        }
    }

    /// Adds the confirms of all messages written by now.
    fn take_written(&mut self, context: &mut Context<'_>) {
        while let Some((number, written)) = self.unwritten.poll_oldest(context) {
            self.written(number, written);
        }
    }

    fn written(&mut self, number: u64, written: lapin::Result<PublisherConfirm>) {
        match written {
            Ok(confirm) => self.pending.push(PendingConfirm { number, confirm }),
            Err(error) => self.undecided.push((number, Err(error))),
        }
    }
}

struct PendingConfirm {
    number: u64,
    confirm: PublisherConfirm,
}

impl Future for PendingConfirm {
    type Output = Completed;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Completed> {
        let number = self.number;
        Pin::new(&mut self.confirm)
            .poll(cx)
            .map(|confirmation| (number, confirmation))
    }
}

struct WokenFlag(AtomicBool);

impl Wake for WokenFlag {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::Release);
    }
}

/// Received returns, by message id.
#[derive(Default)]
pub(super) struct Returns(HashMap<String, Vec<(Returned, u64)>>);

impl Returns {
    /// Takes the return off a confirm. Every in-flight message with that exchange, key and id counts as returned. If there are two,
    /// resending one needlessly does no harm, while the opposite would lose one.
    fn record(&mut self, confirmation: &mut lapin::Result<Confirmation>, next_number: u64) {
        if let Ok(Confirmation::Ack(message) | Confirmation::Nack(message)) = confirmation
            && let Some(message) = message.take()
        {
            let returned = returned(&message);
            self.0
                .entry(returned.message_id.clone())
                .or_default()
                .push((returned, next_number));
        }
    }

    /// Returns whether the message with this number was returned.
    fn contains(&self, number: u64, sent: &Sent) -> bool {
        // Almost always empty, so the id need not be hashed.
        !self.0.is_empty()
            && self.0.get(sent.message_id()).is_some_and(|returns| {
                returns
                    .iter()
                    .any(|(returned, before)| number < *before && sent.matches(returned))
            })
    }

    fn forget_before(&mut self, first_in_flight: u64) {
        if !self.0.is_empty() {
            self.0.retain(|_, returns| {
                returns.retain(|(_, before)| first_in_flight < *before);
                !returns.is_empty()
            });
        }
    }

    /// Returns the verdict of a completed confirm on its message.
    pub(super) fn verdict(
        &self,
        number: u64,
        sent: &Sent,
        confirmation: lapin::Result<Confirmation>,
    ) -> Verdict {
        match confirmation {
            Ok(Confirmation::Ack(_) | Confirmation::Nack(_)) if self.contains(number, sent) => {
                Verdict::Confirmed(PublishOutcome::Unroutable)
            }
            Ok(Confirmation::Ack(_)) => Verdict::Confirmed(PublishOutcome::Confirmed),
            Ok(Confirmation::Nack(_)) => Verdict::Confirmed(PublishOutcome::Rejected),
            Ok(Confirmation::NotRequested) => {
                let reason = "the channel is not in confirm mode".to_owned();
                Verdict::Broken(reason, Ended::Connection)
            }
            Err(error) => {
                let ended = if !error.is_amqp_soft_error() {
                    Ended::Connection
                } else if is_over_message(&error) {
                    Ended::OverMessage
                } else {
                    Ended::ChannelAlone
                };
                Verdict::Broken(crate::connection::describe(&error), ended)
            }
        }
    }
}

/// Returns whether a single message is the reason, by its routing key, queue or size. A missing permission on the whole exchange is not,
/// and neither is the user id, which all messages of a connection share.
fn is_over_message(error: &lapin::Error) -> bool {
    match broker_reply(error) {
        Some((reply::PRECONDITION_FAILED, text)) => !text.contains("user_id property set to"),
        Some((reply::ACCESS_REFUSED, text)) => {
            text.contains("access to topic") || text.contains("exchange 'amq.default'")
        }
        _ => false,
    }
}

fn returned(message: &BasicReturnMessage) -> Returned {
    Returned {
        by_default_exchange: message.exchange.as_str().is_empty(),
        routing_key: message.routing_key.as_str().to_owned(),
        message_id: message
            .properties
            .message_id()
            .as_ref()
            .map_or_else(String::new, |id| id.as_str().to_owned()),
    }
}
