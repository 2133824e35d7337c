//! Bodies of requests: read within a bound of size and of time, as JSON of one form; and names in paths.

use std::{str::FromStr, time::Duration};

use axum::{
    body::{Body, Bytes},
    extract::{FromRequest, FromRequestParts, Path, Request},
    http::{HeaderMap, StatusCode, header, request::Parts},
};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use serde::de::DeserializeOwned;
use serde_json::error::Category;
use tokio::time::timeout;

use super::problem::Problem;

/// The most bytes of a body.
pub(crate) const MAX_BODY: usize = 256 * 1024;
/// How long a body may take to come, however slowly it trickles.
const BODY_TIME: Duration = Duration::from_secs(10);

/// A body in JSON of this form.
pub(crate) struct Json<T>(pub(crate) T);

impl<T: DeserializeOwned, S: Sync> FromRequest<S> for Json<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, _state: &S) -> Result<Self, Problem> {
        check_media_type(request.headers())?;
        let bytes = read(request.headers().clone(), request.into_body()).await?;
        serde_json::from_slice(&bytes)
            .map(Self)
            .map_err(|e| match e.classify() {
                // What is wrong is told by place and by the form that was expected; only names of members are repeated.
                Category::Data => {
                    Problem::invalid(format!("the body is not of the form asked for: {e}"))
                }
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

async fn read(headers: HeaderMap, body: Body) -> Result<Bytes, Problem> {
    // A body that says it is too long is refused before any of it is read.
    let told = headers
        .get(header::CONTENT_LENGTH)
        .and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    if told.is_some_and(|length| length > MAX_BODY as u64) {
        return Err(too_large());
    }
    match timeout(BODY_TIME, Limited::new(body, MAX_BODY).collect()).await {
        Ok(Ok(body)) => Ok(body.to_bytes()),
        Ok(Err(e)) if e.is::<LengthLimitError>() => Err(too_large()),
        Ok(Err(_)) => Err(Problem::malformed("the body broke off")),
        Err(_) => Err(Problem::new(
            StatusCode::REQUEST_TIMEOUT,
            "body_too_slow",
            format!("the body did not come within {} s", BODY_TIME.as_secs()),
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

/// The one name in a path, as a type that checks it. What cannot be a name names nothing: 404.
pub(crate) struct Named<T>(pub(crate) T);

impl<T: FromStr, S: Send + Sync> FromRequestParts<S> for Named<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let nothing = || Problem::not_found("thing");
        let Path(name) = Path::<String>::from_request_parts(parts, state)
            .await
            .map_err(|_| nothing())?;
        name.parse().map(Self).map_err(|_| nothing())
    }
}
