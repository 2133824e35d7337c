//! The address of a request's client: of the connection, or, behind the configured proxy, the last one in
//! `X-Forwarded-For`.
//!
//! The client can forge earlier addresses, and also `Forwarded`, which is not read: a proxy that sets one of the two
//! headers passes the other on.
//!
//! axum-client-ip trusts the header of every peer, and rejects requests in which it is no address.

use std::net::{IpAddr, SocketAddr};

use axum::http::HeaderMap;

/// The header in which a proxy names its client.
const FORWARDED: &str = "x-forwarded-for";

/// The address of the client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Origin(pub(crate) IpAddr);

impl Origin {
    /// Returns the client of a request with these headers, on a connection from `peer`.
    ///
    /// Anything that is no address counts as the proxy's own, so clients that a proxy does not name share the limits of
    /// one address.
    pub(crate) fn from_headers(proxy: Option<IpAddr>, peer: IpAddr, headers: &HeaderMap) -> Self {
        if proxy != Some(peer.to_canonical()) {
            return Self(peer);
        }
        let last = headers.get_all(FORWARDED).into_iter().next_back();
        let last = last.and_then(|value| value.to_str().ok()?.rsplit(',').next());
        Self(last.and_then(address).unwrap_or(peer))
    }
}

/// Parses `192.0.2.7`, `2001:db8::1`, `[2001:db8::1]`, and either kind with a port.
fn address(text: &str) -> Option<IpAddr> {
    let text = text.trim();
    if let Ok(address) = text.parse::<IpAddr>() {
        return Some(address);
    }
    if let Ok(address) = text.parse::<SocketAddr>() {
        return Some(address.ip());
    }
    let inner = text.strip_prefix('[')?.strip_suffix(']')?;
    inner.parse().ok().map(IpAddr::V6)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PROXY: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1));

    fn origin(peer: &str, said: &[(&str, &str)]) -> String {
        let said = said
            .iter()
            .map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap()));
        let headers = HeaderMap::from_iter(said);
        Origin::from_headers(Some(PROXY), peer.parse().unwrap(), &headers)
            .0
            .to_string()
    }

    fn forwarded(value: &str) -> String {
        origin("192.0.2.1", &[(FORWARDED, value)])
    }

    #[test]
    fn only_trusted_proxy_header_counts() {
        assert_eq!(forwarded("192.0.2.7"), "192.0.2.7");
        assert_eq!(forwarded("192.0.2.8, 192.0.2.7"), "192.0.2.7");
        let lines = [(FORWARDED, "192.0.2.8"), (FORWARDED, "192.0.2.7")];
        assert_eq!(origin("192.0.2.1", &lines), "192.0.2.7");
        assert_eq!(origin("::ffff:192.0.2.1", &lines), "192.0.2.7");
        assert_eq!(origin("192.0.2.2", &lines), "192.0.2.2");
        assert_eq!(
            origin("192.0.2.1", &[("forwarded", "for=192.0.2.7")]),
            "192.0.2.1"
        );
    }

    #[test]
    fn an_address_may_have_a_port() {
        for (said, expected) in [
            ("192.0.2.7:5678", "192.0.2.7"),
            ("8.8.8.8, 192.0.2.7:1 ", "192.0.2.7"),
            ("2001:db8::1", "2001:db8::1"),
            ("[2001:db8::1]", "2001:db8::1"),
            ("[2001:db8::1]:443", "2001:db8::1"),
        ] {
            assert_eq!(forwarded(said), expected, "{said}");
        }
    }

    #[test]
    fn an_invalid_address_counts_as_the_proxy() {
        for garbage in [
            "",
            ",",
            "192.0.2.7,",
            "unknown",
            "_hidden",
            "192.0.2.7:x",
            "192.0.2.7:70000",
            "192.0.2",
            "[192.0.2.7]",
            "[2001:db8::1",
            "fe80::1%eth0",
            "\"192.0.2.7\"",
            "for=192.0.2.7",
        ] {
            assert_eq!(forwarded(garbage), "192.0.2.1", "{garbage:?}");
        }
        assert_eq!(origin("192.0.2.1", &[]), "192.0.2.1");
    }
}
