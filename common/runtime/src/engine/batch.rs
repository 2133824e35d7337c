//! A batch of deliveries on its way through the engine, and how far it has got.

use std::collections::VecDeque;

use super::{
    decoded_event::DecodedEvent,
    inbound::{DeliveryHistory, InboundMessage},
    poison::PoisonCandidate,
};

/// Deliveries as a role takes them, worked step by step in their order. What is done stays done, whatever becomes of the rest.
pub struct BatchCursor<F> {
    pub(super) parts: VecDeque<Segment<F>>,
    /// How many deliveries are done.
    pub(super) done: usize,
}

/// Consecutive deliveries of one kind. Those that a process may have died of are never worked together with others.
pub(super) enum Segment<F> {
    /// Not read by the role yet.
    Fresh(Vec<InboundMessage>),
    /// Read once, however often they have to be worked.
    Read(Vec<DecodedEvent<F>>),
    /// Read only after their trials are counted. Taken from the front.
    Suspect(VecDeque<PoisonCandidate>),
}

impl<F> BatchCursor<F> {
    pub(super) fn new(
        deliveries: impl IntoIterator<Item = (InboundMessage, DeliveryHistory)>,
    ) -> Self {
        let mut parts = VecDeque::new();
        for (incoming, past) in deliveries {
            match (past, parts.back_mut()) {
                (DeliveryHistory::First, Some(Segment::Fresh(fresh))) => fresh.push(incoming),
                (DeliveryHistory::First, _) => parts.push_back(Segment::Fresh(vec![incoming])),
                (_, Some(Segment::Suspect(suspects))) => {
                    suspects.push_back(PoisonCandidate::delivery(incoming, past));
                }
                _ => {
                    let suspects = VecDeque::from([PoisonCandidate::delivery(incoming, past)]);
                    parts.push_back(Segment::Suspect(suspects));
                }
            }
        }
        Self { parts, done: 0 }
    }

    /// How many of the deliveries are applied, held, dead or dropped, durably: the first so many.
    #[must_use]
    pub fn done(&self) -> usize {
        self.done
    }

    /// Whether all of them are.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.parts.is_empty()
    }
}
