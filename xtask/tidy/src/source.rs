//! The tracked files of a repository.

use std::collections::HashSet;
use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::modules;
use crate::rust_file::RustFile;

/// A Markdown page that Git tracks.
#[derive(Debug)]
pub(crate) struct Page {
    pub(crate) path: String,
    pub(crate) text: String,
}

#[derive(Default)]
pub(crate) struct Sources {
    pub(crate) rust: Vec<RustFile>,
    pub(crate) pages: Vec<Page>,
    /// The folders of packages, "" for the root's.
    pub(crate) packages: Vec<String>,
}

impl Sources {
    /// Reads every file that Git tracks under this folder.
    pub(crate) fn read(root: &Path) -> Result<Self> {
        let mut sources = Self::default();
        for manifest in tracked(root, "*Cargo.toml")? {
            let folder = manifest.strip_suffix("Cargo.toml").unwrap_or_default();
            sources
                .packages
                .push(folder.trim_end_matches('/').to_owned());
        }
        for path in tracked(root, "*.md")? {
            let text = read(root, &path)?;
            sources.pages.push(Page { path, text });
        }
        for path in tracked(root, "*.rs")? {
            let text = read(root, &path)?;
            let is_test = sources.is_test_path(&path);
            sources.rust.push(RustFile::parse(&path, text, is_test)?);
        }
        sources.mark_test_modules();
        Ok(sources)
    }

    /// The folder of the package that a file belongs to.
    pub(crate) fn package_of(&self, path: &str) -> &str {
        let holds = |folder: &&String| {
            folder.is_empty()
                || path
                    .strip_prefix(folder.as_str())
                    .is_some_and(|rest| rest.starts_with('/'))
        };
        let longest = self
            .packages
            .iter()
            .filter(holds)
            .max_by_key(|folder| folder.len());
        longest.map_or("", String::as_str)
    }

    /// Returns true for a path in the folder `tests` of its package, or in a package `tests`.
    fn is_test_path(&self, path: &str) -> bool {
        let package = self.package_of(path);
        let inside = path[package.len()..].trim_start_matches('/');
        inside.starts_with("tests/") || package.rsplit('/').next() == Some("tests")
    }

    /// Marks the files of modules that are declared under `#[cfg(test)]`, and of the modules in them.
    pub(crate) fn mark_test_modules(&mut self) {
        let known: HashSet<String> = self.rust.iter().map(|file| file.path.clone()).collect();
        loop {
            let mut tests = HashSet::new();
            for file in &self.rust {
                for declared in modules::declared(file, &|path: &str| known.contains(path)) {
                    if file.is_test_line(declared.line) {
                        tests.insert(declared.path);
                    }
                }
            }
            let mut grown = false;
            for file in &mut self.rust {
                if !file.is_test && tests.contains(&file.path) {
                    file.is_test = true;
                    grown = true;
                }
            }
            if !grown {
                return;
            }
        }
    }
}

fn tracked(root: &Path, pattern: &str) -> Result<Vec<String>> {
    let output = Command::new("git")
        .args(["ls-files", "-z", "--", pattern])
        .current_dir(root)
        .output()
        .context("cannot run git; install it to count tracked files")?;
    if !output.status.success() {
        let error = String::from_utf8_lossy(&output.stderr);
        bail!(
            "cannot list the tracked files: {}; run this in a checkout",
            error.trim()
        );
    }
    let paths = String::from_utf8(output.stdout).context("a tracked path is not UTF-8")?;
    let exists = |path: &&str| !path.is_empty() && root.join(path).exists();
    Ok(paths
        .split('\0')
        .filter(exists)
        .map(str::to_owned)
        .collect())
}

fn read(root: &Path, path: &str) -> Result<String> {
    fs::read_to_string(root.join(path)).with_context(|| format!("cannot read {path}"))
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// Sources of one package, of these paths and texts.
    pub(crate) fn sources(files: &[(&str, &str)]) -> Sources {
        let mut sources = Sources {
            packages: vec![String::new()],
            ..Sources::default()
        };
        for (path, text) in files {
            if path.ends_with(".md") {
                sources.pages.push(Page {
                    path: (*path).to_owned(),
                    text: (*text).to_owned(),
                });
                continue;
            }
            let is_test = sources.is_test_path(path);
            let file = RustFile::parse(path, (*text).to_owned(), is_test);
            sources.rust.push(file.expect("a sample that can be read"));
        }
        sources.mark_test_modules();
        sources
    }

    #[test]
    fn finds_test_modules_and_their_files() {
        let sources = sources(&[
            (
                "src/lib.rs",
                "fn a() {}\n#[cfg(test)]\nmod tests;\nmod work;",
            ),
            ("src/tests.rs", "mod deep;"),
            ("src/tests/deep.rs", ""),
            (
                "src/work.rs",
                "fn b() {}\n#[cfg(test)]\nmod tests {\n    fn c() {}\n}\n",
            ),
            ("tests/whole.rs", ""),
        ]);
        let whole: Vec<&str> = sources
            .rust
            .iter()
            .filter(|f| f.is_test)
            .map(|f| f.path.as_str())
            .collect();
        assert_eq!(
            whole,
            ["src/tests.rs", "src/tests/deep.rs", "tests/whole.rs"]
        );
        let work = &sources.rust[3];
        assert!(!work.is_test_line(1));
        assert!(work.is_test_line(2) && work.is_test_line(4));
    }

    #[test]
    fn packages_inside_tests_are_no_tests() {
        let sources = Sources {
            packages: ["", "tests", "tests/broker"].map(str::to_owned).to_vec(),
            ..Sources::default()
        };
        assert!(sources.is_test_path("tests/src/lib.rs"));
        assert!(!sources.is_test_path("tests/broker/src/lib.rs"));
        assert!(sources.is_test_path("tests/broker/tests/node.rs"));
    }
}
