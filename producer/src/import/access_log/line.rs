//! A line of an access log in the common or the combined format.
//!
//! An event gets only what the contract allows: the client's network, paths and referrers without their queries, no
//! name of a user, and printable ASCII. Every other byte is percent-encoded, and long texts are cut.

use std::{net::IpAddr, str};

use doorstep_contracts::{MAX_PATH_BYTES, OTHER_ENDPOINT, Printable, RequestServed, printable};
use jiff::{Timestamp, fmt::strtime};

/// Reads a line, without its line break. The route is the whole path.
///
/// # Errors
/// The part that does not fit. The reason repeats nothing of the line, which may contain what must not be kept.
pub(super) fn parse(line: &[u8]) -> Result<RequestServed, String> {
    let mut rest = Rest(line);
    let host = rest.until(b" ", "a client")?;
    rest.until(b" [", "two more fields before the time in brackets")?;
    let served_at = time(rest.until(b"] ", "a time in brackets")?)?;
    let request = rest.quoted("request")?;
    rest.skip(b" ", "a status after the request")?;
    let status = status(rest.next_field())?;
    rest.skip(b" ", "a size after the status")?;
    let bytes = size(rest.next_field())?;
    let (mut referrer, mut user_agent) = (None, None);
    if !rest.0.is_empty() {
        rest.skip(b" ", "a referrer after the size")?;
        referrer = RequestServed::header(&without_query(&unescaped(rest.quoted("referrer")?)));
        rest.skip(b" ", "a user agent after the referrer")?;
        user_agent = RequestServed::header(&unescaped(rest.quoted("user agent")?));
        if !rest.0.is_empty() {
            return Err("it goes on after the user agent, unlike the combined format".to_owned());
        }
    }
    let (method, route, path) = target(&unescaped(request));
    Ok(RequestServed {
        served_at,
        method,
        route,
        path,
        status,
        bytes,
        duration_us: None,
        client: client(host),
        referrer,
        user_agent,
    })
}

/// The part of a line that is not read yet.
struct Rest<'a>(&'a [u8]);

impl<'a> Rest<'a> {
    /// Returns the bytes up to this end, which are at least one, and skips both.
    fn until(&mut self, end: &[u8], what: &str) -> Result<&'a [u8], String> {
        let at = self.0.windows(end.len()).position(|part| part == end);
        let at = at.filter(|at| *at > 0).ok_or_else(|| missing(what))?;
        let (found, rest) = self.0.split_at(at);
        self.0 = &rest[end.len()..];
        Ok(found)
    }

    fn skip(&mut self, start: &[u8], what: &str) -> Result<(), String> {
        self.0 = self.0.strip_prefix(start).ok_or_else(|| missing(what))?;
        Ok(())
    }

    /// Returns the bytes up to a blank or the end.
    fn next_field(&mut self) -> &'a [u8] {
        let end = self
            .0
            .iter()
            .position(|b| *b == b' ')
            .unwrap_or(self.0.len());
        let (word, rest) = self.0.split_at(end);
        self.0 = rest;
        word
    }

    /// Returns the bytes within quotation marks. A backslash escapes one of them.
    fn quoted(&mut self, what: &str) -> Result<&'a [u8], String> {
        let inner = self.0.strip_prefix(b"\"");
        let inner = inner.ok_or_else(|| format!("its {what} is not in quotation marks"))?;
        let mut is_escaped = false;
        for (at, byte) in inner.iter().enumerate() {
            match byte {
                _ if is_escaped => is_escaped = false,
                b'\\' => is_escaped = true,
                b'"' => {
                    self.0 = &inner[at + 1..];
                    return Ok(&inner[..at]);
                }
                _ => {}
            }
        }
        Err(format!("its {what} has no quotation mark at its end"))
    }
}

fn missing(what: &str) -> String {
    format!("it has not {what}, unlike the common format")
}

fn time(text: &[u8]) -> Result<Timestamp, String> {
    let read = || {
        let text = str::from_utf8(text).ok()?;
        let parsed = strtime::parse("%d/%b/%Y:%H:%M:%S %z", text).ok()?;
        parsed.to_timestamp().ok()
    };
    read().ok_or_else(|| "its time is not of the form 17/May/2015:10:05:03 +0000".to_owned())
}

fn status(word: &[u8]) -> Result<u16, String> {
    let status = number(word).and_then(|status| u16::try_from(status).ok());
    status
        .filter(|status| word.len() == 3 && *status >= 100)
        .ok_or_else(|| "its status is not a number from 100 to 999".to_owned())
}

fn size(word: &[u8]) -> Result<Option<u64>, String> {
    if word == b"-" {
        return Ok(None);
    }
    number(word)
        .map(Some)
        .ok_or_else(|| "its size is neither a number of bytes nor a dash".to_owned())
}

fn number(word: &[u8]) -> Option<u64> {
    let is_digits = word.iter().all(u8::is_ascii_digit);
    str::from_utf8(word)
        .ok()
        .filter(|_| is_digits)?
        .parse()
        .ok()
}

/// Returns the client's network; `None` for a host name.
fn client(host: &[u8]) -> Option<IpAddr> {
    let address = str::from_utf8(host).ok()?.parse().ok()?;
    Some(RequestServed::network(address))
}

/// Resolves the escapes of Apache and nginx: `\"`, `\\` and `\xHH`.
fn unescaped(text: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((byte, after)) = rest.split_first() {
        rest = after;
        match (byte, after) {
            (b'\\', [b'x', high, low, after @ ..])
                if hex(*high).is_some() && hex(*low).is_some() =>
            {
                bytes.push(hex(*high).unwrap_or(0) << 4 | hex(*low).unwrap_or(0));
                rest = after;
            }
            (b'\\', [escaped @ (b'"' | b'\\'), after @ ..]) => {
                bytes.push(*escaped);
                rest = after;
            }
            (byte, _) => bytes.push(*byte),
        }
    }
    bytes
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit)
        .to_digit(16)
        .and_then(|value| u8::try_from(value).ok())
}

fn without_query(text: &[u8]) -> Vec<u8> {
    let end = text.iter().position(|b| matches!(b, b'?' | b'#'));
    text[..end.unwrap_or(text.len())].to_vec()
}

/// Returns method and route of a request line, and the path if the route is not the path. Anything but an HTTP request
/// for a path is one of the other endpoint.
fn target(request: &[u8]) -> (Option<String>, String, Option<String>) {
    let other = |method, path| (method, OTHER_ENDPOINT.to_owned(), path);
    let Some(space) = request.iter().position(|b| *b == b' ') else {
        return other(None, None);
    };
    let (method, target) = (&request[..space], &request[space + 1..]);
    let method = str::from_utf8(method)
        .ok()
        .filter(|text| RequestServed::is_method(text));
    let Some(method) = method.map(str::to_owned) else {
        return other(None, None);
    };
    // Without a protocol it is a request of HTTP/0.9. A target with blanks is malformed, and yet it was served.
    let protocol = target.windows(6).rposition(|part| part == b" HTTP/");
    let target = &target[..protocol.unwrap_or(target.len())];
    let path = without_query(path_of(target));
    if path.first() != Some(&b'/') && path != b"*" {
        return other(Some(method), None);
    }
    match printable(&path, MAX_PATH_BYTES, b' ') {
        Printable::Whole(path) => (Some(method), path, None),
        Printable::Cut(path) => other(Some(method), Some(path)),
    }
}

/// Removes scheme and host of a target that is a whole URL, as in requests to proxies.
fn path_of(target: &[u8]) -> &[u8] {
    let host = [&b"http://"[..], b"https://"]
        .into_iter()
        .find_map(|scheme| target.strip_prefix(scheme));
    host.map_or(target, |host| {
        match host.iter().position(|b| matches!(b, b'/' | b'?' | b'#')) {
            Some(at) if host[at] == b'/' => &host[at..],
            _ => b"/",
        }
    })
}

#[cfg(test)]
mod tests {
    use doorstep_event::Contract;

    use super::*;

    const COMBINED: &str = r#"203.0.113.77 - frank [17/May/2015:12:05:03 +0200] "GET /menu?token=1#a HTTP/1.1" 200 512 "http://shop.example/?q=secret" "Mozilla/5.0 (X11)""#;

    fn with_request(request: &str) -> RequestServed {
        let line = format!("::1 - - [17/May/2015:10:05:03 +0000] \"{request}\" 200 5");
        let served = parse(line.as_bytes()).unwrap();
        assert_eq!(served.check(), Ok(()), "{served:?}");
        served
    }

    #[test]
    fn both_formats_are_read_without_personal_data() {
        let served = parse(COMBINED.as_bytes()).unwrap();
        assert_eq!(served.check(), Ok(()));
        let json = r#"{"served_at":"2015-05-17T10:05:03Z","method":"GET","route":"/menu","status":200,"bytes":512,"client":"203.0.113.0","referrer":"http://shop.example/","user_agent":"Mozilla/5.0 (X11)"}"#;
        assert_eq!(serde_json::to_string(&served).unwrap(), json);
        let common =
            r#"shop.example - - [17/May/2015:10:05:03 +0000] "POST /orders HTTP/1.0" 500 -"#;
        let served = parse(common.as_bytes()).unwrap();
        assert_eq!(
            (served.client, served.bytes, served.user_agent),
            (None, None, None)
        );
    }

    #[test]
    fn targets_lose_hosts_and_queries() {
        for (request, endpoint) in [
            ("GET / HTTP/1.1", "GET /"),
            ("GET /a", "GET /a"),
            ("GET /a b HTTP/1.1", "GET /a%20b"),
            ("GET http://shop.example/a?b HTTP/1.1", "GET /a"),
            ("GET https://shop.example?b HTTP/1.1", "GET /"),
            ("GET /a\\x3Ftoken=1 HTTP/1.1", "GET /a"),
            ("OPTIONS * HTTP/1.1", "OPTIONS *"),
            ("GET /\\\"a\\\\ HTTP/1.1", "GET /%22a\\"),
            ("GET /caf\u{e9} HTTP/1.1", "GET /caf%C3%A9"),
            // No requests for a path.
            ("CONNECT shop.example:443 HTTP/1.1", "other"),
            ("-", "other"),
            ("", "other"),
            ("\\x16\\x03\\x01\\x02", "other"),
            ("g\\x1b[31m / HTTP/1.1", "other"),
        ] {
            assert_eq!(with_request(request).endpoint(), endpoint, "{request}");
        }
    }

    #[test]
    fn hostile_bytes_are_encoded_and_long_texts_cut() {
        let served = with_request(&format!("GET /{} HTTP/1.1", "\\x1b".repeat(10_000)));
        assert_eq!(served.endpoint(), "other");
        let path = served.path.unwrap();
        assert!(
            path.ends_with("%1B") && path.len() <= MAX_PATH_BYTES,
            "{path}"
        );
        let mut line = COMBINED
            .replace("(X11)", &"\\x00\\\"".repeat(300))
            .into_bytes();
        line.splice(line.len() - 5..line.len() - 5, [0xff, 0x1b, b'\r']);
        let served = parse(&line).unwrap();
        assert_eq!(served.check(), Ok(()));
        assert!(
            served
                .user_agent
                .unwrap()
                .starts_with("Mozilla/5.0 %00%22%00")
        );
    }

    #[test]
    fn other_lines_are_refused_without_repeating_them() {
        for (line, reason) in [
            ("", "a client"),
            ("secret", "a client"),
            ("{\"secret\":1}", "a client"),
            ("203.0.113.7 secret", "the time in brackets"),
            (
                "a - - [secret] \"GET / HTTP/1.1\" 200 5",
                "time is not of the form",
            ),
            (
                "a - - [17/May/2015:10:05:03] \"GET / HTTP/1.1\" 200 5",
                "time is not of the form",
            ),
            (
                "a - - [31/Feb/2015:10:05:03 +0000] \"GET / HTTP/1.1\" 200 5",
                "time is not of the form",
            ),
            (
                "a - - [17/May/2015:10:05:03 +0000] GET /secret HTTP/1.1 200 5",
                "request is not in quotation marks",
            ),
            (
                "a - - [17/May/2015:10:05:03 +0000] \"GET /secret\\\" 200 5",
                "request has no quotation mark at its end",
            ),
            ("a - - [17/May/2015:10:05:03 +0000] \"GET /\"", "a status"),
            (
                "a - - [17/May/2015:10:05:03 +0000] \"GET /\" 20 5",
                "status is not",
            ),
            (
                "a - - [17/May/2015:10:05:03 +0000] \"GET /\" 099 5",
                "status is not",
            ),
            ("a - - [17/May/2015:10:05:03 +0000] \"GET /\" 200", "a size"),
            (
                "a - - [17/May/2015:10:05:03 +0000] \"GET /\" 200 -5",
                "size is neither",
            ),
            (
                "a - - [17/May/2015:10:05:03 +0000] \"GET /\" 200 99999999999999999999",
                "size is neither",
            ),
            (
                "a - - [17/May/2015:10:05:03 +0000] \"GET /\" 200 5 secret",
                "referrer is not in quotation marks",
            ),
            (
                "a - - [17/May/2015:10:05:03 +0000] \"GET /\" 200 5 \"-\" \"secret",
                "user agent has no quotation mark",
            ),
            (
                "a - - [17/May/2015:10:05:03 +0000] \"GET /\" 200 5 \"-\" \"-\" secret",
                "after the user agent",
            ),
        ] {
            let said = parse(line.as_bytes()).unwrap_err();
            assert!(
                said.contains(reason) && !said.contains("secret"),
                "{line}: {said}"
            );
        }
    }
}
