//! A Rust file, parsed, with the lines that belong to tests.

use std::ops::Range;

use anyhow::{Context, Result, anyhow};
use proc_macro2::{Delimiter, Group, LexError, TokenStream, TokenTree};

/// A Rust file that Git tracks.
pub(crate) struct RustFile {
    /// The path from the repository's root, with slashes.
    pub(crate) path: String,
    pub(crate) text: String,
    pub(crate) tokens: TokenStream,
    pub(crate) syntax: syn::File,
    /// True if the whole file belongs to tests.
    pub(crate) is_test: bool,
    /// The lines of test modules, counted from 1.
    test_lines: Vec<Range<usize>>,
}

impl RustFile {
    pub(crate) fn parse(path: &str, text: String, is_test: bool) -> Result<Self> {
        let cannot = || format!("cannot read {path} as Rust");
        let tokens: TokenStream = text
            .parse()
            .map_err(|error: LexError| anyhow!("line {}: {error}", error.span().start().line))
            .with_context(cannot)?;
        let syntax: syn::File = syn::parse2(tokens.clone()).with_context(cannot)?;
        let mut lines = Vec::new();
        test_lines(tokens.clone(), &mut lines);
        Ok(Self {
            path: path.to_owned(),
            text,
            tokens,
            syntax,
            is_test,
            test_lines: lines,
        })
    }

    /// Returns true if this line, counted from 1, belongs to tests.
    pub(crate) fn is_test_line(&self, line: usize) -> bool {
        self.is_test || self.test_lines.iter().any(|lines| lines.contains(&line))
    }

    /// The text of this line, without its indentation.
    pub(crate) fn line(&self, line: usize) -> &str {
        self.text.lines().nth(line - 1).unwrap_or_default().trim()
    }
}

/// Finds the lines of items under `#[cfg(test)]`, from the first of their attributes on.
fn test_lines(tokens: TokenStream, lines: &mut Vec<Range<usize>>) {
    let (mut first, mut is_for_tests, mut is_attribute) = (None, false, false);
    for token in tokens {
        if let TokenTree::Group(group) = &token {
            if is_attribute {
                first.get_or_insert(group.span().start().line);
                is_for_tests |= is_cfg_test(group);
            }
            if !is_for_tests {
                test_lines(group.stream(), lines);
            }
        }
        is_attribute = is_punct(&token, '#');
        if ends_item(&token) {
            if let Some(first) = first.take().filter(|_| is_for_tests) {
                lines.push(first..token.span().end().line + 1);
            }
            is_for_tests = false;
        }
    }
}

/// Returns true for the token that an item ends with: its block, or a semicolon.
pub(crate) fn ends_item(token: &TokenTree) -> bool {
    match token {
        TokenTree::Group(group) => group.delimiter() == Delimiter::Brace,
        token => is_punct(token, ';'),
    }
}

pub(crate) fn is_punct(token: &TokenTree, mark: char) -> bool {
    matches!(token, TokenTree::Punct(punct) if punct.as_char() == mark)
}

/// Returns true for `[cfg(test)]`, and for a condition that names `test` and negates nothing.
fn is_cfg_test(group: &Group) -> bool {
    let condition = group.stream().to_string();
    let words: Vec<&str> = condition
        .split(|c: char| !c.is_alphanumeric() && c != '_' && c != '"')
        .collect();
    words[0] == "cfg"
        && words.contains(&"test")
        && !words.contains(&"not")
        && !words.contains(&"any")
}
