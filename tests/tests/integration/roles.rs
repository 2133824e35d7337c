//! Roles for tests besides the ledger, and reads of stores.

use doorstep_event::{Contract, ContractError, Event, Timestamp};
use doorstep_messaging::RoleQueues;
use doorstep_runtime::{Effects, HandlerError, Reading, Role, States, Unsupported};
use doorstep_store::{DeadLetter, DeadLetterFilter, EntityKey, Store, Summary};
use doorstep_tests::{
    ledger::{self, Notice},
    wait_for,
};
use serde::{Deserialize, Serialize};

use crate::SOON;

/// Consumes the ledger's events, and records them.
pub(crate) struct Listener;

pub(crate) const LISTENER: RoleQueues = RoleQueues {
    role: "listener",
    subjects: &["told"],
    handles_requests: false,
};

/// The events received about one subject, in order.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Heard(pub(crate) Vec<String>);

impl Role for Listener {
    type Payload = Notice;
    type Command = Unsupported;
    type Query = Unsupported;
    type State = Heard;

    fn name(&self) -> &'static str {
        LISTENER.role
    }

    fn read(&self, event: &Event) -> Result<Reading<Notice>, ContractError> {
        Notice::read(event).map(Reading::Handled)
    }

    fn keys(&self, event: &Event, _fact: &Notice) -> Vec<EntityKey> {
        vec![EntityKey::from(&event.subject)]
    }

    fn handle(
        &self,
        states: &mut States<Heard>,
        _event: &Event,
        fact: &Notice,
        _now: Timestamp,
    ) -> Result<Effects, HandlerError> {
        states.first_or_default().0.push(fact.of.clone());
        Ok(Effects::none())
    }
}

/// Waits until exactly these entries, in this order, were applied to an account.
#[track_caller]
pub(crate) fn entries_are<S: Store>(
    store: &S,
    account: &str,
    wanted: &[&str],
) -> impl Future<Output = ()> {
    wait_for(
        format!("{account} has the entries {wanted:?}"),
        SOON,
        async move || {
            let entries = ledger::entries(store, account).await;
            if entries == wanted {
                Ok(())
            } else {
                Err(entries)
            }
        },
    )
}

/// Waits until there are this many dead letters, and returns them.
#[track_caller]
pub(crate) fn dead_letters<S: Store>(
    store: &S,
    count: usize,
) -> impl Future<Output = Vec<DeadLetter>> {
    wait_for(
        format!("there are {count} dead letters"),
        SOON,
        async move || {
            let dead = dead(store).await;
            if dead.len() == count {
                Ok(dead)
            } else {
                let seen: Vec<_> = dead.into_iter().map(|d| (d.reason, d.detail)).collect();
                Err(seen)
            }
        },
    )
}

/// Returns all dead letters.
pub(crate) async fn dead<S: Store>(store: &S) -> Vec<DeadLetter> {
    store
        .dead_letters(DeadLetterFilter::All, None, 100_000)
        .await
        .unwrap()
}

/// Returns the store's counts.
pub(crate) async fn summary<S: Store>(store: &S) -> Summary {
    store.summary(Timestamp::now()).await.unwrap()
}
