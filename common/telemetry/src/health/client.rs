//! Queries the health of a process.

use std::{io, net::SocketAddr, time::Duration};

use crate::HttpUrl;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HealthCheck {
    /// Liveness: whether the process makes progress.
    Alive,
    /// Readiness: whether the process does its work.
    Ready,
}

/// No process of Doorstep replies at the address.
#[derive(Debug, thiserror::Error)]
#[error("no health endpoint replies at {address}: {reason}")]
pub struct ProbeError {
    address: SocketAddr,
    reason: io::Error,
}

/// Queries the process whose endpoint is at this address. Returns whether it is healthy, and the response as JSON. Blocks for at most
/// `limit`. An unspecified address stands for the loopback address.
///
/// # Errors
/// Fails if no process replies within the limit, or the reply is not from a process of Doorstep.
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
    match url.join(path).get(limit).map_err(failed)? {
        (200, body) => Ok((true, body)),
        (503, body) => Ok((false, body)),
        (status, _) => Err(failed(io::Error::other(format!(
            "it replies with status {status}"
        )))),
    }
}
