//! Opens connections, over several addresses.

use std::sync::atomic::{AtomicUsize, Ordering};

use super::Connection;
use crate::{
    error::{ConnectError, ConnectErrorKind},
    settings::BrokerSettings,
};

/// Opens one connection after the other under the same name. It begins with the address that worked last: the first of the list may be
/// dead for weeks, and would cost every reconnect the time that it takes to be sure of it.
#[derive(Debug)]
pub(crate) struct Dialer {
    settings: BrokerSettings,
    name: String,
    worked_last: AtomicUsize,
}

impl Dialer {
    pub(crate) fn new(settings: &BrokerSettings, name: &str) -> Self {
        Self {
            settings: settings.clone(),
            name: name.to_owned(),
            worked_last: AtomicUsize::new(0),
        }
    }

    pub(crate) fn settings(&self) -> &BrokerSettings {
        &self.settings
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Tries every address once, each for at most [`BrokerSettings::connect_timeout`].
    ///
    /// # Errors
    /// None of them works; the reason is the first permanent one, else the last.
    pub(crate) async fn open(&self) -> Result<Connection, ConnectError> {
        let addresses = &self.settings.addresses;
        let mut reasons: Vec<ConnectError> = Vec::new();
        for index in rotation(self.worked_last.load(Ordering::Relaxed), addresses.len()) {
            match Connection::open(&self.settings, &addresses[index], &self.name).await {
                Ok(connection) => {
                    self.worked_last.store(index, Ordering::Relaxed);
                    return Ok(connection);
                }
                Err(error) => reasons.push(error),
            }
        }
        let kind = reasons
            .iter()
            .find(|e| e.is_permanent())
            .or(reasons.last())
            .map_or(ConnectErrorKind::Unreachable, ConnectError::kind);
        let texts: Vec<_> = reasons.iter().map(ToString::to_string).collect();
        Err(ConnectError::new(kind, texts.join("; ")))
    }
}

/// The order in which so many addresses are tried.
fn rotation(first: usize, count: usize) -> impl Iterator<Item = usize> {
    (0..count).map(move |turn| (first + turn) % count)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_address_is_tried_once_beginning_with_the_one_that_worked() {
        assert_eq!(rotation(0, 3).collect::<Vec<_>>(), [0, 1, 2]);
        assert_eq!(rotation(2, 3).collect::<Vec<_>>(), [2, 0, 1]);
        assert_eq!(rotation(0, 0).count(), 0);
    }
}
