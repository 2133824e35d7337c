//! The steps of an exchange with a mail server.

use std::{
    fmt::Display,
    future,
    net::{IpAddr, SocketAddr},
    pin::Pin,
    time::Duration,
};

use doorstep_tls::TlsStream;
use lettre::transport::smtp::{
    authentication::{Credentials, DEFAULT_MECHANISMS},
    client::{AsyncSmtpConnection, AsyncTokioStream},
    commands::{Auth, Data, Mail, Rcpt, Starttls},
    extension::{ClientId, Extension},
    response::{Response, Severity},
};
use tokio::{net::TcpStream, time};

use super::{
    SmtpTransport,
    failure::{Failure, Step},
    reply_stream::ReplyStream,
};
use crate::{MailMessage, MailOutcome, Security, reply_text::clean};

/// The wait for the server's reply to QUIT.
const QUIT_TIMEOUT: Duration = Duration::from_secs(2);

/// The challenges of AUTH LOGIN: user and password.
const MAX_CHALLENGES: usize = 2;

/// One attempt to send a mail.
///
/// It uses the single commands of the client library. The library's `send` hides the step that failed; like its `auth`, it waits without a
/// limit for the reply to QUIT after a refusal. Its `starttls` keeps what a server has sent before the handshake, as if it came after it.
pub(super) struct Exchange<'a> {
    transport: &'a SmtpTransport,
    message: &'a MailMessage,
    /// The end of the time for all steps together.
    limit: Pin<&'a mut (dyn Future<Output = ()> + Send)>,
}

/// A connection whose server waits for the mail.
pub(super) struct Prepared(AsyncSmtpConnection);

impl<'a> Exchange<'a> {
    pub(super) fn new(
        transport: &'a SmtpTransport,
        message: &'a MailMessage,
        limit: Pin<&'a mut (dyn Future<Output = ()> + Send)>,
    ) -> Self {
        Self {
            transport,
            message,
            limit,
        }
    }

    /// Takes all steps up to the reply to DATA.
    pub(super) async fn prepare(&mut self) -> Result<Prepared, Failure> {
        let mut connection = self.open().await?;
        match self.announce(&mut connection).await {
            Ok(()) => Ok(Prepared(connection)),
            Err(failure) => {
                if failure.is_reply() {
                    quit(connection);
                }
                Err(failure)
            }
        }
    }

    /// Checks that the time is not over.
    pub(super) async fn check_time(&mut self) -> Result<(), Failure> {
        tokio::select! {
            biased;
            () = &mut self.limit => Err(Failure::broken(
                Step::Body,
                "the time for the mail was over before the mail itself could be sent",
            )),
            () = future::ready(()) => Ok(()),
        }
    }

    /// Sends the mail with its final dot, and reads the reply.
    pub(super) async fn finish(&mut self, prepared: Prepared) -> MailOutcome {
        let Prepared(mut connection) = prepared;
        let sent = async {
            connection
                .message(self.message.bytes())
                .await
                .map_err(|error| Failure::from_client(Step::Body, &error))
        };
        let replied = within(&mut self.limit, Step::Body, sent).await;
        let outcome = replied.and_then(|reply| completed(Step::Body, reply));
        let to = self.message.to();
        match outcome {
            Ok(reply) => {
                quit(connection);
                let text: Vec<&str> = reply.message().collect();
                MailOutcome::Sent {
                    reply: clean(&text.join(" "), to),
                }
            }
            Err(failure) => {
                if failure.is_reply() {
                    quit(connection);
                }
                failure.after_dot(to)
            }
        }
    }

    /// Connects, and greets the server over TLS if the settings require it.
    async fn open(&mut self) -> Result<AsyncSmtpConnection, Failure> {
        let socket = self.connect().await?;
        let peer = peer(&socket)?;
        let name = hello_name(&socket);
        match self.transport.server.security {
            Security::Plain => self.greet(ReplyStream::new(socket, peer), &name).await,
            Security::Tls => {
                let stream = self.encrypt(socket).await?;
                self.greet(ReplyStream::new(stream, peer), &name).await
            }
            Security::StartTls => {
                let socket = self.start_tls(socket, peer, &name).await?;
                let stream = self.encrypt(socket).await?;
                self.greet(ReplyStream::with_greeting(stream, peer), &name)
                    .await
            }
        }
    }

    async fn connect(&mut self) -> Result<TcpStream, Failure> {
        let server = &self.transport.server;
        let (host, port) = (server.host.as_str(), server.port);
        let connect = async {
            let socket = TcpStream::connect((host, port)).await?;
            // The mail and its final dot are two writes; the second would wait for the ack of the first.
            socket.set_nodelay(true)?;
            Ok(socket)
        };
        let connect = async {
            connect.await.map_err(|error: std::io::Error| {
                Failure::broken(
                    Step::Connect,
                    format!("cannot connect to the mail server {host}:{port} ({error})"),
                )
            })
        };
        within(&mut self.limit, Step::Connect, connect).await
    }

    async fn greet(
        &mut self,
        stream: impl AsyncTokioStream + 'static,
        name: &ClientId,
    ) -> Result<AsyncSmtpConnection, Failure> {
        let greet = async {
            AsyncSmtpConnection::connect_with_transport(Box::new(stream), name)
                .await
                .map_err(|error| Failure::from_client(Step::Hello, &error))
        };
        within(&mut self.limit, Step::Hello, greet).await
    }

    /// Greets the server without TLS and asks for it. What the server sends beyond its reply is discarded with this first connection, so
    /// an attacker on the way cannot slip in replies that would be taken for encrypted ones.
    async fn start_tls(
        &mut self,
        socket: TcpStream,
        peer: SocketAddr,
        name: &ClientId,
    ) -> Result<TcpStream, Failure> {
        let broken = |error: std::io::Error| Failure::broken(Step::StartTls, error.to_string());
        let socket = socket.into_std().map_err(broken)?;
        let first = socket
            .try_clone()
            .and_then(TcpStream::from_std)
            .map_err(broken)?;
        let mut connection = self.greet(ReplyStream::new(first, peer), name).await?;
        if !connection
            .server_info()
            .supports_feature(Extension::StartTls)
        {
            return Err(Failure::setting(
                Step::StartTls,
                "the mail server offers no STARTTLS: use smtps:// with its port for TLS, or smtp+plain:// if mails may go unencrypted",
            ));
        }
        let reply = self
            .command(&mut connection, Step::StartTls, Starttls)
            .await?;
        completed(Step::StartTls, reply)?;
        drop(connection);
        TcpStream::from_std(socket).map_err(broken)
    }

    async fn encrypt(&mut self, socket: TcpStream) -> Result<TlsStream, Failure> {
        let SmtpTransport { server, tls, .. } = self.transport;
        let encrypt = async {
            tls.connect(&server.host, socket)
                .await
                .map_err(|error| Failure::from_tls(&error, tls.ca_file.is_some()))
        };
        within(&mut self.limit, Step::Tls, encrypt).await
    }

    /// Logs in, and names sender and recipient, up to the reply to DATA.
    async fn announce(&mut self, connection: &mut AsyncSmtpConnection) -> Result<(), Failure> {
        if let Some(credentials) = &self.transport.credentials {
            self.log_in(connection, credentials).await?;
        }
        let from = Mail::new(Some(self.message.from().clone()), Vec::new());
        let reply = self.command(connection, Step::Mail, from).await?;
        completed(Step::Mail, reply)?;
        let to = self
            .message
            .recipient()
            .map_err(|error| Failure::broken(Step::Rcpt, error.to_string()))?;
        let to = Rcpt::new(to, Vec::new());
        let reply = self.command(connection, Step::Rcpt, to).await?;
        completed(Step::Rcpt, reply)?;
        let reply = self.command(connection, Step::Data, Data).await?;
        if reply.has_code(354) {
            return Ok(());
        }
        Err(unexpected(Step::Data, &reply))
    }

    async fn log_in(
        &mut self,
        connection: &mut AsyncSmtpConnection,
        credentials: &Credentials,
    ) -> Result<(), Failure> {
        let offered = connection
            .server_info()
            .get_auth_mechanism(DEFAULT_MECHANISMS);
        let mechanism = offered.ok_or_else(|| {
            Failure::setting(
                Step::Auth,
                "the mail server offers neither AUTH PLAIN nor AUTH LOGIN: leave the user out of the mail URL, or use the port for logins",
            )
        })?;
        let refused = |error| Failure::from_client(Step::Auth, &error);
        let auth = Auth::new(mechanism, credentials.clone(), None).map_err(refused)?;
        let mut reply = self.command(connection, Step::Auth, auth).await?;
        for _ in 0..MAX_CHALLENGES {
            if !reply.has_code(334) {
                break;
            }
            let auth =
                Auth::new_from_response(mechanism, credentials.clone(), &reply).map_err(refused)?;
            reply = self.command(connection, Step::Auth, auth).await?;
        }
        completed(Step::Auth, reply).map(|_| ())
    }

    async fn command(
        &mut self,
        connection: &mut AsyncSmtpConnection,
        step: Step,
        command: impl Display,
    ) -> Result<Response, Failure> {
        let replied = async {
            connection
                .command(command)
                .await
                .map_err(|error| Failure::from_client(step, &error))
        };
        within(&mut self.limit, step, replied).await
    }
}

/// Awaits a step until the time is over. A reply that is there counts even then.
async fn within<T>(
    limit: &mut Pin<&mut (dyn Future<Output = ()> + Send)>,
    step: Step,
    work: impl Future<Output = Result<T, Failure>>,
) -> Result<T, Failure> {
    tokio::select! {
        biased;
        done = work => done,
        () = limit => Err(Failure::too_slow(step)),
    }
}

/// Checks that a reply has a code from 200 to 299. The library takes 300 to 399 for success, too.
fn completed(step: Step, reply: Response) -> Result<Response, Failure> {
    if reply.code().severity == Severity::PositiveCompletion {
        return Ok(reply);
    }
    Err(unexpected(step, &reply))
}

fn unexpected(step: Step, reply: &Response) -> Failure {
    let code = reply.code();
    Failure::broken(
        step,
        format!("the mail server replied {code} to {step}, which is no reply to it"),
    )
}

fn peer(socket: &TcpStream) -> Result<SocketAddr, Failure> {
    socket
        .peer_addr()
        .map_err(|error| Failure::broken(Step::Connect, error.to_string()))
}

/// Returns this machine's address as its name, since a client behind a NAT or in a container has no better one.
fn hello_name(socket: &TcpStream) -> ClientId {
    match socket.local_addr().map(|address| address.ip()) {
        Ok(IpAddr::V4(address)) => ClientId::Ipv4(address),
        Ok(IpAddr::V6(address)) => ClientId::Ipv6(address),
        Err(_) => ClientId::default(),
    }
}

/// Ends the session, apart: the outcome of the mail is known, and must not be lost or delayed by this.
fn quit(mut connection: AsyncSmtpConnection) {
    tokio::spawn(async move { time::timeout(QUIT_TIMEOUT, connection.quit()).await });
}
