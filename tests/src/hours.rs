//! Opening hours that tests need.

use serde_json::{Value, json};

/// The hours of a restaurant that never closes, as requests have them.
#[must_use]
pub fn never_closed() -> Value {
    let days = [
        "monday",
        "tuesday",
        "wednesday",
        "thursday",
        "friday",
        "saturday",
        "sunday",
    ];
    json!(days.map(|day| json!({"day": day, "opens": "00:00", "closes": "24:00"})))
}
