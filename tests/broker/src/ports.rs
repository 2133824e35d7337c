//! The ports of a private node.

use std::hash::{BuildHasher, RandomState};
use std::net::TcpListener;

use anyhow::{Context, Result};

/// Below the ports of outgoing connections. One of those could be taken while its node is down, or a reconnecting
/// client could even connect to itself.
const FIRST: u16 = 21_000;
const LAST: u16 = 32_000;
const PER_NODE: u16 = 4;

/// The ports of one node, all on 127.0.0.1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ports {
    /// The port of AMQP.
    pub amqp: u16,
    /// The port of the management UI and API.
    pub management: u16,
    /// Erlang's own protocol, used by `rabbitmqctl`.
    pub distribution: u16,
    /// The node's own epmd, which tells `rabbitmqctl` the distribution port.
    pub epmd: u16,
}

impl Ports {
    /// Picks four consecutive ports that are free and not among `taken`. Starts the search at a random port, so that
    /// concurrent searches rarely collide.
    pub(crate) fn pick(taken: &[u16]) -> Result<Self> {
        let groups = (LAST - FIRST) / PER_NODE;
        let start = (RandomState::new().hash_one(0) % u64::from(groups)) as u16;
        (0..groups)
            .map(|step| Self::from_first(FIRST + (start + step) % groups * PER_NODE))
            .find(|ports| ports.all().iter().all(|port| !taken.contains(port)) && ports.are_free())
            .with_context(|| format!("no four free ports between {FIRST} and {LAST}"))
    }

    /// `first` and the three after it.
    #[must_use]
    pub const fn from_first(first: u16) -> Self {
        Self {
            amqp: first,
            management: first + 1,
            distribution: first + 2,
            epmd: first + 3,
        }
    }

    pub(crate) fn all(&self) -> [u16; 4] {
        [self.amqp, self.management, self.distribution, self.epmd]
    }

    /// Returns true if all of them are free now.
    pub(crate) fn are_free(&self) -> bool {
        let listeners = self
            .all()
            .map(|port| TcpListener::bind(("127.0.0.1", port)));
        listeners.iter().all(Result::is_ok)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn picked_ports_are_free_and_not_taken() {
        // A child process started by another thread at this moment keeps copies of the probing sockets for an instant.
        let (first, listener) = (0..5)
            .find_map(|_| {
                let ports = Ports::pick(&[]).unwrap();
                let listener = TcpListener::bind(("127.0.0.1", ports.distribution)).ok()?;
                Some((ports, listener))
            })
            .unwrap();
        assert!(!first.are_free());
        drop(listener);
        for _ in 0..50 {
            let other = Ports::pick(&first.all()).unwrap();
            assert_ne!(other, first);
        }
        // Another process may take the picked ports at this moment, but hardly every time.
        assert!((0..5).any(|_| Ports::pick(&first.all()).unwrap().are_free()));
    }
}
