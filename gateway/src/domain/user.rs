//! Users, their passwords and their account status.

use doorstep_contracts::{AddressRemovalReason, AddressRemoved};
use doorstep_event::{Rejection, Timestamp};
use doorstep_runtime::{CommandOutcome, Effects, States};
use doorstep_store::EntityKey;

use super::{
    Command, Entity, Executed,
    entities::{User, UserEmail, UserName, UserStatus},
    rejected,
    requests::{Ack, AddUser, RevokeTokens, SetPassword, SetUserStatus},
};

impl Command for AddUser {
    fn keys(&self) -> Vec<EntityKey> {
        vec![self.name.entity()]
    }

    /// Adds a user whose name was never used.
    fn execute(&self, states: &mut States<Entity>, now: Timestamp) -> Executed {
        let Self { name, .. } = self;
        let key = name.entity();
        match states.get(&key).and_then(Entity::user) {
            None => {}
            Some(user) if user.status == UserStatus::Deleted => {
                return Err(rejected(
                    "name_retired",
                    format!(
                        "a user {name} was deleted, and the name stays with the orders of that user; choose another one"
                    ),
                ));
            }
            Some(_) => {
                return Err(rejected(
                    "user_exists",
                    format!("user {name} exists already"),
                ));
            }
        }
        let user = User {
            standing: self.standing.clone(),
            hash: self.hash.clone(),
            generation: 1,
            added_at: now,
            status: UserStatus::Active,
            email: UserEmail::default(),
        };
        states.put(&key, Entity::User(user));
        CommandOutcome::new::<Self>(&Ack {}, Effects::none())
    }
}

impl Command for RevokeTokens {
    fn keys(&self) -> Vec<EntityKey> {
        vec![self.name.entity()]
    }

    /// Raises the generation of the user's tokens.
    fn execute(&self, states: &mut States<Entity>, _now: Timestamp) -> Executed {
        let mut user = known(states, &self.name)?;
        user.generation += 1;
        states.put(&self.name.entity(), Entity::User(user));
        CommandOutcome::new::<Self>(&Ack {}, Effects::none())
    }
}

impl Command for SetUserStatus {
    fn keys(&self) -> Vec<EntityKey> {
        let other = self.other_operator.iter();
        [&self.name]
            .into_iter()
            .chain(other)
            .map(UserName::entity)
            .collect()
    }

    /// Enables, disables or deletes a user. Disabling and deleting end all sessions, and are rejected for the last
    /// operator. A repeated change has no effect.
    fn execute(&self, states: &mut States<Entity>, _now: Timestamp) -> Executed {
        let Self { name, status, .. } = self;
        let mut user = known(states, name)?;
        if user.status == *status {
            return CommandOutcome::new::<Self>(&Ack {}, Effects::none());
        }
        not_deleted(&user, name)?;
        if !status.is_active() {
            if user.is_active_operator() && !is_another_operator(states, self) {
                return Err(rejected(
                    "last_operator",
                    format!("{name} is the only operator who may log in; add another one first"),
                ));
            }
            user.generation += 1;
        }
        let mut effects = Effects::none();
        if *status == UserStatus::Deleted {
            user.hash = String::new();
            if user.email.remove_addresses() {
                let reason = AddressRemovalReason::UserDeleted;
                let subject = name.customer().user_subject();
                effects.publish(&subject, &AddressRemoved { reason })?;
            }
        }
        user.status = *status;
        states.put(&name.entity(), Entity::User(user));
        CommandOutcome::new::<Self>(&Ack {}, effects)
    }
}

/// Returns true if the operator named as the one who stays is another user and may log in. The same commit reads it, so
/// if two operators disable each other at once, one stays.
fn is_another_operator(states: &mut States<Entity>, asked: &SetUserStatus) -> bool {
    let other = asked.other_operator.as_ref();
    let Some(other) = other.filter(|other| **other != asked.name) else {
        return false;
    };
    let other = states.get(&other.entity()).and_then(Entity::user);
    other.is_some_and(User::is_active_operator)
}

impl Command for SetPassword {
    fn keys(&self) -> Vec<EntityKey> {
        vec![self.name.entity()]
    }

    /// Sets a new password and ends all sessions.
    fn execute(&self, states: &mut States<Entity>, _now: Timestamp) -> Executed {
        let Self { name, .. } = self;
        let mut user = known(states, name)?;
        not_deleted(&user, name)?;
        if self.replaces.as_ref().is_some_and(|old| *old != user.hash) {
            return Err(rejected(
                "password_changed",
                "the password was changed at the same moment",
            ));
        }
        user.hash = self.hash.clone();
        user.generation += 1;
        states.put(&name.entity(), Entity::User(user));
        CommandOutcome::new::<Self>(&Ack {}, Effects::none())
    }
}

pub(super) fn known(states: &mut States<Entity>, name: &UserName) -> Result<User, Rejection> {
    let user = states.get(&name.entity()).and_then(Entity::user).cloned();
    user.ok_or_else(|| rejected("unknown_user", format!("user {name} does not exist")))
}

pub(super) fn not_deleted(user: &User, name: &UserName) -> Result<(), Rejection> {
    if user.status == UserStatus::Deleted {
        return Err(rejected("user_deleted", format!("{name} was deleted")));
    }
    Ok(())
}
