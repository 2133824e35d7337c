//! Sends what commits owe the world, and forgets what the broker has confirmed.
//!
//! A row is deleted only after its confirm, so a crash sends it again with the same id: consumers recognise it. The relay keeps the
//! order of writing as an optimisation; a row that cannot be routed or is refused is tried again later and holds back no other.
//! Several relays may work one outbox.

use std::{collections::BTreeMap, future::Future, time::Duration};

use doorstep_event::Timestamp;
use doorstep_messaging::PublishOutcome;
use doorstep_store::{OutboxId, OutboxKind, OutboxRetry, OutboxRow, Store, StoreError, WriteSet};

/// The longest pause before a row that could not be routed or was refused is tried again.
pub(crate) const MAX_BACKOFF: Duration = Duration::from_secs(30);
/// The pause where nothing can be sent at all just now; the connection has a backoff of its own.
pub(crate) const MIN_BACKOFF: Duration = Duration::from_millis(250);

/// The most rows that are remembered as refused by the end of a channel. Others are found again.
const MAX_REFUSED: usize = 10_000;
/// The most of them that are tried again in one turn, each by itself: every one costs a channel.
const REFUSED_BATCH: usize = 8;

/// The rows over which the broker has closed the channel, with the time of their next try. They are sent by themselves: among others they
/// would hold those back each time.
#[derive(Debug, Default)]
pub struct RefusedRows(BTreeMap<OutboxId, Timestamp>);

impl RefusedRows {
    /// The number of them.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Returns whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn contains(&self, row: &OutboxRow) -> bool {
        self.0.contains_key(&row.id)
    }

    fn note(&mut self, id: OutboxId, due: Timestamp) {
        if self.0.len() < MAX_REFUSED || self.0.contains_key(&id) {
            self.0.insert(id, due);
        }
    }

    /// Forgets rows that are long due and have not come again: another relay has sent them.
    fn forget_gone(&mut self, now: Timestamp) {
        self.0.retain(|_, due| {
            due.checked_add(MAX_BACKOFF.saturating_mul(2))
                .map_or(true, |gone| now < gone)
        });
    }
}

/// Where outbox rows are sent to: the broker, or a simulation of it.
pub trait OutboxSink: Send {
    /// Sends all of these, in order. Returns one outcome for each.
    fn send(&self, rows: Vec<OutboxKind>) -> impl Future<Output = Vec<PublishOutcome>> + Send;
}

/// What a turn of the relay sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RelayBatch {
    /// At most so many rows.
    Rows(usize),
    /// One, by a connection that is there and broke before: if it breaks again, that is the row's doing, such as a message that the broker
    /// closes the channel for. It is put off for longer then, like what is refused, so that it holds back no other.
    Suspect,
}

impl RelayBatch {
    /// The most rows of it.
    pub(crate) fn most(self) -> usize {
        match self {
            Self::Rows(rows) => rows,
            Self::Suspect => 1,
        }
    }
}

/// What one turn of the relay has done.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RelayReport {
    /// Rows that are paid.
    pub paid: usize,
    /// Rows that are still owed, for whatever reason.
    pub postponed: usize,
    /// How many of them are owed because the broker is away, takes nothing for now, or has not said in time. All others were turned away
    /// for their own sake.
    pub transient: usize,
    /// Whether the connection broke, or its channel, while they were sent.
    pub broke: bool,
    /// The outcome of the first row that is still owed.
    pub first_failure: Option<PublishOutcome>,
}

impl RelayReport {
    /// Adds what the next turn has done.
    pub(crate) fn add(&mut self, next: &Self) {
        self.paid += next.paid;
        self.postponed += next.postponed;
        self.transient += next.transient;
        self.broke |= next.broke;
        self.first_failure = self.first_failure.or(next.first_failure);
    }
}

/// Sends what is due now, as far as it is this turn's share. Time passes while it is sent, as `clock` says.
///
/// May be cancelled: what was sent and not yet deleted is sent again.
///
/// # Errors
/// The store could not be used.
pub async fn relay_once<S: Store, O: OutboxSink>(
    store: &S,
    outlet: &O,
    share: RelayBatch,
    refused: &mut RefusedRows,
    clock: impl Fn() -> Timestamp + Send,
) -> Result<RelayReport, StoreError> {
    let rows = store.outbox(clock(), share.most()).await?;
    if rows.is_empty() {
        refused.forget_gone(clock());
        return Ok(RelayReport::default());
    }
    let (known, rows) = if refused.is_empty() {
        (Vec::new(), rows)
    } else {
        rows.into_iter().partition(|row| refused.contains(row))
    };
    let (mut kept, kinds): (Vec<_>, Vec<_>) = rows.into_iter().map(parts).unzip();
    let mut outcomes = if kinds.is_empty() {
        Vec::new()
    } else {
        outlet.send(kinds).await
    };
    for (number, row) in known.into_iter().enumerate() {
        let (row, kind) = parts(row);
        // What is away for others is away for these, too.
        let away = outcomes
            .iter()
            .copied()
            .find(|outcome| is_transient(*outcome));
        let outcome = match away {
            Some(away) => away,
            None if number < REFUSED_BATCH => {
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
    // Sending may have taken longer than any pause.
    let now = clock();
    refused.forget_gone(now);
    let mut changes = WriteSet::at(now);
    let mut relayed = RelayReport::default();
    for ((id, attempts), outcome) in kept.into_iter().zip(outcomes) {
        if outcome == PublishOutcome::Confirmed {
            refused.0.remove(&id);
            changes.published.push(id);
            relayed.paid += 1;
            continue;
        }
        let pause = match (outcome, share) {
            (
                PublishOutcome::Unroutable
                | PublishOutcome::Refused
                | PublishOutcome::Unpublishable,
                _,
            )
            | (PublishOutcome::Disconnected, RelayBatch::Suspect) => MIN_BACKOFF
                .saturating_mul(1_u32.checked_shl(attempts).unwrap_or(u32::MAX))
                .min(MAX_BACKOFF),
            _ => {
                relayed.transient += 1;
                MIN_BACKOFF
            }
        };
        let due = now.checked_add(pause).unwrap_or(Timestamp::MAX);
        if outcome == PublishOutcome::Unpublishable {
            refused.note(id, due);
        }
        changes.postponed.push(OutboxRetry { id, due });
        relayed.postponed += 1;
        relayed.broke |= outcome == PublishOutcome::Disconnected;
        relayed.first_failure.get_or_insert(outcome);
    }
    // No versions are read, so there is nothing to conflict with.
    store.commit(changes).await?;
    Ok(relayed)
}

fn parts(row: OutboxRow) -> ((OutboxId, u32), OutboxKind) {
    ((row.id, row.attempts), row.kind)
}

/// Returns whether the broker is the reason rather than the row.
fn is_transient(outcome: PublishOutcome) -> bool {
    matches!(
        outcome,
        PublishOutcome::Disconnected | PublishOutcome::Blocked | PublishOutcome::TimedOut
    )
}
