//! Lengths of functions, and words of tests' names.

use proc_macro2::{Delimiter, Group, Ident, TokenStream, TokenTree};

use crate::finding::Finding;
use crate::rust_file::{RustFile, ends_item, is_punct};
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
            finder.in_tokens(file.tokens.clone(), false);
        }
        functions
    }
}

struct Finder<'a> {
    file: &'a RustFile,
    functions: &'a mut Functions,
}

impl Finder<'_> {
    /// The functions in these tokens. In the tests of a macro each of them is a test, whose attribute the macro may add.
    fn in_tokens(&mut self, tokens: TokenStream, in_macro: bool) {
        let tokens: Vec<TokenTree> = tokens.into_iter().collect();
        let mut is_test = in_macro;
        for (at, token) in tokens.iter().enumerate() {
            match token {
                TokenTree::Ident(keyword) if keyword == "fn" => {
                    let Some(TokenTree::Ident(name)) = tokens.get(at + 1) else {
                        continue;
                    };
                    let first = keyword.span().start().line;
                    if let Some(end) = tokens[at..].iter().find(|token| ends_item(token)) {
                        self.lines(name, first, end.span().end().line);
                    }
                    if is_test && (!in_macro || self.file.is_test_line(first)) {
                        self.test_name(name);
                    }
                }
                TokenTree::Group(group) => {
                    is_test |= is_test_attribute(group);
                    self.in_tokens(group.stream(), in_macro || follows_macro(&tokens[..at]));
                }
                _ => {}
            }
            if ends_item(token) {
                is_test = in_macro;
            }
        }
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
}

/// Returns true if these tokens end with the name of a macro, whose own tokens follow.
fn follows_macro(tokens: &[TokenTree]) -> bool {
    match tokens {
        [.., mark, TokenTree::Ident(_)] | [.., mark] => is_punct(mark, '!'),
        [] => false,
    }
}

/// Returns true for an attribute that makes a function a test: `#[test]`, `#[tokio::test]`.
fn is_test_attribute(group: &Group) -> bool {
    let is_path = |token: &TokenTree| !matches!(token, TokenTree::Group(_));
    let path = group.stream().into_iter().take_while(is_path);
    group.delimiter() == Delimiter::Bracket
        && matches!(path.last(), Some(TokenTree::Ident(name)) if name == "test")
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
