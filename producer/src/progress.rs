//! The progress of the work on standard error: a bar on a terminal, otherwise a line every few seconds.

use std::time::{Duration, Instant};

use doorstep_cli::output::progress_bar;
use indicatif::{HumanDuration, ProgressBar};

use crate::tally::per_second;

/// The interval of lines without a terminal.
const LINE_EVERY: Duration = Duration::from_secs(5);

/// The unit in which the work is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unit {
    Bytes,
    Rows,
    Lines,
    Events,
}

impl Unit {
    fn name(self) -> &'static str {
        match self {
            Self::Bytes => "bytes",
            Self::Rows => "rows",
            Self::Lines => "lines",
            Self::Events => "events",
        }
    }
}

/// The progress of one piece of work.
pub(crate) struct Progress {
    unit: Unit,
    total: Option<u64>,
    done: u64,
    events: u64,
    bar: ProgressBar,
    started: Instant,
    next_line: Instant,
    is_told: bool,
}

impl Progress {
    /// Starts to count; a known total gives the remaining time.
    pub(crate) fn new(what: &'static str, unit: Unit, total: Option<u64>) -> Self {
        let template = match (unit, total) {
            (Unit::Bytes, Some(_)) => {
                "{prefix} [{bar:30}] {bytes} of {total_bytes}, {bytes_per_sec}, {eta} left"
            }
            (_, Some(_)) => "{prefix} [{bar:30}] {percent} %, {msg}, {eta} left",
            (_, None) => "{prefix} {pos} lines, {msg}",
        };
        let bar = progress_bar(total, template);
        bar.set_prefix(what);
        let started = Instant::now();
        Self {
            unit,
            total,
            done: 0,
            events: 0,
            bar,
            started,
            next_line: started + LINE_EVERY,
            is_told: true,
        }
    }

    /// Adds work that is done, and events that have arrived.
    pub(crate) fn advance(&mut self, done: u64, events: u64) {
        self.done += done;
        self.events += events;
        self.is_told &= done + events == 0;
        self.refresh();
    }

    /// Sets the total work that is done.
    pub(crate) fn set(&mut self, done: u64) {
        self.advance(done.saturating_sub(self.done), 0);
    }

    /// Writes the output that is due.
    pub(crate) fn refresh(&mut self) {
        if !self.bar.is_hidden() {
            self.bar.set_position(self.done);
            if self.events > 0 {
                self.bar.set_message(self.summary());
            }
            return;
        }
        let now = Instant::now();
        if now < self.next_line || self.is_told {
            return;
        }
        self.next_line = now + LINE_EVERY;
        self.is_told = true;
        let unit = self.unit.name();
        let of = self.total.map(|t| format!(" of {t}")).unwrap_or_default();
        let sentence = match self.events {
            0 => String::new(),
            _ => format!(", {}", self.summary()),
        };
        let left = self
            .time_left()
            .map(|t| format!(", {} left", HumanDuration(t)))
            .unwrap_or_default();
        eprintln!(
            "{} {}{of} {unit}{sentence}{left}",
            self.bar.prefix(),
            self.done
        );
    }

    fn summary(&self) -> String {
        let rate = per_second(self.events, self.started.elapsed());
        format!("{} events sent, {rate} events/s", self.events)
    }

    fn time_left(&self) -> Option<Duration> {
        let to_do = self.total?.checked_sub(self.done)?;
        if self.done == 0 {
            return None;
        }
        let seconds = self.started.elapsed().as_secs_f64() * to_do as f64 / self.done as f64;
        Duration::try_from_secs_f64(seconds).ok()
    }

    /// Prints a note at once, without disturbing the bar.
    pub(crate) fn note(&self, text: &str) {
        self.bar.suspend(|| eprintln!("{text}"));
    }

    /// Removes the bar and returns the elapsed time.
    pub(crate) fn finish(self) -> Duration {
        self.bar.finish_and_clear();
        self.started.elapsed()
    }
}
