//! Opens connections to one of several addresses.

use std::sync::atomic::{AtomicUsize, Ordering};

use super::Connection;
use crate::{
    connection::error::{ConnectError, ConnectErrorKind, Result},
    settings::BrokerSettings,
};

/// Opens successive connections under one name, beginning with the address that worked last. The first address of the list may be down for
/// weeks, and would add its full timeout to every reconnect.
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

    /// Tries every address once, each for at most [`BrokerSettings::connect_timeout`].
    ///
    /// # Errors
    /// Fails if no address works. The kind is that of the first permanent failure, else of the last failure.
    pub(crate) async fn open(&self) -> Result<Connection> {
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

/// Returns the order in which the addresses are tried.
fn rotation(first: usize, count: usize) -> impl Iterator<Item = usize> {
    (0..count).map(move |turn| (first + turn) % count)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rotation_starts_at_the_last_working_address() {
        assert_eq!(rotation(0, 3).collect::<Vec<_>>(), [0, 1, 2]);
        assert_eq!(rotation(2, 3).collect::<Vec<_>>(), [2, 0, 1]);
        assert_eq!(rotation(0, 0).count(), 0);
    }
}
