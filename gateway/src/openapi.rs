//! The OpenAPI document, generated from the code so that the two agree.

use axum::{
    body::Bytes,
    http::header,
    response::{IntoResponse, Response},
};
use utoipa::{
    OpenApi as _,
    openapi::{
        Content, OpenApi, Ref, RefOr, ResponseBuilder,
        path::Operation,
        security::{HttpAuthScheme, HttpBuilder, SecurityScheme},
    },
};

use crate::http::problem::{Document, MEDIA_TYPE};

#[derive(utoipa::OpenApi)]
#[openapi(
    info(
        title = "Doorstep's gateway",
        description = "Orders and deliveries over HTTP. Every error is a problem document (RFC 9457); its `code` is for programs. Names and texts in requests are in Unicode's normal form C, without white space at their ends and without control, format, private, unassigned and invisible characters.",
        license(name = "MIT OR Apache-2.0", identifier = "MIT OR Apache-2.0"),
    ),
    tags(
        (name = "sessions", description = "Login and logout."),
        (name = "users", description = "Users, their passwords and their mails."),
        (name = "orders", description = "Placing orders and following them."),
        (name = "deliveries", description = "Reports of couriers."),
        (name = "reports", description = "Reports of sales and deliveries."),
        (name = "restaurants", description = "Menus and opening hours."),
        (name = "health", description = "Liveness and readiness."),
    ),
    components(schemas(Document<'static>)),
)]
struct ApiInfo;

/// Returns the document without its routes.
pub(super) fn head() -> OpenApi {
    let mut document = ApiInfo::openapi();
    let token = HttpBuilder::new()
        .scheme(HttpAuthScheme::Bearer)
        .description(Some("The token of a session."))
        .build();
    let components = document.components.get_or_insert_default();
    components.add_security_scheme("token", SecurityScheme::Http(token));
    document
}

/// Adds the common parts: every error is a problem document, and the errors that any request may get.
pub(super) fn finish(mut document: OpenApi) -> OpenApi {
    for (path, item) in &mut document.paths.paths {
        let names_something = path.contains('{');
        let operations = [
            &mut item.get,
            &mut item.post,
            &mut item.put,
            &mut item.patch,
            &mut item.delete,
        ];
        for operation in operations.into_iter().flatten() {
            finish_operation(operation, names_something);
        }
    }
    document
}

fn finish_operation(operation: &mut Operation, names_something: bool) {
    let has_body = operation.request_body.is_some();
    let has_token = operation.security.is_some();
    let responses = &mut operation.responses.responses;
    let mut say = |status: &str, what: &str| {
        responses
            .entry(status.to_owned())
            .or_insert_with(|| RefOr::T(ResponseBuilder::new().description(what).build()));
    };
    if has_token {
        say("401", "There is no token, or it is no longer valid.");
        say(
            "403",
            "The user may see it, and has another role than those that may do this.",
        );
        say(
            "429",
            "The user sends too many requests, or has too many in flight.",
        );
    }
    if names_something {
        say(
            "404",
            "It does not exist, or it is another user's: the response does not reveal which.",
        );
    }
    if has_body {
        say("400", "The body is not JSON.");
        say("408", "The body arrived too slowly.");
        say("413", "The body is too large.");
        say("415", "The body is not declared as JSON.");
        say("422", "The body has an invalid form, or breaks a rule.");
    }
    say(
        "503",
        "It cannot be done now; Retry-After says when to retry.",
    );
    say("default", "Any other error.");
    for (status, response) in responses.iter_mut() {
        let RefOr::T(response) = response else {
            continue;
        };
        let is_error = !status.starts_with('2');
        if is_error && response.content.is_empty() {
            let schema = Ref::from_schema_name("Problem");
            let content = Content::new(Some(schema));
            response
                .content
                .insert(MEDIA_TYPE.to_owned(), content.into());
        }
    }
}

/// The document in the form in which it is served.
#[derive(Clone)]
pub(super) struct CachedDocument(Bytes);

impl CachedDocument {
    pub(super) fn new(document: &OpenApi) -> Self {
        Self(document.to_json().unwrap_or_default().into())
    }

    pub(super) fn answer(&self) -> Response {
        let form = [(header::CONTENT_TYPE, "application/json")];
        (form, self.0.clone()).into_response()
    }
}
