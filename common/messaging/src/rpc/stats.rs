//! Counters of RPC clients and servers, readable at any time.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use super::error::CallError;
use crate::counts::{ConsumerCounters, Count};

/// Counters of an RPC client since its start. Every call is in one of them, or in flight.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RpcClientTotals {
    /// Calls that ended with a reply.
    pub replied: u64,
    /// Calls rejected by a role.
    pub rejected: u64,
    /// Calls to a role without consumers.
    pub no_responder: u64,
    /// Calls that reached their deadline.
    pub timed_out: u64,
    /// Calls rejected because of overload: in this client, in the queue or in the role.
    pub overloaded: u64,
    /// Calls without a connection, or whose connection was lost.
    pub unreachable: u64,
    /// Calls with an invalid reply.
    pub malformed: u64,
    /// Calls dropped by their callers.
    pub cancelled: u64,
    /// Replies without a waiting caller.
    pub late: u64,
    /// Gauge: calls in flight at this moment.
    pub in_flight: u64,
}

/// Counters of an RPC server since its start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RpcServerTotals {
    /// Requests received, including redelivered ones.
    pub delivered: u64,
    /// Replies that carry the role's data.
    pub replied: u64,
    /// Replies that carry the role's rejection.
    pub rejected: u64,
    /// Rejections because the broker user may not send requests; also counted in `refused`.
    pub forbidden: u64,
    /// Requests rejected because of overload.
    pub shed: u64,
    /// Requests received or reached after their deadline.
    pub expired: u64,
    /// Expired requests that were late on first delivery, although the broker drops late ones: the clocks differ, or this machine was
    /// stalled.
    pub skewed: u64,
    /// Requests not handed out because they were cancelled.
    pub cancelled: u64,
    /// Requests that could not be parsed.
    pub malformed: u64,
    /// Requests requeued because their handle was dropped.
    pub requeued: u64,
    /// Replies whose connection was lost.
    pub replies_lost: u64,
    /// Gauge: requests that are queued or handed out, without a reply.
    pub in_flight: u64,
}

/// Reads an RPC client's counters, also after it has ended. Cheap to clone.
#[derive(Debug, Clone)]
pub struct RpcClientStats(pub(super) Arc<RpcClientCounters>);

impl RpcClientStats {
    /// Returns the counters. Each is exact, but they are not read at one instant.
    #[must_use]
    pub fn read(&self) -> RpcClientTotals {
        let cells = &self.0;
        RpcClientTotals {
            replied: cells.answered.get(),
            rejected: cells.refused.get(),
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
    /// Replies received, with or without a waiting caller.
    pub(super) received: Count,
    pub(super) in_flight: AtomicUsize,
}

impl RpcClientCounters {
    pub(super) fn ended<T>(&self, result: &Result<T, CallError>) {
        let count = match result {
            Ok(_) => &self.answered,
            Err(CallError::Rejected(_)) => &self.refused,
            Err(CallError::NoResponder { .. }) => &self.no_responder,
            Err(CallError::TimedOut) => &self.timed_out,
            Err(CallError::Overloaded { .. }) => &self.overloaded,
            Err(CallError::Unreachable { .. }) => &self.unreachable,
            Err(CallError::Malformed(_)) => &self.malformed,
        };
        count.add(1);
    }
}

/// Reads an RPC server's counters, also after it has ended. Cheap to clone.
#[derive(Debug, Clone)]
pub struct RpcServerStats(pub(super) Arc<RpcServerCounters>);

impl RpcServerStats {
    /// Returns the counters. Each is exact, but they are not read at one instant.
    #[must_use]
    pub fn read(&self) -> RpcServerTotals {
        let cells = &self.0;
        RpcServerTotals {
            delivered: cells.consumed.delivered.get(),
            replied: cells.answered.get(),
            rejected: cells.refused.get(),
            forbidden: cells.forbidden.get(),
            shed: cells.shed.get(),
            expired: cells.expired.get(),
            skewed: cells.skewed.get(),
            cancelled: cells.cancelled.get(),
            malformed: cells.malformed.get(),
            requeued: cells.put_back.get(),
            replies_lost: cells.discarded.get(),
            in_flight: cells.held.load(Ordering::Relaxed) as u64,
        }
    }
}

#[derive(Debug)]
pub(super) struct RpcServerCounters {
    /// Input of the keepalive on an idle connection.
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
    /// Bytes of data of the held requests, as far as they are parsed.
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
