//! Queries: served from a snapshot of the states, concurrently with writers.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
};

use doorstep_event::{Request, RequestResult, Timestamp};
use doorstep_store::{EntityRow, Result, Store};

use super::{Engine, HandlerLock, command::panicked, working_set::state_of};
use crate::{Role, States, TaskView};

/// Serves a role's queries. Clones are cheap and may serve concurrently.
pub struct Queries<R: Role, S: Store> {
    role: Arc<R>,
    store: S,
    process: HandlerLock,
}

impl<R: Role, S: Store> Clone for Queries<R, S> {
    fn clone(&self) -> Self {
        Self {
            role: Arc::clone(&self.role),
            store: self.store.clone(),
            process: self.process.clone(),
        }
    }
}

impl<R: Role, S: Store> Engine<R, S> {
    /// Returns a server of the role's queries, usable while the engine works.
    pub fn queries(&self) -> Queries<R, S> {
        Queries {
            role: Arc::clone(&self.role),
            store: self.store.clone(),
            process: self.process.clone(),
        }
    }
}

impl<R: Role, S: Store> Queries<R, S> {
    /// Serves a query from one snapshot of the states, which includes every commit that returned before the call. A
    /// panic is a rejection.
    ///
    /// May be cancelled: nothing is written.
    ///
    /// # Errors
    /// The store could not be used.
    pub async fn answer(&self, request: &Request, now: Timestamp) -> Result<RequestResult> {
        let read = {
            let _together = self.process.shared().await;
            catch_unwind(AssertUnwindSafe(|| {
                let query = self.role.read_query(request)?;
                let keys = self.role.query_keys(request, &query);
                let tasks = self.role.query_tasks(request, &query);
                Ok((query, keys, tasks))
            }))
        };
        let (query, keys, tasks) = match read.unwrap_or_else(|panic| Err(panicked(panic.as_ref())))
        {
            Ok(read) => read,
            Err(rejected) => return Ok(Err(rejected)),
        };
        // Tasks first: an end that is missed here is in the entities.
        let tasks = if tasks.is_empty() {
            Vec::new()
        } else {
            self.store.read_tasks(tasks).await?
        };
        let rows = self.store.read_entities(keys).await?;
        let entries = rows
            .into_iter()
            .map(|row: EntityRow| Ok((row.key.clone(), state_of(&row)?)))
            .collect::<Result<_>>()?;
        let tasks = tasks.into_iter().flatten().map(TaskView::from).collect();
        let states = States::new(entries).with_tasks(tasks);
        let _together = self.process.shared().await;
        let answer = catch_unwind(AssertUnwindSafe(|| {
            self.role.query(&states, request, &query, now)
        }));
        let answer = answer.unwrap_or_else(|panic| Err(panicked(panic.as_ref())));
        Ok(answer.map(Into::into))
    }
}
