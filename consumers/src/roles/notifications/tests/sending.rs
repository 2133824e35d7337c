//! The task, against a mail server whose replies and faults a script decides.

use std::{
    path::Path,
    sync::{Mutex, mpsc},
    time::Duration,
};

use doorstep_mail::MailSettings;
use doorstep_runtime::task::{
    AttemptFacts, DetachedAttempt, OnUnknown, StopReason, Task, TaskContext, TaskError, TaskPolicy,
};
use doorstep_smtp::{Action, Offer, SmtpServer, Step};
use doorstep_store::{EntityChange, ExpectedVersion, MemoryStore, Store, WriteSet};

use super::*;
use crate::roles::notifications::tasks::MailCheckpoint;

fn resources(url: &str, on_unknown: OnUnknown) -> MailResources {
    let settings = MailSettings {
        url: url.parse().unwrap(),
        password: None,
        ca_file: None,
        timeout: Duration::from_secs(100),
    };
    MailResources {
        transport: settings.transport(Path::new("unused")).unwrap(),
        from: "Doorstep <doorstep@example.com>".parse().unwrap(),
        public_url: "https://shop.example.com".parse().unwrap(),
        policy: TaskPolicy {
            on_unknown,
            ..SendMail::POLICY
        },
    }
}

/// A queued mail about a confirmed order, with the server that it goes to.
struct Sending {
    shop: Shop,
    server: SmtpServer,
    facts: AttemptFacts,
    on_unknown: OnUnknown,
}

impl Sending {
    /// `script` gets the number of the connection and the step.
    async fn new(script: impl Fn(usize, Step) -> Action + Send + Sync + 'static) -> Self {
        let mut shop = Shop::with_address("ada");
        shop.place("gateway", "1", Some("ada"));
        shop.give("gateway", "order/1", &confirmed());
        let id = TaskId::new("mail/order/1/confirmed").unwrap();
        Self {
            shop,
            server: SmtpServer::start(Offer::default(), script).await,
            facts: AttemptFacts::first(id, ten()),
            on_unknown: OnUnknown::Wait,
        }
    }

    /// Begins an attempt on the present states.
    async fn begin(
        &self,
    ) -> (
        impl Future<Output = Result<Mailed, TaskError>> + 'static,
        DetachedAttempt,
    ) {
        let store = MemoryStore::new("notifications");
        let entities = self.shop.role.states().map(|(key, state)| EntityChange {
            key: key.clone(),
            expect: ExpectedVersion {
                row: None,
                version: 0,
            },
            after: Some(serde_json::to_vec(state).unwrap()),
        });
        let states = WriteSet {
            entities: entities.collect(),
            ..WriteSet::at(ten())
        };
        store.commit(states).await.unwrap();
        let url = format!("smtp+plain://127.0.0.1:{}", self.server.port());
        let (context, attempt) = TaskContext::detached(store, self.facts.clone());
        let sending = self
            .shop
            .task()
            .run(context, resources(&url, self.on_unknown));
        (sending, attempt)
    }

    /// Runs an attempt, and returns its end. The next one begins with its last checkpoint.
    async fn attempt(&mut self) -> Result<MailResult, TaskError> {
        let (sending, attempt) = self.begin().await;
        let ended = sending.await;
        if let Some(last) = attempt.checkpoints::<MailCheckpoint>().last() {
            self.facts = self.facts.clone().then_from(last);
        }
        ended.map(|mailed| {
            assert_eq!(mailed.mail, "mail/order/1/confirmed");
            mailed.result
        })
    }

    /// Returns the recipients and the bytes of the accepted mails.
    fn accepted(&self) -> Vec<(String, String)> {
        let mails = self.server.accepted().into_iter();
        mails
            .map(|mail| (mail.to.join(" "), String::from_utf8(mail.data).unwrap()))
            .collect()
    }

    fn connections(&self) -> usize {
        let commands = self.server.commands();
        commands.iter().map(|c| c.connection + 1).max().unwrap_or(0)
    }
}

fn at(fault: Step, action: Action) -> impl Fn(usize, Step) -> Action + Send + Sync {
    move |connection, step| match connection == 0 && step == fault {
        true => action.clone(),
        false => Action::Normal,
    }
}

/// Accepts the first mail, and closes the connection before the reply.
fn drop_after_data() -> impl Fn(usize, Step) -> Action + Send + Sync {
    at(Step::Dot, Action::Accept(Box::new(Action::Close)))
}

#[track_caller]
fn is_sent(ended: Result<MailResult, TaskError>) -> bool {
    matches!(ended.unwrap(), MailResult::Sent { .. })
}

#[tokio::test]
async fn a_mail_goes_to_the_confirmed_address() {
    let mut sending = Sending::new(|_, _| Action::Normal).await;
    let ended = sending.attempt().await.unwrap();
    assert!(matches!(ended, MailResult::Sent { .. }), "{ended:?}");
    let [(to, mail)] = &sending.accepted()[..] else {
        panic!("{:?}", sending.accepted());
    };
    assert!(to.contains("<ada@example.com>"), "{to}");
    assert!(mail.contains("Subject: Order 1 is confirmed"), "{mail}");
}

#[tokio::test]
async fn address_is_read_when_the_mail_is_sent() {
    let busy = |connection, step| match connection < 2 && step == Step::Rcpt {
        true => Action::reply("450 later"),
        false => Action::Normal,
    };
    let mut sending = Sending::new(busy).await;
    assert!(matches!(sending.attempt().await, Err(TaskError::Retry(_))));
    sending.shop.set_address("ada", "new@example.com", "n1");
    sending.shop.role.tasks.pop();
    assert!(matches!(sending.attempt().await, Err(TaskError::Retry(_))));
    sending.shop.confirm_address("ada", "new@example.com", "n1");
    assert!(is_sent(sending.attempt().await));
    let commands = sending.server.commands();
    let asked = commands.iter().filter(|c| c.line.starts_with("RCPT"));
    let asked: Vec<&str> = asked.map(|c| c.line.trim()).collect();
    let [first, second] = ["ada", "new"].map(|name| format!("RCPT TO:<{name}@example.com>"));
    assert_eq!(asked, [&*first, &*first, &*second]);
}

#[tokio::test]
async fn waiting_mails_respect_later_choices() {
    let mut sending = Sending::new(|_, _| Action::Normal).await;
    let choices = NotificationsChosen {
        confirmations: false,
        ..NotificationsChosen::default()
    };
    sending.shop.give("gateway", "user/ada", &choices);
    let ended = sending.attempt().await.unwrap();
    assert!(matches!(&ended, MailResult::Skipped { reason } if reason.contains("has chosen")));
    sending.shop.remove_address("ada");
    let ended = sending.attempt().await.unwrap();
    assert!(matches!(&ended, MailResult::Skipped { reason } if reason.contains("no confirmed")));
    assert_eq!(sending.connections(), 0);
}

#[tokio::test]
async fn temporary_refusals_are_retried_and_permanent_ones_fail() {
    for step in [Step::Connect, Step::Mail, Step::Rcpt, Step::Data, Step::Dot] {
        let mut sending = Sending::new(at(step, Action::reply("421 busy"))).await;
        let ended = sending.attempt().await;
        assert!(
            matches!(ended, Err(TaskError::Retry(_))),
            "{step:?}: {ended:?}"
        );
        assert!(sending.attempt().await.is_ok(), "{step:?}");
        assert_eq!(sending.accepted().len(), 1, "{step:?}");
    }
    for step in [Step::Rcpt, Step::Data, Step::Dot] {
        let reply = Action::reply("550 no mailbox ada@example.com");
        let mut sending = Sending::new(at(step, reply)).await;
        let ended = sending.attempt().await;
        let Err(TaskError::Fail(text)) = ended else {
            panic!("{step:?}: {ended:?}");
        };
        assert!(text.starts_with("550") && !text.contains("ada@"), "{text}");
    }
}

#[tokio::test]
async fn a_mail_without_reply_is_sent_once() {
    let mut sending = Sending::new(drop_after_data()).await;
    for _ in 0..2 {
        let ended = sending.attempt().await;
        assert!(matches!(ended, Err(TaskError::Unknown(_))), "{ended:?}");
    }
    assert_eq!(sending.accepted().len(), 1);
    assert_eq!(sending.connections(), 1);
}

#[tokio::test]
async fn a_resent_mail_has_the_same_bytes() {
    let mut sending = Sending::new(drop_after_data()).await;
    sending.on_unknown = OnUnknown::Retry;
    let ended = sending.attempt().await;
    assert!(matches!(ended, Err(TaskError::Unknown(_))), "{ended:?}");
    let ended = sending.attempt().await;
    assert!(matches!(ended, Ok(MailResult::Sent { .. })), "{ended:?}");
    let accepted = sending.accepted();
    assert_eq!(accepted.len(), 2);
    assert_eq!(accepted[0], accepted[1]);
}

#[tokio::test]
async fn a_mail_is_not_resent_to_another_address() {
    let mut sending = Sending::new(drop_after_data()).await;
    sending.on_unknown = OnUnknown::Retry;
    assert!(matches!(
        sending.attempt().await,
        Err(TaskError::Unknown(_))
    ));
    sending.shop.set_address("ada", "new@example.com", "n1");
    sending.shop.role.tasks.pop();
    sending.shop.confirm_address("ada", "new@example.com", "n1");
    assert!(matches!(
        sending.attempt().await,
        Err(TaskError::Unknown(_))
    ));
    sending.shop.remove_address("ada");
    assert!(matches!(
        sending.attempt().await,
        Err(TaskError::Unknown(_))
    ));
    assert_eq!(sending.accepted().len(), 1);
}

#[tokio::test]
async fn nothing_is_sent_without_a_checkpoint() {
    let sending = Sending::new(|_, _| Action::Normal).await;
    let (attempt, control) = sending.begin().await;
    control.stop(StopReason::LeaseLost);
    assert_eq!(attempt.await, Err(TaskError::Stopped));
    assert_eq!(sending.accepted(), []);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stop_awaits_a_mails_reply() {
    let sending = Sending::new(at(Step::Data, Action::Stall)).await;
    let (attempt, control) = sending.begin().await;
    let attempt = tokio::spawn(attempt);
    sending.server.reaches(0, Step::Data).await;
    control.stop(StopReason::Shutdown);
    assert_eq!(attempt.await.unwrap(), Err(TaskError::Stopped));

    // The server replies only after the attempt was asked to stop.
    let (stopped, wait) = mpsc::channel();
    let wait = Mutex::new(wait);
    let script = move |_, step| {
        if step == Step::Dot {
            wait.lock().unwrap().recv().unwrap();
        }
        Action::Normal
    };
    let sending = Sending::new(script).await;
    let (attempt, control) = sending.begin().await;
    let attempt = tokio::spawn(attempt);
    sending.server.reaches(0, Step::FirstLine).await;
    control.stop(StopReason::Shutdown);
    stopped.send(()).unwrap();
    assert!(attempt.await.unwrap().is_ok());
}
