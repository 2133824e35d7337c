//! HTTP requests for health checks, for exporting spans and for the broker's management API: one request, one response, one
//! connection, with a total timeout.

use std::{error::Error, fmt, io, iter, str::FromStr, time::Duration};

use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::Bytes;
use doorstep_tls::TlsSettings;
use http_body_util::{BodyExt, Full, Limited};
use hyper::{
    Request, Uri,
    client::conn::http1::handshake,
    header::{self, HeaderValue},
    http::{self, uri::Authority},
};
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    runtime::Builder,
    time::timeout,
};

/// Maximum bytes of a response.
const MAX_RESPONSE: usize = 1024 * 1024;

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
#[derive(Clone, PartialEq, Eq, derive_more::Debug)]
pub struct HttpLogin {
    pub user: String,
    #[debug(skip)]
    pub password: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum HttpUrlError {
    /// The address is left out, since it may hold a password.
    #[error(
        "it is not an address such as http://127.0.0.1:4318 or https://collector:4318, without user, query and fragment"
    )]
    Malformed,
}

impl FromStr for HttpUrl {
    type Err = HttpUrlError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let malformed = HttpUrlError::Malformed;
        let uri: Uri = text.parse().map_err(|_| malformed)?;
        let (tls, default_port) = match uri.scheme_str() {
            Some("https") => (Some(TlsSettings::default()), 443),
            Some("http") => (None, 80),
            _ => return Err(malformed),
        };
        let authority = uri.authority().ok_or(malformed)?;
        let port = match authority.as_str().strip_prefix(authority.host()) {
            Some("") => default_port,
            // Neither a user nor anything else than a number is left.
            Some(rest) => rest[1..].parse().map_err(|_| malformed)?,
            None => return Err(malformed),
        };
        if authority.host().is_empty() || uri.query().is_some() || text.contains('#') {
            return Err(malformed);
        }
        Ok(Self {
            host: authority.host().to_owned(),
            port,
            path: uri.path().trim_end_matches('/').to_owned(),
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
    pub fn get(&self, limit: Duration) -> io::Result<(u16, String)> {
        let request = Request::get(self.to_string());
        self.exchange(request.body(Bytes::new()), limit)
    }

    /// Sends a GET request as this user; otherwise like [`get`](Self::get).
    ///
    /// # Errors
    /// Fails if no valid HTTP response arrives in time.
    pub fn ask_as(&self, login: &HttpLogin, limit: Duration) -> io::Result<(u16, String)> {
        let login = STANDARD.encode(format!("{}:{}", login.user, login.password));
        let request =
            Request::get(self.to_string()).header(header::AUTHORIZATION, format!("Basic {login}"));
        self.exchange(request.body(Bytes::new()), limit)
    }

    /// Sends a request to this host; blocks the thread for at most `limit`.
    pub(crate) fn exchange(
        &self,
        request: http::Result<Request<Bytes>>,
        limit: Duration,
    ) -> io::Result<(u16, String)> {
        let mut request = request.map_err(io::Error::other)?.map(Full::new);
        let uri = std::mem::take(request.uri_mut()).into_parts();
        let host = uri.authority.as_ref().map_or("", Authority::as_str);
        let host = HeaderValue::from_str(host).map_err(io::Error::other)?;
        request.headers_mut().insert(header::HOST, host);
        *request.uri_mut() = uri.path_and_query.map(Uri::from).unwrap_or_default();
        // Of its own, since spans are exported even after the program's runtime has ended.
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let response = runtime.block_on(async { timeout(limit, self.send(request)).await });
        // The resolver may still be at work on its thread.
        runtime.shutdown_background();
        response.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))?
    }

    async fn send(&self, request: Request<Full<Bytes>>) -> io::Result<(u16, String)> {
        let host = self.host.trim_matches(['[', ']']);
        let socket = TcpStream::connect((host, self.port)).await?;
        let Some(tls) = &self.tls else {
            return response(socket, request).await.map_err(io::Error::other);
        };
        let stream = tls.connect(host, socket).await.map_err(io::Error::other)?;
        // A server rejects a client certificate only after the handshake.
        let explained = |error: Box<dyn Error + Send + Sync>| {
            let mut sources = iter::successors(error.source(), |error| (*error).source());
            let cause = sources.find_map(|error| tls.explain(error.downcast_ref()?));
            cause.map_or_else(|| io::Error::other(error), io::Error::other)
        };
        response(stream, request).await.map_err(explained)
    }
}

/// Sends a request on an open connection and reads the whole response.
async fn response(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    request: Request<Full<Bytes>>,
) -> Result<(u16, String), Box<dyn Error + Send + Sync>> {
    let (mut sender, connection) = handshake(TokioIo::new(stream)).await?;
    tokio::spawn(connection);
    let response = sender.send_request(request).await?;
    let status = response.status().as_u16();
    let body = Limited::new(response.into_body(), MAX_RESPONSE);
    let body = body.collect().await?.to_bytes();
    Ok((status, String::from_utf8_lossy(&body).into_owned()))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "all of this is tests")]
mod tests {
    use std::{
        io::{Read, Write},
        net::TcpListener,
        thread,
    };

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
    fn errors_show_no_password() {
        let error = "https://ops:secret@a".parse::<HttpUrl>().unwrap_err();
        assert!(!error.to_string().contains("secret"), "{error}");
    }

    /// Returns what a server that writes these bytes is taken to reply.
    fn read(response: &str) -> Option<(u16, String)> {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url: HttpUrl = format!("http://{}", listener.local_addr().unwrap())
            .parse()
            .unwrap();
        let response = response.to_owned();
        let server = thread::spawn(move || {
            let (mut socket, _) = listener.accept().unwrap();
            let mut request = [0; 1024];
            assert!(socket.read(&mut request).unwrap() > 0);
            socket.write_all(response.as_bytes()).unwrap();
        });
        let answer = url.get(Duration::from_secs(30));
        server.join().unwrap();
        answer.ok()
    }

    #[test]
    fn a_response_has_status_and_body() {
        let response = "HTTP/1.1 503 Service Unavailable\r\ncontent-length: 2\r\n\r\nno";
        assert_eq!(read(response), Some((503, "no".to_owned())));
        assert_eq!(read("SSH-2.0"), None);
    }

    #[test]
    fn chunks_are_joined_and_must_be_complete() {
        let head = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
        let read = |body: &str| read(&format!("{head}{body}"));
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
