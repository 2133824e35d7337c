//! Figures from the users' responses and the roles' stores. Pure.

use std::{
    collections::{BTreeMap, HashMap},
    time::Duration,
};

use doorstep_event::{Subject, Timestamp};
use serde::{Deserialize, Serialize};

use crate::{
    items::Operation,
    scenario::{Mode, OperationFailure, Scenario},
};

/// The time after which a completed item is late.
pub(crate) const LATE: Duration = Duration::from_secs(1);

/// The response that a user got.
#[derive(Debug, Clone)]
pub(crate) struct Response {
    pub(crate) want: Operation,
    pub(crate) subject: Subject,
    /// The time at which the item was wanted, which may be before it was sent.
    pub(crate) wanted_at: Timestamp,
    /// The time from then to the response.
    pub(crate) waited: Duration,
    pub(crate) end: Result<(), OperationFailure>,
}

/// The completion of an item by a role: the fields that are read of its entity.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub(crate) struct Completion {
    pub(crate) applied_at: Timestamp,
    pub(crate) times: u32,
}

/// All completions, by the subject of their item.
pub(crate) type Completions = HashMap<String, Completion>;

/// The completions in the roles' stores at the end.
#[derive(Debug, Default)]
pub(crate) struct Done {
    pub(crate) completions: Completions,
    /// True if the consumers finished their work before the timeout.
    pub(crate) drained: bool,
}

/// The measurements of one mode in one scenario.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Sample {
    pub(crate) scenario: Scenario,
    pub(crate) way: Mode,
    /// True if the consumers finished their work before the timeout.
    pub(crate) drained: bool,
    /// Checkouts and updates together.
    pub(crate) all: Figures,
    pub(crate) checkouts: Figures,
    pub(crate) updates: Figures,
}

impl Sample {
    /// Computes the figures of one mode in one scenario.
    pub(crate) fn from_responses(
        scenario: Scenario,
        way: Mode,
        heard: &[Response],
        done: &Done,
    ) -> Self {
        let Done {
            completions,
            drained,
        } = done;
        let of = |want: Option<Operation>| {
            let wanted = heard
                .iter()
                .filter(|heard| want.is_none_or(|want| heard.want == want));
            Figures::from_responses(wanted, completions)
        };
        Self {
            scenario,
            way,
            drained: *drained,
            all: of(None),
            checkouts: of(Some(Operation::Checkout)),
            updates: of(Some(Operation::Update)),
        }
    }

    pub(crate) fn figures(&self, want: Operation) -> &Figures {
        match want {
            Operation::Checkout => &self.checkouts,
            Operation::Update => &self.updates,
        }
    }
}

/// The results of a set of items.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub(crate) struct Figures {
    /// The number of offered items.
    pub(crate) offered: u64,
    /// The number of successful responses.
    pub(crate) answered: u64,
    /// Successful responses per second, from the first wanted item to the last response.
    pub(crate) answered_a_second: f64,
    /// The number of errors, by kind.
    pub(crate) failed: BTreeMap<OperationFailure, u64>,
    /// The response times, of successes and errors.
    pub(crate) response: Option<Percentiles>,
    /// The response times of successes alone.
    pub(crate) good_response: Option<Percentiles>,
    /// The number of items done in the end.
    pub(crate) applied: u64,
    /// Successful responses whose item was not done.
    pub(crate) lost: u64,
    /// Errors whose item was not done.
    pub(crate) not_done: u64,
    /// Errors whose item was done all the same: the user cannot know.
    pub(crate) unsure: u64,
    /// Items done more than once.
    pub(crate) twice: u64,
    /// The times from wanting an item to its completion.
    pub(crate) done_after: Option<Percentiles>,
    /// The number of items done later than a second after they were wanted.
    pub(crate) late: u64,
}

impl Figures {
    fn from_responses<'a>(
        heard: impl Iterator<Item = &'a Response>,
        completions: &Completions,
    ) -> Self {
        let mut figures = Self::default();
        let (mut waits, mut good_waits, mut delays) = (Vec::new(), Vec::new(), Vec::new());
        let mut first: Option<Timestamp> = None;
        let mut last: Option<Timestamp> = None;
        for heard in heard {
            figures.offered += 1;
            waits.push(heard.waited);
            let answered_at = heard.wanted_at.saturating_add(heard.waited).ok();
            first = Some(first.map_or(heard.wanted_at, |first| first.min(heard.wanted_at)));
            last = last.max(answered_at);
            let completion = completions.get(heard.subject.as_str());
            match (heard.end, completion) {
                (Ok(()), Some(_)) => {}
                (Ok(()), None) => figures.lost += 1,
                (Err(_), Some(_)) => figures.unsure += 1,
                (Err(_), None) => figures.not_done += 1,
            }
            match heard.end {
                Ok(()) => {
                    figures.answered += 1;
                    good_waits.push(heard.waited);
                }
                Err(trouble) => *figures.failed.entry(trouble).or_default() += 1,
            }
            if let Some(completion) = completion {
                let delay = completion.applied_at.duration_since(heard.wanted_at);
                let delay = Duration::try_from(delay).unwrap_or_default();
                figures.applied += 1;
                figures.twice += u64::from(completion.times > 1);
                figures.late += u64::from(delay > LATE);
                delays.push(delay);
            }
        }
        if let (Some(first), Some(last)) = (first, last) {
            let seconds = last.duration_since(first).as_secs_f64();
            figures.answered_a_second = figures.answered as f64 / seconds.max(0.001);
        }
        figures.response = Percentiles::from_times(waits);
        figures.good_response = Percentiles::from_times(good_waits);
        figures.done_after = Percentiles::from_times(delays);
        figures
    }

    /// Returns the number of errors.
    pub(crate) fn failures(&self) -> u64 {
        self.failed.values().sum()
    }
}

/// A distribution of times, in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(crate) struct Percentiles {
    pub(crate) p50_ms: f64,
    pub(crate) p99_ms: f64,
    pub(crate) max_ms: f64,
}

impl Percentiles {
    /// Computes the percentiles, `None` without any times.
    fn from_times(mut times: Vec<Duration>) -> Option<Self> {
        times.sort_unstable();
        Some(Self {
            p50_ms: millis(percentile(&times, 50)?),
            p99_ms: millis(percentile(&times, 99)?),
            max_ms: millis(*times.last()?),
        })
    }
}

/// Returns the smallest time that this percentage of times does not exceed.
fn percentile(sorted: &[Duration], percent: usize) -> Option<Duration> {
    let rank = (sorted.len() * percent).div_ceil(100).max(1);
    sorted.get(rank - 1).copied()
}

/// In milliseconds, rounded to the microsecond.
fn millis(time: Duration) -> f64 {
    time.as_micros() as f64 / 1000.0
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: &str = "2026-11-23T12:00:00Z";

    fn ms(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    fn heard(name: &str, at: u64, waited: u64, end: Result<(), OperationFailure>) -> Response {
        let start: Timestamp = START.parse().unwrap();
        Response {
            want: Operation::Checkout,
            subject: Subject::new(format!("order/{name}")).unwrap(),
            wanted_at: start.checked_add(ms(at)).unwrap(),
            waited: ms(waited),
            end,
        }
    }

    fn done(name: &str, at: u64, times: u32) -> (String, Completion) {
        let start: Timestamp = START.parse().unwrap();
        let applied_at = start.checked_add(ms(at)).unwrap();
        (format!("order/{name}"), Completion { applied_at, times })
    }

    #[test]
    fn percentile_is_smallest_covering_value() {
        let times: Vec<_> = (1..=200).map(ms).collect();
        assert_eq!(percentile(&times, 50), Some(ms(100)));
        assert_eq!(percentile(&times, 99), Some(ms(198)));
        assert_eq!(percentile(&[ms(7)], 99), Some(ms(7)));
        assert_eq!(percentile(&[], 50), None);
        assert_eq!(Percentiles::from_times(Vec::new()), None);
    }

    #[test]
    fn responses_are_compared_with_effects() {
        let heard = [
            heard("well", 0, 10, Ok(())),
            heard("lost", 100, 10, Ok(())),
            heard("unsure", 200, 2000, Err(OperationFailure::TimedOut)),
            heard("not-done", 300, 1700, Err(OperationFailure::NoResponder)),
            heard("late", 500, 20, Ok(())),
        ];
        let completions = Completions::from([
            done("well", 8, 1),
            done("unsure", 2900, 1),
            done("late", 1501, 2),
        ]);
        let done = Done {
            completions,
            drained: true,
        };
        let cell = Sample::from_responses(Scenario::Down, Mode::Sync, &heard, &done);
        let figures = &cell.all;
        assert_eq!((figures.offered, figures.answered), (5, 3));
        assert_eq!((figures.applied, figures.lost), (3, 1));
        assert_eq!((figures.not_done, figures.unsure), (1, 1));
        assert_eq!((figures.late, figures.twice), (2, 1));
        assert_eq!(figures.failures(), 2);
        assert_eq!(figures.failed[&OperationFailure::NoResponder], 1);
        assert_eq!(figures.response.unwrap().max_ms, 2000.0);
        assert_eq!(figures.good_response.unwrap().max_ms, 20.0);
        assert_eq!(figures.done_after.unwrap().p50_ms, 1001.0);
        // From the first wanted item, at 0, to the last response, at 2.2 s.
        assert!((figures.answered_a_second - 3.0 / 2.2).abs() < 0.001);
        assert_eq!(cell.checkouts, cell.all);
        assert_eq!(cell.updates, Figures::default());
    }
}
