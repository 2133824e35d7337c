//! The ports of a private node.

use std::hash::{BuildHasher, RandomState};
use std::net::TcpListener;

use anyhow::{Context, Result};

/// Below the ports that systems give to outgoing connections. A port from among those could be taken while its node is
/// down, or a client that tries to reconnect could even be connected to itself.
const FIRST: u16 = 21_000;
const LAST: u16 = 32_000;
const PER_NODE: u16 = 4;

/// The ports of one node, all on 127.0.0.1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ports {
    /// Where clients connect.
    pub amqp: u16,
    /// The management UI and API.
    pub management: u16,
    /// Erlang's own protocol, used by `rabbitmqctl`.
    pub distribution: u16,
    /// The node's own epmd, where `rabbitmqctl` asks for the port before this one.
    pub epmd: u16,
}

impl Ports {
    /// Four neighbouring ports that nobody listens on and that are not among `taken`. Starts looking at a random place,
    /// so that two who look at once hardly meet.
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

    /// Whether somebody could listen on all of them just now.
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
        // What another thread starts in just this moment keeps, for an instant, the sockets by which ports were looked at.
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
        // Another process may take what was picked in just this moment, but hardly each time.
        assert!((0..5).any(|_| Ports::pick(&first.all()).unwrap().are_free()));
    }
}
