//! The rule for new names and texts that people read: what is shown has to be what is compared.
//!
//! Types of events do not keep it: what other programs have published, and what is in stores, stays readable. It is kept where a name is made,
//! by the gateway and by [`crate::requests::ConfigureRestaurant`].

use icu_normalizer::ComposingNormalizerBorrowed;
use icu_properties::{
    CodePointMapData, CodePointSetData,
    props::{DefaultIgnorableCodePoint, Emoji, GeneralCategory},
};

/// Selects the coloured form of an emoji, as keyboards do: the one invisible character that is let through, and behind an emoji only.
const EMOJI_FORM: char = '\u{fe0f}';

/// The reason why a text is no name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TextError {
    /// A character that is invisible, turns the direction of others, or means nothing to other programs.
    #[error("the character U+{code:04X} at place {place} is {kind}, which no name may hold")]
    Character {
        /// The character's number in Unicode.
        code: u32,
        /// Its place, from 1.
        place: usize,
        /// The kind of character.
        kind: &'static str,
    },
    /// White space at the start or the end.
    #[error("it begins or ends with white space")]
    Untrimmed,
    /// Two texts that look alike would be two names.
    #[error("it is not in Unicode's normal form C (NFC); send it normalised")]
    NotNormalized,
}

/// Checks that a text can be shown to people: in Unicode's normal form C, without white space at its ends, and without control, format,
/// private, unassigned and invisible characters. The joiners that some scripts use are among these; U+FE0F behind an emoji is not.
///
/// Texts are refused and not mended, since names are compared as bytes wherever they go.
///
/// # Errors
/// Names the first character that is wrong, or the rule.
pub fn check_text(text: &str) -> Result<(), TextError> {
    let mut before = None;
    for (index, c) in text.chars().enumerate() {
        if let Some(kind) = unsuited(c, before) {
            return Err(TextError::Character {
                code: u32::from(c),
                place: index + 1,
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

fn unsuited(c: char, before: Option<char>) -> Option<&'static str> {
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
        // Fillers and selectors are letters and marks by their category, and invisible all the same.
        _ if CodePointSetData::new::<DefaultIgnorableCodePoint>().contains(c) => Some("invisible"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_any_script_are_names() {
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
    fn what_is_not_seen_or_turns_what_is_seen_is_no_name() {
        for bad in [
            // Bidirectional controls.
            "\u{202e}igiul",
            "a\u{2066}b\u{2069}",
            "a\u{200f}b",
            "a\u{61c}b",
            // Of no width.
            "lu\u{200b}igi",
            "lu\u{200d}igi",
            "lu\u{200c}igi",
            "lu\u{2060}igi",
            "\u{feff}luigi",
            "lu\u{ad}igi",
            // Invisible letters and marks, and a selector that selects nothing.
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
            let said = check_text(bad).unwrap_err();
            assert!(
                matches!(said, TextError::Character { .. }),
                "{bad:?}: {said}"
            );
            assert!(said.to_string().is_ascii(), "{said}");
        }
        for bad in [" luigi", "luigi ", "\u{3000}luigi", "luigi\u{a0}"] {
            assert_eq!(check_text(bad), Err(TextError::Untrimmed), "{bad:?}");
        }
        assert_eq!(check_text("Caffe\u{300}"), Err(TextError::NotNormalized));
        assert_eq!(check_text("\u{212b}"), Err(TextError::NotNormalized));
    }

    #[test]
    fn a_wrong_character_is_told_by_number_and_place() {
        let said = check_text("lu\u{200b}igi").unwrap_err().to_string();
        assert!(said.contains("U+200B at place 3"), "{said}");
    }
}
