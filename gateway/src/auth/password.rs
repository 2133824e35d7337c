//! Passwords, stored as argon2 hashes.
//!
//! Each hash takes a processor and some 19 MiB for tens of milliseconds, so hashing runs on blocking threads, few at a
//! time.

use std::{sync::Arc, thread, time::Duration};

use argon2::{
    Argon2,
    password_hash::{PasswordHasher, PasswordVerifier, phc::PasswordHash},
};
use serde::Deserialize;
use tokio::{sync::Semaphore, task::spawn_blocking};

use crate::http::Problem;

/// The bounds on the length of a password, in characters.
const MIN_CHARS: usize = 8;
pub(crate) const MAX_CHARS: usize = 1024;
/// The limit of requests that wait for a hash; the gateway rejects the next one.
const MAX_WAITING: usize = 64;
/// The `Retry-After` when too many requests wait.
const RETRY_AFTER: Duration = Duration::from_secs(2);

/// A password in plain text. It is never printed.
#[derive(Clone, Deserialize, derive_more::Debug)]
#[serde(try_from = "String")]
#[debug("(a password)")]
pub(crate) struct Password(Arc<str>);

impl TryFrom<String> for Password {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let count = text.chars().count();
        if (MIN_CHARS..=MAX_CHARS).contains(&count) {
            Ok(Self(text.into()))
        } else {
            Err(format!(
                "a password has {MIN_CHARS} to {MAX_CHARS} characters, and this one has {count}"
            ))
        }
    }
}

/// Hashes and verifies passwords, few at a time.
#[derive(Debug, Clone)]
pub(crate) struct PasswordPool {
    turns: Arc<Semaphore>,
    places: Arc<Semaphore>,
    /// Permits that only logins from known networks take.
    kept_places: Arc<Semaphore>,
    /// The hash that is verified when no such user exists, so that both cases take the same time.
    decoy: Arc<str>,
}

impl PasswordPool {
    /// Creates the pool. It hashes one password, which takes as long as any other.
    ///
    /// # Errors
    /// The system gives no random numbers.
    pub(crate) fn new() -> Result<Self, String> {
        let cores = thread::available_parallelism().map_or(1, usize::from);
        Ok(Self {
            turns: Arc::new(Semaphore::new(cores)),
            places: Arc::new(Semaphore::new(cores + MAX_WAITING)),
            kept_places: Arc::new(Semaphore::new(cores + MAX_WAITING)),
            decoy: hash(&Password("there is no such user".into()))?.into(),
        })
    }

    /// Hashes a password for storage.
    ///
    /// # Errors
    /// Too many requests wait already.
    pub(crate) async fn hash(&self, password: Password) -> Result<String, Problem> {
        self.run_blocking_limited(&self.kept_places, move || hash(&password))
            .await?
            .map_err(|reason| {
                tracing::error!(reason, "a password could not be hashed");
                Problem::internal()
            })
    }

    /// Returns true if the password matches the hash. Without a hash it never matches.
    ///
    /// A login from a network that its user has used before waits for permits that other logins cannot take.
    ///
    /// # Errors
    /// Too many requests wait already.
    pub(crate) async fn verify(
        &self,
        password: Password,
        hash: Option<String>,
        is_known: bool,
    ) -> Result<bool, Problem> {
        let decoy = Arc::clone(&self.decoy);
        let places = match is_known {
            true => &self.kept_places,
            false => &self.places,
        };
        self.run_blocking_limited(places, move || {
            let is_right = matches_hash(&password, hash.as_deref().unwrap_or(&decoy));
            is_right && hash.is_some()
        })
        .await
    }

    async fn run_blocking_limited<T: Send + 'static>(
        &self,
        places: &Arc<Semaphore>,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Problem> {
        let busy =
            || Problem::unavailable("overloaded", "too many logins are in progress", RETRY_AFTER);
        let place = Arc::clone(places).try_acquire_owned().map_err(|_| busy())?;
        let turn = Arc::clone(&self.turns)
            .acquire_owned()
            .await
            .map_err(|_| busy())?;
        // The blocking task goes on if its caller is dropped, so it keeps the permit.
        let done = spawn_blocking(move || {
            let done = work();
            drop((turn, place));
            done
        });
        done.await.map_err(|_| Problem::internal())
    }
}

/// Hashes a password for storage. Blocks the thread meanwhile.
///
/// # Errors
/// The system gives no random numbers.
pub(crate) fn hash(password: &Password) -> Result<String, String> {
    Argon2::default()
        .hash_password(password.0.as_bytes())
        .map(|hash| hash.to_string())
        .map_err(|e| format!("the password cannot be hashed: {e}"))
}

fn matches_hash(password: &Password, hash: &str) -> bool {
    PasswordHash::new(hash).is_ok_and(|hash| {
        Argon2::default()
            .verify_password(password.0.as_bytes(), &hash)
            .is_ok()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn password(text: &str) -> Password {
        text.to_owned().try_into().unwrap()
    }

    #[tokio::test]
    async fn only_correct_password_verifies() {
        let passwords = PasswordPool::new().unwrap();
        let hash = passwords.hash(password("correct horse")).await.unwrap();
        assert!(hash.starts_with("$argon2id$"), "{hash}");
        let verify = async |typed: &str, hash: Option<&str>| {
            let hash = hash.map(str::to_owned);
            passwords.verify(password(typed), hash, true).await.unwrap()
        };
        assert!(verify("correct horse", Some(&hash)).await);
        assert!(!verify("correct house", Some(&hash)).await);
        assert!(!verify("there is no such user", None).await);
        assert!(!verify("correct horse", Some("no hash")).await);
    }

    #[tokio::test]
    async fn unknown_clients_take_no_slot_of_known() {
        let passwords = PasswordPool::new().unwrap();
        let all = u32::try_from(passwords.places.available_permits()).unwrap();
        let places = Arc::clone(&passwords.places);
        let _taken = places.try_acquire_many_owned(all).unwrap();
        let rejected = passwords.verify(password("some guess"), None, false).await;
        assert!(rejected.is_err());
        let known = passwords.verify(password("some guess"), None, true).await;
        assert_eq!(known, Ok(false));
    }

    #[test]
    fn password_is_never_printed_and_has_minimum_length() {
        assert_eq!(format!("{:?}", password("correct horse")), "(a password)");
        let said = Password::try_from("short".to_owned()).unwrap_err();
        assert!(!said.contains("short"), "{said}");
        // Eight bytes, and four characters.
        assert!(Password::try_from("\u{e4}".repeat(4)).is_err());
    }
}
