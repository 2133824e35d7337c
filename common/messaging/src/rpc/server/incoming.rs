//! A request handed out to the role, and the handle for its reply.

use std::{sync::Arc, time::Duration};

use doorstep_event::{Rejection, Request, Timestamp};

use super::{Reply, cancellations::Cancelled, reply_channel::ReplyChannel};
use crate::rpc::{
    codec::{self, PriorAttempt},
    span::ServerSpan,
    stats::RpcServerCounters,
};

#[derive(Debug)]
pub struct IncomingRequest {
    pub request: Request,
    /// False if the request was certainly never delivered before.
    pub redelivered: bool,
    /// Set when the caller no longer waits.
    pub cancelled: Cancelled,
    pub reply: ReplyHandle,
}

impl IncomingRequest {
    /// Returns the request unless its caller no longer waits or a reply is impossible.
    pub(super) fn if_pending(self) -> Option<Self> {
        let counts = &self.reply.counts;
        let reason = if self.reply.channel.is_closed() {
            // The broker redelivers it to another server.
            return None;
        } else if self.cancelled.is_cancelled() {
            &counts.cancelled
        } else if self.request.deadline <= Timestamp::now() {
            &counts.expired
        } else {
            return Some(self);
        };
        reason.add(1);
        self.reply.ack_without_reply();
        None
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReplyOutcome {
    /// Handed to lapin. The request is acked once the reply is written, so it is redelivered if the connection is lost before.
    Sent,
    /// The connection is lost. The broker redelivers the request with the same id.
    ConnectionLost,
}

/// Sends the reply of one request.
///
/// A handle that is dropped requeues its request, so that another server can handle it. If the request had been redelivered, it is rejected
/// as [`Rejection::FAILED`] instead, because the request itself may be the problem. A redelivered command is not rejected, since that would
/// mean that nothing was changed: its caller gets [`CallError::Unreachable`](crate::CallError::Unreachable).
#[derive(derive_more::Debug)]
#[debug("ReplyHandle({correlation:?})")]
pub struct ReplyHandle {
    pub(super) channel: Arc<ReplyChannel>,
    pub(super) tag: u64,
    pub(super) reply_to: String,
    pub(super) correlation: String,
    pub(super) redelivered: bool,
    pub(super) prior_attempt: PriorAttempt,
    /// Bytes of the request's data, once they count as in flight.
    pub(super) bytes: u64,
    pub(super) counts: Arc<RpcServerCounters>,
    pub(super) span: ServerSpan,
    pub(super) is_done: bool,
}

/// Retry delay for a command without a reply, for programs that parse replies themselves.
const RETRY_AFTER: Duration = Duration::from_millis(250);

impl ReplyHandle {
    /// Hands the reply to lapin, without waiting. Its request is acked afterwards.
    pub fn send(mut self, reply: Reply) -> ReplyOutcome {
        self.reply_with(reply)
    }

    fn reply_with(&mut self, reply: Reply) -> ReplyOutcome {
        self.is_done = true;
        let count = match &reply {
            Reply::Result(Ok(_)) => &self.counts.replied,
            Reply::Result(Err(rejection)) => {
                self.span.failed(&rejection.code);
                &self.counts.rejected
            }
            Reply::Overloaded { .. } => {
                self.span.failed("overloaded");
                &self.counts.shed
            }
        };
        let message = codec::reply(reply, self.prior_attempt, &self.correlation);
        if self.channel.reply(self.tag, &self.reply_to, message) {
            count.add(1);
            ReplyOutcome::Sent
        } else {
            self.counts.replies_lost.add(1);
            ReplyOutcome::ConnectionLost
        }
    }

    /// Requeues the request for another server.
    pub(super) fn requeue(mut self) {
        self.is_done = true;
        self.counts.requeued.add(1);
        self.channel.requeue(self.tag);
    }

    /// Acks the request without a reply, since no caller waits.
    pub fn ack_without_reply(mut self) {
        self.is_done = true;
        self.channel.acknowledge(self.tag);
    }
}

impl Drop for ReplyHandle {
    fn drop(&mut self) {
        if !self.is_done && !self.channel.is_closed() {
            if self.prior_attempt == PriorAttempt::MaybeStarted {
                self.reply_with(Reply::Overloaded {
                    retry_after: RETRY_AFTER,
                });
            } else if self.redelivered {
                let detail = "the request was begun twice without a reply";
                let rejection = Rejection::new(Rejection::FAILED, detail);
                self.reply_with(Reply::Result(Err(rejection)));
            } else {
                self.counts.requeued.add(1);
                self.channel.requeue(self.tag);
            }
        }
        self.channel.cancels.forget(&self.correlation);
        let counts = &self.counts;
        counts.in_flight_bytes.subtract(self.bytes);
        counts.in_flight.subtract(1);
    }
}
