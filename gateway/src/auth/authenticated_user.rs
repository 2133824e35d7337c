//! The caller of a request: the user that its token names, with that user's present role and status.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use axum::{
    extract::FromRequestParts,
    http::{header, request::Parts},
};
use doorstep_contracts::{CourierId, CustomerId, RestaurantId};
use doorstep_event::Timestamp;

use crate::{
    app::AppState,
    domain::{User, UserName, UserRole},
    http::{Problem, rejection_log::AskedAs},
    limits::KeyedPermit,
};

/// The `Retry-After` of a user whose requests in flight are at the limit.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// A user with a valid session who is within the rate limit and the limit of requests in flight. The request counts
/// until this value is dropped.
///
/// In a handler's arguments it comes before the body, so the gateway reads no body of a user who is at a limit. A
/// handler reads the body once it has checked the caller's role.
#[derive(Debug)]
pub(crate) struct AuthenticatedUser {
    pub(crate) name: UserName,
    pub(crate) standing: UserRole,
    /// The generation of the user's tokens that this token belongs to.
    generation: u64,
    /// The time at which the token expires.
    pub(crate) expires: Timestamp,
    /// The permit of the user's requests in flight.
    _share: Option<KeyedPermit<UserName>>,
}

impl AuthenticatedUser {
    /// Returns the caller without a permit, for work that has a limit of its own.
    pub(crate) fn without_permit(self) -> Self {
        Self {
            _share: None,
            ..self
        }
    }

    /// Returns the caller as a customer.
    ///
    /// # Errors
    /// The caller has another role.
    pub(crate) fn customer(&self) -> Result<CustomerId, Problem> {
        match self.standing {
            UserRole::Customer => Ok(self.name.customer()),
            _ => Err(Problem::forbidden("only customers may do this")),
        }
    }

    /// Returns the caller as a courier.
    ///
    /// # Errors
    /// The caller has another role.
    pub(crate) fn courier(&self) -> Result<CourierId, Problem> {
        match self.standing {
            UserRole::Courier => Ok(self.name.courier()),
            _ => Err(Problem::forbidden("only couriers may do this")),
        }
    }

    /// Checks that the caller is an operator.
    ///
    /// # Errors
    /// The caller has another role.
    pub(crate) fn operator(&self) -> Result<(), Problem> {
        match self.standing {
            UserRole::Operator => Ok(()),
            _ => Err(Problem::forbidden("only operators may do this")),
        }
    }

    /// Returns true if the session is still valid, for work that outlives its request.
    ///
    /// # Errors
    /// The store cannot be read.
    pub(crate) async fn is_logged_in(&self, app: &AppState) -> Result<bool, Problem> {
        let user = app.users.get(&app.store, &self.name).await?;
        let is_of_now = user.is_some_and(|user| is_good(&user, self.generation));
        Ok(is_of_now && Timestamp::now() < self.expires)
    }

    /// Returns true if the caller works for this restaurant.
    pub(crate) fn manages(&self, its: &RestaurantId) -> bool {
        match &self.standing {
            UserRole::Operator => true,
            UserRole::Restaurant { restaurant } => restaurant == its,
            UserRole::Customer | UserRole::Courier => false,
        }
    }
}

impl FromRequestParts<Arc<AppState>> for AuthenticatedUser {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &Arc<AppState>) -> Result<Self, Problem> {
        let token = bearer(parts).ok_or_else(|| {
            Problem::unauthorized("log in first, and send the token as Authorization: Bearer TOKEN")
        })?;
        let gone = || Problem::unauthorized("the token is no longer valid, log in again");
        let ticket = app
            .tokens
            .verify(token, Timestamp::now())
            .ok_or_else(gone)?;
        let user = app.users.get(&app.store, &ticket.name).await?;
        let user = user.filter(|user| is_good(user, ticket.generation));
        let user = user.ok_or_else(gone)?;
        if let Some(asked_as) = parts.extensions.get::<AskedAs>() {
            asked_as.set(&ticket.name);
        }
        app.user_rate
            .acquire(ticket.name.clone(), Instant::now())
            .map_err(|after| Problem::too_many("you send too many requests", after))?;
        let share = app.user_permits.take(ticket.name.clone()).ok_or_else(|| {
            Problem::too_many("you have too many requests under way", RETRY_AFTER)
        })?;
        Ok(Self {
            name: ticket.name,
            standing: user.standing,
            generation: ticket.generation,
            expires: ticket.expires,
            _share: Some(share),
        })
    }
}

/// Returns true if tokens of this generation are valid.
fn is_good(user: &User, generation: u64) -> bool {
    user.generation == generation && user.status.is_active()
}

fn bearer(parts: &Parts) -> Option<&str> {
    let value = parts.headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, token) = value.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}
