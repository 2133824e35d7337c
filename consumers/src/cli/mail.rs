//! The settings of mails.

use std::{
    ops::RangeInclusive,
    path::{Path, PathBuf},
    time::Duration,
};

use clap::{Args, ValueEnum};
use doorstep_cli::{
    SettingsErrors,
    parse::{self, duration_within, from_str, number_arg},
};
use doorstep_mail::{MailSettings, MailUrl, Password, Sender};
use doorstep_runtime::task::{OnUnknown, Task, TaskPolicy};

use crate::roles::{MailResources, PublicUrl, SendMail};

/// The sender unless another is set; mail servers refuse it.
const LOCAL_SENDER: &str = "Doorstep <doorstep@localhost>";
/// RFC 5321 recommends 10 minutes for the reply to the mail alone. A shorter wait ends more mails as unknown.
const TIMEOUT: RangeInclusive<Duration> = Duration::from_secs(5)..=Duration::from_mins(30);
const RETRY: RangeInclusive<Duration> = Duration::from_mins(1)..=Duration::from_hours(720);
const CONCURRENCY: RangeInclusive<u32> = 1..=64;
/// The time that an attempt may take beside the exchange with the mail server.
const MARGIN: Duration = Duration::from_secs(30);

/// The settings of mails.
#[derive(Debug, Args)]
#[command(next_help_heading = "Mail")]
pub(crate) struct MailArgs {
    /// The destination of mails: `folder:` (the folder `mail` in the data directory) or `folder:/PATH` for files,
    /// `smtp://USER@HOST:587` for a mail server with STARTTLS, `smtps://USER@HOST:465` for one with TLS,
    /// `smtp+plain://HOST:25` without encryption.
    #[arg(
        long,
        env = "DOORSTEP_MAIL_URL",
        value_name = "URL",
        default_value = "folder:", value_parser = from_str::<MailUrl>("folder:"))]
    pub(crate) mail_url: MailUrl,

    /// A file with the password of the mail server's user; the end of its line does not count.
    #[arg(long, env = "DOORSTEP_MAIL_PASSWORD_FILE", value_name = "FILE")]
    pub(crate) mail_password_file: Option<PathBuf>,

    /// A file with the authorities to trust for the mail server's certificate, in PEM [default: those of the system].
    #[arg(long, env = "DOORSTEP_MAIL_CA_FILE", value_name = "FILE")]
    pub(crate) mail_ca_file: Option<PathBuf>,

    /// The sender of mails, such as `Doorstep <doorstep@example.com>`. A mail server requires it [default: Doorstep
    /// <doorstep@localhost>].
    #[arg(
        long,
        env = "DOORSTEP_MAIL_FROM",
        value_name = "SENDER", value_parser = from_str::<Sender>(LOCAL_SENDER))]
    pub(crate) mail_from: Option<Sender>,

    /// The time that one attempt to send a mail may take, from 5s to 30m. If the reply to a transmitted mail comes
    /// later, its outcome is unknown.
    #[arg(
        long,
        env = "DOORSTEP_MAIL_TIMEOUT",
        value_name = "TIME",
        default_value = "5m", value_parser = duration_within(TIMEOUT))]
    pub(crate) mail_timeout: Duration,

    /// The maximum of mails that are sent at a time, from 1 to 64.
    #[arg(
        long,
        env = "DOORSTEP_MAIL_CONCURRENCY",
        value_name = "NUMBER",
        default_value = "4", value_parser = number_arg(CONCURRENCY))]
    pub(crate) mail_concurrency: u32,

    /// The time for which a mail is retried before it becomes a dead letter, from 1m to 720h. A mail server may be away
    /// for that long.
    #[arg(
        long,
        env = "DOORSTEP_MAIL_RETRY",
        value_name = "TIME",
        default_value = "72h", value_parser = duration_within(RETRY))]
    pub(crate) mail_retry: Duration,

    /// The treatment of a mail whose outcome is unknown.
    #[arg(
        long,
        env = "DOORSTEP_MAIL_ON_UNKNOWN",
        value_name = "TREATMENT",
        default_value = "wait"
    )]
    pub(crate) mail_on_unknown: OnUnknownMail,

    /// The gateway's address for its users, with which the links in mails begin.
    #[arg(
        long,
        env = "DOORSTEP_PUBLIC_URL",
        value_name = "URL",
        default_value = "http://localhost:8080", value_parser = from_str::<PublicUrl>("http://localhost:8080"))]
    pub(crate) public_url: PublicUrl,
}

/// The treatment of a mail whose outcome is unknown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum OnUnknownMail {
    /// The mail waits until an operator decides.
    Wait,
    /// The same mail is sent again under the same Message-ID, so the recipient may get it twice.
    Resend,
}

impl MailArgs {
    /// Validates them. Reads files, but connects to nothing.
    pub(crate) fn check(
        &self,
        data_dir: &Path,
        wrong: &mut SettingsErrors,
    ) -> Option<MailResources> {
        let password = self.mail_password_file.as_deref().map(parse::password);
        let password = wrong.check(
            "--mail-password-file (DOORSTEP_MAIL_PASSWORD_FILE)",
            password.transpose(),
        );
        let from = match (&self.mail_from, &self.mail_url) {
            (Some(from), _) => Ok(from.clone()),
            (None, MailUrl::Folder(_)) => LOCAL_SENDER.parse().map_err(|_| ""),
            (None, MailUrl::Smtp(_)) => Err(
                "mails to a mail server need a sender: set it, such as Doorstep <doorstep@example.com>",
            ),
        };
        let from = wrong.check("--mail-from (DOORSTEP_MAIL_FROM)", from);
        let settings = MailSettings {
            url: self.mail_url.clone(),
            password: password?.map(Password::new),
            ca_file: self.mail_ca_file.clone(),
            timeout: self.mail_timeout,
        };
        match settings.transport(&data_dir.join("mail")) {
            Ok(transport) => Some(MailResources {
                transport,
                from: from?,
                public_url: self.public_url.clone(),
                policy: self.policy(),
            }),
            Err(errors) => {
                for error in errors {
                    wrong.check("--mail-url (DOORSTEP_MAIL_URL)", Err::<(), _>(error));
                }
                None
            }
        }
    }

    fn policy(&self) -> TaskPolicy {
        TaskPolicy {
            timeout: self.mail_timeout + MARGIN,
            max_running: self.mail_concurrency,
            give_up_after: self.mail_retry,
            on_unknown: match self.mail_on_unknown {
                OnUnknownMail::Wait => OnUnknown::Wait,
                OnUnknownMail::Resend => OnUnknown::Retry,
            },
            ..SendMail::POLICY
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;
    use doorstep_cli::ExitReason;

    use super::*;

    #[derive(Parser)]
    struct Typed {
        #[command(flatten)]
        mail: MailArgs,
    }

    fn checked(words: &[&str]) -> Result<MailResources, String> {
        let typed = Typed::try_parse_from(["run"].iter().chain(words)).unwrap();
        let mut wrong = SettingsErrors::of_arguments();
        let mail = typed.mail.check("data".as_ref(), &mut wrong);
        wrong.into_result(mail).map_err(|error| {
            assert_eq!(error.reason, ExitReason::Settings);
            error.to_string()
        })
    }

    #[test]
    fn mails_go_to_a_folder_by_default() {
        let mail = checked(&[]).unwrap();
        assert!(matches!(
            mail.transport,
            doorstep_mail::MailTransport::Folder(_)
        ));
        assert_eq!(mail.policy.max_running, 4);
        assert_eq!(mail.policy.give_up_after, Duration::from_hours(72));
        assert_eq!(mail.policy.on_unknown, OnUnknown::Wait);
        assert_eq!(mail.public_url.as_str(), "http://localhost:8080");
        let resend = checked(&["--mail-on-unknown", "resend"]).unwrap();
        assert_eq!(resend.policy.on_unknown, OnUnknown::Retry);
    }

    #[test]
    fn wrong_settings_are_explained_together() {
        for (words, parts) in [
            (
                &["--mail-url", "smtp://ada@example.com"][..],
                &["mails to a mail server need a sender", "no password"][..],
            ),
            (
                &["--mail-url", "smtp://ada:hunter2@example.com"],
                &["contains a password"],
            ),
            (
                &[
                    "--mail-url",
                    "smtps://example.com",
                    "--mail-from",
                    "Door\nstep",
                ],
                &["the sender is not an address"],
            ),
            (
                &["--mail-password-file", "/absent/password"],
                &[
                    "--mail-password-file (DOORSTEP_MAIL_PASSWORD_FILE)",
                    "cannot be read",
                ],
            ),
            (
                &[
                    "--mail-url",
                    "smtps://example.com",
                    "--mail-from",
                    "a@example.com",
                    "--mail-ca-file",
                    "/absent/ca.pem",
                ],
                &["/absent/ca.pem"],
            ),
            (
                &[
                    "--mail-timeout",
                    "4s",
                    "--mail-concurrency",
                    "65",
                    "--mail-retry",
                    "1s",
                ],
                &["3 settings are wrong", "from 5s to 30m"],
            ),
        ] {
            let error = checked(words).unwrap_err();
            for part in parts {
                assert!(error.contains(part), "{part}: {error}");
            }
            assert!(!error.contains("hunter2"), "{error}");
        }
    }
}
