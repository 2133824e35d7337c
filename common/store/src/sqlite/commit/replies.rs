//! Replies to commands.

use rusqlite::params;

use super::{Writer, more};
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
        self.execute_one(
            "INSERT INTO replies(caller, request_id, hash, time, bytes, reply) VALUES (?1, ?2, ?3, ?4, ?5, ?6)
                 ON CONFLICT DO NOTHING",
            params![
                new.caller.as_str(),
                new.id.as_str(),
                new.hash.0,
                nanos(new.time),
                signed(bytes),
                &new.reply[..],
            ],
        )?;
        more(&mut self.totals.usage.replies, bytes);
        Ok(())
    }
}
