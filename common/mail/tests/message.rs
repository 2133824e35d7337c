//! Mails: the same bytes for the same cause, and no way for a value to become a header or to hide a part.

#![allow(clippy::unwrap_used, reason = "all of this is tests")]

use doorstep_contracts::EmailAddress;
use doorstep_mail::{MailContent, MailMessage, MessageError, Sender};
use mail_parser::{Message, MessageParser};

const KEY: &str = "order/536365/confirmed";

fn content(subject: &str, text: &str, html: &str) -> MailContent {
    MailContent {
        to: EmailAddress::new("alice@example.com").unwrap(),
        subject: subject.to_owned(),
        text: text.to_owned(),
        html: html.to_owned(),
    }
}

fn built(content: MailContent, key: &str, started_at: &str) -> MailMessage {
    let sender: Sender = "Caff\u{e8} Doorstep <doorstep@example.org>"
        .parse()
        .unwrap();
    MailMessage::new(content, &sender, key, started_at.parse().unwrap()).unwrap()
}

fn mail(content: MailContent) -> Vec<u8> {
    built(content, KEY, "2026-11-30T19:00:00.75Z")
        .bytes()
        .to_vec()
}

fn parsed(bytes: &[u8]) -> Message<'_> {
    MessageParser::default().parse(bytes).unwrap()
}

fn subject_of(subject: &str) -> String {
    let bytes = mail(content(subject, "text", "<p>html</p>"));
    assert_form(&bytes);
    parsed(&bytes).subject().unwrap().to_owned()
}

/// Asserts that a mail is ASCII in short lines that end with CR LF.
fn assert_form(bytes: &[u8]) {
    let text = std::str::from_utf8(bytes).unwrap();
    assert!(text.is_ascii());
    for line in text.split("\r\n") {
        assert!(line.len() <= 998, "{}", line.len());
        assert!(!line.contains(['\r', '\n', '\0']), "{line:?}");
    }
}

#[test]
fn same_cause_gives_same_bytes() {
    let make = || content("Your order", "Gr\u{fc}\u{df}e", "<p>Gr\u{fc}\u{df}e</p>");
    let first = built(make(), KEY, "2026-11-30T19:00:00Z");
    assert_eq!(first, built(make(), KEY, "2026-11-30T19:00:00Z"));
    let other = built(make(), "order/536366/confirmed", "2026-11-30T19:00:00Z");
    assert_ne!(first.digest(), other.digest());
    let text = |mail: &MailMessage| String::from_utf8(mail.bytes().to_vec()).unwrap();
    // Nothing but the cause's name differs.
    assert_eq!(
        text(&first).replace(first.digest(), "X"),
        text(&other).replace(other.digest(), "X")
    );
}

#[test]
fn headers_are_complete() {
    let bytes = mail(content("Your order", "text", "<p>html</p>"));
    let mail = parsed(&bytes);
    assert_eq!(mail.message_id().unwrap().len(), 32 + "@example.org".len());
    assert!(mail.message_id().unwrap().ends_with("@example.org"));
    assert_eq!(mail.date().unwrap().to_rfc3339(), "2026-11-30T19:00:00Z");
    let from = mail.from().unwrap().first().unwrap();
    assert_eq!(from.name(), Some("Caff\u{e8} Doorstep"));
    assert_eq!(from.address(), Some("doorstep@example.org"));
    let to = mail.to().unwrap().first().unwrap();
    assert_eq!((to.name(), to.address()), (None, Some("alice@example.com")));
    let auto = mail.header_raw("Auto-Submitted").unwrap();
    assert_eq!(auto.trim(), "auto-generated");
}

#[test]
fn parts_are_read_back() {
    let long = "word ".repeat(400);
    let text = format!("Ol\u{e1}, \u{1f355}!\n.\nFrom here\n\n{long}\nend\n");
    let html = format!("<p title='a=b'>Ol\u{e1}</p>\n<p>{long}</p>\n");
    let bytes = mail(content("Your order", &text, &html));
    assert_form(&bytes);
    let mail = parsed(&bytes);
    assert_eq!(mail.text_body_count(), 1);
    assert_eq!(mail.html_body_count(), 1);
    assert_eq!(mail.attachment_count(), 0);
    let lines = |text: &str| text.replace("\r\n", "\n").trim_end().to_owned();
    assert_eq!(lines(&mail.body_text(0).unwrap()), lines(&text));
    assert_eq!(lines(&mail.body_html(0).unwrap()), lines(&html));
}

#[test]
fn subject_adds_no_header() {
    for bad in [
        "Order\r\nBcc: eve@example.com",
        "Order\nBcc: eve@example.com",
        "Order\rBcc: eve@example.com",
        "Order\r\n\r\n<script>",
        "\r\nBcc: eve@example.com",
        "Order\u{2028}Bcc: eve@example.com",
        "Caf\u{e9}\r\nBcc: eve@example.com",
    ] {
        let bytes = mail(content(bad, "text", "<p>html</p>"));
        assert_form(&bytes);
        let mail = parsed(&bytes);
        assert!(mail.bcc().is_none(), "{bad:?}");
        assert_eq!(mail.parts.len(), 3, "{bad:?}");
        assert!(mail.subject().unwrap().contains('?'), "{bad:?}");
    }
}

#[test]
fn subject_shows_what_it_is() {
    assert_eq!(subject_of("Ol\u{e1}, \u{1f355}"), "Ol\u{e1}, \u{1f355}");
    assert_eq!(subject_of("exe.\u{202e}gpj\u{200b}"), "exe.?gpj?");
    assert_eq!(subject_of("a\0b\u{1b}[31mc\td"), "a?b?[31mc?d");
    // Text that readers would decode, here to a mark of direction.
    let encoded = "=?utf-8?B?4oCu?= order";
    assert_eq!(subject_of(encoded), "= ?utf-8?B?4oCu?= order");
    assert_eq!(
        subject_of("Caf\u{e9} =?utf-8?B?4oCu?="),
        "Caf\u{e9} = ?utf-8?B?4oCu?="
    );
}

#[test]
fn long_subject_is_cut() {
    assert_eq!(subject_of(&"x".repeat(100)), "x".repeat(100));
    assert_eq!(
        subject_of(&"x".repeat(101)),
        format!("{}...", "x".repeat(97))
    );
    let emoji = subject_of(&"\u{1f355}".repeat(300));
    assert_eq!(emoji, format!("{}...", "\u{1f355}".repeat(97)));
}

#[test]
fn bodies_lose_invisible_characters() {
    let bytes = mail(content(
        "Order",
        "a\tb\r\nc\rd\0e\u{202e}f\u{1b}[2J",
        "<p>\u{2066}x</p>",
    ));
    assert_form(&bytes);
    let mail = parsed(&bytes);
    let text = mail.body_text(0).unwrap().replace("\r\n", "\n");
    assert_eq!(text.trim_end(), "a b\nc?d?e?f?[2J");
    assert_eq!(mail.body_html(0).unwrap().trim_end(), "<p>?x</p>");
}

#[test]
fn body_cannot_end_its_part() {
    let plain = mail(content("Order", "text", "<p>html</p>"));
    let plain = String::from_utf8(plain).unwrap();
    let at = plain.find("--doorstep-").unwrap();
    let boundary = plain[at..].lines().next().unwrap();
    let text = format!("{boundary}\nContent-Type: text/html\n\n<p>forged</p>\n{boundary}--\n");
    let bytes = mail(content("Order", &text, "<p>html</p>"));
    let mail = parsed(&bytes);
    assert_eq!(mail.parts.len(), 3);
    assert!(mail.body_text(0).unwrap().contains("forged"));
    assert_eq!(mail.body_html(0).unwrap().trim_end(), "<p>html</p>");
}

#[test]
fn dates_beyond_the_calendar_are_clamped() {
    for (at, year) in [
        ("-009999-01-02T01:59:59Z", 1970),
        ("9999-12-30T22:00:00.9Z", 9999),
    ] {
        let mail = built(content("Order", "text", "<p>html</p>"), KEY, at);
        assert_eq!(parsed(mail.bytes()).date().unwrap().year, year, "{at}");
    }
}

#[test]
fn too_long_content_is_refused() {
    let sender: Sender = "doorstep@example.org".parse().unwrap();
    let long = content("Order", &"x".repeat(1024 * 1024), "y");
    let at = "2026-11-30T19:00:00Z".parse().unwrap();
    let error = MailMessage::new(long, &sender, KEY, at).unwrap_err();
    assert_eq!(error, MessageError::TooLong(1024 * 1024 + 1));
}

#[test]
fn debug_shows_no_address() {
    let content = content("Order", "text", "<p>html</p>");
    let shown = format!(
        "{content:?} {:?}",
        built(content.clone(), KEY, "2026-11-30T19:00:00Z")
    );
    assert!(!shown.contains("alice@"), "{shown}");
    assert!(shown.contains("a***@example.com"), "{shown}");
}
