//! The caller's checkpoint: after the reply to DATA, before the first byte of the mail.

use std::{
    convert::Infallible,
    future,
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

use doorstep_mail::MailOutcome;
use doorstep_smtp::{Action, Offer, SmtpServer, Step};
use tokio::sync::oneshot;

use crate::{message, plain, send, settings, smtp};

async fn obliging() -> SmtpServer {
    SmtpServer::start(Offer::default(), |_, _| Action::Normal).await
}

#[tokio::test]
async fn checkpoint_precedes_the_mail() {
    let server = obliging().await;
    let calls = AtomicUsize::new(0);
    let checkpoint = || async {
        calls.fetch_add(1, Ordering::Relaxed);
        assert_eq!(server.commands().last().unwrap().line, "DATA");
        assert!(server.accepted().is_empty());
        Ok::<_, Infallible>(())
    };
    let Ok(outcome) = plain(&server).send(&message(), checkpoint).await;
    assert!(matches!(outcome, MailOutcome::Sent { .. }), "{outcome:?}");
    assert_eq!(calls.load(Ordering::Relaxed), 1);
}

#[tokio::test]
async fn failed_checkpoint_sends_nothing() {
    let server = obliging().await;
    let lost = || future::ready(Err("lease lost"));
    let outcome = plain(&server).send(&message(), lost).await;
    assert_eq!(outcome, Err("lease lost"));
    // A second mail shows that the server has got over the first.
    send(&plain(&server)).await;
    server.reaches(1, Step::Quit).await;
    let accepted = server.accepted();
    assert_eq!(accepted.len(), 1);
    assert_eq!(accepted[0].connection, 1);
    let has_quit = |command: &doorstep_smtp::Command| command.line == "QUIT";
    assert_eq!(server.commands().iter().filter(|c| has_quit(c)).count(), 1);
}

#[tokio::test]
async fn attempt_dropped_at_the_checkpoint_sends_nothing() {
    let server = obliging().await;
    let (at_checkpoint, reached) = oneshot::channel::<()>();
    let smtp = plain(&server);
    let attempt = tokio::spawn(async move {
        let checkpoint = || {
            at_checkpoint.send(()).unwrap();
            future::pending::<Result<(), Infallible>>()
        };
        smtp.send(&message(), checkpoint).await
    });
    reached.await.unwrap();
    attempt.abort();
    assert!(attempt.await.unwrap_err().is_cancelled());
    send(&plain(&server)).await;
    let accepted = server.accepted();
    assert_eq!(accepted.len(), 1);
    assert_eq!(accepted[0].connection, 1);
}

#[tokio::test]
async fn no_checkpoint_without_a_ready_server() {
    let refusing = SmtpServer::start(Offer::default(), |_, step| match step {
        Step::Rcpt => Action::reply("550 5.1.1 Unknown"),
        _ => Action::Normal,
    })
    .await;
    let never = || -> future::Ready<Result<(), Infallible>> { panic!("called") };
    let Ok(outcome) = plain(&refusing).send(&message(), never).await;
    assert!(
        matches!(outcome, MailOutcome::Failed { code: 550, .. }),
        "{outcome:?}"
    );
}

#[tokio::test]
async fn time_over_during_the_checkpoint_sends_nothing() {
    let server = obliging().await;
    let (over, limit) = oneshot::channel::<()>();
    let limit = async {
        let _ = limit.await;
    };
    // The checkpoint is not cut short: it returns after the time is over.
    let saved = AtomicUsize::new(0);
    let checkpoint = || async {
        over.send(()).unwrap();
        tokio::task::yield_now().await;
        saved.fetch_add(1, Ordering::Relaxed);
        Ok::<_, Infallible>(())
    };
    let smtp = plain(&server);
    let message = message();
    let Ok(outcome) = smtp.send_until(&message, checkpoint, limit).await;
    assert!(matches!(outcome, MailOutcome::Retry { .. }), "{outcome:?}");
    assert_eq!(saved.load(Ordering::Relaxed), 1);
    assert!(server.accepted().is_empty());
    // EHLO, MAIL, RCPT, DATA.
    assert_eq!(server.commands().len(), 4);
}

#[tokio::test]
async fn timeout_of_the_settings_ends_an_attempt() {
    let server = crate::server(Step::Connect, Action::Stall).await;
    let mut settings = settings(&format!("smtp+plain://127.0.0.1:{}", server.port()));
    settings.timeout = Duration::from_millis(20);
    let saved = || future::ready(Ok::<_, Infallible>(()));
    let Ok(outcome) = smtp(&settings).send(&message(), saved).await;
    assert!(matches!(outcome, MailOutcome::Retry { .. }), "{outcome:?}");
}
