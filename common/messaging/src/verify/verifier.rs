//! A look at a broker: the way to ask it, and what was found so far.

use lapin::Channel;

use super::finding::{Finding, Permission};
use crate::{
    connection::Connection,
    error::{ConnectError, ConnectErrorKind},
    probe_channel::{ProbeChannel, ProbeResult},
};

/// What every part of the verification has in common.
pub(super) struct Verifier<'a> {
    pub(super) asker: ProbeChannel<'a>,
    pub(super) vhost: String,
    pub(super) findings: Vec<Finding>,
}

impl<'a> Verifier<'a> {
    pub(super) fn new(asker: ProbeChannel<'a>) -> Self {
        Self {
            vhost: asker.connection().address().vhost().to_owned(),
            asker,
            findings: Vec::new(),
        }
    }

    pub(super) fn connection(&self) -> &'a Connection {
        self.asker.connection()
    }

    /// Asks, on the open channel or on a new one.
    ///
    /// # Errors
    /// The connection is of no more use, or the broker does not answer.
    pub(super) async fn ask<T>(
        &mut self,
        what: &str,
        name: &str,
        request: impl AsyncFnOnce(Channel) -> lapin::Result<T>,
    ) -> Result<ProbeResult<T>, ConnectError> {
        match self.asker.try_method(request).await? {
            ProbeResult::Silence => Err(self.silence(what, name)),
            answer => Ok(answer),
        }
    }

    pub(super) fn silence(&self, what: &str, name: &str) -> ConnectError {
        ConnectError::new(
            ConnectErrorKind::Silent,
            format!(
                "{} has not answered for {:?} about {what} {name}: has its cluster lost its majority?",
                self.connection().address(),
                self.asker.limit(),
            ),
        )
    }

    /// Notes a right that the user lacks.
    pub(super) fn forbidden(&mut self, right: Permission, what: &'static str, name: &str) {
        let user = self.connection().address().user().to_owned();
        self.findings.push(Finding::Forbidden {
            right,
            what,
            name: name.to_owned(),
            user,
            vhost: self.vhost.clone(),
        });
    }
}
