//! Logins: their mechanisms, and refusals that only another setting can mend.

use doorstep_mail::{MailOutcome, SmtpTransport};
use doorstep_smtp::{Action, Offer, SmtpServer, Step};

use crate::{password, plain, send, settings, smtp};

async fn server(
    mechanisms: &str,
    expected: &str,
    script: impl Fn(usize, Step) -> Action + Send + Sync + 'static,
) -> SmtpServer {
    let offer = Offer {
        login: Some(("door@step".to_owned(), expected.to_owned())),
        mechanisms: mechanisms.to_owned(),
        ..Offer::default()
    };
    SmtpServer::start(offer, script).await
}

fn with_login(server: &SmtpServer) -> SmtpTransport {
    let url = format!("smtp+plain://door%40step@127.0.0.1:{}", server.port());
    let mut settings = settings(&url);
    settings.password = password();
    smtp(&settings)
}

fn misconfigured(outcome: MailOutcome) -> String {
    let MailOutcome::Misconfigured { why } = outcome else {
        panic!("{outcome:?}");
    };
    assert!(!why.contains("hunter2"), "{why}");
    why
}

#[tokio::test]
async fn either_mechanism_logs_in() {
    for mechanisms in ["PLAIN", "LOGIN", "LOGIN PLAIN CRAM-MD5"] {
        let server = server(mechanisms, "hunter2", |_, _| Action::Normal).await;
        let outcome = send(&with_login(&server)).await;
        assert!(matches!(outcome, MailOutcome::Sent { .. }), "{outcome:?}");
        let user = server.accepted()[0].user.clone();
        assert_eq!(user.as_deref(), Some("door@step"), "{mechanisms}");
    }
}

#[tokio::test]
async fn refused_login_is_a_setting() {
    for mechanisms in ["PLAIN", "LOGIN"] {
        let server = server(mechanisms, "another", |_, _| Action::Normal).await;
        let why = misconfigured(send(&with_login(&server)).await);
        assert!(why.contains("replied 535 to AUTH"), "{why}");
    }
}

#[tokio::test]
async fn missing_login_is_a_setting() {
    let server = server("PLAIN", "hunter2", |_, _| Action::Normal).await;
    let why = misconfigured(send(&plain(&server)).await);
    assert!(why.contains("replied 530 to MAIL"), "{why}");
}

#[tokio::test]
async fn missing_mechanism_is_a_setting() {
    for mechanisms in ["", "CRAM-MD5"] {
        let server = server(mechanisms, "hunter2", |_, _| Action::Normal).await;
        let why = misconfigured(send(&with_login(&server)).await);
        assert!(why.contains("AUTH PLAIN"), "{why}");
    }
}

#[tokio::test]
async fn login_service_away_is_retried() {
    for step in [Step::Auth, Step::User, Step::Password] {
        for action in [
            Action::reply("454 4.7.0 Temporary failure"),
            Action::reply("334 !"),
            Action::Close,
        ] {
            let acted = action.clone();
            let script = move |_, at| {
                if at == step {
                    acted.clone()
                } else {
                    Action::Normal
                }
            };
            let mechanisms = if step == Step::Auth { "PLAIN" } else { "LOGIN" };
            let server = server(mechanisms, "hunter2", script).await;
            let outcome = send(&with_login(&server)).await;
            assert!(
                matches!(outcome, MailOutcome::Retry { .. }),
                "{step:?} {action:?}: {outcome:?}"
            );
        }
    }
}
