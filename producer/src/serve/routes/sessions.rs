//! Logging in and out.

use std::{sync::Arc, time::Instant};

use axum::{extract::State, http::StatusCode, response::Response};
use doorstep_event::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::health::json;
use crate::serve::{
    app::App,
    auth::{Caller, Password, Stranger},
    http::{Json, Problem},
    role::{RevokeTokens, Standing, UserName},
};

/// Who wants to log in.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Login {
    /// The user's name.
    #[schema(value_type = String, pattern = "^[a-z0-9][a-z0-9_-]{0,62}$", example = "ada")]
    name: UserName,
    /// The user's password.
    #[schema(value_type = String, format = Password, min_length = 8, max_length = 1024)]
    password: Password,
}

/// A session.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Session {
    /// To be sent with every request, as `Authorization: Bearer TOKEN`.
    token: String,
    /// Until when it is good.
    #[schema(value_type = String, format = DateTime)]
    expires_at: Timestamp,
    /// What the user is: customer, courier, restaurant or operator.
    #[schema(value_type = String, example = "customer")]
    role: &'static str,
}

/// Log in: a name and its password for a token.
#[utoipa::path(post, path = "/v1/sessions", tag = "sessions", request_body = Login, responses(
    (status = 201, description = "The token.", body = Session),
    (status = 401, description = "Name or password is wrong; nobody learns which."),
    (status = 429, description = "Too many tries from this address, or too many wrong passwords for this name, from there or from everywhere, whether there is such a user or not."),
))]
pub(super) async fn log_in(
    State(app): State<Arc<App>>,
    stranger: Stranger,
    Json(login): Json<Login>,
) -> Result<Response, Problem> {
    // The body is there: what follows has bounds of its own.
    let network = stranger.leave();
    let user = app.users.current(&app.books, &login.name).await?;
    let hash = user.as_ref().map(|user| user.hash.clone());
    app.strangers
        .try_name(&login.name, network, Instant::now())?;
    let verified = app.passwords.verify(login.password, hash).await;
    if !matches!(verified, Ok(false)) {
        app.strangers
            .was_not_wrong(&login.name, network, Instant::now());
    }
    let is_right = verified?;
    let user = user.filter(|_| is_right);
    let user = user.ok_or_else(|| Problem::unauthorized("name or password is wrong"))?;
    let (token, ticket) = app
        .tokens
        .give(&login.name, user.generation, Timestamp::now());
    let session = Session {
        token,
        expires_at: ticket.expires,
        role: role_word(&user.standing),
    };
    Ok(json(StatusCode::CREATED, &session))
}

/// Log out: ends all sessions of the user, wherever they are.
#[utoipa::path(delete, path = "/v1/sessions", tag = "sessions", security(("token" = [])), responses(
    (status = 204, description = "No token of the user is good any more."),
))]
pub(super) async fn log_out(
    State(app): State<Arc<App>>,
    caller: Caller,
) -> Result<StatusCode, Problem> {
    let revoke = RevokeTokens {
        name: caller.name.clone(),
    };
    app.books.obey(&revoke).await?;
    app.users.forget(&caller.name);
    Ok(StatusCode::NO_CONTENT)
}

fn role_word(standing: &Standing) -> &'static str {
    match standing {
        Standing::Customer => "customer",
        Standing::Courier => "courier",
        Standing::Restaurant { .. } => "restaurant",
        Standing::Operator => "operator",
    }
}
