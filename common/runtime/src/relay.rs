//! Publishes the outbox, and deletes its rows once the broker has confirmed them.
//!
//! A row is deleted only after its confirm, so after a crash it is published again under the same id, and consumers
//! recognise the duplicate. Keeping the order of writing is an optimisation: a row that is unroutable or nacked is
//! retried later and delays no other row. Several relays may share one outbox.

use std::{collections::BTreeMap, future::Future, time::Duration};

use doorstep_event::Timestamp;
use doorstep_messaging::PublishOutcome;
use doorstep_store::{OutboxId, OutboxKind, OutboxRetry, OutboxRow, Result, Store, WriteSet};

/// The maximum backoff of a row that was unroutable or nacked.
pub(crate) const MAX_BACKOFF: Duration = Duration::from_secs(30);
/// The backoff while nothing can be published at all; the connection has a backoff of its own.
pub(crate) const MIN_BACKOFF: Duration = Duration::from_millis(250);

/// The maximum of rows remembered as the cause of a closed channel. Others are found again.
const MAX_REJECTED: usize = 10_000;
/// The maximum of these rows that one turn retries, each by itself: every one costs a channel.
const REJECTED_BATCH: usize = 8;

/// The rows for which the broker has closed the channel, with the time of their next attempt. Each is published by
/// itself, since it would take other rows down with its channel.
#[derive(Debug, Default)]
pub struct RejectedRows(BTreeMap<OutboxId, Timestamp>);

impl RejectedRows {
    /// Returns the number of rows.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Returns whether there are no rows.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn contains(&self, row: &OutboxRow) -> bool {
        self.0.contains_key(&row.id)
    }

    fn note(&mut self, id: OutboxId, due: Timestamp) {
        if self.0.len() < MAX_REJECTED || self.0.contains_key(&id) {
            self.0.insert(id, due);
        }
    }

    /// Drops rows that are long due and have not been read again: another relay has published them.
    fn forget_gone(&mut self, now: Timestamp) {
        self.0.retain(|_, due| {
            due.checked_add(MAX_BACKOFF.saturating_mul(2))
                .map_or(true, |gone| now < gone)
        });
    }
}

/// The destination of outbox rows: the broker, or a simulation of it.
pub trait OutboxSink: Send {
    /// Publishes all of these, in order. Returns one outcome for each.
    fn send(&self, rows: Vec<OutboxKind>) -> impl Future<Output = Vec<PublishOutcome>> + Send;
}

/// The rows that one turn of the relay publishes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RelayBatch {
    /// At most this many rows.
    Rows(usize),
    /// A single row, over a connection that is up and broke before. If the connection breaks again, the row is the
    /// cause, such as a message for which the broker closes the channel. Like a nacked row, it is then deferred longer,
    /// so that it delays no other row.
    OneByOne,
}

impl RelayBatch {
    /// Returns its maximum of rows.
    pub(crate) fn most(self) -> usize {
        match self {
            Self::Rows(rows) => rows,
            Self::OneByOne => 1,
        }
    }
}

/// The result of one turn of the relay.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RelayReport {
    /// Rows that were confirmed and deleted.
    pub published: usize,
    /// Rows that are still pending, for any reason.
    pub postponed: usize,
    /// The part of the pending rows that failed because the broker is unreachable, blocks publishing, or did not
    /// confirm in time. All others failed for their own content.
    pub transient: usize,
    /// Set if the connection or its channel broke meanwhile.
    pub broke: bool,
    /// The outcome of the first row that is still pending.
    pub first_failure: Option<PublishOutcome>,
}

impl RelayReport {
    /// Adds the result of the next turn.
    pub(crate) fn add(&mut self, next: &Self) {
        self.published += next.published;
        self.postponed += next.postponed;
        self.transient += next.transient;
        self.broke |= next.broke;
        self.first_failure = self.first_failure.or(next.first_failure);
    }
}

/// Publishes the rows that are due now, up to this turn's batch. `clock` tells the time, which passes meanwhile.
///
/// May be cancelled: rows that were published and not yet deleted are published again.
///
/// # Errors
/// The store could not be used.
pub async fn relay_once<S: Store, O: OutboxSink>(
    store: &S,
    outlet: &O,
    batch: RelayBatch,
    rejected: &mut RejectedRows,
    clock: impl Fn() -> Timestamp + Send,
) -> Result<RelayReport> {
    let rows = store.outbox(clock(), batch.most()).await?;
    if rows.is_empty() {
        rejected.forget_gone(clock());
        return Ok(RelayReport::default());
    }
    let (known, rows) = if rejected.is_empty() {
        (Vec::new(), rows)
    } else {
        rows.into_iter().partition(|row| rejected.contains(row))
    };
    let (mut kept, kinds): (Vec<_>, Vec<_>) = rows.into_iter().map(parts).unzip();
    let mut outcomes = if kinds.is_empty() {
        Vec::new()
    } else {
        outlet.send(kinds).await
    };
    for (number, row) in known.into_iter().enumerate() {
        let (row, kind) = parts(row);
        // A broker that is unreachable for some rows is so for these, too.
        let away = outcomes
            .iter()
            .copied()
            .find(|outcome| is_transient(*outcome));
        let outcome = match away {
            Some(away) => away,
            None if number < REJECTED_BATCH => {
                let sent = outlet.send(vec![kind]).await;
                sent.first()
                    .copied()
                    .unwrap_or(PublishOutcome::Disconnected)
            }
            None => PublishOutcome::Unpublishable,
        };
        kept.push(row);
        outcomes.push(outcome);
    }
    // Publishing may have taken longer than any backoff.
    let now = clock();
    rejected.forget_gone(now);
    let mut changes = WriteSet::at(now);
    let mut relayed = RelayReport::default();
    for ((id, attempts), outcome) in kept.into_iter().zip(outcomes) {
        if outcome == PublishOutcome::Confirmed {
            rejected.0.remove(&id);
            changes.published.push(id);
            relayed.published += 1;
            continue;
        }
        let pause = match (outcome, batch) {
            (
                PublishOutcome::Unroutable
                | PublishOutcome::Rejected
                | PublishOutcome::Unpublishable,
                _,
            )
            | (PublishOutcome::Disconnected, RelayBatch::OneByOne) => MIN_BACKOFF
                .saturating_mul(1_u32.checked_shl(attempts).unwrap_or(u32::MAX))
                .min(MAX_BACKOFF),
            _ => {
                relayed.transient += 1;
                MIN_BACKOFF
            }
        };
        let due = now.checked_add(pause).unwrap_or(Timestamp::MAX);
        if outcome == PublishOutcome::Unpublishable {
            rejected.note(id, due);
        }
        changes.postponed.push(OutboxRetry { id, due });
        relayed.postponed += 1;
        relayed.broke |= outcome == PublishOutcome::Disconnected;
        relayed.first_failure.get_or_insert(outcome);
    }
    // No version was read, so there can be no conflict.
    store.commit(changes).await?;
    Ok(relayed)
}

fn parts(row: OutboxRow) -> ((OutboxId, u32), OutboxKind) {
    ((row.id, row.attempts), row.kind)
}

/// Returns whether the outcome is due to the broker rather than to the row.
fn is_transient(outcome: PublishOutcome) -> bool {
    matches!(
        outcome,
        PublishOutcome::Disconnected | PublishOutcome::Blocked | PublishOutcome::TimedOut
    )
}
