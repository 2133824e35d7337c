//! The destination of mails as a URL.

use std::{fmt, net::IpAddr, path::PathBuf, str::FromStr};

use percent_encoding::percent_decode_str;
use url::{Host, Url};

/// The destination of mails: `folder:`, `folder:/PATH`, `smtp://USER@HOST:587`, `smtps://USER@HOST:465` or `smtp+plain://HOST:25`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MailUrl {
    /// A folder, at a path or at the program's own place.
    Folder(Option<PathBuf>),
    /// A mail server.
    Smtp(SmtpServer),
}

/// A mail server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SmtpServer {
    pub security: Security,
    /// The host name or IP address, which its certificate has to be made for.
    pub host: String,
    pub port: u16,
    /// The user that logs in; `None` sends without a login.
    pub user: Option<String>,
}

/// The protection of a connection to a mail server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Security {
    /// `smtp`: TLS after STARTTLS, which is required.
    StartTls,
    /// `smtps`: TLS from the first byte on.
    Tls,
    /// `smtp+plain`: none.
    Plain,
}

/// A password. `Debug` does not display it.
#[derive(Clone, PartialEq, Eq)]
pub struct Password(String);

/// The reason why a text is not the URL of a destination. It holds no part of the URL, which may contain a password.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MailUrlError {
    #[error(
        "the mail URL has an unknown scheme: begin it with folder:, smtp:// (STARTTLS), smtps:// (TLS) or smtp+plain:// (no encryption)"
    )]
    Scheme,
    #[error("the mail URL is malformed ({0}): write it as smtp://USER@HOST:587")]
    Malformed(String),
    #[error("the mail URL has no valid host: write it as smtp://USER@HOST:587")]
    Host,
    #[error("the mail URL has port 0: name the mail server's port, or leave it out")]
    Port,
    #[error("the mail URL has a path, query or fragment: end it after the port")]
    Extra,
    #[error("the mail URL has a user that is not text, or has control characters: correct it")]
    User,
    #[error(
        "the mail URL contains a password: remove it, write it to a file and name that as the mail password file"
    )]
    PasswordInUrl,
}

impl Password {
    #[must_use]
    pub fn new(password: String) -> Self {
        Self(password)
    }

    pub(crate) fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Password(***)")
    }
}

impl SmtpServer {
    pub(crate) fn is_loopback(&self) -> bool {
        match self.host.parse::<IpAddr>() {
            Ok(address) => address.is_loopback(),
            Err(_) => self.host.eq_ignore_ascii_case("localhost"),
        }
    }
}

impl FromStr for MailUrl {
    type Err = MailUrlError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if let Some(path) = text.strip_prefix("folder:") {
            let path = Some(path).filter(|path| !path.is_empty());
            return Ok(Self::Folder(path.map(PathBuf::from)));
        }
        let (security, default_port) = match text.split_once("://") {
            Some(("smtp", _)) => (Security::StartTls, 587),
            Some(("smtps", _)) => (Security::Tls, 465),
            Some(("smtp+plain", _)) => (Security::Plain, 25),
            _ => return Err(MailUrlError::Scheme),
        };
        let url = Url::parse(text).map_err(|e| MailUrlError::Malformed(e.to_string()))?;
        if url.password().is_some() {
            return Err(MailUrlError::PasswordInUrl);
        }
        let has_path = !matches!(url.path(), "" | "/");
        if has_path || url.query().is_some() || url.fragment().is_some() {
            return Err(MailUrlError::Extra);
        }
        let port = url.port().unwrap_or(default_port);
        if port == 0 {
            return Err(MailUrlError::Port);
        }
        Ok(Self::Smtp(SmtpServer {
            security,
            host: host(&url)?,
            port,
            user: user(&url)?,
        }))
    }
}

fn host(url: &Url) -> Result<String, MailUrlError> {
    // The parser takes the host of these schemes as it is, so it is parsed as that of a web address.
    let host = Host::parse(url.host_str().unwrap_or_default());
    match host.map_err(|_| MailUrlError::Host)? {
        Host::Domain(name) => Ok(name),
        Host::Ipv4(address) => Ok(address.to_string()),
        Host::Ipv6(address) => Ok(address.to_string()),
    }
}

fn user(url: &Url) -> Result<Option<String>, MailUrlError> {
    let user = percent_decode_str(url.username())
        .decode_utf8()
        .map_err(|_| MailUrlError::User)?;
    if user.chars().any(char::is_control) {
        return Err(MailUrlError::User);
    }
    Ok(Some(user.into_owned()).filter(|user| !user.is_empty()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn smtp(security: Security, host: &str, port: u16, user: Option<&str>) -> MailUrl {
        MailUrl::Smtp(SmtpServer {
            security,
            host: host.to_owned(),
            port,
            user: user.map(str::to_owned),
        })
    }

    #[test]
    fn urls_are_parsed() {
        use Security::{Plain, StartTls, Tls};
        let folder = |path: &str| MailUrl::Folder(Some(path.into()));
        for (text, expected) in [
            ("folder:", MailUrl::Folder(None)),
            ("folder:/var/mail out", folder("/var/mail out")),
            ("folder:mails", folder("mails")),
            (
                "smtp://door%40step@mail.example.com",
                smtp(StartTls, "mail.example.com", 587, Some("door@step")),
            ),
            (
                "smtp://Mail.Example.COM:2525/",
                smtp(StartTls, "mail.example.com", 2525, None),
            ),
            ("smtps://[2001:db8::1]", smtp(Tls, "2001:db8::1", 465, None)),
            (
                "smtp+plain://127.0.0.1:1025",
                smtp(Plain, "127.0.0.1", 1025, None),
            ),
            ("smtp+plain://localhost", smtp(Plain, "localhost", 25, None)),
        ] {
            assert_eq!(text.parse::<MailUrl>().unwrap(), expected, "{text}");
        }
    }

    #[test]
    fn malformed_url_is_named_without_its_text() {
        for (bad, word) in [
            ("", "scheme"),
            ("mail.example.com", "scheme"),
            ("http://hunter2.example.com", "scheme"),
            ("smtp:hunter2", "scheme"),
            ("smtp://", "host"),
            ("smtp://hunter2@", "malformed"),
            ("smtp://hunter2@ho st", "malformed"),
            ("smtp://hunter2@a..b<", "malformed"),
            ("smtp://hunter2@example.com:0", "port 0"),
            ("smtp://hunter2@example.com:99999", "malformed"),
            ("smtp://example.com/hunter2", "path"),
            ("smtp://example.com?tls=hunter2", "path"),
            ("smtp://example.com#hunter2", "path"),
            ("smtp://hunter2%0d@example.com", "user"),
            ("smtp://user:hunter2@example.com", "mail password file"),
        ] {
            let error = bad.parse::<MailUrl>().unwrap_err();
            let shown = format!("{error} {error:?}");
            assert!(shown.contains(word), "{bad}: {shown}");
            assert!(!shown.contains("hunter2"), "{shown}");
        }
    }
}
