//! Numbers and times in the forms that shops use. An ambiguous value is rejected, with the option that decides it.

use std::str::FromStr;

use jiff::{
    Timestamp,
    civil::{Date, DateTime, Time},
    tz::Offset,
};

/// The forms of numbers and dates in a file.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Format {
    /// The decimal separator of numbers.
    pub(crate) decimal: Decimal,
    /// The order of day and month in dates such as 12/1/2010.
    pub(crate) dates: Dates,
}

/// The decimal separator of a number.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Decimal {
    #[default]
    Point,
    Comma,
}

/// The order of day and month if both are numbers and the year comes last.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Dates {
    /// Unknown: such a date is rejected.
    #[default]
    Unknown,
    /// 12/1/2010 is the first of December.
    MonthFirst,
    /// 1/12/2010 is the first of December.
    DayFirst,
}

impl Format {
    /// Rewrites a number with a decimal point and without thousands separators.
    ///
    /// # Errors
    /// The number is ambiguous, or has a separator in the wrong place.
    pub(crate) fn number(self, text: &str) -> Result<String, String> {
        let (point, group, option) = match self.decimal {
            Decimal::Point => ('.', ',', "comma"),
            Decimal::Comma => (',', '.', "point"),
        };
        if !text.contains(group) {
            return Ok(text.replace(point, "."));
        }
        // With both separators the number is unambiguous: 1.234,56 and 1,234.56.
        let (whole, decimals) = text.split_once(point).ok_or_else(|| {
            format!(
                "{text:?} may have decimals or thousands: if {group:?} separates the decimals, use --decimal {option}"
            )
        })?;
        let digits = whole.trim_start_matches('-');
        let mut groups = digits.split(group);
        let is_first = |g: &str| (1..=3).contains(&g.len());
        if !groups.next().is_some_and(is_first) || !groups.all(|g| g.len() == 3) {
            return Err(format!("{text:?} is not a number"));
        }
        Ok(format!("{}.{decimals}", whole.replace(group, "")))
    }

    /// Reads a whole number; decimals may only be zeros.
    ///
    /// # Errors
    /// It is no whole number, is too large, or is ambiguous.
    pub(crate) fn whole_number(self, text: &str) -> Result<i64, String> {
        let plain = self.number(text)?;
        let whole = match plain.split_once('.') {
            Some((whole, decimals))
                if !decimals.is_empty() && decimals.bytes().all(|b| b == b'0') =>
            {
                whole
            }
            _ => &plain,
        };
        whole
            .parse()
            .map_err(|_| format!("{text:?} is not a whole number"))
    }

    /// Reads a date and a time in UTC: `2010-12-01 08:26:00`, `1.12.2010 8:26`, or `12/1/2010 8:26 AM` if the order is
    /// known. Seconds are optional.
    ///
    /// # Errors
    /// It is none of these, or could be two days.
    pub(crate) fn time(self, text: &str) -> Result<Timestamp, String> {
        let wrong =
            || format!("{text:?} is not a time of the form 2010-12-01 08:26:00 or 12/1/2010 8:26");
        let (day, hour) = text
            .split_once([' ', 'T'])
            .map(|(day, hour)| (day, hour.trim_start()))
            .ok_or_else(wrong)?;
        let separator = day
            .chars()
            .find(|c| !c.is_ascii_digit())
            .ok_or_else(wrong)?;
        let parts: Vec<&str> = day.split(separator).collect();
        let [first, second, third] = parts[..] else {
            return Err(wrong());
        };
        let (year, month, day) = if first.len() == 4 && separator == '-' {
            (first, second, third)
        } else if third.len() != 4 {
            return Err(wrong());
        } else {
            match (separator, self.dates) {
                // A date with points never has the month first.
                ('.', _) | (_, Dates::DayFirst) => (third, second, first),
                (_, Dates::MonthFirst) => (third, first, second),
                (_, Dates::Unknown) => {
                    return Err(format!(
                        "{text:?} may be month/day or day/month: say which with --dates us or --dates eu"
                    ));
                }
            }
        };
        let read = || {
            let year = number(year, 4).filter(|year| *year > 0)?;
            let date = Date::new(year, number(month, 2)?, number(day, 2)?).ok()?;
            let time = DateTime::from_parts(date, time_of(hour)?);
            Offset::UTC.to_timestamp(time).ok()
        };
        read().ok_or_else(wrong)
    }
}

/// Reads `8:26`, `08:26:00` and `8:26 PM`.
fn time_of(text: &str) -> Option<Time> {
    let half = |half: &str| -> Option<&str> {
        let at = text.len().checked_sub(half.len())?;
        let is_there = text.is_char_boundary(at) && text[at..].eq_ignore_ascii_case(half);
        is_there.then(|| text[..at].trim_end())
    };
    let (clock, noon) = match (half("AM"), half("PM")) {
        (Some(clock), _) => (clock, Some(0)),
        (_, Some(clock)) => (clock, Some(12)),
        _ => (text, None),
    };
    let mut parts = clock.split(':');
    let hour = number(parts.next()?, 2)?;
    let minute = parts.next().filter(|part| part.len() == 2)?;
    let second = match parts.next() {
        None => 0,
        Some(second) if second.len() == 2 => number(second, 2)?,
        Some(_) => return None,
    };
    if parts.next().is_some() {
        return None;
    }
    let hour = match noon {
        None => hour,
        Some(noon) if (1..=12).contains(&hour) => hour % 12 + noon,
        Some(_) => return None,
    };
    Time::new(hour, number(minute, 2)?, second, 0).ok()
}

fn number<N: FromStr>(text: &str, max_digits: usize) -> Option<N> {
    let is_number = (1..=max_digits).contains(&text.len());
    let is_number = is_number && text.bytes().all(|b| b.is_ascii_digit());
    text.parse().ok().filter(|_| is_number)
}

#[cfg(test)]
mod tests {
    use super::*;

    const POINT: Format = Format {
        decimal: Decimal::Point,
        dates: Dates::Unknown,
    };
    const US: Format = Format {
        decimal: Decimal::Point,
        dates: Dates::MonthFirst,
    };
    const EU: Format = Format {
        decimal: Decimal::Comma,
        dates: Dates::DayFirst,
    };

    #[test]
    fn numbers_have_one_meaning_or_are_rejected() {
        assert_eq!(POINT.number("-2.55").unwrap(), "-2.55");
        assert_eq!(POINT.number("1,234,567.5").unwrap(), "1234567.5");
        assert_eq!(EU.number("1.234,56").unwrap(), "1234.56");
        assert_eq!(EU.number("2,55").unwrap(), "2.55");
        let doubt = POINT.number("2,55").unwrap_err();
        assert!(doubt.contains("--decimal comma"), "{doubt}");
        let doubt = EU.number("1.234").unwrap_err();
        assert!(doubt.contains("--decimal point"), "{doubt}");
        for wrong in ["12,34.5", "1,2345.6", ",123.4", "1234,567.8"] {
            assert!(POINT.number(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn whole_numbers_may_end_in_zeros_only() {
        assert_eq!(POINT.whole_number("-6").unwrap(), -6);
        assert_eq!(POINT.whole_number("6.0").unwrap(), 6);
        assert_eq!(EU.whole_number("1.000,00").unwrap(), 1000);
        for wrong in ["6.5", "6.", "", "x", "9223372036854775808"] {
            assert!(POINT.whole_number(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn times_parse_in_common_forms() {
        let december = "2010-12-01T08:26:00Z".parse::<Timestamp>().unwrap();
        for text in ["2010-12-01 08:26:00", "2010-12-01T08:26", "1.12.2010 8:26"] {
            for format in [POINT, US, EU] {
                assert_eq!(format.time(text).unwrap(), december, "{text}");
            }
        }
        assert_eq!(US.time("12/1/2010 8:26").unwrap(), december);
        assert_eq!(US.time("12/1/2010 8:26:00 AM").unwrap(), december);
        assert_eq!(EU.time("1/12/2010 08:26").unwrap(), december);
        assert_eq!(EU.time("01-12-2010 08:26").unwrap(), december);
        let hour = |text| US.time(text).unwrap().to_string();
        assert_eq!(hour("12/1/2010 12:05 AM"), "2010-12-01T00:05:00Z");
        assert_eq!(hour("12/1/2010 12:05 pm"), "2010-12-01T12:05:00Z");
        assert_eq!(hour("12/1/2010 1:05PM"), "2010-12-01T13:05:00Z");
    }

    #[test]
    fn ambiguous_date_is_rejected_with_option() {
        let doubt = POINT.time("12/1/2010 8:26").unwrap_err();
        assert!(doubt.contains("--dates us or --dates eu"), "{doubt}");
    }

    #[test]
    fn an_invalid_time_is_rejected() {
        for wrong in [
            "",
            "2010-12-01",
            "8:26",
            "2010-13-01 08:26:00",
            "2011-02-29 08:26:00",
            "2010-12-01 24:00:00",
            "2010-12-01 08:60:00",
            "2010-12-01 8:2",
            "2010-12-01 08:26:00:00",
            "13/1/2010 8:26",
            "12/1/10 8:26",
            "12/1/2010 13:05 PM",
            "12/1/2010 0:05 AM",
            "2010-12-01 08:26:00\u{e9}M",
            "+010-12-01 08:26:00",
        ] {
            assert!(US.time(wrong).is_err(), "{wrong:?}");
        }
    }
}
