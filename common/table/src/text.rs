//! Wraps text between words only.

use std::borrow::Cow;

use unicode_width::UnicodeWidthStr;

const CUT: &str = "…";

/// Wraps a text at spaces into lines of at most this width. All lines but the first begin with `indent`. A wider word gets its own line. A
/// non-breaking space keeps its words together, and is printed as a space. `None` is unlimited.
#[must_use]
pub fn wrapped(text: &str, width: Option<usize>, indent: &str) -> String {
    let mut lines = String::with_capacity(text.len());
    let Some(width) = width else {
        return text.replace('\u{a0}', " ");
    };
    let mut used = 0;
    for word in text.split(' ').filter(|word| !word.is_empty()) {
        let length = word.width();
        if used > 0 && used + 1 + length > width {
            lines.push('\n');
            lines.push_str(indent);
            used = indent.width();
        } else if used > 0 {
            lines.push(' ');
            used += 1;
        }
        lines.push_str(word);
        used += length;
    }
    lines.replace('\u{a0}', " ")
}

/// Lists names and values in two columns. Values wider than `width` are wrapped. Each line ends with a line break.
#[must_use]
pub fn fields<N: AsRef<str>, V: AsRef<str>>(fields: &[(N, V)], width: Option<usize>) -> String {
    let widest = fields.iter().map(|(name, _)| name.as_ref().width()).max();
    let mut text = String::new();
    for (name, value) in fields {
        push_field(
            &mut text,
            name.as_ref(),
            value.as_ref(),
            widest.unwrap_or(0),
            width,
        );
    }
    text
}

/// Appends a name, padded to this width, and its value.
pub(crate) fn push_field(
    text: &mut String,
    name: &str,
    value: &str,
    name_width: usize,
    width: Option<usize>,
) {
    let indent = " ".repeat(name_width + 1);
    let room = width.map(|width| width.saturating_sub(indent.len()));
    text.push_str(name);
    text.push_str(&indent[name.width().min(name_width)..]);
    for (number, line) in value.split('\n').enumerate() {
        if number > 0 {
            text.push_str(&indent);
        }
        text.push_str(&wrapped(line, room, "").replace('\n', &format!("\n{indent}")));
        text.truncate(text.trim_end().len());
        text.push('\n');
    }
}

/// Returns the first words that fit into this width, with a mark if some were cut.
pub(crate) fn cut(text: &str, width: usize) -> Cow<'_, str> {
    if text.width() <= width {
        return text.into();
    }
    let mut kept = 0;
    for (at, _) in text.match_indices(' ') {
        let with_sign = text[..at].width() + 1 + CUT.width();
        if with_sign > width {
            break;
        }
        kept = at;
    }
    match text[..kept].trim_end() {
        "" => CUT.into(),
        words => format!("{words} {CUT}").into(),
    }
}
