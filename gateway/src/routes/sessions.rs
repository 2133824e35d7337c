//! Sessions: login and logout.

use std::{sync::Arc, time::Instant};

use axum::{Extension, extract::State, http::StatusCode, response::Response};
use doorstep_event::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{health::json, users::RoleName};
use crate::{
    app::AppState,
    auth::{AuthenticatedUser, Password},
    domain::{RevokeTokens, UserName, UserStatus},
    http::{
        Problem, Unread,
        rejection_log::{self, AskedAs},
    },
    limits::LoginAttempt,
    user_cache::UserCache,
};

/// The credentials of a user.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Login {
    /// The name of the user.
    #[schema(value_type = String, pattern = "^[a-z0-9][a-z0-9_-]{0,62}$", example = "ada")]
    name: UserName,
    /// The password of the user.
    #[schema(value_type = String, format = Password, min_length = 8, max_length = 1024)]
    password: Password,
}

/// A session and its token.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Session {
    /// The token to send with every request, as `Authorization: Bearer TOKEN`.
    token: String,
    /// The time at which the token expires.
    #[schema(value_type = String, format = DateTime)]
    expires_at: Timestamp,
    /// The role of the user.
    role: RoleName,
}

/// Log in: get a token for a name and its password.
#[utoipa::path(post, path = "/v1/sessions", tag = "sessions", request_body = Login, responses(
    (status = 201, description = "The token.", body = Session),
    (status = 401, description = "Name or password is wrong, or the user is disabled; the response does not reveal which."),
    (status = 429, description = "Too many attempts from this address, or too many wrong passwords for this name: from this network, or from so many others that a network without a recent login of the user has to wait. Unknown names count too. Retry-After says when to retry."),
))]
pub(super) async fn log_in(
    State(app): State<Arc<AppState>>,
    Extension(asked_as): Extension<AskedAs>,
    stranger: LoginAttempt,
    body: Unread,
) -> Result<Response, Problem> {
    let login: Login = body.json().await?;
    // The body is complete: the rest has limits of its own.
    let address = stranger.release();
    asked_as.set(&login.name);
    let attempt = app
        .login_throttle
        .check_name(&login.name, address, Instant::now())?;
    // Read from the store, since another program may have changed the password a moment ago.
    let user = match UserCache::as_kept(&app.store, &login.name).await {
        Ok(user) => user.filter(|user| user.status != UserStatus::Deleted),
        Err(e) => {
            attempt.was_none(Instant::now());
            return Err(e);
        }
    };
    let hash = user.as_ref().map(|user| user.hash.clone());
    let verified = app
        .passwords
        .verify(login.password, hash, attempt.is_known)
        .await;
    let wrong = || Problem::unauthorized("name or password is wrong");
    let user = match (verified, user) {
        (Err(e), _) => {
            attempt.was_none(Instant::now());
            return Err(e);
        }
        (Ok(true), Some(user)) if user.status.is_active() => user,
        (Ok(true), Some(_)) => {
            // Only operators learn it; to others it would reveal that the password was right.
            rejection_log::count_login("disabled");
            return Err(wrong());
        }
        (Ok(_), _) => {
            rejection_log::count_login("wrong");
            return Err(wrong());
        }
    };
    attempt.was_right(Instant::now());
    rejection_log::count_login("right");
    let (token, ticket) = app
        .tokens
        .issue(&login.name, user.generation, Timestamp::now());
    let session = Session {
        token,
        expires_at: ticket.expires,
        role: RoleName::from_role(&user.standing),
    };
    Ok(json(StatusCode::CREATED, &session))
}

/// Log out: end all sessions of the user, on every device.
#[utoipa::path(delete, path = "/v1/sessions", tag = "sessions", security(("token" = [])), responses(
    (status = 204, description = "All sessions of the user have ended."),
))]
pub(super) async fn log_out(
    State(app): State<Arc<AppState>>,
    caller: AuthenticatedUser,
) -> Result<StatusCode, Problem> {
    let revoke = RevokeTokens {
        name: caller.name.clone(),
    };
    app.store.execute(&revoke).await?;
    app.users.forget(&caller.name);
    Ok(StatusCode::NO_CONTENT)
}
