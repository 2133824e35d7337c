//! What a requester and a responder count of themselves, to be read at any time.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use super::error::CallError;
use crate::counts::{ConsumerCounters, Count};

/// What a requester has done since its start. Every request that was asked is in one of them, or under way.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RpcClientTotals {
    /// Requests that were replied to.
    pub answered: u64,
    /// Requests that a role has refused.
    pub refused: u64,
    /// Requests to a role for which nobody answers.
    pub no_responder: u64,
    /// Requests whose deadline came first.
    pub timed_out: u64,
    /// Requests that were too many: here, for the queue, or for the role.
    pub overloaded: u64,
    /// Requests that met no connection, or lost it.
    pub unreachable: u64,
    /// Requests whose reply could not be read.
    pub malformed: u64,
    /// Requests whose callers went away.
    pub cancelled: u64,
    /// Replies that came when nobody waited for them any more.
    pub late: u64,
    /// Requests under way, now.
    pub in_flight: u64,
}

/// What a responder has done since its start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RpcServerTotals {
    /// Requests that came, those included that came again.
    pub delivered: u64,
    /// Replies that were sent with what was asked for.
    pub answered: u64,
    /// Replies that were sent with a refusal.
    pub refused: u64,
    /// Those of them that were rejected since their user of the broker may not send requests.
    pub forbidden: u64,
    /// Requests that were answered with the word that there is too much to do.
    pub shed: u64,
    /// Requests that came after their deadline, or were reached after it.
    pub expired: u64,
    /// Those of them that were late when they first came, which the broker would have dropped: the clocks differ, or this machine was held
    /// up.
    pub skewed: u64,
    /// Requests that were not handed out since nobody waited for them any more.
    pub cancelled: u64,
    /// Requests that could not be read.
    pub malformed: u64,
    /// Requests that were put back, being handed out and dropped.
    pub put_back: u64,
    /// Replies whose connection was gone.
    pub discarded: u64,
    /// Requests handed out, or waiting to be, and not answered, now.
    pub held: u64,
}

/// Reads a requester's counts, also after it has ended. Cheap to clone.
#[derive(Debug, Clone)]
pub struct RpcClientStats(pub(super) Arc<RpcClientCounters>);

impl RpcClientStats {
    /// The counts as they are now. Each is right by itself; they are not taken at one instant.
    #[must_use]
    pub fn read(&self) -> RpcClientTotals {
        let cells = &self.0;
        RpcClientTotals {
            answered: cells.answered.get(),
            refused: cells.refused.get(),
            no_responder: cells.no_responder.get(),
            timed_out: cells.timed_out.get(),
            overloaded: cells.overloaded.get(),
            unreachable: cells.unreachable.get(),
            malformed: cells.malformed.get(),
            cancelled: cells.cancelled.get(),
            late: cells.late.get(),
            in_flight: cells.in_flight.load(Ordering::Relaxed) as u64,
        }
    }
}

#[derive(Debug, Default)]
pub(super) struct RpcClientCounters {
    answered: Count,
    refused: Count,
    no_responder: Count,
    timed_out: Count,
    overloaded: Count,
    unreachable: Count,
    malformed: Count,
    pub(super) cancelled: Count,
    pub(super) late: Count,
    /// Replies that came, for anybody or not.
    pub(super) heard: Count,
    pub(super) in_flight: AtomicUsize,
}

impl RpcClientCounters {
    pub(super) fn ended<T>(&self, answer: &Result<T, CallError>) {
        let count = match answer {
            Ok(_) => &self.answered,
            Err(CallError::Refused(_)) => &self.refused,
            Err(CallError::NoResponder { .. }) => &self.no_responder,
            Err(CallError::TimedOut) => &self.timed_out,
            Err(CallError::Overloaded { .. }) => &self.overloaded,
            Err(CallError::Unreachable { .. }) => &self.unreachable,
            Err(CallError::Malformed(_)) => &self.malformed,
        };
        count.add(1);
    }
}

/// Reads a responder's counts, also after it has ended. Cheap to clone.
#[derive(Debug, Clone)]
pub struct RpcServerStats(pub(super) Arc<RpcServerCounters>);

impl RpcServerStats {
    /// The counts as they are now. Each is right by itself; they are not taken at one instant.
    #[must_use]
    pub fn read(&self) -> RpcServerTotals {
        let cells = &self.0;
        RpcServerTotals {
            delivered: cells.consumed.delivered.get(),
            answered: cells.answered.get(),
            refused: cells.refused.get(),
            forbidden: cells.forbidden.get(),
            shed: cells.shed.get(),
            expired: cells.expired.get(),
            skewed: cells.skewed.get(),
            cancelled: cells.cancelled.get(),
            malformed: cells.malformed.get(),
            put_back: cells.put_back.get(),
            discarded: cells.discarded.get(),
            held: cells.held.load(Ordering::Relaxed) as u64,
        }
    }
}

#[derive(Debug)]
pub(super) struct RpcServerCounters {
    /// What the watch over a quiet connection goes by.
    pub(super) consumed: ConsumerCounters,
    pub(super) answered: Count,
    pub(super) refused: Count,
    pub(super) forbidden: Count,
    pub(super) shed: Count,
    pub(super) expired: Count,
    pub(super) skewed: Count,
    pub(super) cancelled: Count,
    pub(super) malformed: Count,
    pub(super) put_back: Count,
    pub(super) discarded: Count,
    pub(super) held: AtomicUsize,
    /// The bytes of data in these, as far as they were read.
    pub(super) held_bytes: AtomicUsize,
}

impl RpcServerCounters {
    pub(super) fn new() -> Self {
        Self {
            consumed: ConsumerCounters::new(),
            answered: Count::default(),
            refused: Count::default(),
            forbidden: Count::default(),
            shed: Count::default(),
            expired: Count::default(),
            skewed: Count::default(),
            cancelled: Count::default(),
            malformed: Count::default(),
            put_back: Count::default(),
            discarded: Count::default(),
            held: AtomicUsize::new(0),
            held_bytes: AtomicUsize::new(0),
        }
    }
}
