//! Asking a process how it is.

use std::{io, net::SocketAddr, time::Duration};

use crate::HttpUrl;

/// What to ask.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HealthCheck {
    /// Whether it makes progress.
    Alive,
    /// Whether it does its work.
    Ready,
}

/// Nobody answers, or somebody else.
#[derive(Debug, thiserror::Error)]
#[error("nobody answers for a process at {address}: {reason}")]
pub struct ProbeError {
    address: SocketAddr,
    reason: io::Error,
}

/// Asks the process whose endpoint is at this address. Returns whether the answer is yes, and the answer as JSON. Blocks for no longer
/// than the limit. An address on all interfaces is asked on this machine's own.
///
/// # Errors
/// Nobody answers there within the limit, or not in the way that a process of Doorstep does.
pub fn get(
    address: SocketAddr,
    question: HealthCheck,
    limit: Duration,
) -> Result<(bool, String), ProbeError> {
    let mut address = address;
    if address.ip().is_unspecified() {
        let own: std::net::IpAddr = match address {
            SocketAddr::V4(_) => std::net::Ipv4Addr::LOCALHOST.into(),
            SocketAddr::V6(_) => std::net::Ipv6Addr::LOCALHOST.into(),
        };
        address.set_ip(own);
    }
    let path = match question {
        HealthCheck::Alive => "/livez",
        HealthCheck::Ready => "/readyz",
    };
    let failed = |reason| ProbeError { address, reason };
    let url: HttpUrl = format!("http://{address}")
        .parse()
        .map_err(|e| failed(io::Error::other(e)))?;
    match url.join(path).ask(limit).map_err(failed)? {
        (200, answer) => Ok((true, answer)),
        (503, answer) => Ok((false, answer)),
        (status, _) => Err(failed(io::Error::other(format!(
            "it answers with {status}"
        )))),
    }
}
