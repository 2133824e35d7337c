//! A minimal HTTP client for health checks, for exporting spans and for the broker's management API: one request, one response, one
//! connection, with a total timeout.

use base64::{Engine, engine::general_purpose::STANDARD};
use doorstep_tls::TlsSettings;
use std::{
    fmt,
    io::{self, Read, Write},
    net::{TcpStream, ToSocketAddrs},
    str::FromStr,
    time::{Duration, Instant},
};

/// Maximum bytes of a response.
const MAX_RESPONSE: u64 = 1024 * 1024;

/// An address such as `http://127.0.0.1:4318`, with an optional path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HttpUrl {
    host: String,
    port: u16,
    path: String,
    /// TLS settings, present for https only.
    tls: Option<TlsSettings>,
}

/// User and password for HTTP basic authentication. `Debug` omits the password.
#[derive(Clone, PartialEq, Eq)]
pub struct HttpLogin {
    pub user: String,
    pub password: String,
}

impl fmt::Debug for HttpLogin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HttpLogin")
            .field("user", &self.user)
            .finish_non_exhaustive()
    }
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HttpUrlError {
    #[error("{0:?} is not an address such as http://127.0.0.1:4318 or https://collector:4318")]
    Malformed(String),
}

impl FromStr for HttpUrl {
    type Err = HttpUrlError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let malformed = || HttpUrlError::Malformed(text.to_owned());
        let (tls, rest) = match text.strip_prefix("https://") {
            Some(rest) => (Some(TlsSettings::default()), rest),
            None => (None, text.strip_prefix("http://").ok_or_else(malformed)?),
        };
        let (authority, path) = match rest.find('/') {
            Some(at) => rest.split_at(at),
            None => (rest, ""),
        };
        let (host, port) = match authority.rsplit_once(':') {
            // The colons of an IPv6 address are in brackets.
            Some((host, port)) if !port.ends_with(']') => {
                (host, port.parse().map_err(|_| malformed())?)
            }
            _ => (authority, if tls.is_some() { 443 } else { 80 }),
        };
        let is_plain = |b: u8| b.is_ascii_graphic() && !matches!(b, b'@' | b'?' | b'#');
        if host.is_empty() || !host.bytes().chain(path.bytes()).all(is_plain) {
            return Err(malformed());
        }
        Ok(Self {
            host: host.to_owned(),
            port,
            path: path.trim_end_matches('/').to_owned(),
            tls,
        })
    }
}

impl fmt::Display for HttpUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.tls.is_some() { "https" } else { "http" };
        write!(f, "{scheme}://{}:{}{}", self.host, self.port, self.path)
    }
}

impl HttpUrl {
    /// Returns whether it is https.
    #[must_use]
    pub fn is_encrypted(&self) -> bool {
        self.tls.is_some()
    }

    /// Returns the same address with other TLS settings, if it is https.
    #[must_use]
    pub fn with_tls(mut self, settings: TlsSettings) -> Self {
        self.tls = self.tls.map(|_| settings);
        self
    }

    /// Returns the same address with this path appended.
    #[must_use]
    pub fn join(mut self, path: &str) -> Self {
        self.path.push_str(path);
        self
    }

    /// Sends a GET request and waits for the response; blocks the thread for at most `limit`. Returns status and body.
    ///
    /// # Errors
    /// Fails if no valid HTTP response arrives in time.
    pub fn ask(&self, limit: Duration) -> io::Result<(u16, String)> {
        self.exchange("GET", "", &[], limit)
    }

    /// Sends a GET request as this user; otherwise like [`ask`](Self::ask).
    ///
    /// # Errors
    /// Fails if no valid HTTP response arrives in time.
    pub fn ask_as(&self, login: &HttpLogin, limit: Duration) -> io::Result<(u16, String)> {
        let login = STANDARD.encode(format!("{}:{}", login.user, login.password));
        let header = format!("Authorization: Basic {login}\r\n");
        self.exchange("GET", &header, &[], limit)
    }

    /// Sends a POST request. Returns status and body of the response.
    pub(crate) fn post(
        &self,
        content_type: &str,
        body: &[u8],
        limit: Duration,
    ) -> io::Result<(u16, String)> {
        let header = format!("Content-Type: {content_type}\r\n");
        self.exchange("POST", &header, body, limit)
    }

    fn exchange(
        &self,
        method: &str,
        headers: &str,
        body: &[u8],
        limit: Duration,
    ) -> io::Result<(u16, String)> {
        let until = Instant::now() + limit;
        let socket = Timed {
            socket: self.connect(until)?,
            until,
        };
        match &self.tls {
            None => self.exchange_on(socket, method, headers, body),
            Some(tls) => {
                let stream = tls
                    .connect_blocking(self.bare_host(), socket)
                    .map_err(io::Error::other)?;
                // A server rejects a client certificate only after the handshake.
                self.exchange_on(stream, method, headers, body)
                    .map_err(|error| tls.explain(&error).map_or(error, io::Error::other))
            }
        }
    }

    fn exchange_on(
        &self,
        mut stream: impl Read + Write,
        method: &str,
        headers: &str,
        body: &[u8],
    ) -> io::Result<(u16, String)> {
        let path = if self.path.is_empty() {
            "/"
        } else {
            &self.path
        };
        let head = format!(
            "{method} {path} HTTP/1.1\r\nHost: {}:{}\r\nConnection: close\r\nContent-Length: {}\r\n{headers}\r\n",
            self.host,
            self.port,
            body.len()
        );
        stream.write_all(head.as_bytes())?;
        stream.write_all(body)?;
        stream.flush()?;
        let mut response = Vec::new();
        let mut chunk = [0; 4096];
        loop {
            let count = match stream.read(&mut chunk) {
                // Many servers close without TLS's closing alert. The response's head decides whether it is complete.
                Err(e) if e.kind() == io::ErrorKind::UnexpectedEof && !response.is_empty() => 0,
                read => read?,
            };
            if count == 0 {
                break;
            }
            response.extend_from_slice(&chunk[..count]);
            if response.len() as u64 > MAX_RESPONSE {
                return Err(io::Error::other("the response is too long"));
            }
        }
        parse_response(&response)
            .ok_or_else(|| io::Error::other("the response is not HTTP, or incomplete"))
    }

    fn bare_host(&self) -> &str {
        self.host.trim_start_matches('[').trim_end_matches(']')
    }

    fn connect(&self, until: Instant) -> io::Result<TcpStream> {
        let host = self.bare_host();
        let mut failure = io::Error::other("the host has no address");
        for address in (host, self.port).to_socket_addrs()? {
            match TcpStream::connect_timeout(&address, left(until)?) {
                Ok(stream) => return Ok(stream),
                Err(e) => failure = e,
            }
        }
        Err(failure)
    }
}

/// A socket whose reads and writes share one deadline, so that a slow peer cannot exceed the total timeout.
struct Timed {
    socket: TcpStream,
    until: Instant,
}

impl Read for Timed {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        self.socket.set_read_timeout(Some(left(self.until)?))?;
        self.socket.read(bytes)
    }
}

impl Write for Timed {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.socket.set_write_timeout(Some(left(self.until)?))?;
        self.socket.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.socket.flush()
    }
}

fn left(until: Instant) -> io::Result<Duration> {
    let left = until.saturating_duration_since(Instant::now());
    if left.is_zero() {
        return Err(io::ErrorKind::TimedOut.into());
    }
    Ok(left)
}

fn parse_response(response: &[u8]) -> Option<(u16, String)> {
    let end = response.windows(4).position(|four| four == b"\r\n\r\n")?;
    let (head, body) = (str::from_utf8(&response[..end]).ok()?, &response[end + 4..]);
    let status = head.strip_prefix("HTTP/1.")?.split(' ').nth(1)?;
    let mut headers = head.lines().skip(1).filter_map(|line| line.split_once(':'));
    let is_chunked = headers.any(|(name, value)| {
        name.eq_ignore_ascii_case("transfer-encoding")
            && value.trim().eq_ignore_ascii_case("chunked")
    });
    let body = if is_chunked {
        String::from_utf8_lossy(&joined(body)?).into_owned()
    } else {
        String::from_utf8_lossy(body).into_owned()
    };
    Some((status.parse().ok()?, body))
}

/// Joins the chunks of a chunked body. Trailers are ignored.
fn joined(mut chunks: &[u8]) -> Option<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let end = chunks.windows(2).position(|two| two == b"\r\n")?;
        let size = str::from_utf8(&chunks[..end]).ok()?.split(';').next()?;
        let size = usize::from_str_radix(size.trim(), 16).ok()?;
        if size == 0 {
            return Some(body);
        }
        let rest = &chunks[end + 2..];
        body.extend_from_slice(rest.get(..size)?);
        chunks = rest.get(size..)?.strip_prefix(b"\r\n")?;
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "all of this is tests")]
mod tests {
    use super::*;

    #[test]
    fn addresses_have_host_port_and_optional_path() {
        let shown = |text: &str| text.parse::<HttpUrl>().map(|url| url.to_string());
        assert_eq!(shown("http://a").unwrap(), "http://a:80");
        assert_eq!(
            shown("http://[::1]:4318/otlp/").unwrap(),
            "http://[::1]:4318/otlp"
        );
        for bad in [
            "a:4318",
            "http://",
            "http://:1",
            "http://a:b",
            "http://u@a",
            "http://a/x y",
        ] {
            assert!(shown(bad).is_err(), "{bad}");
        }
        assert_eq!(shown("https://a").unwrap(), "https://a:443");
    }

    #[test]
    fn a_response_has_status_and_body() {
        let response = b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 2\r\n\r\nno";
        assert_eq!(parse_response(response), Some((503, "no".to_owned())));
        assert_eq!(parse_response(b"SSH-2.0"), None);
    }

    #[test]
    fn chunks_are_joined_and_must_be_complete() {
        let head = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
        let read = |body: &str| parse_response(format!("{head}{body}").as_bytes());
        let whole = read("4;a=b\r\n[1,2\r\nA\r\n,\r\n3,4,5,6\r\n1\r\n]\r\n0\r\n\r\n");
        assert_eq!(whole, Some((200, "[1,2,\r\n3,4,5,6]".to_owned())));
        for cut in [
            "",
            "4",
            "4\r\n[1",
            "4\r\n[1,2\r\n",
            "fffffffffffffff\r\n[1",
            "x\r\n",
        ] {
            assert_eq!(read(cut), None, "{cut:?}");
        }
    }
}
