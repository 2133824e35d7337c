//! The channels that are open now. A settlement finds its own here or is discarded.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use lapin::{Channel, options::BasicAckOptions};
use tokio::sync::{Mutex as TurnMutex, watch};

use super::Generation;

/// The open channels, and the word to give one up.
#[derive(Debug)]
pub(super) struct Channels {
    open: Mutex<HashMap<Generation, Arc<OpenChannel>>>,
    given_up: watch::Sender<Option<String>>,
}

/// One open channel and how far it has been settled.
#[derive(Debug)]
pub(super) struct OpenChannel {
    channel: Channel,
    /// The tag of the last delivery. Tags count from 1 without gaps, so it is also their number.
    received: AtomicU64,
    settled: AtomicU64,
    /// One settlement at a time, so that none overtakes another.
    turn: TurnMutex<()>,
}

/// How a settlement went.
pub(super) enum Settling {
    Done,
    Failed(String),
}

/// Numbers channels over all subscriptions of the process.
static NEXT: AtomicU64 = AtomicU64::new(1);

impl Channels {
    pub(super) fn new() -> Self {
        Self {
            open: Mutex::new(HashMap::new()),
            given_up: watch::Sender::new(None),
        }
    }

    pub(super) fn open(&self, channel: Channel) -> (Generation, Arc<OpenChannel>) {
        let generation = Generation(NEXT.fetch_add(1, Ordering::Relaxed));
        let open = Arc::new(OpenChannel {
            channel,
            received: AtomicU64::new(0),
            settled: AtomicU64::new(0),
            turn: TurnMutex::new(()),
        });
        self.lock().insert(generation, open.clone());
        (generation, open)
    }

    pub(super) fn get(&self, generation: Generation) -> Option<Arc<OpenChannel>> {
        self.lock().get(&generation).cloned()
    }

    /// From here on nothing can be settled on any channel that is open now.
    pub(super) fn discard(&self) {
        self.lock().clear();
        self.given_up.send_replace(None);
    }

    /// Has the connection rebuilt, if that channel is still of it.
    pub(super) fn give_up(&self, generation: Generation, reason: String) {
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

    pub(super) fn unsettled(&self) -> usize {
        self.lock()
            .values()
            .map(|open| {
                let received = open.received.load(Ordering::Acquire);
                let settled = open.settled.load(Ordering::Acquire);
                usize::try_from(received.saturating_sub(settled)).unwrap_or(usize::MAX)
            })
            .sum()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Generation, Arc<OpenChannel>>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl OpenChannel {
    /// Notes how far the broker has delivered.
    pub(super) fn received(&self, tag: u64) {
        self.received.store(tag, Ordering::Release);
    }

    /// Acknowledges everything up to this tag. By the channel's own method, which hands the frame over on the first poll; the
    /// acknowledgement that a delivery carries goes by a queue and a task of the client, where it can be overtaken.
    pub(super) async fn settle(&self, up_to_tag: u64) -> Settling {
        let _turn = self.turn.lock().await;
        if up_to_tag <= self.settled.load(Ordering::Acquire) {
            return Settling::Done;
        }
        if up_to_tag > self.received.load(Ordering::Acquire) {
            // The broker would close the channel for it.
            return Settling::Failed(format!("tag {up_to_tag} was never delivered"));
        }
        let all_up_to_it = BasicAckOptions { multiple: true };
        match self.channel.basic_ack(up_to_tag, all_up_to_it).await {
            Ok(()) => {
                self.settled.store(up_to_tag, Ordering::Release);
                Settling::Done
            }
            Err(error) => Settling::Failed(crate::connection::words(&error)),
        }
    }
}
