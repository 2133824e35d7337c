//! The settings of mail.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use doorstep_tls::{FileError, TlsSettings};

use crate::{
    MailUrl, Password, Security, SmtpTransport,
    folder::{FolderLimits, MailFolder},
    transport::MailTransport,
};

/// The settings of mail.
#[derive(Debug, Clone)]
pub struct MailSettings {
    pub url: MailUrl,
    /// The password of the URL's user.
    pub password: Option<Password>,
    /// The authorities that sign the mail server's certificate, as a PEM file, instead of the system's.
    pub ca_file: Option<PathBuf>,
    /// The maximum duration of an attempt.
    pub timeout: Duration,
}

/// An invalid setting of mail, with its remedy.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    #[error(
        "the mail URL names a user, but there is no password: name its file as the mail password file"
    )]
    NoPassword,
    #[error(
        "there is a mail password but no user: write the user into the mail URL, as smtp://USER@HOST:587"
    )]
    NoUser,
    #[error(
        "smtp+plain:// would send the password unencrypted to another machine: use smtp:// or smtps://, or leave out user and password"
    )]
    PlainPassword,
    #[error("the mail server's authorities (mail CA file): {0}")]
    Authorities(FileError),
}

impl MailSettings {
    /// Returns the transport. `folder` is the place of mails if the URL is `folder:` without a path. Reads files, but connects to nothing.
    ///
    /// # Errors
    /// All invalid settings.
    pub fn transport(&self, folder: &Path) -> Result<MailTransport, Vec<SettingsError>> {
        let server = match &self.url {
            MailUrl::Folder(path) => {
                let path = path.as_deref().unwrap_or(folder);
                let folder = MailFolder::new(path, FolderLimits::default());
                return Ok(MailTransport::Folder(folder));
            }
            MailUrl::Smtp(server) => server,
        };
        let mut errors = Vec::new();
        match (&server.user, &self.password) {
            (Some(_), None) => errors.push(SettingsError::NoPassword),
            (None, Some(_)) => errors.push(SettingsError::NoUser),
            (Some(_), Some(_)) if server.security == Security::Plain && !server.is_loopback() => {
                errors.push(SettingsError::PlainPassword);
            }
            _ => {}
        }
        let tls = TlsSettings {
            ca_file: self.ca_file.clone(),
            client: None,
        };
        if let Err(files) = tls.check() {
            errors.extend(files.into_iter().map(SettingsError::Authorities));
        }
        if !errors.is_empty() {
            return Err(errors);
        }
        let transport = SmtpTransport::new(server, self.password.as_ref(), tls, self.timeout);
        Ok(MailTransport::Smtp(transport))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(url: &str, password: Option<&str>) -> MailSettings {
        MailSettings {
            url: url.parse().unwrap(),
            password: password.map(|text| Password::new(text.to_owned())),
            ca_file: None,
            timeout: Duration::from_secs(60),
        }
    }

    #[test]
    fn user_and_password_belong_together() {
        let errors = |url, password| {
            let made = settings(url, password).transport(Path::new("mail"));
            made.err().unwrap_or_default()
        };
        assert!(errors("folder:", None).is_empty());
        assert!(errors("smtp://example.com", None).is_empty());
        assert!(errors("smtp://u@example.com", Some("p")).is_empty());
        assert!(errors("smtp+plain://u@127.0.0.1", Some("p")).is_empty());
        assert!(errors("smtp+plain://u@LOCALHOST", Some("p")).is_empty());
        assert!(errors("smtp+plain://u@[::1]", Some("p")).is_empty());
        let one = |url, password| errors(url, password).pop().unwrap();
        assert!(matches!(
            one("smtp://u@example.com", None),
            SettingsError::NoPassword
        ));
        assert!(matches!(
            one("smtps://example.com", Some("p")),
            SettingsError::NoUser
        ));
        assert!(matches!(
            one("smtp+plain://u@example.com", Some("p")),
            SettingsError::PlainPassword
        ));
    }

    #[test]
    fn unreadable_authorities_are_named() {
        let mut settings = settings("smtps://example.com", None);
        settings.ca_file = Some("/absent/ca.pem".into());
        let errors = settings.transport(Path::new("mail")).unwrap_err();
        let text = errors[0].to_string();
        assert!(
            text.contains("mail CA file") && text.contains("/absent/ca.pem"),
            "{text}"
        );
    }

    #[test]
    fn password_is_not_displayed() {
        let settings = settings("smtp://u@example.com", Some("hunter2"));
        let transport = settings.transport(Path::new("mail")).unwrap();
        let shown = format!("{settings:?} {transport:?}");
        assert!(!shown.contains("hunter2"), "{shown}");
    }
}
