//! What the broker says of each message that was published on a channel, returned messages matched to theirs.
//!
//! A message is first handed to the client ([`UnwrittenPublishes`]), then written, then confirmed.
//!
//! # Which message was returned
//! The broker returns an unroutable message before it confirms it. The client attaches a return to whichever confirm completes next,
//! and a confirm of several messages at once completes them in the order of a hash map: message A, which was returned, may complete
//! as a plain ack while its return hangs on B's confirm. So returns are matched by exchange, routing key and message id, and no
//! message is decided before every confirm that may carry its return has been looked at:
//!
//! 1. Take every confirm that is there.
//! 2. The barrier. The client completes all messages of one ack frame under the lock of its `Acknowledgements`, on its own thread,
//!    and A may have been seen in the middle of that. `wait_for_confirms` takes the same lock, so once it has been polled, the frame
//!    in progress is through, with B. (It would then wait for confirms yet to come, and may do so for good; so it is polled once and
//!    dropped.) A's return cannot hang on a confirm of a later frame: returns are attached first come first served, one to each
//!    confirm, and the broker confirms what it returned in the order in which it returned it. So by the end of A's frame, A and all
//!    that were returned before A are confirmed: confirms enough to carry all of their returns.
//! 3. Take every confirm that is there now, and collect all returns of both rounds.
//! 4. Decide the first round. What came with the second waits for the next barrier.

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
    error::{broker_reply, reply},
    message::{Returned, Sent},
};

/// A confirm that has completed: whose, and what the client made of it.
pub(super) type Completed = (u64, lapin::Result<Confirmation>);

/// What has been decided of a message.
pub(super) enum Verdict {
    /// The broker has spoken.
    Confirmed(PublishOutcome),
    /// The channel has ended or is not what we think it is, for this reason.
    Broken(String, Ended),
}

/// What has ended with a channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ended {
    /// Nothing but the channel, which the broker has closed.
    ChannelAlone,
    /// Nothing but the channel, which the broker has closed over one of its messages.
    OverMessage,
    /// The connection, as far as we know.
    Connection,
}

/// The messages on their way, by number. `F` is what hands a message to the client.
pub(super) struct Confirms<F> {
    handed: UnwrittenPublishes<F>,
    pending: FuturesUnordered<Pending>,
    /// Completed, not decided: waiting for a barrier.
    undecided: Vec<Completed>,
    returned: Returns,
}

impl<F: Future<Output = lapin::Result<PublisherConfirm>>> Confirms<F> {
    pub(super) fn new() -> Self {
        Self {
            handed: UnwrittenPublishes::new(),
            pending: FuturesUnordered::new(),
            undecided: Vec::new(),
            returned: Returns::default(),
        }
    }

    /// How many messages the broker has not spoken of, those included that nobody waits for any more.
    pub(super) fn pending(&self) -> usize {
        self.handed.len() + self.pending.len()
    }

    /// Hands a message to the client.
    pub(super) fn push(&mut self, number: u64, publish: F) {
        if let Some(written) = self.handed.push(number, publish) {
            self.written(number, written);
        }
    }

    /// Waits until at least one message has completed. Cancel-safe: what has completed is kept.
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
                // Nothing is on its way, so nothing can complete.
                Poll::Ready(None) | Poll::Pending => Poll::Pending,
            }
        })
        .await;
    }

    /// Decides all that has completed: returns are noted first, then each message is taken to `decided` with those noted.
    pub(super) fn decide<T>(
        &mut self,
        channel: &Channel,
        under_way: &mut SequenceMap<T>,
        mut decided: impl FnMut(&Returns, &mut SequenceMap<T>, Completed),
    ) {
        self.take_completed();
        let mut noted = 0;
        while !self.undecided.is_empty() {
            let first_round = self.undecided.len();
            let _ = channel.wait_for_confirms().now_or_never();
            self.take_completed();
            for (_, confirmation) in &mut self.undecided[noted..] {
                self.returned.note(confirmation, under_way.next_number());
            }
            for completed in self.undecided.drain(..first_round) {
                decided(&self.returned, under_way, completed);
            }
            // The second round has become the first of the next; its returns are noted.
            noted = self.undecided.len();
        }
        self.returned.forget_before(under_way.first_number());
    }

    /// Takes every confirm that is there. The set may say that nothing is ready although something is, after a while of polling; it
    /// then wakes whoever polls. So it is only believed if it did not.
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

    /// Waits for the confirms of what has been written by now.
    fn take_written(&mut self, context: &mut Context<'_>) {
        while let Some((number, written)) = self.handed.poll_oldest(context) {
            self.written(number, written);
        }
    }

    fn written(&mut self, number: u64, written: lapin::Result<PublisherConfirm>) {
        match written {
            Ok(confirm) => self.pending.push(Pending { number, confirm }),
            Err(error) => self.undecided.push((number, Err(error))),
        }
    }
}

/// A message that is written and not confirmed.
struct Pending {
    number: u64,
    confirm: PublisherConfirm,
}

impl Future for Pending {
    type Output = Completed;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Completed> {
        let number = self.number;
        Pin::new(&mut self.confirm)
            .poll(cx)
            .map(|word| (number, word))
    }
}

/// Notes that it was woken.
struct WokenFlag(AtomicBool);

impl Wake for WokenFlag {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::Release);
    }
}

/// The returns that have been seen, by message id.
#[derive(Default)]
pub(super) struct Returns(HashMap<String, Vec<(Returned, u64)>>);

impl Returns {
    /// Takes the return off a confirm. Every message of that exchange, key and id that is under way by now counts as returned: if
    /// there are two, sending one of them again without need does no harm, and the other way round would lose one.
    fn note(&mut self, confirmation: &mut lapin::Result<Confirmation>, next_number: u64) {
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

    /// Whether the message with this number was returned.
    fn contains(&self, number: u64, sent: &Sent) -> bool {
        // Almost always empty, and then the id need not be hashed.
        !self.0.is_empty()
            && self.0.get(sent.message_id()).is_some_and(|returns| {
                returns
                    .iter()
                    .any(|(returned, before)| number < *before && sent.is(returned))
            })
    }

    fn forget_before(&mut self, first_under_way: u64) {
        if !self.0.is_empty() {
            self.0.retain(|_, returns| {
                returns.retain(|(_, before)| first_under_way < *before);
                !returns.is_empty()
            });
        }
    }

    /// What a completed confirm says of its message.
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
            Ok(Confirmation::Nack(_)) => Verdict::Confirmed(PublishOutcome::Refused),
            Ok(Confirmation::NotRequested) => {
                let reason = "the channel does not confirm".to_owned();
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

/// Returns whether a message of the channel is the reason: its routing key, queue or size. A user that may not publish to the exchange at all is
/// no matter of a message, nor is a user id, which all messages of a connection share.
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
