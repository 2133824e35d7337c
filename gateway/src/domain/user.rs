//! Users, their passwords and their account status.

use doorstep_event::{Rejection, Timestamp};
use doorstep_runtime::{CommandOutcome, Effects, States};
use doorstep_store::EntityKey;

use super::{
    Entity,
    entities::{User, UserName, UserStatus},
    rejected,
    requests::{Ack, AddUser, RevokeTokens, SetPassword, SetUserStatus},
};

/// Adds a user whose name was never used.
pub(super) fn add(
    states: &mut States<Entity>,
    asked: &AddUser,
    now: Timestamp,
) -> Result<CommandOutcome, Rejection> {
    let AddUser { name, .. } = asked;
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
        standing: asked.standing.clone(),
        hash: asked.hash.clone(),
        generation: 1,
        added_at: now,
        status: UserStatus::Active,
    };
    states.put(&key, Entity::User(user));
    CommandOutcome::new::<AddUser>(&Ack {}, Effects::none())
}

/// Raises the generation of the user's tokens.
pub(super) fn revoke(
    states: &mut States<Entity>,
    asked: &RevokeTokens,
) -> Result<CommandOutcome, Rejection> {
    let mut user = known(states, &asked.name)?;
    user.generation += 1;
    states.put(&asked.name.entity(), Entity::User(user));
    CommandOutcome::new::<RevokeTokens>(&Ack {}, Effects::none())
}

pub(super) fn status_keys(asked: &SetUserStatus) -> Vec<EntityKey> {
    let other = asked.other_operator.iter();
    [&asked.name]
        .into_iter()
        .chain(other)
        .map(UserName::entity)
        .collect()
}

/// Enables, disables or deletes a user. Disabling and deleting end all sessions, and are rejected for the last
/// operator. A repeated change has no effect.
pub(super) fn set_status(
    states: &mut States<Entity>,
    asked: &SetUserStatus,
) -> Result<CommandOutcome, Rejection> {
    let SetUserStatus { name, status, .. } = asked;
    let mut user = known(states, name)?;
    if user.status == *status {
        return CommandOutcome::new::<SetUserStatus>(&Ack {}, Effects::none());
    }
    not_deleted(&user, name)?;
    if !status.is_active() {
        if user.is_active_operator() && !is_another_operator(states, asked) {
            return Err(rejected(
                "last_operator",
                format!("{name} is the only operator who may log in; add another one first"),
            ));
        }
        user.generation += 1;
    }
    if *status == UserStatus::Deleted {
        user.hash = String::new();
    }
    user.status = *status;
    states.put(&name.entity(), Entity::User(user));
    CommandOutcome::new::<SetUserStatus>(&Ack {}, Effects::none())
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

/// Sets a new password and ends all sessions.
pub(super) fn set_password(
    states: &mut States<Entity>,
    asked: &SetPassword,
) -> Result<CommandOutcome, Rejection> {
    let SetPassword { name, .. } = asked;
    let mut user = known(states, name)?;
    not_deleted(&user, name)?;
    if asked.replaces.as_ref().is_some_and(|old| *old != user.hash) {
        return Err(rejected(
            "password_changed",
            "the password was changed at the same moment",
        ));
    }
    user.hash = asked.hash.clone();
    user.generation += 1;
    states.put(&name.entity(), Entity::User(user));
    CommandOutcome::new::<SetPassword>(&Ack {}, Effects::none())
}

fn known(states: &mut States<Entity>, name: &UserName) -> Result<User, Rejection> {
    let user = states.get(&name.entity()).and_then(Entity::user).cloned();
    user.ok_or_else(|| rejected("unknown_user", format!("user {name} does not exist")))
}

fn not_deleted(user: &User, name: &UserName) -> Result<(), Rejection> {
    if user.status == UserStatus::Deleted {
        return Err(rejected("user_deleted", format!("{name} was deleted")));
    }
    Ok(())
}
