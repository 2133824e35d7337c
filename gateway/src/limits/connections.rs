//! The limits of connections: of all and of each address, and the time for which a client may leave a response unread.

use std::{
    fs,
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use super::{
    keyed_semaphore::{KeyedPermit, KeyedSemaphore},
    network::network,
};

/// The limit of connections; beyond it, new ones wait in the system's own queue.
const CONNECTIONS: usize = 4096;
/// Open files reserved for the store, the broker and the log if the system allows the process few.
const OTHER_FILES: usize = 128;
/// The divisor of the limit of one address: a quarter of all connections, and four at least.
const SHARE: usize = 4;
const MIN_OF_ONE: usize = 8;
/// Time that a client may leave a response unread.
const WRITE_TIMEOUT: Duration = Duration::from_secs(30);

#[derive(Debug, Clone, Copy)]
pub(crate) struct ConnectionLimits {
    /// The limit of all connections.
    pub(crate) all: usize,
    /// The limit of one address.
    pub(crate) of_one: usize,
    /// Time that a client may leave a response unread.
    pub(crate) patience: Duration,
    /// The address of the proxy, which speaks for many clients and has no limit of its own.
    pub(crate) proxy: Option<IpAddr>,
}

impl ConnectionLimits {
    /// Returns the limits for this process: as many connections as its open files allow, up to the limit.
    pub(crate) fn of_this_process(proxy: Option<IpAddr>) -> Self {
        let limits = fs::read_to_string("/proc/self/limits").unwrap_or_default();
        Self::within(open_files(&limits), proxy)
    }

    fn within(files: Option<usize>, proxy: Option<IpAddr>) -> Self {
        let room = files.map_or(CONNECTIONS, |files| files.saturating_sub(OTHER_FILES));
        let all = room.clamp(MIN_OF_ONE, CONNECTIONS);
        Self {
            all,
            of_one: (all / SHARE).max(MIN_OF_ONE),
            patience: WRITE_TIMEOUT,
            proxy,
        }
    }

    /// Acquires a permit for another connection of an address; the proxy needs none.
    ///
    /// # Errors
    /// The address is at its limit.
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
    fn connections_fit_the_descriptor_limit() {
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
