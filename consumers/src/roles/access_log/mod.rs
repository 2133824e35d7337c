//! Access log: requests, errors and response times by endpoint and minute, on `endpoint/MINUTE/ENDPOINT`; dropped
//! events by minute and instance, on `dropped/MINUTE/INSTANCE`.
//!
//! A minute is that of the request, so events of several instances, and of an import of last year's log, fall into
//! place in any order. The minute comes first in a key: entities are then sorted by time, and a report over hours
//! reads them once, in that order.
//!
//! Every event is counted exactly once, as the counts and the cursor are one commit. The lines in files beside the store
//! are a copy, written after the commit: at least once.

mod durations;
mod raw_lines;
mod report;

use std::{
    path::Path,
    sync::{Mutex, PoisonError},
};

use doorstep_contracts::{RequestServed, RequestsDropped};
use doorstep_event::{Contract, ContractError, Event, Timestamp};
use doorstep_runtime::{Effects, HandlerError, Reading, Role, States, Unsupported};
use doorstep_store::EntityKey;
use serde::{Deserialize, Serialize};

pub(crate) use self::report::{EndpointHour, HourlyReport};
use self::{durations::Durations, raw_lines::RawLines};
use super::not_handled;

#[derive(Default)]
pub(crate) struct AccessLog {
    /// The files of lines; none in a dry run.
    lines: Option<Mutex<RawLines>>,
}

/// The events that the role handles.
pub(crate) enum Fact {
    /// A request was answered.
    Served(Box<RequestServed>),
    /// Events of requests were dropped.
    Dropped(RequestsDropped),
}

/// The state of an entity.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum MinuteCounts {
    Endpoint(RequestCounts),
    Dropped { requests: u64 },
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
    /// Creates the role, with files of lines in this folder if there is one.
    pub(crate) fn new(folder: Option<&Path>) -> Self {
        Self {
            lines: folder.map(|folder| Mutex::new(RawLines::in_folder(folder))),
        }
    }
}

impl Role for AccessLog {
    type Payload = Fact;
    type Command = Unsupported;
    type Query = Unsupported;
    type State = MinuteCounts;

    fn name(&self) -> &'static str {
        "access_log"
    }

    fn read(&self, event: &Event) -> Result<Reading<Fact>, ContractError> {
        let fact = match event.event_type.as_str() {
            RequestServed::TYPE => Fact::Served(RequestServed::read(event)?.into()),
            RequestsDropped::TYPE => Fact::Dropped(RequestsDropped::read(event)?),
            _ => return not_handled(event),
        };
        Ok(Reading::Handled(fact))
    }

    fn keys(&self, event: &Event, fact: &Fact) -> Vec<EntityKey> {
        let key = match fact {
            Fact::Served(fact) => {
                format!("endpoint/{}/{}", minute(fact.served_at), fact.endpoint())
            }
            Fact::Dropped(fact) => {
                let subject = event.subject.as_str();
                let (_, instance) = subject.split_once('/').unwrap_or(("", subject));
                format!("dropped/{}/{instance}", minute(fact.first_at))
            }
        };
        vec![key.into()]
    }

    fn handle(
        &self,
        states: &mut States<MinuteCounts>,
        _event: &Event,
        fact: &Fact,
        _now: Timestamp,
    ) -> Result<Effects, HandlerError> {
        let state = states.first_mut();
        match fact {
            Fact::Served(fact) => {
                let state =
                    state.get_or_insert_with(|| MinuteCounts::Endpoint(RequestCounts::default()));
                if let MinuteCounts::Endpoint(counts) = state {
                    counts.record(fact);
                }
            }
            Fact::Dropped(fact) => {
                let state = state.get_or_insert(MinuteCounts::Dropped { requests: 0 });
                if let MinuteCounts::Dropped { requests } = state {
                    *requests = requests.saturating_add(fact.count);
                }
            }
        }
        Ok(Effects::none())
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

/// Returns the minute of a time in UTC, such as `2026-11-30T10:05Z`.
fn minute(at: Timestamp) -> String {
    at.strftime("%Y-%m-%dT%H:%MZ").to_string()
}

#[cfg(test)]
mod tests;
