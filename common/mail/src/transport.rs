//! The two ways that a mail can take.

use crate::{MailFolder, MailMessage, MailOutcome, SmtpTransport};

/// The way that mails take.
#[derive(Debug, Clone)]
pub enum MailTransport {
    Folder(MailFolder),
    Smtp(SmtpTransport),
}

impl MailTransport {
    /// Sends a mail: one attempt. For SMTP see [`SmtpTransport::send`]; a folder never calls `before_final_dot`, since it may write the same
    /// file again.
    ///
    /// # Errors
    /// The error of `before_final_dot`; the mail is not sent then.
    pub async fn send<F, S, E>(
        &self,
        message: &MailMessage,
        before_final_dot: F,
    ) -> Result<MailOutcome, E>
    where
        F: FnOnce() -> S,
        S: Future<Output = Result<(), E>>,
    {
        match self {
            Self::Folder(folder) => Ok(folder.write(message).await),
            Self::Smtp(smtp) => smtp.send(message, before_final_dot).await,
        }
    }
}
