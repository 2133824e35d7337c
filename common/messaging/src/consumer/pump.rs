//! Takes deliveries from lapin, decodes them and buffers them.
//!
//! A wake-up costs more than a delivery, on this side and on lapin's thread. So the pump waits on lapin only while the buffer is empty,
//! when a task may be waiting for that delivery. While the buffer has deliveries, new ones accumulate in lapin, and the pump takes them all
//! at once. It does so when the engine has emptied the buffer, so that decoding and processing overlap, and occasionally while the engine
//! takes nothing. Neither backlog can exceed the prefetch.

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
    delivery_sender::Senders,
};
use crate::topology::names::QueueName;

/// Maximum deliveries decoded before the engine is notified.
const DECODE_BATCH: usize = 128;
/// Interval of checking lapin's backlog while the engine takes nothing: short at first, long when nothing arrives.
const POLL_MIN: Duration = Duration::from_millis(2);
const POLL_MAX: Duration = Duration::from_millis(500);

/// Moves one queue's deliveries into the buffer.
pub(super) struct DeliveryPump {
    pub(super) consumer: Consumer,
    pub(super) channel: ChannelId,
    pub(super) open: Arc<OpenChannel>,
    pub(super) queue: QueueName,
    pub(super) senders: Senders,
    pub(super) buffer: Arc<DeliveryBuffer>,
    pub(super) emptied: Arc<Notify>,
    pub(super) channels: Arc<Channels>,
}

pub(super) enum PumpEnd {
    /// The broker cancelled the consumer: the queue was deleted or lost its leader, or the consumer was too slow. The channel stays open.
    Cancelled(QueueName),
    /// The broker closed the channel, for this reason.
    ChannelClosed(String),
    /// The connection was lost, for this reason.
    Lost(String),
}

impl DeliveryPump {
    /// Runs until the consumer ends unexpectedly, and returns the reason.
    pub(super) async fn run(mut self) -> PumpEnd {
        let mut chunk: Vec<Delivery> = Vec::with_capacity(DECODE_BATCH);
        let mut reader = Decoder::default();
        let mut delay = POLL_MIN;
        loop {
            let mut next = if self.buffer.has_deliveries(self.channel) {
                // Emptied or timed out: either way, check lapin's backlog.
                let _ = timeout(delay, self.emptied.notified()).await;
                self.consumer.next().now_or_never()
            } else {
                Some(self.consumer.next().await)
            };
            delay = match next {
                Some(_) => POLL_MIN,
                None => (delay * 2).min(POLL_MAX),
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
                    // A cancel by the broker looks like this.
                    None => {
                        self.enqueue(&mut chunk);
                        return if self.open.is_connected() {
                            PumpEnd::Cancelled(self.queue)
                        } else {
                            PumpEnd::Lost(format!("the consumer of {} ended", self.queue))
                        };
                    }
                }
                if chunk.len() == DECODE_BATCH {
                    self.enqueue(&mut chunk);
                    // Decoding takes CPU time, so let other tasks of this thread run.
                    tokio::task::yield_now().await;
                }
                next = self.consumer.next().now_or_never();
            }
            self.enqueue(&mut chunk);
        }
    }

    fn enqueue(&self, chunk: &mut Vec<Delivery>) {
        if let Some(last) = chunk.last() {
            self.open.received(last.tag, self.channels.counters());
            self.buffer.add(self.channel, chunk);
        }
    }
}
