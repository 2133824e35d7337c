//! Every route, with its place in the OpenAPI document.

mod confirm_email;
mod deliveries;
mod feed;
mod health;
mod notifications;
mod orders;
mod report_feed;
mod reports;
mod restaurants;
mod sessions;
mod users;

use std::sync::Arc;

use axum::middleware::from_fn_with_state;
use axum::{Router, response::Response, routing::get};
use utoipa::openapi::OpenApi;
use utoipa_axum::{router::OpenApiRouter, routes};

pub(super) use health::troubles;
pub(crate) use users::{RoleName, UserBody};

use super::{
    app::AppState,
    http::{
        Problem,
        middleware::{self, DESCRIPTION, Entrance},
    },
    openapi,
};

/// Returns the routes and their document.
fn documented() -> OpenApiRouter<Arc<AppState>> {
    OpenApiRouter::with_openapi(openapi::head())
        .routes(routes!(health::livez))
        .routes(routes!(health::readyz))
        .routes(routes!(sessions::log_in, sessions::log_out))
        .routes(routes!(users::add_user, users::list))
        .routes(routes!(users::show, users::change, users::delete))
        .routes(routes!(users::set_password))
        .routes(routes!(
            notifications::set_email,
            notifications::remove_email
        ))
        .routes(routes!(notifications::choose, notifications::show))
        .routes(routes!(confirm_email::open, confirm_email::confirm))
        .routes(routes!(orders::place))
        .routes(routes!(orders::show))
        .routes(routes!(orders::cancel))
        .routes(routes!(feed::feed))
        .routes(routes!(deliveries::assign))
        .routes(routes!(deliveries::pick_up))
        .routes(routes!(deliveries::deliver))
        .routes(routes!(deliveries::show))
        .routes(routes!(deliveries::record))
        .routes(routes!(restaurants::configure, restaurants::show))
        .routes(routes!(reports::request, reports::list))
        .routes(routes!(reports::show))
        .routes(routes!(reports::cancel))
        .routes(routes!(reports::page))
        .routes(routes!(reports::lines))
        .routes(routes!(report_feed::feed))
        .routes(routes!(reports::open_link))
}

/// Returns the document alone.
pub(crate) fn document() -> OpenApi {
    openapi::finish(documented().into_openapi())
}

/// Returns all routes, ready to be served.
pub(crate) fn router(app: Arc<AppState>, entrance: Entrance) -> Router {
    let (router, document) = documented().split_for_parts();
    let document = openapi::CachedDocument::new(&openapi::finish(document));
    router
        .route(DESCRIPTION, get(async move || document.answer()))
        .fallback(fallback_404)
        .method_not_allowed_fallback(method_not_allowed)
        .layer(from_fn_with_state(entrance, middleware::handle))
        .with_state(app)
}

async fn fallback_404() -> Problem {
    Problem::not_found("path")
}

async fn method_not_allowed() -> Response {
    middleware::method_not_allowed()
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    /// Every operation of the document, with its method and path.
    fn operations() -> Vec<(String, Value)> {
        let document: Value = serde_json::from_str(&document().to_json().unwrap()).unwrap();
        let paths = document["paths"].as_object().unwrap();
        let all = paths.iter().flat_map(|(path, item)| {
            let operations = item.as_object().unwrap().iter();
            operations.map(move |(method, it)| (format!("{method} {path}"), it.clone()))
        });
        all.filter(|(_, it)| it["responses"].is_object()).collect()
    }

    #[test]
    fn every_operation_documents_its_responses() {
        let operations = operations();
        assert_eq!(operations.len(), 35);
        for (name, operation) in operations {
            let mut expected = vec!["503", "default"];
            if operation["security"].is_array() {
                expected.extend(["401", "403", "429"]);
            }
            if operation["requestBody"].is_object() {
                expected.extend(["400", "408", "413", "415", "422"]);
            }
            if name.contains('{') {
                expected.push("404");
            }
            let responses = operation["responses"].as_object().unwrap();
            for status in expected {
                assert!(responses.contains_key(status), "{name}: {status}");
            }
            for (status, response) in responses {
                assert!(response["description"].is_string(), "{name}: {status}");
                let is_error = !status.starts_with('2');
                // A probe gets the same form in either case.
                let is_health = matches!(name.as_str(), "get /livez" | "get /readyz");
                if is_error && !(is_health && status == "503") {
                    let content = &response["content"]["application/problem+json"];
                    assert!(content.is_object(), "{name}: {status}: {response}");
                }
            }
        }
    }

    #[test]
    fn bounds_hold_in_path_query_and_body() {
        let document: Value = serde_json::from_str(&document().to_json().unwrap()).unwrap();
        let schemas = &document["components"]["schemas"];
        for (schema, member) in [
            ("NewOrder", "restaurant"),
            ("NewOrder", "method"),
            ("NewOrder", "country"),
            ("NewReport", "country"),
            ("NewLine", "sku"),
            ("Dish", "sku"),
            ("Dish", "name"),
            ("NewRestaurant", "name"),
            ("NewUser", "restaurant"),
        ] {
            let member = &schemas[schema]["properties"][member];
            assert_eq!(member["maxLength"], 50, "{schema}: {member}");
        }
    }
}
