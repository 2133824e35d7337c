//! Comment blocks and pages, and the counts of their prose.

use ra_ap_rustc_lexer::{FrontmatterAllowed, TokenKind, tokenize};

use crate::finding::Finding;
use crate::rust_file::RustFile;
use crate::source::{Page, Sources};

/// A run of comment lines of one kind, or a comment after code.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Block {
    /// The line that it begins on, counted from 1.
    pub(crate) line: usize,
    /// The text of each line, without its marker.
    pub(crate) lines: Vec<String>,
}

/// The first words that no comment begins with. An opening of two words stands in one string.
const OPENINGS: [&str; 8] = [
    "what", "whatever", "who", "whoever", "whether", "how", "where", "so many",
];

/// The actors without a name.
const NAMELESS: [&str; 8] = [
    "whoever",
    "somebody",
    "someone",
    "anybody",
    "everybody",
    "nobody",
    "whatever",
    "what is",
];

/// The most words that a short comment has.
const FEW_WORDS: usize = 4;

impl Block {
    /// The block's words, without those of examples of code.
    fn prose(&self) -> Vec<String> {
        split_words(self.lines.iter().map(String::as_str))
    }
}

/// The prose outside tests, counted.
#[derive(Debug, Default)]
pub(crate) struct Prose {
    pub(crate) blocks: usize,
    pub(crate) openings: Vec<Finding>,
    pub(crate) short: Vec<Finding>,
    pub(crate) words: usize,
    pub(crate) nameless: Vec<Finding>,
}

impl Prose {
    pub(crate) fn count(sources: &Sources) -> Self {
        let mut prose = Self::default();
        for file in &sources.rust {
            for block in blocks(file) {
                if !file.is_test_line(block.line) {
                    prose.add_block(file, &block);
                }
            }
        }
        for page in &sources.pages {
            prose.add_page(page);
        }
        prose
    }

    fn add_block(&mut self, file: &RustFile, block: &Block) {
        let words = block.prose();
        if words.is_empty() {
            return;
        }
        let first = || Finding::new(&file.path, block.line, file.line(block.line));
        self.blocks += 1;
        if OPENINGS.iter().any(|opening| starts_with(&words, opening)) {
            self.openings.push(first());
        }
        if words.len() <= FEW_WORDS {
            self.short.push(first());
        }
        self.add_words(&file.path, block.line, &block.lines);
    }

    fn add_page(&mut self, page: &Page) {
        let lines: Vec<String> = page.text.lines().map(str::to_owned).collect();
        self.add_words(&page.path, 1, &lines);
    }

    /// Counts words and nameless actors. An actor of two words may be broken over two lines.
    fn add_words(&mut self, path: &str, first: usize, lines: &[String]) {
        let mut before = String::new();
        for (index, line) in prose_lines(lines.iter().map(String::as_str)) {
            let words = split_words([line].into_iter());
            self.words += words.len();
            for position in 0..words.len() {
                let begins = |actor: &&str| {
                    starts_with(&words[position..], actor)
                        || (position == 0 && *actor == format!("{before} {}", words[0]))
                };
                if NAMELESS.iter().any(begins) {
                    self.nameless
                        .push(Finding::new(path, first + index, line.trim()));
                }
            }
            before = words.last().cloned().unwrap_or_default();
        }
    }
}

fn starts_with(words: &[String], opening: &str) -> bool {
    let mut words = words.iter();
    opening
        .split(' ')
        .all(|part| words.next().is_some_and(|word| word == part))
}

/// The lines outside fenced examples, with their indices.
fn prose_lines<'a>(lines: impl Iterator<Item = &'a str>) -> impl Iterator<Item = (usize, &'a str)> {
    let mut fenced = false;
    lines.enumerate().filter(move |(_, line)| {
        let is_fence = line.trim_start().starts_with("```");
        fenced ^= is_fence;
        !fenced && !is_fence
    })
}

/// Words in lower case, without the punctuation around them.
fn split_words<'a>(lines: impl Iterator<Item = &'a str>) -> Vec<String> {
    prose_lines(lines)
        .flat_map(|(_, line)| line.split_whitespace())
        .map(|word| {
            word.trim_matches(|c: char| !c.is_alphanumeric())
                .to_lowercase()
        })
        .filter(|word| !word.is_empty())
        .collect()
}

/// Every comment of a file, as blocks.
pub(crate) fn blocks(file: &RustFile) -> Vec<Block> {
    let mut blocks: Vec<Block> = Vec::new();
    let mut last = None;
    let (mut rest, mut line, mut is_alone) = (file.text.as_str(), 1, true);
    for token in tokenize(rest, FrontmatterAllowed::No) {
        let (text, next) = rest.split_at(token.len as usize);
        match token.kind {
            TokenKind::LineComment { .. } | TokenKind::BlockComment { .. } => {
                let (marker, content) = split(text.trim_end());
                let continues = is_alone && last == Some((line - 1, marker));
                match blocks.last_mut().filter(|_| continues) {
                    Some(block) => block.lines.push(content.to_owned()),
                    None => blocks.push(Block {
                        line,
                        lines: content.split('\n').map(str::to_owned).collect(),
                    }),
                }
                // A comment after code is a block of its own.
                last = is_alone.then_some((line, marker));
            }
            TokenKind::Whitespace => is_alone |= text.contains('\n'),
            _ => is_alone = false,
        }
        line += text.matches('\n').count();
        rest = next;
    }
    blocks
}

/// A comment's marker and text.
fn split(comment: &str) -> (&str, &str) {
    if let Some(inner) = comment.strip_prefix("/*") {
        let inner = inner.strip_suffix("*/").unwrap_or(inner);
        return ("/*", inner.trim_start_matches(['*', '!']));
    }
    for marker in ["//!", "///", "//"] {
        if let Some(text) = comment.strip_prefix(marker) {
            return (marker, text);
        }
    }
    ("", comment)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::tests::sources;

    fn prose(text: &str) -> Prose {
        Prose::count(&sources(&[("src/lib.rs", text)]))
    }

    #[test]
    fn blocks_are_runs_of_one_kind() {
        let text = "//! Head of\n//! the file.\n\n/// Doc.\n// Plain.\nfn a() { b(); } // After.\n// Below.\nconst U: &str = \"http://x\n// no\";";
        let sources = sources(&[("src/lib.rs", text)]);
        let blocks = blocks(&sources.rust[0]);
        let lines: Vec<usize> = blocks.iter().map(|block| block.line).collect();
        assert_eq!(lines, [1, 4, 5, 6, 7]);
        assert_eq!(blocks[0].lines, [" Head of", " the file."]);
    }

    #[test]
    fn counts_question_openings() {
        let prose = prose(
            "/// What it is.\nfn a() {}\n/// How many bytes\n/// it has in all.\nfn b() {}\n/// So many.\nfn c() {}\n/// When it is.\nfn d() {}\n",
        );
        assert_eq!((prose.blocks, prose.openings.len()), (4, 3));
        assert_eq!(
            (prose.openings[1].line, prose.openings[1].text.as_str()),
            (3, "/// How many bytes")
        );
    }

    #[test]
    fn counts_short_comments() {
        let prose =
            prose("/// Its version.\nfn a() {}\n/// The version of the broker.\nfn b() {}\n");
        assert_eq!((prose.blocks, prose.short.len()), (2, 1));
    }

    #[test]
    fn counts_nameless_actors() {
        let text = "/// Sent to whoever asks what\n/// is new, and whatis.\n/// ```\n/// nobody\n/// ```\nfn a() {}\n";
        let pages = ("README.md", "For somebody.\n```\nnobody\n```\n");
        let prose = Prose::count(&sources(&[("src/lib.rs", text), pages]));
        let found: Vec<(&str, usize)> = prose
            .nameless
            .iter()
            .map(|p| (p.path.as_str(), p.line))
            .collect();
        assert_eq!(
            found,
            [("src/lib.rs", 1), ("src/lib.rs", 2), ("README.md", 1)]
        );
        assert_eq!(prose.words, 11);
    }

    #[test]
    fn leaves_tests_out() {
        let prose = prose("fn a() {}\n#[cfg(test)]\nmod tests {\n    /// Who.\n    fn b() {}\n}\n");
        assert_eq!(prose.blocks, 0);
    }
}
