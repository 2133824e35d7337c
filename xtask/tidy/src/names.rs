//! Retired names that are back.

use proc_macro2::{Ident, TokenStream, TokenTree};

use crate::finding::Finding;
use crate::rust_file::RustFile;
use crate::source::Sources;
use crate::vocabulary::{Vocabulary, Words};

/// The pages that name retired texts on purpose: they say what became of them.
const HISTORY: [&str; 2] = ["CHANGELOG.md", "upgrade.md"];

/// Finds retired words among all identifiers, and among the names of types, traits, modules and functions.
pub(crate) fn identifiers(sources: &Sources, vocabulary: &Vocabulary) -> Vec<Finding> {
    let mut findings = Vec::new();
    for file in &sources.rust {
        let mut finder = Finder {
            file,
            vocabulary,
            findings: &mut findings,
        };
        finder.in_tokens(file.tokens.clone());
    }
    findings
}

/// Finds retired names that users see, in sources outside tests and on pages.
pub(crate) fn texts(sources: &Sources, vocabulary: &Vocabulary) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut search = |path: &str, number: usize, line: &str| {
        for (old, new) in &vocabulary.texts {
            if holds(line, old) {
                let text = format!("{old} -> {new}: {}", line.trim());
                findings.push(Finding::new(path, number, &text));
            }
        }
    };
    for file in &sources.rust {
        for (number, line) in (1..).zip(file.text.lines()) {
            if !file.is_test_line(number) {
                search(&file.path, number, line);
            }
        }
    }
    for page in &sources.pages {
        if HISTORY.iter().any(|name| page.path.ends_with(name)) {
            continue;
        }
        for (number, line) in (1..).zip(page.text.lines()) {
            search(&page.path, number, line);
        }
    }
    findings
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
    vocabulary: &'a Vocabulary,
    findings: &'a mut Vec<Finding>,
}

impl Finder<'_> {
    /// Checks every identifier, and by the keyword before it whether it names a type or a function.
    fn in_tokens(&mut self, tokens: TokenStream) {
        let mut keyword = String::new();
        for token in tokens {
            match token {
                TokenTree::Group(group) => self.in_tokens(group.stream()),
                TokenTree::Ident(ident) => {
                    self.check(&ident, &self.vocabulary.identifiers);
                    match keyword.as_str() {
                        "enum" | "mod" | "struct" | "trait" | "type" => {
                            self.check(&ident, &self.vocabulary.types);
                        }
                        "fn" => self.check(&ident, &self.vocabulary.functions),
                        _ => {}
                    }
                    keyword = ident.to_string();
                }
                TokenTree::Punct(_) | TokenTree::Literal(_) => keyword.clear(),
            }
        }
    }

    fn check(&mut self, ident: &Ident, retired: &Words) {
        let name = ident.to_string();
        if let Some(new) = retired.instead_of(&name) {
            let line = ident.span().start().line;
            let text = format!("{name} -> {new}: {}", self.file.line(line));
            self.findings
                .push(Finding::new(&self.file.path, line, &text));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::tests::sources;

    fn vocabulary() -> Vocabulary {
        Vocabulary::read().expect("the vocabulary")
    }

    fn lines(findings: &[Finding]) -> Vec<usize> {
        findings.iter().map(|finding| finding.line).collect()
    }

    #[test]
    fn finds_retired_identifiers_everywhere() {
        let text = "fn a() {\n    obey(\"obey\");\n    assert!(x == Desk::new());\n}\nconst MOST_BYTES: u8 = 1;\nstruct Desks;";
        let findings = identifiers(&sources(&[("tests/a.rs", text)]), &vocabulary());
        assert_eq!(lines(&findings), [2, 3, 5]);
        assert_eq!(findings[0].text, "obey -> execute: obey(\"obey\");");
    }

    #[test]
    fn words_with_other_uses_may_be_used() {
        let text = "enum Way { Line, Open }\nfn a() { x.of(Line); }\nimpl A { fn of() {} }";
        assert_eq!(
            lines(&identifiers(
                &sources(&[("src/lib.rs", text)]),
                &vocabulary()
            )),
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
        let findings = texts(&sources(&files), &vocabulary());
        let found: Vec<(&str, usize)> =
            findings.iter().map(|p| (p.path.as_str(), p.line)).collect();
        assert_eq!(found, [("src/lib.rs", 1), ("README.md", 2)]);
    }
}
