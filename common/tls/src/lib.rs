//! TLS as every program of Doorstep speaks it: to the broker, its management API and a collector of spans.
//!
//! - [`TlsSettings`]: the trusted authorities and the program's own certificate, from PEM files.
//! - [`TlsSettings::connect`]: the handshake, with the server's name checked. No setting turns the check off.
//! - [`TlsError`]: the reason of a failed handshake, its kind and its remedy.

mod error;
mod files;
mod settings;

pub use error::{TlsError, TlsErrorKind};
pub use files::FileError;
pub use settings::{CA_FILE, CERT_FILE, ClientFiles, KEY_FILE, TlsSettings, TlsStream};
pub use tokio_rustls::rustls;
