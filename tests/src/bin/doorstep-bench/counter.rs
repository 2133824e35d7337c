//! The measured role: it counts the events of every stream; and the check that each was counted exactly once.

use std::{
    sync::{Arc, OnceLock},
    time::Instant,
};

use anyhow::{Result, ensure};
use doorstep_event::{Contract, ContractError, Event, Sequence, Timestamp};
use doorstep_messaging::RoleQueues;
use doorstep_runtime::{Effects, HandlerError, Reading, Role, States, Unsupported};
use doorstep_store::{EntityKey, Store};
use serde::{Deserialize, Serialize};

use crate::events::{Generator, ParcelWeighed, SUBJECT_KIND, grams};

pub(crate) const QUEUES: RoleQueues = RoleQueues {
    role: "counter",
    subjects: &[SUBJECT_KIND],
    handles_requests: true,
};

#[derive(Debug, Default)]
pub(crate) struct Counter {
    /// The time when the first event was handled.
    pub(crate) first: Arc<OnceLock<Instant>>,
}

/// The state of a parcel.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Count {
    count: u64,
    sum: u64,
    last: u64,
}

impl Role for Counter {
    type Payload = ParcelWeighed;
    type Command = Unsupported;
    type Query = Unsupported;
    type State = Count;

    fn name(&self) -> &'static str {
        QUEUES.role
    }

    fn read(&self, event: &Event) -> Result<Reading<Self::Payload>, ContractError> {
        self.first.get_or_init(Instant::now);
        ParcelWeighed::read(event).map(Reading::Handled)
    }

    fn keys(&self, event: &Event, _: &Self::Payload) -> Vec<EntityKey> {
        vec![EntityKey::from(&event.subject)]
    }

    fn handle(
        &self,
        states: &mut States<Self::State>,
        event: &Event,
        fact: &Self::Payload,
        _: Timestamp,
    ) -> Result<Effects, HandlerError> {
        let state = states.first_or_default();
        state.count += 1;
        state.sum += fact.grams;
        state.last = event.sequence.map_or(0, Sequence::get);
        Ok(Effects::none())
    }
}

/// Checks that every stream was counted once and to its end.
///
/// # Errors
/// The first stream that was not.
pub(crate) async fn check<S: Store>(store: &S, generator: &Generator, events: usize) -> Result<()> {
    const PAGE: usize = 1_000;
    let mut after = None;
    let mut stream = 0;
    loop {
        let page = store.entities(after, PAGE).await?;
        // The keys have leading zeros, so their order is that of the streams.
        for row in &page {
            let state: Count = serde_json::from_slice(row.state.as_deref().unwrap_or_default())?;
            let expected = expected(generator, stream, events);
            let subject = Generator::subject(stream)?;
            ensure!(
                row.key.as_str() == subject.as_str() && state == expected,
                "{} has {state:?}, {subject} should have {expected:?}",
                row.key
            );
            stream += 1;
        }
        match page.last() {
            Some(last) => after = Some(last.key.clone()),
            None => break,
        }
    }
    let streams = generator.streams_of(events);
    ensure!(
        stream == streams,
        "{stream} of {streams} streams were counted"
    );
    Ok(())
}

fn expected(generator: &Generator, stream: usize, events: usize) -> Count {
    let count = generator.events_of(stream, events);
    Count {
        count: count as u64,
        sum: (1..=count).map(|sequence| grams(stream, sequence)).sum(),
        last: count as u64,
    }
}
