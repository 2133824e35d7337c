//! Takes deliveries from the client, decodes them and puts them into the inbox.
//!
//! A wake-up costs more than a delivery, on this side and on the client's thread. So the pump watches the client only while the inbox
//! is empty, when somebody may be waiting for that very delivery. While something lies in the inbox it lets what comes pile up in the
//! client, and takes it all at once: when the engine has taken what was there, so that it is decoded while the engine works, and now
//! and then while the engine takes nothing. Neither pile can exceed the prefetch.

use std::{sync::Arc, time::Duration};

use doorstep_event::headers::Decoder;
use futures_util::{FutureExt, StreamExt};
use lapin::Consumer;
use tokio::{sync::Notify, time::timeout};

use super::{
    ChannelId, Delivery,
    buffer::DeliveryBuffer,
    channels::{Channels, OpenChannel},
    decode::decode,
    sender::Senders,
};
use crate::names::QueueName;

/// The most deliveries that are decoded before the engine hears of them.
const DECODE_BATCH: usize = 128;
/// How often to look at what has piled up while the engine takes nothing: soon at first, seldom when nothing comes any more.
const POLL_MIN: Duration = Duration::from_millis(2);
const POLL_MAX: Duration = Duration::from_millis(500);

/// One queue's way into the inbox.
pub(super) struct Pump {
    pub(super) consumer: Consumer,
    pub(super) channel: ChannelId,
    pub(super) open: Arc<OpenChannel>,
    pub(super) queue: QueueName,
    pub(super) senders: Senders,
    pub(super) inbox: Arc<DeliveryBuffer>,
    pub(super) emptied: Arc<Notify>,
    pub(super) channels: Arc<Channels>,
}

/// Why a consumer has ended.
pub(super) enum PumpEnd {
    /// The broker has cancelled the consumer: the queue was deleted, lost its leader, or we were too slow. The channel is still there.
    Cancelled(QueueName),
    /// The broker has closed the channel, for this reason.
    ChannelClosed(String),
    /// It went with its connection, for this reason.
    Lost(String),
}

impl Pump {
    /// Runs until the consumer ends, which it never should, and says why it did.
    pub(super) async fn run(mut self) -> PumpEnd {
        let mut chunk: Vec<Delivery> = Vec::with_capacity(DECODE_BATCH);
        let mut reader = Decoder::default();
        let mut pause = POLL_MIN;
        loop {
            let mut next = if self.inbox.holds(self.channel) {
                // Whether it was emptied or the time is over does not matter: there is something to look at either way.
                let _ = timeout(pause, self.emptied.notified()).await;
                self.consumer.next().now_or_never()
            } else {
                Some(self.consumer.next().await)
            };
            pause = match next {
                Some(_) => POLL_MIN,
                None => (pause * 2).min(POLL_MAX),
            };
            while let Some(received) = next {
                match received {
                    Some(Ok(received)) => {
                        let sender = self.senders.read(&received);
                        chunk.push(decode(&mut reader, received, sender));
                    }
                    Some(Err(error)) => {
                        self.enqueue(&mut chunk);
                        let reason = crate::connection::describe(&error);
                        return if error.is_amqp_soft_error() {
                            PumpEnd::ChannelClosed(reason)
                        } else {
                            PumpEnd::Lost(reason)
                        };
                    }
                    // The broker's cancel looks like this.
                    None => {
                        self.enqueue(&mut chunk);
                        return if self.open.is_connected() {
                            PumpEnd::Cancelled(self.queue)
                        } else {
                            PumpEnd::Lost(format!("consuming from {} has ended", self.queue))
                        };
                    }
                }
                if chunk.len() == DECODE_BATCH {
                    self.enqueue(&mut chunk);
                    // Decoding is work; others on this thread have their turn.
                    tokio::task::yield_now().await;
                }
                next = self.consumer.next().now_or_never();
            }
            self.enqueue(&mut chunk);
        }
    }

    fn enqueue(&self, chunk: &mut Vec<Delivery>) {
        if let Some(last) = chunk.last() {
            self.open.received(last.tag, self.channels.counts());
            self.inbox.add(self.channel, chunk);
        }
    }
}
