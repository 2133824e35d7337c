//! A batch of deliveries on its way through the engine, and how far it has got.

use std::collections::VecDeque;

use bytes::Bytes;
use doorstep_event::{Event, EventId, Sender};

use super::{prepared::Prepared, suspect::Suspect};

/// A delivery, read as far as it could be.
#[derive(Debug, Clone)]
pub enum Incoming {
    /// An event. With a defect, it will be refused when it is next in its stream.
    Event {
        /// The event.
        event: Event,
        /// What is wrong with its message, if anything is.
        defect: Option<String>,
        /// The sender, as far as the broker vouches for it.
        sender: Sender,
    },
    /// A message that has no place in any stream.
    Unreadable {
        /// Its body.
        body: Bytes,
        /// What could be read of its headers, as JSON.
        headers: String,
        /// What is wrong with it.
        defect: String,
        /// Tells it from others; where there is none, its body does.
        id: Option<EventId>,
    },
}

/// What is known of a delivery's past.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Past {
    /// Nobody was ever given it.
    First,
    /// Somebody was given it before and has not settled it: a process may have died of it.
    Redelivered,
    /// The broker has given up on it: it comes from the role's net.
    GivenUp,
}

/// Deliveries as a role takes them, worked step by step in their order. What is done stays done, whatever becomes of the rest.
pub struct ReadBatch<F> {
    pub(super) parts: VecDeque<Part<F>>,
    /// How many deliveries are done.
    pub(super) done: usize,
}

/// Consecutive deliveries of one kind. Those that a process may have died of are never worked together with others.
pub(super) enum Part<F> {
    /// Not read by the role yet.
    Fresh(Vec<Incoming>),
    /// Read once, however often they have to be worked.
    Read(Vec<Prepared<F>>),
    /// Read only after their trials are counted. Taken from the front.
    Suspect(VecDeque<Suspect>),
}

impl<F> ReadBatch<F> {
    pub(super) fn new(deliveries: impl IntoIterator<Item = (Incoming, Past)>) -> Self {
        let mut parts = VecDeque::new();
        for (incoming, past) in deliveries {
            match (past, parts.back_mut()) {
                (Past::First, Some(Part::Fresh(fresh))) => fresh.push(incoming),
                (Past::First, _) => parts.push_back(Part::Fresh(vec![incoming])),
                (_, Some(Part::Suspect(suspects))) => {
                    suspects.push_back(Suspect::delivery(incoming, past));
                }
                _ => {
                    let suspects = VecDeque::from([Suspect::delivery(incoming, past)]);
                    parts.push_back(Part::Suspect(suspects));
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
