//! Limits repeated warnings: a few are logged at once, the others are counted and reported once a minute.

use std::{
    collections::HashMap,
    fmt::{self, Write},
    sync::{Mutex, MutexGuard, PoisonError},
    thread,
    time::{Duration, Instant},
};

use tracing::{
    Event, Level, Subscriber,
    field::{Field, Visit},
};
use tracing_subscriber::{
    fmt::{
        FmtContext,
        format::{FormatEvent, FormatFields, Writer},
    },
    registry::LookupSpan,
};

/// Warnings of one kind logged individually within a window.
const LOGGED: u64 = 5;
const WINDOW: Duration = Duration::from_mins(1);
/// Interval of checking for finished windows.
const REPORT_INTERVAL: Duration = Duration::from_secs(10);
/// Maximum distinct kinds of warnings; beyond that, all warnings are logged.
const MAX_KINDS: usize = 1_000;
/// Target of the count lines, which are always logged.
const TARGET: &str = "doorstep_telemetry::repeats";

/// The repeated warnings of the process: there is one log.
static REPEATS: Mutex<Option<WarningLimiter>> = Mutex::new(None);

/// Formats events as `F` does, but limits repeated warnings and errors of one kind. Two are of one kind if they have the same location in
/// the program and their fields differ only in ids and numbers.
#[derive(Debug)]
pub(super) struct Seldom<F>(pub(super) F);

impl<S, N, F> FormatEvent<S, N> for Seldom<F>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
    F: FormatEvent<S, N>,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let metadata = event.metadata();
        let is_counted = *metadata.level() <= Level::WARN && metadata.target() != TARGET;
        if is_counted {
            let mut text = Text::default();
            event.record(&mut text);
            let is_logged = lock().get_or_insert_with(WarningLimiter::start).should_log(
                metadata.name(),
                text,
                Instant::now(),
            );
            if !is_logged {
                return Ok(());
            }
        }
        self.0.format_event(context, writer, event)
    }
}

/// Logs the outstanding counts and resets them. Called at the end of a program.
pub(super) fn log_counts() {
    let counts = lock().as_mut().map(|repeats| repeats.take(None));
    log(counts.unwrap_or_default());
}

fn log(counts: Vec<(u64, String)>) {
    for (count, last) in counts {
        tracing::warn!(target: TARGET, count, last, "repeated warnings were counted");
    }
}

fn lock() -> MutexGuard<'static, Option<WarningLimiter>> {
    REPEATS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The text of an event, from which its kind is derived.
#[derive(Debug, Default)]
struct Text {
    whole: String,
}

impl Text {
    /// Returns the words without digits.
    fn kind(&self) -> String {
        let is_name = |word: &&str| !word.contains(|c: char| c.is_ascii_digit());
        let words: Vec<&str> = self.whole.split([' ', '=', '"']).filter(is_name).collect();
        words.join(" ")
    }
}

impl Visit for Text {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        // Writing to a string never fails.
        let _ = match field.name() {
            "message" => write!(self.whole, "{value:?} "),
            name => write!(self.whole, "{name}={value:?} "),
        };
    }
}

#[derive(Debug, Default)]
struct WarningLimiter(HashMap<(&'static str, String), Kind>);

#[derive(Debug)]
struct Kind {
    since: Instant,
    logged: u64,
    counted: u64,
    last: String,
}

impl WarningLimiter {
    /// Starts a thread that reports counts while the process lasts.
    fn start() -> Self {
        // If the thread cannot start, counts are logged at the end of the program.
        let _ = thread::Builder::new().name("log".to_owned()).spawn(|| {
            loop {
                thread::sleep(REPORT_INTERVAL);
                let now = Instant::now();
                let counts = lock().as_mut().map(|repeats| repeats.take(Some(now)));
                log(counts.unwrap_or_default());
            }
        });
        Self::default()
    }

    /// Returns whether to log this event; otherwise it is counted.
    fn should_log(&mut self, location: &'static str, text: Text, now: Instant) -> bool {
        let key = (location, text.kind());
        let is_full = self.0.len() >= MAX_KINDS;
        if is_full && !self.0.contains_key(&key) {
            return true;
        }
        let kind = self.0.entry(key).or_insert(Kind {
            since: now,
            logged: 0,
            counted: 0,
            last: String::new(),
        });
        if kind.logged < LOGGED {
            kind.logged += 1;
            return true;
        }
        kind.counted += 1;
        kind.last = text.whole.trim_end().to_owned();
        false
    }

    /// Takes the counts of finished windows, or of all.
    fn take(&mut self, now: Option<Instant>) -> Vec<(u64, String)> {
        let mut counts = Vec::new();
        self.0.retain(|_, kind| {
            let is_over = now.is_none_or(|now| now.saturating_duration_since(kind.since) >= WINDOW);
            if !is_over {
                return true;
            }
            if kind.counted > 0 {
                counts.push((kind.counted, std::mem::take(&mut kind.last)));
            }
            // A kind that continues is also only counted in the next window.
            let continues = kind.counted > 0 && now.is_some();
            if let Some(now) = now {
                kind.since = now;
            }
            kind.counted = 0;
            continues
        });
        counts
    }
}

#[cfg(test)]
mod tests {
    use std::{io, sync::Arc};

    use tracing_subscriber::fmt::{MakeWriter, format};

    use super::*;

    #[derive(Clone, Default)]
    struct Written(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Written {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl<'a> MakeWriter<'a> for Written {
        type Writer = Self;

        fn make_writer(&'a self) -> Self {
            self.clone()
        }
    }

    #[test]
    fn repeated_warnings_become_a_count() {
        let written = Written::default();
        let subscriber = tracing_subscriber::fmt()
            .with_ansi(false)
            .event_format(Seldom(format().without_time()))
            .with_writer(written.clone())
            .finish();
        tracing::subscriber::with_default(subscriber, || {
            for n in 1..=4_925_u32 {
                let first = format!("9c0e51b7d8463f2a-{n}");
                tracing::warn!(role = "orders", count = n, first, "dead letter");
                if n % 1_000 == 0 {
                    tracing::warn!(role = "tracking", count = n, first, "dead letter");
                    tracing::info!(n, "still here");
                }
            }
            log_counts();
        });
        let text = String::from_utf8(written.0.lock().unwrap().clone()).unwrap();
        let lines = |part: &str| text.lines().filter(|line| line.contains(part)).count();
        assert_eq!(lines("role=\"orders\""), 5, "{text}");
        assert_eq!(lines("role=\"tracking\""), 4, "{text}");
        assert_eq!(lines("still here"), 4, "{text}");
        let sum = text.lines().last().unwrap();
        assert!(
            sum.contains("count=4920") && sum.contains("9c0e51b7d8463f2a-4925"),
            "{sum}"
        );
        assert_eq!(text.lines().count(), 5 + 4 + 4 + 1, "{text}");
    }

    #[test]
    fn windows_count_continuing_and_log_returning_kinds() {
        let began = Instant::now();
        let mut repeats = WarningLimiter::default();
        let warn = |repeats: &mut WarningLimiter, at| {
            let whole = "no connection reason=\"refused\" ".to_owned();
            repeats.should_log("link.rs", Text { whole }, began + at)
        };
        let logged = (0..9)
            .filter(|_| warn(&mut repeats, Duration::ZERO))
            .count();
        assert_eq!(logged, 5);
        assert_eq!(repeats.take(Some(began + REPORT_INTERVAL)), []);
        let last = "no connection reason=\"refused\"".to_owned();
        assert_eq!(repeats.take(Some(began + WINDOW)), [(4, last.clone())]);
        assert!(!warn(&mut repeats, WINDOW));
        assert_eq!(repeats.take(Some(began + 2 * WINDOW)), [(1, last)]);
        assert_eq!(repeats.take(Some(began + 3 * WINDOW)), []);
        assert!(warn(&mut repeats, 3 * WINDOW));
    }
}
