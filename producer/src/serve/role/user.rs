//! Users: who may log in, and as what.

use std::{fmt, str::FromStr};

use doorstep_contracts::{CourierId, CustomerId, RestaurantId};
use doorstep_event::{Refused, Timestamp};
use doorstep_runtime::{Effects, Obeyed, States};
use doorstep_store::EntityKey;
use serde::{Deserialize, Serialize};

use super::{
    Entry, refused,
    requests::{AddUser, Done, RevokeTokens},
};

/// A user's name: also the customer's or courier's own in events.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub(crate) struct UserName(String);

impl UserName {
    /// The user's entity.
    pub(crate) fn entity(&self) -> EntityKey {
        EntityKey::new(format!("user/{self}"))
    }

    /// The user as a customer.
    pub(crate) fn customer(&self) -> CustomerId {
        #[expect(clippy::expect_used, reason = "a user's name keeps stricter rules")]
        CustomerId::new(&self.0).expect("a user's name is a customer's")
    }

    /// The user as a courier.
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

impl From<UserName> for String {
    fn from(name: UserName) -> Self {
        name.0
    }
}

impl fmt::Display for UserName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What a user is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "role", rename_all = "snake_case")]
pub(crate) enum Standing {
    /// Orders.
    Customer,
    /// Delivers.
    Courier,
    /// Works for this restaurant.
    Restaurant {
        /// Which one.
        restaurant: RestaurantId,
    },
    /// Runs the shop.
    Operator,
}

/// A user.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct User {
    /// What the user is.
    pub(crate) standing: Standing,
    /// The password's hash.
    pub(crate) hash: String,
    /// Of the tokens that are good.
    pub(crate) generation: u64,
    added_at: Timestamp,
}

/// Adds a user who is not there yet.
pub(super) fn add(
    states: &mut States<Entry>,
    asked: &AddUser,
    now: Timestamp,
) -> Result<Obeyed, Refused> {
    let key = asked.name.entity();
    if states.get(&key).is_some() {
        return Err(refused(
            "user_exists",
            format!("there is a user {} already", asked.name),
        ));
    }
    let user = User {
        standing: asked.standing.clone(),
        hash: asked.hash.clone(),
        generation: 1,
        added_at: now,
    };
    states.put(&key, Entry::User(user));
    Obeyed::of::<AddUser>(&Done {}, Effects::none())
}

/// Raises the generation of the user's tokens.
pub(super) fn revoke(states: &mut States<Entry>, asked: &RevokeTokens) -> Result<Obeyed, Refused> {
    let key = asked.name.entity();
    let user = states.get(&key).and_then(Entry::user).cloned();
    let mut user = user.ok_or_else(|| refused("unknown_user", "there is no such user"))?;
    user.generation += 1;
    states.put(&key, Entry::User(user));
    Obeyed::of::<RevokeTokens>(&Done {}, Effects::none())
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
}
