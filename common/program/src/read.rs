//! Values as people type them.

use std::{fmt::Display, net::SocketAddr, ops::RangeInclusive, str::FromStr, time::Duration};

use jiff::SignedDuration;

/// A whole number within bounds, in digits alone.
///
/// # Errors
/// It is none, or beyond the bounds.
pub fn number<N>(text: &str, bounds: RangeInclusive<N>) -> Result<N, String>
where
    N: FromStr + PartialOrd + Display,
{
    let is_digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    text.parse()
        .ok()
        .filter(|number| is_digits && bounds.contains(number))
        .ok_or_else(|| {
            format!(
                "{text:?} is not a whole number from {} to {}",
                bounds.start(),
                bounds.end()
            )
        })
}

/// A time span, such as `500ms` or `5m`.
///
/// # Errors
/// It is none, or negative.
pub fn duration(text: &str) -> Result<Duration, String> {
    text.parse::<SignedDuration>()
        .ok()
        .and_then(|d| Duration::try_from(d).ok())
        .ok_or_else(|| format!("{text:?} is not a time such as 500ms, 10s or 5m"))
}

/// A time span in which something can be observed.
///
/// # Errors
/// It is none, or below 100 ms.
pub fn window(text: &str) -> Result<Duration, String> {
    let window = duration(text)?;
    if window < Duration::from_millis(100) {
        return Err(format!(
            "{text:?} is too short to tell, give at least 100ms"
        ));
    }
    Ok(window)
}

/// An address to listen on or to ask, such as `127.0.0.1:9100`.
///
/// # Errors
/// It is none.
pub fn address(text: &str) -> Result<SocketAddr, String> {
    text.parse()
        .map_err(|_| format!("{text:?} is not an address such as 127.0.0.1:9100"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_digits_within_their_range() {
        assert_eq!(number("1", 1..=2_000_u16), Ok(1));
        assert_eq!(number("2000", 1..=2_000_u16), Ok(2_000));
        for bad in ["", "0", "2001", "+5", "-1", "1.5", "many", "99999999999"] {
            assert!(number(bad, 1..=2_000_u16).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_time_span_has_a_unit_and_is_not_negative() {
        assert_eq!(duration("1m30s"), Ok(Duration::from_secs(90)));
        for bad in ["", "5", "-1s", "soon"] {
            assert!(duration(bad).is_err(), "{bad}");
        }
        assert!(window("99ms").is_err());
        assert_eq!(window("100ms"), Ok(Duration::from_millis(100)));
    }
}
