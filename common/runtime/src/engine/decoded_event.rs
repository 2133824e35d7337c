//! A delivery or deferred event decoded by its role: once, however often its batch has to be processed.

use std::panic::{AssertUnwindSafe, catch_unwind};

use doorstep_event::{ContractError, Event, EventId, Sender, Source, Timestamp, headers::Decoded};
use doorstep_store::{DeferReason, DeferredEvent, DeferredId, EntityKey};

use crate::{
    InboundMessage, Reading, Role,
    dead_letter::{self, Cause, reason},
};

/// The origin of an item.
pub(super) enum Origin {
    /// A delivery from this sender.
    Delivery(Sender),
    Deferred(Box<DeferredItem>),
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
    pub(super) fn split(row: DeferredEvent) -> (Decoded, Origin) {
        let deferred = Self {
            id: row.id,
            reason: row.reason,
            since: row.since,
            attempts: row.attempts,
        };
        let decoded = match row.defect {
            None => Decoded::Valid(row.event),
            Some(defect) => Decoded::Invalid(row.event, defect),
        };
        (decoded, Origin::Deferred(Box::new(deferred)))
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

/// A message, decoded once: a batch that meets a conflict is planned again without decoding it again.
pub(super) struct DecodedEvent<F> {
    pub(super) decoded: Decoded,
    /// The headers of an undecodable message, as JSON.
    pub(super) headers: String,
    /// The id of an undecodable message.
    pub(super) id: Option<EventId>,
    pub(super) origin: Origin,
    pub(super) understood: Interpretation<F>,
}

impl<F> DecodedEvent<F> {
    /// Has the role decode a delivery.
    pub(super) fn delivery<R: Role<Payload = F>>(role: &R, message: InboundMessage) -> Self {
        let Decoded::Undecodable { body, .. } = &message.decoded else {
            return Self::event(role, message.decoded, Origin::Delivery(message.sender));
        };
        #[expect(
            clippy::expect_used,
            reason = "64 hexadecimal digits are a well-formed id"
        )]
        let id = message.id.unwrap_or_else(|| {
            EventId::new(dead_letter::body_digest(body)).expect("a digest is an id")
        });
        Self {
            decoded: message.decoded,
            headers: message.headers,
            id: Some(id),
            origin: Origin::Delivery(Sender::Anonymous),
            understood: Interpretation::Ignored,
        }
    }

    /// Has the role decode an event.
    pub(super) fn event<R: Role<Payload = F>>(role: &R, decoded: Decoded, origin: Origin) -> Self {
        let understood = match &decoded {
            Decoded::Valid(event) => decode(role, event),
            Decoded::Invalid(_, defect) | Decoded::Undecodable { defect, .. } => {
                Interpretation::Refused(Cause::new(reason::UNREADABLE, defect.clone()))
            }
        };
        Self::unread(decoded, origin, understood)
    }

    /// An event that the role does not decode.
    pub(super) fn unread(decoded: Decoded, origin: Origin, understood: Interpretation<F>) -> Self {
        Self {
            decoded,
            headers: String::new(),
            id: None,
            origin,
            understood,
        }
    }

    pub(super) fn keys(&self) -> &[EntityKey] {
        match &self.understood {
            Interpretation::Handled(_, keys) => keys,
            Interpretation::Undecoded | Interpretation::Ignored | Interpretation::Refused(_) => &[],
        }
    }

    /// Returns how many times a handler has been called for it before.
    pub(super) fn attempts(&self) -> u32 {
        match &self.origin {
            Origin::Delivery(_) => 0,
            Origin::Deferred(deferred) => deferred.attempts,
        }
    }

    /// Returns whether it is deferred in the store.
    pub(super) fn is_deferred(&self) -> bool {
        matches!(self.origin, Origin::Deferred(_))
    }

    /// Returns the id that identifies a delivery without a position in a stream. `None` if a cursor does that, and for
    /// a deferred event, whose id was marked when it came.
    pub(super) fn seen_id(&self) -> Option<(Source, EventId)> {
        match (self.decoded.event(), &self.origin) {
            (None, _) => self.id.clone().map(|id| (unreadable_source(), id)),
            (Some(event), Origin::Delivery(_)) if event.sequence.is_none() => {
                Some((event.source.clone(), event.id.clone()))
            }
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

pub(crate) fn panic_text(panic: &(dyn std::any::Any + Send)) -> String {
    panic
        .downcast_ref::<&str>()
        .map(|s| (*s).to_owned())
        .or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "without a text".to_owned())
}
