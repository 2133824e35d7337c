//! PEM files: certificates and keys.

use std::{
    io,
    path::{Path, PathBuf},
};

use tokio_rustls::rustls::{
    RootCertStore,
    pki_types::{
        CertificateDer, PrivateKeyDer,
        pem::{self, PemObject},
    },
};

/// An unusable file. The text names the file and the remedy, and never holds any of a key.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// The file cannot be read.
    #[error("{path}: cannot be read ({reason}): correct the path, or let this user read it", path = .0.display(), reason = .1)]
    Unreadable(PathBuf, io::Error),
    /// The file is not PEM, or a section of it is damaged.
    #[error(
        "{path}: is not well-formed PEM ({reason}): convert it, from DER by `openssl x509 -inform der` or from PKCS#12 by `openssl pkcs12 -nodes`",
        path = .0.display(), reason = .1
    )]
    Malformed(PathBuf, String),
    /// The file has no certificate.
    #[error("{path}: has no section BEGIN CERTIFICATE: name a PEM file with at least one certificate", path = .0.display())]
    NoCertificate(PathBuf),
    /// The file has no key, or one with a passphrase.
    #[error(
        "{path}: has no section BEGIN PRIVATE KEY: name the PEM file with the key; if a passphrase protects it, remove that by `openssl pkey`",
        path = .0.display()
    )]
    NoKey(PathBuf),
    /// A certificate of the file is no trust anchor.
    #[error("{path}: has a certificate that cannot be a trusted authority ({reason})", path = .0.display(), reason = .1)]
    NoAuthority(PathBuf, String),
    /// Certificate and key do not belong together, or the key is of an unknown kind.
    #[error(
        "{certificate} and {key} cannot be used together ({reason}): name the key that the certificate was made for",
        certificate = .certificate.display(), key = .key.display()
    )]
    Pair {
        certificate: PathBuf,
        key: PathBuf,
        reason: String,
    },
    /// The system has no trusted authorities.
    #[error(
        "this system has no trusted authorities{0}: install its package of them (ca-certificates), or name your own by --tls-ca-file (DOORSTEP_TLS_CA_FILE)"
    )]
    NoSystemRoots(String),
    /// The library of TLS cannot be set up.
    #[error("TLS cannot be set up: {0}")]
    Library(String),
}

fn unreadable(path: &Path, error: pem::Error) -> FileError {
    match error {
        pem::Error::Io(error) => FileError::Unreadable(path.to_owned(), error),
        other => FileError::Malformed(path.to_owned(), other.to_string()),
    }
}

/// Reads the certificates of a file, in the order of the file.
pub(crate) fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, FileError> {
    let sections = CertificateDer::pem_file_iter(path).map_err(|e| unreadable(path, e))?;
    let certificates: Vec<_> = sections
        .collect::<Result<_, _>>()
        .map_err(|e| unreadable(path, e))?;
    if certificates.is_empty() {
        return Err(FileError::NoCertificate(path.to_owned()));
    }
    Ok(certificates)
}

/// Reads the first private key of a file.
pub(crate) fn key(path: &Path) -> Result<PrivateKeyDer<'static>, FileError> {
    PrivateKeyDer::from_pem_file(path).map_err(|error| match error {
        pem::Error::NoItemsFound => FileError::NoKey(path.to_owned()),
        other => unreadable(path, other),
    })
}

/// Reads trusted authorities from a file.
pub(crate) fn authorities(path: &Path) -> Result<RootCertStore, FileError> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(path)? {
        roots
            .add(certificate)
            .map_err(|e| FileError::NoAuthority(path.to_owned(), e.to_string()))?;
    }
    Ok(roots)
}

/// Reads the system's trusted authorities.
pub(crate) fn system_authorities() -> Result<RootCertStore, FileError> {
    let found = rustls_native_certs::load_native_certs();
    let mut roots = RootCertStore::empty();
    // Systems carry a few certificates that no verifier takes; the others count.
    let (usable, _) = roots.add_parsable_certificates(found.certs);
    if usable == 0 {
        let reason = found.errors.first();
        let reason = reason.map_or_else(String::new, |e| format!(" ({e})"));
        return Err(FileError::NoSystemRoots(reason));
    }
    Ok(roots)
}
