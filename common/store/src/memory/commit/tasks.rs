//! Starts and ends tasks, and records decisions about them.

use doorstep_event::Timestamp;

use super::Conflict;
use crate::{TaskChange, memory::data::Data, tasks::leases};

impl Data {
    pub(super) fn change_tasks(
        &mut self,
        changes: &[TaskChange],
        now: Timestamp,
    ) -> Result<(), Conflict> {
        let Ok(is_written) = leases::change_tasks(self, changes, now);
        is_written.then_some(()).ok_or(Conflict)
    }
}
