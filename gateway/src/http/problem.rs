//! What went wrong with a request, as a problem document (RFC 9457): for programs by its code, for people by its detail.

use std::{borrow::Cow, time::Duration};

use axum::{
    body::Body,
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde::Serialize;
use utoipa::ToSchema;

/// The media type of problem documents.
pub(crate) const MEDIA_TYPE: &str = "application/problem+json";

/// A problem, as it is sent. Nothing of the request's own content is repeated in it but names and numbers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Problem {
    status: StatusCode,
    code: Cow<'static, str>,
    detail: Cow<'static, str>,
    retry_after: Option<Duration>,
}

/// The code of the problem that an answer tells, for who logs it.
#[derive(Debug, Clone)]
pub(crate) struct Code(pub(crate) Cow<'static, str>);

/// A problem document.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Problem)]
pub(crate) struct Document<'a> {
    /// Names the kind of problem.
    #[serde(rename = "type")]
    #[schema(example = "urn:doorstep:problem:not_found")]
    kind: String,
    /// The status in words.
    title: &'a str,
    /// The HTTP status.
    #[schema(minimum = 400, maximum = 599)]
    status: u16,
    /// What is wrong, for people.
    detail: &'a str,
    /// The last word of the type, for programs.
    #[schema(example = "not_found")]
    code: &'a str,
}

impl Problem {
    /// A problem of this status, with a code for programs and a sentence for people.
    pub(crate) fn new(
        status: StatusCode,
        code: impl Into<Cow<'static, str>>,
        detail: impl Into<Cow<'static, str>>,
    ) -> Self {
        Self {
            status,
            code: code.into(),
            detail: detail.into(),
            retry_after: None,
        }
    }

    /// The same, to be asked again after that time.
    pub(crate) fn retry_after(mut self, time: Duration) -> Self {
        self.retry_after = Some(time);
        self
    }

    /// The request is not of the form that it should have.
    pub(crate) fn malformed(detail: impl Into<Cow<'static, str>>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "malformed", detail)
    }

    /// The request has the right form and breaks a rule.
    pub(crate) fn invalid(detail: impl Into<Cow<'static, str>>) -> Self {
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, "invalid", detail)
    }

    /// Nobody has logged in.
    pub(crate) fn unauthorized(detail: &'static str) -> Self {
        Self::new(StatusCode::UNAUTHORIZED, "unauthorized", detail)
    }

    /// Whoever asks has another role.
    pub(crate) fn forbidden(detail: &'static str) -> Self {
        Self::new(StatusCode::FORBIDDEN, "forbidden", detail)
    }

    /// There is no such thing, or it is somebody else's: nobody learns which.
    pub(crate) fn not_found(what: &str) -> Self {
        Self::new(
            StatusCode::NOT_FOUND,
            "not_found",
            format!("there is no such {what}"),
        )
    }

    /// It cannot be done in the present state.
    pub(crate) fn conflict(code: &'static str, detail: impl Into<Cow<'static, str>>) -> Self {
        Self::new(StatusCode::CONFLICT, code, detail)
    }

    /// It cannot be done now; asking again after that time may help.
    pub(crate) fn unavailable(
        code: impl Into<Cow<'static, str>>,
        detail: impl Into<Cow<'static, str>>,
        after: Duration,
    ) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, code, detail).retry_after(after)
    }

    /// The caller asks too often.
    pub(crate) fn too_many(detail: &'static str, after: Duration) -> Self {
        Self::new(StatusCode::TOO_MANY_REQUESTS, "too_many_requests", detail).retry_after(after)
    }

    /// A mistake in the program. What it was is in the log, and not told to the caller.
    pub(crate) fn internal() -> Self {
        Self::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "internal",
            "this should not have happened; the request id leads to the reason in the log",
        )
    }

    /// Its status.
    #[cfg(test)]
    pub(crate) fn status(&self) -> StatusCode {
        self.status
    }

    /// The time after which to come again.
    #[cfg(test)]
    pub(crate) fn wait(&self) -> Option<Duration> {
        self.retry_after
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let document = Document {
            kind: format!("urn:doorstep:problem:{}", self.code),
            title: self.status.canonical_reason().unwrap_or("Problem"),
            status: self.status.as_u16(),
            detail: &self.detail,
            code: &self.code,
        };
        // Text and numbers always have a form in JSON.
        let body = serde_json::to_vec(&document).unwrap_or_default();
        let mut response = Response::new(Body::from(body));
        *response.status_mut() = self.status;
        response.extensions_mut().insert(Code(self.code));
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(MEDIA_TYPE));
        if self.status == StatusCode::UNAUTHORIZED {
            let scheme = HeaderValue::from_static("Bearer");
            headers.insert(header::WWW_AUTHENTICATE, scheme);
        }
        if let Some(time) = self.retry_after {
            // Whole seconds, and never zero, which would mean at once.
            let seconds = time.as_millis().div_ceil(1000).max(1);
            headers.insert(
                header::RETRY_AFTER,
                HeaderValue::from(u64::try_from(seconds).unwrap_or(u64::MAX)),
            );
        }
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_problem_says_when_to_ask_again_in_whole_seconds_and_never_at_once() {
        let after = |millis| {
            let problem = Problem::unavailable("away", "away", Duration::from_millis(millis));
            let response = problem.into_response();
            response.headers()[header::RETRY_AFTER]
                .to_str()
                .unwrap()
                .to_owned()
        };
        assert_eq!(after(0), "1");
        assert_eq!(after(1000), "1");
        assert_eq!(after(1001), "2");
    }

    #[test]
    fn a_problem_is_a_problem_document() {
        let response = Problem::unauthorized("log in first").into_response();
        assert_eq!(response.status(), StatusCode::UNAUTHORIZED);
        assert_eq!(response.headers()[header::CONTENT_TYPE], MEDIA_TYPE);
        assert_eq!(response.headers()[header::WWW_AUTHENTICATE], "Bearer");
    }
}
