//! Request bodies, read within limits of size and time and decoded from JSON; and names in paths.

use std::{convert::Infallible, fmt::Display, str::FromStr, time::Duration};

use axum::{
    body::{Body, Bytes},
    extract::{FromRequest, FromRequestParts, Path, Request},
    http::{HeaderMap, StatusCode, header, request::Parts},
};
use doorstep_contracts::check_text;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use serde::{
    Deserialize, Deserializer,
    de::{DeserializeOwned, Error as _},
};
use serde_json::error::Category;
use tokio::time::timeout;

use super::problem::Problem;

/// The limit of a body, in bytes.
pub(crate) const MAX_BODY: usize = 256 * 1024;
/// The timeout of a body, however slowly it arrives.
const BODY_TIME: Duration = Duration::from_secs(10);

/// A body that was not read yet.
///
/// A handler reads it once it has checked the caller's role. So no body is read in vain, and a caller without the role
/// learns nothing of the form.
pub(crate) struct Unread(Request);

impl<S: Sync> FromRequest<S> for Unread {
    type Rejection = Infallible;

    async fn from_request(request: Request, _state: &S) -> Result<Self, Infallible> {
        Ok(Self(request))
    }
}

impl Unread {
    /// Reads the body as JSON of this type. If cancelled, a part of the body is lost.
    ///
    /// # Errors
    /// The body is too long or too slow, breaks off, or is not JSON of that type.
    pub(crate) async fn json<T: DeserializeOwned>(self) -> Result<T, Problem> {
        let (head, body) = self.0.into_parts();
        check_media_type(&head.headers)?;
        let bytes = read(&head.headers, body).await?;
        serde_json::from_slice(&bytes).map_err(|e| match e.classify() {
            // The error names the place and the expected form; it repeats only names of members.
            Category::Data => Problem::invalid(format!("the body has an invalid form: {e}")),
            _ => Problem::malformed(format!("the body is not JSON: {e}")),
        })
    }
}

fn check_media_type(headers: &HeaderMap) -> Result<(), Problem> {
    let given = headers
        .get(header::CONTENT_TYPE)
        .and_then(|value| value.to_str().ok());
    let essence = given.and_then(|text| text.split(';').next()).map(str::trim);
    if essence.is_some_and(|text| text.eq_ignore_ascii_case("application/json")) {
        return Ok(());
    }
    Err(Problem::new(
        StatusCode::UNSUPPORTED_MEDIA_TYPE,
        "unsupported_media_type",
        "the body must be JSON, and Content-Type must say application/json",
    ))
}

async fn read(headers: &HeaderMap, body: Body) -> Result<Bytes, Problem> {
    // A body whose declared length is too long is rejected before any of it is read.
    let told = headers
        .get(header::CONTENT_LENGTH)
        .and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    if told.is_some_and(|length| length > MAX_BODY as u64) {
        return Err(too_large());
    }
    match timeout(BODY_TIME, Limited::new(body, MAX_BODY).collect()).await {
        Ok(Ok(body)) => Ok(body.to_bytes()),
        Ok(Err(e)) if e.is::<LengthLimitError>() => Err(too_large()),
        Ok(Err(_)) => Err(Problem::malformed("the body was cut off")),
        Err(_) => Err(Problem::new(
            StatusCode::REQUEST_TIMEOUT,
            "body_too_slow",
            format!("the body did not arrive within {} s", BODY_TIME.as_secs()),
        )),
    }
}

fn too_large() -> Problem {
    Problem::new(
        StatusCode::PAYLOAD_TOO_LARGE,
        "body_too_large",
        format!("a body has at most {MAX_BODY} bytes"),
    )
}

/// The limit of a name or text in a request, in characters of any script.
///
/// It is the same for every request, so a name that can be created can be looked up. The roles accept names of this
/// length, and the OpenAPI document counts characters, too.
const SHORT: usize = 50;

/// Checks that a name or text is short enough, as the document describes.
///
/// # Errors
/// It is longer.
pub(crate) fn is_short(text: &str) -> Result<(), String> {
    let count = text.chars().count();
    if count > SHORT {
        return Err(format!(
            "a text of {count} characters is longer than {SHORT}"
        ));
    }
    Ok(())
}

/// Checks a new name or text for people: short, and by [`check_text`] without characters that would make it look like
/// another one.
///
/// # Errors
/// It is longer, or contains such a character.
pub(crate) fn is_presentable(text: &str) -> Result<(), String> {
    is_short(text)?;
    // The error does not repeat the text, which may contain invisible characters.
    check_text(text).map_err(|e| e.to_string())
}

/// Reads a new name or text for people, see [`is_presentable`].
///
/// # Errors
/// It is invalid, or not of the form of the type.
pub(crate) fn bounded_str<'de, T, D>(deserializer: D) -> Result<T, D::Error>
where
    T: FromStr<Err: Display>,
    D: Deserializer<'de>,
{
    let text = String::deserialize(deserializer)?;
    is_presentable(&text).map_err(D::Error::custom)?;
    text.parse().map_err(D::Error::custom)
}

/// Reads the name of an existing thing, such as a dish: short, and of the type's form. Names that are older than the
/// rule for new names can still be used.
///
/// # Errors
/// It is longer, or not of the form of the type.
pub(crate) fn known<'de, T, D>(deserializer: D) -> Result<T, D::Error>
where
    T: FromStr<Err: Display>,
    D: Deserializer<'de>,
{
    let text = String::deserialize(deserializer)?;
    is_short(&text).map_err(D::Error::custom)?;
    text.parse().map_err(D::Error::custom)
}

/// Reads an optional value like [`bounded_str`].
///
/// # Errors
/// As [`bounded_str`], if there is a value.
pub(crate) fn bounded_str_opt<'de, T, D>(deserializer: D) -> Result<Option<T>, D::Error>
where
    T: FromStr<Err: Display>,
    D: Deserializer<'de>,
{
    let Some(text) = Option::<String>::deserialize(deserializer)? else {
        return Ok(None);
    };
    is_presentable(&text).map_err(D::Error::custom)?;
    text.parse::<T>().map(Some).map_err(D::Error::custom)
}

/// Reads a whole number. JSON has one kind of numbers, so `2.0` is valid.
///
/// # Errors
/// It is no whole number, or out of the type's range.
pub(crate) fn whole_number<'de, N, D>(deserializer: D) -> Result<N, D::Error>
where
    N: TryFrom<i64>,
    D: Deserializer<'de>,
{
    let number = serde_json::Number::deserialize(deserializer)?;
    let whole = number.as_i64().or_else(|| {
        let text = number.to_string();
        text.strip_suffix(".0")?.parse().ok()
    });
    whole
        .and_then(|whole| N::try_from(whole).ok())
        .ok_or_else(|| D::Error::custom(format!("{number} is not a whole number in range")))
}

/// The only name in a path, validated by its type. An invalid name matches nothing: 404.
pub(crate) struct PathParam<T>(pub(crate) T);

impl<T: FromStr, S: Send + Sync> FromRequestParts<S> for PathParam<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let nothing = || Problem::not_found("thing");
        let Path(name) = Path::<String>::from_request_parts(parts, state)
            .await
            .map_err(|_| nothing())?;
        name.parse().map(Self).map_err(|_| nothing())
    }
}

#[cfg(test)]
mod tests {
    use doorstep_contracts::Label;

    use super::*;

    #[derive(Debug, Deserialize)]
    struct Body {
        #[serde(deserialize_with = "bounded_str")]
        text: Label,
    }

    #[derive(Debug, Deserialize)]
    struct Perhaps {
        #[serde(default, deserialize_with = "bounded_str_opt")]
        text: Option<Label>,
    }

    #[derive(Debug, Deserialize)]
    struct Count {
        #[serde(deserialize_with = "whole_number")]
        count: u16,
    }

    #[test]
    fn whole_numbers_may_have_a_decimal_point() {
        let read = |number: &str| {
            let body = format!("{{\"count\":{number}}}");
            serde_json::from_str::<Count>(&body).map(|body| body.count)
        };
        assert_eq!(read("860").unwrap(), 860);
        assert_eq!(read("860.0").unwrap(), 860);
        for bad in ["860.5", "-1", "65536", "9.9e99", "\"1\"", "null"] {
            assert!(read(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn short_texts_are_bounded_without_control_characters() {
        let read = |text: &str| {
            let body = serde_json::json!({ "text": text }).to_string();
            serde_json::from_str::<Body>(&body).map(|body| body.text.to_string())
        };
        let longest = "\u{1f355}".repeat(SHORT);
        assert_eq!(read(&longest).unwrap(), longest);
        assert!(read(&"x".repeat(SHORT + 1)).is_err());
        for bad in [
            "",
            "a\nb",
            "\u{7f}",
            "a\u{200b}b",
            "\u{202e}a",
            " a",
            "e\u{301}",
        ] {
            assert!(read(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn optional_texts_are_bounded_too() {
        let read = |body: &str| {
            let read = serde_json::from_str::<Perhaps>(body);
            read.map(|body| body.text.map(|text| text.to_string()))
        };
        for none in ["{}", r#"{"text":null}"#] {
            assert_eq!(read(none).unwrap(), None);
        }
        let some = r#"{"text":"here"}"#;
        assert_eq!(read(some).unwrap().as_deref(), Some("here"));
        for bad in ["", "a\nb", "a ", &"x".repeat(SHORT + 1)] {
            let body = serde_json::json!({ "text": bad }).to_string();
            assert!(read(&body).is_err(), "{bad:?}");
        }
    }
}
