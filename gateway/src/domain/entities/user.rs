//! A user, as it is stored.

use std::str::FromStr;

use derive_more::{Display, Into};
use doorstep_contracts::{CourierId, CustomerId, RestaurantId};
use doorstep_event::Timestamp;
use doorstep_store::EntityKey;
use serde::{Deserialize, Serialize};
use strum::IntoStaticStr;
use utoipa::ToSchema;

use super::email::UserEmail;

/// A user's name, which is also the id of the customer or courier in events.
#[derive(
    Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, Display, Into,
)]
#[serde(try_from = "String", into = "String")]
pub(crate) struct UserName(String);

/// The prefix of a user's entity key.
const PREFIX: &str = "user/";

impl UserName {
    pub(crate) fn entity(&self) -> EntityKey {
        EntityKey::new(format!("{PREFIX}{self}"))
    }

    /// Returns the key that sorts before all users' keys in a store.
    pub(crate) fn before_all() -> EntityKey {
        EntityKey::new(PREFIX)
    }

    /// Returns the user of this entity, or `None` if it is of another kind.
    pub(crate) fn of_entity(key: &EntityKey) -> Option<Self> {
        key.as_str().strip_prefix(PREFIX)?.parse().ok()
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }

    pub(crate) fn customer(&self) -> CustomerId {
        #[expect(clippy::expect_used, reason = "a user's name keeps stricter rules")]
        CustomerId::new(&self.0).expect("a user's name is a customer's")
    }

    pub(crate) fn courier(&self) -> CourierId {
        #[expect(clippy::expect_used, reason = "a user's name keeps stricter rules")]
        CourierId::new(&self.0).expect("a user's name is a courier's")
    }
}

impl FromStr for UserName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let is_plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
        let is_inner = |b: u8| is_plain(b) || matches!(b, b'_' | b'-');
        let first = text.bytes().next();
        if !first.is_some_and(is_plain) || text.len() > 63 || !text.bytes().all(is_inner) {
            return Err(format!(
                "{text:?} is not a name of 1 to 63 small letters, digits, dashes and underscores, a letter or digit first"
            ));
        }
        Ok(Self(text.to_owned()))
    }
}

impl TryFrom<String> for UserName {
    type Error = String;
    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

/// The role of a user.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "role", rename_all = "snake_case")]
pub(crate) enum UserRole {
    /// Places orders at any restaurant.
    Customer,
    /// Delivers the orders of customers.
    Courier,
    /// Works for one restaurant.
    Restaurant { restaurant: RestaurantId },
    /// Runs the shop and manages its users.
    Operator,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct User {
    /// The user's role, with the restaurant if it needs one.
    pub(crate) standing: UserRole,
    /// The password's hash; empty for a deleted user.
    pub(crate) hash: String,
    /// The generation of tokens that is valid.
    pub(crate) generation: u64,
    pub(crate) added_at: Timestamp,
    #[serde(default, skip_serializing_if = "UserStatus::is_active")]
    pub(crate) status: UserStatus,
    #[serde(default, skip_serializing_if = "UserEmail::is_unused")]
    pub(crate) email: UserEmail,
}

/// The status of a user's account. Accounts from before this field existed are active.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema, IntoStaticStr,
)]
#[serde(rename_all = "snake_case")]
#[strum(serialize_all = "snake_case")]
pub(crate) enum UserStatus {
    /// The user may log in.
    #[default]
    Active,
    /// The user may not log in until an operator enables the account.
    Disabled,
    /// The account is deleted for good. Its name stays taken: orders keep it, and a new user of that name would see
    /// them.
    Deleted,
}

impl UserStatus {
    /// Returns true if the user may log in.
    #[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks for it")]
    pub(crate) fn is_active(&self) -> bool {
        *self == Self::Active
    }

    pub(crate) fn as_str(self) -> &'static str {
        self.into()
    }
}

impl User {
    /// Returns true if the user may log in and is an operator.
    pub(crate) fn is_active_operator(&self) -> bool {
        self.status.is_active() && self.standing == UserRole::Operator
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_plain_and_short() {
        for good in ["a", "ada", "0", "pizza-roma_2", &"x".repeat(63)] {
            assert_eq!(good.parse::<UserName>().unwrap().to_string(), good);
        }
        for bad in ["", "-a", "Ada", "a.b", "a b", "ä", "a/b", &"x".repeat(64)] {
            assert!(bad.parse::<UserName>().is_err(), "{bad}");
        }
    }

    #[test]
    fn user_without_status_is_active() {
        let old = r#"{"standing":{"role":"customer"},"hash":"$argon2id$x","generation":3,"added_at":"2026-11-24T12:00:00Z"}"#;
        let user: User = serde_json::from_str(old).unwrap();
        assert_eq!(user.status, UserStatus::Active);
        assert_eq!(serde_json::to_string(&user).unwrap(), old);
    }
}
