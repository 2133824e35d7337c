//! The user's editor: it opens a text and returns the result.
//!
//! The crates for this delete the text when the editor fails; here it stays in a file that only this user can read.

use doorstep_cli::CliError;

use std::{
    env,
    fs::{self, OpenOptions},
    io::Write,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    process::Command,
};

/// A file that the user edits. It stays until the edit is complete, so that no typed text is lost.
#[derive(Debug)]
pub(super) struct Draft(PathBuf);

impl Draft {
    /// Writes the text where only this user can read it, and opens the editor on it. Returns once the editor has exited
    /// successfully.
    ///
    /// # Errors
    /// There is no editor, it fails, or the file cannot be written.
    pub(super) fn edited(name: &str, text: &str) -> Result<Self, CliError> {
        let editor = ["VISUAL", "EDITOR"]
            .into_iter()
            .filter_map(|name| env::var(name).ok())
            .find(|value| !value.trim().is_empty())
            .ok_or_else(|| {
                let why = "no editor is named: set VISUAL or EDITOR, or use --patch";
                CliError::settings(why)
            })?;
        let draft = Self::write(name, text)?;
        // Through a shell, since the variable may contain arguments; the file's path needs no quoting.
        let ended = Command::new("sh")
            .arg("-c")
            .arg(format!("{editor} \"$1\""))
            .arg("sh")
            .arg(&draft.0)
            .status();
        match ended {
            Ok(status) if status.success() => Ok(draft),
            Ok(status) => Err(CliError::failed(format!(
                "the editor {editor:?} ended with {status}, nothing was stored; what was written is in {}",
                draft.path().display()
            ))),
            Err(e) => Err(CliError::failed(format!(
                "the editor {editor:?} cannot be started: {e}"
            ))),
        }
    }

    fn write(name: &str, text: &str) -> Result<Self, CliError> {
        let safe: String = name.chars().filter(char::is_ascii_alphanumeric).collect();
        let file = format!("doorstep-{safe}-{}.json", std::process::id());
        let path = env::temp_dir().join(file);
        let failed = |e| CliError::io(format!("cannot write {}: {e}", path.display()));
        let mut options = OpenOptions::new();
        // A new file of this user alone: no other user can have placed a symbolic link there.
        let mut file = options
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&path)
            .map_err(failed)?;
        file.write_all(text.as_bytes()).map_err(failed)?;
        file.write_all(b"\n").map_err(failed)?;
        Ok(Self(path))
    }

    pub(super) fn path(&self) -> &Path {
        &self.0
    }

    /// Returns the edited text.
    ///
    /// # Errors
    /// It cannot be read.
    pub(super) fn text(&self) -> Result<String, CliError> {
        fs::read_to_string(&self.0)
            .map_err(|e| CliError::io(format!("cannot read {}: {e}", self.0.display())))
    }

    pub(super) fn done_with(self) {
        // A leftover in the temporary folder does no harm.
        let _ = fs::remove_file(&self.0);
    }
}
