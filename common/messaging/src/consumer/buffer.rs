//! What has been delivered and not yet taken. Bounded by the prefetch: the broker gives no more until something is settled.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::{Notify, watch};

use super::{Batch, ChannelId, Delivery};
use crate::names::QueueName;

/// Lanes of deliveries, one for each open channel.
#[derive(Debug)]
pub(super) struct DeliveryBuffer {
    inside: Mutex<BufferState>,
    /// Wakes whoever waits for deliveries.
    arrived: Notify,
    /// The number of tasks that wait for deliveries.
    waiting: watch::Sender<usize>,
}

#[derive(Debug)]
struct BufferState {
    lanes: Vec<ChannelBuffer>,
    /// The lane that is asked first, so that a busy one does not starve another.
    turn: usize,
    closed: bool,
}

#[derive(Debug)]
struct ChannelBuffer {
    channel: ChannelId,
    queue: QueueName,
    deliveries: VecDeque<Delivery>,
    /// Wakes the pump when the lane has been emptied.
    emptied: Arc<Notify>,
}

impl DeliveryBuffer {
    pub(super) fn new() -> Self {
        Self {
            inside: Mutex::new(BufferState {
                lanes: Vec::new(),
                turn: 0,
                closed: false,
            }),
            arrived: Notify::new(),
            waiting: watch::Sender::new(0),
        }
    }

    /// Makes room for a new channel's deliveries. What is returned notifies whenever all of them have been taken.
    pub(super) fn open(&self, channel: ChannelId, queue: QueueName) -> Arc<Notify> {
        let emptied = Arc::new(Notify::new());
        self.lock().lanes.push(ChannelBuffer {
            channel,
            queue,
            deliveries: VecDeque::new(),
            emptied: emptied.clone(),
        });
        emptied
    }

    /// Drops what no longer can be settled: it comes again by another channel.
    pub(super) fn clear(&self) {
        self.lock().lanes.clear();
    }

    /// Lets nobody wait any longer.
    pub(super) fn close(&self) {
        let mut inside = self.lock();
        inside.closed = true;
        inside.lanes.clear();
        drop(inside);
        self.arrived.notify_waiters();
        self.arrived.notify_one();
    }

    /// Whether deliveries of this channel lie here.
    pub(super) fn holds(&self, channel: ChannelId) -> bool {
        let inside = self.lock();
        let lane = inside.lanes.iter().find(|l| l.channel == channel);
        lane.is_some_and(|lane| !lane.deliveries.is_empty())
    }

    /// Adds deliveries in the order they came. Those of a channel that is gone are dropped.
    pub(super) fn add(&self, channel: ChannelId, deliveries: &mut Vec<Delivery>) {
        let mut inside = self.lock();
        let lane = inside.lanes.iter_mut().find(|l| l.channel == channel);
        let wake = match lane {
            Some(lane) => {
                // Whoever waits was told when the lane was empty, and looks again before it waits again.
                let wake = lane.deliveries.is_empty();
                lane.deliveries.extend(deliveries.drain(..));
                wake
            }
            None => {
                deliveries.clear();
                false
            }
        };
        drop(inside);
        if wake {
            self.arrived.notify_one();
        }
    }

    /// Waits until deliveries are waited for. Cancel-safe.
    pub(super) async fn wanted(&self) {
        let mut waiting = self.waiting.subscribe();
        // The sender is `self`.
        let _ = waiting.wait_for(|waiting| *waiting > 0).await;
    }

    pub(super) async fn next_batch(&self, max_count: usize, max_bytes: usize) -> Option<Batch> {
        let _waiting = Waits::begin(&self.waiting);
        loop {
            {
                let mut inside = self.lock();
                if inside.closed {
                    drop(inside);
                    // There may be several who wait.
                    self.arrived.notify_one();
                    return None;
                }
                if let Some(batch) = inside.take(max_count, max_bytes) {
                    let more = inside.lanes.iter().any(|l| !l.deliveries.is_empty());
                    drop(inside);
                    if more {
                        self.arrived.notify_one();
                    }
                    return Some(batch);
                }
            }
            // A notification between the look and the wait is kept, so none is missed.
            self.arrived.notified().await;
        }
    }

    fn lock(&self) -> MutexGuard<'_, BufferState> {
        self.inside.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Counts as one that waits until it is dropped.
struct Waits<'a>(&'a watch::Sender<usize>);

impl<'a> Waits<'a> {
    fn begin(waiting: &'a watch::Sender<usize>) -> Self {
        waiting.send_modify(|waiting| *waiting += 1);
        Self(waiting)
    }
}

impl Drop for Waits<'_> {
    fn drop(&mut self) {
        self.0.send_modify(|waiting| *waiting -= 1);
    }
}

impl BufferState {
    fn take(&mut self, max_count: usize, max_bytes: usize) -> Option<Batch> {
        let lanes = self.lanes.len();
        let index = (0..lanes)
            .map(|offset| (self.turn + offset) % lanes)
            .find(|index| !self.lanes[*index].deliveries.is_empty())?;
        self.turn = index + 1;
        let lane = &mut self.lanes[index];
        let mut bytes = 0;
        let fitting = lane
            .deliveries
            .iter()
            .take(max_count.max(1))
            .take_while(|delivery| {
                let first = bytes == 0;
                bytes += delivery.size().max(1);
                first || bytes <= max_bytes
            })
            .count();
        let deliveries: Vec<_> = lane.deliveries.drain(..fitting).collect();
        let last_tag = deliveries.last()?.tag;
        if lane.deliveries.is_empty() {
            lane.emptied.notify_one();
        }
        Some(Batch {
            channel: lane.channel,
            queue: lane.queue.clone(),
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
            read: Decoded::Undecodable {
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
    async fn a_batch_takes_what_is_there_within_its_bounds() {
        let inbox = DeliveryBuffer::new();
        inbox.open(ChannelId(1), QueueName::new("q"));
        inbox.add(
            ChannelId(1),
            &mut (1..=5).map(|t| delivery(t, 10)).collect(),
        );
        assert_eq!(tags(&inbox.next_batch(2, 1000).await.unwrap()), [1, 2]);
        assert_eq!(tags(&inbox.next_batch(10, 25).await.unwrap()), [3, 4]);
        let last = inbox.next_batch(10, 1).await.unwrap();
        assert_eq!((tags(&last), last.last_tag), (vec![5], 5));
    }

    #[tokio::test]
    async fn lanes_are_never_mixed_and_take_turns() {
        let inbox = DeliveryBuffer::new();
        inbox.open(ChannelId(1), QueueName::new("a"));
        inbox.open(ChannelId(2), QueueName::new("b"));
        inbox.add(ChannelId(1), &mut vec![delivery(1, 1), delivery(2, 1)]);
        inbox.add(ChannelId(2), &mut vec![delivery(1, 1)]);
        let mut order = Vec::new();
        for _ in 0..3 {
            order.push(inbox.next_batch(1, 100).await.unwrap().queue.to_string());
        }
        assert_eq!(order, ["a", "b", "a"]);
    }

    #[tokio::test]
    async fn deliveries_are_wanted_while_somebody_waits_for_them() {
        let inbox = DeliveryBuffer::new();
        assert_eq!(inbox.wanted().now_or_never(), None);
        let mut waits = Box::pin(inbox.next_batch(1, 1));
        assert!((&mut waits).now_or_never().is_none());
        assert_eq!(inbox.wanted().now_or_never(), Some(()));
        drop(waits);
        assert_eq!(inbox.wanted().now_or_never(), None);
    }

    #[tokio::test]
    async fn what_a_lost_channel_brought_is_dropped() {
        let inbox = DeliveryBuffer::new();
        inbox.open(ChannelId(1), QueueName::new("q"));
        inbox.add(ChannelId(1), &mut vec![delivery(1, 1)]);
        inbox.clear();
        inbox.open(ChannelId(2), QueueName::new("q"));
        inbox.add(ChannelId(1), &mut vec![delivery(2, 1)]);
        inbox.add(ChannelId(2), &mut vec![delivery(7, 1)]);
        let batch = inbox.next_batch(10, 100).await.unwrap();
        assert_eq!((batch.channel, tags(&batch)), (ChannelId(2), vec![7]));
        inbox.close();
        assert!(inbox.next_batch(1, 1).await.is_none());
    }
}
