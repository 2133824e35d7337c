//! The bounds on connections: of all, of one address, and the time for which a client may leave an answer unread.

use std::{
    fs,
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use super::{
    keyed_semaphore::{KeyedPermit, KeyedSemaphore},
    network::network,
};

/// The most connections at a time: the next ones wait in the system's own queue.
const CONNECTIONS: usize = 4096;
/// Open files reserved for the store, the broker and the log where the system allows the process few.
const OTHER_FILES: usize = 128;
/// One address has no more than one in so many of them, and this many at least.
const SHARE: usize = 4;
const LEAST: usize = 8;
/// Time that a client may leave a response unread.
const WRITE_TIMEOUT: Duration = Duration::from_secs(30);

/// Limits of connections.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ConnectionLimits {
    /// The most at a time.
    pub(crate) all: usize,
    /// The most of one address.
    pub(crate) of_one: usize,
    /// Time that a client may leave a response unread.
    pub(crate) patience: Duration,
    /// Whose connections are those of many, and bounded with all others only.
    pub(crate) proxy: Option<IpAddr>,
}

impl ConnectionLimits {
    /// As many as the system lets the process have, up to the most; with this proxy in front, if with any.
    pub(crate) fn of_this_process(proxy: Option<IpAddr>) -> Self {
        let limits = fs::read_to_string("/proc/self/limits").unwrap_or_default();
        Self::within(open_files(&limits), proxy)
    }

    fn within(files: Option<usize>, proxy: Option<IpAddr>) -> Self {
        let room = files.map_or(CONNECTIONS, |files| files.saturating_sub(OTHER_FILES));
        let all = room.clamp(LEAST, CONNECTIONS);
        Self {
            all,
            of_one: (all / SHARE).max(LEAST),
            patience: WRITE_TIMEOUT,
            proxy,
        }
    }

    /// Takes one more connection of an address; a proxy needs none, since it speaks for many.
    ///
    /// # Errors
    /// The address has as many connections as one may have.
    pub(crate) fn acquire(
        &self,
        shares: &KeyedSemaphore<IpAddr>,
        peer: SocketAddr,
    ) -> Result<Option<KeyedPermit<IpAddr>>, ()> {
        if self.proxy == Some(peer.ip().to_canonical()) {
            return Ok(None);
        }
        shares.take(network(peer.ip())).map(Some).ok_or(())
    }
}

/// Returns the process's limit of open files; `None` if the system does not tell it or sets none.
fn open_files(limits: &str) -> Option<usize> {
    let files = |line: &str| {
        let rest = line.strip_prefix("Max open files")?;
        rest.split_whitespace().next()?.parse().ok()
    };
    limits.lines().find_map(files)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_are_no_more_connections_than_the_system_lets_the_process_have() {
        let limits = |soft: &str| {
            format!(
                "Limit                     Soft Limit           Hard Limit           Units\n\
                 Max processes             31190                31190                processes\n\
                 Max open files            {soft}                 524288               files\n"
            )
        };
        let within = |soft: &str| {
            let ConnectionLimits { all, of_one, .. } =
                ConnectionLimits::within(open_files(&limits(soft)), None);
            (all, of_one)
        };
        assert_eq!(within("1024"), (896, 224));
        assert_eq!(within("1048576"), (4096, 1024));
        assert_eq!(within("unlimited"), (4096, 1024));
        assert_eq!(within("64"), (8, 8));
        assert_eq!(open_files(""), None);
    }
}
