//! The number of events of each type that have arrived, and of those that the broker refuses.

use std::{fmt, time::Duration};

use doorstep_event::{Event, EventType};

/// Counts by type, in the order of first appearance.
#[derive(Debug, Default)]
pub(crate) struct Counts(Vec<(EventType, u64)>);

impl Counts {
    /// Counts an event.
    pub(crate) fn add(&mut self, event: &Event) {
        // With a handful of types, a linear search costs less than hashing.
        match self
            .0
            .iter_mut()
            .find(|(kind, _)| *kind == event.event_type)
        {
            Some((_, count)) => *count += 1,
            None => self.0.push((event.event_type.clone(), 1)),
        }
    }

    /// Returns the number of events of one type.
    pub(crate) fn count_of(&self, kind: &str) -> u64 {
        let found = self.0.iter().find(|(k, _)| k.as_str() == kind);
        found.map_or(0, |(_, count)| *count)
    }

    /// Returns the number of events of all types.
    pub(crate) fn total(&self) -> u64 {
        self.0.iter().map(|(_, count)| count).sum()
    }
}

/// The events that have arrived, and those that the broker refuses.
#[derive(Debug, Default)]
pub(crate) struct EventCounts {
    pub(crate) arrived: Counts,
    pub(crate) rejected: Counts,
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, (kind, count)) in self.0.iter().enumerate() {
            let comma = if i == 0 { "" } else { ", " };
            write!(f, "{comma}{count} {kind}")?;
        }
        Ok(())
    }
}

/// Returns the rate in events per second.
pub(crate) fn per_second(count: u64, elapsed: Duration) -> u64 {
    let seconds = elapsed.as_secs_f64().max(0.001);
    (count as f64 / seconds).round() as u64
}
