//! The task that sends a mail.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use doorstep_contracts::CustomerId;
use doorstep_mail::{MailContent, MailMessage, MailOutcome, MailTransport, Sender};
use doorstep_runtime::task::{OnUnknown, Task, TaskContext, TaskError, TaskPolicy};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::{
    contracts::{MailResult, Mailed, Topic},
    entities::{Recipient, Record, SkipReason, UserMails},
    letter::{Letter, LetterLink, time},
    public_url::PublicUrl,
    user_key,
};

/// `notifications.send_mail.v1`: sends the mail about a topic to the address that the customer has then. Its id is the
/// key of the mail's state.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct SendMail {
    pub(super) customer: CustomerId,
    /// The program of the order.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) program: Option<String>,
    pub(super) topic: Topic,
}

/// The way and the words that mails need.
#[derive(Debug, Clone)]
pub(crate) struct MailResources {
    pub(crate) transport: MailTransport,
    pub(crate) from: Sender,
    pub(crate) public_url: PublicUrl,
    pub(crate) policy: TaskPolicy,
}

/// The record of an attempt for the next one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum MailCheckpoint {
    /// The mail with this SHA-256 is about to be transmitted: from here on the server may have accepted it.
    AtDot { sha256: String },
    /// The server has refused it for now.
    NotAccepted,
}

impl Task for SendMail {
    const TYPE: &'static str = "notifications.send_mail.v1";
    const POLICY: TaskPolicy = TaskPolicy {
        initial_backoff: Duration::from_secs(5),
        max_backoff: Duration::from_mins(30),
        give_up_after: Duration::from_hours(72),
        ..TaskPolicy::DEFAULT
    };
    type Resources = MailResources;
    type Output = Mailed;

    async fn run(self, context: TaskContext, with: MailResources) -> Result<Mailed, TaskError> {
        let transmitted = match context.checkpoint()? {
            Some(MailCheckpoint::AtDot { sha256 }) => Some(sha256),
            Some(MailCheckpoint::NotAccepted) | None => None,
        };
        if transmitted.is_some() && with.policy.on_unknown == OnUnknown::Wait {
            return Err(TaskError::Unknown(
                "an earlier attempt ended before the mail server's reply to the mail".to_owned(),
            ));
        }
        let keys = vec![user_key(&self.customer)];
        let user = context.read_entities::<Record>(keys).await?.pop().flatten();
        let user = match user {
            Some(Record::User(user)) => user,
            _ => Box::default(),
        };
        let message = match self.message(&user, &context, &with)? {
            Ok(message) => message,
            Err(_) if transmitted.is_some() => return Err(changed()),
            Err(reason) => {
                let reason = reason.to_string();
                return Ok(self.mailed(&context, MailResult::Skipped { reason }));
            }
        };
        let sha256 = hex::encode(Sha256::digest(message.bytes()));
        if transmitted.is_some_and(|earlier| earlier != sha256) {
            return Err(changed());
        }
        let reply = send(&message, sha256, &context, &with.transport).await?;
        Ok(self.mailed(&context, MailResult::Sent { reply }))
    }
}

impl SendMail {
    /// Builds the mail: the same bytes for the same address in every attempt. Returns the reason if there is none.
    fn message(
        &self,
        user: &UserMails,
        context: &TaskContext,
        with: &MailResources,
    ) -> Result<Result<MailMessage, SkipReason>, TaskError> {
        let Recipient { address, link } = match user.recipient(&self.topic, self.program.as_deref())
        {
            Ok(recipient) => recipient,
            Err(reason) => return Ok(Err(reason)),
        };
        let public_url = with.public_url.as_str();
        let link = link.map(|link| LetterLink {
            label: "Confirm the address",
            url: format!("{public_url}{}", link.path.as_str()),
            expires_at: time(link.expires_at),
        });
        let letter = Letter::new(&self.topic, link, public_url);
        let unwritable = |error: askama::Error| TaskError::Fail(error.to_string());
        let content = MailContent {
            to: address.clone(),
            text: letter.text().map_err(unwritable)?,
            html: letter.html().map_err(unwritable)?,
            subject: letter.subject,
        };
        let (key, started_at) = (context.idempotency_key(), context.started_at());
        let message = MailMessage::new(content, &with.from, key, started_at);
        message.map(Ok).map_err(|e| TaskError::Fail(e.to_string()))
    }

    fn mailed(self, context: &TaskContext, result: MailResult) -> Mailed {
        Mailed {
            customer: self.customer,
            mail: context.id().to_string(),
            result,
        }
    }
}

/// Sends a mail, and returns the server's reply. Until the mail is transmitted, a request to stop ends the attempt;
/// afterwards the reply is awaited.
async fn send(
    message: &MailMessage,
    sha256: String,
    context: &TaskContext,
    transport: &MailTransport,
) -> Result<String, TaskError> {
    let is_at_dot = AtomicBool::new(false);
    let checkpoint = MailCheckpoint::AtDot { sha256 };
    let sending = transport.send(message, || {
        is_at_dot.store(true, Ordering::Relaxed);
        context.save_checkpoint(&checkpoint)
    });
    let stopped = async {
        context.stopped().await;
        if is_at_dot.load(Ordering::Relaxed) {
            std::future::pending::<()>().await;
        }
    };
    let outcome = tokio::select! {
        biased;
        sent = sending => sent?,
        () = stopped => return Err(TaskError::Stopped),
    };
    match outcome {
        MailOutcome::Sent { reply } => Ok(reply),
        MailOutcome::Failed { code, text } => Err(TaskError::Fail(format!("{code} {text}"))),
        MailOutcome::Unknown { why } => Err(TaskError::Unknown(why)),
        MailOutcome::Retry { why } | MailOutcome::Misconfigured { why } => {
            if is_at_dot.load(Ordering::Relaxed) {
                context
                    .save_checkpoint(&MailCheckpoint::NotAccepted)
                    .await?;
            }
            Err(TaskError::Retry(why))
        }
    }
}

fn changed() -> TaskError {
    TaskError::Unknown(
        "an earlier attempt ended before the mail server's reply, and the address or the mail has changed since".to_owned(),
    )
}
