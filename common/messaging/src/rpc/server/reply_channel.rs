//! One connection's way back: replies are handed to the client without waiting, and acknowledgements follow when their reply is written.
//!
//! An acknowledgement that is handed over together with its reply may overtake it, since the client writes what has no body first. Were
//! the connection lost in between, the request would be gone and its reply, too. So the task looks now and then which replies are written,
//! and acknowledges their requests then: nobody waits for that.

use std::{
    collections::VecDeque,
    pin::Pin,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, Waker},
};

use bytes::Bytes;
use lapin::{
    BasicProperties, Channel, PublisherConfirm,
    options::{BasicAckOptions, BasicPublishOptions, BasicRejectOptions},
    types::ShortString,
};
use tokio::sync::Notify;

use super::cancellations::Cancellations;
use crate::short_string::short_string;

/// The channel by which requests came. They can be answered on no other.
#[derive(Debug)]
pub(super) struct ReplyChannel {
    channel: Channel,
    replies: Mutex<Replies>,
    /// There is something to sweep again.
    stirred: Notify,
    is_shut: AtomicBool,
    pub(super) cancels: Cancellations,
}

#[derive(Default)]
struct Replies {
    /// Handed to the client in this order, each with the tag of its request.
    handed: VecDeque<(u64, Writing)>,
    is_swept: bool,
}

/// A reply on its way; completes when it is written.
type Writing = Pin<Box<dyn Future<Output = lapin::Result<PublisherConfirm>> + Send>>;

impl std::fmt::Debug for Replies {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Replies")
            .field("handed", &self.handed.len())
            .finish_non_exhaustive()
    }
}

impl ReplyChannel {
    pub(super) fn new(channel: Channel) -> Self {
        Self {
            channel,
            replies: Mutex::default(),
            stirred: Notify::new(),
            is_shut: AtomicBool::new(false),
            cancels: Cancellations::default(),
        }
    }

    pub(super) fn channel(&self) -> &Channel {
        &self.channel
    }

    /// Whether nothing can be answered any more.
    pub(super) fn is_shut(&self) -> bool {
        self.is_shut.load(Ordering::Acquire) || !self.channel.status().connected()
    }

    /// From here on nothing is answered, and what was not is given out again.
    pub(super) fn shut(&self) {
        self.is_shut.store(true, Ordering::Release);
        self.lock().handed.clear();
        self.cancels.cancel_all();
    }

    /// Hands a reply to the client. Returns whether it took it.
    pub(super) fn reply(
        &self,
        tag: u64,
        reply_to: &str,
        (properties, body): (BasicProperties, Bytes),
    ) -> bool {
        let channel = self.channel.clone();
        let mut writing: Writing =
            Box::pin(publish(channel, short_string(reply_to), properties, body));
        // Frames of one message must not be torn apart by those of another: one at a time.
        let mut replies = self.lock();
        if self.is_shut() {
            return false;
        }
        // The first poll does it. Nobody need be woken.
        match writing.as_mut().poll(&mut noop_context()) {
            Poll::Pending => replies.handed.push_back((tag, writing)),
            Poll::Ready(Ok(_)) => self.acknowledge(tag),
            Poll::Ready(Err(_)) => return false,
        }
        if !replies.is_swept {
            replies.is_swept = true;
            self.stirred.notify_one();
        }
        true
    }

    /// Waits until there is something to sweep after there was nothing. Cancel-safe.
    pub(super) async fn replies_pending(&self) {
        self.stirred.notified().await;
    }

    /// Acknowledges the requests whose replies are written. Returns whether to look again soon.
    pub(super) fn sweep(&self) -> bool {
        let mut replies = self.lock();
        // They are written in order.
        while let Some((tag, writing)) = replies.handed.front_mut() {
            let Poll::Ready(written) = writing.as_mut().poll(&mut noop_context()) else {
                return true;
            };
            // If it was not written, the connection is lost, and the request is given out again.
            if written.is_ok() {
                self.acknowledge(*tag);
            }
            replies.handed.pop_front();
        }
        replies.is_swept = false;
        false
    }

    /// Says that a request is answered, or that nobody waits for it. Once the line is shut, whatever has not been answered goes to another
    /// server, and who gave up on it only because of that must not take it away.
    pub(super) fn acknowledge(&self, tag: u64) {
        if self.is_shut() {
            return;
        }
        hand_over(self.channel.basic_ack(tag, BasicAckOptions::default()));
    }

    pub(super) fn requeue(&self, tag: u64) {
        if self.is_shut() {
            return;
        }
        let requeue = BasicRejectOptions { requeue: true };
        hand_over(self.channel.basic_reject(tag, requeue));
    }

    fn lock(&self) -> MutexGuard<'_, Replies> {
        self.replies.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Hands something to the client, which the first poll does. When it is written does not matter: if it never is, the connection is lost.
fn hand_over(work: impl Future<Output = lapin::Result<()>>) {
    let _ = std::pin::pin!(work).poll(&mut noop_context());
}

fn noop_context() -> Context<'static> {
    Context::from_waker(Waker::noop())
}

async fn publish(
    channel: Channel,
    reply_to: ShortString,
    properties: BasicProperties,
    body: Bytes,
) -> lapin::Result<PublisherConfirm> {
    let by_name = ShortString::default();
    let options = BasicPublishOptions::default();
    channel
        .basic_publish(by_name, reply_to, options, &body, properties)
        .await
}
