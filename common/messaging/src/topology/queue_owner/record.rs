//! The owner record of a queue, as text that fits into one argument of an exchange.

use std::fmt;

use doorstep_event::{Epoch, Source, Timestamp};
use serde::Serialize;

/// First character of each record. It distinguishes records from exchange names, also in permissions.
pub(crate) const MARKER: char = '@';

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OwnerRecord {
    pub store: Source,
    /// The store's epoch at its latest start.
    pub epoch: Epoch,
    /// Start of that epoch, to the second.
    pub since: Timestamp,
}

/// The part of a record that the broker quotes. It truncates its error texts, names included, at 255 bytes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PresentOwner {
    /// `None` if cut off.
    pub store: Option<Source>,
    /// `None` if cut off.
    #[serde(serialize_with = "as_text")]
    pub epoch: Option<Epoch>,
    /// Start of the epoch; `None` if cut off.
    pub since: Option<Timestamp>,
}

fn as_text<S: serde::Serializer>(epoch: &Option<Epoch>, to: S) -> Result<S::Ok, S::Error> {
    epoch.map(|epoch| epoch.to_string()).serialize(to)
}

impl OwnerRecord {
    /// Formats the record as `@0199a1b2-1111-7222-8333-444455556666 17-9f3a6c2b81d4e07a 2026-11-30T05:00:00Z`. It omits the role, which is
    /// part of the exchange's name. The end may be cut off, so the most important part comes first.
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
    /// Parses a record. Returns `None` if the text is not a record, for example because an operator gave the exchange an alternate.
    pub(crate) fn read(text: &str, role: &str, is_cut_off: bool) -> Option<Self> {
        let text = text.strip_prefix(MARKER)?;
        let mut words: Vec<&str> = text.split(' ').collect();
        if is_cut_off {
            // The last word may be incomplete.
            words.pop();
        }
        let mut words = words.into_iter();
        let id = words.next();
        let store = id.and_then(|id| {
            // Generated store names are the role and a UUID, which contains no slash.
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
    /// Formats as `to the store inventory/0199..., last started at 2026-11-30T05:00:00Z (epoch 17-9f3a6c2b81d4e07a)`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.store {
            Some(store) => write!(f, "to the store {store}")?,
            None => f.write_str("to a store whose name the broker cut off")?,
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
    fn a_record_round_trips() {
        assert_eq!(record().text("inventory"), TEXT);
        let read = PresentOwner::read(TEXT, "inventory", false).unwrap();
        let whole = OwnerRecord {
            since: "2026-11-30T05:00:00Z".parse().unwrap(),
            ..record()
        };
        assert_eq!(read, whole.into());
    }

    #[test]
    fn a_truncated_record_keeps_its_complete_parts() {
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
    fn other_alternates_are_not_records() {
        for other in ["", "unrouted", "17-9f3a6c2b81d4e07a"] {
            assert_eq!(PresentOwner::read(other, "inventory", false), None);
        }
    }
}
