//! What is paid for an order, on `payment/INVOICE`: authorized, then captured or voided; what was captured may be refunded. Amounts are
//! always the whole of what was authorized.

use doorstep_event::{Contract, Timestamp};
use serde::{Deserialize, Serialize};

use crate::{CustomerId, Label, Money};

/// `payment.authorized.v1`: the money is held, nobody has it yet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PaymentAuthorized {
    /// Who pays.
    pub customer: CustomerId,
    /// How much is held: above zero.
    pub amount: Money,
    /// Until when; what is not captured by then lapses.
    pub authorized_until: Timestamp,
}

impl Contract for PaymentAuthorized {
    const TYPE: &'static str = "payment.authorized.v1";
    const REQUIRES_SEQUENCE: bool = true;

    fn check(&self) -> Result<(), String> {
        is_positive(self.amount)
    }
}

/// `payment.captured.v1`: what was held is the shop's.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PaymentCaptured {
    /// How much: what was authorized.
    pub amount: Money,
}

impl Contract for PaymentCaptured {
    const TYPE: &'static str = "payment.captured.v1";
    const REQUIRES_SEQUENCE: bool = true;

    fn check(&self) -> Result<(), String> {
        is_positive(self.amount)
    }
}

/// `payment.voided.v1`: what was held is free again, and nothing was charged.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PaymentVoided {
    /// How much: what was authorized.
    pub amount: Money,
    /// Why.
    pub reason: ReversalReason,
    /// The words of whoever asked for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<Label>,
}

impl Contract for PaymentVoided {
    const TYPE: &'static str = "payment.voided.v1";
    const REQUIRES_SEQUENCE: bool = true;

    fn check(&self) -> Result<(), String> {
        is_positive(self.amount)
    }
}

/// `payment.refunded.v1`: what was captured went back to who had paid.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PaymentRefunded {
    /// How much: what was captured.
    pub amount: Money,
    /// Why; only what is still held can lapse.
    pub reason: ReversalReason,
    /// The words of whoever asked for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<Label>,
}

impl Contract for PaymentRefunded {
    const TYPE: &'static str = "payment.refunded.v1";
    const REQUIRES_SEQUENCE: bool = true;

    fn check(&self) -> Result<(), String> {
        if self.reason == ReversalReason::Lapsed {
            return Err("what was captured cannot lapse".to_owned());
        }
        is_positive(self.amount)
    }
}

/// Why money went back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ReversalReason {
    /// Somebody asked for it.
    Requested,
    /// The order was refused.
    OrderRefused,
    /// The order was abandoned.
    OrderAbandoned,
    /// The order was cancelled.
    OrderCancelled,
    /// It was authorized and never captured.
    Lapsed,
}

impl ReversalReason {
    /// The word on the wire.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Requested => "requested",
            Self::OrderRefused => "order_refused",
            Self::OrderAbandoned => "order_abandoned",
            Self::OrderCancelled => "order_cancelled",
            Self::Lapsed => "lapsed",
        }
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
    fn only_amounts_above_zero_move_and_only_what_is_held_lapses() {
        let voided = |amount: &str| PaymentVoided {
            amount: amount.parse().unwrap(),
            reason: ReversalReason::Lapsed,
            detail: None,
        };
        assert_eq!(voided("0.01").check(), Ok(()));
        for amount in ["0", "-1"] {
            let said = voided(amount).check().unwrap_err();
            assert!(said.contains("is not above zero"), "{said}");
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
