//! The gateway's books: its role's store, read and written in this process, whether the broker is there or not.

use std::time::Duration;

use doorstep_event::{Refused, Request, RequestContract, RequestId, Timestamp};
use doorstep_runtime::{Role, States};
use doorstep_store::{
    Ask, Changes, Commit, EntityChange, EntityKey, Expect, SqliteStore, Store, StoreError,
};
use uuid::Uuid;

use super::{
    http::Problem,
    role::{Entry, Gateway},
};

/// How long a command may take before nobody waits for it any more.
const PATIENCE: Duration = Duration::from_secs(10);
/// When to come again where the store is away.
const COME_AGAIN: Duration = Duration::from_secs(2);
/// How often somebody else may have been faster.
const TRIES: u32 = 10;

/// A handle on the books. Clones share them.
#[derive(Clone)]
pub(crate) struct Books {
    store: SqliteStore,
}

/// Why the books were not changed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BooksError {
    /// The role refuses.
    #[error(transparent)]
    Refused(#[from] Refused),
    /// The store cannot be used now. A change may have been written all the same.
    #[error("{0}")]
    Away(String),
}

impl Books {
    /// The books in this store.
    pub(crate) fn new(store: SqliteStore) -> Self {
        Self { store }
    }

    /// The state of an entity, `None` if there is none.
    ///
    /// # Errors
    /// The store cannot be read.
    pub(crate) async fn entry(&self, key: EntityKey) -> Result<Option<Entry>, BooksError> {
        Ok(self.entries(vec![key]).await?.pop().flatten())
    }

    /// The states of these entities, in their order.
    ///
    /// # Errors
    /// The store cannot be read.
    pub(crate) async fn entries(
        &self,
        keys: Vec<EntityKey>,
    ) -> Result<Vec<Option<Entry>>, BooksError> {
        let ask = Ask {
            entities: keys,
            ..Ask::default()
        };
        let loaded = self.store.load(ask).await?;
        let read = |bytes: bytes::Bytes| {
            serde_json::from_slice(&bytes).map_err(|e| BooksError::Away(e.to_string()))
        };
        let states = loaded.entities.into_iter().map(|row| row.state);
        states.map(|state| state.map(read).transpose()).collect()
    }

    /// Obeys a command; durable once this returns.
    ///
    /// # Errors
    /// The role refuses, or the store is away: then it may have been obeyed all the same.
    pub(crate) async fn obey<C: RequestContract>(&self, asked: &C) -> Result<C::Reply, BooksError> {
        let id = RequestId::new(Uuid::now_v7().simple().to_string()).map_err(Refused::from)?;
        self.obey_as(id, asked).await
    }

    /// Obeys a command under that id: the same again is answered as before and changes nothing.
    ///
    /// # Errors
    /// See [`Books::obey`].
    pub(crate) async fn obey_as<C: RequestContract>(
        &self,
        id: RequestId,
        asked: &C,
    ) -> Result<C::Reply, BooksError> {
        let now = Timestamp::now();
        let deadline = now.checked_add(PATIENCE).unwrap_or(Timestamp::MAX);
        let request =
            Request::of(self.store.source(), id, now, deadline, asked).map_err(Refused::from)?;
        let reply = self.commit(&request).await?;
        serde_json::from_slice(&reply).map_err(|e| BooksError::Away(e.to_string()))
    }

    async fn commit(&self, request: &Request) -> Result<Vec<u8>, BooksError> {
        let command = Gateway.read_command(request).map_err(Refused::from)?;
        let keys = Gateway.command_keys(request, &command);
        for _ in 0..TRIES {
            let ask = Ask {
                entities: keys.clone(),
                ..Ask::default()
            };
            let loaded = self.store.load(ask).await?;
            let mut states = Vec::new();
            for row in &loaded.entities {
                let state = row
                    .state
                    .as_ref()
                    .map(|bytes| serde_json::from_slice(bytes));
                let state = state
                    .transpose()
                    .map_err(|e| BooksError::Away(e.to_string()))?;
                states.push((row.key.clone(), state));
            }
            let mut states = States::new(states);
            let now = Timestamp::now();
            let obeyed = Gateway.obey(&mut states, request, &command, now)?;
            let mut changes = Changes::at(now);
            for row in loaded.entities {
                let after = states.get(&row.key).map(serde_json::to_vec).transpose();
                changes.entities.push(EntityChange {
                    expect: Expect {
                        row: row.row,
                        version: row.version,
                    },
                    key: row.key,
                    after: after.map_err(|e| BooksError::Away(e.to_string()))?,
                });
            }
            if let Commit::Written(_) = self.store.commit(changes).await? {
                return Ok(obeyed.reply);
            }
        }
        Err(BooksError::Away("others are always faster".to_owned()))
    }
}

impl From<StoreError> for BooksError {
    fn from(error: StoreError) -> Self {
        Self::Away(error.to_string())
    }
}

impl From<BooksError> for Problem {
    fn from(error: BooksError) -> Self {
        match error {
            BooksError::Refused(refused) => super::refusals::problem(refused),
            BooksError::Away(reason) => {
                tracing::warn!(reason, "the gateway's store cannot be used");
                Self::unavailable(
                    "store_away",
                    "the gateway cannot keep anything now",
                    COME_AGAIN,
                )
            }
        }
    }
}
