//! Tables of metrics, from their descriptions.

use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
};

use metrics::{
    Counter, Gauge, Histogram, Key, KeyName, Metadata, Recorder, SharedString, Unit,
    with_local_recorder,
};

use super::cell;

/// Returns a table of the metrics that `describe` describes, by name.
#[must_use]
pub fn metrics(describe: impl FnOnce()) -> String {
    let found = Described::default();
    with_local_recorder(&found, describe);
    let rows = found.0.into_inner().unwrap_or_else(PoisonError::into_inner);
    let mut table = "| metric | kind | unit | meaning |\n| --- | --- | --- | --- |\n".to_owned();
    table.extend(rows.into_values());
    table
}

#[derive(Default)]
struct Described(Mutex<BTreeMap<String, String>>);

impl Described {
    fn add(&self, kind: &str, name: &KeyName, unit: Option<Unit>, meaning: &str) {
        let name = name.as_str();
        let unit = match (unit, name) {
            (Some(unit), _) => unit.as_str().to_owned(),
            (None, name) if name.contains("_seconds") => "seconds".to_owned(),
            (None, name) if name.ends_with("_bytes") => "bytes".to_owned(),
            (None, _) => "count".to_owned(),
        };
        let row = format!("| `{name}` | {kind} | {unit} | {}. |\n", cell(meaning));
        let mut rows = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        rows.insert(name.to_owned(), row);
    }
}

impl Recorder for Described {
    fn describe_counter(&self, name: KeyName, unit: Option<Unit>, meaning: SharedString) {
        self.add("counter", &name, unit, &meaning);
    }

    fn describe_gauge(&self, name: KeyName, unit: Option<Unit>, meaning: SharedString) {
        self.add("gauge", &name, unit, &meaning);
    }

    fn describe_histogram(&self, name: KeyName, unit: Option<Unit>, meaning: SharedString) {
        self.add("histogram", &name, unit, &meaning);
    }

    fn register_counter(&self, _: &Key, _: &Metadata<'_>) -> Counter {
        Counter::noop()
    }

    fn register_gauge(&self, _: &Key, _: &Metadata<'_>) -> Gauge {
        Gauge::noop()
    }

    fn register_histogram(&self, _: &Key, _: &Metadata<'_>) -> Histogram {
        Histogram::noop()
    }
}
