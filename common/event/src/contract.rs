//! Ties a Rust type to a versioned event type.

use jiff::Timestamp;
use serde::{Serialize, de::DeserializeOwned};

use crate::{AttributeError, Event, EventType, MAX_DATA_BYTES, Sequence, Source, Subject};

/// A published format of an event's data. A published version never changes: any change is a new version beside it.
pub trait Contract: Serialize + DeserializeOwned {
    /// The versioned type on the wire, such as `order.placed.v1`.
    const TYPE: &'static str;

    /// Rejects events without a sequence. It stays true for all changes of money or stock: applying one twice or out of order does harm.
    const REQUIRES_SEQUENCE: bool = true;

    /// Checks the rules beyond the format.
    ///
    /// # Errors
    /// Describes the violated rule, with the values.
    fn check(&self) -> Result<(), String> {
        Ok(())
    }

    /// Returns [`Self::TYPE`] as an [`EventType`].
    ///
    /// # Panics
    /// If [`Self::TYPE`] is not well-formed, which is a bug in the program.
    #[must_use]
    fn event_type() -> EventType {
        #[expect(clippy::expect_used, reason = "a constant of the program")]
        EventType::new(Self::TYPE).expect("a contract's TYPE is a well-formed event type")
    }

    /// Parses an event, and checks its type, subject, sequence, format and rules.
    ///
    /// # Errors
    /// Describes the violation.
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
    /// Creates the event for a contract, with the id `SUBJECT#SEQUENCE`.
    ///
    /// # Errors
    /// Fails if the data violates the contract's rules, the type belongs to another kind of subject, or the data exceeds 1 MiB.
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

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ContractError {
    /// An attribute is invalid or contradicts another.
    #[error(transparent)]
    Attribute(#[from] AttributeError),
    #[error("type {0} is not the one expected here")]
    OtherType(String),
    /// No contract has this type and version.
    #[error("type {0} is in no contract")]
    UnknownType(String),
    #[error("{0} requires a sequence")]
    NoSequence(&'static str),
    /// The data is not JSON, or does not match the contract.
    #[error("data does not fit: {0}")]
    Data(String),
    #[error("{0}")]
    Rule(String),
    /// The data exceeds the limit of 1 MiB.
    #[error(
        "data has {0} bytes, more than 1 MiB (1048576): store it elsewhere and send a reference"
    )]
    TooLarge(usize),
}
