//! Whose queues a role consumes from: what a record at the broker means for the store that the role runs on.

use doorstep_event::{Epoch, Timestamp};
use doorstep_messaging::{
    Namespace, OwnerClaim, OwnerDecision, OwnerPolicy, OwnerRecord, PresentOwner,
};
use doorstep_store::{RestoredChange, Result, Store, StoreError, WriteSet};
use futures_util::future::{BoxFuture, FutureExt};

/// The number of the store's earlier starts that are compared with a record whose end is cut off.
const MAX_EARLIER: usize = 50;

/// Claims the queues of a role for a store in whose latest epoch, begun by this start, it runs.
pub(super) async fn claim<S: Store>(
    store: &S,
    role: &'static str,
    namespace: &Namespace,
    epoch: Epoch,
    is_required: bool,
) -> Result<OwnerClaim> {
    let own = store.epochs().await?;
    let began = own.0.iter().find(|own| own.epoch == epoch);
    let record = OwnerRecord {
        store: store.source().clone(),
        epoch,
        since: began.map_or_else(Timestamp::now, |own| own.since),
    };
    let policy = StorePolicy {
        store: store.clone(),
        role,
        queue: namespace.role_queue(role, 0).to_string(),
        epoch,
    };
    Ok(OwnerClaim::new(role, record, is_required, policy))
}

struct StorePolicy<S> {
    store: S,
    role: &'static str,
    queue: String,
    epoch: Epoch,
}

impl<S: Store> OwnerPolicy for StorePolicy<S> {
    fn decide(&self, present: PresentOwner, is_consumed: bool) -> BoxFuture<'_, OwnerDecision> {
        async move {
            let unknown = |error: StoreError| OwnerDecision::Unknown(error.to_string());
            let own = match self.store.epochs().await {
                Ok(own) => own,
                Err(error) => return unknown(error),
            };
            // A store that was given a new source since is still the one that has begun the epoch.
            let began = |epoch| own.0.iter().any(|own| own.epoch == epoch);
            if present.store.as_ref() != Some(self.store.source())
                && !present.epoch.is_some_and(began)
            {
                return OwnerDecision::Reject(self.belongs_to_another(&present));
            }
            match present.epoch {
                Some(epoch) if own.knows(epoch) => self.decide_between(&present, epoch),
                // The record is of a start that this copy of the store has not had.
                _ if is_consumed => OwnerDecision::Reject(self.is_run_elsewhere(&present)),
                _ => match self.mark_as_restored(&present).await {
                    Ok(()) => OwnerDecision::Replace,
                    Err(error) => unknown(error),
                },
            }
        }
        .boxed()
    }

    fn earlier(&self) -> BoxFuture<'_, Vec<OwnerRecord>> {
        async move {
            let own = self.store.epochs().await.unwrap_or_default();
            let own = own.0.into_iter().take(MAX_EARLIER);
            own.map(|own| OwnerRecord {
                store: self.store.source().clone(),
                epoch: own.epoch,
                since: own.since,
            })
            .collect()
        }
        .boxed()
    }
}

impl<S: Store> StorePolicy<S> {
    /// Several processes may share a store: the latest start stands in the record, so that a backup of the store that was made before it
    /// is told from the store.
    fn decide_between(&self, present: &PresentOwner, recorded: Epoch) -> OwnerDecision {
        let is_named = present.store.as_ref() == Some(self.store.source());
        if is_named && recorded.counter() >= self.epoch.counter() {
            OwnerDecision::Keep
        } else {
            OwnerDecision::Replace
        }
    }

    async fn mark_as_restored(&self, present: &PresentOwner) -> Result<()> {
        let detail = format!(
            "queue {} belongs {present}: that start is not one of this copy's, so events acknowledged since the copy was made may be missing in it",
            self.queue
        );
        let changes = WriteSet {
            restored: Some(RestoredChange::Mark(detail)),
            ..WriteSet::at(Timestamp::now())
        };
        // The changes depend on no row that was read, so there can be no conflict.
        self.store.commit(changes).await.map(drop)
    }

    fn belongs_to_another(&self, present: &PresentOwner) -> String {
        let Self { role, queue, .. } = self;
        format!(
            "queue {queue} belongs {present}, not to {}, which consumes nothing from it: start {role} where its store is, \
             perhaps in another folder or once its files are put back, or give the queue to this store for good with consumers store \
             take-over {role}",
            self.store.source(),
        )
    }

    fn is_run_elsewhere(&self, present: &PresentOwner) -> String {
        let Self { role, queue, .. } = self;
        format!(
            "queue {queue} belongs {present}, and a process with another copy of that store consumes from it, so this copy does not: stop that \
             process if this copy is to go on, and start {role} again; if it has just crashed, wait until the broker has noticed, a minute \
             at most"
        )
    }
}
