//! Reference pages that are made from the code. A test of each program compares them; `cargo xtask docs write` writes
//! them.
//!
//! A page has generated sections between `<!-- generated NAME -->` and `<!-- end NAME -->`. The rest of it is written
//! by hand.

mod cli;
mod metrics;

use std::{
    env, fs,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};

pub use cli::{command_line, settings, shared_settings};
pub use metrics::metrics;

/// The variable with which `cargo xtask docs write` makes the tests write pages.
const WRITE: &str = "DOORSTEP_WRITE_DOCS";

/// The tests of one program write to the same files.
static PAGES: Mutex<()> = Mutex::new(());

/// Compares the generated section `name` of a page of `docs/reference` with `expected`, or writes it.
///
/// # Panics
/// The section differs, with the first line that does.
pub fn assert_section(page: &str, name: &str, expected: &str) {
    let _guard = PAGES.lock().unwrap_or_else(PoisonError::into_inner);
    let path = reference().join(page);
    let text = read(&path);
    let (begin, end) = (
        format!("<!-- generated {name} -->\n"),
        format!("<!-- end {name} -->"),
    );
    let section = text
        .split_once(&begin)
        .and_then(|(head, rest)| Some((head, rest.split_once(&end)?)));
    let Some((head, (present, tail))) = section else {
        complain(
            &path,
            &format!("has no section {name}: add the lines\n{begin}{end}"),
        );
    };
    let expected = format!("\n{}\n\n", expected.trim());
    if present == expected {
        return;
    }
    if env::var_os(WRITE).is_some() {
        let written = format!("{head}{begin}{expected}{end}{tail}");
        if let Err(error) = fs::write(&path, written) {
            complain(&path, &format!("cannot be written: {error}"));
        }
        return;
    }
    let differing = expected
        .lines()
        .zip(present.lines().chain(std::iter::repeat("")))
        .find(|(expected, present)| expected != present)
        .map_or(("", "the page has more lines"), |both| both);
    complain(
        &path,
        &format!(
            "section {name} differs from the code: run `cargo xtask docs write`\n  code: {}\n  page: {}",
            differing.0, differing.1
        ),
    );
}

/// Returns the text of a page of `docs/reference`.
///
/// # Panics
/// There is no such page.
#[must_use]
pub fn page(page: &str) -> String {
    read(&reference().join(page))
}

fn reference() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/reference")
}

fn read(path: &Path) -> String {
    match fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) => complain(path, &format!("cannot be read: {error}")),
    }
}

#[expect(clippy::panic, reason = "a test fails so")]
#[track_caller]
fn complain(path: &Path, what: &str) -> ! {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    panic!("docs/reference/{name} {what}")
}

/// Formats a cell of a table in Markdown.
fn cell(text: &str) -> String {
    let mut cell = String::with_capacity(text.len());
    let mut is_code = false;
    for c in text.chars() {
        match c {
            '`' => is_code = !is_code,
            '|' => cell.push('\\'),
            '<' | '*' if !is_code => cell.push('\\'),
            _ => {}
        }
        cell.push(if c == '\n' { ' ' } else { c });
    }
    cell
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use doorstep_runtime::runner::ReasonName;

    use super::*;

    #[test]
    fn reference_page_of_shared_settings() {
        assert_section("settings.md", "shared", &shared_settings());
    }

    #[test]
    fn reference_page_of_metrics() {
        let roles = metrics(|| {
            crate::health::describe();
        });
        assert_section("metrics.md", "roles", &roles);
        let process = metrics(doorstep_telemetry::metrics::describe);
        assert_section("metrics.md", "process", &process);
    }

    #[test]
    fn every_reason_of_readiness_has_a_page() {
        let folder = reference().join("../operations/readiness");
        let pages: BTreeSet<String> = fs::read_dir(folder)
            .unwrap()
            .map(|page| page.unwrap().file_name().into_string().unwrap())
            .filter(|page| page != "README.md")
            .collect();
        let names = ReasonName::ALL
            .iter()
            .map(|name| format!("{}.md", name.as_str()));
        assert_eq!(pages, names.collect(), "pages of docs/operations/readiness");
    }

    #[test]
    fn cells_escape_markdown() {
        assert_eq!(cell("a|b <c> `<d>*e` f_g *"), r"a\|b \<c> `<d>*e` f_g \*");
    }
}
