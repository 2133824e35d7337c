//! The open channels. An ack is sent on its own channel, or discarded if that is closed.

use std::{
    collections::{HashMap, VecDeque},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Instant,
};

use lapin::{Channel, options::BasicAckOptions};
use tokio::sync::{Mutex, watch};

use super::{ChannelId, stats::ConsumerCounters};
use crate::locked::Locked;

/// The open channels, and requests to drop the connection.
#[derive(Debug, Default)]
pub(super) struct Channels {
    open: Locked<HashMap<ChannelId, Arc<OpenChannel>>>,
    given_up: watch::Sender<Option<String>>,
    counters: ConsumerCounters,
}

/// An open channel and its ack state.
#[derive(Debug)]
pub(super) struct OpenChannel {
    channel: Channel,
    /// Tag of the latest delivery. Tags count from 1 without gaps, so it is also the number of deliveries.
    received: AtomicU64,
    acked: AtomicU64,
    arrivals: Locked<UnackedTimes>,
    /// Serializes acks, so that none overtakes another.
    turn: Mutex<()>,
}

/// Arrival times: one entry per group of deliveries, with the group's last tag. Bounded by the prefetch, since each entry has an unacked
/// delivery.
#[derive(Debug, Default)]
struct UnackedTimes(VecDeque<(u64, Instant)>);

impl UnackedTimes {
    fn acked(&mut self, up_to_tag: u64) {
        while self.0.front().is_some_and(|(tag, _)| *tag <= up_to_tag) {
            self.0.pop_front();
        }
    }
}

pub(super) enum AckResult {
    Done,
    Failed(String),
}

/// Numbers channels across all subscriptions of the process.
static NEXT: AtomicU64 = AtomicU64::new(1);

impl Channels {
    pub(super) fn counters(&self) -> &ConsumerCounters {
        &self.counters
    }

    pub(super) fn open(&self, channel: Channel) -> (ChannelId, Arc<OpenChannel>) {
        let id = ChannelId(NEXT.fetch_add(1, Ordering::Relaxed));
        let open = Arc::new(OpenChannel {
            channel,
            received: AtomicU64::default(),
            acked: AtomicU64::default(),
            arrivals: Locked::default(),
            turn: Mutex::new(()),
        });
        self.open.lock().insert(id, open.clone());
        (id, open)
    }

    pub(super) fn get(&self, id: ChannelId) -> Option<Arc<OpenChannel>> {
        self.open.lock().get(&id).cloned()
    }

    /// Discards all open channels: acks on them are no longer possible.
    pub(super) fn discard(&self) {
        self.open.lock().clear();
        self.given_up.send_replace(None);
    }

    /// Requests a new connection, if the channel belongs to the current one.
    pub(super) fn give_up(&self, id: ChannelId, reason: String) {
        if self.open.lock().remove(&id).is_some() {
            self.given_up.send_replace(Some(reason));
        }
    }

    /// Waits for such a request and returns its reason. Cancel-safe.
    pub(super) async fn given_up(&self) -> String {
        let mut given_up = self.given_up.subscribe();
        match given_up.wait_for(Option::is_some).await {
            Ok(reason) => reason.clone().unwrap_or_default(),
            // Cannot happen: the sender is `self`.
            Err(_) => String::new(),
        }
    }

    pub(super) fn unacked(&self) -> usize {
        self.open
            .lock()
            .values()
            .map(|open| {
                let received = open.received.load(Ordering::Acquire);
                let acked = open.acked.load(Ordering::Acquire);
                usize::try_from(received.saturating_sub(acked)).unwrap_or(usize::MAX)
            })
            .sum()
    }

    pub(super) fn oldest_unacked(&self) -> Option<Instant> {
        let open = self.open.lock();
        open.values().filter_map(|open| open.oldest()).min()
    }
}

impl OpenChannel {
    pub(super) fn received(&self, tag: u64, counters: &ConsumerCounters) {
        let now = Instant::now();
        let before = self.received.swap(tag, Ordering::AcqRel);
        counters.delivered.add(tag.saturating_sub(before));
        counters.last_delivery.set(Some(now));
        self.arrivals.lock().0.push_back((tag, now));
    }

    /// Returns whether the channel is open, as far as lapin knows.
    pub(super) fn is_connected(&self) -> bool {
        self.channel.status().connected()
    }

    /// Returns the arrival of the oldest unacked delivery.
    fn oldest(&self) -> Option<Instant> {
        self.arrivals.lock().0.front().map(|(_, at)| *at)
    }

    /// Acks all deliveries up to this tag. Uses the channel's own method, which writes the frame on the first poll. A delivery's acker goes
    /// through a queue and a task of lapin, where an ack can be overtaken.
    pub(super) async fn ack_up_to(&self, up_to_tag: u64, counters: &ConsumerCounters) -> AckResult {
        let _turn = self.turn.lock().await;
        let before = self.acked.load(Ordering::Acquire);
        if up_to_tag <= before {
            return AckResult::Done;
        }
        if up_to_tag > self.received.load(Ordering::Acquire) {
            // The broker would close the channel for it.
            return AckResult::Failed(format!("tag {up_to_tag} was never delivered"));
        }
        let multiple = BasicAckOptions { multiple: true };
        match self.channel.basic_ack(up_to_tag, multiple).await {
            Ok(()) => {
                self.acked.store(up_to_tag, Ordering::Release);
                self.arrivals.lock().acked(up_to_tag);
                counters.acked.add(up_to_tag - before);
                counters.last_ack.set(Some(Instant::now()));
                AckResult::Done
            }
            Err(error) => AckResult::Failed(crate::connection::describe(&error)),
        }
    }
}
