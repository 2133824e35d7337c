//! Server texts made fit for logs and dead letters.

use doorstep_contracts::EmailAddress;

/// Maximum characters of a server's text that are kept.
const MAX_TEXT: usize = 200;

/// Returns a server's text as printable ASCII, cut to 200 characters, with all addresses masked and the recipient's name left out. Servers
/// like to repeat the recipient, whose address belongs in no log.
pub(crate) fn clean(text: &str, recipient: &EmailAddress) -> String {
    let printable = text
        .chars()
        .map(|c| if c.is_ascii_graphic() { c } else { ' ' });
    let printable: String = printable.collect();
    let name = recipient.expose().rsplit_once('@').unwrap_or_default().0;
    let words: Vec<String> = printable
        .split_whitespace()
        .map(|word| mask(word, name))
        .collect();
    let mut cleaned = words.join(" ");
    if cleaned.len() > MAX_TEXT {
        cleaned.truncate(MAX_TEXT - 3);
        cleaned.push_str("...");
    }
    cleaned
}

/// Masks the local part of an address, and the recipient's name if it stands alone.
fn mask(word: &str, name: &str) -> String {
    let bare = word.trim_matches(|c: char| !c.is_ascii_alphanumeric());
    if bare.eq_ignore_ascii_case(name) {
        return word.replace(bare, "***");
    }
    let Some((local, domain)) = word.rsplit_once('@') else {
        return word.to_owned();
    };
    let opening = local.len() - local.trim_start_matches(['<', '(', '"', '\'', '[']).len();
    format!("{}***@{domain}", &local[..opening])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cleaned(text: &str) -> String {
        clean(text, &EmailAddress::new("alice.b@example.com").unwrap())
    }

    #[test]
    fn addresses_of_server_texts_are_masked() {
        for (text, expected) in [
            (
                "5.1.1 <alice.b@example.com>: unknown",
                "5.1.1 <***@example.com>: unknown",
            ),
            (
                "user ALICE.B@EXAMPLE.COM is gone",
                "user ***@EXAMPLE.COM is gone",
            ),
            ("no mailbox alice.b here", "no mailbox *** here"),
            ("no mailbox 'alice.b'.", "no mailbox '***'."),
            ("postmaster@example.org refuses", "***@example.org refuses"),
            ("2.0.0 Ok: queued as 4F1A", "2.0.0 Ok: queued as 4F1A"),
        ] {
            assert_eq!(cleaned(text), expected);
        }
    }

    #[test]
    fn controls_are_removed_and_long_texts_cut() {
        assert_eq!(cleaned("a\r\n\u{1b}[31mb\u{202e}c"), "a [31mb c");
        let long = cleaned(&"x".repeat(1000));
        assert_eq!(long.len(), 200);
        assert!(long.ends_with("x..."), "{long}");
    }
}
