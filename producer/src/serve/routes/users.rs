//! Users, as operators add them.

use std::sync::Arc;

use axum::{extract::State, http::StatusCode, response::Response};
use doorstep_contracts::RestaurantId;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::health::json;
use crate::serve::{
    app::App,
    auth::{Caller, Password},
    http::{Json, Problem, is_short, short_if_any},
    role::{AddUser, Standing, UserName},
};

/// A user to add.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct NewUser {
    /// The user's name: also the customer's or courier's own in events.
    #[schema(value_type = String, pattern = "^[a-z0-9][a-z0-9_-]{0,62}$", example = "ada")]
    name: UserName,
    /// What the user is.
    role: RoleName,
    /// Which restaurant the user works for; for the role `restaurant`, which has to have one, and for no other.
    #[serde(default, deserialize_with = "short_if_any")]
    #[schema(value_type = Option<String>, min_length = 1, max_length = 50, pattern = "^[^\\u0000-\\u001f\\u007f]+$", example = "luigi")]
    restaurant: Option<RestaurantId>,
    /// The first password.
    #[schema(value_type = String, format = Password, min_length = 8, max_length = 1024)]
    password: Password,
}

/// What a user is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum RoleName {
    /// Orders.
    Customer,
    /// Delivers.
    Courier,
    /// Works for a restaurant.
    Restaurant,
    /// Runs the shop.
    Operator,
}

/// A user who was added.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct AddedUser {
    /// The user's name.
    #[schema(value_type = String)]
    name: UserName,
    /// What the user is.
    role: RoleName,
}

impl RoleName {
    /// The standing of a user with this role, at this restaurant if at any.
    ///
    /// # Errors
    /// A restaurant is missing, or named where none belongs, or by a name that none can have.
    pub(crate) fn at(self, restaurant: Option<RestaurantId>) -> Result<Standing, &'static str> {
        match (self, restaurant) {
            (Self::Customer, None) => Ok(Standing::Customer),
            (Self::Courier, None) => Ok(Standing::Courier),
            (Self::Operator, None) => Ok(Standing::Operator),
            (Self::Restaurant, Some(restaurant)) => match is_short(restaurant.as_str()) {
                Ok(()) => Ok(Standing::Restaurant { restaurant }),
                Err(_) => Err("no restaurant has a name of more than 50 characters"),
            },
            (Self::Restaurant, None) => Err("name the restaurant that the user works for"),
            (_, Some(_)) => Err("only a user with the role restaurant works for one"),
        }
    }
}

/// Add a user; for operators. The first one is added by `producer user add`.
#[utoipa::path(post, path = "/v1/users", tag = "users", security(("token" = [])), request_body = NewUser, responses(
    (status = 201, description = "The user may log in.", body = AddedUser),
    (status = 409, description = "There is a user of that name."),
    (status = 422, description = "The body is not of the form asked for, or a restaurant is missing for the role `restaurant`, or named for another one."),
))]
pub(super) async fn add_user(
    State(app): State<Arc<App>>,
    caller: Caller,
    Json(user): Json<NewUser>,
) -> Result<Response, Problem> {
    caller.operator()?;
    let standing = user.role.at(user.restaurant).map_err(Problem::invalid)?;
    let add = AddUser {
        name: user.name.clone(),
        standing,
        hash: app.passwords.hash(user.password).await?,
    };
    app.books.obey(&add).await?;
    app.users.forget(&user.name);
    let added = AddedUser {
        name: user.name,
        role: user.role,
    };
    Ok(json(StatusCode::CREATED, &added))
}
