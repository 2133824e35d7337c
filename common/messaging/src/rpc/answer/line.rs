//! One connection's way back: replies and acknowledgements, handed to the client in order and without waiting.

use std::{
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, Waker},
};

use lapin::{
    Channel,
    options::{BasicAckOptions, BasicPublishOptions, BasicRejectOptions},
};

use super::{Reply, cancels::Cancels};
use crate::{message::short, rpc::wire};

/// The channel by which requests came. They can be answered on no other.
#[derive(Debug)]
pub(super) struct Line {
    channel: Channel,
    /// Frames of one message must not be torn apart, and a reply goes before its acknowledgement.
    turn: Mutex<()>,
    is_shut: AtomicBool,
    pub(super) cancels: Cancels,
}

impl Line {
    pub(super) fn new(channel: Channel) -> Self {
        Self {
            channel,
            turn: Mutex::new(()),
            is_shut: AtomicBool::new(false),
            cancels: Cancels::default(),
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
        self.cancels.cancel_all();
    }

    /// Hands a reply and then the acknowledgement of its request to the client. Returns whether it took both.
    pub(super) fn reply(&self, tag: u64, reply_to: &str, correlation: &str, reply: Reply) -> bool {
        let (properties, body) = wire::reply(reply, correlation);
        let by_name = "".into();
        let options = BasicPublishOptions::default();
        let publish =
            self.channel
                .basic_publish(by_name, short(reply_to), options, &body, properties);
        let acknowledge = self.channel.basic_ack(tag, BasicAckOptions::default());
        let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        !self.is_shut() && hand_over(publish) && hand_over(acknowledge)
    }

    pub(super) fn acknowledge(&self, tag: u64) {
        hand_over(self.channel.basic_ack(tag, BasicAckOptions::default()));
    }

    pub(super) fn put_back(&self, tag: u64) {
        let requeue = BasicRejectOptions { requeue: true };
        hand_over(self.channel.basic_reject(tag, requeue));
    }
}

/// Hands something to the client, which the first poll does. When it is written does not matter: if it never is, the connection is lost.
fn hand_over<T>(work: impl Future<Output = lapin::Result<T>>) -> bool {
    let work = std::pin::pin!(work);
    match work.poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Pending | Poll::Ready(Ok(_)) => true,
        Poll::Ready(Err(_)) => false,
    }
}
