//! The progress of the comparison on standard error: a bar on a terminal, otherwise a line for each step.

use std::sync::atomic::{AtomicU64, Ordering};

use doorstep_cli::output::progress_bar;
use indicatif::ProgressBar;

#[derive(Debug)]
pub(crate) struct Progress {
    bar: ProgressBar,
    /// The users of the finished parts.
    before: AtomicU64,
}

impl Progress {
    /// Starts the display for a total number of users.
    pub(crate) fn new(users: u64) -> Self {
        Self {
            bar: progress_bar(Some(users), "comparing [{bar:30}] {percent} %, {msg}"),
            before: AtomicU64::new(0),
        }
    }

    /// Shows a note, for as long as it is on the screen.
    pub(crate) fn note(&self, text: &str) {
        self.bar.suspend(|| eprintln!("{text}"));
    }

    /// Shows the present step.
    pub(crate) fn step(&self, text: String) {
        if self.bar.is_hidden() {
            eprintln!("comparing: {text}");
        } else {
            self.bar.set_message(text);
        }
    }

    /// Records the number of responses in this part.
    pub(crate) fn users(&self, answered: usize) {
        let before = self.before.load(Ordering::Relaxed);
        self.bar.set_position(before + answered as u64);
    }

    /// Records the end of a part.
    pub(crate) fn part(&self, users: usize) {
        let before = self.before.fetch_add(users as u64, Ordering::Relaxed);
        self.bar.set_position(before + users as u64);
    }

    /// Removes the bar from the terminal.
    pub(crate) fn finish(&self) {
        self.bar.finish_and_clear();
    }
}
