//! Interprets a message's content type and content encoding.

use crate::attributes::shown;

/// Media type of a CloudEvent in structured mode.
pub const STRUCTURED: &str = "application/cloudevents+json";
/// Media type of several CloudEvents in one message, which is not supported.
pub const BATCH: &str = "application/cloudevents-batch+json";

/// The location of a message's event attributes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// The attributes are headers, the body is the data.
    Binary,
    /// The body is a JSON object with attributes and data.
    Structured,
}

/// Returns the mode of a content type, and its defect if it has one.
///
/// In binary mode the data is JSON. Types that name no format (`text/plain`, `application/octet-stream`) count as JSON, because client
/// libraries set them by default.
#[must_use]
pub fn mode(content_type: &str) -> (Mode, Option<String>) {
    if content_type == crate::headers::CONTENT_TYPE {
        return (Mode::Binary, None);
    }
    let mut parts = content_type.split(';');
    let media = parts.next().unwrap_or_default().trim().to_ascii_lowercase();
    let charset = parts.find_map(|parameter| {
        let (name, value) = parameter.split_once('=')?;
        let is_charset = name.trim().eq_ignore_ascii_case("charset");
        is_charset.then(|| value.trim().trim_matches('"'))
    });
    let foreign_charset = charset
        .filter(|charset| !is_one_of(charset, &["utf-8", "utf8", "us-ascii"]))
        .map(|charset| format!("charset {} is not supported: send UTF-8", shown(charset)));
    match media.as_str() {
        STRUCTURED => (Mode::Structured, foreign_charset),
        BATCH => {
            let defect = format!(
                "a batch of events ({BATCH}) is not supported: send each event in its own message"
            );
            (Mode::Binary, Some(defect))
        }
        cloud if cloud.starts_with("application/cloudevents") => {
            let defect = format!(
                "content type {} is not supported: send {STRUCTURED}, or attributes as headers",
                shown(content_type)
            );
            (Mode::Binary, Some(defect))
        }
        "" | "application/json" | "text/json" | "text/plain" | "application/octet-stream" => {
            (Mode::Binary, foreign_charset)
        }
        json if json.ends_with("+json") => (Mode::Binary, foreign_charset),
        _ => {
            let defect = format!("content type {} is not JSON", shown(content_type));
            (Mode::Binary, Some(defect))
        }
    }
}

/// Returns the defect of a content encoding: bodies are never decompressed.
#[must_use]
pub fn encoding_defect(encoding: &str) -> Option<String> {
    let is_plain = is_one_of(
        encoding.trim(),
        &[
            "", "utf-8", "utf8", "us-ascii", "identity", "binary", "8bit",
        ],
    );
    (!is_plain).then(|| {
        format!(
            "content encoding {} is not supported: send the body without it",
            shown(encoding)
        )
    })
}

fn is_one_of(text: &str, names: &[&str]) -> bool {
    names.iter().any(|name| text.eq_ignore_ascii_case(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn structured_mode_ignores_case_and_parameters() {
        for structured in [
            "application/cloudevents+json",
            "Application/CloudEvents+JSON",
            " application/cloudevents+json ; Charset=\"UTF-8\"",
            "application/cloudevents+json;charset=utf8;foo=bar",
        ] {
            assert_eq!(mode(structured), (Mode::Structured, None), "{structured}");
        }
        let (mode, defect) = mode("application/cloudevents+json; charset=iso-8859-1");
        assert_eq!(mode, Mode::Structured);
        assert!(defect.unwrap().contains("iso-8859-1"));
    }

    #[test]
    fn types_compatible_with_json_are_accepted() {
        for binary in [
            "application/json",
            "application/json; charset=utf-8",
            "application/vnd.shop.order+json",
            "text/plain",
            "application/octet-stream",
            "",
        ] {
            assert_eq!(mode(binary), (Mode::Binary, None), "{binary}");
        }
    }

    #[test]
    fn other_formats_are_rejected_by_name() {
        for (content_type, says) in [
            ("application/cloudevents-batch+json", "a batch of events"),
            (
                "application/cloudevents-batch+json; charset=utf-8",
                "a batch of events",
            ),
            ("application/cloudevents+avro", "cloudevents+avro"),
            ("application/xml", "application/xml"),
            ("application/json; charset=latin1", "latin1"),
        ] {
            let (_, defect) = mode(content_type);
            assert!(
                defect.as_deref().unwrap_or_default().contains(says),
                "{content_type}: {defect:?}"
            );
        }
        assert!(encoding_defect("gzip").is_some());
        assert!(encoding_defect("UTF-8").is_none());
    }
}
