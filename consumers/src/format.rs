//! Texts for people: escaped external text, readable JSON and times.

use std::time::Duration;

use doorstep_event::Timestamp;

/// Escapes every character of an external text that a terminal would interpret rather than show.
pub(crate) fn sanitize(text: &str) -> String {
    let mut clean = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_control() {
            clean.extend(c.escape_default());
        } else {
            clean.push(c);
        }
    }
    clean
}

/// Shortens a text to this many characters, escaped for a terminal.
pub(crate) fn shortened(text: &str, most: usize) -> String {
    let clean = sanitize(text);
    if clean.chars().count() <= most {
        return clean;
    }
    let kept: String = clean.chars().take(most.saturating_sub(1)).collect();
    format!("{kept}…")
}

/// Formats JSON with one member per line. Order, numbers and strings stay as they are written, which parsing into
/// values would not guarantee.
pub(crate) fn indented(json: &str) -> String {
    let mut out = String::with_capacity(json.len() * 2);
    let mut depth = 0_usize;
    let line = |out: &mut String, depth: usize| {
        out.push('\n');
        out.extend(std::iter::repeat_n("  ", depth));
    };
    let mut chars = json.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '"' => {
                out.push(c);
                while let Some(inner) = chars.next() {
                    out.push(inner);
                    match inner {
                        '"' => break,
                        '\\' => out.extend(chars.next()),
                        _ => {}
                    }
                }
            }
            '{' | '[' => {
                out.push(c);
                while chars.next_if(char::is_ascii_whitespace).is_some() {}
                if let Some(close) = chars.next_if(|next| matches!(next, '}' | ']')) {
                    out.push(close);
                } else {
                    depth += 1;
                    line(&mut out, depth);
                }
            }
            '}' | ']' => {
                depth = depth.saturating_sub(1);
                line(&mut out, depth);
                out.push(c);
            }
            ',' => {
                out.push(c);
                line(&mut out, depth);
            }
            ':' => out.push_str(": "),
            c if c.is_ascii_whitespace() => {}
            c => out.push(c),
        }
    }
    out
}

/// Removes the blanks between the parts of JSON. Order, numbers and strings stay as they are written.
pub(crate) fn compacted(json: &str) -> String {
    let mut out = String::with_capacity(json.len());
    let mut chars = json.chars();
    while let Some(c) = chars.next() {
        if c.is_ascii_whitespace() {
            continue;
        }
        out.push(c);
        if c == '"' {
            while let Some(inner) = chars.next() {
                out.push(inner);
                match inner {
                    '"' => break,
                    '\\' => out.extend(chars.next()),
                    _ => {}
                }
            }
        }
    }
    out
}

/// Formats a value that may be absent.
pub(crate) fn or_dash(value: Option<impl ToString>) -> String {
    value.map_or_else(|| "-".to_owned(), |value| value.to_string())
}

/// Formats a range with both ends, or its only number.
pub(crate) fn range((from, to): (u64, u64)) -> String {
    if from == to {
        from.to_string()
    } else {
        format!("{from}..{to}")
    }
}

/// Formats a time in whole seconds.
pub(crate) fn time(at: Timestamp) -> String {
    Timestamp::from_second(at.as_second())
        .unwrap_or(at)
        .to_string()
}

/// Formats a duration by its largest unit.
pub(crate) fn age(age: Duration) -> String {
    match age.as_secs() {
        0 => format!("{} ms", age.as_millis()),
        s @ 1..120 => format!("{s} s"),
        s @ 120..7_200 => format!("{} min", s / 60),
        s @ 7_200..172_800 => format!("{} h", s / 3_600),
        s => format!("{} days", s / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_from_outside_cannot_steer_the_terminal() {
        assert_eq!(
            sanitize("a\u{1b}[2Jb\n\u{9b}c ä"),
            "a\\u{1b}[2Jb\\n\\u{9b}c ä"
        );
    }

    #[test]
    fn long_text_is_shortened_with_dots() {
        assert_eq!(shortened("äöü", 3), "äöü");
        assert_eq!(shortened("äöüß", 3), "äö…");
    }

    #[test]
    fn json_is_indented_and_otherwise_unchanged() {
        let json = r#"{"b":1.50,"a":{"x":[],"y":["{,\"}:",{}]},"c":12345678901234567890123}"#;
        let expected = "{\n  \"b\": 1.50,\n  \"a\": {\n    \"x\": [],\n    \"y\": [\n      \"{,\\\"}:\",\n      {}\n    ]\n  },\n  \"c\": 12345678901234567890123\n}";
        assert_eq!(indented(json), expected);
        assert_eq!(indented(&indented(json)), expected);
        assert_eq!(indented("{\n}"), "{}");
        assert_eq!(compacted(&indented(json)), json);
        assert_eq!(
            compacted(r#"{ "a \" b" : [ 1 , 2 ] }"#),
            r#"{"a \" b":[1,2]}"#
        );
    }

    #[test]
    fn ages_are_shown_in_their_largest_unit() {
        let told = |s: u64| age(Duration::from_secs(s));
        assert_eq!(age(Duration::from_millis(250)), "250 ms");
        assert_eq!(told(90), "90 s");
        assert_eq!(told(600), "10 min");
        assert_eq!(told(7_300), "2 h");
        assert_eq!(told(400_000), "4 days");
    }

    #[test]
    fn times_are_shown_in_whole_seconds() {
        let at = "2026-11-23T09:00:01.987Z".parse().unwrap();
        assert_eq!(time(at), "2026-11-23T09:00:01Z");
    }
}
