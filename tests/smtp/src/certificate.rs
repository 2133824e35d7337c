//! Self-signed certificates.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use rcgen::{CertificateParams, DnType, KeyPair};
use tokio_rustls::{
    TlsAcceptor,
    rustls::{
        ServerConfig,
        crypto::ring,
        pki_types::{PrivateKeyDer, pem::PemObject},
    },
};

/// A self-signed certificate, which is its own authority, and its key.
#[derive(Debug, Clone)]
pub struct Certificate {
    pem: String,
    config: Arc<ServerConfig>,
}

impl Certificate {
    /// Makes a certificate for host names or IP addresses.
    ///
    /// # Panics
    /// If a name is malformed.
    #[must_use]
    pub fn for_names(names: &[&str]) -> Self {
        static COUNT: AtomicUsize = AtomicUsize::new(1);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
        let mut params = CertificateParams::new(names).expect("well-formed names");
        // A client looks authorities up by name: two certificates of one name are a forgery to it, not a stranger.
        let name = format!("Mail server {count} of a test");
        params.distinguished_name.push(DnType::CommonName, name);
        let key_pair = KeyPair::generate().expect("a key");
        let certificate = params.self_signed(&key_pair).expect("a certificate");
        let key = PrivateKeyDer::from_pem_slice(key_pair.serialize_pem().as_bytes())
            .expect("a key in PEM");
        let config = ServerConfig::builder_with_provider(ring::default_provider().into())
            .with_safe_default_protocol_versions()
            .expect("versions of the provider")
            .with_no_client_auth()
            .with_single_cert(vec![certificate.der().clone()], key)
            .expect("a key of the certificate");
        Self {
            pem: certificate.pem(),
            config: Arc::new(config),
        }
    }

    /// Returns the certificate in PEM, for the client's trusted authorities.
    #[must_use]
    pub fn pem(&self) -> &str {
        &self.pem
    }

    pub(crate) fn acceptor(&self) -> TlsAcceptor {
        TlsAcceptor::from(self.config.clone())
    }
}
