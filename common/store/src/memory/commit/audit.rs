//! Writes audit records of operators' actions, within their bound.

use doorstep_event::Timestamp;

use super::{less, more};
use crate::{AuditId, AuditRow, NewAudit, TableUsage, memory::data::Data, size};

impl Data {
    pub(super) fn record(&mut self, entry: NewAudit, at: Timestamp, most: TableUsage) {
        self.counters.last_audit += 1;
        let id = AuditId(self.counters.last_audit);
        more(&mut self.counters.audit, size::audit(&entry));
        self.audit.put(id, AuditRow { id, at, entry });
        while self.counters.audit.is_above(most) {
            let oldest = self.audit.iter().next().map(|(id, _)| *id);
            let Some(gone) = oldest.filter(|oldest| *oldest != id) else {
                return;
            };
            if let Some(row) = self.audit.remove(&gone) {
                less(&mut self.counters.audit, size::audit(&row.entry));
                self.counters.audit_forgotten += 1;
            }
        }
    }
}
