//! The admission of a request that has no session yet.

use std::{sync::Arc, time::Instant};

use axum::{Extension, extract::FromRequestParts, http::request::Parts};

use crate::{
    app::AppState,
    http::{Problem, origin::Origin},
    limits::LoginAttempt,
};

impl FromRequestParts<Arc<AppState>> for LoginAttempt {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &Arc<AppState>) -> Result<Self, Problem> {
        let origin = Extension::<Origin>::from_request_parts(parts, app).await;
        let Extension(Origin(address)) = origin.map_err(|_| Problem::internal())?;
        app.login_throttle.admit(address, Instant::now())
    }
}
