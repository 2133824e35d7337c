//! Publishes requests: on two channels while there is a connection, and otherwise fails with the reason.
//!
//! Commands use a channel in confirm mode: a command that the broker rejects for lack of room was certainly not begun, and its caller
//! learns that at once. Queries use a channel without confirms: they change nothing, so that certainty is not needed. The confirm, which
//! arrives before the reply, would cost each query a tenth of its time. If a queue has no room for queries, `liveness` detects it.
//!
//! The caller's task publishes, under one lock: numbers and frames of a channel must stay in step, and publishing happens on the first
//! poll, which never waits.
//!
//! Only a nack matters, and a few milliseconds late is fine. So confirms wake no task; while any are pending, the task polls them, and
//! returned messages, every few milliseconds. With sequential calls, two wake-ups per call would cost more than the call.

use std::{collections::VecDeque, sync::Arc, task::Poll, time::Duration};

use bytes::Bytes;
use doorstep_event::{Request, RequestKind};
use futures_util::FutureExt;
use lapin::{
    Channel, Confirmation, PublisherConfirm, message::BasicReturnMessage, types::ShortString,
};
use tokio::{sync::oneshot, time::Instant};

use super::{Shared, pending_calls::PendingCall};
use crate::{
    amqp::{MANDATORY, short_string},
    connection::describe,
    locked::Locked,
    rpc::{
        codec,
        error::CallError,
        pending_writes::{Polling, Writing, poll, writing},
    },
    topology::names::QueueName,
};

/// Time to wait for the return of an unroutable query. Later, `liveness` detects the missing queue.
const RETURN_TIMEOUT: Duration = Duration::from_secs(2);

pub(super) struct RequestSender {
    /// Maximum unconfirmed commands and unwritten queries, including those whose callers have given up.
    max_requests: usize,
    /// Maximum bytes of their data.
    max_bytes: usize,
    channel: Locked<SenderChannel>,
    /// Polling of confirms and returned messages.
    pub(super) polling: Polling,
}

/// The channels that send requests and receive their replies.
#[derive(Clone)]
pub(super) struct ClientChannels {
    /// In confirm mode, for commands.
    pub(super) confirmed: Channel,
    pub(super) plain: Channel,
    /// User id of the requests.
    pub(super) user_id: Option<ShortString>,
}

struct SenderChannel {
    state: SenderState,
    /// Time of the latest query while it may still be returned.
    last_query: Option<Instant>,
    in_flight: VecDeque<InFlightRequest>,
    /// Bytes of the in-flight requests, including those being polled.
    bytes: usize,
}

enum SenderState {
    Open(ClientChannels),
    Blocked(ClientChannels, String),
    Closed(String),
}

/// An in-flight request, by number.
struct InFlightRequest {
    number: u64,
    bytes: usize,
    stage: WriteStage,
}

enum WriteStage {
    Writing(Writing),
    Confirming(PublisherConfirm),
}

impl RequestSender {
    pub(super) fn new(max_in_flight: usize, max_bytes: usize) -> Self {
        Self {
            max_requests: max_in_flight.saturating_mul(2).max(1),
            max_bytes,
            channel: Locked::new(SenderChannel {
                state: SenderState::Closed("there is no connection yet".to_owned()),
                last_query: None,
                in_flight: VecDeque::new(),
                bytes: 0,
            }),
            polling: Polling::default(),
        }
    }

    pub(super) fn open(&self, channels: ClientChannels) {
        self.channel.lock().state = SenderState::Open(channels);
    }

    /// Rejects further requests for this reason.
    pub(super) fn close(&self, reason: &str) {
        let mut sender = self.channel.lock();
        sender.state = SenderState::Closed(reason.to_owned());
        sender.last_query = None;
        sender.in_flight.clear();
        sender.bytes = 0;
    }

    /// Rejects requests for this reason while the broker blocks the connection.
    pub(super) fn block(&self, reason: Option<&str>) {
        let mut sender = self.channel.lock();
        if let SenderState::Open(channels) | SenderState::Blocked(channels, _) = &sender.state {
            let channels = channels.clone();
            sender.state = match reason {
                Some(reason) => SenderState::Blocked(channels, reason.to_owned()),
                None => SenderState::Open(channels),
            };
        }
    }

    /// Hands a request to lapin, and registers its caller.
    pub(super) fn send(
        &self,
        shared: &Shared,
        request: &Request,
        queue: QueueName,
        left: Duration,
        number: u64,
        done: oneshot::Sender<Result<Bytes, CallError>>,
    ) -> Result<(), CallError> {
        let mut properties =
            codec::request(request, &shared.pending_calls.correlation(number), left);
        let since = Instant::now();
        let call = PendingCall {
            role: request.role().into(),
            act: request.act,
            since,
            done,
        };
        let mut sender = self.channel.lock();
        let channel = match &sender.state {
            SenderState::Open(channels) => {
                if let Some(user_id) = &channels.user_id {
                    properties = properties.with_user_id(user_id.clone());
                }
                match request.act {
                    RequestKind::Command => channels.confirmed.clone(),
                    RequestKind::Query => channels.plain.clone(),
                }
            }
            SenderState::Blocked(_, reason) => {
                return Err(CallError::unreachable(format!(
                    "the broker accepts nothing for now ({reason})"
                )));
            }
            SenderState::Closed(reason) => return Err(CallError::unreachable(reason.as_str())),
        };
        let bytes = request.data.len();
        let too_much = sender.bytes > 0 && sender.bytes.saturating_add(bytes) > self.max_bytes;
        if too_much || sender.in_flight.len() >= self.max_requests {
            let retry_after = shared.settings.retry_after;
            return Err(CallError::Overloaded { retry_after });
        }
        // Registered before a reply can arrive.
        shared.pending_calls.insert(number, call);
        let (queue, data) = (short_string(queue.as_str()), request.data.clone());
        let mut writing = writing(channel, queue, MANDATORY, properties, data);
        let stage = match poll(&mut writing) {
            Poll::Pending => WriteStage::Writing(writing),
            Poll::Ready(Ok(confirm)) => WriteStage::Confirming(confirm),
            Poll::Ready(Err(error)) => {
                shared.pending_calls.remove(number);
                return Err(CallError::unreachable(describe(&error)));
            }
        };
        sender.in_flight.push_back(InFlightRequest {
            number,
            bytes,
            stage,
        });
        sender.bytes += bytes;
        if request.act == RequestKind::Query {
            sender.last_query = Some(since);
        }
        self.polling.start();
        Ok(())
    }

    /// Polls every confirm, and returned messages without one. Returns whether to poll again.
    pub(super) fn poll_confirms(&self, shared: &Arc<Shared>) -> bool {
        let (mut in_flight, plain) = {
            let mut sender = self.channel.lock();
            let plain = match &sender.state {
                SenderState::Open(channels) | SenderState::Blocked(channels, _) => {
                    sender.last_query.map(|_| channels.plain.clone())
                }
                SenderState::Closed(_) => None,
            };
            (std::mem::take(&mut sender.in_flight), plain)
        };
        // This channel has no confirms; the call only yields returned messages.
        let returned = plain.and_then(|plain| plain.wait_for_confirms().now_or_never());
        for returned in returned.into_iter().flatten().flatten() {
            end_returned(shared, &returned);
        }
        let mut confirmed = 0;
        in_flight.retain_mut(|request| match request.poll() {
            Poll::Pending => true,
            Poll::Ready(confirmation) => {
                resolve(shared, request.number, confirmation);
                confirmed += request.bytes;
                false
            }
        });
        let mut sender = self.channel.lock();
        sender.bytes = sender.bytes.saturating_sub(confirmed);
        // Requests sent meanwhile are younger.
        in_flight.append(&mut sender.in_flight);
        sender.in_flight = in_flight;
        // Without a waiting caller, a return has no effect.
        let has_callers = !shared.pending_calls.is_empty();
        sender.last_query = sender
            .last_query
            .filter(|last| has_callers && last.elapsed() < RETURN_TIMEOUT);
        if sender.in_flight.is_empty() && sender.last_query.is_none() {
            self.polling.stop();
        }
        self.polling.is_on()
    }
}

impl InFlightRequest {
    fn poll(&mut self) -> Poll<lapin::Result<Confirmation>> {
        loop {
            match &mut self.stage {
                WriteStage::Writing(writing) => match poll(writing) {
                    Poll::Pending => return Poll::Pending,
                    Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                    Poll::Ready(Ok(confirm)) => self.stage = WriteStage::Confirming(confirm),
                },
                WriteStage::Confirming(confirm) => return poll(confirm),
            }
        }
    }
}

/// Completes rejected and returned requests. lapin attaches a return to the next confirm that completes, so the returned request is
/// identified by its correlation id.
fn resolve(shared: &Arc<Shared>, number: u64, confirmation: lapin::Result<Confirmation>) {
    let (returned, is_rejected) = match confirmation {
        Ok(Confirmation::Ack(returned)) => (returned, false),
        Ok(Confirmation::Nack(returned)) => (returned, true),
        // It was a query, or the channel is closed, which the task notices by itself.
        Ok(Confirmation::NotRequested) | Err(_) => return,
    };
    if let Some(returned) = returned {
        end_returned(shared, &returned);
    }
    if is_rejected {
        let retry_after = shared.settings.retry_after;
        let overloaded = Err(CallError::Overloaded { retry_after });
        shared.pending_calls.complete(number, overloaded);
    }
}

fn end_returned(shared: &Arc<Shared>, returned: &BasicReturnMessage) {
    let correlation = returned.properties.correlation_id().as_ref();
    if let Some(number) = correlation.and_then(|id| shared.pending_calls.number(id.as_str()))
        && let Some(call) = shared.pending_calls.remove(number)
    {
        let role = call.role.into();
        let _ = call.done.send(Err(CallError::NoResponder { role }));
    }
}
