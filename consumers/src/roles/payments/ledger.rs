//! The ledger: accounts, and postings that each move an amount from one account to another. Nothing else changes a
//! balance, so the sum over all accounts is always zero.

use doorstep_contracts::{Money, MoneyError};
use doorstep_runtime::{HandlerError, States};
use doorstep_store::EntityKey;
use serde::{Deserialize, Serialize};

use super::Book;

/// An account of money. There are only a few: an event about an order names no customer, and a role must know the
/// entities from the event alone. The payment names the payer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Account {
    /// The customers' cards, below zero by the amount taken from them.
    Cards,
    /// Authorized money, until it is captured or voided.
    Held,
    /// The shop's money.
    Sales,
}

/// The balance of an account.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Balance {
    /// The incoming less the outgoing amounts.
    pub(crate) balance: Money,
    /// The number of postings applied.
    pub(crate) postings: u64,
}

impl Account {
    pub(crate) const ALL: [Self; 3] = [Self::Cards, Self::Held, Self::Sales];

    /// Returns the entity that holds the balance.
    pub(crate) fn key(self) -> EntityKey {
        EntityKey::new(match self {
            Self::Cards => "account/cards",
            Self::Held => "account/held",
            Self::Sales => "account/sales",
        })
    }
}

/// Moves an amount from one account to another.
///
/// # Errors
/// A balance would leave the range of exact amounts.
pub(super) fn post(
    states: &mut States<Book>,
    from: Account,
    to: Account,
    amount: Money,
) -> Result<(), HandlerError> {
    let uncounted =
        |e: MoneyError| HandlerError::Reject(format!("the ledger cannot count on: {e}"));
    let less = amount.checked_mul(-1).map_err(uncounted)?;
    for (account, change) in [(from, less), (to, amount)] {
        let key = account.key();
        let before = match states.get(&key) {
            Some(Book::Account(balance)) => balance.clone(),
            Some(Book::Payment(_)) | None => Balance::default(),
        };
        let after = Balance {
            balance: before.balance.checked_add(change).map_err(uncounted)?,
            postings: before.postings + 1,
        };
        states.put(&key, Book::Account(after));
    }
    Ok(())
}
