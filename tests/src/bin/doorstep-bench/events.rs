//! The published events: weighed parcels. 300 bytes of JSON each, over the requested number of streams, each stream in
//! sequence.

use anyhow::Result;
use doorstep_event::{Contract, Event, Sequence, Source, Subject, Timestamp};
use serde::{Deserialize, Serialize};

/// Bytes of an event's data.
const DATA_BYTES: usize = 300;

/// `parcel.weighed.v1`, which both sides decode.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ParcelWeighed {
    pub(crate) parcel: String,
    pub(crate) depot: String,
    pub(crate) scale: u32,
    pub(crate) grams: u64,
    pub(crate) operator: String,
    pub(crate) remark: String,
}

impl Contract for ParcelWeighed {
    const TYPE: &'static str = "parcel.weighed.v1";
    const REQUIRES_SEQUENCE: bool = true;
}

/// The first segment of the subjects.
pub(crate) const SUBJECT_KIND: &str = "parcel";

/// Generates events with increasing numbers, over the streams in turn.
#[derive(Debug, Clone)]
pub(crate) struct Generator {
    source: Source,
    time: Timestamp,
    streams: usize,
}

impl Generator {
    pub(crate) fn new(streams: usize) -> Result<Self> {
        Ok(Self {
            source: Source::new("bench/0199d5a4-7a42-7c60-8d6a-4f2d6a1f7c11")?,
            time: "2026-11-23T10:00:00.25Z".parse()?,
            streams,
        })
    }

    /// Returns the event with this number, from 0.
    pub(crate) fn event(&self, number: usize) -> Result<Event> {
        let (stream, sequence) = (number % self.streams, number / self.streams + 1);
        let subject = Self::subject(stream)?;
        let mut fact = ParcelWeighed {
            parcel: subject.to_string(),
            depot: "Zürich-Mülligen, gate 4".to_owned(),
            scale: 17,
            grams: grams(stream, sequence),
            operator: "d.okafor".to_owned(),
            remark: String::new(),
        };
        let bytes = serde_json::to_vec(&fact)?.len();
        fact.remark = "left at the neighbour's, second door on the right. "
            .chars()
            .cycle()
            .take(DATA_BYTES.saturating_sub(bytes))
            .collect();
        let sequence = Sequence::new(sequence as u64).unwrap_or(Sequence::FIRST);
        Ok(Event::from_contract(
            &self.source,
            &subject,
            sequence,
            self.time,
            &fact,
        )?)
    }

    /// Returns the subject of a stream, from 0.
    pub(crate) fn subject(stream: usize) -> Result<Subject> {
        Ok(Subject::new(format!("{SUBJECT_KIND}/{stream:06}"))?)
    }

    /// Returns the number of events on a stream, of this many in total.
    pub(crate) fn events_of(&self, stream: usize, events: usize) -> usize {
        events / self.streams + usize::from(stream < events % self.streams)
    }

    /// Returns the number of streams that this many events use.
    pub(crate) fn streams_of(&self, events: usize) -> usize {
        self.streams.min(events)
    }
}

/// Returns a weight such that a lost, duplicate or wrong event changes the sum.
pub(crate) fn grams(stream: usize, sequence: usize) -> u64 {
    (200 + (stream * 31 + sequence * 17) % 9_000) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_event_has_300_bytes_of_data() {
        let generator = Generator::new(1_000).unwrap();
        for number in [0, 999, 1_000, 99_999, 999_999] {
            assert_eq!(generator.event(number).unwrap().data.len(), DATA_BYTES);
        }
    }

    #[test]
    fn streams_are_numbered_in_turn() {
        let generator = Generator::new(3).unwrap();
        let places: Vec<_> = (0..7)
            .map(|n| generator.event(n).unwrap().id.to_string())
            .collect();
        assert_eq!(places[3], "parcel/000000#2");
        assert_eq!(places[6], "parcel/000000#3");
        assert_eq!(generator.events_of(0, 7), 3);
        assert_eq!(generator.events_of(1, 7), 2);
        assert_eq!(generator.streams_of(2), 2);
    }
}
