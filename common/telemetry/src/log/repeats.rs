//! Warnings that repeat: some are logged as they come, the others are counted and logged once a minute.

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

/// The warnings of one kind that are logged one by one within a window.
const LOGGED: u64 = 5;
/// The time for which what repeats is counted.
const WINDOW: Duration = Duration::from_mins(1);
/// The interval at which counts are looked for.
const REPORT_INTERVAL: Duration = Duration::from_secs(10);
/// The most kinds of warnings that are told apart; all beyond are logged.
const MAX_KINDS: usize = 1_000;
/// The target of the counts, which are logged whatever they say.
const TARGET: &str = "doorstep_telemetry::repeats";

/// The process' repeated warnings: there is one log.
static REPEATS: Mutex<Option<Repeats>> = Mutex::new(None);

/// Formats events as `F` does, but for warnings and errors that repeat: of each kind, some a minute. Warnings are of one kind if they come
/// from one place of the program and their fields differ in ids and numbers only.
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
            let news = lock().get_or_insert_with(Repeats::start).is_news(
                metadata.name(),
                text,
                Instant::now(),
            );
            if !news {
                return Ok(());
            }
        }
        self.0.format_event(context, writer, event)
    }
}

/// Logs the counts of what was repeated, and begins anew. For the end of a program.
pub(super) fn log_counts() {
    let counts = lock().as_mut().map(|repeats| repeats.take(None));
    log(counts.unwrap_or_default());
}

fn log(counts: Vec<(u64, String)>) {
    for (count, last) in counts {
        tracing::warn!(target: TARGET, count, last, "warnings like the ones before were counted");
    }
}

fn lock() -> MutexGuard<'static, Option<Repeats>> {
    REPEATS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The text of an event, and what of it is the same in events of one kind.
#[derive(Debug, Default)]
struct Text {
    whole: String,
}

impl Text {
    /// The words without those that hold a digit.
    fn kind(&self) -> String {
        let is_name = |word: &&str| !word.contains(|c: char| c.is_ascii_digit());
        let words: Vec<&str> = self.whole.split([' ', '=', '"']).filter(is_name).collect();
        words.join(" ")
    }
}

impl Visit for Text {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        // Writing to a string does not fail.
        let _ = match field.name() {
            "message" => write!(self.whole, "{value:?} "),
            name => write!(self.whole, "{name}={value:?} "),
        };
    }
}

/// Warnings by kind.
#[derive(Debug, Default)]
struct Repeats(HashMap<(&'static str, String), Kind>);

#[derive(Debug)]
struct Kind {
    since: Instant,
    logged: u64,
    counted: u64,
    last: String,
}

impl Repeats {
    /// Starts to log counts from time to time, for as long as the process lasts.
    fn start() -> Self {
        // Without the thread, counts are logged at the end of the program.
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

    /// Returns whether to log this; otherwise it is counted.
    fn is_news(&mut self, place: &'static str, text: Text, now: Instant) -> bool {
        let key = (place, text.kind());
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

    /// Takes the counts of the windows that are over, or of all.
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
            // A kind that goes on is only counted in the next window, too.
            let goes_on = kind.counted > 0 && now.is_some();
            if let Some(now) = now {
                kind.since = now;
            }
            kind.counted = 0;
            goes_on
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
    fn thousands_of_one_cause_are_some_lines_and_a_count() {
        let written = Written::default();
        let subscriber = tracing_subscriber::fmt()
            .with_ansi(false)
            .event_format(Seldom(format().without_time()))
            .with_writer(written.clone())
            .finish();
        tracing::subscriber::with_default(subscriber, || {
            for n in 1..=4_925_u32 {
                let first = format!("9c0e51b7d8463f2a-{n}");
                tracing::warn!(role = "orders", count = n, first, "refused for good");
                if n % 1_000 == 0 {
                    tracing::warn!(role = "tracking", count = n, first, "refused for good");
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
    fn what_goes_on_is_counted_in_each_window_and_what_comes_back_is_logged() {
        let began = Instant::now();
        let mut repeats = Repeats::default();
        let warn = |repeats: &mut Repeats, at| {
            let whole = "no connection reason=\"refused\" ".to_owned();
            repeats.is_news("link.rs", Text { whole }, began + at)
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
