//! How many events of each type have arrived where they should.

use std::{fmt, time::Duration};

use doorstep_event::{Event, EventType};

/// Counts by type, in the order of first appearance.
#[derive(Debug, Default)]
pub(crate) struct Tally(Vec<(EventType, u64)>);

impl Tally {
    /// Counts an event.
    pub(crate) fn add(&mut self, event: &Event) {
        // A handful of types: looking through them costs less than hashing.
        match self.0.iter_mut().find(|(kind, _)| *kind == event.kind) {
            Some((_, count)) => *count += 1,
            None => self.0.push((event.kind.clone(), 1)),
        }
    }

    /// How many there are of one type.
    pub(crate) fn of(&self, kind: &str) -> u64 {
        let found = self.0.iter().find(|(k, _)| k.as_str() == kind);
        found.map_or(0, |(_, count)| *count)
    }

    /// How many there are of all types.
    pub(crate) fn total(&self) -> u64 {
        self.0.iter().map(|(_, count)| count).sum()
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, (kind, count)) in self.0.iter().enumerate() {
            let comma = if i == 0 { "" } else { ", " };
            write!(f, "{comma}{count} {kind}")?;
        }
        Ok(())
    }
}

/// So many in that time, as a rate for people.
pub(crate) fn per_second(count: u64, elapsed: Duration) -> u64 {
    let seconds = elapsed.as_secs_f64().max(0.001);
    (count as f64 / seconds).round() as u64
}
