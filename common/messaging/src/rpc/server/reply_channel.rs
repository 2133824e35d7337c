//! The reply channel of one connection: replies are handed to lapin without waiting, and each request is acked once its reply is written.
//!
//! An ack handed over together with its reply may overtake it, because lapin writes frames without a body first. If the connection were
//! lost in between, both the request and its reply would be gone. So the task polls the replies periodically, and acks their requests once
//! they are written: no caller waits for acks.

use std::{
    collections::VecDeque,
    sync::atomic::{AtomicBool, Ordering},
    task::Poll,
};

use bytes::Bytes;
use lapin::{
    BasicProperties, Channel,
    options::{BasicAckOptions, BasicPublishOptions, BasicRejectOptions},
};

use super::cancellations::Cancellations;
use crate::{
    amqp::short_string,
    locked::Locked,
    rpc::pending_writes::{Polling, Writing, poll, writing},
};

/// The channel on which requests arrived, the only one that can reply to them.
pub(super) struct ReplyChannel {
    channel: Channel,
    /// Replies handed to lapin, in order, each with its request's tag.
    replies: Locked<VecDeque<(u64, Writing)>>,
    /// Polling of written replies.
    pub(super) polling: Polling,
    is_shut_down: AtomicBool,
    pub(super) cancels: Cancellations,
}

impl ReplyChannel {
    pub(super) fn new(channel: Channel) -> Self {
        Self {
            channel,
            replies: Locked::default(),
            polling: Polling::default(),
            is_shut_down: AtomicBool::new(false),
            cancels: Cancellations::default(),
        }
    }

    pub(super) fn channel(&self) -> &Channel {
        &self.channel
    }

    /// Returns whether replies are no longer possible.
    pub(super) fn is_closed(&self) -> bool {
        self.is_shut_down.load(Ordering::Acquire) || !self.channel.status().connected()
    }

    /// Prevents further replies. Requests without a reply are redelivered.
    pub(super) fn close(&self) {
        self.is_shut_down.store(true, Ordering::Release);
        self.replies.lock().clear();
        self.cancels.cancel_all();
    }

    /// Hands a reply to lapin. Returns whether lapin accepted it.
    pub(super) fn reply(
        &self,
        tag: u64,
        reply_to: &str,
        (properties, body): (BasicProperties, Bytes),
    ) -> bool {
        let (channel, options) = (self.channel.clone(), BasicPublishOptions::default());
        let mut writing = writing(channel, short_string(reply_to), options, properties, body);
        // One at a time: frames of two messages must not interleave.
        let mut replies = self.replies.lock();
        if self.is_closed() {
            return false;
        }
        match poll(&mut writing) {
            Poll::Pending => replies.push_back((tag, writing)),
            Poll::Ready(Ok(_)) => self.acknowledge(tag),
            Poll::Ready(Err(_)) => return false,
        }
        self.polling.start();
        true
    }

    /// Acks the requests whose replies are written. Returns whether to poll again.
    pub(super) fn poll_written(&self) -> bool {
        let mut replies = self.replies.lock();
        // Replies are written in order.
        while let Some((tag, writing)) = replies.front_mut() {
            let Poll::Ready(written) = poll(writing) else {
                return true;
            };
            // If it was not written, the connection is lost and the request is redelivered.
            if written.is_ok() {
                self.acknowledge(*tag);
            }
            replies.pop_front();
        }
        self.polling.stop();
        false
    }

    /// Acks a request with a reply or without a waiting caller. Once the channel is closed, requests without a reply go to another server,
    /// so a handle dropped because of that must not ack its request.
    pub(super) fn acknowledge(&self, tag: u64) {
        if self.is_closed() {
            return;
        }
        send_frame(self.channel.basic_ack(tag, BasicAckOptions::default()));
    }

    pub(super) fn requeue(&self, tag: u64) {
        if self.is_closed() {
            return;
        }
        let requeue = BasicRejectOptions { requeue: true };
        send_frame(self.channel.basic_reject(tag, requeue));
    }
}

/// Hands a frame to lapin, on the first poll. Its writing needs no check: if it fails, the connection is lost.
fn send_frame(work: impl Future<Output = lapin::Result<()>>) {
    let _ = poll(&mut std::pin::pin!(work));
}
