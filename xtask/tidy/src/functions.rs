//! Lengths of functions, and words of tests' names.

use proc_macro2::{Delimiter, Ident, TokenStream, TokenTree};
use syn::spanned::Spanned;
use syn::visit::{self, Visit};
use syn::{Attribute, Block, ImplItemFn, Item, ItemFn, Signature, TraitItemFn};

use crate::finding::Finding;
use crate::rust_file::RustFile;
use crate::source::Sources;

/// The most lines from a function's signature to its closing brace.
const MAX_LINES: usize = 100;

/// The most words of a test's name.
const MAX_WORDS: usize = 8;

#[derive(Debug, Default)]
pub(crate) struct Functions {
    pub(crate) long: Vec<Finding>,
    pub(crate) long_in_tests: Vec<Finding>,
    pub(crate) long_test_names: Vec<Finding>,
}

impl Functions {
    pub(crate) fn find(sources: &Sources) -> Self {
        let mut functions = Self::default();
        for file in &sources.rust {
            let mut finder = Finder {
                file,
                functions: &mut functions,
            };
            finder.visit_file(&file.syntax);
        }
        functions
    }
}

struct Finder<'a> {
    file: &'a RustFile,
    functions: &'a mut Functions,
}

impl Finder<'_> {
    fn function(&mut self, signature: &Signature, block: &Block) {
        self.lines(
            &signature.ident,
            signature.span().start().line,
            block.span().end().line,
        );
    }

    fn lines(&mut self, name: &Ident, first: usize, last: usize) {
        let lines = last - first + 1;
        if lines <= MAX_LINES {
            return;
        }
        let text = format!("fn {name}: {lines} lines");
        let finding = Finding::new(&self.file.path, first, &text).with_weight(lines);
        if self.file.is_test_line(first) {
            self.functions.long_in_tests.push(finding);
        } else {
            self.functions.long.push(finding);
        }
    }

    fn test_name(&mut self, name: &Ident) {
        let text = name.to_string();
        let words = text.split('_').filter(|word| !word.is_empty()).count();
        if words > MAX_WORDS {
            let finding = Finding::new(&self.file.path, name.span().start().line, &text);
            self.functions
                .long_test_names
                .push(finding.with_weight(words));
        }
    }

    /// The functions in the tokens of a macro. In tests each of them is a test, whose attribute the macro may add.
    fn in_tokens(&mut self, tokens: TokenStream) {
        let mut tokens = tokens.into_iter().peekable();
        while let Some(token) = tokens.next() {
            match token {
                TokenTree::Ident(keyword) if keyword == "fn" => {
                    let Some(TokenTree::Ident(name)) = tokens.peek().cloned() else {
                        continue;
                    };
                    let body = tokens.by_ref().find(|token| match token {
                        TokenTree::Group(group) => group.delimiter() == Delimiter::Brace,
                        _ => false,
                    });
                    let first = keyword.span().start().line;
                    if let Some(body) = body {
                        self.lines(&name, first, body.span().end().line);
                    }
                    if self.file.is_test_line(first) {
                        self.test_name(&name);
                    }
                }
                TokenTree::Group(group) => self.in_tokens(group.stream()),
                _ => {}
            }
        }
    }
}

impl<'ast> Visit<'ast> for Finder<'_> {
    fn visit_item(&mut self, item: &'ast Item) {
        if let Item::Macro(item) = item {
            self.in_tokens(item.mac.tokens.clone());
        }
        visit::visit_item(self, item);
    }

    fn visit_item_fn(&mut self, function: &'ast ItemFn) {
        self.function(&function.sig, &function.block);
        if function.attrs.iter().any(is_test) {
            self.test_name(&function.sig.ident);
        }
        visit::visit_item_fn(self, function);
    }

    fn visit_impl_item_fn(&mut self, function: &'ast ImplItemFn) {
        self.function(&function.sig, &function.block);
        visit::visit_impl_item_fn(self, function);
    }

    fn visit_trait_item_fn(&mut self, function: &'ast TraitItemFn) {
        if let Some(block) = &function.default {
            self.function(&function.sig, block);
        }
        visit::visit_trait_item_fn(self, function);
    }
}

/// Returns true for an attribute that makes a function a test: `#[test]`, `#[tokio::test]`.
fn is_test(attribute: &Attribute) -> bool {
    attribute
        .path()
        .segments
        .last()
        .is_some_and(|segment| segment.ident == "test")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::tests::sources;

    fn function(name: &str, lines: usize) -> String {
        format!("fn {name}() {{\n{}}}\n", "    a();\n".repeat(lines - 2))
    }

    #[test]
    fn finds_functions_over_the_limit() {
        let text = format!(
            "{}{}mod inner {{ #[cfg(test)] mod tests {{\n{}}} }}",
            function("fits", 100),
            function("long", 101),
            function("test_helper", 102),
        );
        let functions = Functions::find(&sources(&[("src/lib.rs", &text)]));
        assert_eq!(
            functions.long[0],
            Finding::new("src/lib.rs", 101, "fn long: 101 lines").with_weight(101)
        );
        assert_eq!(
            (functions.long.len(), functions.long_in_tests.len()),
            (1, 1)
        );
        assert_eq!(functions.long_in_tests[0].text, "fn test_helper: 102 lines");
    }

    #[test]
    fn finds_functions_in_macros() {
        let text = format!("proptest! {{ {} }}", function("a_b_c_d_e_f_g_h_i", 120));
        let functions = Functions::find(&sources(&[("tests/a.rs", &text)]));
        assert_eq!(
            (
                functions.long_in_tests.len(),
                functions.long_test_names.len()
            ),
            (1, 1)
        );
    }

    #[test]
    fn counts_words_of_test_names() {
        let text = "#[test] fn one_two_three_four_five_six_seven_eight() {}\n#[tokio::test] async fn one_two_three_four_five_six_seven_eight_nine() {}\nfn one_two_three_four_five_six_seven_eight_nine_ten() {}";
        let functions = Functions::find(&sources(&[("tests/a.rs", text)]));
        let lines: Vec<usize> = functions
            .long_test_names
            .iter()
            .map(|finding| finding.line)
            .collect();
        assert_eq!(lines, [2]);
    }
}
