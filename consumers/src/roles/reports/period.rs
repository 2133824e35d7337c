//! The period of a report, and its only country.

use doorstep_contracts::{Label, requests::RequestReport};
use jiff::civil::Date;
use serde::Serialize;

/// The maximum of days in a period.
const MAX_DAYS: i64 = RequestReport::MAX_DAYS;

/// A number of days, both ends included.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub(crate) struct Period {
    from: Date,
    to: Date,
}

/// The days and places that a report sums.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Scope {
    pub(crate) period: Period,
    /// The only country whose sales count; `None` for all.
    pub(crate) country: Option<Label>,
}

/// The reason why two days are no period.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum PeriodError {
    #[error("the period ends at {to}, before it begins at {from}: exchange them")]
    Reversed { from: Date, to: Date },
    #[error("the period has {days} days: ask for at most {MAX_DAYS}")]
    TooLong { days: i64 },
}

impl Period {
    /// Creates a period.
    ///
    /// # Errors
    /// It ends before it begins, or has more than 3,660 days.
    pub(crate) fn new(from: Date, to: Date) -> Result<Self, PeriodError> {
        if to < from {
            return Err(PeriodError::Reversed { from, to });
        }
        let days = days(from, to);
        if days > MAX_DAYS {
            return Err(PeriodError::TooLong { days });
        }
        Ok(Self { from, to })
    }

    pub(crate) fn from(&self) -> Date {
        self.from
    }

    pub(crate) fn to(&self) -> Date {
        self.to
    }

    /// Returns the number of its days.
    pub(crate) fn count(&self) -> u64 {
        u64::try_from(days(self.from, self.to)).unwrap_or_default()
    }

    pub(crate) fn contains(&self, day: Date) -> bool {
        (self.from..=self.to).contains(&day)
    }

    /// Returns its days in order.
    pub(crate) fn days(&self) -> impl Iterator<Item = Date> + use<> {
        let to = self.to;
        std::iter::successors(Some(self.from), |day| day.tomorrow().ok())
            .take_while(move |day| *day <= to)
    }
}

/// Returns the number of days, both ends included.
fn days(from: Date, to: Date) -> i64 {
    to.duration_since(from).as_hours() / 24 + 1
}

#[cfg(test)]
mod tests {
    use super::*;

    fn day(text: &str) -> Date {
        text.parse().unwrap()
    }

    #[test]
    fn a_period_has_both_ends() {
        let period = Period::new(day("2012-02-28"), day("2012-03-01")).unwrap();
        let days: Vec<String> = period.days().map(|day| day.to_string()).collect();
        assert_eq!(days, ["2012-02-28", "2012-02-29", "2012-03-01"]);
        assert_eq!(period.count(), 3);
        assert!(period.contains(day("2012-02-28")) && period.contains(day("2012-03-01")));
        assert!(!period.contains(day("2012-03-02")));
        let one = Period::new(day("2012-02-28"), day("2012-02-28")).unwrap();
        assert_eq!(one.days().count(), 1);
    }

    #[test]
    fn reversed_and_long_periods_are_rejected() {
        let error = Period::new(day("2012-02-28"), day("2012-02-27")).unwrap_err();
        assert!(error.to_string().contains("before it begins"), "{error}");
        assert!(Period::new(day("2010-01-01"), day("2020-01-08")).is_ok());
        let error = Period::new(day("2010-01-01"), day("2020-01-09")).unwrap_err();
        assert_eq!(error, PeriodError::TooLong { days: 3_661 });
        assert!(Period::new(Date::MIN, Date::MAX).is_err());
    }
}
