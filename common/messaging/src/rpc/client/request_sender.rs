//! The way out: two channels while there is a connection, the reason why not while there is none.
//!
//! Commands go by a channel in confirm mode: what the broker had no room for was certainly not begun, and its caller hears that at once.
//! Queries go by one without: they change nothing, so nobody needs that certainty, and the broker's word, which comes before the reply,
//! would cost each of them a tenth of its time. Where a queue has no room for queries, `watch` finds out.
//!
//! What is published is handed to the client by whoever asks, under one lock: numbers and frames of a channel must stay in step, and
//! handing over is done by the first poll of a publish, which never waits.
//!
//! A confirm matters only if it says no, and then a moment later is soon enough. So nobody is woken for confirms: the task looks at
//! all of them now and then, in a sweep, while there are any, and at what was returned. At one request at a time, being woken twice for
//! each would cost more than the request.

use std::{
    collections::VecDeque,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker},
    time::Duration,
};

use bytes::Bytes;
use doorstep_event::{Request, RequestKind};
use futures_util::FutureExt;
use lapin::{
    BasicProperties, Channel, Confirmation, PublisherConfirm, message::BasicReturnMessage,
    options::BasicPublishOptions, types::ShortString,
};
use tokio::{
    sync::{Notify, oneshot},
    time::Instant,
};

use super::{Shared, pending_calls::PendingCall};
use crate::{
    connection::describe,
    names::QueueName,
    rpc::{codec, error::CallError},
    short_string::short_string,
};

/// Returned to us if the role has no queue.
const MANDATORY: BasicPublishOptions = BasicPublishOptions {
    mandatory: true,
    immediate: false,
};

/// For how long a query that nobody has a queue for is waited for to be returned. What comes later is found by whoever asks whether anybody
/// answers.
const RETURN_TIMEOUT: Duration = Duration::from_secs(2);

pub(super) struct RequestSender {
    /// The most commands whose confirms have not come and queries that are not written, those included that nobody waits for any more.
    most: usize,
    /// The most bytes of their data.
    most_bytes: usize,
    way: Mutex<SenderChannel>,
    /// There is something to sweep again.
    stirred: Notify,
}

/// The channels by which requests go out, and by which their replies come back.
#[derive(Clone)]
pub(super) struct Channels {
    /// In confirm mode, for commands.
    pub(super) confirmed: Channel,
    /// For queries.
    pub(super) plain: Channel,
    /// Of the requests.
    pub(super) user_id: Option<ShortString>,
}

struct SenderChannel {
    state: SenderState,
    /// When the last query was handed over, for as long as it may yet be returned.
    last_query: Option<Instant>,
    handed: VecDeque<InFlightRequest>,
    /// Of those that are handed over, also while they are looked at.
    bytes: usize,
    swept: ConfirmPolling,
}

enum SenderState {
    Open(Channels),
    /// Kept shut by the broker for now.
    Blocked(Channels, String),
    Shut(String),
}

/// Whether the task looks at confirms now and then.
#[derive(PartialEq, Eq)]
enum ConfirmPolling {
    Periodic,
    WhenWoken,
}

/// A request that was handed over, by number.
struct InFlightRequest {
    number: u64,
    bytes: usize,
    stage: Stage,
}

enum Stage {
    Writing(Pin<Box<dyn Future<Output = lapin::Result<PublisherConfirm>> + Send>>),
    Confirming(PublisherConfirm),
}

impl RequestSender {
    pub(super) fn new(max_in_flight: usize, most_bytes: usize) -> Self {
        Self {
            most: max_in_flight.saturating_mul(2).max(1),
            most_bytes,
            way: Mutex::new(SenderChannel {
                state: SenderState::Shut("there is no connection yet".to_owned()),
                last_query: None,
                handed: VecDeque::new(),
                bytes: 0,
                swept: ConfirmPolling::WhenWoken,
            }),
            stirred: Notify::new(),
        }
    }

    pub(super) fn open(&self, channels: Channels) {
        self.lock().state = SenderState::Open(channels);
    }

    /// Lets nothing more out, for this reason.
    pub(super) fn shut(&self, reason: &str) {
        let mut way = self.lock();
        way.state = SenderState::Shut(reason.to_owned());
        way.last_query = None;
        way.handed.clear();
        way.bytes = 0;
    }

    pub(super) fn block(&self, reason: Option<String>) {
        let mut way = self.lock();
        let state = std::mem::replace(&mut way.state, SenderState::Shut(String::new()));
        way.state = match (state, reason) {
            (SenderState::Open(channels) | SenderState::Blocked(channels, _), Some(reason)) => {
                SenderState::Blocked(channels, reason)
            }
            (SenderState::Open(channels) | SenderState::Blocked(channels, _), None) => {
                SenderState::Open(channels)
            }
            (shut @ SenderState::Shut(_), _) => shut,
        };
    }

    /// Hands a request to the client, and notes who waits for it.
    pub(super) fn send(
        &self,
        shared: &Shared,
        request: &Request,
        queue: QueueName,
        left: Duration,
        number: u64,
        done: oneshot::Sender<Result<Bytes, CallError>>,
    ) -> Result<(), CallError> {
        let mut properties = codec::request(request, &shared.waiting.correlation(number), left);
        let since = Instant::now();
        let waiter = PendingCall {
            role: request.role().into(),
            act: request.act,
            since,
            done,
        };
        let mut way = self.lock();
        let channel = match &way.state {
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
                    "it takes nothing for now ({reason})"
                )));
            }
            SenderState::Shut(reason) => return Err(CallError::unreachable(reason.as_str())),
        };
        let bytes = request.data.len();
        let too_much = way.bytes > 0 && way.bytes.saturating_add(bytes) > self.most_bytes;
        if too_much || way.handed.len() >= self.most {
            let retry_after = shared.settings.retry_after;
            return Err(CallError::Overloaded { retry_after });
        }
        // Before it can be answered.
        shared.waiting.insert(number, waiter);
        let mut writing = Box::pin(publish(channel, queue, properties, request.data.clone()));
        let stage = match writing
            .as_mut()
            .poll(&mut Context::from_waker(Waker::noop()))
        {
            Poll::Pending => Stage::Writing(writing),
            Poll::Ready(Ok(confirm)) => Stage::Confirming(confirm),
            Poll::Ready(Err(error)) => {
                shared.waiting.remove(number);
                return Err(CallError::unreachable(describe(&error)));
            }
        };
        way.handed.push_back(InFlightRequest {
            number,
            bytes,
            stage,
        });
        way.bytes += bytes;
        if request.act == RequestKind::Query {
            way.last_query = Some(since);
        }
        if way.swept == ConfirmPolling::WhenWoken {
            way.swept = ConfirmPolling::Periodic;
            self.stirred.notify_one();
        }
        Ok(())
    }

    /// Waits until there is something to sweep after there was nothing. Cancel-safe.
    pub(super) async fn work_available(&self) {
        self.stirred.notified().await;
    }

    /// Looks at every confirm, and at what was returned without one. Returns whether to look again soon.
    pub(super) fn poll_confirms(&self, shared: &Arc<Shared>) -> bool {
        let (mut handed, plain) = {
            let mut way = self.lock();
            let plain = match &way.state {
                SenderState::Open(channels) | SenderState::Blocked(channels, _) => {
                    way.last_query.map(|_| channels.plain.clone())
                }
                SenderState::Shut(_) => None,
            };
            (std::mem::take(&mut way.handed), plain)
        };
        // There are no confirms to wait for: it gives what was returned.
        let returned = plain.and_then(|plain| plain.wait_for_confirms().now_or_never());
        for returned in returned.into_iter().flatten().flatten() {
            end_returned(shared, &returned);
        }
        let mut context = Context::from_waker(Waker::noop());
        let mut confirmed = 0;
        handed.retain_mut(|handed| match handed.poll(&mut context) {
            Poll::Pending => true,
            Poll::Ready(word) => {
                resolve(shared, handed.number, word);
                confirmed += handed.bytes;
                false
            }
        });
        let mut way = self.lock();
        way.bytes = way.bytes.saturating_sub(confirmed);
        // What was handed over meanwhile is younger.
        handed.append(&mut way.handed);
        way.handed = handed;
        // Once nobody waits, nobody need be told.
        let may_be_told = !shared.waiting.is_empty();
        way.last_query = way
            .last_query
            .filter(|last| may_be_told && last.elapsed() < RETURN_TIMEOUT);
        if way.handed.is_empty() && way.last_query.is_none() {
            way.swept = ConfirmPolling::WhenWoken;
        }
        way.swept == ConfirmPolling::Periodic
    }

    fn lock(&self) -> MutexGuard<'_, SenderChannel> {
        self.way.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl InFlightRequest {
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<lapin::Result<Confirmation>> {
        if let Stage::Writing(writing) = &mut self.stage {
            match writing.as_mut().poll(context) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Ready(Ok(confirm)) => self.stage = Stage::Confirming(confirm),
            }
        }
        match &mut self.stage {
            Stage::Confirming(confirm) => Pin::new(confirm).poll(context),
            Stage::Writing(_) => Poll::Pending,
        }
    }
}

/// Ends what the broker has refused or returned. The client attaches a return to whichever confirm completes next, so the request that
/// was returned is told by its mark.
fn resolve(shared: &Arc<Shared>, number: u64, word: lapin::Result<Confirmation>) {
    match word {
        Ok(Confirmation::Ack(returned)) => {
            if let Some(returned) = returned {
                end_returned(shared, &returned);
            }
        }
        Ok(Confirmation::Nack(returned)) => {
            if let Some(returned) = returned {
                end_returned(shared, &returned);
            }
            let retry_after = shared.settings.retry_after;
            shared
                .waiting
                .complete(number, Err(CallError::Overloaded { retry_after }));
        }
        // It was a query, or the channel is gone, which the task hears of by itself.
        Ok(Confirmation::NotRequested) | Err(_) => {}
    }
}

fn end_returned(shared: &Arc<Shared>, returned: &BasicReturnMessage) {
    let mark = returned.properties.correlation_id().as_ref();
    if let Some(number) = mark.and_then(|mark| shared.waiting.number(mark.as_str()))
        && let Some(waiter) = shared.waiting.remove(number)
    {
        let role = waiter.role.into();
        let _ = waiter.done.send(Err(CallError::NoResponder { role }));
    }
}

/// Hands a message to the client on the first poll, and completes when it is written.
async fn publish(
    channel: Channel,
    queue: QueueName,
    properties: BasicProperties,
    body: Bytes,
) -> lapin::Result<PublisherConfirm> {
    let by_name = "".into();
    channel
        .basic_publish(
            by_name,
            short_string(queue.as_str()),
            MANDATORY,
            &body,
            properties,
        )
        .await
}
