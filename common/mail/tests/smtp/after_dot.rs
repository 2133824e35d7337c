//! Faults after the mail itself is sent: only a complete reply decides, anything else is unknown.

use doorstep_mail::MailOutcome;
use doorstep_smtp::{Action, Offer, SmtpServer, Step};

use crate::{BUSY, message, outcome, plain, retry, send};

/// Asserts that an action in place of the reply leaves the outcome unknown, whether or not the server has accepted the mail.
async fn is_unknown(action: Action) {
    for action in [action.clone(), Action::Accept(Box::new(action))] {
        let outcome = outcome(Step::Dot, action.clone()).await;
        assert!(
            matches!(outcome, MailOutcome::Unknown { .. }),
            "{action:?}: {outcome:?}"
        );
    }
}

#[tokio::test]
async fn accepted_mail_is_sent_as_it_was_built() {
    let server = SmtpServer::start(Offer::default(), |_, _| Action::Normal).await;
    let reply = "2.0.0 Ok: queued as 4F1A".to_owned();
    assert_eq!(send(&plain(&server)).await, MailOutcome::Sent { reply });
    let accepted = server.accepted();
    assert_eq!(accepted.len(), 1);
    assert_eq!(accepted[0].from, "MAIL FROM:<doorstep@example.org>");
    assert_eq!(accepted[0].to, ["RCPT TO:<alice.recipient@example.com>"]);
    let expected = message().bytes().to_vec();
    assert_eq!(
        String::from_utf8_lossy(&accepted[0].data),
        String::from_utf8_lossy(&expected)
    );
    server.reaches(0, Step::Quit).await;
    let hello = &server.commands()[0].line;
    assert_eq!(hello, "EHLO [127.0.0.1]");
}

#[tokio::test]
async fn reply_without_text_is_complete() {
    let accepts = |reply: &[u8]| Action::Accept(Box::new(Action::Raw(reply.to_vec())));
    for (raw, text) in [
        (&b"250\r\n"[..], ""),
        (b"250 \r\n", ""),
        (b"250-\r\n250 done\r\n", "done"),
        (b"250 gr\xfc\xdfe\r\n", "gr??e"),
    ] {
        let reply = text.to_owned();
        let outcome = outcome(Step::Dot, accepts(raw)).await;
        assert_eq!(outcome, MailOutcome::Sent { reply }, "{raw:?}");
    }
}

#[tokio::test]
async fn temporary_refusal_is_retried() {
    let busy = outcome(Step::Dot, Action::reply(BUSY)).await;
    let why = "the mail server replied 451 to the mail: 4.3.0 <***@example.com>: try again later";
    assert_eq!(busy, retry(why));
    let closing = outcome(Step::Dot, Action::reply("421 4.3.2 Shutting down")).await;
    assert!(matches!(closing, MailOutcome::Retry { .. }), "{closing:?}");
}

#[tokio::test]
async fn final_refusal_fails() {
    let refused = outcome(Step::Dot, Action::reply("554 5.7.1 Spam\u{1b}[31m")).await;
    let text = "5.7.1 Spam [31m".to_owned();
    assert_eq!(refused, MailOutcome::Failed { code: 554, text });
}

#[tokio::test]
async fn lost_connection_is_unknown() {
    is_unknown(Action::Close).await;
    is_unknown(Action::Reset).await;
}

#[tokio::test]
async fn stall_is_unknown() {
    is_unknown(Action::Stall).await;
}

#[tokio::test]
async fn garbage_is_unknown() {
    for garbage in ["Ok", "999 none", "25", "250-two\r\n251 codes", "354 again"] {
        is_unknown(Action::reply(garbage)).await;
    }
    is_unknown(Action::Endless).await;
}

#[tokio::test]
async fn half_a_reply_is_unknown() {
    for half in ["2", "250", "250 Ok", "250-Ok\r\n", "550 5.7.1 Spam", "451"] {
        let half = half.as_bytes().to_vec();
        let server = SmtpServer::start(Offer::default(), move |_, step| match step {
            Step::Dot => Action::Accept(Box::new(Action::Raw(half.clone()))),
            // The client waits for the rest of the reply; no further command comes.
            _ => Action::Normal,
        })
        .await;
        let reached = server.reaches(0, Step::Dot);
        let outcome = crate::send_until(&plain(&server), reached).await;
        assert!(
            matches!(outcome, MailOutcome::Unknown { .. }),
            "{outcome:?}"
        );
    }
}

#[tokio::test]
async fn lost_connection_within_the_mail_is_unknown() {
    for action in [Action::Close, Action::Reset, Action::Stall] {
        let outcome = outcome(Step::FirstLine, action.clone()).await;
        assert!(
            matches!(outcome, MailOutcome::Unknown { .. }),
            "{action:?}: {outcome:?}"
        );
    }
}

#[tokio::test]
async fn stall_after_quit_does_not_matter() {
    let stalled = outcome(Step::Quit, Action::Stall);
    // The server stalls at QUIT, which only follows once the outcome is known.
    let outcome = stalled.await;
    assert!(matches!(outcome, MailOutcome::Sent { .. }), "{outcome:?}");
}
