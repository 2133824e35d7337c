//! Users as they are now, remembered for a moment: a session that another process has ended is good for that much longer.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use super::{
    books::Books,
    http::Problem,
    role::{Entry, User, UserName},
};

/// For how long a user is remembered.
const REMEMBERED: Duration = Duration::from_secs(5);
/// The most users that are remembered. Beyond it all are forgotten, and read again.
const MOST: usize = 10_000;

/// Users who were asked about.
#[derive(Debug, Default)]
pub(crate) struct Users {
    known: Mutex<HashMap<UserName, (Instant, User)>>,
}

impl Users {
    /// The user of that name, `None` if there is none.
    ///
    /// # Errors
    /// The store cannot be read.
    pub(crate) async fn current(
        &self,
        books: &Books,
        name: &UserName,
    ) -> Result<Option<User>, Problem> {
        let now = Instant::now();
        if let Some(user) = self.remembered(name, now) {
            return Ok(Some(user));
        }
        let entry = books.entry(name.entity()).await?;
        let user = entry.as_ref().and_then(Entry::user).cloned();
        if let Some(user) = &user {
            let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
            if known.len() >= MOST {
                known.clear();
            }
            known.insert(name.clone(), (now, user.clone()));
        }
        Ok(user)
    }

    /// Forgets a user who was changed.
    pub(crate) fn forget(&self, name: &UserName) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.remove(name);
    }

    fn remembered(&self, name: &UserName, now: Instant) -> Option<User> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let (since, user) = known.get(name)?;
        let age = now.saturating_duration_since(*since);
        (age < REMEMBERED).then(|| user.clone())
    }
}
