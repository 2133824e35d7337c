//! The progress on standard error: a bar on a terminal, lines elsewhere.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// The progress of the bench.
pub(crate) struct Progress {
    bar: ProgressBar,
}

impl Progress {
    pub(crate) fn new(steps: usize) -> Self {
        let bar = ProgressBar::with_draw_target(
            Some(steps as u64),
            ProgressDrawTarget::stderr_with_hz(4),
        );
        if let Ok(style) =
            ProgressStyle::with_template("[{bar:30}] {pos} of {len}, {elapsed}: {msg}")
        {
            bar.set_style(style.progress_chars("=> "));
        }
        // A bar that stands still looks like a hung program; without a terminal this draws nothing.
        bar.enable_steady_tick(Duration::from_secs(1));
        Self { bar }
    }

    pub(crate) fn begin(&self, what: &str) {
        if self.bar.is_hidden() {
            eprintln!("{what}");
        } else {
            self.bar.set_message(what.to_owned());
        }
    }

    /// Completes a step and shows its result.
    pub(crate) fn end(&self, result: &str) {
        self.bar.inc(1);
        if self.bar.is_hidden() {
            eprintln!("  {result}");
        } else {
            self.bar
                .println(format!("{}: {result}", self.bar.message()));
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}
