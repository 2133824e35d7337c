//! Counters of RPC clients and servers.

use std::sync::Arc;

use super::error::CallError;
use crate::counters::counters;

counters! {
    /// Counters of an RPC client since its start. Every call ends in one of them but `received`, or is in flight.
    RpcClientTotals from RpcClientCounters;
    counts {
        /// Calls that ended with a reply.
        replied,
        /// Calls rejected by a role.
        rejected,
        /// Calls to a role without consumers.
        no_responder,
        /// Calls that reached their deadline.
        timed_out,
        /// Calls rejected because of overload: in this client, in the queue or in the role.
        overloaded,
        /// Calls without a connection, or whose connection was lost.
        unreachable,
        /// Calls with an invalid reply.
        malformed,
        /// Calls dropped by their callers.
        cancelled,
        /// Replies without a waiting caller.
        late,
        /// Replies received, with or without a waiting caller.
        received,
        /// Gauge: calls in flight at this moment.
        in_flight,
    }
    instants {}
    elsewhere {}
}

/// Reads an RPC client's counters, also after it has ended. Cheap to clone.
#[derive(Debug, Clone)]
pub struct RpcClientStats(pub(super) Arc<RpcClientCounters>);

impl RpcClientStats {
    /// Returns the counters. Each is exact, but they are not read at one instant.
    #[must_use]
    pub fn read(&self) -> RpcClientTotals {
        self.0.totals()
    }
}

impl RpcClientCounters {
    pub(super) fn ended<T>(&self, result: &Result<T, CallError>) {
        let count = match result {
            Ok(_) => &self.replied,
            Err(CallError::Rejected(_)) => &self.rejected,
            Err(CallError::NoResponder { .. }) => &self.no_responder,
            Err(CallError::TimedOut) => &self.timed_out,
            Err(CallError::Overloaded { .. }) => &self.overloaded,
            Err(CallError::Unreachable { .. }) => &self.unreachable,
            Err(CallError::Malformed(_)) => &self.malformed,
        };
        count.add(1);
    }
}

counters! {
    /// Counters of an RPC server since its start.
    RpcServerTotals from RpcServerCounters;
    counts {
        /// Requests received, including redelivered ones.
        delivered,
        /// Replies that carry the role's data.
        replied,
        /// Replies that carry the role's rejection.
        rejected,
        /// Rejections because the broker user may not send requests; also counted in `rejected`.
        forbidden,
        /// Requests rejected because of overload.
        shed,
        /// Requests received or reached after their deadline.
        expired,
        /// Expired requests that were late on first delivery, although the broker drops late ones: the clocks differ, or this machine was
        /// stalled.
        skewed,
        /// Requests not handed out because they were cancelled.
        cancelled,
        /// Requests that could not be parsed.
        malformed,
        /// Requests requeued because their handle was dropped.
        requeued,
        /// Replies whose connection was lost.
        replies_lost,
        /// Gauge: requests that are queued or handed out, without a reply.
        in_flight,
        /// Gauge: bytes of their data, as far as they are parsed.
        in_flight_bytes,
    }
    instants {}
    elsewhere {}
}

/// Reads an RPC server's counters, also after it has ended. Cheap to clone.
#[derive(Debug, Clone)]
pub struct RpcServerStats(pub(super) Arc<RpcServerCounters>);

impl RpcServerStats {
    /// Returns the counters. Each is exact, but they are not read at one instant.
    #[must_use]
    pub fn read(&self) -> RpcServerTotals {
        self.0.totals()
    }
}
