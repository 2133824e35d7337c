//! Failures of an exchange, and the outcomes that they mean.

use std::{error::Error as _, fmt};

use doorstep_contracts::EmailAddress;
use doorstep_tls::{TlsError, TlsErrorKind};
use lettre::transport::smtp;

use crate::{MailOutcome, reply_text::clean};

/// A step of the exchange, which the server replies to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    Connect,
    /// The greeting and EHLO.
    Hello,
    StartTls,
    Tls,
    Auth,
    Mail,
    Rcpt,
    Data,
    /// The mail with its final dot.
    Body,
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Connect => "the connection",
            Self::Hello => "EHLO",
            Self::StartTls => "STARTTLS",
            Self::Tls => "the TLS handshake",
            Self::Auth => "AUTH",
            Self::Mail => "MAIL",
            Self::Rcpt => "RCPT",
            Self::Data => "DATA",
            Self::Body => "the mail",
        })
    }
}

/// A step that did not succeed.
#[derive(Debug)]
pub(super) struct Failure {
    step: Step,
    cause: Cause,
}

#[derive(Debug)]
enum Cause {
    /// A complete reply with a code from 400 to 599.
    Reply { code: u16, text: String },
    /// A setting is wrong, or the server lacks what a setting requires.
    Setting(String),
    /// No reply, or something that is no reply to the step.
    Broken(String),
}

impl Failure {
    pub(super) fn broken(step: Step, reason: impl Into<String>) -> Self {
        let cause = Cause::Broken(reason.into());
        Self { step, cause }
    }

    pub(super) fn too_slow(step: Step) -> Self {
        let hint = if step == Step::Hello {
            "; a port for TLS, which smtps:// needs, stays silent, too"
        } else {
            ""
        };
        let reason = format!(
            "the mail server took too long: the time for the mail was over during {step}{hint}"
        );
        Self::broken(step, reason)
    }

    pub(super) fn setting(step: Step, reason: impl Into<String>) -> Self {
        let cause = Cause::Setting(reason.into());
        Self { step, cause }
    }

    pub(super) fn from_client(step: Step, error: &smtp::Error) -> Self {
        let Some(code) = error.status() else {
            return Self::broken(step, format!("no valid reply to {step} ({error})"));
        };
        let text = error.source().map(ToString::to_string).unwrap_or_default();
        let code = code.into();
        let cause = Cause::Reply { code, text };
        Self { step, cause }
    }

    /// Explains a failed handshake in the settings of mail, as the texts of the error name those of other connections.
    pub(super) fn from_tls(error: &TlsError, has_ca_file: bool) -> Self {
        let step = Step::Tls;
        match error.kind() {
            TlsErrorKind::File if has_ca_file => Self::setting(step, error.to_string()),
            TlsErrorKind::File => Self::setting(
                step,
                "this system has no trusted authorities: install its package of them (ca-certificates), or name your own as the mail CA file",
            ),
            TlsErrorKind::UnknownIssuer => Self::broken(
                step,
                "no trusted authority has signed the mail server's certificate: name the authority's certificate as the mail CA file",
            ),
            TlsErrorKind::NotTls => Self::broken(
                step,
                "the mail server's port does not speak TLS: smtps:// needs its port for TLS (465 by default), smtp:// that for STARTTLS (587 by default)",
            ),
            TlsErrorKind::ClientCertificateMissing => Self::broken(
                step,
                "the mail server ends the TLS handshake: it may require a client's certificate, which mail has no setting for",
            ),
            _ => Self::broken(step, error.to_string()),
        }
    }

    /// Returns whether the server has replied, so that it can be taken leave of.
    pub(super) fn is_reply(&self) -> bool {
        matches!(self.cause, Cause::Reply { .. })
    }

    /// Returns the outcome if nothing of the mail was sent.
    pub(super) fn before_dot(self, to: &EmailAddress) -> MailOutcome {
        let about_this_mail = matches!(self.step, Step::Rcpt | Step::Data);
        match self.cause {
            Cause::Reply { code: 500.., .. } if !about_this_mail => MailOutcome::Misconfigured {
                why: self.describe(to),
            },
            Cause::Setting(_) => MailOutcome::Misconfigured {
                why: self.describe(to),
            },
            Cause::Reply { code, text } if code >= 500 => MailOutcome::Failed {
                code,
                text: clean(&text, to),
            },
            _ => MailOutcome::Retry {
                why: self.describe(to),
            },
        }
    }

    /// Returns the outcome if the mail may have been sent.
    pub(super) fn after_dot(self, to: &EmailAddress) -> MailOutcome {
        match self.cause {
            Cause::Reply { code, text } if code >= 500 => MailOutcome::Failed {
                code,
                text: clean(&text, to),
            },
            Cause::Reply { .. } => MailOutcome::Retry {
                why: self.describe(to),
            },
            _ => MailOutcome::Unknown {
                why: self.describe(to),
            },
        }
    }

    fn describe(&self, to: &EmailAddress) -> String {
        match &self.cause {
            Cause::Reply { code, text } => {
                let text = clean(text, to);
                format!("the mail server replied {code} to {}: {text}", self.step)
            }
            Cause::Setting(reason) | Cause::Broken(reason) => reason.clone(),
        }
    }
}
