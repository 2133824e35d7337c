//! How far the comparison is: a bar on a terminal, otherwise a line for each step, both on standard error.

use std::sync::atomic::{AtomicU64, Ordering};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// Tells how far the comparison is.
#[derive(Debug)]
pub(crate) struct Progress {
    bar: ProgressBar,
    /// The users of the parts that are over.
    before: AtomicU64,
}

impl Progress {
    /// Starts to tell; so many users will come in all.
    pub(crate) fn new(users: u64) -> Self {
        // Drawn at most five times a second: more costs more than it shows.
        let bar = ProgressBar::with_draw_target(Some(users), ProgressDrawTarget::stderr_with_hz(5));
        if let Ok(style) = ProgressStyle::with_template("comparing [{bar:30}] {percent} %, {msg}") {
            bar.set_style(style.progress_chars("=> "));
        }
        Self {
            bar,
            before: AtomicU64::new(0),
        }
    }

    /// Something to know, for as long as the screen shows it.
    pub(crate) fn note(&self, text: &str) {
        self.bar.suspend(|| eprintln!("{text}"));
    }

    /// What is done now.
    pub(crate) fn step(&self, text: String) {
        if self.bar.is_hidden() {
            eprintln!("comparing: {text}");
        } else {
            self.bar.set_message(text);
        }
    }

    /// So many users of this part have been answered.
    pub(crate) fn users(&self, answered: usize) {
        let before = self.before.load(Ordering::Relaxed);
        self.bar.set_position(before + answered as u64);
    }

    /// This part is over.
    pub(crate) fn part(&self, users: usize) {
        let before = self.before.fetch_add(users as u64, Ordering::Relaxed);
        self.bar.set_position(before + users as u64);
    }

    /// Takes the bar away.
    pub(crate) fn finish(&self) {
        self.bar.finish_and_clear();
    }
}
