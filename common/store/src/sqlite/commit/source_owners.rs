//! Writes the owners of sources, under their versions.

use rusqlite::params;

use super::{Writer, one_or_conflict};
use crate::{
    FormerOwner, OwnerChange,
    sqlite::{
        columns::{nanos, signed},
        error::SqliteError,
        source_owners::{FORMER_NOBODY, FORMER_NONE, FORMER_USER},
    },
};

impl Writer<'_> {
    pub(super) fn own(&mut self, change: &OwnerChange) -> Result<(), SqliteError> {
        let Some(after) = &change.after else {
            return self.check_owner(change);
        };
        let source = self.sources.find_or_add(self.tx, &change.source)?;
        let (former, former_user) = match &after.former {
            None => (FORMER_NONE, None),
            Some(FormerOwner::Nobody) => (FORMER_NOBODY, None),
            Some(FormerOwner::User(user)) => (FORMER_USER, Some(user.as_str())),
        };
        let values = params![
            source,
            signed(change.expect),
            after.user.as_ref().map(|user| user.as_str()),
            nanos(after.since),
            former,
            former_user
        ];
        let written = if change.expect == 0 {
            self.execute(
                "INSERT INTO source_owners(source_id, version, user, since, former, former_user)
                     VALUES (?1, ?2 + 1, ?3, ?4, ?5, ?6) ON CONFLICT DO NOTHING",
                values,
            )?
        } else {
            self.execute(
                "UPDATE source_owners SET version = version + 1, user = ?3, since = ?4, former = ?5, former_user = ?6
                     WHERE source_id = ?1 AND version = ?2",
                values,
            )?
        };
        one_or_conflict(written)
    }

    /// A missing row has version 0.
    fn check_owner(&mut self, change: &OwnerChange) -> Result<(), SqliteError> {
        let there = match self.sources.find(self.tx, &change.source)? {
            None => false,
            Some(source) => self.exists(
                "SELECT 1 FROM source_owners WHERE source_id = ?1 AND (version = ?2 OR ?2 = 0)",
                params![source, signed(change.expect)],
            )?,
        };
        one_or_conflict(usize::from(there == (change.expect > 0)))
    }
}
