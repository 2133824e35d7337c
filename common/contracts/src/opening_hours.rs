//! A restaurant's weekly opening hours, in its own time zone.

use std::str::FromStr;

use derive_more::{Display, Into};
use doorstep_event::Timestamp;
use jiff::tz::TimeZone;
use serde::{Deserialize, Serialize};

/// Opening hours that begin on one day. If they end at or before their start, they run past midnight.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OpeningHours {
    /// The day on which they begin.
    pub day: Weekday,
    /// The first minute that accepts orders.
    pub opens: HourMinute,
    /// The first minute that no longer accepts orders; `24:00` is the end of the day.
    pub closes: HourMinute,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Weekday {
    Monday,
    Tuesday,
    Wednesday,
    Thursday,
    Friday,
    Saturday,
    Sunday,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OpeningError {
    #[error("{0:?} is not a time of day such as 09:30, from 00:00 to 24:00")]
    Time(String),
    #[error("{0:?} is not a time zone such as Europe/Lisbon or UTC")]
    Zone(String),
}

/// A time of day in whole minutes, from `00:00` to `24:00`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, Display)]
#[serde(try_from = "String", into = "String")]
#[display("{:02}:{:02}", _0 / 60, _0 % 60)]
pub struct HourMinute(u16);

impl FromStr for HourMinute {
    type Err = OpeningError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let invalid = || OpeningError::Time(text.to_owned());
        let (hours, minutes) = text.split_once(':').ok_or_else(invalid)?;
        let number = |two: &str, max: u16| {
            let is_two = two.len() == 2 && two.bytes().all(|b| b.is_ascii_digit());
            let number: Option<u16> = is_two.then(|| two.parse().ok()).flatten();
            number.filter(|n| *n <= max).ok_or_else(invalid)
        };
        let all = number(hours, 24)? * 60 + number(minutes, 59)?;
        if all > 24 * 60 {
            return Err(invalid());
        }
        Ok(Self(all))
    }
}

impl TryFrom<String> for HourMinute {
    type Error = OpeningError;
    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<HourMinute> for String {
    fn from(time: HourMinute) -> Self {
        time.to_string()
    }
}

/// The name of a time zone, such as `Europe/Lisbon`, in the bundled time zone database.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Display, Into)]
#[serde(try_from = "String", into = "String")]
pub struct ZoneName(String);

impl ZoneName {
    /// Validates the name of a time zone.
    ///
    /// # Errors
    /// Fails if there is no such time zone.
    pub fn new(name: impl Into<String>) -> Result<Self, OpeningError> {
        let name = name.into();
        match TimeZone::get(&name) {
            Ok(_) => Ok(Self(name)),
            Err(_) => Err(OpeningError::Zone(name)),
        }
    }

    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for ZoneName {
    type Error = OpeningError;
    fn try_from(name: String) -> Result<Self, Self::Error> {
        Self::new(name)
    }
}

/// Returns whether the hours include that time in this zone.
#[must_use]
pub fn is_open(hours: &[OpeningHours], zone: &ZoneName, at: Timestamp) -> bool {
    // The name was validated when it was parsed. A zone missing from a later database counts as UTC.
    let zone = TimeZone::get(zone.as_str()).unwrap_or(TimeZone::UTC);
    let local = zone.to_datetime(at);
    let today = local.weekday();
    let [hour, minute] = [local.hour(), local.minute()].map(|n| u16::from(n.unsigned_abs()));
    let time = hour * 60 + minute;
    hours.iter().any(|opening| {
        let (opens, closes) = (opening.opens.0, opening.closes.0);
        let begins = jiff::civil::Weekday::from(opening.day);
        if opens < closes {
            today == begins && (opens..closes).contains(&time)
        } else {
            (today == begins && time >= opens) || (today == begins.next() && time < closes)
        }
    })
}

impl From<Weekday> for jiff::civil::Weekday {
    fn from(day: Weekday) -> Self {
        match day {
            Weekday::Monday => Self::Monday,
            Weekday::Tuesday => Self::Tuesday,
            Weekday::Wednesday => Self::Wednesday,
            Weekday::Thursday => Self::Thursday,
            Weekday::Friday => Self::Friday,
            Weekday::Saturday => Self::Saturday,
            Weekday::Sunday => Self::Sunday,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hours(day: Weekday, opens: &str, closes: &str) -> OpeningHours {
        OpeningHours {
            day,
            opens: opens.parse().unwrap(),
            closes: closes.parse().unwrap(),
        }
    }

    #[track_caller]
    fn open(hours: &[OpeningHours], zone: &str, at: &str) -> bool {
        let zone = ZoneName::new(zone).unwrap();
        is_open(hours, &zone, at.parse().unwrap())
    }

    #[test]
    fn hours_include_start_and_exclude_end() {
        // 2026-11-23 is a Monday.
        let lunch = [hours(Weekday::Monday, "11:30", "14:00")];
        for (at, is) in [
            ("2026-11-23T11:29:59Z", false),
            ("2026-11-23T11:30:00Z", true),
            ("2026-11-23T13:59:59Z", true),
            ("2026-11-23T14:00:00Z", false),
            ("2026-11-24T12:00:00Z", false),
        ] {
            assert_eq!(open(&lunch, "UTC", at), is, "{at}");
        }
    }

    #[test]
    fn hours_may_run_past_midnight_and_week_end() {
        let late = [hours(Weekday::Sunday, "22:00", "02:00")];
        for (at, is) in [
            ("2026-11-22T21:59:00Z", false),
            ("2026-11-22T23:00:00Z", true),
            ("2026-11-23T01:59:00Z", true),
            ("2026-11-23T02:00:00Z", false),
            ("2026-11-22T01:00:00Z", false),
        ] {
            assert_eq!(open(&late, "UTC", at), is, "{at}");
        }
        let all_day = [hours(Weekday::Monday, "00:00", "24:00")];
        assert!(open(&all_day, "UTC", "2026-11-23T23:59:59Z"));
        assert!(!open(&all_day, "UTC", "2026-11-24T00:00:00Z"));
    }

    #[test]
    fn hours_follow_local_time_and_dst() {
        let lunch = [hours(Weekday::Monday, "12:00", "13:00")];
        assert!(open(&lunch, "Europe/Berlin", "2026-11-23T11:30:00Z"));
        assert!(open(&lunch, "Europe/Berlin", "2026-07-20T10:30:00Z"));
        assert!(!open(&lunch, "Europe/Berlin", "2026-07-20T11:30:00Z"));
        // Monday there is still Sunday in UTC.
        assert!(open(&lunch, "Pacific/Auckland", "2026-11-22T23:30:00Z"));
    }

    #[test]
    fn invalid_times_and_zones_are_rejected() {
        for bad in [
            "", "9:30", "09:60", "24:01", "25:00", "09.30", "09:3", "+9:30", "0930",
        ] {
            assert!(bad.parse::<HourMinute>().is_err(), "{bad}");
        }
        assert_eq!("24:00".parse::<HourMinute>().unwrap().to_string(), "24:00");
        assert!(ZoneName::new("Middle/Earth").is_err());
        assert!(serde_json::from_str::<ZoneName>("\"../etc/passwd\"").is_err());
    }
}
