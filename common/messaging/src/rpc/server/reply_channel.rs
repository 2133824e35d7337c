//! The reply channel of one connection: replies are unacked to lapin without waiting, and each request is acked once its reply is written.
//!
//! An ack unacked over together with its reply may overtake it, because lapin writes frames without a body first. If the connection were
//! lost in between, both the request and its reply would be gone. So the task polls the replies periodically, and acks their requests once
//! they are written: no caller waits for acks.

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

/// The channel on which requests arrived, the only one that can reply to them.
#[derive(Debug)]
pub(super) struct ReplyChannel {
    channel: Channel,
    replies: Mutex<Replies>,
    /// Wakes the task when polling must start.
    wake: Notify,
    is_shut: AtomicBool,
    pub(super) cancels: Cancellations,
}

#[derive(Default)]
struct Replies {
    /// Replies unacked to lapin, in order, each with its request's tag.
    unacked: VecDeque<(u64, Writing)>,
    is_polled: bool,
}

/// A reply being written; completes when it is.
type Writing = Pin<Box<dyn Future<Output = lapin::Result<PublisherConfirm>> + Send>>;

impl std::fmt::Debug for Replies {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Replies")
            .field("unacked", &self.unacked.len())
            .finish_non_exhaustive()
    }
}

impl ReplyChannel {
    pub(super) fn new(channel: Channel) -> Self {
        Self {
            channel,
            replies: Mutex::default(),
            wake: Notify::new(),
            is_shut: AtomicBool::new(false),
            cancels: Cancellations::default(),
        }
    }

    pub(super) fn channel(&self) -> &Channel {
        &self.channel
    }

    /// Returns whether replies are no longer possible.
    pub(super) fn is_shut(&self) -> bool {
        self.is_shut.load(Ordering::Acquire) || !self.channel.status().connected()
    }

    /// Prevents further replies. Requests without a reply are redelivered.
    pub(super) fn shut(&self) {
        self.is_shut.store(true, Ordering::Release);
        self.lock().unacked.clear();
        self.cancels.cancel_all();
    }

    /// Hands a reply to lapin. Returns whether lapin accepted it.
    pub(super) fn reply(
        &self,
        tag: u64,
        reply_to: &str,
        (properties, body): (BasicProperties, Bytes),
    ) -> bool {
        let channel = self.channel.clone();
        let mut writing: Writing =
            Box::pin(publish(channel, short_string(reply_to), properties, body));
        // One at a time: frames of two messages must not interleave.
        let mut replies = self.lock();
        if self.is_shut() {
            return false;
        }
        // The first poll hands the reply over. No wake-up is needed.
        match writing.as_mut().poll(&mut noop_context()) {
            Poll::Pending => replies.unacked.push_back((tag, writing)),
            Poll::Ready(Ok(_)) => self.acknowledge(tag),
            Poll::Ready(Err(_)) => return false,
        }
        if !replies.is_polled {
            replies.is_polled = true;
            self.wake.notify_one();
        }
        true
    }

    /// Waits until polling must start. Cancel-safe.
    pub(super) async fn replies_pending(&self) {
        self.wake.notified().await;
    }

    /// Acks the requests whose replies are written. Returns whether to poll again.
    pub(super) fn poll_written(&self) -> bool {
        let mut replies = self.lock();
        // Replies are written in order.
        while let Some((tag, writing)) = replies.unacked.front_mut() {
            let Poll::Ready(written) = writing.as_mut().poll(&mut noop_context()) else {
                return true;
            };
            // If it was not written, the connection is lost and the request is redelivered.
            if written.is_ok() {
                self.acknowledge(*tag);
            }
            replies.unacked.pop_front();
        }
        replies.is_polled = false;
        false
    }

    /// Acks a request with a reply or without a waiting caller. Once the channel is shut, requests without a reply go to another server, so
    /// a handle dropped because of that must not ack its request.
    pub(super) fn acknowledge(&self, tag: u64) {
        if self.is_shut() {
            return;
        }
        send_frame(self.channel.basic_ack(tag, BasicAckOptions::default()));
    }

    pub(super) fn requeue(&self, tag: u64) {
        if self.is_shut() {
            return;
        }
        let requeue = BasicRejectOptions { requeue: true };
        send_frame(self.channel.basic_reject(tag, requeue));
    }

    fn lock(&self) -> MutexGuard<'_, Replies> {
        self.replies.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Hands a frame to lapin, on the first poll. Its writing needs no check: if it fails, the connection is lost.
fn send_frame(work: impl Future<Output = lapin::Result<()>>) {
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
    let default_exchange = ShortString::default();
    let options = BasicPublishOptions::default();
    channel
        .basic_publish(default_exchange, reply_to, options, &body, properties)
        .await
}
