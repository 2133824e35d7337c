//! The calls that wait for replies.

use std::{
    collections::{BTreeSet, HashMap},
    time::Duration,
};

use bytes::Bytes;
use doorstep_event::RequestKind;
use tokio::{sync::oneshot, time::Instant};

use crate::{locked::Locked, rpc::error::CallError};

/// Calls in flight, by number. A number is used once in a client's life, so a late reply finds no caller rather than a wrong one.
pub(super) struct PendingCalls {
    /// Distinguishes this client's requests from those of other clients.
    client: String,
    open: Locked<HashMap<u64, PendingCall>>,
}

pub(super) struct PendingCall {
    pub(super) role: Box<str>,
    pub(super) act: RequestKind,
    pub(super) since: Instant,
    pub(super) done: oneshot::Sender<Result<Bytes, CallError>>,
}

impl PendingCalls {
    pub(super) fn new() -> Self {
        Self {
            client: format!("{:016x}", rand::random::<u64>()),
            open: Locked::default(),
        }
    }

    /// Returns a request's correlation id.
    pub(super) fn correlation(&self, number: u64) -> String {
        format!("{}-{number}", self.client)
    }

    /// Returns the request's number; `None` if the correlation id is not from this client.
    pub(super) fn number(&self, correlation: &str) -> Option<u64> {
        let number = correlation.strip_prefix(&self.client)?;
        number.strip_prefix('-')?.parse().ok()
    }

    pub(super) fn insert(&self, number: u64, call: PendingCall) {
        self.open.lock().insert(number, call);
    }

    pub(super) fn remove(&self, number: u64) -> Option<PendingCall> {
        self.open.lock().remove(&number)
    }

    /// Completes a call. Returns whether its caller still waited.
    pub(super) fn complete(&self, number: u64, result: Result<Bytes, CallError>) -> bool {
        // Sending fails if the caller was dropped at this moment.
        self.remove(number)
            .is_some_and(|call| call.done.send(result).is_ok())
    }

    /// Ends the calls selected by `which` with this error.
    pub(super) fn fail(&self, error: &CallError, which: impl Fn(&PendingCall) -> bool) {
        let ended: Vec<PendingCall> = self
            .open
            .lock()
            .extract_if(|_, call| which(call))
            .map(|(_, call)| call)
            .collect();
        for call in ended {
            let _ = call.done.send(Err(error.clone()));
        }
    }

    /// Returns the roles with calls older than `age`.
    pub(super) fn slow_roles(&self, age: Duration) -> BTreeSet<Box<str>> {
        let now = Instant::now();
        self.open
            .lock()
            .values()
            .filter(|call| now.saturating_duration_since(call.since) >= age)
            .map(|call| call.role.clone())
            .collect()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.open.lock().is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn correlation_ids_of_other_clients_are_ignored() {
        let calls = PendingCalls::new();
        assert_eq!(calls.number(&calls.correlation(7)), Some(7));
        assert_eq!(calls.number(&PendingCalls::new().correlation(7)), None);
        assert_eq!(calls.number(""), None);
    }
}
