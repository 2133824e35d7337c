//! Opening hours for tests.

use serde_json::{Value, json};

/// Returns the opening hours of a restaurant that never closes, as in a request.
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
