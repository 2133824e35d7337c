//! A temporary folder for one test.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::atomic::{AtomicU32, Ordering},
    thread,
};

/// A folder below the target folder. Deleted on drop, except if the test fails: then it is kept and its path printed.
#[derive(Debug)]
pub struct TempDir(PathBuf);

impl TempDir {
    /// Creates a folder.
    ///
    /// # Panics
    /// If it cannot be created.
    #[must_use]
    pub fn new(hint: &str) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(1);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let folder = doorstep_broker::target_folder()
            .unwrap()
            .join("doorstep-tests")
            .join(format!("{hint}-{}-{count}", std::process::id()));
        fs::create_dir_all(&folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
        Self(folder)
    }

    #[must_use]
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Returns a path in it.
    #[must_use]
    pub fn join(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for TempDir {
    fn drop(&mut self) {
        if thread::panicking() {
            eprintln!("kept for inspection: {}", self.0.display());
        } else {
            let _ = fs::remove_dir_all(&self.0);
        }
    }
}
