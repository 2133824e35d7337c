//! The gateway's store: read and written in this process, whether the broker is available or not.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use doorstep_event::{Idempotency, Rejection, Request, RequestContract, RequestId, Timestamp};
use doorstep_runtime::{
    CommandResult, DeliveryHistory, Engine, Limits,
    runner::{LocalCallError, LocalClient},
};
use doorstep_store::{EntityKey, ReadSet, SqliteStore, Store, StoreError};
use tokio::sync::Mutex;
use uuid::Uuid;

use crate::{
    backends::after,
    domain::{Entity, GatewayRole, User, UserName},
    error_mapping,
    http::Problem,
};

/// The timeout of a command.
const TIMEOUT: Duration = Duration::from_secs(10);
/// The number of users that one read returns.
const PAGE: usize = 500;
/// The `Retry-After` when the store is unavailable.
const RETRY_AFTER: Duration = Duration::from_secs(2);

/// A handle on the store. Clones share it.
#[derive(Clone)]
pub(crate) struct GatewayStore {
    store: SqliteStore,
    hand: Writer,
}

/// The writer of the store.
#[derive(Clone)]
enum Writer {
    /// The running role, which batches many commands in one commit and publishes their events.
    Role(LocalClient),
    /// The role's engine alone, for commands without events.
    Engine(Arc<Mutex<Engine<GatewayRole, SqliteStore>>>),
}

/// The reason why a command was not executed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum GatewayStoreError {
    /// The role rejects the command.
    #[error(transparent)]
    Refused(#[from] Rejection),
    /// The role is overloaded. It did not begin the command; an earlier command under the same id may have been
    /// executed.
    #[error("too many writes are pending")]
    Overloaded {
        /// The time after which a retry makes sense.
        retry_after: Duration,
    },
    /// The store is unavailable. A change may have been written all the same.
    #[error("{0}")]
    Unavailable(String),
}

impl GatewayStoreError {
    /// Returns true if a retry a moment later may succeed.
    pub(crate) fn is_transient(&self) -> bool {
        match self {
            Self::Refused(_) => false,
            Self::Overloaded { .. } | Self::Unavailable(_) => true,
        }
    }
}

impl GatewayStore {
    /// Creates a handle on the store of a running role.
    pub(crate) fn running(store: SqliteStore, desk: LocalClient) -> Self {
        Self {
            store,
            hand: Writer::Role(desk),
        }
    }

    /// Creates a handle for a program that only changes users.
    pub(crate) fn alone(store: SqliteStore) -> Self {
        let engine = Engine::new(GatewayRole, store.clone(), Limits::default());
        Self {
            store,
            hand: Writer::Engine(Arc::new(Mutex::new(engine))),
        }
    }

    /// Returns the state of an entity, `None` if there is none.
    ///
    /// # Errors
    /// The store cannot be read.
    pub(crate) async fn get(&self, key: EntityKey) -> Result<Option<Entity>, GatewayStoreError> {
        Ok(self.entries(vec![key]).await?.pop().flatten())
    }

    /// Returns the states of these entities, in their order, in one consistent read.
    ///
    /// # Errors
    /// The store cannot be read.
    pub(crate) async fn entries(
        &self,
        keys: Vec<EntityKey>,
    ) -> Result<Vec<Option<Entity>>, GatewayStoreError> {
        let ask = ReadSet {
            entities: keys,
            ..ReadSet::default()
        };
        let loaded = self.store.load(ask).await?;
        let states = loaded.entities.into_iter().map(|row| row.state);
        states.map(|state| state.map(read).transpose()).collect()
    }

    /// Returns a page of users by name, after that name. Only the last page has fewer users than `limit`.
    ///
    /// # Errors
    /// The store cannot be read.
    pub(crate) async fn users(
        &self,
        after: Option<&UserName>,
        limit: usize,
    ) -> Result<Vec<(UserName, User)>, GatewayStoreError> {
        users(&self.store, after, limit).await
    }

    /// Returns an operator who may log in, other than the one of that name.
    ///
    /// # Errors
    /// The store cannot be read.
    pub(crate) async fn other_operator(
        &self,
        name: &UserName,
    ) -> Result<Option<UserName>, GatewayStoreError> {
        let mut after = None;
        loop {
            let page = self.users(after.as_ref(), PAGE).await?;
            let is_last = page.len() < PAGE;
            after = page.last().map(|(name, _)| name.clone());
            let mut others = page.into_iter();
            let other = others.find(|(other, user)| other != name && user.is_active_operator());
            if other.is_some() || is_last {
                return Ok(other.map(|(other, _)| other));
            }
        }
    }

    /// Executes a command, which is durable once this returns.
    ///
    /// # Errors
    /// The role rejects it, or the store is unavailable; in the latter case it may have been executed all the same.
    pub(crate) async fn execute<C: RequestContract>(
        &self,
        asked: &C,
    ) -> Result<C::Reply, GatewayStoreError> {
        let id = RequestId::new(Uuid::now_v7().simple().to_string()).map_err(Rejection::from)?;
        self.call(id, Timestamp::now(), Idempotency::OneShot, asked)
            .await
    }

    /// Executes a command under this id: a repeated one gets the first reply and changes nothing.
    ///
    /// Replies expire, so every repetition must have the same `time`, which is not after the first attempt. The role
    /// rejects a command that is too old to tell.
    ///
    /// # Errors
    /// See [`StoreReader::execute`].
    pub(crate) async fn execute_idempotent<C: RequestContract>(
        &self,
        id: RequestId,
        time: Timestamp,
        asked: &C,
    ) -> Result<C::Reply, GatewayStoreError> {
        self.call(id, time, Idempotency::Retryable, asked).await
    }

    async fn call<C: RequestContract>(
        &self,
        id: RequestId,
        time: Timestamp,
        repeats: Idempotency,
        asked: &C,
    ) -> Result<C::Reply, GatewayStoreError> {
        let deadline = after(TIMEOUT);
        let request = Request {
            idempotency: repeats,
            ..Request::from_contract(self.store.source(), id, time, deadline, asked)
                .map_err(Rejection::from)?
        };
        let reply = match &self.hand {
            Writer::Role(desk) => desk.execute(request).await??,
            Writer::Engine(engine) => {
                execute_with_engine(&mut *engine.lock().await, request).await?
            }
        };
        read(reply)
    }
}

/// The same as [`StoreReader::users`], for a given store.
///
/// # Errors
/// The store cannot be read.
pub(crate) async fn users(
    store: &SqliteStore,
    after: Option<&UserName>,
    limit: usize,
) -> Result<Vec<(UserName, User)>, GatewayStoreError> {
    let after = after.map_or_else(UserName::before_all, UserName::entity);
    let rows = store.entities(Some(after), limit).await?;
    let mut users = Vec::with_capacity(rows.len());
    for row in rows {
        // Users are adjacent, and other entities come after them.
        let Some(name) = UserName::of_entity(&row.key) else {
            break;
        };
        let state = row.state.map(read::<Entity>).transpose()?;
        if let Some(Entity::User(user)) = state {
            users.push((name, user));
        }
    }
    Ok(users)
}

async fn execute_with_engine(
    engine: &mut Engine<GatewayRole, SqliteStore>,
    request: Request,
) -> Result<Bytes, GatewayStoreError> {
    let mut commands = engine.read_commands([(request, DeliveryHistory::First)]);
    while !commands.is_done() {
        engine.execute(&mut commands, Timestamp::now(), 0.0).await?;
    }
    match commands.take_decided().pop() {
        Some((_, CommandResult::Answer(answer))) => Ok(answer?),
        Some((_, CommandResult::Expired | CommandResult::Ended | CommandResult::LeaseLost))
        | None => Err(LocalCallError::TimedOut.into()),
    }
}

fn read<T: serde::de::DeserializeOwned>(bytes: Bytes) -> Result<T, GatewayStoreError> {
    serde_json::from_slice(&bytes).map_err(|e| GatewayStoreError::Unavailable(e.to_string()))
}

impl From<StoreError> for GatewayStoreError {
    fn from(error: StoreError) -> Self {
        Self::Unavailable(error.to_string())
    }
}

impl From<LocalCallError> for GatewayStoreError {
    fn from(error: LocalCallError) -> Self {
        match error {
            LocalCallError::Overloaded { retry_after } => Self::Overloaded { retry_after },
            error => Self::Unavailable(error.to_string()),
        }
    }
}

impl From<GatewayStoreError> for Problem {
    fn from(error: GatewayStoreError) -> Self {
        match error {
            GatewayStoreError::Refused(rejected) => error_mapping::problem(rejected),
            GatewayStoreError::Overloaded { retry_after } => {
                Self::unavailable("overloaded", "too many writes are pending", retry_after)
            }
            GatewayStoreError::Unavailable(reason) => {
                tracing::warn!(reason, "the gateway's store cannot be used");
                let detail = "the gateway can store nothing now";
                Self::unavailable("store_unavailable", detail, RETRY_AFTER)
            }
        }
    }
}
