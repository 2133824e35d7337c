//! The least of an HTTP client that tests need: it also sends what no client should, and reads a stream as it comes.

use std::{net::SocketAddr, time::Duration};

use serde_json::Value;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

/// The most that an answer may take.
const ANSWER_LIMIT: Duration = Duration::from_secs(60);

/// Asks one server, perhaps with a token.
#[derive(Debug, Clone)]
pub struct Client {
    address: SocketAddr,
    token: Option<String>,
}

/// What came back.
#[derive(Debug, Clone)]
pub struct Answer {
    /// The status.
    pub status: u16,
    headers: Vec<(String, String)>,
    /// The body, as it is.
    pub text: String,
}

impl Client {
    /// Asks at this address.
    #[must_use]
    pub fn new(address: SocketAddr) -> Self {
        Self {
            address,
            token: None,
        }
    }

    /// The same with this token.
    #[must_use]
    pub fn with_token(&self, token: &str) -> Self {
        Self {
            token: Some(token.to_owned()),
            ..self.clone()
        }
    }

    /// Gets what is there.
    pub async fn get(&self, path: &str) -> Answer {
        self.ask("GET", path, &[], None).await
    }

    /// Posts a body.
    pub async fn post(&self, path: &str, body: &Value) -> Answer {
        self.ask("POST", path, &[], Some(body)).await
    }

    /// Asks with these headers and this body.
    ///
    /// # Panics
    /// If there is no answer.
    pub async fn ask(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: Option<&Value>,
    ) -> Answer {
        let mut all = headers.to_vec();
        if body.is_some() {
            all.push(("Content-Type", "application/json"));
        }
        let body = body.map(Value::to_string).unwrap_or_default();
        self.raw(method, path, &all, body.as_bytes()).await
    }

    /// Asks with these headers and this body; `None` where nobody listens, or the server goes away without a whole answer.
    pub async fn try_ask(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &Value,
    ) -> Option<Answer> {
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
            Answer::read(&String::from_utf8_lossy(&bytes))
        };
        let answer = timeout(ANSWER_LIMIT, conversation).await.ok()??;
        let promised = answer.header("content-length").unwrap_or("0");
        let is_whole = promised.parse() == Ok(answer.text.len());
        is_whole.then_some(answer)
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

    /// Asks with these headers and these bytes.
    ///
    /// # Panics
    /// If there is no answer.
    pub async fn raw(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> Answer {
        let length = body.len().to_string();
        let mut all = vec![("Content-Length", length.as_str()), ("Connection", "close")];
        all.extend_from_slice(headers);
        let mut stream = self.open(method, path, &all).await;
        // A server that refuses a body may close before it has read all of it.
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
        Answer::read(&text).unwrap_or_else(|| panic!("{method} {path}: {text:?} is no answer"))
    }

    /// Connects, and leaves the whole conversation to the caller.
    ///
    /// # Panics
    /// If nobody listens.
    pub async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }

    /// Begins to ask, and leaves the rest of the conversation to the caller.
    ///
    /// # Panics
    /// If nobody listens.
    pub async fn open(&self, method: &str, path: &str, headers: &[(&str, &str)]) -> TcpStream {
        let mut stream = self.connect().await;
        let head = self.head(method, path, headers);
        stream.write_all(head.as_bytes()).await.unwrap();
        stream
    }
}

impl Answer {
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

    /// The value of a header.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(n, _)| n == name);
        found.map(|(_, value)| value.as_str())
    }

    /// The body as JSON.
    ///
    /// # Panics
    /// If it is none.
    #[must_use]
    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|e| panic!("{e}: {self:?}"))
    }

    /// The body, if the status is this one.
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

    /// Looks whether it is a problem document of this status and code.
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
