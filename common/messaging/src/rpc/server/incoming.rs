//! A request that was handed out, and the way back for its reply.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use doorstep_event::{Rejection, Request, Timestamp};

use super::{Reply, cancellations::Cancelled, reply_channel::ReplyChannel};
use crate::rpc::{
    codec::{self, PriorAttempt},
    counts::RpcServerCounters,
    span::ServerSpan,
};

/// A request that somebody waits for.
#[derive(Debug)]
pub struct IncomingRequest {
    /// What is asked, by whom, until when.
    pub request: Request,
    /// False if it was certainly never given to any server before.
    pub redelivered: bool,
    /// Tells when nobody waits any more.
    pub cancelled: Cancelled,
    /// The way back.
    pub reply: ReplyHandle,
}

impl IncomingRequest {
    /// The request, unless nobody waits for it any more or it cannot be answered.
    pub(super) fn if_still_wanted(self) -> Option<Self> {
        let counts = &self.reply.counts;
        let reason = if self.reply.line.is_shut() {
            // It comes again, to whoever.
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

/// What became of a reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReplyOutcome {
    /// Handed to the client. The request is acknowledged once that is written, so if the connection is lost before, it comes again.
    Sent,
    /// Its connection is gone. The broker gives the request out again, under the same id.
    ConnectionLost,
}

/// The way back for one reply.
///
/// A handle that is dropped puts its request back, so that another server can answer it; if the request had come back before, it is
/// refused as [`Refused::FAILED`] instead, for it may be the request that is the trouble. A command that had come back is not refused,
/// which would say that nothing was changed: its caller hears [`CallError::Unreachable`](crate::CallError::Unreachable).
pub struct ReplyHandle {
    pub(super) line: Arc<ReplyChannel>,
    pub(super) tag: u64,
    pub(super) reply_to: String,
    pub(super) correlation: String,
    pub(super) redelivered: bool,
    pub(super) before: PriorAttempt,
    /// Of the request's data, where it counts as held.
    pub(super) bytes: usize,
    pub(super) counts: Arc<RpcServerCounters>,
    pub(super) span: ServerSpan,
    pub(super) ended: Ended,
}

/// When a command is worth trying again that nobody has answered. For programs that read the reply themselves.
const SOON: Duration = Duration::from_millis(250);

/// Whether a request's end is settled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ended {
    NotYet,
    Settled,
}

impl std::fmt::Debug for ReplyHandle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ReplyHandle")
            .field("correlation", &self.correlation)
            .finish_non_exhaustive()
    }
}

impl ReplyHandle {
    /// Hands the reply to the client, without waiting. Its request is acknowledged after it.
    pub fn send(mut self, reply: Reply) -> ReplyOutcome {
        self.reply_with(reply)
    }

    fn reply_with(&mut self, reply: Reply) -> ReplyOutcome {
        self.ended = Ended::Settled;
        let count = match &reply {
            Reply::Answer(Ok(_)) => &self.counts.answered,
            Reply::Answer(Err(refused)) => {
                self.span.failed(&refused.code);
                &self.counts.refused
            }
            Reply::Overloaded { .. } => {
                self.span.failed("overloaded");
                &self.counts.shed
            }
        };
        let message = codec::reply(reply, self.before, &self.correlation);
        if self.line.reply(self.tag, &self.reply_to, message) {
            count.add(1);
            ReplyOutcome::Sent
        } else {
            self.counts.discarded.add(1);
            ReplyOutcome::ConnectionLost
        }
    }

    /// Puts the request back, for another server.
    pub(super) fn requeue(mut self) {
        self.ended = Ended::Settled;
        self.counts.put_back.add(1);
        self.line.requeue(self.tag);
    }

    /// Acknowledges the request and says nothing: nobody would hear it.
    pub fn ack_without_reply(mut self) {
        self.ended = Ended::Settled;
        self.line.acknowledge(self.tag);
    }
}

impl Drop for ReplyHandle {
    fn drop(&mut self) {
        if self.ended == Ended::NotYet && !self.line.is_shut() {
            if self.before == PriorAttempt::MaybeStarted {
                self.reply_with(Reply::Overloaded { retry_after: SOON });
            } else if self.redelivered {
                let detail = "the request was begun twice and not answered";
                let refused = Rejection::new(Rejection::FAILED, detail);
                self.reply_with(Reply::Answer(Err(refused)));
            } else {
                self.counts.put_back.add(1);
                self.line.requeue(self.tag);
            }
        }
        self.line.cancels.forget(&self.correlation);
        let counts = &self.counts;
        counts.held_bytes.fetch_sub(self.bytes, Ordering::Relaxed);
        counts.held.fetch_sub(1, Ordering::Relaxed);
    }
}
