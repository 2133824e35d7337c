//! Deduplication of messages: the first ones of a cause are shown, and the others counted.

use std::collections::BTreeMap;

use doorstep_runtime::shape;

/// The number of messages of one cause that are shown.
const TOLD: u64 = 3;
/// The maximum of causes that are told apart.
const MAX_CAUSES: usize = 100;

/// Shows the first messages of each cause and counts the others. Messages that differ only in ids, numbers and quoted
/// values have one cause.
#[derive(Debug, Default)]
pub struct MessageLimiter {
    causes: BTreeMap<String, Cause>,
    /// Messages of causes beyond the bound.
    beyond: u64,
}

#[derive(Debug)]
struct Cause {
    count: u64,
    last: String,
}

impl MessageLimiter {
    /// Adds a message. Returns it if it is to be shown.
    pub fn add(&mut self, message: String) -> Option<String> {
        let cause = cause_of(&message);
        let is_full = self.causes.len() >= MAX_CAUSES;
        match self.causes.get_mut(&cause) {
            Some(cause) => {
                cause.count += 1;
                if cause.count > TOLD {
                    cause.last = message;
                    return None;
                }
            }
            None if is_full => {
                self.beyond += 1;
                return None;
            }
            None => {
                let first = Cause {
                    count: 1,
                    last: String::new(),
                };
                self.causes.insert(cause, first);
            }
        }
        Some(message)
    }

    /// Returns the counts of the messages not shown, one line per cause.
    pub fn rest(&mut self) -> Vec<String> {
        let mut lines = Vec::new();
        for Cause { count, last } in std::mem::take(&mut self.causes).into_values() {
            match count.saturating_sub(TOLD) {
                0 => {}
                1 => lines.push(last),
                untold => lines.push(format!("{untold} more of this kind, the last is {last}")),
            }
        }
        let beyond = std::mem::take(&mut self.beyond);
        if beyond > 0 {
            lines.push(format!("{beyond} more of other kinds"));
        }
        lines
    }
}

/// Returns a message without the parts in which messages of one cause differ.
fn cause_of(message: &str) -> String {
    let shape = shape(message);
    let words = shape.split(' ').map(|word| {
        // An id has letters as well.
        if word.contains('0') { "0" } else { word }
    });
    words.collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thousands_of_one_cause_are_summarised() {
        let mut repeats = MessageLimiter::default();
        let mut shown = Vec::new();
        for line in 1..=4_925 {
            shown.extend(repeats.add(format!(
                "line {line}: a sale cannot add {line} to \"A{line}\""
            )));
        }
        shown.extend(repeats.add("line 9999: not UTF-8".to_owned()));
        shown.extend(repeats.rest());
        assert_eq!(
            shown,
            [
                "line 1: a sale cannot add 1 to \"A1\"",
                "line 2: a sale cannot add 2 to \"A2\"",
                "line 3: a sale cannot add 3 to \"A3\"",
                "line 9999: not UTF-8",
                "4922 more of this kind, the last is line 4925: a sale cannot add 4925 to \"A4925\"",
            ]
        );
    }

    #[test]
    fn messages_that_differ_in_ids_have_one_cause() {
        let shown = |id: &str| cause_of(&format!("already resolved: {id} was replayed"));
        assert_eq!(shown("3f2a9c0e51b7d846-1"), shown("9c0e51b7d8463f2a-12"));
        assert_ne!(cause_of("a is missing"), cause_of("a is wrong"));
    }

    #[test]
    fn distinct_causes_are_bounded() {
        let mut repeats = MessageLimiter::default();
        let shown = (0..1_000).filter_map(|n| repeats.add("x".repeat(n)));
        assert_eq!(shown.count(), MAX_CAUSES);
        assert_eq!(repeats.rest(), ["900 more of other kinds"]);
    }

    #[test]
    fn single_suppressed_message_is_shown_at_the_end() {
        let mut repeats = MessageLimiter::default();
        for line in 1..=4 {
            repeats.add(format!("line {line}: empty"));
        }
        assert_eq!(repeats.rest(), ["line 4: empty"]);
    }
}
