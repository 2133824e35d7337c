//! Every route, with its place in the OpenAPI document.

mod deliveries;
mod feed;
mod health;
mod orders;
mod restaurants;
mod sessions;
mod users;

use std::sync::Arc;

use axum::{Router, middleware, response::Response, routing::get};
use utoipa::openapi::OpenApi;
use utoipa_axum::{router::OpenApiRouter, routes};

pub(crate) use users::RoleName;

use super::{
    app::App,
    docs,
    http::{
        Problem,
        layers::{self, Places},
    },
};

/// The routes and their document.
fn documented() -> OpenApiRouter<Arc<App>> {
    OpenApiRouter::with_openapi(docs::head())
        .routes(routes!(health::livez))
        .routes(routes!(health::readyz))
        .routes(routes!(sessions::log_in, sessions::log_out))
        .routes(routes!(users::add_user))
        .routes(routes!(orders::place))
        .routes(routes!(orders::show))
        .routes(routes!(orders::cancel))
        .routes(routes!(feed::feed))
        .routes(routes!(deliveries::assign))
        .routes(routes!(deliveries::pick_up))
        .routes(routes!(deliveries::hand_over))
        .routes(routes!(deliveries::show))
        .routes(routes!(deliveries::record))
        .routes(routes!(restaurants::configure, restaurants::show))
}

/// The document alone.
pub(crate) fn document() -> OpenApi {
    docs::finish(documented().into_openapi())
}

/// All routes, ready to be served, with so many requests under way at most.
pub(crate) fn router(app: Arc<App>, most_requests: usize) -> Router {
    let (router, document) = documented().split_for_parts();
    let document = docs::Served::new(&docs::finish(document));
    router
        .route("/openapi.json", get(async move || document.answer()))
        .fallback(nowhere)
        .method_not_allowed_fallback(not_so)
        .layer(middleware::from_fn_with_state(
            Places::new(most_requests),
            layers::lead,
        ))
        .with_state(app)
}

async fn nowhere() -> Problem {
    Problem::not_found("path")
}

async fn not_so() -> Response {
    layers::method_not_allowed()
}
