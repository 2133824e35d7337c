//! The channels that are open now. A settlement finds its own here or is discarded.

use std::{
    collections::{HashMap, VecDeque},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Instant,
};

use lapin::{Channel, options::BasicAckOptions};
use tokio::sync::{Mutex as TurnMutex, watch};

use super::ChannelId;
use crate::counts::ConsumerCounters;

/// The open channels, and the word to give one up.
#[derive(Debug)]
pub(super) struct Channels {
    open: Mutex<HashMap<ChannelId, Arc<OpenChannel>>>,
    given_up: watch::Sender<Option<String>>,
    counts: ConsumerCounters,
}

/// One open channel and how far it has been settled.
#[derive(Debug)]
pub(super) struct OpenChannel {
    channel: Channel,
    /// The tag of the last delivery. Tags count from 1 without gaps, so it is also their number.
    received: AtomicU64,
    settled: AtomicU64,
    arrivals: Mutex<UnackedTimes>,
    /// One settlement at a time, so that none overtakes another.
    turn: TurnMutex<()>,
}

/// When deliveries came: one entry for those that came together, with the tag of their last. Bounded by the prefetch, since each has at
/// least one delivery that is not settled.
#[derive(Debug, Default)]
struct UnackedTimes(VecDeque<(u64, Instant)>);

impl UnackedTimes {
    fn acked(&mut self, up_to_tag: u64) {
        while self.0.front().is_some_and(|(tag, _)| *tag <= up_to_tag) {
            self.0.pop_front();
        }
    }
}

/// How a settlement went.
pub(super) enum AckResult {
    Done,
    Failed(String),
}

/// Numbers channels over all subscriptions of the process.
static NEXT: AtomicU64 = AtomicU64::new(1);

impl Channels {
    pub(super) fn new(counts: ConsumerCounters) -> Self {
        Self {
            open: Mutex::new(HashMap::new()),
            given_up: watch::Sender::new(None),
            counts,
        }
    }

    pub(super) fn counts(&self) -> &ConsumerCounters {
        &self.counts
    }

    pub(super) fn open(&self, channel: Channel) -> (ChannelId, Arc<OpenChannel>) {
        let generation = ChannelId(NEXT.fetch_add(1, Ordering::Relaxed));
        let open = Arc::new(OpenChannel {
            channel,
            received: AtomicU64::new(0),
            settled: AtomicU64::new(0),
            arrivals: Mutex::default(),
            turn: TurnMutex::new(()),
        });
        self.lock().insert(generation, open.clone());
        (generation, open)
    }

    pub(super) fn get(&self, generation: ChannelId) -> Option<Arc<OpenChannel>> {
        self.lock().get(&generation).cloned()
    }

    /// From here on nothing can be settled on any channel that is open now.
    pub(super) fn discard(&self) {
        self.lock().clear();
        self.given_up.send_replace(None);
    }

    /// Has the connection rebuilt, if that channel is still of it.
    pub(super) fn give_up(&self, generation: ChannelId, reason: String) {
        if self.lock().remove(&generation).is_some() {
            self.given_up.send_replace(Some(reason));
        }
    }

    /// Waits until somebody gives a channel up. Cancel-safe.
    pub(super) async fn given_up(&self) -> String {
        let mut given_up = self.given_up.subscribe();
        match given_up.wait_for(Option::is_some).await {
            Ok(reason) => reason.clone().unwrap_or_default(),
            // The sender is `self`.
            Err(_) => String::new(),
        }
    }

    pub(super) fn unacked(&self) -> usize {
        self.lock()
            .values()
            .map(|open| {
                let received = open.received.load(Ordering::Acquire);
                let settled = open.settled.load(Ordering::Acquire);
                usize::try_from(received.saturating_sub(settled)).unwrap_or(usize::MAX)
            })
            .sum()
    }

    pub(super) fn oldest_unacked(&self) -> Option<Instant> {
        let open = self.lock();
        open.values().filter_map(|open| open.oldest()).min()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<ChannelId, Arc<OpenChannel>>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl OpenChannel {
    /// Notes how far the broker has delivered.
    pub(super) fn received(&self, tag: u64, counts: &ConsumerCounters) {
        let now = Instant::now();
        let before = self.received.swap(tag, Ordering::AcqRel);
        counts.delivered(tag.saturating_sub(before), now);
        self.arrivals().0.push_back((tag, now));
    }

    /// Whether the channel still stands, as far as the client knows.
    pub(super) fn is_connected(&self) -> bool {
        self.channel.status().connected()
    }

    /// When the oldest delivery came that is not settled.
    fn oldest(&self) -> Option<Instant> {
        self.arrivals().0.front().map(|(_, at)| *at)
    }

    fn arrivals(&self) -> MutexGuard<'_, UnackedTimes> {
        self.arrivals.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Acknowledges everything up to this tag. By the channel's own method, which hands the frame over on the first poll; the
    /// acknowledgement that a delivery carries goes by a queue and a task of the client, where it can be overtaken.
    pub(super) async fn settle(&self, up_to_tag: u64, counts: &ConsumerCounters) -> AckResult {
        let _turn = self.turn.lock().await;
        let before = self.settled.load(Ordering::Acquire);
        if up_to_tag <= before {
            return AckResult::Done;
        }
        if up_to_tag > self.received.load(Ordering::Acquire) {
            // The broker would close the channel for it.
            return AckResult::Failed(format!("tag {up_to_tag} was never delivered"));
        }
        let all_up_to_it = BasicAckOptions { multiple: true };
        match self.channel.basic_ack(up_to_tag, all_up_to_it).await {
            Ok(()) => {
                self.settled.store(up_to_tag, Ordering::Release);
                self.arrivals().acked(up_to_tag);
                counts.settled(up_to_tag - before);
                AckResult::Done
            }
            Err(error) => AckResult::Failed(crate::connection::describe(&error)),
        }
    }
}
