//! The mail addresses of users and their choice of mails, on `user/NAME`.
//!
//! An address counts only once the user has confirmed it by the link in a mail to it. Until then an earlier confirmed address stays.

use doorstep_event::Contract;
use serde::{Deserialize, Serialize};
use strum::IntoStaticStr;

use crate::{EmailAddress, Label, SignedLink};

/// Maximum bytes of a nonce.
const MAX_NONCE_BYTES: usize = 32;

/// `user.address_set.v1`: the user has set an address, which is not confirmed yet. It replaces an earlier unconfirmed one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AddressSet {
    pub address: EmailAddress,
    /// The link that confirms it.
    pub link: SignedLink,
    /// Identifies this setting: 1 to 32 letters and digits.
    pub nonce: Label,
}

impl Contract for AddressSet {
    const TYPE: &'static str = "user.address_set.v1";

    fn check(&self) -> Result<(), String> {
        check_nonce(&self.nonce)
    }
}

/// `user.address_confirmed.v1`: the user has confirmed the address of that nonce. It replaces an earlier confirmed one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AddressConfirmed {
    pub address: EmailAddress,
    pub nonce: Label,
}

impl Contract for AddressConfirmed {
    const TYPE: &'static str = "user.address_confirmed.v1";

    fn check(&self) -> Result<(), String> {
        check_nonce(&self.nonce)
    }
}

/// `user.address_removed.v1`: the user has no address any more, neither a confirmed one nor another.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AddressRemoved {
    pub reason: AddressRemovalReason,
}

/// The reason why an address was removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, IntoStaticStr)]
#[serde(rename_all = "snake_case")]
#[strum(serialize_all = "snake_case")]
pub enum AddressRemovalReason {
    /// The user or an operator asked for it.
    Requested,
    /// The account was deleted.
    UserDeleted,
}

impl Contract for AddressRemoved {
    const TYPE: &'static str = "user.address_removed.v1";
}

/// `user.notifications_chosen.v1`: the user has chosen which mails to get. Until then it is all of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NotificationsChosen {
    /// Mails about confirmed orders.
    pub confirmations: bool,
    /// Mails about refused, abandoned and cancelled orders.
    pub refusals: bool,
    /// Mails about delivered orders.
    pub deliveries: bool,
    /// Mails about requested reports.
    pub reports: bool,
}

impl Default for NotificationsChosen {
    fn default() -> Self {
        Self {
            confirmations: true,
            refusals: true,
            deliveries: true,
            reports: true,
        }
    }
}

impl Contract for NotificationsChosen {
    const TYPE: &'static str = "user.notifications_chosen.v1";
}

fn check_nonce(nonce: &Label) -> Result<(), String> {
    let nonce = nonce.as_str();
    if nonce.len() > MAX_NONCE_BYTES || !nonce.bytes().all(|b| b.is_ascii_alphanumeric()) {
        return Err(format!(
            "the nonce is not of 1 to {MAX_NONCE_BYTES} letters and digits"
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_nonce_is_letters_and_digits() {
        let golden = include_str!("../golden/user.address_confirmed.v1.json");
        let mut confirmed: AddressConfirmed = serde_json::from_str(golden).unwrap();
        assert_eq!(confirmed.check(), Ok(()));
        for bad in ["a/b", "a b", &"a".repeat(MAX_NONCE_BYTES + 1)] {
            confirmed.nonce = Label::new(bad).unwrap();
            assert!(confirmed.check().is_err(), "{bad}");
        }
    }
}
