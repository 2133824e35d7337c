//! Times on the wire.

use jiff::Timestamp;

use crate::AttributeError;

/// Fractional digits of a [`Timestamp`].
const DIGITS: usize = 9;

/// Parses an RFC 3339 time with any number of decimals; those beyond nanoseconds are truncated. A leap second becomes the preceding second.
///
/// # Errors
/// [`AttributeError::TimeForm`] if the text has another form.
pub fn parse(text: &str) -> Result<Timestamp, AttributeError> {
    if let Ok(time) = text.parse() {
        return Ok(time);
    }
    let invalid = || AttributeError::TimeForm(crate::attributes::shown(text));
    let point = text.find('.').ok_or_else(invalid)?;
    let decimals = &text[point + 1..];
    let count = decimals.bytes().take_while(u8::is_ascii_digit).count();
    if count <= DIGITS {
        return Err(invalid());
    }
    let (kept, zone) = (point + 1 + DIGITS, point + 1 + count);
    format!("{}{}", &text[..kept], &text[zone..])
        .parse()
        .map_err(|_| invalid())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rfc_3339_times_are_parsed() {
        for (text, same) in [
            ("2026-11-30T03:00:00Z", "2026-11-30T03:00:00Z"),
            ("2026-11-30t03:00:00z", "2026-11-30T03:00:00Z"),
            ("2026-11-30T04:30:00+01:30", "2026-11-30T03:00:00Z"),
            ("2026-11-30T03:00:00-00:00", "2026-11-30T03:00:00Z"),
            ("2026-11-30 03:00:00Z", "2026-11-30T03:00:00Z"),
            ("2016-12-31T23:59:60Z", "2016-12-31T23:59:59Z"),
            ("2017-01-01T00:59:60.5+01:00", "2016-12-31T23:59:59.5Z"),
            ("2026-11-30T03:00:00.1Z", "2026-11-30T03:00:00.1Z"),
            (
                "2026-11-30T03:00:00.123456789012Z",
                "2026-11-30T03:00:00.123456789Z",
            ),
            (
                "2026-11-30t04:00:00.9999999999999999999999999999+01:00",
                "2026-11-30T03:00:00.999999999Z",
            ),
            (
                "1969-07-20T20:17:40.1234567891Z",
                "1969-07-20T20:17:40.123456789Z",
            ),
            ("0001-01-01T00:00:00Z", "0001-01-01T00:00:00Z"),
            ("9999-12-30T00:00:00Z", "9999-12-30T00:00:00Z"),
        ] {
            assert_eq!(parse(text), Ok(same.parse().unwrap()), "{text}");
        }
    }

    #[test]
    fn other_texts_are_rejected() {
        for text in [
            "",
            "yesterday",
            "1700000000",
            "2026-11-30",
            "2026-11-30T03:00:00",
            "2026-11-30T24:00:00Z",
            "2026-02-30T03:00:00Z",
            "2026-11-30T03:00:00.1234567890",
            "2026-11-30T03:00:00.1234567890é",
            "é.1234567890123Z",
        ] {
            let error = parse(text).unwrap_err().to_string();
            assert!(error.contains("RFC 3339"), "{error}");
        }
    }
}
