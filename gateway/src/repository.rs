//! The gateway's books: its role's store, read and written in this process, whether the broker is there or not.

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
    domain::{Entity, GatewayRole, User, UserName},
    error_mapping,
    http::Problem,
};

/// How long a command may take before nobody waits for it any more.
const TIMEOUT: Duration = Duration::from_secs(10);
/// The number of users to look through at a time.
const PAGE: usize = 500;
/// When to come again where the store is away.
const COME_AGAIN: Duration = Duration::from_secs(2);

/// A handle on the books. Clones share them.
#[derive(Clone)]
pub(crate) struct GatewayStore {
    store: SqliteStore,
    hand: Writer,
}

/// Who writes.
#[derive(Clone)]
enum Writer {
    /// The role as it runs, many commands in one commit; it publishes what they bring about.
    Role(LocalClient),
    /// The role's engine alone, for commands that bring nothing about.
    Engine(Arc<Mutex<Engine<GatewayRole, SqliteStore>>>),
}

/// Why the books were not changed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum GatewayStoreError {
    /// The role refuses.
    #[error(transparent)]
    Refused(#[from] Rejection),
    /// There is too much to do. Nothing was begun, unless the same was asked before under the same id: of that it says nothing.
    #[error("too much is to be written at once")]
    Overloaded {
        /// When it is worth trying again.
        retry_after: Duration,
    },
    /// The store cannot be used now. A change may have been written all the same.
    #[error("{0}")]
    Unavailable(String),
}

impl GatewayStoreError {
    /// Whether the same may be obeyed a moment later.
    pub(crate) fn is_transient(&self) -> bool {
        match self {
            Self::Refused(_) => false,
            Self::Overloaded { .. } | Self::Unavailable(_) => true,
        }
    }
}

impl GatewayStore {
    /// The books of a role that runs on this store.
    pub(crate) fn running(store: SqliteStore, desk: LocalClient) -> Self {
        Self {
            store,
            hand: Writer::Role(desk),
        }
    }

    /// The books in this store, for a program that only changes users.
    pub(crate) fn alone(store: SqliteStore) -> Self {
        let engine = Engine::new(GatewayRole, store.clone(), Limits::default());
        Self {
            store,
            hand: Writer::Engine(Arc::new(Mutex::new(engine))),
        }
    }

    /// The state of an entity, `None` if there is none.
    ///
    /// # Errors
    /// The store cannot be read.
    pub(crate) async fn get(&self, key: EntityKey) -> Result<Option<Entity>, GatewayStoreError> {
        Ok(self.entries(vec![key]).await?.pop().flatten())
    }

    /// The states of these entities, in their order, in one consistent read.
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

    /// A page of users by name, after that one, with as many entries as were asked for unless it is the last one.
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

    /// An operator who may log in, beside the one of that name.
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

    /// Obeys a command; durable once this returns.
    ///
    /// # Errors
    /// The role refuses, or the store is away: then it may have been obeyed all the same.
    pub(crate) async fn execute<C: RequestContract>(
        &self,
        asked: &C,
    ) -> Result<C::Reply, GatewayStoreError> {
        let id = RequestId::new(Uuid::now_v7().simple().to_string()).map_err(Rejection::from)?;
        self.ask(id, Timestamp::now(), Idempotency::OneShot, asked)
            .await
    }

    /// Obeys a command under that id: the same again is answered as before and changes nothing. Replies are not kept for ever, so `time` must
    /// be the same however often it comes, and no later than it came first: what is too old to tell is refused.
    ///
    /// # Errors
    /// See [`StoreReader::execute`].
    pub(crate) async fn execute_idempotent<C: RequestContract>(
        &self,
        id: RequestId,
        time: Timestamp,
        asked: &C,
    ) -> Result<C::Reply, GatewayStoreError> {
        self.ask(id, time, Idempotency::Retryable, asked).await
    }

    async fn ask<C: RequestContract>(
        &self,
        id: RequestId,
        time: Timestamp,
        repeats: Idempotency,
        asked: &C,
    ) -> Result<C::Reply, GatewayStoreError> {
        let deadline = Timestamp::now()
            .checked_add(TIMEOUT)
            .unwrap_or(Timestamp::MAX);
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

/// [`StoreReader::users`] of a store.
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
        // Users stand together, and other entities behind them.
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
        Some((_, CommandResult::Expired)) | None => Err(LocalCallError::TimedOut.into()),
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
            GatewayStoreError::Refused(refused) => error_mapping::problem(refused),
            GatewayStoreError::Overloaded { retry_after } => Self::unavailable(
                "overloaded",
                "too much is to be written at once",
                retry_after,
            ),
            GatewayStoreError::Unavailable(reason) => {
                tracing::warn!(reason, "the gateway's store cannot be used");
                let detail = "the gateway cannot keep anything now";
                Self::unavailable("store_away", detail, COME_AGAIN)
            }
        }
    }
}
