//! One attempt to send a mail over SMTP.

mod exchange;
mod failure;
mod reply_stream;

use std::{pin::pin, time::Duration};

use doorstep_tls::TlsSettings;
use lettre::transport::smtp::authentication::Credentials;
use tokio::time;

use self::exchange::Exchange;
use crate::{MailMessage, MailOutcome, Password, SmtpServer};

/// Sends mails to one server, with a connection for each.
#[derive(Debug, Clone)]
pub struct SmtpTransport {
    server: SmtpServer,
    credentials: Option<Credentials>,
    tls: TlsSettings,
    timeout: Duration,
}

impl SmtpTransport {
    pub(crate) fn new(
        server: &SmtpServer,
        password: Option<&Password>,
        tls: TlsSettings,
        timeout: Duration,
    ) -> Self {
        let login = server.user.clone().zip(password);
        Self {
            server: server.clone(),
            credentials: login
                .map(|(user, password)| Credentials::new(user, password.expose().to_owned())),
            tls,
            timeout,
        }
    }

    /// Sends a mail: one attempt, over its own connection, within the timeout of the settings. Has to be called in a tokio runtime.
    ///
    /// `before_final_dot` is called once the server is ready for the mail, and nothing of the mail is sent before it has returned. It is
    /// never cut short, as it may be writing to a store; if the time is over when it returns, nothing is sent.
    ///
    /// # Cancellation
    /// If it is dropped before `before_final_dot` is called, the mail was not sent; after that the outcome is unknown.
    ///
    /// # Errors
    /// The error of `before_final_dot`; nothing of the mail is sent then.
    pub async fn send<F, S, E>(
        &self,
        message: &MailMessage,
        before_final_dot: F,
    ) -> Result<MailOutcome, E>
    where
        F: FnOnce() -> S,
        S: Future<Output = Result<(), E>>,
    {
        let limit = time::sleep(self.timeout);
        self.send_until(message, before_final_dot, limit).await
    }

    /// Sends a mail as [`SmtpTransport::send`] does, within the time at whose end the future `limit` is ready.
    ///
    /// # Errors
    /// The error of `before_final_dot`; nothing of the mail is sent then.
    pub async fn send_until<F, S, E>(
        &self,
        message: &MailMessage,
        before_final_dot: F,
        limit: impl Future<Output = ()> + Send,
    ) -> Result<MailOutcome, E>
    where
        F: FnOnce() -> S,
        S: Future<Output = Result<(), E>>,
    {
        let limit = pin!(limit);
        let mut exchange = Exchange::new(self, message, limit);
        let prepared = match exchange.prepare().await {
            Ok(prepared) => prepared,
            Err(failure) => return Ok(failure.before_dot(message.to())),
        };
        before_final_dot().await?;
        if let Err(failure) = exchange.check_time().await {
            return Ok(failure.before_dot(message.to()));
        }
        Ok(exchange.finish(prepared).await)
    }
}
