//! A short cache of user records. A session that another process has ended stays valid for that long.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use crate::{
    domain::{Entity, User, UserName},
    http::Problem,
    repository::GatewayStore,
};

/// The time for which a record stays in the cache.
const REMEMBERED: Duration = Duration::from_secs(5);
/// The limit of records. Beyond it the cache is cleared, and they are read again.
const MAX_USERS: usize = 10_000;

#[derive(Debug, Default)]
pub(crate) struct UserCache {
    known: Mutex<Known>,
}

#[derive(Debug, Default)]
struct Known {
    users: HashMap<UserName, (Instant, User)>,
    /// The number of changes of users. A record that was read before a change is not cached after it.
    changes: u64,
}

impl UserCache {
    /// Returns the user of that name, `None` if there is none.
    ///
    /// # Errors
    /// The store cannot be read.
    pub(crate) async fn get(
        &self,
        store: &GatewayStore,
        name: &UserName,
    ) -> Result<Option<User>, Problem> {
        let now = Instant::now();
        let changes = match self.remembered(name, now) {
            Ok(user) => return Ok(Some(user)),
            Err(changes) => changes,
        };
        let user = Self::as_kept(store, name).await?;
        if let Some(user) = &user {
            let mut known = self.lock();
            if known.changes == changes {
                if known.users.len() >= MAX_USERS {
                    known.users.clear();
                }
                known.users.insert(name.clone(), (now, user.clone()));
            }
        }
        Ok(user)
    }

    /// Returns the user of that name from the store and not from the cache, `None` if there is none.
    ///
    /// # Errors
    /// The store cannot be read.
    pub(crate) async fn as_kept(
        store: &GatewayStore,
        name: &UserName,
    ) -> Result<Option<User>, Problem> {
        let entry = store.get(name.entity()).await?;
        Ok(entry.as_ref().and_then(Entity::user).cloned())
    }

    /// Forgets a user after a change.
    pub(crate) fn forget(&self, name: &UserName) {
        let mut known = self.lock();
        known.changes += 1;
        known.users.remove(name);
    }

    /// Returns the cached user, or else the number of changes so far.
    fn remembered(&self, name: &UserName, now: Instant) -> Result<User, u64> {
        let known = self.lock();
        match known.users.get(name) {
            Some((since, user)) if now.saturating_duration_since(*since) < REMEMBERED => {
                Ok(user.clone())
            }
            _ => Err(known.changes),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
