//! Buffered deliveries that the engine has not taken yet. Bounded by the prefetch: the broker delivers no more until some are acked.

use std::{collections::VecDeque, sync::Arc};

use tokio::sync::{Notify, watch};

use super::{Batch, ChannelId, Delivery};
use crate::{locked::Locked, topology::names::QueueName};

/// Buffers of deliveries, one per open channel.
#[derive(Debug, Default)]
pub(super) struct DeliveryBuffer {
    state: Locked<BufferState>,
    /// Wakes tasks that wait for deliveries.
    arrived: Notify,
    /// Number of tasks that wait for deliveries.
    waiting: watch::Sender<usize>,
}

#[derive(Debug, Default)]
struct BufferState {
    buffers: Vec<ChannelBuffer>,
    /// Next buffer to take from, round robin, so that a busy channel does not starve another.
    turn: usize,
    closed: bool,
}

#[derive(Debug)]
struct ChannelBuffer {
    channel: ChannelId,
    queue: QueueName,
    deliveries: VecDeque<Delivery>,
    /// Wakes the pump when the buffer has been emptied.
    emptied: Arc<Notify>,
}

impl DeliveryBuffer {
    /// Adds a buffer for a new channel. The returned handle notifies whenever the buffer has been emptied.
    pub(super) fn open(&self, channel: ChannelId, queue: QueueName) -> Arc<Notify> {
        let emptied = Arc::new(Notify::new());
        self.state.lock().buffers.push(ChannelBuffer {
            channel,
            queue,
            deliveries: VecDeque::new(),
            emptied: emptied.clone(),
        });
        emptied
    }

    /// Drops deliveries that can no longer be acked. They are redelivered on another channel.
    pub(super) fn clear(&self) {
        self.state.lock().buffers.clear();
    }

    /// Closes the buffer and ends every wait.
    pub(super) fn close(&self) {
        let mut state = self.state.lock();
        state.closed = true;
        state.buffers.clear();
        drop(state);
        self.arrived.notify_waiters();
        self.arrived.notify_one();
    }

    /// Returns whether deliveries of this channel are buffered.
    pub(super) fn has_deliveries(&self, channel: ChannelId) -> bool {
        let state = self.state.lock();
        let buffer = state.buffers.iter().find(|b| b.channel == channel);
        buffer.is_some_and(|buffer| !buffer.deliveries.is_empty())
    }

    /// Adds deliveries in order of arrival. Drops those of a closed channel.
    pub(super) fn add(&self, channel: ChannelId, deliveries: &mut Vec<Delivery>) {
        let mut state = self.state.lock();
        let buffer = state.buffers.iter_mut().find(|b| b.channel == channel);
        let should_wake = match buffer {
            Some(buffer) => {
                // Waiting tasks were notified when the buffer was first filled, and check again before they wait again.
                let should_wake = buffer.deliveries.is_empty();
                buffer.deliveries.extend(deliveries.drain(..));
                should_wake
            }
            None => {
                deliveries.clear();
                false
            }
        };
        drop(state);
        if should_wake {
            self.arrived.notify_one();
        }
    }

    /// Waits until a task waits for deliveries. Cancel-safe.
    pub(super) async fn wait_for_demand(&self) {
        let mut waiting = self.waiting.subscribe();
        // Cannot fail: the sender is `self`.
        let _ = waiting.wait_for(|waiting| *waiting > 0).await;
    }

    pub(super) async fn next_batch(&self, max_count: usize, max_bytes: usize) -> Option<Batch> {
        let _waiting = WaitGuard::begin(&self.waiting);
        loop {
            {
                let mut state = self.state.lock();
                if state.closed {
                    drop(state);
                    // Other tasks may be waiting too.
                    self.arrived.notify_one();
                    return None;
                }
                if let Some(batch) = state.take(max_count, max_bytes) {
                    let more = state.buffers.iter().any(|b| !b.deliveries.is_empty());
                    drop(state);
                    if more {
                        self.arrived.notify_one();
                    }
                    return Some(batch);
                }
            }
            // A notification between the check and the wait is kept, so none is missed.
            self.arrived.notified().await;
        }
    }
}

/// Counts as a waiting task until dropped.
struct WaitGuard<'a>(&'a watch::Sender<usize>);

impl<'a> WaitGuard<'a> {
    fn begin(waiting: &'a watch::Sender<usize>) -> Self {
        waiting.send_modify(|waiting| *waiting += 1);
        Self(waiting)
    }
}

impl Drop for WaitGuard<'_> {
    fn drop(&mut self) {
        self.0.send_modify(|waiting| *waiting -= 1);
    }
}

impl BufferState {
    fn take(&mut self, max_count: usize, max_bytes: usize) -> Option<Batch> {
        let buffers = self.buffers.len();
        let index = (0..buffers)
            .map(|offset| (self.turn + offset) % buffers)
            .find(|index| !self.buffers[*index].deliveries.is_empty())?;
        self.turn = index + 1;
        let buffer = &mut self.buffers[index];
        let mut bytes = 0;
        let fitting = buffer
            .deliveries
            .iter()
            .take(max_count.max(1))
            .take_while(|delivery| {
                let first = bytes == 0;
                bytes += delivery.size().max(1);
                first || bytes <= max_bytes
            })
            .count();
        let deliveries: Vec<_> = buffer.deliveries.drain(..fitting).collect();
        let last_tag = deliveries.last()?.tag;
        if buffer.deliveries.is_empty() {
            buffer.emptied.notify_one();
        }
        Some(Batch {
            channel: buffer.channel,
            queue: buffer.queue.clone(),
            deliveries,
            last_tag,
        })
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use doorstep_event::{Sender, headers::Decoded};
    use futures_util::FutureExt;

    use super::*;

    fn delivery(tag: u64, bytes: usize) -> Delivery {
        Delivery {
            tag,
            redelivered: false,
            delivery_count: None,
            sender: Sender::default(),
            decoded: Decoded::Undecodable {
                defect: String::new(),
                body: Bytes::from(vec![0; bytes]),
            },
            headers_json: None,
            id: None,
        }
    }

    fn tags(batch: &Batch) -> Vec<u64> {
        batch.deliveries.iter().map(|d| d.tag).collect()
    }

    #[tokio::test]
    async fn a_batch_respects_its_bounds() {
        let buffer = DeliveryBuffer::default();
        buffer.open(ChannelId(1), QueueName::new("q"));
        buffer.add(
            ChannelId(1),
            &mut (1..=5).map(|t| delivery(t, 10)).collect(),
        );
        assert_eq!(tags(&buffer.next_batch(2, 1000).await.unwrap()), [1, 2]);
        assert_eq!(tags(&buffer.next_batch(10, 25).await.unwrap()), [3, 4]);
        let last = buffer.next_batch(10, 1).await.unwrap();
        assert_eq!((tags(&last), last.last_tag), (vec![5], 5));
    }

    #[tokio::test]
    async fn channels_take_turns_and_never_mix() {
        let buffer = DeliveryBuffer::default();
        buffer.open(ChannelId(1), QueueName::new("a"));
        buffer.open(ChannelId(2), QueueName::new("b"));
        buffer.add(ChannelId(1), &mut vec![delivery(1, 1), delivery(2, 1)]);
        buffer.add(ChannelId(2), &mut vec![delivery(1, 1)]);
        let mut order = Vec::new();
        for _ in 0..3 {
            order.push(buffer.next_batch(1, 100).await.unwrap().queue.to_string());
        }
        assert_eq!(order, ["a", "b", "a"]);
    }

    #[tokio::test]
    async fn demand_lasts_while_a_task_waits() {
        let buffer = DeliveryBuffer::default();
        assert_eq!(buffer.wait_for_demand().now_or_never(), None);
        let mut waits = Box::pin(buffer.next_batch(1, 1));
        assert!((&mut waits).now_or_never().is_none());
        assert_eq!(buffer.wait_for_demand().now_or_never(), Some(()));
        drop(waits);
        assert_eq!(buffer.wait_for_demand().now_or_never(), None);
    }

    #[tokio::test]
    async fn deliveries_of_a_lost_channel_are_dropped() {
        let buffer = DeliveryBuffer::default();
        buffer.open(ChannelId(1), QueueName::new("q"));
        buffer.add(ChannelId(1), &mut vec![delivery(1, 1)]);
        buffer.clear();
        buffer.open(ChannelId(2), QueueName::new("q"));
        buffer.add(ChannelId(1), &mut vec![delivery(2, 1)]);
        buffer.add(ChannelId(2), &mut vec![delivery(7, 1)]);
        let batch = buffer.next_batch(10, 100).await.unwrap();
        assert_eq!((batch.channel, tags(&batch)), (ChannelId(2), vec![7]));
        buffer.close();
        assert!(buffer.next_batch(1, 1).await.is_none());
    }
}
