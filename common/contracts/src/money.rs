//! Money: exact decimal amounts, without floating point and without rounding.

use std::{fmt, str::FromStr};

use rust_decimal::Decimal;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

/// Maximum decimals of an amount. The real data has three.
const MAX_DECIMALS: u32 = 9;
/// Exclusive bound of an amount's size. With nine decimals this makes 24 digits; a [`Decimal`] holds 28 without rounding.
const LIMIT: i64 = 1_000_000_000_000_000;

/// An exact amount in the shop's only currency, with up to nine decimals, below 10^15 in size.
///
/// Formatted exactly, with at least two decimals and no further trailing zeros: `139.12`, `0.00`, `1.255`, `-27.50`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default, derive_more::Debug)]
#[debug("{self}")]
pub struct Money(Decimal);

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MoneyError {
    /// Not digits with at most one point and an optional minus sign.
    #[error("{0:?} is not an amount such as 139.12 or -27.50")]
    Form(String),
    #[error("amount {0} has more than {MAX_DECIMALS} decimals")]
    TooPrecise(String),
    #[error("amount {0} is not below {LIMIT} in size")]
    TooLarge(String),
}

impl Money {
    pub const ZERO: Self = Self(Decimal::ZERO);

    /// Creates an amount from a decimal.
    ///
    /// # Errors
    /// Fails if the number has more than nine decimals, or reaches 10^15 in size.
    pub fn new(amount: Decimal) -> Result<Self, MoneyError> {
        let amount = amount.normalize();
        if amount.abs() >= Decimal::from(LIMIT) {
            return Err(MoneyError::TooLarge(amount.to_string()));
        }
        if amount.scale() > MAX_DECIMALS {
            return Err(MoneyError::TooPrecise(amount.to_string()));
        }
        Ok(Self(amount))
    }

    #[must_use]
    pub fn decimal(self) -> Decimal {
        self.0
    }

    #[must_use]
    pub fn is_negative(self) -> bool {
        self < Self::ZERO
    }

    /// Returns the exact sum.
    ///
    /// # Errors
    /// Fails if the sum reaches 10^15 in size.
    pub fn checked_add(self, other: Self) -> Result<Self, MoneyError> {
        // Both have at most 24 digits with nine decimals, so the sum fits a `Decimal` without rounding.
        Self::new(self.0 + other.0)
    }

    /// Returns the exact amount for this number of pieces.
    ///
    /// # Errors
    /// Fails if the amount reaches 10^15 in size.
    pub fn checked_mul(self, pieces: i64) -> Result<Self, MoneyError> {
        // Decimal's own product may round if it does not fit, so multiply the digits as integers. If 24 and 19 digits overflow, the amount
        // is certainly too large.
        self.0
            .mantissa()
            .checked_mul(i128::from(pieces))
            .and_then(|m| Decimal::try_from_i128_with_scale(m, self.0.scale()).ok())
            .ok_or_else(|| MoneyError::TooLarge(format!("{self} x {pieces}")))
            .and_then(Self::new)
    }

    /// Returns the exact sum of several amounts.
    ///
    /// # Errors
    /// Fails if a partial sum reaches 10^15 in size.
    pub fn sum(amounts: impl IntoIterator<Item = Self>) -> Result<Self, MoneyError> {
        amounts.into_iter().try_fold(Self::ZERO, Self::checked_add)
    }
}

impl fmt::Display for Money {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let decimals = self.0.scale().max(2) as usize;
        write!(f, "{:.decimals$}", self.0)
    }
}

impl FromStr for Money {
    type Err = MoneyError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        // Decimal's own parser also accepts plus signs, underscores and bare points.
        let digits = text.strip_prefix('-').unwrap_or(text);
        let (whole, decimals) = digits.split_once('.').unwrap_or((digits, "0"));
        let are_digits = |s: &str| !s.is_empty() && s.bytes().all(|b| b.is_ascii_digit());
        if !are_digits(whole) || !are_digits(decimals) {
            return Err(MoneyError::Form(text.to_owned()));
        }
        let amount = Decimal::from_str_exact(text).map_err(|_| {
            if whole.len() > decimals.len() {
                MoneyError::TooLarge(text.to_owned())
            } else {
                MoneyError::TooPrecise(text.to_owned())
            }
        })?;
        Self::new(amount)
    }
}

impl Serialize for Money {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Money {
    /// Accepts only text: many programs pass JSON numbers through floating point, so they may be inexact.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn money(text: &str) -> Money {
        text.parse().unwrap()
    }

    #[test]
    fn amounts_have_at_least_two_decimals() {
        for (read, written) in [
            ("139.12", "139.12"),
            ("0", "0.00"),
            ("-0.0", "0.00"),
            ("1.255", "1.255"),
            ("-27.5", "-27.50"),
            ("1.2500", "1.25"),
            ("100", "100.00"),
            ("007.10", "7.10"),
            ("999999999999999.999999999", "999999999999999.999999999"),
        ] {
            assert_eq!(money(read).to_string(), written);
            assert_eq!(
                serde_json::to_string(&money(read)).unwrap(),
                format!("\"{written}\"")
            );
        }
    }

    #[test]
    fn invalid_amounts_are_rejected() {
        for bad in [
            "", "-", ".", "1.", ".5", "+1", "1_000", "1e3", "1,5", " 1", "NaN", "--1",
        ] {
            assert_eq!(bad.parse::<Money>(), Err(MoneyError::Form(bad.to_owned())));
        }
        assert!(serde_json::from_str::<Money>("1.5").is_err());
    }

    #[test]
    fn inexact_amounts_are_rejected() {
        for large in ["1000000000000000", "-1000000000000000", &"9".repeat(60)] {
            assert!(matches!(
                large.parse::<Money>(),
                Err(MoneyError::TooLarge(_))
            ));
        }
        let fine = format!("0.{}1", "0".repeat(40));
        for precise in ["0.0000000001", &fine] {
            assert!(matches!(
                precise.parse::<Money>(),
                Err(MoneyError::TooPrecise(_))
            ));
        }
    }

    #[test]
    fn sums_and_products_are_exact_or_fail() {
        let tenth = money("0.1");
        assert_eq!(
            Money::sum([tenth, tenth, tenth]).unwrap().to_string(),
            "0.30"
        );
        assert_eq!(
            money("0.001").checked_mul(-7).unwrap().to_string(),
            "-0.007"
        );
        assert_eq!(money("1.255").checked_mul(0).unwrap().to_string(), "0.00");
        let max = money("999999999999999.999999999");
        assert!(max.checked_add(money("0.000000001")).is_err());
        assert!(max.checked_mul(2).is_err());
        assert!(max.checked_mul(i64::MIN).is_err());
        assert_eq!(
            max.checked_add(money("-0.000000001")).unwrap().to_string(),
            "999999999999999.999999998"
        );
    }
}
