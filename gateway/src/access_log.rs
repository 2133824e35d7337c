//! The access log: an event for each request, off the request's path.
//!
//! A request hands its record to a bounded buffer and never waits. If the buffer is full, the record is dropped and
//! counted. Records are numbered when they leave the buffer, so a drop makes no gap; the count of drops is an event of
//! the same stream. Records and drops together are all requests.
//!
//! The log has a connection of its own and neither a row in the store nor a place in the outbox. So it cannot delay
//! orders: while the broker is away, records are dropped once the buffer is full. A gateway that is killed loses the
//! records of its buffer.

use std::{
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use axum::http::{HeaderValue, Method, StatusCode};
use doorstep_cli::CliError;
use doorstep_contracts::{OTHER_ENDPOINT, RequestServed, RequestsDropped};
use doorstep_event::{
    AttributeError, Contract, ContractError, Event, Sequence, Source, Subject, Timestamp,
};
use doorstep_messaging::{BrokerSettings, Message, PublishOutcome, Publisher, Topology};
use metrics::{counter, describe_counter};
use tokio::{
    sync::{Notify, mpsc, oneshot},
    task::JoinHandle,
    time::{sleep, timeout},
};
use uuid::Uuid;

use crate::domain;

/// The limit of buffered records: some seconds at the highest rates, and a few megabytes.
const CAPACITY: usize = 10_000;
/// The limit of records that are published together.
const BATCH: usize = 500;
/// The delay before unconfirmed events are published again.
const RETRY_DELAY: Duration = Duration::from_secs(1);

const DROPPED: &str = "doorstep_access_log_dropped_total";
const UNCONFIRMED: &str = "doorstep_access_log_unconfirmed_total";

/// Registers the descriptions of the metrics.
pub(crate) fn describe() {
    describe_counter!(
        DROPPED,
        "Requests missing in the access log, since its buffer was full"
    );
    describe_counter!(
        UNCONFIRMED,
        "Events of the access log that the broker did not take at an attempt; they are published again"
    );
}

/// The record of an answered request, not yet in the form of its event.
#[derive(Debug)]
pub(crate) struct AnsweredRequest {
    pub(crate) method: Method,
    /// The pattern of the route; `None` if no route matches.
    pub(crate) route: Option<String>,
    pub(crate) status: StatusCode,
    pub(crate) bytes: Option<u64>,
    pub(crate) duration: Duration,
    pub(crate) client: IpAddr,
    pub(crate) user_agent: Option<HeaderValue>,
}

/// The end of the buffer for requests.
#[derive(Debug, Clone)]
pub(crate) struct AccessLog {
    records: mpsc::Sender<(Timestamp, AnsweredRequest)>,
    drops: Arc<Drops>,
}

/// The drops since the last event about them.
#[derive(Debug, Default)]
struct Drops {
    since_last: Mutex<Option<RequestsDropped>>,
    /// Wakes the publisher, which otherwise waits for a record.
    first: Notify,
}

impl Drops {
    fn lock(&self) -> MutexGuard<'_, Option<RequestsDropped>> {
        self.since_last
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn add(&self, at: Timestamp) {
        counter!(DROPPED).increment(1);
        let mut drops = self.lock();
        if drops.is_none() {
            tracing::warn!("the buffer of the access log is full, so requests are missing in it");
            self.first.notify_one();
        }
        let drops = drops.get_or_insert(RequestsDropped {
            count: 0,
            first_at: at,
            last_at: at,
        });
        drops.count += 1;
        // A clock may be set back.
        drops.last_at = drops.last_at.max(at);
        drops.first_at = drops.first_at.min(at);
    }
}

impl AccessLog {
    /// Records a request. Never waits.
    pub(crate) fn record(&self, request: AnsweredRequest) {
        let at = Timestamp::now();
        if self.records.try_send((at, request)).is_err() {
            self.drops.add(at);
        }
    }
}

/// The task that publishes the records.
pub(crate) struct AccessLogPublisher {
    task: JoinHandle<()>,
    close: oneshot::Sender<()>,
    publisher: Publisher,
}

impl AccessLogPublisher {
    /// Starts the log of this process.
    ///
    /// # Errors
    /// A bug: the name of an instance makes no valid source or subject.
    pub(crate) fn start(
        broker: &BrokerSettings,
        topology: Topology,
    ) -> Result<(AccessLog, Self), CliError> {
        let connection = format!("{} {}: access log", broker.namespace, domain::NAME);
        let publisher = Publisher::start(broker, &connection, topology);
        let instance = Uuid::now_v7().simple().to_string();
        let (log, buffer) =
            buffer(CAPACITY, &instance).map_err(|e| CliError::internal(e.to_string()))?;
        let (close, closing) = oneshot::channel();
        let task = tokio::spawn(publish(buffer, publisher.clone(), closing));
        Ok((
            log,
            Self {
                task,
                close,
                publisher,
            },
        ))
    }

    /// Publishes what is in the buffer, within this time.
    pub(crate) async fn close(mut self, grace: Duration) {
        let _ = self.close.send(());
        if timeout(grace, &mut self.task).await.is_err() {
            self.task.abort();
            tracing::warn!("the access log was not published completely before the stop");
        }
        self.publisher.close(Duration::ZERO).await;
    }
}

/// Creates both ends of a buffer.
fn buffer(capacity: usize, instance: &str) -> Result<(AccessLog, Buffer), AttributeError> {
    let (records, receiver) = mpsc::channel(capacity);
    let drops = Arc::new(Drops::default());
    let log = AccessLog {
        records,
        drops: Arc::clone(&drops),
    };
    let buffer = Buffer {
        records: receiver,
        drops,
        batch: Vec::new(),
        source: Source::new(format!("{}/access-log/{instance}", domain::NAME))?,
        subject: Subject::new(format!("request/{}-{instance}", domain::NAME))?,
        next: 1,
    };
    Ok((log, buffer))
}

/// The end of the buffer that numbers events.
struct Buffer {
    records: mpsc::Receiver<(Timestamp, AnsweredRequest)>,
    drops: Arc<Drops>,
    batch: Vec<(Timestamp, AnsweredRequest)>,
    source: Source,
    subject: Subject,
    next: u64,
}

impl Buffer {
    /// Waits for the next events. Returns none once the buffer is closed and empty. The drops of an overload are one
    /// event, after its last record.
    ///
    /// May be cancelled: no record is lost.
    async fn next(&mut self) -> Vec<Event> {
        loop {
            // Dropping either arm is safe: records stay in the buffer, and drops where they are counted.
            let is_closed = tokio::select! {
                received = self.records.recv_many(&mut self.batch, BATCH) => received == 0,
                () = self.drops.first.notified() => false,
            };
            let mut events = Vec::with_capacity(self.batch.len() + 1);
            for (at, request) in std::mem::take(&mut self.batch) {
                events.extend(self.event(at, &served(at, request)));
            }
            let drops = self.records.is_empty().then(|| self.drops.lock().take());
            if let Some(drops) = drops.flatten() {
                tracing::warn!(
                    count = drops.count,
                    "requests are missing in the access log: its buffer was full"
                );
                events.extend(self.event(drops.last_at, &drops));
            }
            if is_closed || !events.is_empty() {
                return events;
            }
        }
    }

    fn event<C: Contract>(&mut self, at: Timestamp, fact: &C) -> Option<Event> {
        let sequence = Sequence::new(self.next)?;
        let event: Result<Event, ContractError> =
            Event::from_contract(&self.source, &self.subject, sequence, at, fact);
        match event {
            Ok(event) => {
                self.next += 1;
                Some(event)
            }
            Err(error) => {
                tracing::error!(%error, "a request has no event: please report this");
                None
            }
        }
    }
}

fn served(served_at: Timestamp, request: AnsweredRequest) -> RequestServed {
    let method = Some(request.method.to_string()).filter(|method| RequestServed::is_method(method));
    let agent = request.user_agent.as_ref();
    RequestServed {
        served_at,
        method,
        route: request.route.unwrap_or_else(|| OTHER_ENDPOINT.to_owned()),
        path: None,
        status: request.status.as_u16(),
        bytes: request.bytes,
        duration_us: u64::try_from(request.duration.as_micros()).ok(),
        client: Some(RequestServed::network(request.client)),
        referrer: None,
        user_agent: agent.and_then(|agent| RequestServed::header(agent.as_bytes())),
    }
}

async fn publish(mut buffer: Buffer, publisher: Publisher, mut closing: oneshot::Receiver<()>) {
    let mut is_closed = false;
    loop {
        let events = tokio::select! {
            events = buffer.next() => events,
            _ = &mut closing, if !is_closed => {
                is_closed = true;
                buffer.records.close();
                continue;
            }
        };
        if events.is_empty() {
            return;
        }
        publish_until_confirmed(&publisher, events).await;
    }
}

/// Publishes numbered events again until each is confirmed. Meanwhile the buffer takes or drops records.
async fn publish_until_confirmed(publisher: &Publisher, mut events: Vec<Event>) {
    let mut is_reported = false;
    loop {
        let messages = events.iter().map(Message::event).collect();
        let outcomes = publisher.publish_all(messages).await;
        let refused = outcomes.iter().copied().find(is_refusal);
        let mut outcomes = outcomes.into_iter();
        events.retain(|_| outcomes.next() != Some(PublishOutcome::Confirmed));
        if events.is_empty() {
            return;
        }
        counter!(UNCONFIRMED).increment(events.len() as u64);
        // An outage of the broker is logged as such.
        if let Some(outcome) = refused
            && !std::mem::replace(&mut is_reported, true)
        {
            tracing::warn!(
                count = events.len(),
                ?outcome,
                "the broker refuses the access log, which is published again until it is taken: see whether the queue of access_log exists and has room, and the user's permissions"
            );
        }
        sleep(RETRY_DELAY).await;
    }
}

fn is_refusal(outcome: &PublishOutcome) -> bool {
    match outcome {
        PublishOutcome::Rejected | PublishOutcome::Unroutable | PublishOutcome::Unpublishable => {
            true
        }
        PublishOutcome::Confirmed
        | PublishOutcome::TimedOut
        | PublishOutcome::Disconnected
        | PublishOutcome::Blocked => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(route: &str) -> AnsweredRequest {
        AnsweredRequest {
            method: Method::GET,
            route: Some(route.to_owned()),
            status: StatusCode::OK,
            bytes: Some(2),
            duration: Duration::from_micros(1_850),
            client: "203.0.113.77".parse().unwrap(),
            user_agent: Some(HeaderValue::from_bytes(b"caf\xe9 \"x\"").unwrap()),
        }
    }

    #[tokio::test]
    async fn drops_make_no_gap_and_are_counted() {
        let (log, mut buffer) = buffer(3, "a").unwrap();
        let (mut events, mut recorded) = (Vec::new(), 0);
        for round in [2, 5, 1, 9] {
            for _ in 0..round {
                log.record(request("/menu"));
                recorded += 1;
            }
            events.extend(buffer.next().await);
        }
        drop(log);
        assert_eq!(buffer.next().await, []);
        let numbers: Vec<u64> = events.iter().map(|e| e.sequence.unwrap().get()).collect();
        assert_eq!(numbers, (1..=events.len() as u64).collect::<Vec<_>>());
        let dropped: u64 = events
            .iter()
            .filter_map(|event| RequestsDropped::read(event).ok())
            .map(|drops| drops.count)
            .sum();
        let served = events
            .iter()
            .filter(|e| RequestServed::read(e).is_ok())
            .count() as u64;
        assert_eq!((served, dropped, recorded), (9, 8, 17));
    }

    #[tokio::test]
    async fn drops_of_an_overload_are_one_event() {
        let (log, mut buffer) = buffer(BATCH + 1, "a").unwrap();
        for _ in 0..BATCH + 3 {
            log.record(request("/menu"));
        }
        let first = buffer.next().await;
        assert_eq!(first.len(), BATCH);
        let last = buffer.next().await;
        assert_eq!(RequestsDropped::read(&last[1]).unwrap().count, 2);
        // A drop that raced with the emptied buffer: no record follows it.
        buffer.drops.add(Timestamp::now());
        let late = buffer.next().await;
        assert_eq!(RequestsDropped::read(&late[0]).unwrap().count, 1);
    }

    #[tokio::test]
    async fn drops_before_the_stop_are_still_reported() {
        let (log, mut buffer) = buffer(1, "a").unwrap();
        log.record(request("/menu"));
        buffer.records.close();
        log.record(request("/menu"));
        let events = buffer.next().await;
        assert_eq!(events.len(), 2);
        assert_eq!(RequestsDropped::read(&events[1]).unwrap().count, 1);
        assert_eq!(buffer.next().await, []);
    }

    #[tokio::test]
    async fn events_have_no_address_and_no_hostile_bytes() {
        let (log, mut buffer) = buffer(3, "a").unwrap();
        let lower = Method::from_bytes(b"get").unwrap();
        log.record(request("/orders/{order}"));
        log.record(AnsweredRequest {
            method: lower,
            route: None,
            ..request("")
        });
        let events = buffer.next().await;
        let served: Vec<_> = events
            .iter()
            .map(|e| RequestServed::read(e).unwrap())
            .collect();
        assert_eq!(served[0].endpoint(), "GET /orders/{order}");
        assert_eq!(served[0].client.unwrap().to_string(), "203.0.113.0");
        assert_eq!(served[0].user_agent.as_deref(), Some("caf%E9 %22x%22"));
        assert_eq!(
            (served[0].duration_us, served[1].endpoint().as_str()),
            (Some(1_850), "other")
        );
    }
}
