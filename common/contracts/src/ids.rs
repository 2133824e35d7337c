//! Identifiers as types, so that a stock code is never passed for an invoice number.
//!
//! Identifiers are compared as bytes: `85123a` and `85123A` are different stock codes. They are neither trimmed nor case-folded here.

use std::{borrow::Borrow, str::FromStr, sync::Arc};

use doorstep_event::Subject;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};
use uuid::Uuid;

/// Maximum bytes of an identifier, so that `KIND/NAME#SEQUENCE` fits the 255 bytes of an event id.
const MAX_BYTES: usize = 200;

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IdError {
    #[error("{0} is empty")]
    Empty(&'static str),
    /// The text is too long for an event id.
    #[error("{what} has {bytes} bytes, more than {MAX_BYTES}")]
    TooLong { what: &'static str, bytes: usize },
    /// The text contains a control character, which could garble logs and terminals.
    #[error("{0} contains a control character")]
    ControlCharacter(&'static str),
}

fn check(what: &'static str, text: &str) -> Result<(), IdError> {
    if text.is_empty() {
        return Err(IdError::Empty(what));
    }
    if text.len() > MAX_BYTES {
        return Err(IdError::TooLong {
            what,
            bytes: text.len(),
        });
    }
    if text.bytes().any(|b| b < 0x20 || b == 0x7f) {
        return Err(IdError::ControlCharacter(what));
    }
    Ok(())
}

macro_rules! name {
    ($(#[$doc:meta])* $name:ident, $what:literal) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[derive(derive_more::Debug, derive_more::Display)]
        #[debug("{_0:?}")]
        pub struct $name(Arc<str>);

        impl $name {
            /// Validates the text and takes it unchanged.
            ///
            /// # Errors
            /// Fails if the text is empty, exceeds 200 bytes, or contains control characters.
            pub fn new(text: &str) -> Result<Self, IdError> {
                check($what, text)?;
                Ok(Self(text.into()))
            }

            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = IdError;
            fn from_str(text: &str) -> Result<Self, Self::Err> {
                Self::new(text)
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(&self.0)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                Self::new(&String::deserialize(deserializer)?).map_err(D::Error::custom)
            }
        }
    };
}

name!(
    /// A stock code: identifies an item that is sold and counted.
    Sku,
    "stock code"
);
name!(
    /// An invoice number. If it begins with `C`, the invoice is a cancellation.
    InvoiceNo,
    "invoice number"
);
name!(CustomerId, "customer");
name!(CourierId, "courier");
name!(
    /// Identifies a delivery by its order's number.
    DeliveryId,
    "delivery number"
);
name!(RestaurantId, "restaurant");
name!(
    /// A payment method, as `KIND/NAME`: `card/visa`. It must not contain card numbers or other secrets.
    ///
    /// `card/declined` and `card/insufficient_funds` are for tests: both are always rejected, with the codes `card_declined` and
    /// `insufficient_funds`. Any other `card/...` is accepted.
    PaymentMethod,
    "payment method"
);
name!(
    /// A short text for people: a country, a city, a region.
    Label,
    "text"
);

/// Identifies a report: a UUID in its canonical form, with lower-case letters.
#[derive(
    Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, derive_more::Debug, derive_more::Display,
)]
#[debug("{_0}")]
pub struct ReportId(Uuid);

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the report's id is not a UUID such as 0190f3a4-7c1e-7b5a-9d43-3f5c2a1b0e77")]
pub struct ReportIdError;

impl ReportId {
    #[must_use]
    pub fn new(id: Uuid) -> Self {
        Self(id)
    }

    /// Returns the subject of this report: `report/0190f3a4-7c1e-7b5a-9d43-3f5c2a1b0e77`.
    #[must_use]
    pub fn subject(&self) -> Subject {
        subject("report", &self.0.to_string())
    }
}

impl FromStr for ReportId {
    type Err = ReportIdError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let id = Uuid::try_parse(text).map_err(|_| ReportIdError)?;
        // A report has one name: no braces, no capital letters.
        match id.to_string() == text {
            true => Ok(Self(id)),
            false => Err(ReportIdError),
        }
    }
}

impl Serialize for ReportId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for ReportId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .map_err(D::Error::custom)
    }
}

fn subject(kind: &str, key: &str) -> Subject {
    #[expect(
        clippy::expect_used,
        reason = "a checked identifier is not empty, has no control characters and leaves room for its kind"
    )]
    Subject::new(format!("{kind}/{key}")).expect("a checked identifier fits a subject")
}

impl InvoiceNo {
    /// Returns the subject of the order with this invoice: `order/536365`.
    #[must_use]
    pub fn order_subject(&self) -> Subject {
        subject("order", &self.0)
    }

    /// Returns the subject of the return with this invoice: `return/C536379`.
    #[must_use]
    pub fn return_subject(&self) -> Subject {
        subject("return", &self.0)
    }

    /// Returns the subject of the payment for the order with this invoice: `payment/536365`.
    #[must_use]
    pub fn payment_subject(&self) -> Subject {
        subject("payment", &self.0)
    }

    /// Returns whether the invoice is a cancellation, which takes goods back.
    #[must_use]
    pub fn is_cancellation(&self) -> bool {
        self.0.starts_with('C')
    }
}

impl CustomerId {
    /// Returns the subject of the user with this name: `user/ada`.
    #[must_use]
    pub fn user_subject(&self) -> Subject {
        subject("user", &self.0)
    }
}

impl Sku {
    /// Returns the subject of this code's stock: `stock/85123A`.
    #[must_use]
    pub fn subject(&self) -> Subject {
        subject("stock", &self.0)
    }
}

impl RestaurantId {
    /// Returns the subject of this restaurant: `restaurant/trattoria`.
    #[must_use]
    pub fn subject(&self) -> Subject {
        subject("restaurant", &self.0)
    }
}

impl DeliveryId {
    /// Returns the subject of this delivery: `delivery/3781637`.
    #[must_use]
    pub fn subject(&self) -> Subject {
        subject("delivery", &self.0)
    }
}

#[cfg(test)]
mod tests {
    use doorstep_event::{Event, Sequence};

    use super::*;

    #[test]
    fn the_longest_identifier_fits_subject_and_event_id() {
        let longest = DeliveryId::new(&"x".repeat(MAX_BYTES)).unwrap();
        let last = Sequence::new(i64::MAX.unsigned_abs()).unwrap();
        assert!(Event::id_for(&longest.subject(), last).is_ok());
        assert!(DeliveryId::new(&"x".repeat(MAX_BYTES + 1)).is_err());
    }

    #[test]
    fn identifiers_are_case_sensitive() {
        assert_ne!(Sku::new("85123a").unwrap(), Sku::new("85123A").unwrap());
    }

    #[test]
    fn a_report_has_one_name() {
        let id = "0190f3a4-7c1e-7b5a-9d43-3f5c2a1b0e77";
        assert_eq!(id.parse::<ReportId>().unwrap().to_string(), id);
        let braced = format!("{{{id}}}");
        let urn = format!("urn:uuid:{id}");
        for other in [
            "",
            "..",
            "0190f3a4-7c1e-7b5a-9d43-3f5c2a1b0e7",
            "0190f3a47c1e7b5a9d433f5c2a1b0e77",
            "0190F3A4-7C1E-7B5A-9D43-3F5C2A1B0E77",
            &braced,
            &urn,
        ] {
            assert_eq!(other.parse::<ReportId>(), Err(ReportIdError), "{other:?}");
        }
    }

    #[test]
    fn invalid_identifiers_are_rejected() {
        assert_eq!(Sku::new(""), Err(IdError::Empty("stock code")));
        assert!(Sku::new("a\nb").is_err());
        assert!(serde_json::from_str::<Sku>("\"\"").is_err());
        assert!(serde_json::from_str::<Sku>("17").is_err());
    }
}
