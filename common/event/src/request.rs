//! Requests: what is asked of a role at once, over RPC, and what comes back. A **command** changes state, a **query** only reads.

use bytes::Bytes;
use jiff::Timestamp;
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::{AttributeError, ContractError, EventType, MAX_DATA_BYTES, RequestId, Source};

/// Whether a request changes anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RequestKind {
    /// It changes state, once: a retry under the same id is answered from the reply that was stored with the change.
    Command,
    /// It only reads.
    Query,
}

/// Whether the same request may come again under its id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Idempotency {
    /// It may, so that the reply to a command is kept for the whole retention.
    Retryable,
    /// Its id was made for this one time and is known to nobody else: the reply to a command is kept only for as long as whoever
    /// obeys it may be in doubt about its own commit.
    OneShot,
}

/// A published form of a request and of its reply. Once published, a version never changes.
pub trait RequestContract: Serialize + DeserializeOwned {
    /// The versioned type on the wire, such as `payments.authorize.v1`; its first word is the role that answers.
    const TYPE: &'static str;

    /// Whether it changes anything.
    const ACT: RequestKind;

    /// What is answered.
    type Reply: Serialize + DeserializeOwned;

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
    fn request_type() -> EventType {
        #[expect(clippy::expect_used, reason = "a constant of the program")]
        EventType::new(Self::TYPE).expect("a request's TYPE is a well-formed type")
    }

    /// Reads a request as this contract: type, form and rules are checked.
    ///
    /// # Errors
    /// Says in which of these the request breaks the contract.
    fn read(request: &Request) -> Result<Self, ContractError> {
        if request.kind.as_str() != Self::TYPE {
            return Err(ContractError::OtherType(request.kind.to_string()));
        }
        let asked: Self = serde_json::from_slice(&request.data)
            .map_err(|e| ContractError::Data(e.to_string()))?;
        asked.check().map_err(ContractError::Rule)?;
        Ok(asked)
    }
}

/// A request on its way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// Names the request among those of its caller; a retry has the same id.
    pub id: RequestId,
    /// Who asks: the source of the program that asks. With the id it tells requests apart.
    pub caller: Source,
    /// Its versioned type.
    pub kind: EventType,
    /// Whether it changes anything.
    pub act: RequestKind,
    /// When it was first asked: a command older than replies are kept is refused.
    pub time: Timestamp,
    /// After this nobody waits for the reply, and work on it is not begun.
    pub deadline: Timestamp,
    /// Whether it may come again. It is not on the wire: what comes over the broker always may.
    pub idempotency: Idempotency,
    /// W3C trace context, handed through unread.
    pub traceparent: Option<String>,
    /// What is asked, in JSON.
    pub data: Bytes,
}

impl Request {
    /// Writes a request down.
    ///
    /// # Errors
    /// The request breaks its own rules, or its data exceeds 1 MiB.
    pub fn from_contract<C: RequestContract>(
        caller: &Source,
        id: RequestId,
        time: Timestamp,
        deadline: Timestamp,
        asked: &C,
    ) -> Result<Self, ContractError> {
        asked.check().map_err(ContractError::Rule)?;
        let data = serde_json::to_vec(asked).map_err(|e| ContractError::Data(e.to_string()))?;
        if data.len() > MAX_DATA_BYTES {
            return Err(ContractError::TooLarge(data.len()));
        }
        Ok(Self {
            id,
            caller: caller.clone(),
            kind: C::request_type(),
            act: C::ACT,
            time,
            deadline,
            idempotency: Idempotency::Retryable,
            traceparent: None,
            data: data.into(),
        })
    }

    /// The role that answers: the first word of the type.
    #[must_use]
    pub fn role(&self) -> &str {
        self.kind.subject_kind()
    }
}

/// A role will not do what was asked, and says why. Nothing was changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{detail} ({code})")]
pub struct Rejection {
    /// A word for programs, such as `card_declined`; part of the contract.
    pub code: String,
    /// A sentence for people.
    pub detail: String,
}

impl Rejection {
    /// The code of requests that break their contract or are in none.
    pub const BAD_REQUEST: &'static str = "bad_request";
    /// The code of a command that comes under the id of another one.
    pub const ID_REUSED: &'static str = "id_reused";
    /// The code of a command that is older than replies are kept.
    pub const TOO_OLD: &'static str = "too_old";
    /// The code of what waits for something that has not come yet: asking again later may help.
    pub const NOT_YET: &'static str = "not_yet";
    /// The code of a request whose deadline was long over by the clock of whoever was to answer it, when the broker, which drops what is
    /// late, still had it: the clocks differ.
    pub const CLOCK_SKEW: &'static str = "clock_skew";
    /// The code of a request from a user of the broker that may not send any.
    pub const FORBIDDEN: &'static str = "forbidden";
    /// The code of a request on which the handler failed.
    pub const FAILED: &'static str = "failed";

    /// A refusal.
    pub fn new(code: impl Into<String>, detail: impl Into<String>) -> Self {
        Self {
            code: code.into(),
            detail: detail.into(),
        }
    }
}

impl From<ContractError> for Rejection {
    fn from(error: ContractError) -> Self {
        Self::new(Self::BAD_REQUEST, error.to_string())
    }
}

impl From<AttributeError> for Rejection {
    fn from(error: AttributeError) -> Self {
        Self::new(Self::BAD_REQUEST, error.to_string())
    }
}

/// What comes back: the reply in JSON, or why there is none.
pub type RequestResult = Result<Bytes, Rejection>;
