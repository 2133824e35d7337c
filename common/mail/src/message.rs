//! Builds mails whose bytes depend on nothing but their input.

use std::{
    fmt,
    time::{Duration, SystemTime},
};

use doorstep_contracts::{EmailAddress, replace_invalid};
use doorstep_event::Timestamp;
use lettre::{
    Address, Message,
    message::{
        Mailbox, MultiPart, MultiPartKind, SinglePart,
        header::{ContentType, Header, HeaderName, HeaderValue},
    },
};
use sha2::{Digest, Sha256};

use crate::Sender;

/// Maximum characters of a subject; a longer one is cut.
const MAX_SUBJECT: usize = 100;

/// Maximum bytes of text and HTML together.
const MAX_BODY: usize = 1024 * 1024;

/// Maximum bytes of a line, without its end, by the rules of mail.
const MAX_LINE: usize = 998;

/// The last second that the Date header can express: the end of the year 9999.
const LAST_SECOND: u64 = 253_402_300_799;

/// The content of a mail. Characters that [`doorstep_contracts::check_text`] rejects become `?`: control characters, those that change the
/// writing direction, invisible ones. So no value of an event can add a header or hide a part of the text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MailContent {
    pub to: EmailAddress,
    /// One line, of which 100 characters are kept.
    pub subject: String,
    /// The text, for readers without HTML.
    pub text: String,
    /// The HTML document, whose values the caller has escaped.
    pub html: String,
}

/// A mail as it is sent: its bytes, and the addresses of its envelope.
#[derive(Clone, PartialEq, Eq)]
pub struct MailMessage {
    from: Address,
    to: EmailAddress,
    digest: String,
    bytes: Vec<u8>,
}

/// The reason why a mail cannot be built. It holds nothing of the mail.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MessageError {
    #[error("text and HTML have {0} bytes together, more than {MAX_BODY}")]
    TooLong(usize),
    /// The library for mails has made or refused something that this crate does not expect.
    #[error("the mail cannot be built: {0}")]
    Unbuildable(String),
}

/// The header that keeps responders, such as those of holidays, from answering.
#[derive(Clone)]
struct AutoSubmitted;

impl Header for AutoSubmitted {
    fn name() -> HeaderName {
        HeaderName::new_from_ascii_str("Auto-Submitted")
    }

    fn parse(_: &str) -> Result<Self, Box<dyn std::error::Error + Send + Sync>> {
        Ok(Self)
    }

    fn display(&self) -> HeaderValue {
        HeaderValue::new(Self::name(), "auto-generated".to_owned())
    }
}

impl MailMessage {
    /// Builds the mail for a cause. `key` identifies the cause among all that ever sent a mail; `started_at` is the time of its first
    /// attempt. Message-ID and MIME boundary come from the key and the Date header from the start, so each attempt has the same bytes.
    ///
    /// # Errors
    /// The content is too long.
    pub fn new(
        content: MailContent,
        from: &Sender,
        key: &str,
        started_at: Timestamp,
    ) -> Result<Self, MessageError> {
        let length = content.text.len() + content.html.len();
        if length > MAX_BODY {
            return Err(MessageError::TooLong(length));
        }
        let text = harmless_lines(&content.text);
        let html = harmless_lines(&content.html);
        let digest = digest(key);
        let to: Address = parsed(content.to.expose())?;
        let parts = MultiPart::builder()
            .kind(MultiPartKind::Alternative)
            .boundary(boundary(&digest, &text, &html))
            .singlepart(part(ContentType::TEXT_PLAIN, text))
            .singlepart(part(ContentType::TEXT_HTML, html));
        let message = Message::builder()
            .message_id(Some(format!("<{digest}@{}>", from.address().domain())))
            .date(date(started_at))
            .from(from.mailbox().clone())
            .to(Mailbox::new(None, to))
            .subject(harmless_subject(&content.subject))
            .header(AutoSubmitted)
            .multipart(parts)
            .map_err(|e| MessageError::Unbuildable(e.to_string()))?;
        let mut bytes = message.formatted();
        // The line end of the last line belongs to the final dot.
        if bytes.ends_with(b"\r\n") {
            bytes.truncate(bytes.len() - 2);
        }
        check_lines(&bytes)?;
        Ok(Self {
            from: from.address().clone(),
            to: content.to,
            digest,
            bytes,
        })
    }

    /// Returns the mail in the format of RFC 5322: ASCII in lines of at most 998 bytes, separated by CR LF.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Returns the name of the cause, 32 hexadecimal digits.
    #[must_use]
    pub fn digest(&self) -> &str {
        &self.digest
    }

    pub(crate) fn from(&self) -> &Address {
        &self.from
    }

    pub(crate) fn to(&self) -> &EmailAddress {
        &self.to
    }

    pub(crate) fn recipient(&self) -> Result<Address, MessageError> {
        parsed(self.to.expose())
    }
}

impl fmt::Debug for MailMessage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MailMessage")
            .field("digest", &self.digest)
            .field("to", &self.to)
            .finish_non_exhaustive()
    }
}

fn parsed(address: &str) -> Result<Address, MessageError> {
    let refused = |_| MessageError::Unbuildable("the recipient's address is refused".to_owned());
    address.parse().map_err(refused)
}

fn digest(text: &str) -> String {
    let mut digest = hex::encode(Sha256::digest(text));
    digest.truncate(32);
    digest
}

/// Returns a boundary that neither part contains, even if somebody has foreseen it.
fn boundary(digest: &str, text: &str, html: &str) -> String {
    let mut boundary = format!("doorstep-{digest}");
    while text.contains(&boundary) || html.contains(&boundary) {
        boundary = format!("doorstep-{}", self::digest(&boundary));
    }
    boundary
}

fn part(kind: ContentType, body: String) -> SinglePart {
    SinglePart::builder().content_type(kind).body(body)
}

fn date(at: Timestamp) -> SystemTime {
    let seconds = u64::try_from(at.as_second()).unwrap_or(0).min(LAST_SECOND);
    SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
}

fn harmless_lines(text: &str) -> String {
    let mut lines = String::with_capacity(text.len());
    for line in text.lines() {
        lines.push_str(&replace_invalid(&line.replace('\t', " ")));
        lines.push('\n');
    }
    lines
}

fn harmless_subject(subject: &str) -> String {
    // A word that begins with =? is decoded by readers, and could bring any character.
    let subject = replace_invalid(subject).replace("=?", "= ?");
    let subject = subject.trim();
    if subject.chars().count() <= MAX_SUBJECT {
        return subject.to_owned();
    }
    let mut cut: String = subject.chars().take(MAX_SUBJECT - 3).collect();
    cut.push_str("...");
    cut
}

/// Checks that the mail is ASCII in short lines, each ended by CR LF. A lone CR or LF could pass as the end of the mail at some servers.
fn check_lines(bytes: &[u8]) -> Result<(), MessageError> {
    let unbuildable = |reason: &str| Err(MessageError::Unbuildable(reason.to_owned()));
    for line in bytes.split(|&b| b == b'\n') {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        if line.len() > MAX_LINE {
            return unbuildable("it has a line of more than 998 bytes");
        }
        if line.iter().any(|&b| !b.is_ascii() || b == b'\r' || b == 0) {
            return unbuildable("it has a byte that is no text");
        }
    }
    let feeds = bytes.iter().filter(|&&b| b == b'\n').count();
    let ends = bytes.windows(2).filter(|pair| pair == b"\r\n").count();
    if feeds != ends {
        return unbuildable("it has a line feed without a carriage return");
    }
    Ok(())
}
