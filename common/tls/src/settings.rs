//! The settings of TLS, and the handshake that follows them.

use std::{
    env, io,
    path::PathBuf,
    sync::{Arc, OnceLock},
};

use tokio::net::TcpStream;
use tokio_rustls::{
    TlsConnector,
    rustls::{ClientConfig, RootCertStore, crypto::ring, pki_types::ServerName},
};

use crate::{
    error::TlsError,
    files::{self, FileError},
};

/// An encrypted stream to a server whose certificate and name are checked.
pub type TlsStream = tokio_rustls::client::TlsStream<TcpStream>;

/// The variable of [`TlsSettings::ca_file`].
pub const CA_FILE: &str = "DOORSTEP_TLS_CA_FILE";
/// The variable of [`ClientFiles::certificate`].
pub const CERT_FILE: &str = "DOORSTEP_TLS_CERT_FILE";
/// The variable of [`ClientFiles::key`].
pub const KEY_FILE: &str = "DOORSTEP_TLS_KEY_FILE";

/// The trusted authorities and the program's own certificate, as paths of PEM files. They are read anew for each connection, so a
/// renewed certificate counts without a restart.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TlsSettings {
    /// The authorities to trust instead of the system's.
    pub ca_file: Option<PathBuf>,
    /// The program's own certificate, followed by intermediate ones, and its key.
    pub client: Option<ClientFiles>,
}

/// The program's own certificate and its key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientFiles {
    pub certificate: PathBuf,
    pub key: PathBuf,
}

impl TlsSettings {
    /// Reads the settings from the environment. A certificate without a key, or the other way round, is left out.
    #[must_use]
    pub fn from_env() -> Self {
        let path = |name| env::var_os(name).filter(|path| !path.is_empty());
        let client = path(CERT_FILE).zip(path(KEY_FILE));
        Self {
            ca_file: path(CA_FILE).map(PathBuf::from),
            client: client.map(|(certificate, key)| ClientFiles {
                certificate: certificate.into(),
                key: key.into(),
            }),
        }
    }

    /// Validates the named files. The system's authorities are read only when a connection needs them.
    ///
    /// # Errors
    /// Every file that is unusable.
    pub fn check(&self) -> Result<(), Vec<FileError>> {
        let mut errors = Vec::new();
        if let Some(path) = &self.ca_file {
            errors.extend(files::authorities(path).err());
        }
        if let Some(client) = &self.client {
            let chain = files::certificates(&client.certificate);
            let key = files::key(&client.key);
            match (chain, key) {
                (Ok(_), Ok(_)) => errors.extend(self.config(RootCertStore::empty()).err()),
                (chain, key) => {
                    errors.extend(chain.err());
                    errors.extend(key.err());
                }
            }
        }
        if errors.is_empty() {
            Ok(())
        } else {
            Err(errors)
        }
    }

    /// Returns the client library's configuration: TLS 1.2 and 1.3, the server's certificate and name always checked.
    /// Reads files.
    ///
    /// # Errors
    /// The first file that is unusable.
    pub fn client_config(&self) -> Result<ClientConfig, FileError> {
        match &self.ca_file {
            Some(path) => self.config(files::authorities(path)?),
            None => self.config(system_roots()?),
        }
    }

    fn config(&self, roots: impl Into<Arc<RootCertStore>>) -> Result<ClientConfig, FileError> {
        let builder = ClientConfig::builder_with_provider(ring::default_provider().into())
            .with_safe_default_protocol_versions()
            .map_err(|e| FileError::Library(e.to_string()))?
            .with_root_certificates(roots);
        let Some(client) = &self.client else {
            return Ok(builder.with_no_client_auth());
        };
        let chain = files::certificates(&client.certificate)?;
        let key = files::key(&client.key)?;
        builder
            .with_client_auth_cert(chain, key)
            .map_err(|e| FileError::Pair {
                certificate: client.certificate.clone(),
                key: client.key.clone(),
                reason: e.to_string(),
            })
    }

    /// Encrypts an open connection to `host`. The server's certificate has to be made for that name or address.
    /// Cancel-safe: a handshake that is dropped ends the connection. Has no time limit of its own.
    ///
    /// # Errors
    /// The handshake fails, with its kind and remedy, or a file is unusable.
    pub async fn connect(&self, host: &str, socket: TcpStream) -> Result<TlsStream, TlsError> {
        let config = Arc::new(self.client_config()?);
        TlsConnector::from(config)
            .connect(server_name(host)?, socket)
            .await
            .map_err(|error| self.failed(&error))
    }

    fn failed(&self, error: &io::Error) -> TlsError {
        self.explain(error)
            .unwrap_or_else(|| TlsError::broken(error))
    }

    /// Explains an error of an encrypted stream, if TLS is its reason. Servers reject a client's certificate after the
    /// handshake, so this applies to reads, too.
    #[must_use]
    pub fn explain(&self, error: &io::Error) -> Option<TlsError> {
        TlsError::from_io(error, self.client.is_some())
    }
}

fn server_name(host: &str) -> Result<ServerName<'static>, TlsError> {
    ServerName::try_from(host.to_owned()).map_err(|_| TlsError::bad_name(host))
}

/// Returns the system's trusted authorities. They are read once, since they are many.
fn system_roots() -> Result<Arc<RootCertStore>, FileError> {
    static ROOTS: OnceLock<Arc<RootCertStore>> = OnceLock::new();
    if let Some(roots) = ROOTS.get() {
        return Ok(roots.clone());
    }
    let roots = Arc::new(files::system_authorities()?);
    Ok(ROOTS.get_or_init(|| roots).clone())
}
