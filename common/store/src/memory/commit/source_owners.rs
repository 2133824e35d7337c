//! Writes the owners of sources, under their versions.

use super::Conflict;
use crate::{OwnerChange, OwnerRow, memory::data::Data};

impl Data {
    pub(super) fn own(&mut self, change: OwnerChange) -> Result<(), Conflict> {
        let version = self.owners.get(&change.source).map_or(0, |row| row.version);
        if version != change.expect {
            return Err(Conflict);
        }
        if let Some(after) = change.after {
            let row = OwnerRow {
                version: version + 1,
                owner: Some(after),
            };
            self.owners.put(change.source, row);
        }
        Ok(())
    }
}
