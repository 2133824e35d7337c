//! Checks a content header and a method's short strings for everything that lapin's parser would reject or recurse on.
//!
//! Nothing here recurses or allocates: nested tables and arrays use a stack of fixed depth.

use super::defect::Defect;

/// Maximum nesting of tables and arrays, including the headers themselves. lapin's parser and later users of the values recurse: a stack of
/// 2 MiB suffices for about a thousand levels, and serde_json reads 128.
pub(super) const MAX_DEPTH: usize = 64;

/// A content header's class, weight and body size, which precede its properties.
pub(super) const BEFORE_PROPERTIES: usize = 12;

/// The encoding of a property.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum PropertyType {
    Text,
    Table,
    Octet,
    Timestamp,
}

/// The properties of class basic in the order of their flags, from the highest bit.
pub(super) const PROPERTIES: [(&str, PropertyType); 14] = [
    ("content_type", PropertyType::Text),
    ("content_encoding", PropertyType::Text),
    ("headers", PropertyType::Table),
    ("delivery_mode", PropertyType::Octet),
    ("priority", PropertyType::Octet),
    ("correlation_id", PropertyType::Text),
    ("reply_to", PropertyType::Text),
    ("expiration", PropertyType::Text),
    ("message_id", PropertyType::Text),
    ("timestamp", PropertyType::Timestamp),
    ("type", PropertyType::Text),
    ("user_id", PropertyType::Text),
    ("app_id", PropertyType::Text),
    ("cluster_id", PropertyType::Text),
];

/// Returns whether a content header's flags announce the property at this index.
pub(super) fn is_set(flags: u16, index: usize) -> bool {
    flags & (1 << (15 - index)) != 0
}

/// The unread rest of a payload.
#[derive(Clone, Copy)]
pub(super) struct Bytes<'a>(pub(super) &'a [u8]);

impl<'a> Bytes<'a> {
    pub(super) fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, left) = self.0.split_at_checked(count)?;
        self.0 = left;
        Some(taken)
    }

    pub(super) fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (taken, left) = self.0.split_first_chunk()?;
        self.0 = left;
        Some(*taken)
    }

    pub(super) fn octet(&mut self) -> Option<u8> {
        self.array().map(u8::from_be_bytes)
    }

    pub(super) fn short(&mut self) -> Option<u16> {
        self.array().map(u16::from_be_bytes)
    }

    pub(super) fn long(&mut self) -> Option<usize> {
        let long = u32::from_be_bytes(self.array()?);
        usize::try_from(long).ok()
    }

    pub(super) fn short_string(&mut self) -> Option<&'a [u8]> {
        let length = self.octet()?;
        self.take(usize::from(length))
    }

    pub(super) fn long_string(&mut self) -> Option<&'a [u8]> {
        let length = self.long()?;
        self.take(length)
    }
}

/// Returns the size of a value of this type, if it is fixed.
pub(super) fn fixed(kind: u8) -> Option<usize> {
    Some(match kind {
        b'V' => 0,
        b't' | b'b' | b'B' => 1,
        b's' | b'U' | b'u' => 2,
        b'I' | b'i' | b'f' => 4,
        b'D' => 5,
        b'L' | b'l' | b'd' | b'T' => 8,
        _ => return None,
    })
}

/// A table or array being read.
#[derive(Debug, Clone, Copy)]
struct Level {
    end: usize,
    has_names: bool,
}

/// The stack of a check, reused for the next.
#[derive(Debug, Default)]
pub(super) struct Levels(Vec<Level>);

/// Checks a content header's payload.
pub(super) fn content_header(payload: &[u8], levels: &mut Levels) -> Result<(), Defect> {
    let mut left = Bytes(payload);
    left.take(BEFORE_PROPERTIES).ok_or(Defect::CutOff)?;
    let flags = left.short().ok_or(Defect::CutOff)?;
    for (index, (name, form)) in PROPERTIES.into_iter().enumerate() {
        if !is_set(flags, index) {
            continue;
        }
        match form {
            PropertyType::Text => {
                let text = left.short_string().ok_or(Defect::CutOff)?;
                utf8(text, name)?;
            }
            PropertyType::Table => {
                let fields = left.long_string().ok_or(Defect::CutOff)?;
                table(fields, levels)?;
            }
            PropertyType::Octet => {
                left.octet().ok_or(Defect::CutOff)?;
            }
            PropertyType::Timestamp => {
                left.take(8).ok_or(Defect::CutOff)?;
            }
        }
    }
    if left.0.is_empty() {
        Ok(())
    } else {
        Err(Defect::Surplus(left.0.len()))
    }
}

fn utf8(text: &[u8], what: &'static str) -> Result<(), Defect> {
    match std::str::from_utf8(text) {
        Ok(_) => Ok(()),
        Err(_) => Err(Defect::NotUtf8(what)),
    }
}

/// Checks the fields of a table and of everything nested in it.
fn table(fields: &[u8], levels: &mut Levels) -> Result<(), Defect> {
    let open = &mut levels.0;
    open.clear();
    let mut level = Level {
        end: fields.len(),
        has_names: true,
    };
    let mut at = 0;
    loop {
        if at == level.end {
            match open.pop() {
                Some(outer) => level = outer,
                None => return Ok(()),
            }
            continue;
        }
        let mut left = Bytes(&fields[at..level.end]);
        if level.has_names {
            utf8(left.short_string().ok_or(Defect::CutOff)?, "header_name")?;
        }
        let kind = left.octet().ok_or(Defect::CutOff)?;
        if let Some(size) = fixed(kind) {
            left.take(size).ok_or(Defect::CutOff)?;
            at = level.end - left.0.len();
            continue;
        }
        match kind {
            b'S' | b'x' => {
                left.long_string().ok_or(Defect::CutOff)?;
                at = level.end - left.0.len();
            }
            b'F' | b'A' => {
                // The open levels and the current one.
                if open.len() + 1 == MAX_DEPTH {
                    return Err(Defect::TooDeep);
                }
                let inner = left.long_string().ok_or(Defect::CutOff)?;
                let end = level.end - left.0.len();
                open.push(level);
                at = end - inner.len();
                level = Level {
                    end,
                    has_names: kind == b'F',
                };
            }
            unknown => return Err(Defect::UnknownType(unknown)),
        }
    }
}

/// A part of a method before or between its short strings.
#[derive(Clone, Copy)]
enum Part {
    Skip(usize),
    Text(&'static str),
}

/// Returns the layout of a method with text from other parties, after class and method id, up to its last short string.
fn layout(class: u16, method: u16) -> &'static [Part] {
    use Part::{Skip, Text};
    match (class, method) {
        // connection.close, channel.close
        (10, 50) | (20, 40) => &[Skip(2), Text("reply_text")],
        // connection.blocked
        (10, 60) => &[Text("reason")],
        // basic.return
        (60, 50) => &[
            Skip(2),
            Text("reply_text"),
            Text("exchange"),
            Text("routing_key"),
        ],
        // basic.deliver
        (60, 60) => &[
            Text("consumer_tag"),
            Skip(9),
            Text("exchange"),
            Text("routing_key"),
        ],
        // basic.get-ok
        (60, 71) => &[Skip(9), Text("exchange"), Text("routing_key")],
        _ => &[],
    }
}

/// Returns whether content follows this method.
pub(super) fn has_content(class: u16, method: u16) -> bool {
    matches!((class, method), (60, 50 | 60 | 71))
}

/// Replaces invalid UTF-8 in a method's short strings by question marks, in place. Returns the first such text before its change. A method
/// that ends too early stays unchanged, because no publisher can cause that.
pub(super) fn repair_method(
    class: u16,
    method: u16,
    arguments: &mut [u8],
) -> Option<(&'static str, Vec<u8>)> {
    let mut found = None;
    let mut at = 0;
    for part in layout(class, method) {
        match *part {
            Part::Skip(count) => at += count,
            Part::Text(what) => {
                let length = usize::from(*arguments.get(at)?);
                let text = arguments.get_mut(at + 1..at + 1 + length)?;
                at += 1 + length;
                if std::str::from_utf8(text).is_err() {
                    found.get_or_insert_with(|| (what, text.to_vec()));
                    repair(text);
                }
            }
        }
    }
    found
}

fn repair(text: &mut [u8]) {
    let mut left = text;
    while let Err(error) = std::str::from_utf8(left) {
        let (from, length) = (error.valid_up_to(), error.error_len());
        let to = length.map_or(left.len(), |length| from + length);
        left[from..to].fill(b'?');
        left = &mut left[to..];
    }
}
