//! One attempt to send a mail, against a server that a script lets misbehave at any step.

#![allow(clippy::unwrap_used, reason = "all of this is tests")]

mod after_dot;
mod any_fault;
mod before_dot;
mod checkpoint;
mod encrypted;
mod login;

use std::{convert::Infallible, future, path::Path, time::Duration};

use doorstep_contracts::EmailAddress;
use doorstep_mail::{
    MailContent, MailMessage, MailOutcome, MailSettings, MailTransport, Password, SmtpTransport,
};
use doorstep_smtp::{Action, Offer, SmtpServer, Step};
use tokio::time;

/// The recipient of all mails. No outcome may repeat it.
const RECIPIENT: &str = "alice.recipient@example.com";

/// The time after which an attempt counts as one that never ends.
const TIMEOUT: Duration = Duration::from_secs(120);

/// A temporary refusal.
const BUSY: &str = "451 4.3.0 <alice.recipient@example.com>: try again later";

fn message() -> MailMessage {
    let content = MailContent {
        to: EmailAddress::new(RECIPIENT).unwrap(),
        subject: "Your order".to_owned(),
        text: ".\n..\nThe order is on its way.\n".to_owned(),
        html: "<p>The order is on its way.</p>".to_owned(),
    };
    let sender = "Doorstep <doorstep@example.org>".parse().unwrap();
    let started_at = "2026-11-30T19:00:00Z".parse().unwrap();
    MailMessage::new(content, &sender, "order/1/confirmed", started_at).unwrap()
}

fn settings(url: &str) -> MailSettings {
    MailSettings {
        url: url.parse().unwrap(),
        password: None,
        ca_file: None,
        timeout: Duration::from_secs(3600),
    }
}

fn smtp(settings: &MailSettings) -> SmtpTransport {
    match settings.transport(Path::new("unused")) {
        Ok(MailTransport::Smtp(smtp)) => smtp,
        other => panic!("{other:?}"),
    }
}

fn plain(server: &SmtpServer) -> SmtpTransport {
    let url = format!("smtp+plain://127.0.0.1:{}", server.port());
    smtp(&settings(&url))
}

/// Sends the mail, without a limit of time.
async fn send(smtp: &SmtpTransport) -> MailOutcome {
    send_until(smtp, future::pending()).await
}

async fn send_until(smtp: &SmtpTransport, limit: impl Future<Output = ()> + Send) -> MailOutcome {
    let saved = || future::ready(Ok::<_, Infallible>(()));
    let message = message();
    let attempt = smtp.send_until(&message, saved, limit);
    let ended = time::timeout(TIMEOUT, attempt).await;
    let Ok(outcome) = ended.expect("an end of the attempt");
    let shown = format!("{outcome:?}");
    assert!(!shown.contains("alice.recipient"), "{shown}");
    outcome
}

/// Starts a server without TLS that takes an action at one step.
async fn server(at: Step, action: Action) -> SmtpServer {
    SmtpServer::start(Offer::default(), move |_, step| {
        if step == at {
            action.clone()
        } else {
            Action::Normal
        }
    })
    .await
}

/// Sends the mail to a server that takes an action at one step. The time is over as soon as the server has reached a step at which it
/// stalls.
async fn outcome(at: Step, action: Action) -> MailOutcome {
    let stalls = matches!(&action, Action::Stall)
        || matches!(&action, Action::Accept(inner) if **inner == Action::Stall);
    let server = server(at, action).await;
    let limit = async {
        if stalls {
            server.reaches(0, at).await;
        } else {
            future::pending::<()>().await;
        }
    };
    let outcome = send_until(&plain(&server), limit).await;
    let is_sent = matches!(outcome, MailOutcome::Sent { .. });
    assert!(!is_sent || server.accepted().len() == 1, "{outcome:?}");
    outcome
}

fn retry(why: &str) -> MailOutcome {
    MailOutcome::Retry {
        why: why.to_owned(),
    }
}

fn password() -> Option<Password> {
    Some(Password::new("hunter2".to_owned()))
}
