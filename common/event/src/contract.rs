//! The tie between a Rust type and a versioned event type.

use jiff::Timestamp;
use serde::{Serialize, de::DeserializeOwned};

use crate::{AttributeError, Event, EventType, MAX_DATA_BYTES, Sequence, Source, Subject};

/// A published form of an event's data. Once published, a version never changes: what changes is a new version beside it.
pub trait Contract: Serialize + DeserializeOwned {
    /// The versioned type on the wire, such as `order.placed.v1`.
    const TYPE: &'static str;

    /// Whether an event without a sequence is refused: so for everything that changes money or stock, where an event applied twice
    /// or out of order does harm.
    const REQUIRES_SEQUENCE: bool;

    /// The rules that the data must keep beyond its form.
    ///
    /// # Errors
    /// Says which rule is broken, with the values.
    fn check(&self) -> Result<(), String> {
        Ok(())
    }

    /// [`Self::TYPE`] as a type.
    ///
    /// # Panics
    /// Where [`Self::TYPE`] is not a well-formed type, which is a mistake in the program.
    #[must_use]
    fn event_type() -> EventType {
        #[expect(clippy::expect_used, reason = "a constant of the program")]
        EventType::new(Self::TYPE).expect("a contract's TYPE is a well-formed event type")
    }

    /// Reads an event as this contract: type, subject, sequence, form and rules are checked.
    ///
    /// # Errors
    /// Says in which of these the event breaks the contract.
    fn read(event: &Event) -> Result<Self, ContractError> {
        if event.event_type.as_str() != Self::TYPE {
            return Err(ContractError::OtherType(event.event_type.to_string()));
        }
        event.event_type.check_subject(&event.subject)?;
        if Self::REQUIRES_SEQUENCE && event.sequence.is_none() {
            return Err(ContractError::NoSequence(Self::TYPE));
        }
        let fact: Self =
            serde_json::from_slice(&event.data).map_err(|e| ContractError::Data(e.to_string()))?;
        fact.check().map_err(ContractError::Rule)?;
        Ok(fact)
    }
}

impl Event {
    /// Writes a contract down as the event with this number in its stream; its id is `SUBJECT#SEQUENCE`.
    ///
    /// # Errors
    /// The contract's own rules are broken, its type is about another kind of subject, or its data exceeds 1 MiB.
    pub fn from_contract<C: Contract>(
        source: &Source,
        subject: &Subject,
        sequence: Sequence,
        time: Timestamp,
        fact: &C,
    ) -> Result<Self, ContractError> {
        fact.check().map_err(ContractError::Rule)?;
        let kind = C::event_type();
        kind.check_subject(subject)?;
        let data = serde_json::to_vec(fact).map_err(|e| ContractError::Data(e.to_string()))?;
        if data.len() > MAX_DATA_BYTES {
            return Err(ContractError::TooLarge(data.len()));
        }
        Ok(Self {
            id: Self::id_for(subject, sequence)?,
            source: source.clone(),
            event_type: kind,
            subject: subject.clone(),
            time: Some(time),
            sequence: Some(sequence),
            epoch: None,
            traceparent: None,
            data: data.into(),
        })
    }
}

/// How an event breaks its contract.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ContractError {
    /// An attribute is wrong or does not fit another.
    #[error(transparent)]
    Attribute(#[from] AttributeError),
    /// The event is of another type than asked for.
    #[error("type {0} is not the one expected here")]
    OtherType(String),
    /// The type is in no contract, or in none of this version.
    #[error("type {0} is in no contract")]
    UnknownType(String),
    /// The contract asks for a sequence, and there is none.
    #[error("{0} requires a sequence")]
    NoSequence(&'static str),
    /// The data is not JSON, or not of the contract's form.
    #[error("data does not fit: {0}")]
    Data(String),
    /// The data breaks one of the contract's rules.
    #[error("{0}")]
    Rule(String),
    /// The data exceeds the bound of 1 MiB.
    #[error("data has {0} bytes, at most 1 MiB (1048576) may travel in an event")]
    TooLarge(usize),
}
