//! The key that signs tokens and links.
//!
//! The first start creates it beside the gateway's store, readable only by the file's owner. Anyone with this key can
//! impersonate any user. Deleting it invalidates every session and every link.

use std::{
    fs::{self, OpenOptions},
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use doorstep_cli::CliError;

const NAME: &str = "gateway.key";
const BYTES: usize = 32;

/// A signing key. It is never printed.
#[derive(Clone)]
pub(crate) struct SigningKey([u8; BYTES]);

impl SigningKey {
    /// Reads the key in this folder, and creates it if there is none.
    ///
    /// # Errors
    /// The file cannot be read or created, or holds no key.
    pub(crate) fn in_folder(folder: &Path) -> Result<Self, CliError> {
        let path = folder.join(NAME);
        match fs::read_to_string(&path) {
            Ok(text) => Self::read(&text, &path),
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                create(&path).map_err(|e| failed(&path, &e))?;
                let text = fs::read_to_string(&path).map_err(|e| failed(&path, &e))?;
                Self::read(&text, &path)
            }
            Err(e) => Err(failed(&path, &e)),
        }
    }

    /// Returns a random key, for tests and for runs that store nothing.
    pub(crate) fn random() -> Self {
        Self(rand::random())
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.0
    }

    fn read(text: &str, path: &Path) -> Result<Self, CliError> {
        let bytes = hex::decode(text.trim())
            .ok()
            .and_then(|bytes| bytes.try_into().ok());
        bytes.map(Self).ok_or_else(|| {
            CliError::data(format!(
                "{} holds no key: take it away to get a new one, which ends every session",
                path.display()
            ))
        })
    }
}

/// Creates a key file that is complete before it has its name. If several processes do so at once, the first one's key
/// stays.
fn create(path: &Path) -> io::Result<()> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    let mut draft = PathBuf::from(path);
    draft.set_extension(format!("key.{}", std::process::id()));
    let mut file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&draft)?;
    file.write_all(hex::encode(SigningKey::random().bytes()).as_bytes())?;
    file.sync_all()?;
    let named = match fs::hard_link(&draft, path) {
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        named => named,
    };
    fs::remove_file(&draft)?;
    named
}

fn failed(path: &Path, error: &io::Error) -> CliError {
    CliError::io(format!("{}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn key_is_created_once_with_private_permissions() {
        let folder = std::env::temp_dir().join(format!("doorstep-key-{}", uuid::Uuid::new_v4()));
        let made = SigningKey::in_folder(&folder).unwrap();
        let found = SigningKey::in_folder(&folder).unwrap();
        assert_eq!(made.bytes(), found.bytes());
        let path = folder.join(NAME);
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert_eq!(fs::read_dir(&folder).unwrap().count(), 1);
        fs::write(&path, "abc").unwrap();
        let said = SigningKey::in_folder(&folder).err().unwrap().to_string();
        assert!(said.contains("take it away"), "{said}");
        fs::remove_dir_all(folder).unwrap();
    }
}
