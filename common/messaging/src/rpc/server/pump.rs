//! Takes requests from the client, reads them, and hands on what is worth beginning.

use std::sync::{Arc, atomic::Ordering};

use doorstep_event::{Rejection, Timestamp};
use futures_util::StreamExt;
use lapin::{Consumer, message::Delivery as Received};

use super::{
    Reply, RpcServerSettings,
    callers::Callers,
    cancellations::Cancelled,
    inbox::Inbox,
    incoming::{Ended, IncomingRequest, ReplyHandle},
    reply_channel::ReplyChannel,
    skew::{Late, Skew},
};
use crate::{
    connection::{Undecodable, describe},
    rpc::{
        codec::{self, PriorAttempt},
        counts::RpcServerCounters,
        span::ServerSpan,
    },
};

/// The way of requests from the client to whoever answers them.
pub(super) struct Pump {
    pub(super) consumer: Consumer,
    pub(super) line: Arc<ReplyChannel>,
    pub(super) settings: RpcServerSettings,
    pub(super) inbox: Arc<Inbox<IncomingRequest>>,
    pub(super) counts: Arc<RpcServerCounters>,
    pub(super) callers: Callers,
    pub(super) role: String,
    pub(super) skew: Skew,
}

impl Pump {
    /// Runs until no more requests can come, and says why.
    pub(super) async fn run(mut self) -> String {
        while let Some(received) = self.consumer.next().await {
            match received {
                Ok(received) => self.take(received),
                Err(error) => return describe(&error),
            }
        }
        "the broker ended the consumption of requests".to_owned()
    }

    fn take(&mut self, mut received: Received) {
        self.counts.consumed.delivered(1, std::time::Instant::now());
        let properties = &received.properties;
        let own = |text: &Option<lapin::types::ShortString>| {
            text.as_ref().map_or_else(String::new, ToString::to_string)
        };
        let held = self.counts.held.fetch_add(1, Ordering::Relaxed);
        let mut reply = ReplyHandle {
            line: self.line.clone(),
            tag: received.delivery_tag,
            reply_to: own(properties.reply_to()),
            correlation: own(properties.correlation_id()),
            redelivered: received.redelivered,
            before: PriorAttempt::None,
            bytes: 0,
            counts: self.counts.clone(),
            span: ServerSpan::none(),
            ended: Ended::NotYet,
        };
        if let Some(undecodable) = Undecodable::of(properties) {
            // Its way back is as doubtful as the rest of it.
            let reason = undecodable.reason;
            tracing::debug!(reason, "request that no client can decode");
            self.counts.malformed.add(1);
            return reply.ack_without_reply();
        }
        if let Some(refused) = self.callers.reject(properties, &self.role) {
            self.counts.forbidden.add(1);
            return self.refuse(reply, refused);
        }
        let mut request = match codec::read_request(&mut received) {
            Ok(request) => request,
            Err(refused) => {
                self.counts.malformed.add(1);
                return self.refuse(reply, refused);
            }
        };
        reply.before = PriorAttempt::of(request.act, received.redelivered);
        let now = Timestamp::now();
        if request.deadline <= now {
            self.counts.expired.add(1);
            return match self.skew.judge(&request, received.redelivered, now) {
                Late::Expired => reply.ack_without_reply(),
                Late::Skewed(refused) => {
                    self.counts.skewed.add(1);
                    self.refuse(reply, refused);
                }
            };
        }
        let Some(cancelled) = self.begin(&reply.correlation) else {
            self.counts.cancelled.add(1);
            return reply.ack_without_reply();
        };
        let RpcServerSettings {
            max_in_flight: bound,
            max_bytes,
            retry_after,
        } = self.settings;
        reply.bytes = request.data.len();
        let held_bytes = &self.counts.held_bytes;
        let held_bytes = held_bytes.fetch_add(reply.bytes, Ordering::Relaxed);
        let too_large = held_bytes > 0 && held_bytes.saturating_add(reply.bytes) > max_bytes;
        if too_large || held >= usize::from(bound) {
            reply.send(Reply::Overloaded { retry_after });
            return;
        }
        reply.span = ServerSpan::begin(&mut request);
        let asked = IncomingRequest {
            request,
            redelivered: received.redelivered,
            cancelled,
            reply,
        };
        // Closing: another server may have it at once.
        if let Some(asked) = self.inbox.put(asked) {
            asked.reply.requeue();
        }
    }

    /// A request without a mark cannot be cancelled.
    fn begin(&self, correlation: &str) -> Option<Cancelled> {
        if correlation.is_empty() {
            return Some(Cancelled::default());
        }
        self.line.cancels.begin(correlation)
    }

    fn refuse(&self, reply: ReplyHandle, refused: Rejection) {
        if reply.reply_to.is_empty() {
            return reply.ack_without_reply();
        }
        reply.send(Reply::Answer(Err(refused)));
    }
}

/// Takes the words about who has gone away. Returns when none can come any more.
pub(super) async fn receive_cancellations(mut consumer: Consumer, line: Arc<ReplyChannel>) {
    while let Some(Ok(received)) = consumer.next().await {
        if let Some(correlation) = received.properties.correlation_id() {
            line.cancels.cancel(correlation.as_str());
        }
    }
}
