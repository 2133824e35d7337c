//! The record of a queue's owner, as text that fits into one argument of an exchange.

use std::fmt;

use doorstep_event::{Epoch, Source, Timestamp};
use serde::Serialize;

/// The first character of each record. It tells records from names of exchanges, in permissions too.
pub(crate) const MARKER: char = '@';

/// The store that a role's queue belongs to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OwnerRecord {
    /// The store, by its source.
    pub store: Source,
    /// The latest epoch of the store, begun by its latest start.
    pub epoch: Epoch,
    /// When that epoch began, to the second.
    pub since: Timestamp,
}

/// As much of a record as the broker tells: it cuts its answers off at 255 bytes, names and all.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PresentOwner {
    /// The store; `None` if even that is cut off.
    pub store: Option<Source>,
    /// Its latest epoch; `None` if that is cut off.
    #[serde(serialize_with = "as_text")]
    pub epoch: Option<Epoch>,
    /// When that epoch began; `None` if that is cut off.
    pub since: Option<Timestamp>,
}

fn as_text<S: serde::Serializer>(epoch: &Option<Epoch>, to: S) -> Result<S::Ok, S::Error> {
    epoch.map(|epoch| epoch.to_string()).serialize(to)
}

impl OwnerRecord {
    /// Writes `@0199a1b2-1111-7222-8333-444455556666 17-9f3a6c2b81d4e07a 2026-11-30T05:00:00Z`: without the name of the role, which is
    /// that of the exchange, and with what matters most first, since the end may be cut off.
    pub(crate) fn text(&self, role: &str) -> String {
        let store = self.store.as_str();
        let id = store.strip_prefix(role).and_then(|id| id.strip_prefix('/'));
        let since = whole_seconds(self.since);
        format!("{MARKER}{} {} {since}", id.unwrap_or(store), self.epoch)
    }
}

impl From<OwnerRecord> for PresentOwner {
    fn from(record: OwnerRecord) -> Self {
        Self {
            store: Some(record.store),
            epoch: Some(record.epoch),
            since: Some(whole_seconds(record.since)),
        }
    }
}

impl PresentOwner {
    /// Reads a record; `None` if the text is none, as where somebody has given the exchange an alternate.
    pub(crate) fn read(text: &str, role: &str, is_cut_off: bool) -> Option<Self> {
        let text = text.strip_prefix(MARKER)?;
        let mut words: Vec<&str> = text.split(' ').collect();
        if is_cut_off {
            // The last word is not whole, or cannot be told to be.
            words.pop();
        }
        let mut words = words.into_iter();
        let id = words.next();
        let store = id.and_then(|id| {
            // Stores that were minted have the role before a UUID, which has no slash.
            let whole = if id.contains('/') {
                id.to_owned()
            } else {
                format!("{role}/{id}")
            };
            Source::new(whole).ok()
        });
        Some(Self {
            store,
            epoch: words.next().and_then(|word| word.parse().ok()),
            since: words.next().and_then(|word| word.parse().ok()),
        })
    }
}

impl fmt::Display for PresentOwner {
    /// Writes `to the store inventory/0199..., last started at 2026-11-30T05:00:00Z (epoch 17-9f3a6c2b81d4e07a)`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.store {
            Some(store) => write!(f, "to the store {store}")?,
            None => f.write_str("to a store whose name the broker has cut off")?,
        }
        if let Some(since) = self.since {
            write!(f, ", last started at {since}")?;
        }
        if let Some(epoch) = self.epoch {
            write!(f, " (epoch {epoch})")?;
        }
        Ok(())
    }
}

fn whole_seconds(time: Timestamp) -> Timestamp {
    Timestamp::from_second(time.as_second()).unwrap_or(time)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str =
        "@0199a1b2-1111-7222-8333-444455556666 17-9f3a6c2b81d4e07a 2026-11-30T05:00:00Z";

    fn record() -> OwnerRecord {
        OwnerRecord {
            store: Source::new("inventory/0199a1b2-1111-7222-8333-444455556666").unwrap(),
            epoch: Epoch::new(17, 0x9f3a_6c2b_81d4_e07a).unwrap(),
            since: "2026-11-30T05:00:00.75Z".parse().unwrap(),
        }
    }

    #[test]
    fn a_record_is_read_as_it_is_written() {
        assert_eq!(record().text("inventory"), TEXT);
        let read = PresentOwner::read(TEXT, "inventory", false).unwrap();
        let whole = OwnerRecord {
            since: "2026-11-30T05:00:00Z".parse().unwrap(),
            ..record()
        };
        assert_eq!(read, whole.into());
    }

    #[test]
    fn what_is_cut_off_is_not_known_and_what_is_before_it_is() {
        let read = |bytes: usize| PresentOwner::read(&TEXT[..bytes], "inventory", true).unwrap();
        let full = read(TEXT.len());
        assert_eq!((full.store, full.since), (Some(record().store), None));
        assert_eq!(full.epoch, Some(record().epoch));
        assert_eq!(read(58).epoch, Some(record().epoch));
        assert_eq!(read(57).epoch, None);
        assert_eq!(read(38).store, Some(record().store));
        assert_eq!(read(37).store, None);
        assert_eq!(read(1).store, None);
    }

    #[test]
    fn any_other_alternate_is_no_record() {
        for other in ["", "unrouted", "17-9f3a6c2b81d4e07a"] {
            assert_eq!(PresentOwner::read(other, "inventory", false), None);
        }
    }
}
