//! New data for a dead letter: by a JSON patch, or as typed text.

use std::{
    fs,
    io::{self, Read},
    path::Path,
};

use bytes::Bytes;
use doorstep_cli::CliError;
use serde_json::Value;

use crate::format::{compacted, indented};

/// The maximum size of a patch or text: far more than an event may carry.
const MAX_BYTES: u64 = 8 * 1024 * 1024;

/// Data before and after a change, each as people read it, and as it is to be stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct PatchedData {
    pub(super) shown_before: String,
    pub(super) shown_after: String,
    pub(super) data: Bytes,
}

impl PatchedData {
    /// Returns whether the data differs.
    pub(super) fn is_change(&self) -> bool {
        self.shown_before != self.shown_after
    }
}

/// A JSON patch, RFC 6902.
#[derive(Debug)]
pub(super) struct Patch(json_patch::Patch);

impl Patch {
    /// Reads a patch; `-` is standard input.
    ///
    /// # Errors
    /// It cannot be read, or is no patch.
    pub(super) fn read(path: &Path) -> Result<Self, CliError> {
        let text = read(path)?;
        Self::parse(&text).map_err(|e| {
            let why = format!(
                "{}: {e}; a patch looks like [{{\"op\":\"replace\",\"path\":\"/delta\",\"value\":-2}}]",
                path.display()
            );
            CliError::data(why)
        })
    }

    fn parse(text: &str) -> Result<Self, serde_json::Error> {
        serde_json::from_str(text).map(Self)
    }

    /// Applies the patch to data.
    ///
    /// # Errors
    /// The reason, in words.
    pub(super) fn apply(&self, before: &[u8]) -> Result<PatchedData, String> {
        let mut value: Value = serde_json::from_slice(before)
            .map_err(|e| format!("its data is not JSON ({e}), edit it with --editor"))?;
        // Such numbers would be rounded, a change that was not intended.
        if let Some(number) = lost_number(before, &value) {
            return Err(format!(
                "its number {number} would be rounded by a patch, edit it with --editor"
            ));
        }
        let shown_before = value.to_string();
        json_patch::patch(&mut value, &self.0)
            .map_err(|e| format!("the patch does not fit: {e}"))?;
        let after = value.to_string();
        Ok(PatchedData {
            shown_before: indented(&shown_before),
            shown_after: indented(&after),
            data: after.into(),
        })
    }
}

/// Returns a number of the text that differs in the value parsed from it.
fn lost_number(text: &[u8], value: &Value) -> Option<String> {
    let text = std::str::from_utf8(text).ok()?;
    let kept = numbers(&value.to_string());
    numbers(text).into_iter().find(|number| {
        let digits = number.bytes().filter(u8::is_ascii_digit).count();
        // Up to 15 digits survive every representation of numbers, written as 1.50 or as 1.5.
        digits > 15 && !kept.contains(number)
    })
}

/// Returns the numbers in a JSON text.
fn numbers(json: &str) -> Vec<String> {
    let mut numbers = Vec::new();
    let mut chars = json.chars().peekable();
    while let Some(c) = chars.next() {
        if c == '"' {
            while let Some(inner) = chars.next() {
                match inner {
                    '"' => break,
                    '\\' => drop(chars.next()),
                    _ => {}
                }
            }
        } else if c == '-' || c.is_ascii_digit() {
            let mut number = c.to_string();
            let is_part = |c: &char| c.is_ascii_digit() || matches!(c, '.' | 'e' | 'E' | '+' | '-');
            while let Some(more) = chars.next_if(is_part) {
                number.push(more);
            }
            numbers.push(number);
        }
    }
    numbers
}

/// Parses data that was typed in place of the present data.
///
/// # Errors
/// The reason why it is not JSON, in words.
pub(super) fn to_json(before: &[u8], after: &str) -> Result<PatchedData, String> {
    serde_json::from_str::<serde::de::IgnoredAny>(after).map_err(|e| format!("not JSON: {e}"))?;
    Ok(PatchedData {
        shown_before: pretty(before),
        shown_after: indented(after.trim()),
        data: compacted(after).into(),
    })
}

/// Formats data for people: indented if it is JSON, otherwise unchanged.
pub(super) fn pretty(data: &[u8]) -> String {
    let text = String::from_utf8_lossy(data);
    match serde_json::from_slice::<serde::de::IgnoredAny>(data) {
        Ok(_) => indented(text.trim()),
        Err(_) => text.into_owned(),
    }
}

/// Reads a text; `-` is standard input.
///
/// # Errors
/// It cannot be read, or is too large.
fn read(path: &Path) -> Result<String, CliError> {
    let mut text = String::new();
    let read = if path == Path::new("-") {
        io::stdin().lock().take(MAX_BYTES).read_to_string(&mut text)
    } else {
        fs::File::open(path).and_then(|file| file.take(MAX_BYTES).read_to_string(&mut text))
    };
    match read {
        Ok(_) => Ok(text),
        Err(e) => Err(CliError::io(format!("cannot read {}: {e}", path.display()))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn patched(patch: &str, before: &str) -> Result<String, String> {
        let changed = Patch::parse(patch).unwrap().apply(before.as_bytes())?;
        Ok(String::from_utf8(changed.data.to_vec()).unwrap())
    }

    #[test]
    fn patch_is_applied_whole_or_rejected() {
        let replace = r#"[{"op":"replace","path":"/delta","value":-2}]"#;
        assert_eq!(
            patched(replace, r#"{"delta":"-2","reason":"sale"}"#).unwrap(),
            r#"{"delta":-2,"reason":"sale"}"#
        );
        let missing = patched(replace, "{}").unwrap_err();
        assert!(missing.contains("/delta"), "{missing}");
        let spoiled = patched(replace, "{").unwrap_err();
        assert!(spoiled.contains("--editor"), "{spoiled}");
        assert!(Patch::parse(r#"{"op":"replace"}"#).is_err());
        assert!(Patch::parse(r#"[{"op":"double","path":"/a"}]"#).is_err());
    }

    #[test]
    fn patch_rejects_numbers_that_it_would_round() {
        let patch = r#"[{"op":"add","path":"/b","value":1}]"#;
        let rejected = patched(patch, r#"{"a":12345678901234567890123}"#).unwrap_err();
        assert!(rejected.contains("12345678901234567890123"), "{rejected}");
        assert!(
            patched(
                patch,
                r#"{"a":1.50,"c":"12345678901234567890123","d":-9223372036854775808}"#
            )
            .is_ok()
        );
    }

    #[test]
    fn typed_data_is_stored_compact_and_unchanged() {
        let changed =
            to_json(b"{\"b\":1.50}", "{\n  \"b\": 1.500,\n  \"a\": \" x \"\n}\n").unwrap();
        assert_eq!(changed.data, "{\"b\":1.500,\"a\":\" x \"}");
        assert!(changed.is_change());
        assert!(
            !to_json(b"{\"b\":1.50}", "{ \"b\": 1.50 }\n")
                .unwrap()
                .is_change()
        );
        assert!(to_json(b"{}", "{").is_err());
    }
}
