//! Messages that are handed to lapin on the caller's task, and polled by the connection's task while they are being written.
//!
//! Their progress wakes no task: it may be noticed a few milliseconds late, while two wake-ups per message would cost more than a
//! sequential call.

use std::{
    convert::Infallible,
    pin::Pin,
    sync::atomic::{AtomicBool, Ordering},
    task::{Context, Poll, Waker},
    time::Duration,
};

use bytes::Bytes;
use lapin::{
    BasicProperties, Channel, PublisherConfirm, options::BasicPublishOptions, types::ShortString,
};
use tokio::{
    sync::Notify,
    time::{MissedTickBehavior, interval},
};

/// A message being written; completes when it is.
pub(super) type Writing = Pin<Box<dyn Future<Output = lapin::Result<PublisherConfirm>> + Send>>;

/// Prepares a message to a queue. The first poll hands it to lapin.
pub(super) fn writing(
    channel: Channel,
    queue: ShortString,
    options: BasicPublishOptions,
    properties: BasicProperties,
    body: Bytes,
) -> Writing {
    Box::pin(async move {
        let default_exchange = ShortString::default();
        channel
            .basic_publish(default_exchange, queue, options, &body, properties)
            .await
    })
}

/// Polls without a wake-up.
pub(super) fn poll<T>(future: &mut (impl Future<Output = T> + Unpin)) -> Poll<T> {
    Pin::new(future).poll(&mut Context::from_waker(Waker::noop()))
}

/// Polls pending messages periodically while there are any.
#[derive(Debug, Default)]
pub(super) struct Polling {
    /// Changed only with the lock on the pending messages.
    is_on: AtomicBool,
    wake: Notify,
}

impl Polling {
    /// Starts polling, since a message is pending.
    pub(super) fn start(&self) {
        if !self.is_on.load(Ordering::Relaxed) {
            self.is_on.store(true, Ordering::Relaxed);
            self.wake.notify_one();
        }
    }

    /// Stops polling, since no message is pending.
    pub(super) fn stop(&self) {
        self.is_on.store(false, Ordering::Relaxed);
    }

    pub(super) fn is_on(&self) -> bool {
        self.is_on.load(Ordering::Relaxed)
    }

    /// Calls `poll` at this interval while polling is on. `poll` returns whether it stays on. Never ends. Cancel-safe.
    pub(super) async fn run(&self, period: Duration, mut poll: impl FnMut() -> bool) -> Infallible {
        let mut tick = interval(period);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tick.tick().await;
            if !poll() {
                self.wake.notified().await;
                tick.reset();
            }
        }
    }
}
