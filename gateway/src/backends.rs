//! RPC calls to the roles.

use std::time::Duration;

use doorstep_event::{Rejection, Request, RequestContract, RequestId, Source, Timestamp};
use doorstep_messaging::{CallError, ConnectionStatus, RpcClient};
use uuid::Uuid;

use crate::{error_mapping, http::Problem};

/// The timeout of a query.
pub(crate) const QUERY_TIME: Duration = Duration::from_secs(4);
/// The `Retry-After` when no role replies.
const RETRY_AFTER: Duration = Duration::from_secs(2);

/// Calls roles in the name of this gateway. Clones share one connection.
#[derive(Debug, Clone)]
pub(crate) struct Backends {
    requester: RpcClient,
    caller: Source,
}

impl Backends {
    /// Creates a client that calls in the name of the gateway with this source.
    pub(crate) fn new(requester: RpcClient, caller: Source) -> Self {
        Self { requester, caller }
    }

    /// Returns the status of the connection.
    pub(crate) fn link(&self) -> ConnectionStatus {
        self.requester.status().borrow().clone()
    }

    /// Sends a query, which changes nothing.
    ///
    /// # Errors
    /// There is no reply.
    pub(crate) async fn query<C: RequestContract>(&self, asked: &C) -> Result<C::Reply, CallError> {
        self.command(None, after(QUERY_TIME), asked).await
    }

    /// Sends a command under this id, or under a new one, and waits for the reply until the deadline at most.
    ///
    /// # Errors
    /// There is no reply. Unless the error is a rejection, the role may have executed the command, or may still do so.
    pub(crate) async fn command<C: RequestContract>(
        &self,
        id: Option<RequestId>,
        deadline: Timestamp,
        asked: &C,
    ) -> Result<C::Reply, CallError> {
        let id = match id {
            Some(id) => id,
            None => RequestId::new(Uuid::now_v7().simple().to_string()).map_err(Rejection::from)?,
        };
        let request = Request::from_contract(&self.caller, id, Timestamp::now(), deadline, asked)
            .map_err(Rejection::from)?;
        self.requester.call::<C>(request).await
    }

    pub(crate) async fn close(self, shutdown_timeout: Duration) {
        self.requester.close(shutdown_timeout).await;
    }
}

/// Returns the time that is `time` from now.
pub(crate) fn after(time: Duration) -> Timestamp {
    Timestamp::now().checked_add(time).unwrap_or(Timestamp::MAX)
}

impl From<CallError> for Problem {
    fn from(error: CallError) -> Self {
        let detail = error.to_string();
        match error {
            CallError::Rejected(rejected) => error_mapping::problem(rejected),
            CallError::NoResponder { .. } => Self::unavailable("no_responder", detail, RETRY_AFTER),
            CallError::TimedOut => Self::unavailable("timed_out", detail, RETRY_AFTER),
            CallError::Overloaded { retry_after } => {
                Self::unavailable("overloaded", detail, retry_after)
            }
            // Only the log gets the details of the connection.
            CallError::Unreachable { reason } => {
                tracing::debug!(reason, "cannot call a role");
                Self::unavailable(
                    "broker_unavailable",
                    "the broker is unavailable",
                    RETRY_AFTER,
                )
            }
            CallError::Malformed(reason) => {
                tracing::error!(reason, "a role's reply is malformed");
                Self::internal()
            }
        }
    }
}
