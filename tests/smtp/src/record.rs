//! The record of what a server was sent, and the script that decides on its replies.

use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::{Notify, futures::Notified};

use crate::{Action, Offer, Step};

/// The record of a server.
#[derive(Debug, Default)]
pub struct Log {
    /// The connections that clients have opened so far.
    pub connections: usize,
    /// All commands, in the order of their arrival.
    pub commands: Vec<Command>,
    /// All steps that the script was asked about, with the number of the connection.
    pub steps: Vec<(usize, Step)>,
    /// The accepted mails, in the order of their acceptance.
    pub accepted: Vec<AcceptedMail>,
}

/// A command of a client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Command {
    /// The number of the connection, from 0.
    pub connection: usize,
    pub encrypted: bool,
    /// The line as it was sent, passwords included.
    pub line: String,
}

/// A mail that the server has accepted, whether or not the client has heard of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AcceptedMail {
    /// The number of the connection, from 0.
    pub connection: usize,
    pub encrypted: bool,
    /// The user that logged in.
    pub user: Option<String>,
    /// The line of MAIL.
    pub from: String,
    /// The lines of RCPT.
    pub to: Vec<String>,
    /// The mail without the line end that belongs to the final dot.
    pub data: Vec<u8>,
}

type Script = dyn Fn(usize, Step) -> Action + Send + Sync;

pub(crate) struct Shared {
    pub(crate) offer: Offer,
    script: Box<Script>,
    log: Mutex<Log>,
    changed: Notify,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared")
            .field("log", &self.log)
            .finish_non_exhaustive()
    }
}

impl Shared {
    pub(crate) fn new(
        offer: Offer,
        script: impl Fn(usize, Step) -> Action + Send + Sync + 'static,
    ) -> Self {
        Self {
            offer,
            script: Box::new(script),
            log: Mutex::default(),
            changed: Notify::new(),
        }
    }

    /// Returns a future that is ready after the next change from now on.
    pub(crate) fn changed(&self) -> Notified<'_> {
        self.changed.notified()
    }

    pub(crate) fn log(&self) -> MutexGuard<'_, Log> {
        self.log.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn record(&self, change: impl FnOnce(&mut Log)) {
        change(&mut self.log());
        self.changed.notify_waiters();
    }

    pub(crate) fn action(&self, connection: usize, step: Step) -> Action {
        self.record(|log| log.steps.push((connection, step)));
        (self.script)(connection, step)
    }
}
