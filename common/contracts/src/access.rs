//! Served HTTP requests, on `request/INSTANCE`: an instance is one start of a gateway, or one imported file.
//!
//! A client's address is truncated to its network, and no query string is kept, before an event exists: the contract rejects
//! anything else. All texts are printable ASCII of bounded length without quotation marks, so a line of a log made of them is one line.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use doorstep_event::{Contract, Timestamp};
use serde::{Deserialize, Serialize};

/// The endpoint of requests without a route, and of paths beyond the bound of an import.
pub const OTHER_ENDPOINT: &str = "other";

const MAX_METHOD_BYTES: usize = 20;
/// Maximum bytes of a route or path.
pub const MAX_PATH_BYTES: usize = 500;
/// Maximum bytes of a referrer or user agent.
pub const MAX_HEADER_BYTES: usize = 300;

/// `request.served.v1`: the server has answered a request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RequestServed {
    pub served_at: Timestamp,
    /// The method; absent if the request had none that is valid.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub method: Option<String>,
    /// The route's template, such as `/orders/{order}`, or [`OTHER_ENDPOINT`].
    pub route: String,
    /// The path without its query, if the route differs from it and it may be kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// The status code of the response.
    pub status: u16,
    /// Bytes of the response's body.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes: Option<u64>,
    /// Time from the request's head to the response's head, in microseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub duration_us: Option<u64>,
    /// The client's network: the first 24 bits of an IPv4 address, the first 48 of an IPv6 address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client: Option<IpAddr>,
    /// The referrer without its query.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub referrer: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user_agent: Option<String>,
}

impl RequestServed {
    /// Returns the name under which requests are counted: method and route, or [`OTHER_ENDPOINT`].
    #[must_use]
    pub fn endpoint(&self) -> String {
        match &self.method {
            Some(method) if self.route != OTHER_ENDPOINT => format!("{method} {}", self.route),
            _ => OTHER_ENDPOINT.to_owned(),
        }
    }

    /// Returns whether a text is a method that the contract accepts.
    #[must_use]
    pub fn is_method(text: &str) -> bool {
        (1..=MAX_METHOD_BYTES).contains(&text.len())
            && text.bytes().all(|b| b.is_ascii_uppercase() || b == b'-')
    }

    /// Returns a referrer or user agent as it may be kept; `None` if there was none. A referrer must have lost its query.
    #[must_use]
    pub fn header(value: &[u8]) -> Option<String> {
        let (Printable::Whole(text) | Printable::Cut(text)) =
            printable(value, MAX_HEADER_BYTES, b'"');
        Some(text).filter(|text| !text.is_empty() && text != "-")
    }

    /// Returns the network of an address, which the contract accepts in its place.
    #[must_use]
    pub fn network(address: IpAddr) -> IpAddr {
        match address.to_canonical() {
            IpAddr::V4(v4) => {
                let [a, b, c, _] = v4.octets();
                Ipv4Addr::new(a, b, c, 0).into()
            }
            IpAddr::V6(v6) => {
                let [a, b, c, ..] = v6.segments();
                Ipv6Addr::new(a, b, c, 0, 0, 0, 0, 0).into()
            }
        }
    }
}

/// A text that the contract accepts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Printable {
    Whole(String),
    /// The beginning of a text that was too long.
    Cut(String),
}

/// Percent-encodes all bytes but printable ASCII, and also quotation marks and `reserved`. Cuts the text at a bound, never within an
/// encoded byte.
#[must_use]
pub fn printable(bytes: &[u8], max_bytes: usize, reserved: u8) -> Printable {
    let mut text = String::with_capacity(bytes.len().min(max_bytes));
    for byte in bytes {
        let is_plain = matches!(byte, b' '..=b'~') && *byte != b'"' && *byte != reserved;
        if text.len() + if is_plain { 1 } else { 3 } > max_bytes {
            return Printable::Cut(text);
        }
        if is_plain {
            text.push(char::from(*byte));
        } else {
            text += &format!("%{byte:02X}");
        }
    }
    Printable::Whole(text)
}

impl Contract for RequestServed {
    const TYPE: &'static str = "request.served.v1";

    fn check(&self) -> Result<(), String> {
        if let Some(method) = &self.method
            && !Self::is_method(method)
        {
            return Err("method is not 1 to 20 capital letters".to_owned());
        }
        check_path("route", &self.route)?;
        self.path
            .as_deref()
            .map_or(Ok(()), |path| check_path("path", path))?;
        if !(100..1000).contains(&self.status) {
            return Err(format!("status {} is not from 100 to 999", self.status));
        }
        if let Some(client) = self.client
            && Self::network(client) != client
        {
            return Err("client is an address, not its network".to_owned());
        }
        let headers = [
            ("referrer", &self.referrer),
            ("user_agent", &self.user_agent),
        ];
        for (name, text) in headers {
            if let Some(text) = text {
                check_printable(name, text, MAX_HEADER_BYTES)?;
            }
        }
        if self
            .referrer
            .as_deref()
            .is_some_and(|text| text.contains('?'))
        {
            return Err("referrer has a query".to_owned());
        }
        Ok(())
    }
}

fn check_path(name: &str, text: &str) -> Result<(), String> {
    check_printable(name, text, MAX_PATH_BYTES)?;
    // A message never repeats the text: it may contain what should not be kept.
    if text.contains(['?', ' ']) {
        return Err(format!("{name} contains a query or a space"));
    }
    Ok(())
}

fn check_printable(name: &str, text: &str, max_bytes: usize) -> Result<(), String> {
    if text.is_empty() || text.len() > max_bytes {
        return Err(format!(
            "{name} has {} bytes, not 1 to {max_bytes}",
            text.len()
        ));
    }
    if !text.bytes().all(|b| matches!(b, b' '..=b'~') && b != b'"') {
        return Err(format!(
            "{name} is not printable ASCII without quotation marks"
        ));
    }
    Ok(())
}

/// `request.dropped.v1`: the instance dropped events of served requests, since its buffer was full. They have no numbers, so the
/// stream has no gap.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RequestsDropped {
    /// Number of dropped events: one or more.
    pub count: u64,
    pub first_at: Timestamp,
    /// Time of the last dropped one, not before `first_at`.
    pub last_at: Timestamp,
}

impl Contract for RequestsDropped {
    const TYPE: &'static str = "request.dropped.v1";

    fn check(&self) -> Result<(), String> {
        if self.count == 0 {
            return Err("count is zero".to_owned());
        }
        if self.last_at < self.first_at {
            return Err(format!(
                "last_at {} is before first_at {}",
                self.last_at, self.first_at
            ));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn served() -> RequestServed {
        RequestServed {
            served_at: "2026-11-30T10:05:03Z".parse().unwrap(),
            method: Some("GET".to_owned()),
            route: "/orders/{order}".to_owned(),
            path: None,
            status: 200,
            bytes: Some(512),
            duration_us: Some(1_500),
            client: Some("203.0.113.0".parse().unwrap()),
            referrer: None,
            user_agent: Some("curl/8.5".to_owned()),
        }
    }

    #[test]
    fn networks_replace_addresses() {
        let network = |text: &str| RequestServed::network(text.parse().unwrap()).to_string();
        assert_eq!(network("203.0.113.77"), "203.0.113.0");
        assert_eq!(network("::ffff:203.0.113.77"), "203.0.113.0");
        assert_eq!(network("2001:db8:1:2:3:4:5:6"), "2001:db8:1::");
        for (client, fits) in [
            ("203.0.113.0", true),
            ("203.0.113.1", false),
            ("2001:db8::1", false),
        ] {
            let client = Some(client.parse().unwrap());
            assert_eq!(RequestServed { client, ..served() }.check().is_ok(), fits);
        }
    }

    #[test]
    fn endpoint_is_method_and_route() {
        assert_eq!(served().endpoint(), "GET /orders/{order}");
        let no_method = RequestServed {
            method: None,
            ..served()
        };
        assert_eq!(no_method.endpoint(), OTHER_ENDPOINT);
        let no_route = RequestServed {
            route: OTHER_ENDPOINT.to_owned(),
            ..served()
        };
        assert_eq!(no_route.endpoint(), OTHER_ENDPOINT);
    }

    #[test]
    fn hostile_texts_break_the_contract() {
        let route = |route: &str| RequestServed {
            route: route.to_owned(),
            ..served()
        };
        let agent = |text: &str| RequestServed {
            user_agent: Some(text.to_owned()),
            ..served()
        };
        let referrer = |text: &str| RequestServed {
            referrer: Some(text.to_owned()),
            ..served()
        };
        for bad in [
            route(""),
            route("/a?token=1"),
            route("/a b"),
            route("/a\n"),
            route("/\u{e9}"),
            route(&"/".repeat(MAX_PATH_BYTES + 1)),
            agent("\u{1b}[31m"),
            agent("a\"b"),
            agent(&"a".repeat(MAX_HEADER_BYTES + 1)),
            referrer("http://shop/?q=1"),
            RequestServed {
                method: Some("get\n".to_owned()),
                ..served()
            },
            RequestServed {
                status: 99,
                ..served()
            },
            RequestServed {
                path: Some("/a?b".to_owned()),
                ..served()
            },
        ] {
            let said = bad.check().unwrap_err();
            assert!(!said.contains("token"), "{said}");
        }
        assert_eq!(served().check(), Ok(()));
    }

    #[test]
    fn drops_are_counted_from_one() {
        let at = |s: &str| -> Timestamp { s.parse().unwrap() };
        let drops = |count, last_at: &str| RequestsDropped {
            count,
            first_at: at("2026-11-30T10:00:00Z"),
            last_at: at(last_at),
        };
        assert!(drops(1, "2026-11-30T10:00:00Z").check().is_ok());
        assert!(drops(0, "2026-11-30T10:00:00Z").check().is_err());
        assert!(drops(1, "2026-11-30T09:00:00Z").check().is_err());
    }
}
