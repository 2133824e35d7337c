//! Access log: requests, errors and response times by endpoint, and dropped events, on `requests/MINUTE`; merged into
//! `requests/HOUR` once the minute was kept for its time, and removed once the hour was.
//!
//! A minute is that of the request, so events of several instances, and of an import of last year's log, fall into
//! place in any order. An hour's key is the beginning of its minutes' keys, so a report reads entities in their order.
//! The retention starts when the minute is first counted: an import of an old log is kept as long as today's requests.
//!
//! Every event is counted exactly once, as the counts and the cursor are one commit. The lines in files beside the store
//! are a copy, written after the commit: at least once.

mod durations;
mod raw_lines;
mod report;

use std::{
    collections::BTreeMap,
    ops::RangeInclusive,
    path::Path,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use clap::Args;
use doorstep_cli::parse::duration_within;
use doorstep_contracts::{OTHER_ENDPOINT, RequestServed, RequestsDropped};
use doorstep_event::{Contract, ContractError, Event, Subject, Timestamp};
use doorstep_runtime::{Effects, HandlerError, Reading, Role, States, Unsupported};
use doorstep_store::EntityKey;
use serde::{Deserialize, Serialize};

pub(crate) use self::report::{EndpointHour, HourlyReport};
use self::{durations::Durations, raw_lines::RawLines};
use super::not_handled;

/// The maximum of endpoints of a minute or hour; further ones count as the other endpoint.
const MAX_ENDPOINTS: usize = 1_000;

/// The defaults of [`Retention`]: 30 and 400 days.
const MINUTES: &str = "720h";
const HOURS: &str = "9600h";
/// The bounds of a retention: ten years are some 90,000 hours.
const BOUNDS: RangeInclusive<Duration> = Duration::from_mins(1)..=Duration::from_hours(87_600);

/// The retention of counts.
#[derive(Debug, Clone, Copy, Args)]
pub(crate) struct Retention {
    /// The time that `access_log` keeps the counts of a minute, from the first on, before it merges them into their
    /// hour. From 1m to 87600h.
    #[arg(
        id = "access_log_minutes",
        long = "access-log-minutes",
        env = "DOORSTEP_ACCESS_LOG_MINUTES",
        value_name = "TIME",
        default_value = MINUTES, value_parser = duration_within(BOUNDS))]
    minutes: Duration,

    /// The time that `access_log` keeps the counts of an hour, from its first merged minute on, before it removes them.
    /// From 1m to 87600h.
    #[arg(
        id = "access_log_hours",
        long = "access-log-hours",
        env = "DOORSTEP_ACCESS_LOG_HOURS",
        value_name = "TIME",
        default_value = HOURS, value_parser = duration_within(BOUNDS))]
    hours: Duration,
}

pub(crate) struct AccessLog {
    /// The files of lines; none in a dry run.
    lines: Option<Mutex<RawLines>>,
    retention: Retention,
}

/// The events that the role handles.
pub(crate) enum Fact {
    /// A request was answered.
    Served(Box<RequestServed>),
    /// Events of requests were dropped.
    Dropped(RequestsDropped),
    /// A period was kept long enough: a minute such as `2026-11-30T10:05`, or an hour such as `2026-11-30T10`.
    Expired(String),
}

/// `access_log.period_expired.v1`, on `access_log/PERIOD` from this role to itself: merge a minute into its hour, or
/// remove an hour. It is never published.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct PeriodExpired {}

impl Contract for PeriodExpired {
    const TYPE: &'static str = "access_log.period_expired.v1";
    const REQUIRES_SEQUENCE: bool = false;
}

/// The state of an entity: the requests of a minute or hour.
#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct PeriodCounts {
    endpoints: BTreeMap<String, RequestCounts>,
    /// Requests whose events were dropped.
    dropped: u64,
}

/// The requests of one endpoint.
#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct RequestCounts {
    requests: u64,
    /// Those with a status of 400 to 499.
    client_errors: u64,
    /// Those with a status from 500 on.
    server_errors: u64,
    /// Bytes of the responses, as far as they are known.
    bytes: u64,
    #[serde(default, skip_serializing_if = "Durations::is_empty")]
    durations: Durations,
}

impl AccessLog {
    /// Creates the role, with files of lines in a folder; without one for a dry run, which keeps nothing.
    pub(crate) fn new(place: Option<(&Path, Retention)>) -> Self {
        let (minutes, hours) = (Duration::MAX, Duration::MAX);
        Self {
            lines: place.map(|(folder, _)| Mutex::new(RawLines::in_folder(folder))),
            retention: place.map_or(Retention { minutes, hours }, |(_, retention)| retention),
        }
    }
}

impl Role for AccessLog {
    type Payload = Fact;
    type Command = Unsupported;
    type Query = Unsupported;
    type State = PeriodCounts;

    fn name(&self) -> &'static str {
        "access_log"
    }

    fn read(&self, event: &Event) -> Result<Reading<Fact>, ContractError> {
        let fact = match event.event_type.as_str() {
            RequestServed::TYPE => Fact::Served(RequestServed::read(event)?.into()),
            RequestsDropped::TYPE => Fact::Dropped(RequestsDropped::read(event)?),
            PeriodExpired::TYPE => {
                PeriodExpired::read(event)?;
                let subject = event.subject.as_str();
                let (_, period) = subject.split_once('/').unwrap_or(("", subject));
                Fact::Expired(period.to_owned())
            }
            _ => return not_handled(event),
        };
        Ok(Reading::Handled(fact))
    }

    fn keys(&self, _event: &Event, fact: &Fact) -> Vec<EntityKey> {
        match fact {
            Fact::Served(fact) => vec![key_of(&minute(fact.served_at))],
            Fact::Dropped(fact) => vec![key_of(&minute(fact.first_at))],
            Fact::Expired(period) => {
                let hour = hour_of(period).map(key_of);
                [key_of(period)].into_iter().chain(hour).collect()
            }
        }
    }

    fn handle(
        &self,
        states: &mut States<PeriodCounts>,
        _event: &Event,
        fact: &Fact,
        now: Timestamp,
    ) -> Result<Effects, HandlerError> {
        let mut effects = Effects::none();
        let mut keep = |period: &str, retention: Duration| {
            let due = now.checked_add(retention).unwrap_or(Timestamp::MAX);
            let subject = Subject::new(format!("access_log/{period}"))
                .map_err(|e| HandlerError::Reject(e.to_string()))?;
            effects.schedule(due, &subject, &PeriodExpired {})
        };
        match fact {
            Fact::Served(fact) => {
                let counts = states.first_mut();
                if counts.is_none() {
                    keep(&minute(fact.served_at), self.retention.minutes)?;
                }
                let counts = counts.get_or_insert_default();
                counts.endpoint(&fact.endpoint()).record(fact);
            }
            Fact::Dropped(fact) => {
                let counts = states.first_mut();
                if counts.is_none() {
                    keep(&minute(fact.first_at), self.retention.minutes)?;
                }
                let counts = counts.get_or_insert_default();
                counts.dropped = counts.dropped.saturating_add(fact.count);
            }
            Fact::Expired(period) => {
                let counts = states.remove(&key_of(period));
                if let (Some(hour), Some(minute)) = (hour_of(period), counts) {
                    let key = key_of(hour);
                    let mut sum = match states.get(&key) {
                        Some(sum) => sum.clone(),
                        None => {
                            keep(hour, self.retention.hours)?;
                            PeriodCounts::default()
                        }
                    };
                    sum.merge(&minute);
                    states.put(&key, sum);
                }
            }
        }
        Ok(effects)
    }

    fn archive(&self, events: &mut dyn Iterator<Item = &Event>) {
        let Some(file) = &self.lines else {
            return;
        };
        let mut lines = String::new();
        for served in events.filter_map(|event| RequestServed::read(event).ok()) {
            raw_lines::push_line(&mut lines, &served);
        }
        file.lock()
            .unwrap_or_else(PoisonError::into_inner)
            .append(&lines);
    }
}

impl PeriodCounts {
    fn endpoint(&mut self, endpoint: &str) -> &mut RequestCounts {
        let has_room = self.endpoints.len() < MAX_ENDPOINTS;
        let name = if has_room || self.endpoints.contains_key(endpoint) {
            endpoint
        } else {
            OTHER_ENDPOINT
        };
        self.endpoints.entry(name.to_owned()).or_default()
    }

    fn merge(&mut self, other: &Self) {
        for (endpoint, counts) in &other.endpoints {
            self.endpoint(endpoint).merge(counts);
        }
        self.dropped = self.dropped.saturating_add(other.dropped);
    }
}

impl RequestCounts {
    fn record(&mut self, fact: &RequestServed) {
        self.requests += 1;
        match fact.status {
            400..500 => self.client_errors += 1,
            500.. => self.server_errors += 1,
            _ => {}
        }
        self.bytes = self.bytes.saturating_add(fact.bytes.unwrap_or(0));
        if let Some(duration_us) = fact.duration_us {
            self.durations.record(duration_us);
        }
    }

    fn merge(&mut self, other: &Self) {
        self.requests += other.requests;
        self.client_errors += other.client_errors;
        self.server_errors += other.server_errors;
        self.bytes = self.bytes.saturating_add(other.bytes);
        self.durations.merge(&other.durations);
    }
}

fn key_of(period: &str) -> EntityKey {
    EntityKey::new(format!("requests/{period}"))
}

/// Returns the minute of a time in UTC, such as `2026-11-30T10:05`.
fn minute(at: Timestamp) -> String {
    at.strftime("%Y-%m-%dT%H:%M").to_string()
}

/// Returns the hour of a minute; `None` for an hour.
fn hour_of(period: &str) -> Option<&str> {
    let (hour, _minute) = period.split_once(':')?;
    Some(hour)
}

#[cfg(test)]
mod tests;
