//! A file that appears under its name once it is complete.

use std::{
    fs::{self, File},
    io::{self, Write},
    path::{Path, PathBuf},
};

use doorstep_cli::{CliError, output::cannot_write};

/// A file in progress. Without [`OutputFile::complete`] it is removed again.
pub(crate) struct OutputFile {
    file: File,
    /// The name that the user gave.
    name: String,
    target: Target,
}

/// The place of the content. A regular file under its final name is always complete.
enum Target {
    /// First beside the file, then renamed.
    Renamed { partial: PathBuf, path: PathBuf },
    /// Written directly: a device or a pipe must not be replaced by a file. Also a file that is complete.
    Direct,
}

impl OutputFile {
    /// Creates a file that is to get this path.
    ///
    /// # Errors
    /// It cannot be created.
    pub(crate) fn create(path: &Path) -> Result<Self, CliError> {
        let name = path.display().to_string();
        // The target of a symbolic link is written, and the link stays.
        let path = path.canonicalize().unwrap_or_else(|_| path.to_owned());
        let (file, target) = if path.exists() && !path.is_file() {
            (File::create(&path), Target::Direct)
        } else {
            let mut partial = path.clone().into_os_string();
            partial.push(".partial");
            let partial = PathBuf::from(partial);
            (File::create(&partial), Target::Renamed { partial, path })
        };
        let file = file.map_err(|e| cannot_write(&name, &e))?;
        Ok(Self { file, name, target })
    }

    /// Writes it to the disk and gives it its name.
    ///
    /// # Errors
    /// It cannot be written, and is removed.
    pub(crate) fn complete(mut self) -> Result<(), CliError> {
        if let Target::Renamed { partial, path } = &self.target {
            let renamed = self
                .file
                .sync_all()
                .and_then(|()| fs::rename(partial, path));
            renamed.map_err(|e| cannot_write(&self.name, &e))?;
            self.target = Target::Direct;
        }
        Ok(())
    }
}

impl Write for OutputFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl Drop for OutputFile {
    fn drop(&mut self) {
        if let Target::Renamed { partial, .. } = &self.target {
            // A file that could not be written may not exist either.
            let _ = fs::remove_file(partial);
        }
    }
}
