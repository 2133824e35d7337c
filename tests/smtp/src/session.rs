//! One connection: the commands of a client, and the replies of the script.

use std::{io, ops::ControlFlow, sync::Arc};

use base64::{Engine, prelude::BASE64_STANDARD};
use tokio::net::TcpStream;

use crate::{
    Action, Step,
    lines::Lines,
    record::{AcceptedMail, Command, Shared},
};

/// A connection, and what its client has said so far.
pub(crate) struct Session {
    connection: usize,
    lines: Lines,
    shared: Arc<Shared>,
    user: Option<String>,
    from: String,
    to: Vec<String>,
}

/// The end of a session, or nothing.
type Flow = ControlFlow<SessionEnd>;

/// The way a connection ends.
enum SessionEnd {
    Close,
    Reset,
}

impl Session {
    pub(crate) fn new(connection: usize, socket: TcpStream, shared: Arc<Shared>) -> Self {
        Self {
            connection,
            lines: Lines::new(socket),
            shared,
            user: None,
            from: String::new(),
            to: Vec::new(),
        }
    }

    /// Serves the client until one side ends the connection.
    pub(crate) async fn run(mut self) {
        match self.serve().await {
            Ok(Flow::Break(SessionEnd::Reset)) => self.lines.reset(),
            Ok(_) => self.lines.close().await,
            // The client has ended the connection in its own way.
            Err(_) => {}
        }
    }

    async fn serve(&mut self) -> io::Result<Flow> {
        if self.shared.offer.implicit_tls && self.encrypt().await?.is_break() {
            return Ok(Flow::Break(SessionEnd::Close));
        }
        let mut flow = self.act(Step::Connect, "220 test ESMTP").await?;
        while flow.is_continue() {
            let Some(line) = self.lines.line().await? else {
                return Ok(Flow::Continue(()));
            };
            flow = self.command(&String::from_utf8_lossy(&line)).await?;
        }
        Ok(flow)
    }

    async fn command(&mut self, line: &str) -> io::Result<Flow> {
        self.shared.record(|log| {
            log.commands.push(Command {
                connection: self.connection,
                encrypted: self.lines.is_encrypted(),
                line: line.to_owned(),
            });
        });
        let verb = line.split(' ').next().unwrap_or_default();
        match verb.to_ascii_uppercase().as_str() {
            "EHLO" | "HELO" => {
                let reply = self.hello();
                self.act(Step::Hello, &reply).await
            }
            "STARTTLS" => self.start_tls().await,
            "AUTH" => self.auth(line).await,
            "MAIL" if self.shared.offer.login.is_some() && self.user.is_none() => {
                self.act(Step::Mail, "530 5.7.0 Authentication required")
                    .await
            }
            "MAIL" => {
                self.from = line.to_owned();
                self.to.clear();
                self.act(Step::Mail, "250 2.1.0 Ok").await
            }
            "RCPT" => {
                self.to.push(line.to_owned());
                self.act(Step::Rcpt, "250 2.1.5 Ok").await
            }
            "DATA" => self.data().await,
            "QUIT" => {
                let flow = self.act(Step::Quit, "221 2.0.0 Bye").await?;
                Ok(or_close(flow))
            }
            _ => self.act(Step::Other, "250 2.0.0 Ok").await,
        }
    }

    fn hello(&self) -> String {
        let offer = &self.shared.offer;
        let mut lines = vec!["test".to_owned(), "8BITMIME".to_owned()];
        if offer.certificate.is_some() && !self.lines.is_encrypted() {
            lines.push("STARTTLS".to_owned());
        }
        if !offer.mechanisms.is_empty() {
            lines.push(format!("AUTH {}", offer.mechanisms));
        }
        let last = lines.pop().unwrap_or_default();
        let mut reply: String = lines.iter().map(|line| format!("250-{line}\r\n")).collect();
        reply.push_str(&format!("250 {last}"));
        reply
    }

    async fn start_tls(&mut self) -> io::Result<Flow> {
        let action = self.shared.action(self.connection, Step::StartTls);
        let goes_on = match &action {
            Action::Normal => true,
            Action::Reply(text) => text.starts_with("220"),
            Action::Raw(bytes) => bytes.starts_with(b"220"),
            _ => false,
        };
        let flow = self.perform(action, "220 2.0.0 Go ahead").await?;
        if flow.is_break() || !goes_on {
            return Ok(flow);
        }
        self.encrypt().await
    }

    async fn encrypt(&mut self) -> io::Result<Flow> {
        match self.shared.action(self.connection, Step::Handshake) {
            Action::Normal => {
                let certificate = self.shared.offer.certificate.as_ref();
                let acceptor = certificate.expect("a certificate for TLS").acceptor();
                self.lines.encrypt(&acceptor).await?;
                Ok(Flow::Continue(()))
            }
            action => {
                // The handshake is under way once the client has begun it.
                self.lines.fill().await?;
                let flow = self.perform(action, "").await?;
                Ok(or_close(flow))
            }
        }
    }

    async fn auth(&mut self, line: &str) -> io::Result<Flow> {
        let mut words = line.split(' ').skip(1);
        let mechanism = words.next().unwrap_or_default().to_ascii_uppercase();
        let initial = words.next().map(str::to_owned);
        let Some((user, password)) = self.shared.offer.login.clone() else {
            return self.act(Step::Auth, "503 5.5.1 No login here").await;
        };
        let is_right = match (mechanism.as_str(), initial) {
            ("PLAIN", Some(given)) => given == base64(&format!("\0{user}\0{password}")),
            ("LOGIN", None) => {
                let given_user = self.challenge(Step::Auth, "334 VXNlcm5hbWU6").await?;
                let ControlFlow::Continue(given_user) = given_user else {
                    return Ok(Flow::Break(SessionEnd::Close));
                };
                let given = self.challenge(Step::User, "334 UGFzc3dvcmQ6").await?;
                let ControlFlow::Continue(given) = given else {
                    return Ok(Flow::Break(SessionEnd::Close));
                };
                given_user == base64(&user) && given == base64(&password)
            }
            _ => return self.act(Step::Auth, "504 5.5.4 Unknown mechanism").await,
        };
        let step = if mechanism == "LOGIN" {
            Step::Password
        } else {
            Step::Auth
        };
        if !is_right {
            return self.act(step, "535 5.7.8 Wrong user or password").await;
        }
        self.user = Some(user);
        self.act(step, "235 2.7.0 Welcome").await
    }

    /// Sends a challenge and reads the response.
    async fn challenge(
        &mut self,
        step: Step,
        text: &str,
    ) -> io::Result<ControlFlow<SessionEnd, String>> {
        if let Flow::Break(end) = self.act(step, text).await? {
            return Ok(ControlFlow::Break(end));
        }
        Ok(match self.lines.line().await? {
            Some(line) => ControlFlow::Continue(String::from_utf8_lossy(&line).into_owned()),
            None => ControlFlow::Break(SessionEnd::Close),
        })
    }

    async fn data(&mut self) -> io::Result<Flow> {
        let action = self.shared.action(self.connection, Step::Data);
        let goes_on = match &action {
            Action::Normal => true,
            Action::Reply(text) => text.starts_with("354"),
            Action::Raw(bytes) => bytes.starts_with(b"354"),
            _ => false,
        };
        let flow = self.perform(action, "354 End with a dot").await?;
        if flow.is_break() || !goes_on {
            return Ok(flow);
        }
        let mut lines: Vec<Vec<u8>> = Vec::new();
        loop {
            let Some(line) = self.lines.line().await? else {
                return Ok(Flow::Continue(()));
            };
            if line == b"." {
                break;
            }
            lines.push(line.strip_prefix(b".").unwrap_or(&line).to_vec());
            if lines.len() == 1 {
                match self.shared.action(self.connection, Step::FirstLine) {
                    Action::Normal => {}
                    action => return self.perform(action, "").await,
                }
            }
        }
        self.dot(lines.join(&b"\r\n"[..])).await
    }

    async fn dot(&mut self, data: Vec<u8>) -> io::Result<Flow> {
        let action = self.shared.action(self.connection, Step::Dot);
        let (accepts, action) = match action {
            Action::Accept(action) => (true, *action),
            action => (action == Action::Normal, action),
        };
        if accepts {
            let mail = AcceptedMail {
                connection: self.connection,
                encrypted: self.lines.is_encrypted(),
                user: self.user.clone(),
                from: std::mem::take(&mut self.from),
                to: std::mem::take(&mut self.to),
                data,
            };
            self.shared.record(|log| log.accepted.push(mail));
        }
        self.perform(action, "250 2.0.0 Ok: queued as 4F1A").await
    }

    async fn act(&mut self, step: Step, normal: &str) -> io::Result<Flow> {
        let action = self.shared.action(self.connection, step);
        self.perform(action, normal).await
    }

    async fn perform(&mut self, action: Action, normal: &str) -> io::Result<Flow> {
        match action {
            Action::Normal | Action::Accept(_) => self.reply(normal).await,
            Action::Reply(text) => self.reply(&text).await,
            Action::Raw(bytes) => {
                self.lines.write(&bytes).await?;
                Ok(Flow::Continue(()))
            }
            Action::Stall => {
                self.lines.drain().await?;
                Ok(Flow::Break(SessionEnd::Close))
            }
            Action::Endless => loop {
                self.lines.write(&[b'2'; 4096]).await?;
            },
            Action::Close => Ok(Flow::Break(SessionEnd::Close)),
            Action::Reset => Ok(Flow::Break(SessionEnd::Reset)),
        }
    }

    async fn reply(&mut self, text: &str) -> io::Result<Flow> {
        self.lines.write(format!("{text}\r\n").as_bytes()).await?;
        Ok(Flow::Continue(()))
    }
}

/// Returns the end of a session that has no other.
fn or_close(flow: Flow) -> Flow {
    match flow {
        Flow::Continue(()) => Flow::Break(SessionEnd::Close),
        end => end,
    }
}

fn base64(text: &str) -> String {
    BASE64_STANDARD.encode(text)
}
