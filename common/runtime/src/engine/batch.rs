//! A batch of deliveries on its way through the engine, with its progress.

use std::collections::VecDeque;

use super::{
    decoded_event::DecodedEvent,
    inbound::{DeliveryHistory, InboundMessage},
    poison::PoisonCandidate,
};

/// Deliveries in their order, processed step by step. A finished delivery stays finished, even if a later one fails.
pub struct BatchCursor<F> {
    pub(super) parts: VecDeque<Segment<F>>,
    /// The number of finished deliveries.
    pub(super) done: usize,
}

/// Consecutive deliveries of one kind. Poison candidates are never processed together with others.
pub(super) enum Segment<F> {
    /// Not decoded by the role yet.
    Fresh(Vec<InboundMessage>),
    /// Decoded once, however often they have to be processed.
    Read(Vec<DecodedEvent<F>>),
    /// Decoded only after their crash counts have been raised. Taken from the front.
    Candidates(VecDeque<PoisonCandidate>),
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
                (_, Some(Segment::Candidates(candidates))) => {
                    candidates.push_back(PoisonCandidate::delivery(incoming, past));
                }
                _ => {
                    let candidates = VecDeque::from([PoisonCandidate::delivery(incoming, past)]);
                    parts.push_back(Segment::Candidates(candidates));
                }
            }
        }
        Self { parts, done: 0 }
    }

    /// Returns the number of leading deliveries that are durably applied, deferred, dead-lettered or dropped.
    #[must_use]
    pub fn done(&self) -> usize {
        self.done
    }

    /// Returns whether all of them are.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.parts.is_empty()
    }
}
