//! The tables of tasks and holders, as the rules in `leases.rs` need them. Each store implements it, and one set of
//! rules holds for all.

use doorstep_event::{EventType, Timestamp};

use super::{TaskHolder, TaskId, TaskRow};

/// A row of a holder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Holder {
    pub(crate) beat: u64,
    pub(crate) renewed: Timestamp,
    pub(crate) process: String,
}

/// A task of a holder.
pub(crate) struct Leased {
    pub(crate) number: u64,
    pub(crate) id: TaskId,
    /// True if it has a directive.
    pub(crate) is_directed: bool,
}

pub(crate) trait TaskTable {
    type Error;

    /// Returns a number that no task of the store has had.
    fn next_number(&mut self) -> u64;

    /// Returns a number that neither a token nor a heartbeat of the store has had.
    fn next_token(&mut self) -> i64;

    /// Counts a task as done.
    fn count_done(&mut self);

    /// Returns true if the store is marked as restored.
    fn is_restored(&self) -> Result<bool, Self::Error>;

    /// Returns a task, possibly without its input.
    fn find(&self, id: &TaskId) -> Result<Option<TaskRow>, Self::Error>;

    /// Returns a task with its input.
    fn read(&self, number: u64) -> Result<Option<TaskRow>, Self::Error>;

    fn insert(&mut self, row: TaskRow) -> Result<(), Self::Error>;

    /// Writes the changed columns of a task; its input is no such column.
    fn update(&mut self, before: &TaskRow, after: &TaskRow) -> Result<(), Self::Error>;

    fn remove(&mut self, row: &TaskRow) -> Result<(), Self::Error>;

    /// Returns all tasks in the order of starting.
    fn all(&self) -> Result<Vec<TaskId>, Self::Error>;

    /// Returns the tasks leased to a holder in the order of starting.
    fn leased_to(&self, holder: TaskHolder) -> Result<Vec<Leased>, Self::Error>;

    /// Returns ready tasks with a directive in the order of starting.
    fn directed(&self, limit: usize) -> Result<Vec<u64>, Self::Error>;

    /// Counts the running tasks of a kind, of all holders.
    fn running(&self, kind: &EventType) -> Result<u64, Self::Error>;

    /// Returns the due tasks of a kind without a directive, those due longest first: fresh ones or candidates.
    fn due(
        &self,
        kind: &EventType,
        candidates: bool,
        now: Timestamp,
        limit: usize,
    ) -> Result<Vec<(Timestamp, u64)>, Self::Error>;

    /// Counts the due candidates of a kind without a directive.
    fn candidates_due(&self, kind: &EventType, now: Timestamp) -> Result<u64, Self::Error>;

    fn holder(&self, holder: TaskHolder) -> Result<Option<Holder>, Self::Error>;

    fn put_holder(&mut self, holder: TaskHolder, row: Holder) -> Result<(), Self::Error>;

    fn remove_holder(&mut self, holder: TaskHolder) -> Result<(), Self::Error>;

    fn remove_all_holders(&mut self) -> Result<(), Self::Error>;
}
