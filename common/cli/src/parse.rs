//! Parsers of typed values.

use std::{
    fmt::Display, fs, io, net::SocketAddr, ops::RangeInclusive, path::Path, str::FromStr,
    time::Duration,
};

use clap::builder::TypedValueParser;
use jiff::SignedDuration;

use crate::checked;

/// The maximum size of a password file in bytes.
const MAX_PASSWORD_FILE: u64 = 4096;

/// Parses a whole number within bounds, written in digits only.
///
/// # Errors
/// It is not a number, or out of bounds.
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

/// Parses a duration, such as `500ms` or `5m`.
///
/// # Errors
/// It is not a duration, or negative.
pub fn duration(text: &str) -> Result<Duration, String> {
    text.parse::<SignedDuration>()
        .ok()
        .and_then(|d| Duration::try_from(d).ok())
        .ok_or_else(|| format!("{text:?} is not a time such as 500ms, 10s or 5m"))
}

/// Returns a parser of whole numbers within bounds.
pub fn number_arg<N>(bounds: RangeInclusive<N>) -> impl TypedValueParser<Value = N>
where
    N: FromStr + PartialOrd + Display + Clone + Send + Sync + 'static,
{
    let sample = bounds.start().to_string();
    checked(move |text: &str| number(text, bounds.clone()), sample)
}

/// Returns a parser of durations.
pub fn duration_arg() -> impl TypedValueParser<Value = Duration> {
    checked(duration, "10s")
}

/// Returns a parser of durations within bounds.
pub fn duration_within(
    bounds: RangeInclusive<Duration>,
) -> impl TypedValueParser<Value = Duration> {
    let shown =
        |bound: &Duration| format!("{:#}", SignedDuration::try_from(*bound).unwrap_or_default());
    let (start, end) = (shown(bounds.start()), shown(bounds.end()));
    let sample = start.clone();
    let within = move |text: &str| {
        let value = duration(text)?;
        if bounds.contains(&value) {
            return Ok(value);
        }
        Err(format!("{text:?} is not from {start} to {end}"))
    };
    checked(within, sample)
}

/// Returns a parser of durations that are long enough for idle checks: 100 ms.
pub fn idle_window() -> impl TypedValueParser<Value = Duration> {
    let long_enough = |text: &str| match duration(text)? {
        window if window < Duration::from_millis(100) => Err(format!(
            "{text:?} is too short to tell, give at least 100ms"
        )),
        window => Ok(window),
    };
    checked(long_enough, "1s")
}

/// Returns a parser of values with [`FromStr`].
pub fn from_str<T>(sample: &'static str) -> impl TypedValueParser<Value = T>
where
    T: FromStr<Err: Display> + Clone + Send + Sync + 'static,
{
    checked(T::from_str, sample)
}

/// Returns a parser of addresses to listen on or to call, such as `127.0.0.1:9100`.
pub fn address() -> impl TypedValueParser<Value = SocketAddr> {
    let address = |text: &str| {
        text.parse()
            .map_err(|_| format!("{text:?} is not an address such as 127.0.0.1:9100"))
    };
    checked(address, "127.0.0.1:9100")
}

/// Reads a password from a file: all of its text but the end of the last line.
///
/// # Errors
/// The file cannot be read, or does not consist of a single line.
pub fn password(path: &Path) -> Result<String, String> {
    let shown = path.display();
    let unreadable = |e: io::Error| {
        format!("{shown} cannot be read ({e}): correct the path, or let this user read it")
    };
    let length = fs::metadata(path).map_err(unreadable)?.len();
    if length > MAX_PASSWORD_FILE {
        return Err(format!(
            "{shown} has {length} bytes, at most {MAX_PASSWORD_FILE} are read: name a file with nothing but the password"
        ));
    }
    let text = fs::read_to_string(path).map_err(unreadable)?;
    let text = text.strip_suffix('\n').unwrap_or(&text);
    let text = text.strip_suffix('\r').unwrap_or(text);
    if text.is_empty() {
        return Err(format!("{shown} is empty: write the password into it"));
    }
    if text.contains('\n') {
        return Err(format!(
            "{shown} has several lines: leave nothing but the password in it"
        ));
    }
    Ok(text.to_owned())
}

#[cfg(test)]
mod tests {
    use std::ffi::OsStr;

    use clap::Command;

    use super::*;
    use crate::SettingsErrors;

    #[test]
    fn numbers_are_digits_within_their_range() {
        assert_eq!(number("1", 1..=2_000_u16), Ok(1));
        assert_eq!(number("2000", 1..=2_000_u16), Ok(2_000));
        for bad in ["", "0", "2001", "+5", "-1", "1.5", "many", "99999999999"] {
            assert!(number(bad, 1..=2_000_u16).is_err(), "{bad}");
        }
    }

    #[test]
    fn duration_has_a_unit_and_is_nonnegative() {
        assert_eq!(duration("1m30s"), Ok(Duration::from_secs(90)));
        for bad in ["", "5", "-1s", "soon"] {
            assert!(duration(bad).is_err(), "{bad}");
        }
        let idle_window = |text: &str| {
            let window = idle_window().parse_ref(&Command::new("x"), None, OsStr::new(text));
            SettingsErrors::of_arguments().into_result(window.ok())
        };
        assert!(idle_window("99ms").is_err());
        assert_eq!(idle_window("100ms").unwrap(), Duration::from_millis(100));
    }

    #[test]
    fn password_files_have_one_line() {
        let folder = std::env::temp_dir().join(format!("doorstep-password-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let read = |text: &str| {
            let path = folder.join("password");
            fs::write(&path, text).unwrap();
            password(&path)
        };
        for text in ["a b ", "a b \n", "a b \r\n"] {
            assert_eq!(read(text).as_deref(), Ok("a b "), "{text:?}");
        }
        let longest = "x".repeat(4096);
        assert_eq!(read(&longest), Ok(longest.clone()));
        for (text, part) in [
            ("", "is empty"),
            ("\n", "is empty"),
            ("a\nb\n", "several lines"),
            (&(longest + "x"), "has 4097 bytes"),
        ] {
            let error = read(text).unwrap_err();
            assert!(error.contains(part), "{error}");
        }
        fs::remove_dir_all(&folder).unwrap();
        assert!(password(&folder.join("password")).is_err());
    }
}
