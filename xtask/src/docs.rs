//! `cargo xtask docs`: the pages for people, checked without a network.
//!
//! Every relative link of a page has to lead to a file, its fragment to a heading of that file, and `docs/SUMMARY.md` has to list every
//! page of the book.

mod snippets;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    fs, io,
    path::{Component, Path, PathBuf},
    process::ExitCode,
};

use anyhow::{Context, Result};
use clap::Subcommand;
use pulldown_cmark::{Event, Options, Parser, Tag, TagEnd};

use crate::workspace::{cargo, checked, exit_code, print_progress, print_result, root};

const BOOK: &str = "docs";
const SUMMARY: &str = "docs/SUMMARY.md";
/// The pages outside the book.
const PAGES: &[&str] = &[
    "README.md",
    "ARCHITECTURE.md",
    "CHANGELOG.md",
    "tests/README.md",
];

/// The pages for people: README.md, ARCHITECTURE.md, CHANGELOG.md and the book in docs/.
#[derive(Debug, Subcommand)]
pub(crate) enum Docs {
    /// Check that links lead to files and headings, that docs/SUMMARY.md lists every page, and that shown code is compiled.
    ///
    /// Exit code 1 and a list if not.
    ///
    /// Example: cargo xtask docs check
    Check,
    /// Write the generated parts: code that pages show, and the reference pages.
    ///
    /// Example: cargo xtask docs write
    Write,
}

impl Docs {
    pub(crate) fn run(&self) -> Result<ExitCode> {
        match self {
            Self::Write => write(),
            Self::Check => {
                let pages = Pages::read(&root())?;
                let findings = pages.findings();
                for finding in &findings {
                    print_result(finding);
                }
                print_progress(&format!(
                    "{} pages, {} links, {} findings",
                    pages.pages.len(),
                    pages.links(),
                    findings.len()
                ));
                Ok(exit_code(findings.is_empty()))
            }
        }
    }
}

/// Writes the code that pages show anew.
fn write() -> Result<ExitCode> {
    let root = root();
    for path in Pages::read(&root)?.pages.keys() {
        let file = root.join(path);
        let text = fs::read_to_string(&file)?;
        let shown = snippets::fill(&root, &text)
            .with_context(|| format!("cannot fill {}", path.display()))?;
        if shown != text {
            fs::write(&file, shown).with_context(|| format!("cannot write {}", path.display()))?;
            print_result(&format!("wrote {}", path.display()));
        }
    }
    // The tests that compare reference pages with the code write them, too.
    let tests = [
        "test",
        "--quiet",
        "--workspace",
        "--lib",
        "--bins",
        "reference_page",
    ];
    let status = cargo()
        .args(tests)
        .env("DOORSTEP_WRITE_DOCS", "true")
        .status();
    checked(
        "writing the reference pages",
        status.context("cannot run cargo")?,
    )?;
    Ok(ExitCode::SUCCESS)
}

/// All pages of a checkout, by their path in it.
struct Pages {
    root: PathBuf,
    pages: BTreeMap<PathBuf, Page>,
    /// The paths of all Rust sources, with a slash in front.
    sources: Vec<String>,
}

#[derive(Default)]
struct Page {
    /// The links, each with its line.
    links: Vec<(usize, String)>,
    /// The fragments that headings have on GitHub and in an mdBook.
    anchors: BTreeSet<String>,
    /// The sources that are named in code spans, such as `runner/mod.rs`, each with its line.
    sources: Vec<(usize, String)>,
    /// The reason why shown code is not what its file says now.
    stale: Option<String>,
}

impl Pages {
    fn read(root: &Path) -> Result<Self> {
        let mut paths: Vec<PathBuf> = PAGES.iter().map(PathBuf::from).collect();
        paths.retain(|path| root.join(path).exists());
        find_files(root, Path::new(BOOK), "md", &mut paths)?;
        let mut pages = BTreeMap::new();
        for path in paths {
            let text = fs::read_to_string(root.join(&path))
                .with_context(|| format!("cannot read {}", path.display()))?;
            let mut page = Page::parse(&text);
            page.stale = match snippets::fill(root, &text) {
                Ok(filled) if filled == text => None,
                Ok(_) => {
                    Some("shows other code than its file: run `cargo xtask docs write`".to_owned())
                }
                Err(error) => Some(format!("{error:#}")),
            };
            pages.insert(path, page);
        }
        Ok(Self {
            root: root.to_owned(),
            pages,
            sources: sources(root)?,
        })
    }

    fn links(&self) -> usize {
        self.pages.values().map(|page| page.links.len()).sum()
    }

    /// Lists every broken link and every page that the book leaves out, as `FILE:LINE: what`.
    fn findings(&self) -> Vec<String> {
        let mut findings = Vec::new();
        for (path, page) in &self.pages {
            for (line, link) in &page.links {
                if let Err(what) = self.follow(path, link) {
                    findings.push(format!("{}:{line}: {what}", path.display()));
                }
            }
            for (line, source) in &page.sources {
                let tail = format!("/{source}");
                if !self.sources.iter().any(|path| path.ends_with(&tail)) {
                    findings.push(format!("{}:{line}: there is no {source}", path.display()));
                }
            }
            let stale = page.stale.iter();
            findings.extend(stale.map(|what| format!("{}: {what}", path.display())));
        }
        findings.extend(self.unlisted());
        findings
    }

    fn follow(&self, from: &Path, link: &str) -> Result<(), String> {
        if link.contains("://") || link.starts_with("mailto:") {
            return Ok(());
        }
        let (file, fragment) = link.split_once('#').unwrap_or((link, ""));
        let folder = from.parent().unwrap_or(Path::new(""));
        let target = match file {
            "" => from.to_owned(),
            file => normal(&folder.join(file))
                .ok_or_else(|| format!("{link} leads out of the checkout"))?,
        };
        if !self.root.join(&target).exists() {
            return Err(format!("{link} leads to no file"));
        }
        if fragment.is_empty() {
            return Ok(());
        }
        match self.pages.get(&target) {
            Some(page) if page.anchors.contains(fragment) => Ok(()),
            Some(_) => Err(format!(
                "{link}: {} has no heading #{fragment}",
                target.display()
            )),
            None => Err(format!("{link}: {} is no page", target.display())),
        }
    }

    /// Lists the pages of the book that its summary does not name exactly once.
    fn unlisted(&self) -> Vec<String> {
        let summary = Path::new(SUMMARY);
        let Some(listed) = self.pages.get(summary) else {
            return vec![format!("{SUMMARY} is missing")];
        };
        let mut times: HashMap<PathBuf, usize> = HashMap::new();
        for (_, link) in &listed.links {
            *times.entry(Path::new(BOOK).join(link)).or_default() += 1;
        }
        let pages = self.pages.keys();
        pages
            .filter(|page| page.starts_with(BOOK) && *page != summary)
            .filter_map(|page| match times.get(page).copied().unwrap_or(0) {
                0 => Some(format!("{SUMMARY}: {} is not listed", page.display())),
                1 => None,
                _ => Some(format!("{SUMMARY}: {} is listed twice", page.display())),
            })
            .collect()
    }
}

impl Page {
    fn parse(text: &str) -> Self {
        let mut page = Self::default();
        let mut heading: Option<String> = None;
        let mut seen: HashMap<String, usize> = HashMap::new();
        let events = Parser::new_ext(text, Options::ENABLE_TABLES).into_offset_iter();
        for (event, range) in events {
            let is_code = matches!(event, Event::Code(_));
            match event {
                Event::Start(Tag::Link { dest_url, .. } | Tag::Image { dest_url, .. }) => {
                    page.links
                        .push((line_of(text, range.start), dest_url.into_string()));
                }
                Event::Start(Tag::Heading { .. }) => heading = Some(String::new()),
                Event::Text(words) | Event::Code(words) => {
                    if is_code && is_source(&words) {
                        page.sources
                            .push((line_of(text, range.start), words.to_string()));
                    }
                    if let Some(heading) = &mut heading {
                        heading.push_str(&words);
                    }
                }
                Event::End(TagEnd::Heading(_)) => {
                    let slug = slug(&heading.take().unwrap_or_default());
                    let before = seen.entry(slug.clone()).or_default();
                    page.anchors.insert(match *before {
                        0 => slug,
                        again => format!("{slug}-{again}"),
                    });
                    *before += 1;
                }
                _ => {}
            }
        }
        page
    }
}

fn line_of(text: &str, offset: usize) -> usize {
    text[..offset].matches('\n').count() + 1
}

/// Returns whether a code span names a file of the sources by a part of its path.
fn is_source(code: &str) -> bool {
    let is_of_path = |c: char| c.is_ascii_alphanumeric() || matches!(c, '/' | '_' | '-' | '.');
    code.ends_with(".rs") && code.contains('/') && code.chars().all(is_of_path)
}

/// Returns the fragment of a heading: small letters, hyphens for spaces, no other punctuation.
fn slug(heading: &str) -> String {
    heading
        .to_lowercase()
        .chars()
        .filter_map(|c| match c {
            ' ' => Some('-'),
            c if c.is_alphanumeric() || matches!(c, '-' | '_') => Some(c),
            _ => None,
        })
        .collect()
}

/// Resolves `.` and `..` without asking the file system; `None` for a path that leaves the folder it begins in.
fn normal(path: &Path) -> Option<PathBuf> {
    let mut normal = PathBuf::new();
    for part in path.components() {
        match part {
            Component::CurDir => {}
            Component::ParentDir => {
                if !normal.pop() {
                    return None;
                }
            }
            Component::Normal(name) => normal.push(name),
            Component::RootDir | Component::Prefix(_) => return None,
        }
    }
    Some(normal)
}

fn sources(root: &Path) -> io::Result<Vec<String>> {
    let mut found = Vec::new();
    find_files(root, Path::new(""), "rs", &mut found)?;
    let paths = found.iter();
    Ok(paths.map(|path| format!("/{}", path.display())).collect())
}

/// Finds files with this extension; not in `target` nor in hidden folders.
fn find_files(
    root: &Path,
    folder: &Path,
    extension: &str,
    found: &mut Vec<PathBuf>,
) -> io::Result<()> {
    for entry in fs::read_dir(root.join(folder))? {
        let entry = entry?;
        let name = entry.file_name();
        let path = folder.join(&name);
        if entry.file_type()?.is_dir() {
            if name != "target" && !name.to_string_lossy().starts_with('.') {
                find_files(root, &path, extension, found)?;
            }
        } else if path.extension().is_some_and(|is| is == extension) {
            found.push(path);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pages(texts: &[(&str, &str)]) -> Pages {
        let pages = texts
            .iter()
            .map(|(path, text)| (PathBuf::from(path), Page::parse(text)));
        Pages {
            root: root(),
            pages: pages.collect(),
            sources: vec!["/xtask/src/main.rs".to_owned()],
        }
    }

    #[test]
    fn broken_links_are_found() {
        let summary = "[a](how-to/tls.md)\n[b](how-to/tls.md)";
        let readme = "# Top\n[no file](docs/none.md)\n[no heading](#bottom)\n[out](../x)\n`[code](none)` `src/main.rs` `x.rs` `src/none.rs`\n[web](https://example.org/none)";
        let found = pages(&[
            ("README.md", readme),
            ("docs/SUMMARY.md", summary),
            ("docs/how-to/tls.md", ""),
            ("docs/how-to/users.md", ""),
        ])
        .findings();
        assert_eq!(
            found,
            [
                "README.md:2: docs/none.md leads to no file",
                "README.md:3: #bottom: README.md has no heading #bottom",
                "README.md:4: ../x leads out of the checkout",
                "README.md:5: there is no src/none.rs",
                "docs/SUMMARY.md: docs/how-to/tls.md is listed twice",
                "docs/SUMMARY.md: docs/how-to/users.md is not listed",
            ]
        );
    }

    #[test]
    fn headings_have_the_fragments_of_github() {
        let page = Page::parse("# \"The queue\" of `a_b`: why?\n## Twice\n## Twice");
        let expected = ["the-queue-of-a_b-why", "twice", "twice-1"];
        assert_eq!(page.anchors, expected.map(str::to_owned).into());
    }

    #[test]
    fn pages_of_this_checkout_are_sound() {
        let findings = Pages::read(&root()).unwrap().findings();
        assert!(findings.is_empty(), "{}", findings.join("\n"));
    }
}
