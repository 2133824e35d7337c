//! The caller of a request: whoever its token belongs to, as that user is now.

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
    http::{Problem, refusal_log::AskedAs},
    limits::KeyedPermit,
};

/// When to come again where a user has that many.
const COME_AGAIN: Duration = Duration::from_secs(1);

/// A user who is logged in, asks no more often than users may, and has no more under way: the request counts as long as this is kept. Comes
/// before the body in a handler's arguments, so that nobody waits for the body of a user who has too much under way; a handler reads the body
/// once it knows that the caller may do what is asked.
#[derive(Debug)]
pub(crate) struct AuthenticatedUser {
    /// Who.
    pub(crate) name: UserName,
    /// As what.
    pub(crate) standing: UserRole,
    /// Of which generation of the user's tokens this one is.
    generation: u64,
    /// Until when the token is good.
    pub(crate) expires: Timestamp,
    /// Of what the user may have under way.
    _share: Option<KeyedPermit<UserName>>,
}

impl AuthenticatedUser {
    /// The caller as one who goes on without counting as a request: for what has a bound of its own.
    pub(crate) fn without_permit(self) -> Self {
        Self {
            _share: None,
            ..self
        }
    }

    /// The caller as a customer.
    ///
    /// # Errors
    /// The caller is none.
    pub(crate) fn customer(&self) -> Result<CustomerId, Problem> {
        match self.standing {
            UserRole::Customer => Ok(self.name.customer()),
            _ => Err(Problem::forbidden("only customers may do this")),
        }
    }

    /// The caller as a courier.
    ///
    /// # Errors
    /// The caller is none.
    pub(crate) fn courier(&self) -> Result<CourierId, Problem> {
        match self.standing {
            UserRole::Courier => Ok(self.name.courier()),
            _ => Err(Problem::forbidden("only couriers may do this")),
        }
    }

    /// The caller as an operator.
    ///
    /// # Errors
    /// The caller is none.
    pub(crate) fn operator(&self) -> Result<(), Problem> {
        match self.standing {
            UserRole::Operator => Ok(()),
            _ => Err(Problem::forbidden("only operators may do this")),
        }
    }

    /// Whether the token is still good, for what goes on after its request was let through.
    ///
    /// # Errors
    /// The store cannot be read.
    pub(crate) async fn is_logged_in(&self, app: &AppState) -> Result<bool, Problem> {
        let user = app.users.get(&app.books, &self.name).await?;
        let is_of_now = user.is_some_and(|user| is_good(&user, self.generation));
        Ok(is_of_now && Timestamp::now() < self.expires)
    }

    /// Whether the caller looks after this restaurant.
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
        let gone = || Problem::unauthorized("the token is not good any more, log in again");
        let ticket = app
            .tokens
            .verify(token, Timestamp::now())
            .ok_or_else(gone)?;
        let user = app.users.get(&app.books, &ticket.name).await?;
        let user = user.filter(|user| is_good(user, ticket.generation));
        let user = user.ok_or_else(gone)?;
        if let Some(asked_as) = parts.extensions.get::<AskedAs>() {
            asked_as.set(&ticket.name);
        }
        app.user_rate
            .acquire(ticket.name.clone(), Instant::now())
            .map_err(|after| Problem::too_many("you ask too often", after))?;
        let share = app.user_places.take(ticket.name.clone()).ok_or_else(|| {
            Problem::too_many(
                "you have as many requests under way as a user may have",
                COME_AGAIN,
            )
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

/// Returns whether tokens of this generation are good.
fn is_good(user: &User, generation: u64) -> bool {
    user.generation == generation && user.status.is_active()
}

fn bearer(parts: &Parts) -> Option<&str> {
    let value = parts.headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, token) = value.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}
