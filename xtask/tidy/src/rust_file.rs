//! A Rust file, parsed, with the lines that belong to tests.

use std::ops::Range;

use anyhow::{Context, Result, anyhow};
use proc_macro2::{LexError, Span, TokenStream};
use syn::spanned::Spanned;
use syn::visit::{self, Visit};
use syn::{Attribute, Item, ItemFn, ItemMod};

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
        let mut finder = TestFinder::default();
        finder.visit_file(&syntax);
        Ok(Self {
            path: path.to_owned(),
            text,
            tokens,
            syntax,
            is_test,
            test_lines: finder.lines,
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

/// Finds the lines of items under `#[cfg(test)]`, and of test functions.
#[derive(Default)]
struct TestFinder {
    lines: Vec<Range<usize>>,
}

impl TestFinder {
    fn add(&mut self, attributes: &[Attribute], span: Span) {
        let first = attributes.iter().map(|a| a.span().start().line).min();
        let first = first.unwrap_or(usize::MAX).min(span.start().line);
        self.lines.push(first..span.end().line + 1);
    }
}

impl<'ast> Visit<'ast> for TestFinder {
    fn visit_item(&mut self, item: &'ast Item) {
        let attributes = attributes(item);
        if attributes.iter().any(is_for_tests) {
            self.add(attributes, item.span());
        } else {
            visit::visit_item(self, item);
        }
    }
}

fn attributes(item: &Item) -> &[Attribute] {
    match item {
        Item::Const(item) => &item.attrs,
        Item::Enum(item) => &item.attrs,
        Item::Fn(ItemFn { attrs, .. }) | Item::Mod(ItemMod { attrs, .. }) => attrs,
        Item::Impl(item) => &item.attrs,
        Item::Macro(item) => &item.attrs,
        Item::Static(item) => &item.attrs,
        Item::Struct(item) => &item.attrs,
        Item::Trait(item) => &item.attrs,
        Item::Type(item) => &item.attrs,
        Item::Use(item) => &item.attrs,
        _ => &[],
    }
}

/// Returns true for `#[cfg(test)]`, and for a condition that names `test` and negates nothing.
fn is_for_tests(attribute: &Attribute) -> bool {
    if !attribute.path().is_ident("cfg") {
        return false;
    }
    let condition = match &attribute.meta {
        syn::Meta::List(list) => list.tokens.to_string(),
        _ => return false,
    };
    let words: Vec<&str> = condition
        .split(|c: char| !c.is_alphanumeric() && c != '_' && c != '"')
        .collect();
    words.contains(&"test") && !words.contains(&"not") && !words.contains(&"any")
}
