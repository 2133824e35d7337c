//! RPC requests to roles, and their replies. A **command** changes state, a **query** only reads.

use bytes::Bytes;
use jiff::Timestamp;
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::{AttributeError, ContractError, EventType, MAX_DATA_BYTES, RequestId, Source};

/// The kind of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RequestKind {
    /// Changes state, once: a retry with the same id gets the reply stored with the change.
    Command,
    Query,
}

/// The retry policy of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Idempotency {
    /// It may be retried, so a command's reply is kept for the whole retention period.
    Retryable,
    /// Its id is used once and known only to its sender. A command's reply is kept only while the executing role may be in doubt about its
    /// own commit.
    OneShot,
}

/// A published format of a request and its reply. A published version never changes.
pub trait RequestContract: Serialize + DeserializeOwned {
    /// The versioned type on the wire, such as `payments.authorize.v1`; its first word is the role.
    const TYPE: &'static str;

    const ACT: RequestKind;

    type Reply: Serialize + DeserializeOwned;

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
    fn request_type() -> EventType {
        #[expect(clippy::expect_used, reason = "a constant of the program")]
        EventType::new(Self::TYPE).expect("a request's TYPE is a well-formed type")
    }

    /// Parses a request, and checks its type, format and rules.
    ///
    /// # Errors
    /// Describes the violation.
    fn read(request: &Request) -> Result<Self, ContractError> {
        if request.kind.as_str() != Self::TYPE {
            return Err(ContractError::OtherType(request.kind.to_string()));
        }
        let data: Self = serde_json::from_slice(&request.data)
            .map_err(|e| ContractError::Data(e.to_string()))?;
        data.check().map_err(ContractError::Rule)?;
        Ok(data)
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// Unique among the requests of its caller; a retry has the same id.
    pub id: RequestId,
    /// Source of the calling program. Together with the id it identifies the request.
    pub caller: Source,
    pub kind: EventType,
    pub act: RequestKind,
    /// Time of the first attempt. A command older than the retention of replies is rejected.
    pub time: Timestamp,
    /// Time after which the caller no longer waits, and work on it is not begun.
    pub deadline: Timestamp,
    /// The retry policy. Not on the wire: requests from the broker may always be retried.
    pub idempotency: Idempotency,
    /// W3C trace context, passed through unread.
    pub traceparent: Option<String>,
    /// The data in JSON.
    pub data: Bytes,
}

impl Request {
    /// Creates a request from its contract.
    ///
    /// # Errors
    /// Fails if the data violates the contract's rules, or exceeds 1 MiB.
    pub fn from_contract<C: RequestContract>(
        caller: &Source,
        id: RequestId,
        time: Timestamp,
        deadline: Timestamp,
        contract: &C,
    ) -> Result<Self, ContractError> {
        contract.check().map_err(ContractError::Rule)?;
        let data = serde_json::to_vec(contract).map_err(|e| ContractError::Data(e.to_string()))?;
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

    /// Returns the role that handles it: the first word of the type.
    #[must_use]
    pub fn role(&self) -> &str {
        self.kind.subject_kind()
    }
}

/// A role's rejection of a request. Nothing was changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{detail} ({code})")]
pub struct Rejection {
    /// A code for programs, such as `card_declined`; part of the contract.
    pub code: String,
    pub detail: String,
}

impl Rejection {
    /// Code of a request that violates its contract, or has none.
    pub const BAD_REQUEST: &'static str = "bad_request";
    /// Code of a command with the id of a different command.
    pub const ID_REUSED: &'static str = "id_reused";
    /// Code of a command older than the retention of replies.
    pub const TOO_OLD: &'static str = "too_old";
    /// Code of a request that depends on an event that has not arrived. A later retry may succeed.
    pub const NOT_YET: &'static str = "not_yet";
    /// Code of a request that expired long ago by the server's clock, although the broker, which drops expired requests, delivered it: the
    /// clocks differ.
    pub const CLOCK_SKEW: &'static str = "clock_skew";
    /// Code of a request from a broker user without permission.
    pub const FORBIDDEN: &'static str = "forbidden";
    /// Code of a request whose handler failed.
    pub const FAILED: &'static str = "failed";

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

/// The result of a request: the reply in JSON, or a rejection.
pub type RequestResult = Result<Bytes, Rejection>;
