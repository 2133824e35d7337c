//! The rule for new names and texts for people: equal looks must mean equal bytes.
//!
//! Event types do not enforce it, so that events of other programs and stored events stay readable. It is enforced where names are created:
//! by the gateway and by [`crate::requests::ConfigureRestaurant`].

use icu_normalizer::ComposingNormalizerBorrowed;
use icu_properties::{
    CodePointMapData, CodePointSetData,
    props::{DefaultIgnorableCodePoint, Emoji, GeneralCategory},
};

/// The emoji variation selector, which keyboards insert: the only permitted invisible character, and only after an emoji.
const EMOJI_FORM: char = '\u{fe0f}';

/// The reason why a text is not a valid name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TextError {
    /// An invisible character, a character that changes the writing direction, or one without a common meaning.
    #[error(
        "the character U+{code:04X} at position {position} is {kind}, which names must not contain"
    )]
    Character {
        /// The Unicode code point.
        code: u32,
        /// Its position, from 1.
        position: usize,
        kind: &'static str,
    },
    #[error("it begins or ends with white space")]
    Untrimmed,
    /// Two texts that look alike would be different names.
    #[error("it is not in Unicode's normal form C (NFC); send it normalized")]
    NotNormalized,
}

/// Checks that a text is fit for display: in Unicode's normal form C, without surrounding white space, and without control, format,
/// private, unassigned and invisible characters. Joiners, which some scripts use, count as invisible; U+FE0F after an emoji does not.
///
/// Invalid texts are rejected rather than corrected, because names are compared as bytes everywhere.
///
/// # Errors
/// Names the first invalid character, or the violated rule.
pub fn check_text(text: &str) -> Result<(), TextError> {
    let mut before = None;
    for (index, c) in text.chars().enumerate() {
        if let Some(kind) = invalid_kind(c, before) {
            return Err(TextError::Character {
                code: u32::from(c),
                position: index + 1,
                kind,
            });
        }
        before = Some(c);
    }
    if text.trim() != text {
        return Err(TextError::Untrimmed);
    }
    if !ComposingNormalizerBorrowed::new_nfc().is_normalized(text) {
        return Err(TextError::NotNormalized);
    }
    Ok(())
}

/// Replaces by `?` each character that [`check_text`] rejects. For texts of stored events, which no client can correct any more.
#[must_use]
pub fn replace_invalid(text: &str) -> String {
    let mut before = None;
    let replaced = text.chars().map(|c| {
        let kind = invalid_kind(c, before.replace(c));
        if kind.is_some() { '?' } else { c }
    });
    replaced.collect()
}

fn invalid_kind(c: char, before: Option<char>) -> Option<&'static str> {
    if matches!(c, ' '..='~') {
        return None;
    }
    let is_emoji = |c: char| !c.is_ascii() && CodePointSetData::new::<Emoji>().contains(c);
    if c == EMOJI_FORM && before.is_some_and(is_emoji) {
        return None;
    }
    match CodePointMapData::<GeneralCategory>::new().get(c) {
        GeneralCategory::Control => Some("a control character"),
        GeneralCategory::Format => Some("a format character"),
        GeneralCategory::PrivateUse | GeneralCategory::Surrogate => Some("for private use"),
        GeneralCategory::Unassigned => Some("not assigned"),
        GeneralCategory::LineSeparator | GeneralCategory::ParagraphSeparator => {
            Some("a line separator")
        }
        // By category, fillers and selectors are letters and marks; they are still invisible.
        _ if CodePointSetData::new::<DefaultIgnorableCodePoint>().contains(c) => Some("invisible"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_any_script_are_valid() {
        for good in [
            "Da Luigi",
            "Caff\u{e8} \"Al Ponte\" & Figli",
            "\u{3059}\u{3057}\u{3000}\u{5c4b}",
            "\u{5e9}\u{5dc}\u{5d5}\u{5dd}",
            "\u{928}\u{92e}\u{938}\u{94d}\u{924}\u{947}",
            "Chili \u{1f336}\u{fe0f} hot",
            "\u{1f355}",
            "",
        ] {
            assert_eq!(check_text(good), Ok(()), "{good:?}");
        }
    }

    #[test]
    fn invisible_and_directional_characters_are_rejected() {
        for bad in [
            "\u{202e}igiul",
            "a\u{2066}b\u{2069}",
            "a\u{200f}b",
            "a\u{61c}b",
            // Zero width.
            "lu\u{200b}igi",
            "lu\u{200d}igi",
            "lu\u{200c}igi",
            "lu\u{2060}igi",
            "\u{feff}luigi",
            "lu\u{ad}igi",
            // Invisible letters and marks, and a selector without an emoji.
            "lu\u{115f}igi",
            "lu\u{3164}igi",
            "lu\u{34f}igi",
            "luigi\u{fe0f}",
            "1\u{fe0f}",
            "lu\u{e0100}igi",
            // Tags, interlinear annotation, C0, DEL and C1.
            "lu\u{e0069}igi",
            "a\u{fff9}b",
            "a\nb",
            "a\u{7f}b",
            "a\u{9b}31mb",
            // Private, unassigned, no character at all, line separators.
            "a\u{e000}b",
            "a\u{378}b",
            "a\u{ffff}b",
            "a\u{2028}b",
        ] {
            let error = check_text(bad).unwrap_err();
            assert!(
                matches!(error, TextError::Character { .. }),
                "{bad:?}: {error}"
            );
            assert!(error.to_string().is_ascii(), "{error}");
        }
        for bad in [" luigi", "luigi ", "\u{3000}luigi", "luigi\u{a0}"] {
            assert_eq!(check_text(bad), Err(TextError::Untrimmed), "{bad:?}");
        }
        assert_eq!(check_text("Caffe\u{300}"), Err(TextError::NotNormalized));
        assert_eq!(check_text("\u{212b}"), Err(TextError::NotNormalized));
    }

    #[test]
    fn invalid_characters_are_replaced_one_by_one() {
        assert_eq!(replace_invalid("lu\u{200b}i\r\ngi\u{202e}"), "lu?i??gi?");
        let valid = "Caff\u{e8} \u{1f336}\u{fe0f}";
        assert_eq!(replace_invalid(valid), valid);
    }

    #[test]
    fn an_invalid_character_is_named_with_position() {
        let error = check_text("lu\u{200b}igi").unwrap_err().to_string();
        assert!(error.contains("U+200B at position 3"), "{error}");
    }
}
