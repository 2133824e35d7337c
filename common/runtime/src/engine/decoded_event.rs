//! A delivery or deferred event decoded by its role: once, however often its batch has to be processed.

use std::panic::{AssertUnwindSafe, catch_unwind};

use bytes::Bytes;
use doorstep_event::{ContractError, Event, EventId, Sender, Source, Timestamp};
use doorstep_store::{DeferReason, DeferredEvent, DeferredId, EntityKey};

use crate::{
    Reading, Role,
    dead_letter::{self, Cause, reason},
};

/// An event, or a message that could not be decoded as one.
pub(super) enum Item {
    Event {
        event: Event,
        defect: Option<String>,
    },
    Unreadable {
        body: Bytes,
        headers: String,
        defect: String,
        id: EventId,
    },
}

/// The origin of an item.
pub(super) enum Origin {
    /// A delivery from this sender.
    Delivery(Sender),
    Held(Box<DeferredItem>),
}

/// The row of a deferred item, without its event.
pub(super) struct DeferredItem {
    pub(super) id: DeferredId,
    pub(super) reason: DeferReason,
    pub(super) since: Timestamp,
    pub(super) attempts: u32,
}

impl DeferredItem {
    /// Splits a deferred event into its parts.
    pub(super) fn split(row: DeferredEvent) -> (Event, Option<String>, Origin) {
        let held = Self {
            id: row.id,
            reason: row.reason,
            since: row.since,
            attempts: row.attempts,
        };
        (row.event, row.defect, Origin::Held(Box::new(held)))
    }
}

/// The result of decoding an event, with the entities that it touches.
pub(super) enum Interpretation<F> {
    /// Not decoded by the role, since its handler will not be called. If it turns out that it must be, the batch is
    /// planned anew.
    Undecoded,
    Handled(F, Vec<EntityKey>),
    Ignored,
    Refused(Cause),
}

/// An item, decoded once: a batch that meets a conflict is planned again without decoding it again.
pub(super) struct DecodedEvent<F> {
    pub(super) item: Item,
    pub(super) origin: Origin,
    pub(super) understood: Interpretation<F>,
}

impl<F> DecodedEvent<F> {
    pub(super) fn event<R: Role<Payload = F>>(
        role: &R,
        event: Event,
        defect: Option<String>,
        origin: Origin,
    ) -> Self {
        let understood = match &defect {
            Some(defect) => Interpretation::Refused(Cause::new(reason::UNREADABLE, defect.clone())),
            None => decode(role, &event),
        };
        Self {
            item: Item::Event { event, defect },
            origin,
            understood,
        }
    }

    /// An event that the role does not decode.
    pub(super) fn unread(
        event: Event,
        defect: Option<String>,
        origin: Origin,
        understood: Interpretation<F>,
    ) -> Self {
        Self {
            item: Item::Event { event, defect },
            origin,
            understood,
        }
    }

    pub(super) fn unreadable(
        body: Bytes,
        headers: String,
        defect: String,
        id: Option<EventId>,
    ) -> Self {
        #[expect(
            clippy::expect_used,
            reason = "64 hexadecimal digits are a well-formed id"
        )]
        let id = id.unwrap_or_else(|| {
            EventId::new(dead_letter::body_digest(&body)).expect("a digest is an id")
        });
        Self {
            item: Item::Unreadable {
                body,
                headers,
                defect,
                id,
            },
            origin: Origin::Delivery(Sender::Anonymous),
            understood: Interpretation::Ignored,
        }
    }

    pub(super) fn keys(&self) -> &[EntityKey] {
        match &self.understood {
            Interpretation::Handled(_, keys) => keys,
            Interpretation::Undecoded | Interpretation::Ignored | Interpretation::Refused(_) => &[],
        }
    }

    /// Returns the defect of its message, if there is one.
    pub(super) fn defect(&self) -> Option<&String> {
        match &self.item {
            Item::Event { defect, .. } => defect.as_ref(),
            Item::Unreadable { defect, .. } => Some(defect),
        }
    }

    /// Returns how many times a handler has been called for it before.
    pub(super) fn attempts(&self) -> u32 {
        match &self.origin {
            Origin::Delivery(_) => 0,
            Origin::Held(held) => held.attempts,
        }
    }

    /// Returns whether it is deferred in the store.
    pub(super) fn is_deferred(&self) -> bool {
        matches!(self.origin, Origin::Held(_))
    }

    /// Returns the id that identifies a delivery without a position in a stream. `None` if a cursor does that, and for
    /// a deferred event, whose id was marked when it came.
    pub(super) fn seen_id(&self) -> Option<(Source, EventId)> {
        match (&self.item, &self.origin) {
            (Item::Event { event, .. }, Origin::Delivery(_)) if event.sequence.is_none() => {
                Some((event.source.clone(), event.id.clone()))
            }
            (Item::Unreadable { id, .. }, _) => Some((unreadable_source(), id.clone())),
            _ => None,
        }
    }
}

pub(super) fn unreadable_source() -> Source {
    #[expect(clippy::expect_used, reason = "a constant of the program")]
    Source::new("unreadable").expect("a well-formed source")
}

fn decode<R: Role>(role: &R, event: &Event) -> Interpretation<R::Payload> {
    let read = catch_unwind(AssertUnwindSafe(|| {
        role.read(event).map(|reading| match reading {
            Reading::Ignored => Interpretation::Ignored,
            Reading::Handled(fact) => {
                let keys = role.keys(event, &fact);
                Interpretation::Handled(fact, keys)
            }
        })
    }));
    match read {
        Ok(Ok(understood)) => understood,
        Ok(Err(e @ ContractError::UnknownType(_))) => {
            Interpretation::Refused(Cause::new(reason::UNKNOWN_TYPE, e.to_string()))
        }
        Ok(Err(e)) => Interpretation::Refused(Cause::new(reason::CONTRACT, e.to_string())),
        Err(panic) => {
            Interpretation::Refused(Cause::new(reason::PANIC, panic_text(panic.as_ref())))
        }
    }
}

pub(super) fn panic_text(panic: &(dyn std::any::Any + Send)) -> String {
    panic
        .downcast_ref::<&str>()
        .map(|s| (*s).to_owned())
        .or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "without a text".to_owned())
}
