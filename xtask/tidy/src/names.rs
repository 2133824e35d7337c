//! Retired names that are back.

use proc_macro2::{Ident, TokenStream, TokenTree};
use syn::visit::{self, Visit};
use syn::{ImplItemFn, Item, TraitItemFn};

use crate::finding::Finding;
use crate::rust_file::RustFile;
use crate::source::Sources;
use crate::vocabulary::{FUNCTIONS, HISTORY, IDENTIFIERS, Retired, TEXTS, TYPES};

/// The source of the words themselves.
const VOCABULARY: &str = "tidy/src/vocabulary.rs";

/// Finds retired words among all identifiers, and among the names of types, traits, modules and functions.
pub(crate) fn identifiers(sources: &Sources) -> Vec<Finding> {
    let mut findings = Vec::new();
    for file in &sources.rust {
        let mut finder = Finder {
            file,
            findings: &mut findings,
        };
        finder.in_tokens(file.tokens.clone());
        finder.visit_file(&file.syntax);
    }
    findings
}

/// Finds retired names that users see, in sources outside tests and on pages.
pub(crate) fn texts(sources: &Sources) -> Vec<Finding> {
    let mut findings = Vec::new();
    for file in &sources.rust {
        if !file.path.ends_with(VOCABULARY) {
            texts_of(
                &file.path,
                &file.text,
                &|line| file.is_test_line(line),
                &mut findings,
            );
        }
    }
    for page in &sources.pages {
        if !HISTORY.iter().any(|name| page.path.ends_with(name)) {
            texts_of(&page.path, &page.text, &|_| false, &mut findings);
        }
    }
    findings
}

fn texts_of(
    path: &str,
    text: &str,
    is_left_out: &dyn Fn(usize) -> bool,
    findings: &mut Vec<Finding>,
) {
    for (index, line) in text.lines().enumerate() {
        for (old, new) in TEXTS {
            if holds(line, old) && !is_left_out(index + 1) {
                let text = format!("{old} -> {new}: {}", line.trim());
                findings.push(Finding::new(path, index + 1, &text));
            }
        }
    }
}

/// Returns true for a line with this word, where it is no part of a longer one.
fn holds(line: &str, word: &str) -> bool {
    let is_part = |c: char| c.is_alphanumeric() || c == '_' || c == '-';
    line.match_indices(word).any(|(start, _)| {
        let before = line[..start].chars().next_back();
        let after = line[start + word.len()..].chars().next();
        !before.is_some_and(is_part) && !after.is_some_and(is_part)
    })
}

struct Finder<'a> {
    file: &'a RustFile,
    findings: &'a mut Vec<Finding>,
}

impl Finder<'_> {
    fn in_tokens(&mut self, tokens: TokenStream) {
        for token in tokens {
            match token {
                TokenTree::Group(group) => self.in_tokens(group.stream()),
                TokenTree::Ident(ident) => self.check(&ident, IDENTIFIERS),
                TokenTree::Punct(_) | TokenTree::Literal(_) => {}
            }
        }
    }

    fn check(&mut self, ident: &Ident, retired: &[Retired]) {
        let name = ident.to_string();
        if let Some((old, new)) = retired.iter().find(|(old, _)| matches(old, &name)) {
            let line = ident.span().start().line;
            let text = format!("{old} -> {new}: {}", self.file.line(line));
            self.findings
                .push(Finding::new(&self.file.path, line, &text));
        }
    }
}

/// Returns true if this word retires the name. A word that ends in `*` retires every name that begins with it.
fn matches(old: &str, name: &str) -> bool {
    match old.strip_suffix('*') {
        Some(prefix) => name.starts_with(prefix),
        None => old == name,
    }
}

impl<'ast> Visit<'ast> for Finder<'_> {
    fn visit_item(&mut self, item: &'ast Item) {
        match item {
            Item::Enum(item) => self.check(&item.ident, TYPES),
            Item::Fn(item) => self.check(&item.sig.ident, FUNCTIONS),
            Item::Mod(item) => self.check(&item.ident, TYPES),
            Item::Struct(item) => self.check(&item.ident, TYPES),
            Item::Trait(item) => self.check(&item.ident, TYPES),
            Item::Type(item) => self.check(&item.ident, TYPES),
            _ => {}
        }
        visit::visit_item(self, item);
    }

    fn visit_impl_item_fn(&mut self, function: &'ast ImplItemFn) {
        self.check(&function.sig.ident, FUNCTIONS);
        visit::visit_impl_item_fn(self, function);
    }

    fn visit_trait_item_fn(&mut self, function: &'ast TraitItemFn) {
        self.check(&function.sig.ident, FUNCTIONS);
        visit::visit_trait_item_fn(self, function);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::tests::sources;

    fn lines(findings: &[Finding]) -> Vec<usize> {
        findings.iter().map(|finding| finding.line).collect()
    }

    #[test]
    fn finds_retired_identifiers_everywhere() {
        let text = "fn a() {\n    obey(\"obey\");\n    assert!(x == Desk::new());\n}\nconst MOST_BYTES: u8 = 1;\nstruct Desks;";
        let findings = identifiers(&sources(&[("tests/a.rs", text)]));
        assert_eq!(lines(&findings), [2, 3, 5]);
        assert_eq!(findings[0].text, "obey -> execute: obey(\"obey\");");
    }

    #[test]
    fn words_with_other_uses_may_be_used() {
        let text = "enum Way { Line, Open }\nfn a() { x.of(Line); }\nimpl A { fn of() {} }";
        assert_eq!(
            lines(&identifiers(&sources(&[("src/lib.rs", text)]))),
            [1, 3]
        );
    }

    #[test]
    fn finds_retired_texts_outside_tests() {
        let text = "const A: &str = \"DOORSTEP_RATE\";\nconst B: &str = \"DOORSTEP_RATE_LIMIT\";\n#[cfg(test)]\nmod tests {\n    const C: &str = \"DOORSTEP_RATE\";\n}";
        let files = [
            ("src/lib.rs", text),
            ("README.md", "Set\n`--max-held`."),
            ("CHANGELOG.md", "`--max-held` is `--max-deferred`."),
        ];
        let findings = texts(&sources(&files));
        let found: Vec<(&str, usize)> =
            findings.iter().map(|p| (p.path.as_str(), p.line)).collect();
        assert_eq!(found, [("src/lib.rs", 1), ("README.md", 2)]);
    }
}
