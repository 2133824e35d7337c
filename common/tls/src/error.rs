//! Failed handshakes by kind, with the remedy of each.

use std::{fmt, io};

use tokio_rustls::rustls::{AlertDescription, CertificateError, Error, InvalidMessage};

use crate::files::FileError;

/// A failed handshake, or an encrypted connection that the server has ended. The text has no address in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsError {
    kind: TlsErrorKind,
    message: String,
}

/// The kind of a [`TlsError`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TlsErrorKind {
    /// No trusted authority has signed the server's certificate.
    UnknownIssuer,
    /// The server's certificate is one of an authority, which no server may use as its own.
    AuthorityAsServer,
    /// The server's certificate is made for other names.
    WrongName,
    /// The server's certificate has expired.
    Expired,
    /// The server's certificate is not yet valid, or a clock is wrong.
    NotYetValid,
    /// The server's certificate is unusable for another reason.
    ServerCertificate,
    /// The server requires a certificate of the client.
    ClientCertificateMissing,
    /// The server refuses the client's certificate.
    ClientCertificateRefused,
    /// The peer does not speak TLS.
    NotTls,
    /// A connection without TLS leads to a port of TLS.
    OnlyTls,
    /// Both sides have no version or cipher in common.
    Incompatible,
    /// A file of the settings is unusable.
    File,
    /// The connection ended during the handshake.
    Broken,
}

impl TlsErrorKind {
    /// Returns whether only another setting, certificate or server can help.
    #[must_use]
    pub fn is_permanent(self) -> bool {
        self != Self::Broken
    }
}

impl TlsError {
    fn new(kind: TlsErrorKind, message: impl Into<String>) -> Self {
        Self {
            kind,
            message: message.into(),
        }
    }

    #[must_use]
    pub fn kind(&self) -> TlsErrorKind {
        self.kind
    }

    /// Returns the error for a connection without TLS that gets a response in TLS.
    #[must_use]
    pub fn only_tls() -> Self {
        Self::new(
            TlsErrorKind::OnlyTls,
            "the port speaks TLS only: write the address with amqps:// (https://), or name the plain port",
        )
    }

    pub(crate) fn bad_name(host: &str) -> Self {
        Self::new(
            TlsErrorKind::WrongName,
            format!(
                "no certificate can be made for the name {host:?}: write the server's host name or IP address"
            ),
        )
    }

    pub(crate) fn broken(error: &io::Error) -> Self {
        Self::new(
            TlsErrorKind::Broken,
            format!(
                "the TLS handshake broke ({error}): does the port speak TLS, and does the server's log name a reason?"
            ),
        )
    }

    pub(crate) fn from_io(error: &io::Error, has_client_certificate: bool) -> Option<Self> {
        let error = error.get_ref()?.downcast_ref::<Error>()?;
        Some(match error {
            Error::InvalidCertificate(error) => certificate(error),
            Error::AlertReceived(alert) => self::alert(*alert, has_client_certificate),
            Error::InvalidMessage(
                InvalidMessage::InvalidContentType
                | InvalidMessage::UnknownProtocolVersion
                | InvalidMessage::MessageTooLarge
                | InvalidMessage::InvalidEmptyPayload,
            ) => Self::new(
                TlsErrorKind::NotTls,
                "the port does not speak TLS: name the TLS port (amqps: 5671 by default), or write the address with amqp:// (http://) if it may go unencrypted",
            ),
            Error::PeerIncompatible(reason) => Self::new(
                TlsErrorKind::Incompatible,
                format!(
                    "no TLS version or cipher in common ({reason:?}): let the server offer TLS 1.2 or 1.3"
                ),
            ),
            other => Self::new(TlsErrorKind::Broken, format!("TLS failed ({other})")),
        })
    }
}

fn certificate(error: &CertificateError) -> TlsError {
    use CertificateError as E;
    let (kind, message) = match error {
        E::UnknownIssuer => (
            TlsErrorKind::UnknownIssuer,
            "no trusted authority has signed the server's certificate: name the authority's certificate (or the server's, if it is self-signed) by --tls-ca-file (DOORSTEP_TLS_CA_FILE)".to_owned(),
        ),
        E::NotValidForNameContext {
            expected,
            presented,
        } => (
            TlsErrorKind::WrongName,
            format!(
                "the server's certificate is not for {:?} but for {}: write the address with a name of the certificate, or have one made for this name (subjectAltName)",
                expected.to_str(),
                if presented.is_empty() { "no name at all".to_owned() } else { presented.join(", ") }
            ),
        ),
        E::NotValidForName => (
            TlsErrorKind::WrongName,
            "the server's certificate is for other names: write the address with a name of the certificate".to_owned(),
        ),
        E::Expired | E::ExpiredContext { .. } => (
            TlsErrorKind::Expired,
            format!("the server's certificate has expired{}: renew it at the server, or correct this machine's clock", seconds_off(error)),
        ),
        E::NotValidYet | E::NotValidYetContext { .. } => (
            TlsErrorKind::NotYetValid,
            format!("the server's certificate is not yet valid{}: correct this machine's clock, or the certificate", seconds_off(error)),
        ),
        other if other.to_string().contains("CaUsedAsEndEntity") => (
            TlsErrorKind::AuthorityAsServer,
            "the server's certificate is an authority's (self-signed by `openssl req -x509`?), which no server may use as its own: have that authority sign one for the server".to_owned(),
        ),
        other => (
            TlsErrorKind::ServerCertificate,
            format!("the server's certificate is unusable ({other}): replace it at the server"),
        ),
    };
    TlsError::new(kind, message)
}

/// Returns by how many seconds a certificate is off.
fn seconds_off(error: &CertificateError) -> String {
    let seconds = match error {
        CertificateError::ExpiredContext { time, not_after } => {
            time.as_secs().saturating_sub(not_after.as_secs())
        }
        CertificateError::NotValidYetContext { time, not_before } => {
            not_before.as_secs().saturating_sub(time.as_secs())
        }
        _ => return String::new(),
    };
    match seconds / 3600 {
        0 => format!(" by {seconds} s"),
        hours @ 1..48 => format!(" by {hours} h"),
        hours => format!(" by {} days", hours / 24),
    }
}

fn alert(alert: AlertDescription, has_client_certificate: bool) -> TlsError {
    use AlertDescription as A;
    let missing = || {
        TlsError::new(
            TlsErrorKind::ClientCertificateMissing,
            "the server requires a certificate of this program: name it and its key by --tls-cert-file and --tls-key-file (DOORSTEP_TLS_CERT_FILE, DOORSTEP_TLS_KEY_FILE)",
        )
    };
    match alert {
        A::CertificateRequired | A::NoCertificate => missing(),
        // TLS 1.2 has no alert of its own for a missing certificate.
        A::HandshakeFailure | A::BadCertificate if !has_client_certificate => TlsError::new(
            TlsErrorKind::ClientCertificateMissing,
            format!(
                "the server ends the handshake ({alert:?}): it probably requires a certificate of this program (--tls-cert-file and --tls-key-file), or offers no cipher that is known here"
            ),
        ),
        A::BadCertificate
        | A::UnsupportedCertificate
        | A::CertificateRevoked
        | A::CertificateExpired
        | A::CertificateUnknown
        | A::UnknownCA
        | A::AccessDenied
        | A::DecryptError
        | A::HandshakeFailure
            if has_client_certificate =>
        {
            TlsError::new(
                TlsErrorKind::ClientCertificateRefused,
                format!(
                    "the server refuses this program's certificate ({alert:?}): use one that is not expired and that an authority of the server's cacertfile has signed"
                ),
            )
        }
        A::ProtocolVersion | A::InsufficientSecurity | A::HandshakeFailure => TlsError::new(
            TlsErrorKind::Incompatible,
            format!(
                "no TLS version or cipher in common ({alert:?}): let the server offer TLS 1.2 or 1.3"
            ),
        ),
        other => TlsError::new(
            TlsErrorKind::Broken,
            format!("the server ends the TLS connection ({other:?}): its log names the reason"),
        ),
    }
}

impl From<FileError> for TlsError {
    fn from(error: FileError) -> Self {
        Self::new(TlsErrorKind::File, error.to_string())
    }
}

impl fmt::Display for TlsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for TlsError {}
