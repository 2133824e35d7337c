//! The names of things as types, so that a stock code is never passed where an invoice number is meant.
//!
//! Names are compared as bytes: `85123a` and `85123A` are two stock codes. Nothing is trimmed or folded here.

use std::{borrow::Borrow, fmt, str::FromStr, sync::Arc};

use doorstep_event::Subject;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

/// The most bytes that a name may have: so long that `KIND/NAME#SEQUENCE` still fits the 255 bytes of an event's id.
const MAX_BYTES: usize = 200;

/// What is wrong with a name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IdError {
    /// It has no characters.
    #[error("{0} is empty")]
    Empty(&'static str),
    /// It is longer than an event's id has room for.
    #[error("{what} has {bytes} bytes, at most {MAX_BYTES} fit")]
    TooLong {
        /// What the name names.
        what: &'static str,
        /// How long it is.
        bytes: usize,
    },
    /// It holds a character that no log or terminal should have to print.
    #[error("{0} holds a control character")]
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
        pub struct $name(Arc<str>);

        impl $name {
            /// Checks and takes the text as it is.
            ///
            /// # Errors
            /// The text is empty, above 200 bytes, or holds control characters.
            pub fn new(text: &str) -> Result<Self, IdError> {
                check($what, text)?;
                Ok(Self(text.into()))
            }

            /// The text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:?}", &*self.0)
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
    /// A stock code: names what is sold and counted.
    Sku,
    "stock code"
);
name!(
    /// The number of an invoice; one that begins with `C` is a cancellation.
    InvoiceNo,
    "invoice number"
);
name!(
    /// Names who ordered.
    CustomerId,
    "customer"
);
name!(
    /// Names who delivers.
    CourierId,
    "courier"
);
name!(
    /// Names a delivery: the number of the order that is delivered.
    DeliveryId,
    "delivery number"
);
name!(
    /// Names a restaurant.
    RestaurantId,
    "restaurant"
);
name!(
    /// A way to pay, as `KIND/NAME`: `card/visa`. No number of a card and no other secret belongs in it.
    ///
    /// `card/declined` and `card/insufficient_funds` are for tests: both are always refused, with the codes `card_declined` and
    /// `insufficient_funds`. Any other `card/...` is taken.
    PaymentMethod,
    "way to pay"
);
name!(
    /// A short text for people: a country, a city, a region.
    Label,
    "text"
);

fn subject(kind: &str, key: &str) -> Subject {
    #[expect(
        clippy::expect_used,
        reason = "a checked name is not empty, holds no control characters and leaves room for its kind"
    )]
    Subject::new(format!("{kind}/{key}")).expect("a checked name makes a subject")
}

impl InvoiceNo {
    /// The subject of the order with this invoice: `order/536365`.
    #[must_use]
    pub fn order_subject(&self) -> Subject {
        subject("order", &self.0)
    }

    /// The subject of the return with this invoice: `return/C536379`.
    #[must_use]
    pub fn return_subject(&self) -> Subject {
        subject("return", &self.0)
    }

    /// The subject of what is paid for the order with this invoice: `payment/536365`.
    #[must_use]
    pub fn payment_subject(&self) -> Subject {
        subject("payment", &self.0)
    }

    /// Whether the invoice is a cancellation, which takes goods back.
    #[must_use]
    pub fn is_cancellation(&self) -> bool {
        self.0.starts_with('C')
    }
}

impl Sku {
    /// The subject of this code's stock: `stock/85123A`.
    #[must_use]
    pub fn subject(&self) -> Subject {
        subject("stock", &self.0)
    }
}

impl RestaurantId {
    /// The subject of this restaurant: `restaurant/trattoria`.
    #[must_use]
    pub fn subject(&self) -> Subject {
        subject("restaurant", &self.0)
    }
}

impl DeliveryId {
    /// The subject of this delivery: `delivery/3781637`.
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
    fn the_longest_name_still_makes_a_subject_and_an_id() {
        let longest = DeliveryId::new(&"x".repeat(MAX_BYTES)).unwrap();
        let last = Sequence::new(i64::MAX.unsigned_abs()).unwrap();
        assert!(Event::id_for(&longest.subject(), last).is_ok());
        assert!(DeliveryId::new(&"x".repeat(MAX_BYTES + 1)).is_err());
    }

    #[test]
    fn names_that_differ_in_case_are_two() {
        assert_ne!(Sku::new("85123a").unwrap(), Sku::new("85123A").unwrap());
    }

    #[test]
    fn a_wrong_name_is_refused_wherever_it_comes_from() {
        assert_eq!(Sku::new(""), Err(IdError::Empty("stock code")));
        assert!(Sku::new("a\nb").is_err());
        assert!(serde_json::from_str::<Sku>("\"\"").is_err());
        assert!(serde_json::from_str::<Sku>("17").is_err());
    }
}
