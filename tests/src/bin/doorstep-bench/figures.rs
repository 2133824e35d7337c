//! The measured quantities: time, processor time, memory.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use serde::Serialize;

#[derive(Debug, Clone, Copy, Serialize)]
pub(crate) struct Figure {
    pub(crate) events: usize,
    pub(crate) seconds: f64,
    pub(crate) events_per_second: f64,
    /// Of this process with all of its threads; the broker's time is not included.
    pub(crate) processor_seconds_per_million: f64,
}

impl Figure {
    pub(crate) fn new(events: usize, time: Duration, processor: Duration) -> Self {
        let seconds = time.as_secs_f64();
        Self {
            events,
            seconds,
            events_per_second: events as f64 / seconds,
            processor_seconds_per_million: processor.as_secs_f64() * 1_000_000.0 / events as f64,
        }
    }
}

pub(crate) struct Stopwatch {
    started: Instant,
    processor: Duration,
}

impl Stopwatch {
    pub(crate) fn start() -> Result<Self> {
        Ok(Self {
            started: Instant::now(),
            processor: processor_time()?,
        })
    }

    pub(crate) fn stop(self, events: usize) -> Result<Figure> {
        let started = self.started;
        self.stop_since(started, events)
    }

    /// Stops, with a wall time that began later than the stopwatch.
    pub(crate) fn stop_since(self, began: Instant, events: usize) -> Result<Figure> {
        let time = began.elapsed();
        Ok(Figure::new(
            events,
            time,
            processor_time()?.saturating_sub(self.processor),
        ))
    }
}

/// Returns the median; of an even number, the mean of the middle two. `None` if there are no values.
pub(crate) fn median(values: impl IntoIterator<Item = f64>) -> Option<f64> {
    let mut values: Vec<f64> = values.into_iter().collect();
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    if values.len() % 2 == 1 {
        return values.get(middle).copied();
    }
    Some((values.get(middle.checked_sub(1)?)? + values.get(middle)?) / 2.0)
}

/// User and system time of this process so far.
fn processor_time() -> Result<Duration> {
    let stat = std::fs::read_to_string("/proc/self/stat")
        .context("processor time is read from /proc, as Linux has it")?;
    // The program's name, in brackets, may contain anything; the fields are counted after it.
    let fields = stat.rsplit_once(')').map_or("", |(_, behind)| behind);
    let ticks = |index: usize| -> Result<u64> {
        let field = fields
            .split_whitespace()
            .nth(index)
            .context("/proc/self/stat is short")?;
        Ok(field.parse()?)
    };
    // Linux reports these in hundredths of a second, independent of its clock ticks.
    Ok(Duration::from_millis((ticks(11)? + ticks(12)?) * 10))
}

/// The peak memory of this process so far, in megabytes.
pub(crate) fn peak_megabytes() -> Result<f64> {
    let status = std::fs::read_to_string("/proc/self/status")
        .context("memory is read from /proc, as Linux has it")?;
    let kibibytes: f64 = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))
        .and_then(|rest| rest.trim().strip_suffix(" kB"))
        .context("/proc/self/status has no VmHWM")?
        .trim()
        .parse()?;
    Ok(kibibytes * 1024.0 / 1_000_000.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_in_the_middle() {
        assert_eq!(median([3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median([4.0, 1.0, 2.0, 3.0]), Some(2.5));
        assert_eq!(median([]), None);
    }

    #[test]
    fn this_process_has_used_memory_and_time() {
        assert!(peak_megabytes().unwrap() > 1.0);
        assert!(processor_time().is_ok());
    }
}
