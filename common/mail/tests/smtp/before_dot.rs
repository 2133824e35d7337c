//! Faults before the mail itself is sent: the mail is retried, or has failed for good. It is never in doubt.

use doorstep_mail::MailOutcome;
use doorstep_smtp::{Action, Step};
use tokio::net::TcpListener;

use crate::{BUSY, outcome, plain, retry, send, server, settings, smtp};

/// The steps up to the reply to DATA.
const STEPS: [Step; 5] = [
    Step::Connect,
    Step::Hello,
    Step::Mail,
    Step::Rcpt,
    Step::Data,
];

async fn is_retried(action: Action) {
    for step in STEPS {
        let outcome = outcome(step, action.clone()).await;
        assert!(
            matches!(outcome, MailOutcome::Retry { .. }),
            "{step:?} {action:?}: {outcome:?}"
        );
    }
}

#[tokio::test]
async fn no_connection_is_retried() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    drop(listener);
    let transport = smtp(&settings(&format!("smtp+plain://127.0.0.1:{port}")));
    let MailOutcome::Retry { why } = send(&transport).await else {
        panic!("not retried");
    };
    assert!(why.contains(&format!("127.0.0.1:{port}")), "{why}");
}

#[tokio::test]
async fn unknown_host_is_retried() {
    // Longer than a label of DNS may be: no name server knows it, not even one that invents answers.
    let host = format!("{}.example", "m".repeat(64));
    let transport = smtp(&settings(&format!("smtp+plain://{host}")));
    let MailOutcome::Retry { why } = send(&transport).await else {
        panic!("not retried");
    };
    assert!(why.contains(&format!("{host}:25")), "{why}");
}

#[tokio::test]
async fn server_that_shuts_down_is_retried() {
    is_retried(Action::reply("421 4.3.2 Shutting down")).await;
}

#[tokio::test]
async fn temporary_refusal_is_retried() {
    is_retried(Action::reply(BUSY)).await;
    let greylisted = outcome(Step::Rcpt, Action::reply("450 4.2.0 Greylisted")).await;
    let why = "the mail server replied 450 to RCPT: 4.2.0 Greylisted";
    assert_eq!(greylisted, retry(why));
}

#[tokio::test]
async fn stall_is_retried() {
    is_retried(Action::Stall).await;
    let stalled = outcome(Step::Rcpt, Action::Stall).await;
    let why = "the mail server took too long: the time for the mail was over during RCPT";
    assert_eq!(stalled, retry(why));
}

#[tokio::test]
async fn lost_connection_is_retried() {
    is_retried(Action::Close).await;
    is_retried(Action::Reset).await;
}

#[tokio::test]
async fn garbage_is_retried() {
    for garbage in [
        "no reply at all",
        "999 none",
        "199 too low",
        "25",
        "250-two\r\n251 codes",
        "\u{0}\u{1}\u{2}",
    ] {
        is_retried(Action::reply(garbage)).await;
    }
    is_retried(Action::Raw(b"HTTP/1.1 400 Bad Request\r\n\r\n".to_vec())).await;
}

#[tokio::test]
async fn endless_line_is_retried() {
    is_retried(Action::Endless).await;
}

#[tokio::test]
async fn endless_reply_is_retried() {
    let lines = "250-more\r\n".repeat(20_000).into_bytes();
    is_retried(Action::Raw(lines)).await;
}

#[tokio::test]
async fn reply_to_another_step_is_retried() {
    for (step, reply) in [
        (Step::Mail, "354 Go ahead"),
        (Step::Rcpt, "354 Go ahead"),
        (Step::Data, "250 Ok"),
        (Step::Data, "334 Ok"),
    ] {
        let outcome = outcome(step, Action::reply(reply)).await;
        assert!(
            matches!(outcome, MailOutcome::Retry { .. }),
            "{step:?}: {outcome:?}"
        );
    }
}

#[tokio::test]
async fn refused_client_or_sender_is_a_setting() {
    for (step, name) in [
        (Step::Connect, "EHLO"),
        (Step::Hello, "EHLO"),
        (Step::Mail, "MAIL"),
    ] {
        let server = server(step, Action::reply("550 5.7.1 Not you")).await;
        let why = format!("the mail server replied 550 to {name}: 5.7.1 Not you");
        let outcome = send(&plain(&server)).await;
        assert_eq!(outcome, MailOutcome::Misconfigured { why }, "{step:?}");
    }
}

#[tokio::test]
async fn refused_recipient_or_mail_fails() {
    for step in [Step::Rcpt, Step::Data] {
        let refusal = "550-5.1.1 <alice.recipient@example.com>:\r\n550 5.1.1 unknown";
        let server = server(step, Action::reply(refusal)).await;
        let outcome = send(&plain(&server)).await;
        let failed = MailOutcome::Failed {
            code: 550,
            text: "5.1.1 <***@example.com>: unknown".to_owned(),
        };
        assert_eq!(outcome, failed, "{step:?}");
        // The session ends in order.
        server.reaches(0, Step::Quit).await;
        assert!(server.accepted().is_empty());
    }
}
