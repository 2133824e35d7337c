//! Lines of the served requests, in files beside the store: `access_log.lines`, and older ones as
//! `access_log.lines.N.gz`, the newest with the lowest number.
//!
//! The files are a copy for people and their tools, and no state: a request stands in them at least once, also if the
//! process was killed. If a file cannot be written, lines are lost, which is logged, and the role goes on.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
};

use doorstep_contracts::RequestServed;
use flate2::{Compression, write::GzEncoder};

/// The size in bytes from which on a file is compressed and another one begun.
const MAX_BYTES: u64 = 8 * 1024 * 1024;
/// The limit of compressed files; the oldest is deleted.
const MAX_FILES: u32 = 16;

/// The open file.
#[derive(Debug)]
pub(super) struct RawLines {
    path: PathBuf,
    max_bytes: u64,
    max_files: u32,
    file: Option<(File, u64)>,
    is_failing: bool,
}

impl RawLines {
    /// Creates the files of this folder once there is a line.
    pub(super) fn in_folder(folder: &Path) -> Self {
        Self {
            path: folder.join("access_log.lines"),
            max_bytes: MAX_BYTES,
            max_files: MAX_FILES,
            file: None,
            is_failing: false,
        }
    }

    /// Appends lines, and logs the first of several failures in a row.
    pub(super) fn append(&mut self, lines: &str) {
        let written = self.write(lines);
        if let Err(error) = &written {
            self.file = None;
            if !self.is_failing {
                let path = self.path.display();
                tracing::warn!(%path, %error, "cannot write the lines of the access log; they are left out until it works");
            }
        }
        self.is_failing = written.is_err();
    }

    fn write(&mut self, lines: &str) -> io::Result<()> {
        if lines.is_empty() {
            return Ok(());
        }
        let (file, bytes) = match &mut self.file {
            Some(open) => open,
            None => self.file.insert(open(&self.path)?),
        };
        // One call, so that lines of two processes do not mix.
        file.write_all(lines.as_bytes())?;
        *bytes += lines.len() as u64;
        if *bytes >= self.max_bytes {
            self.file = None;
            self.rotate()?;
        }
        Ok(())
    }

    /// Compresses the file and begins another one. A process killed in between has compressed nothing or all.
    fn rotate(&self) -> io::Result<()> {
        let partial = self.numbered("partial");
        let mut compressed = GzEncoder::new(
            private(
                OpenOptions::new().create(true).write(true).truncate(true),
                &partial,
            )?,
            Compression::fast(),
        );
        io::copy(&mut File::open(&self.path)?, &mut compressed)?;
        compressed.finish()?.sync_all()?;
        for number in (1..self.max_files).rev() {
            let older = self.numbered(&(number + 1).to_string());
            match fs::rename(self.numbered(&number.to_string()), older) {
                Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
                _ => {}
            }
        }
        fs::rename(partial, self.numbered("1"))?;
        fs::remove_file(&self.path)
    }

    fn numbered(&self, number: &str) -> PathBuf {
        let mut path = self.path.clone().into_os_string();
        path.push(format!(".{number}.gz"));
        path.into()
    }
}

/// Opens the file at its end, with its size. Ends a line that a kill has cut off.
fn open(path: &Path) -> io::Result<(File, u64)> {
    let mut file = private(
        OpenOptions::new().create(true).read(true).append(true),
        path,
    )?;
    let bytes = file.metadata()?.len();
    if bytes > 0 {
        let mut last = [0];
        file.seek(SeekFrom::End(-1))?;
        file.read_exact(&mut last)?;
        if last != *b"\n" {
            file.write_all(b"\n")?;
        }
    }
    Ok((file, bytes))
}

/// Opens a file for its owner alone, as stores are.
fn private(options: &mut OpenOptions, path: &Path) -> io::Result<File> {
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(options, 0o600);
    options.open(path)
}

/// Appends a request in the combined log format, with the response time in microseconds at its end. The contract
/// leaves no byte in it that could end a line, and no quotation mark; a backslash is escaped.
pub(super) fn push_line(lines: &mut String, served: &RequestServed) {
    let text = |text: Option<&String>| {
        text.map_or_else(|| "-".to_owned(), |text| text.replace('\\', r"\\"))
    };
    let number = |number: Option<u64>| number.map_or_else(|| "-".to_owned(), |n| n.to_string());
    *lines += &format!(
        "{} - - [{}] \"{} {} HTTP/1.1\" {} {} \"{}\" \"{}\" {}\n",
        served
            .client
            .map_or_else(|| "-".to_owned(), |client| client.to_string()),
        served.served_at.strftime("%d/%b/%Y:%H:%M:%S +0000"),
        text(served.method.as_ref()),
        text(served.path.as_ref().or(Some(&served.route))),
        served.status,
        number(served.bytes),
        text(served.referrer.as_ref()),
        text(served.user_agent.as_ref()),
        number(served.duration_us),
    );
}

#[cfg(test)]
mod tests {
    use flate2::read::GzDecoder;

    use super::*;

    /// A folder that is removed after the test.
    struct Folder(PathBuf);

    impl Folder {
        fn new(name: &str) -> Self {
            let name = format!("doorstep-raw-lines-{name}-{}", std::process::id());
            let path = std::env::temp_dir().join(name);
            fs::create_dir_all(&path).unwrap();
            Self(path)
        }

        fn names(&self) -> Vec<String> {
            let files = fs::read_dir(&self.0).unwrap();
            let name = |file: io::Result<fs::DirEntry>| file.unwrap().file_name().into_string();
            let mut names: Vec<String> = files.map(|file| name(file).unwrap()).collect();
            names.sort();
            names
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn files_are_rotated_compressed_and_bounded() {
        let folder = Folder::new("rotated");
        let mut lines = RawLines {
            max_bytes: 10,
            max_files: 2,
            ..RawLines::in_folder(&folder.0)
        };
        for n in 0..7 {
            lines.append(&format!("line {n}\n"));
        }
        let names = folder.names();
        assert_eq!(
            names,
            [
                "access_log.lines",
                "access_log.lines.1.gz",
                "access_log.lines.2.gz"
            ]
        );
        let unpacked = |name: &str| {
            let mut text = String::new();
            let file = File::open(folder.0.join(name)).unwrap();
            GzDecoder::new(file).read_to_string(&mut text).unwrap();
            text
        };
        assert_eq!(unpacked(&names[1]), "line 4\nline 5\n");
        assert_eq!(unpacked(&names[2]), "line 2\nline 3\n");
        assert_eq!(
            fs::read_to_string(folder.0.join(&names[0])).unwrap(),
            "line 6\n"
        );
    }

    #[test]
    fn failing_disk_loses_lines_and_nothing_else() {
        let folder = Folder::new("failing");
        let mut lines = RawLines::in_folder(&folder.0.join("missing"));
        lines.append("lost\n");
        assert!(lines.is_failing);
        fs::create_dir(folder.0.join("missing")).unwrap();
        lines.append("kept\n");
        assert!(!lines.is_failing);
        let text = fs::read_to_string(folder.0.join("missing/access_log.lines")).unwrap();
        assert_eq!(text, "kept\n");
    }

    #[test]
    fn line_of_a_killed_process_is_ended() {
        let folder = Folder::new("killed");
        RawLines::in_folder(&folder.0).append("cut o");
        RawLines::in_folder(&folder.0).append("next\n");
        RawLines::in_folder(&folder.0).append("last\n");
        let text = fs::read_to_string(folder.0.join("access_log.lines")).unwrap();
        assert_eq!(text, "cut o\nnext\nlast\n");
    }
}
