//! STARTTLS and TLS, with certificates that are made here.

use std::{
    fs,
    path::PathBuf,
    sync::atomic::{AtomicUsize, Ordering},
};

use doorstep_mail::{MailOutcome, MailSettings};
use doorstep_smtp::{Action, Certificate, Offer, SmtpServer, Step};

use crate::{outcome, password, send, send_until, settings, smtp};

/// A server with TLS, and the file of its certificate.
pub(crate) struct TlsServer {
    pub(crate) server: SmtpServer,
    ca_file: PathBuf,
    scheme: &'static str,
}

impl TlsServer {
    pub(crate) async fn start(
        scheme: &'static str,
        names: &[&str],
        script: impl Fn(usize, Step) -> Action + Send + Sync + 'static,
    ) -> Self {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let certificate = Certificate::for_names(names);
        let name = format!("doorstep-mail-{}-{count}.pem", std::process::id());
        let ca_file = std::env::temp_dir().join(name);
        fs::write(&ca_file, certificate.pem()).unwrap();
        let offer = Offer {
            certificate: Some(certificate),
            implicit_tls: scheme == "smtps",
            login: Some(("u".to_owned(), "hunter2".to_owned())),
            mechanisms: "PLAIN".to_owned(),
        };
        Self {
            server: SmtpServer::start(offer, script).await,
            ca_file,
            scheme,
        }
    }

    pub(crate) fn settings(&self) -> MailSettings {
        let url = format!("{}://u@127.0.0.1:{}", self.scheme, self.server.port());
        let mut settings = settings(&url);
        settings.password = password();
        settings.ca_file = Some(self.ca_file.clone());
        settings
    }

    async fn send(&self) -> MailOutcome {
        send(&smtp(&self.settings())).await
    }
}

impl Drop for TlsServer {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.ca_file);
    }
}

fn retried(outcome: MailOutcome) -> String {
    let MailOutcome::Retry { why } = outcome else {
        panic!("{outcome:?}");
    };
    why
}

#[tokio::test]
async fn login_and_mail_are_encrypted() {
    for scheme in ["smtp", "smtps"] {
        let tls = TlsServer::start(scheme, &["127.0.0.1"], |_, _| Action::Normal).await;
        let outcome = tls.send().await;
        assert!(matches!(outcome, MailOutcome::Sent { .. }), "{outcome:?}");
        let accepted = tls.server.accepted();
        assert!(accepted[0].encrypted && accepted[0].user.is_some());
        for command in tls.server.commands() {
            let is_opening = command.line.starts_with("EHLO") || command.line == "STARTTLS";
            assert!(command.encrypted || is_opening, "{command:?}");
        }
    }
}

#[tokio::test]
async fn host_name_is_checked() {
    for scheme in ["smtp", "smtps"] {
        let tls = TlsServer::start(scheme, &["mail.example.com"], |_, _| Action::Normal).await;
        let why = retried(tls.send().await);
        assert!(why.contains("mail.example.com"), "{why}");
        assert!(tls.server.accepted().is_empty());
    }
}

#[tokio::test]
async fn untrusted_server_gets_no_password() {
    for scheme in ["smtp", "smtps"] {
        let tls = TlsServer::start(scheme, &["127.0.0.1"], |_, _| Action::Normal).await;
        let other = TlsServer::start(scheme, &["127.0.0.1"], |_, _| Action::Normal).await;
        let mut settings = tls.settings();
        settings.ca_file = Some(other.ca_file.clone());
        let why = retried(send(&smtp(&settings)).await);
        assert!(why.contains("mail CA file"), "{why}");
        let has_login = |command: &doorstep_smtp::Command| command.line.starts_with("AUTH");
        assert!(!tls.server.commands().iter().any(has_login));
    }
}

#[tokio::test]
async fn server_without_starttls_is_a_setting() {
    let server = SmtpServer::start(Offer::default(), |_, _| Action::Normal).await;
    let transport = smtp(&settings(&format!("smtp://127.0.0.1:{}", server.port())));
    let outcome = send(&transport).await;
    let MailOutcome::Misconfigured { why } = outcome else {
        panic!("{outcome:?}");
    };
    assert!(why.contains("STARTTLS"), "{why}");
    assert!(server.accepted().is_empty());
}

#[tokio::test]
async fn refused_starttls_is_a_setting_or_retried() {
    for (reply, is_retried) in [
        ("454 4.7.0 TLS not available", true),
        ("554 5.7.3 No", false),
        ("334 what", true),
    ] {
        let script = move |_, step| match step {
            Step::StartTls => Action::reply(reply),
            _ => Action::Normal,
        };
        let tls = TlsServer::start("smtp", &["127.0.0.1"], script).await;
        let outcome = tls.send().await;
        match outcome {
            MailOutcome::Retry { .. } => assert!(is_retried, "{reply}"),
            MailOutcome::Misconfigured { .. } => assert!(!is_retried, "{reply}"),
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn failed_handshake_is_retried() {
    for scheme in ["smtp", "smtps"] {
        for action in [
            Action::Close,
            Action::Reset,
            Action::Raw(b"220 no TLS here\r\n".to_vec()),
            Action::Stall,
        ] {
            let stalls = action == Action::Stall;
            let script = move |_, step| match step {
                Step::Handshake => action.clone(),
                _ => Action::Normal,
            };
            let tls = TlsServer::start(scheme, &["127.0.0.1"], script).await;
            let limit = async {
                if stalls {
                    tls.server.reaches(0, Step::Handshake).await;
                } else {
                    std::future::pending::<()>().await;
                }
            };
            retried(send_until(&smtp(&tls.settings()), limit).await);
        }
    }
}

#[tokio::test]
async fn tls_to_a_plain_port_names_the_remedy() {
    let server = SmtpServer::start(Offer::default(), |_, _| Action::Normal).await;
    let transport = smtp(&settings(&format!("smtps://127.0.0.1:{}", server.port())));
    let why = retried(send(&transport).await);
    assert!(why.contains("465") && why.contains("587"), "{why}");
}

#[tokio::test]
async fn replies_before_the_handshake_are_discarded() {
    // Replies to all later commands, slipped in before the encryption.
    let replies = "220 go\r\n250 test\r\n235 in\r\n250 ok\r\n250 ok\r\n354 go\r\n250 forged\r\n";
    let script = move |_, step| match step {
        Step::StartTls => Action::Raw(replies.as_bytes().to_vec()),
        _ => Action::Normal,
    };
    let tls = TlsServer::start("smtp", &["127.0.0.1"], script).await;
    match tls.send().await {
        MailOutcome::Sent { reply } => {
            assert!(!reply.contains("forged"), "{reply}");
            assert_eq!(tls.server.accepted().len(), 1);
        }
        // The forged replies came in a second packet, as the beginning of the handshake.
        MailOutcome::Retry { .. } => {}
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn lost_connection_after_an_encrypted_mail_is_unknown() {
    for scheme in ["smtp", "smtps"] {
        for action in [Action::Close, Action::Reset] {
            let script = move |_, step| match step {
                Step::Dot => Action::Accept(Box::new(action.clone())),
                _ => Action::Normal,
            };
            let tls = TlsServer::start(scheme, &["127.0.0.1"], script).await;
            let outcome = tls.send().await;
            assert!(
                matches!(outcome, MailOutcome::Unknown { .. }),
                "{outcome:?}"
            );
        }
    }
}

#[tokio::test]
async fn plain_server_is_no_fallback() {
    let outcome = outcome(Step::Hello, Action::reply("250 test")).await;
    assert!(matches!(outcome, MailOutcome::Sent { .. }), "{outcome:?}");
}
