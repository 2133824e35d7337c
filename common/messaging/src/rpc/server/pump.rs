//! Takes requests from lapin, parses them, and queues those worth beginning.

use std::sync::Arc;

use doorstep_event::{Rejection, Timestamp};
use futures_util::StreamExt;
use lapin::{Consumer, message::Delivery as Received};

use super::{
    Reply, RpcServerSettings,
    callers::Callers,
    cancellations::Cancelled,
    incoming::{IncomingRequest, ReplyHandle},
    reply_channel::ReplyChannel,
    request_buffer::RequestBuffer,
    skew::{Late, Skew},
};
use crate::{
    connection::{Undecodable, describe},
    rpc::{
        codec::{self, PriorAttempt},
        span::ServerSpan,
        stats::RpcServerCounters,
    },
};

/// Moves requests from lapin to the buffer.
pub(super) struct RequestPump {
    pub(super) consumer: Consumer,
    pub(super) channel: Arc<ReplyChannel>,
    pub(super) settings: RpcServerSettings,
    pub(super) requests: Arc<RequestBuffer<IncomingRequest>>,
    pub(super) counts: Arc<RpcServerCounters>,
    pub(super) callers: Callers,
    pub(super) role: String,
    pub(super) skew: Skew,
}

impl RequestPump {
    /// Runs until no more requests can arrive, and returns the reason.
    pub(super) async fn run(mut self) -> String {
        while let Some(received) = self.consumer.next().await {
            match received {
                Ok(received) => self.take(received),
                Err(error) => return describe(&error),
            }
        }
        "the broker cancelled the consumer of requests".to_owned()
    }

    fn take(&mut self, mut received: Received) {
        self.counts.delivered.add(1);
        let properties = &received.properties;
        let text_of = |text: &Option<lapin::types::ShortString>| {
            text.as_ref().map_or_else(String::new, ToString::to_string)
        };
        let in_flight = self.counts.in_flight.add(1);
        let mut reply = ReplyHandle {
            channel: self.channel.clone(),
            tag: received.delivery_tag,
            reply_to: text_of(properties.reply_to()),
            correlation: text_of(properties.correlation_id()),
            redelivered: received.redelivered,
            prior_attempt: PriorAttempt::None,
            bytes: 0,
            counts: self.counts.clone(),
            span: ServerSpan::none(),
            is_done: false,
        };
        if let Some(undecodable) = Undecodable::from_properties(properties) {
            // Its reply address is as unreliable as the rest of it.
            let reason = undecodable.reason;
            tracing::debug!(reason, "undecodable request");
            self.counts.malformed.add(1);
            return reply.ack_without_reply();
        }
        if let Some(rejection) = self.callers.reject(properties, &self.role) {
            self.counts.forbidden.add(1);
            return self.reject(reply, rejection);
        }
        let mut request = match codec::read_request(&mut received) {
            Ok(request) => request,
            Err(rejection) => {
                self.counts.malformed.add(1);
                return self.reject(reply, rejection);
            }
        };
        reply.prior_attempt = PriorAttempt::new(request.act, received.redelivered);
        let now = Timestamp::now();
        if request.deadline <= now {
            self.counts.expired.add(1);
            return match self.skew.classify(&request, received.redelivered, now) {
                Late::Expired => reply.ack_without_reply(),
                Late::Skewed(rejection) => {
                    self.counts.skewed.add(1);
                    self.reject(reply, rejection);
                }
            };
        }
        let Some(cancelled) = self.begin(&reply.correlation) else {
            self.counts.cancelled.add(1);
            return reply.ack_without_reply();
        };
        let RpcServerSettings {
            max_in_flight,
            max_bytes,
            retry_after,
        } = self.settings;
        reply.bytes = request.data.len() as u64;
        let others = self.counts.in_flight_bytes.add(reply.bytes);
        let too_large = others > 0 && others.saturating_add(reply.bytes) > max_bytes as u64;
        if too_large || in_flight >= u64::from(max_in_flight) {
            reply.send(Reply::Overloaded { retry_after });
            return;
        }
        reply.span = ServerSpan::begin(&mut request);
        let incoming = IncomingRequest {
            request,
            redelivered: received.redelivered,
            cancelled,
            reply,
        };
        // The server is closing, so another one may have the request at once.
        if let Some(incoming) = self.requests.put(incoming) {
            incoming.reply.requeue();
        }
    }

    /// A request without a correlation id cannot be cancelled.
    fn begin(&self, correlation: &str) -> Option<Cancelled> {
        if correlation.is_empty() {
            return Some(Cancelled::default());
        }
        self.channel.cancels.begin(correlation)
    }

    fn reject(&self, reply: ReplyHandle, rejection: Rejection) {
        if reply.reply_to.is_empty() {
            return reply.ack_without_reply();
        }
        reply.send(Reply::Result(Err(rejection)));
    }
}

/// Receives cancellations. Returns when no more can arrive.
pub(super) async fn receive_cancellations(mut consumer: Consumer, channel: Arc<ReplyChannel>) {
    while let Some(Ok(received)) = consumer.next().await {
        if let Some(correlation) = received.properties.correlation_id() {
            channel.cancels.cancel(correlation.as_str());
        }
    }
}
