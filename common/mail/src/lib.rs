//! Mail: built to the same bytes for the same cause, and sent in steps, so that no mail goes out twice unnoticed.
//!
//! - [`MailMessage`]: a mail with text and HTML. One idempotency key and one start time always give the same bytes.
//! - [`MailSettings`]: the destination of mails, from a URL, and what it needs.
//! - [`MailTransport`]: sends a message by [`SmtpTransport`] or writes it to a [`MailFolder`].
//! - [`MailOutcome`]: whether the mail was sent, is to be retried, has failed, or whether that is unknown.
//!
//! SMTP has no idempotency: once the server has the final dot, a missing reply leaves open whether it has accepted the mail. So
//! [`MailTransport::send`] calls the caller's `before_final_dot` first. The caller records there, durably, that from now on the outcome may
//! become unknown. A later attempt that finds the record and no outcome must not send the mail again by itself.

mod folder;
mod mail_url;
mod message;
mod outcome;
mod reply_text;
mod sender;
mod settings;
mod smtp;
mod transport;

pub use folder::{FolderLimits, MailFolder};
pub use mail_url::{MailUrl, MailUrlError, Password, Security, SmtpServer};
pub use message::{MailContent, MailMessage, MessageError};
pub use outcome::MailOutcome;
pub use sender::{Sender, SenderError};
pub use settings::{MailSettings, SettingsError};
pub use smtp::SmtpTransport;
pub use transport::MailTransport;
