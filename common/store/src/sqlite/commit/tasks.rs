//! Starts and ends tasks, and records decisions about them.

use super::Writer;
use crate::{
    TaskChange,
    sqlite::{error::SqliteError, tasks::SqliteTasks},
    tasks::leases,
};

impl Writer<'_> {
    pub(super) fn change_tasks(&mut self, changes: &[TaskChange]) -> Result<(), SqliteError> {
        let now = self.now;
        if leases::change_tasks(&mut self.tasks(), changes, now)? {
            Ok(())
        } else {
            Err(SqliteError::Conflict)
        }
    }

    pub(super) fn tasks(&mut self) -> SqliteTasks<'_> {
        SqliteTasks {
            conn: self.tx,
            totals: &mut self.totals,
        }
    }
}
