//! Doorstep's retired words, from `vocabulary.txt`.

use std::collections::HashMap;

use anyhow::{Context, Result, bail};

const TEXT: &str = include_str!("vocabulary.txt");

/// Retired words, each with the word instead. A word that ends in `*` retires every name that begins with it.
#[derive(Debug, Default)]
pub(crate) struct Words {
    whole: HashMap<&'static str, &'static str>,
    prefixes: Vec<(&'static str, &'static str)>,
}

/// The sections of the text.
#[derive(Debug, Default)]
pub(crate) struct Vocabulary {
    pub(crate) identifiers: Words,
    pub(crate) types: Words,
    pub(crate) functions: Words,
    pub(crate) texts: Vec<(&'static str, &'static str)>,
}

impl Words {
    /// The word instead of this name, if it is retired.
    pub(crate) fn instead_of(&self, name: &str) -> Option<&'static str> {
        let begins = |prefix: &&(&str, &str)| name.starts_with(prefix.0);
        let by_prefix = || self.prefixes.iter().find(begins).map(|(_, new)| *new);
        self.whole.get(name).copied().or_else(by_prefix)
    }

    fn add(&mut self, old: &'static str, new: &'static str) {
        match old.strip_suffix('*') {
            Some(prefix) => self.prefixes.push((prefix, new)),
            None => {
                self.whole.insert(old, new);
            }
        }
    }
}

impl Vocabulary {
    /// Reads the project's vocabulary.
    pub(crate) fn read() -> Result<Self> {
        Self::parse(TEXT).context("cannot read xtask/tidy/src/vocabulary.txt")
    }

    fn parse(text: &'static str) -> Result<Self> {
        let mut vocabulary = Self::default();
        let mut section = "";
        for (index, line) in text.lines().enumerate() {
            let number = index + 1;
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            if let Some(name) = line.strip_prefix('[') {
                section = name.trim_end_matches(']');
                continue;
            }
            let Some((old, new)) = line.split_once(" -> ") else {
                bail!("line {number}: expected OLD -> NEW, found {line:?}");
            };
            match section {
                "identifiers" => vocabulary.identifiers.add(old, new),
                "types" => vocabulary.types.add(old, new),
                "functions" => vocabulary.functions.add(old, new),
                "texts" => vocabulary.texts.push((old, new)),
                other => bail!("line {number}: there is no section {other:?}"),
            }
        }
        Ok(vocabulary)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_sections() {
        let text = "# Words.\n[identifiers]\nobey -> execute\nMOST_* -> MAX_\n\n[texts]\n--grace -> --shutdown-timeout\n";
        let read = Vocabulary::parse(text).expect("a vocabulary");
        assert_eq!(read.identifiers.instead_of("obey"), Some("execute"));
        assert_eq!(read.identifiers.instead_of("MOST_BYTES"), Some("MAX_"));
        assert_eq!(read.identifiers.instead_of("obeyed"), None);
        assert_eq!(read.texts, [("--grace", "--shutdown-timeout")]);
    }

    #[test]
    fn names_the_line_that_is_wrong() {
        let error = Vocabulary::parse("[types]\nWay\n").expect_err("no arrow");
        assert!(error.to_string().starts_with("line 2: "), "{error}");
        let error = Vocabulary::parse("[shapes]\na -> b\n").expect_err("no section");
        assert!(error.to_string().contains("shapes"), "{error}");
    }

    #[test]
    fn project_vocabulary_is_read() {
        let vocabulary = Vocabulary::read().expect("the vocabulary");
        assert_eq!(vocabulary.types.instead_of("Way"), Some("with a prefix"));
    }
}
