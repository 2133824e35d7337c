//! Payments for orders, on `payment/INVOICE`: authorized, then captured or voided; a captured payment may be refunded. Amounts are always
//! the full authorized amount.

use doorstep_event::{Contract, Timestamp};
use serde::{Deserialize, Serialize};
use strum::IntoStaticStr;

use crate::{CustomerId, Label, Money};

/// `payment.authorized.v1`: the amount is held, and not charged yet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PaymentAuthorized {
    pub customer: CustomerId,
    /// The held amount: above zero.
    pub amount: Money,
    /// End of the authorization; an amount not captured by then lapses.
    pub authorized_until: Timestamp,
}

impl Contract for PaymentAuthorized {
    const TYPE: &'static str = "payment.authorized.v1";

    fn check(&self) -> Result<(), String> {
        is_positive(self.amount)
    }
}

/// `payment.captured.v1`: the shop has received the held amount.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PaymentCaptured {
    /// The full authorized amount: partial captures and voids do not exist.
    pub amount: Money,
}

impl Contract for PaymentCaptured {
    const TYPE: &'static str = "payment.captured.v1";

    fn check(&self) -> Result<(), String> {
        is_positive(self.amount)
    }
}

/// `payment.voided.v1`: the held amount is free again, and nothing was charged.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PaymentVoided {
    /// The full authorized amount: partial captures and voids do not exist.
    pub amount: Money,
    pub reason: ReversalReason,
    /// Free text of the caller that requested it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<Label>,
}

impl Contract for PaymentVoided {
    const TYPE: &'static str = "payment.voided.v1";

    fn check(&self) -> Result<(), String> {
        is_positive(self.amount)
    }
}

/// `payment.refunded.v1`: the captured amount was returned to the customer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PaymentRefunded {
    /// The full captured amount: partial refunds do not exist.
    pub amount: Money,
    /// Any reason except a lapse, since only a held amount can lapse.
    pub reason: ReversalReason,
    /// Free text of the caller that requested it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<Label>,
}

impl Contract for PaymentRefunded {
    const TYPE: &'static str = "payment.refunded.v1";

    fn check(&self) -> Result<(), String> {
        if self.reason == ReversalReason::Lapsed {
            return Err("a captured payment cannot lapse".to_owned());
        }
        is_positive(self.amount)
    }
}

/// The reason for voiding or refunding a payment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, IntoStaticStr)]
#[serde(rename_all = "snake_case")]
#[strum(serialize_all = "snake_case")]
pub enum ReversalReason {
    Requested,
    OrderRefused,
    OrderAbandoned,
    OrderCancelled,
    /// It was authorized and never captured.
    Lapsed,
}

impl ReversalReason {
    /// Returns the value on the wire.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        self.into()
    }
}

fn is_positive(amount: Money) -> Result<(), String> {
    if amount <= Money::ZERO {
        return Err(format!("amount {amount} is not above zero"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_are_positive_and_only_holds_lapse() {
        let voided = |amount: &str| PaymentVoided {
            amount: amount.parse().unwrap(),
            reason: ReversalReason::Lapsed,
            detail: None,
        };
        assert_eq!(voided("0.01").check(), Ok(()));
        for amount in ["0", "-1"] {
            let error = voided(amount).check().unwrap_err();
            assert!(error.contains("is not above zero"), "{error}");
        }
        let mut refunded = PaymentRefunded {
            amount: "1".parse().unwrap(),
            reason: ReversalReason::Requested,
            detail: None,
        };
        assert_eq!(refunded.check(), Ok(()));
        refunded.reason = ReversalReason::Lapsed;
        assert!(refunded.check().is_err());
    }
}
