//! Replies to commands.

use rusqlite::params;

use super::{Writer, more, one_or_conflict};
use crate::{
    NewReply, size,
    sqlite::{
        columns::{nanos, signed},
        error::SqliteError,
    },
};

impl Writer<'_> {
    pub(super) fn add_reply(&mut self, new: &NewReply) -> Result<(), SqliteError> {
        let bytes = size::reply(new);
        let added = self
            .tx
            .prepare_cached(
                "INSERT INTO replies(caller, request_id, hash, time, bytes, reply) VALUES (?1, ?2, ?3, ?4, ?5, ?6)
                 ON CONFLICT DO NOTHING",
            )?
            .execute(params![
                new.caller.as_str(),
                new.id.as_str(),
                new.hash.0,
                nanos(new.time),
                signed(bytes),
                &new.reply[..],
            ])?;
        one_or_conflict(added)?;
        more(&mut self.totals.usage.replies, bytes);
        Ok(())
    }
}
