//! A minimal HTTP client for tests: it can also send malformed requests, and read a stream as it arrives.

use std::{net::SocketAddr, time::Duration};

use serde_json::Value;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

/// The timeout of a response.
const ANSWER_LIMIT: Duration = Duration::from_secs(60);

/// A client of one server, optionally with a token.
#[derive(Debug, Clone)]
pub struct Client {
    address: SocketAddr,
    token: Option<String>,
}

#[derive(Debug, Clone)]
pub struct HttpResponse {
    pub status: u16,
    headers: Vec<(String, String)>,
    pub text: String,
}

impl Client {
    /// Creates a client for this address.
    #[must_use]
    pub fn new(address: SocketAddr) -> Self {
        Self {
            address,
            token: None,
        }
    }

    /// Returns the same client with this token.
    #[must_use]
    pub fn with_token(&self, token: &str) -> Self {
        Self {
            token: Some(token.to_owned()),
            ..self.clone()
        }
    }

    pub async fn get(&self, path: &str) -> HttpResponse {
        self.request("GET", path, &[], None).await
    }

    pub async fn post(&self, path: &str, body: &Value) -> HttpResponse {
        self.request("POST", path, &[], Some(body)).await
    }

    /// Sends a request with these headers and this body.
    ///
    /// # Panics
    /// If there is no response.
    pub async fn request(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: Option<&Value>,
    ) -> HttpResponse {
        let mut all = headers.to_vec();
        if body.is_some() {
            all.push(("Content-Type", "application/json"));
        }
        let body = body.map(Value::to_string).unwrap_or_default();
        self.raw(method, path, &all, body.as_bytes()).await
    }

    /// Sends a request with these headers and this body. Returns `None` if no server is listening, or the connection
    /// ends before the response is complete.
    pub async fn try_ask(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &Value,
    ) -> Option<HttpResponse> {
        let body = body.to_string();
        let length = body.len().to_string();
        let mut all = vec![
            ("Content-Type", "application/json"),
            ("Content-Length", length.as_str()),
            ("Connection", "close"),
        ];
        all.extend_from_slice(headers);
        let head = self.head(method, path, &all);
        let conversation = async {
            let mut stream = TcpStream::connect(self.address).await.ok()?;
            stream.write_all(head.as_bytes()).await.ok()?;
            stream.write_all(body.as_bytes()).await.ok()?;
            let mut bytes = Vec::new();
            stream.read_to_end(&mut bytes).await.ok()?;
            HttpResponse::read(&String::from_utf8_lossy(&bytes))
        };
        let response = timeout(ANSWER_LIMIT, conversation).await.ok()??;
        let promised = response.header("content-length").unwrap_or("0");
        let is_whole = promised.parse() == Ok(response.text.len());
        is_whole.then_some(response)
    }

    fn head(&self, method: &str, path: &str, headers: &[(&str, &str)]) -> String {
        let mut head = format!("{method} {path} HTTP/1.1\r\nHost: {}\r\n", self.address);
        if let Some(token) = &self.token {
            head.push_str(&format!("Authorization: Bearer {token}\r\n"));
        }
        for (name, value) in headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        head.push_str("\r\n");
        head
    }

    /// Sends a request with these headers and these bytes.
    ///
    /// # Panics
    /// If there is no response.
    pub async fn raw(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> HttpResponse {
        let length = body.len().to_string();
        let mut all = vec![("Content-Length", length.as_str()), ("Connection", "close")];
        all.extend_from_slice(headers);
        let mut stream = self.open(method, path, &all).await;
        // A server that rejects a body may close before it has read all of it.
        let _ = stream.write_all(body).await;
        let mut bytes = Vec::new();
        let reading = async {
            let mut part = vec![0; 16 * 1024];
            loop {
                match stream.read(&mut part).await {
                    Ok(0) | Err(_) => break,
                    Ok(count) => bytes.extend_from_slice(&part[..count]),
                }
            }
        };
        timeout(ANSWER_LIMIT, reading)
            .await
            .unwrap_or_else(|_| panic!("{method} {path}: no answer within {ANSWER_LIMIT:?}"));
        let text = String::from_utf8_lossy(&bytes);
        HttpResponse::read(&text)
            .unwrap_or_else(|| panic!("{method} {path}: {text:?} is no HTTP response"))
    }

    /// Connects, and leaves the rest to the caller.
    ///
    /// # Panics
    /// If no server is listening.
    pub async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }

    /// Sends the head of a request, and leaves the rest to the caller.
    ///
    /// # Panics
    /// If no server is listening.
    pub async fn open(&self, method: &str, path: &str, headers: &[(&str, &str)]) -> TcpStream {
        let mut stream = self.connect().await;
        let head = self.head(method, path, headers);
        stream.write_all(head.as_bytes()).await.unwrap();
        stream
    }
}

impl HttpResponse {
    fn read(text: &str) -> Option<Self> {
        let (head, body) = text.split_once("\r\n\r\n")?;
        let mut lines = head.split("\r\n");
        let status = lines.next()?.strip_prefix("HTTP/1.1 ")?;
        let header = |line: &str| {
            let (name, value) = line.split_once(':')?;
            Some((name.to_ascii_lowercase(), value.trim().to_owned()))
        };
        Some(Self {
            status: status.split(' ').next()?.parse().ok()?,
            headers: lines.filter_map(header).collect(),
            text: body.to_owned(),
        })
    }

    /// Returns the value of a header.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(n, _)| n == name);
        found.map(|(_, value)| value.as_str())
    }

    /// Parses the body as JSON.
    ///
    /// # Panics
    /// If it is not JSON.
    #[must_use]
    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|e| panic!("{e}: {self:?}"))
    }

    /// Returns the body if the status is this one.
    ///
    /// # Panics
    /// If it is another one.
    #[must_use]
    #[track_caller]
    pub fn expect(&self, status: u16) -> Value {
        assert_eq!(self.status, status, "{}", self.text);
        if self.text.is_empty() {
            Value::Null
        } else {
            self.json()
        }
    }

    /// Checks that it is a problem document with this status and code.
    ///
    /// # Panics
    /// If it is not.
    #[track_caller]
    pub fn is_problem(&self, status: u16, code: &str) {
        assert_eq!(self.status, status, "{}", self.text);
        let form = self.header("content-type");
        assert_eq!(form, Some("application/problem+json"), "{}", self.text);
        let problem = self.json();
        assert_eq!(problem["status"], status, "{problem}");
        assert_eq!(problem["code"], code, "{problem}");
        assert_eq!(problem["type"], format!("urn:doorstep:problem:{code}"));
        assert!(!problem["detail"].as_str().unwrap().is_empty(), "{problem}");
    }
}
