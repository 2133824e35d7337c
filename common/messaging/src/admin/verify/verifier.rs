//! A running verification: its connection, and the findings so far.

use lapin::Channel;

use super::finding::{Finding, Permission};
use crate::connection::{
    Connection,
    error::{ConnectError, Result, reply},
    probe_channel::{ProbeChannel, ProbeResult},
};

/// State shared by all parts of the verification.
pub(super) struct Verifier<'a> {
    pub(super) probe: ProbeChannel<'a>,
    pub(super) vhost: String,
    pub(super) findings: Vec<Finding>,
}

impl<'a> Verifier<'a> {
    pub(super) fn new(probe: ProbeChannel<'a>) -> Self {
        Self {
            vhost: probe.connection().address().vhost().to_owned(),
            probe,
            findings: Vec::new(),
        }
    }

    pub(super) fn connection(&self) -> &'a Connection {
        self.probe.connection()
    }

    /// Tries a request on the open channel or a new one.
    ///
    /// # Errors
    /// Fails if the connection is unusable, or the broker does not respond.
    pub(super) async fn try_method<T>(
        &mut self,
        what: &str,
        name: &str,
        request: impl AsyncFnOnce(Channel) -> lapin::Result<T>,
    ) -> Result<ProbeResult<T>> {
        match self.probe.try_method(request).await? {
            ProbeResult::TimedOut => Err(self.timed_out(what, name)),
            result => Ok(result),
        }
    }

    /// Tries a request. Returns the broker's text if it denies the user a permission.
    pub(super) async fn denial<T>(
        &mut self,
        what: &str,
        name: &str,
        request: impl AsyncFnOnce(Channel) -> lapin::Result<T>,
    ) -> Result<Option<String>> {
        Ok(match self.try_method(what, name, request).await? {
            ProbeResult::Rejected(reply::ACCESS_REFUSED, text) => Some(text),
            // Allowed, or the object is missing, which is its own finding.
            ProbeResult::Accepted(_) | ProbeResult::Rejected(..) | ProbeResult::TimedOut => None,
        })
    }

    pub(super) fn timed_out(&self, what: &str, name: &str) -> ConnectError {
        self.probe.timed_out(&format!("{what} {name}"))
    }

    /// Records a permission that the user lacks.
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
