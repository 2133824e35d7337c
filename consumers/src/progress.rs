//! The progress of a command: a bar on a terminal, otherwise a line every few seconds, both on standard error.

use std::time::{Duration, Instant};

use doorstep_cli::output::progress_bar;
use indicatif::ProgressBar;

/// The interval between two lines without a terminal.
const LINE_EVERY: Duration = Duration::from_secs(5);

/// The progress of one piece of work.
pub(crate) struct Progress {
    what: String,
    total: u64,
    done: u64,
    bar: ProgressBar,
    next_line: Instant,
}

impl Progress {
    /// Starts to count up to a total.
    pub(crate) fn new(what: impl Into<String>, total: u64) -> Self {
        let what = what.into();
        let bar = progress_bar(
            Some(total),
            "{prefix} [{bar:30}] {pos} of {len}, {eta} left",
        );
        bar.set_prefix(what.clone());
        Self {
            what,
            total,
            done: 0,
            bar,
            next_line: Instant::now() + LINE_EVERY,
        }
    }

    /// Sets the total done so far.
    pub(crate) fn set(&mut self, done: u64) {
        let moved = self.done != done;
        self.done = done;
        self.bar.set_position(done);
        let now = Instant::now();
        if self.bar.is_hidden() && moved && now >= self.next_line {
            self.next_line = now + LINE_EVERY;
            eprintln!("{} {} of {}", self.what, self.done, self.total);
        }
    }

    /// Adds one.
    pub(crate) fn advance(&mut self) {
        self.set(self.done + 1);
    }

    /// Prints a message at once, without disturbing the bar.
    pub(crate) fn note(&self, text: &str) {
        self.bar.suspend(|| eprintln!("{text}"));
    }

    /// Removes the bar.
    pub(crate) fn finish(self) {
        self.bar.finish_and_clear();
    }
}
