//! Users: operators manage them, and users change their passwords.

use std::{sync::Arc, time::Instant};

use axum::{
    extract::{Query, State, rejection::QueryRejection},
    http::StatusCode,
    response::Response,
};
use doorstep_contracts::RestaurantId;
use doorstep_event::Timestamp;
use serde::{Deserialize, Serialize};
use strum::{EnumString, IntoStaticStr, VariantNames};
use utoipa::{IntoParams, ToSchema};

use super::health::json;
use crate::{
    app::AppState,
    auth::{AuthenticatedUser, Password},
    domain::{AddUser, SetPassword, SetUserStatus, User, UserName, UserRole, UserStatus},
    http::{PathParam, Problem, Unread, bounded_str_opt, is_short},
    user_cache::UserCache,
};

/// The limit of users of a page, and the default.
const MAX_PAGE: usize = 500;
const PAGE: usize = 100;

/// A user to add.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct NewUser {
    /// The name of the user, which is also the id of the customer or courier in events.
    #[schema(value_type = String, pattern = "^[a-z0-9][a-z0-9_-]{0,62}$", example = "ada")]
    name: UserName,
    /// The role of the user.
    role: RoleName,
    /// The restaurant that the user works for: required by the role `restaurant`, and invalid for any other.
    #[serde(default, deserialize_with = "bounded_str_opt")]
    #[schema(value_type = Option<String>, min_length = 1, max_length = 50, pattern = "^[^\\u0000-\\u001f\\u007f]+$", example = "luigi")]
    restaurant: Option<RestaurantId>,
    /// The first password of the user.
    #[schema(value_type = String, format = Password, min_length = 8, max_length = 1024)]
    password: Password,
}

/// The role of a user.
#[derive(
    Debug,
    Clone,
    Copy,
    PartialEq,
    Eq,
    Serialize,
    Deserialize,
    ToSchema,
    EnumString,
    IntoStaticStr,
    VariantNames,
)]
#[serde(rename_all = "snake_case")]
#[strum(serialize_all = "snake_case")]
pub(crate) enum RoleName {
    /// Places orders at any restaurant.
    Customer,
    /// Delivers the orders of customers.
    Courier,
    /// Works for one single restaurant.
    Restaurant,
    /// Runs the shop and manages its users.
    Operator,
}

/// A user who was added.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct AddedUser {
    /// The name of the user.
    #[schema(value_type = String)]
    name: UserName,
    /// The role of the user.
    role: RoleName,
}

/// A user without its secrets.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = User)]
pub(crate) struct UserBody {
    /// The name of the user.
    #[schema(value_type = String, example = "ada")]
    name: UserName,
    /// The role of the user.
    role: RoleName,
    /// The restaurant that the user works for.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    restaurant: Option<RestaurantId>,
    /// The status: a disabled user may not log in.
    status: UserStatus,
    /// The time at which the user was added.
    #[schema(value_type = String, format = DateTime)]
    added_at: Timestamp,
}

/// A page of users, by name.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct UserPage {
    users: Vec<UserBody>,
    /// The next value of `after`, if there may be more.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    next: Option<UserName>,
}

/// The page of users to list.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct Page {
    /// The name after which the page starts, which need not exist: `next` of the page before.
    #[param(value_type = Option<String>)]
    after: Option<UserName>,
    /// The limit of users of the page; 100 by default.
    #[param(minimum = 1, maximum = 500)]
    limit: Option<usize>,
}

/// A change of a user.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct UserChange {
    /// True to disable the user, which ends all the user's sessions; enabling restores none.
    disabled: bool,
}

/// A change of a password.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct PasswordChange {
    /// The new password of the user.
    #[schema(value_type = String, format = Password, min_length = 8, max_length = 1024)]
    password: Password,
    /// The present password; required for a change of one's own, and not for a change by an operator.
    #[schema(value_type = Option<String>, format = Password, min_length = 8, max_length = 1024)]
    old_password: Option<Password>,
}

impl RoleName {
    /// Returns the stored role for this role, at this restaurant if one is named.
    ///
    /// # Errors
    /// A restaurant is missing, is named for another role, or has an invalid name.
    pub(crate) fn at(self, restaurant: Option<RestaurantId>) -> Result<UserRole, &'static str> {
        match (self, restaurant) {
            (Self::Customer, None) => Ok(UserRole::Customer),
            (Self::Courier, None) => Ok(UserRole::Courier),
            (Self::Operator, None) => Ok(UserRole::Operator),
            (Self::Restaurant, Some(restaurant)) => match is_short(restaurant.as_str()) {
                Ok(()) => Ok(UserRole::Restaurant { restaurant }),
                Err(_) => Err("no restaurant has a name of more than 50 characters"),
            },
            (Self::Restaurant, None) => Err("name the restaurant that the user works for"),
            (_, Some(_)) => Err("only a user with the role restaurant works for one"),
        }
    }

    /// Returns the role without its restaurant.
    pub(crate) fn from_role(standing: &UserRole) -> Self {
        match standing {
            UserRole::Customer => Self::Customer,
            UserRole::Courier => Self::Courier,
            UserRole::Restaurant { .. } => Self::Restaurant,
            UserRole::Operator => Self::Operator,
        }
    }

    pub(crate) fn as_str(self) -> &'static str {
        self.into()
    }
}

impl UserBody {
    /// Creates the public view of a user, without its secrets.
    pub(crate) fn new(name: UserName, user: User) -> Self {
        Self {
            name,
            role: RoleName::from_role(&user.standing),
            restaurant: match user.standing {
                UserRole::Restaurant { restaurant } => Some(restaurant),
                UserRole::Customer | UserRole::Courier | UserRole::Operator => None,
            },
            status: user.status,
            added_at: user.added_at,
        }
    }
}

/// Add a user.
///
/// For operators. `gateway user add` adds the first one. The name of a deleted user cannot be used again.
#[utoipa::path(post, path = "/v1/users", tag = "users", security(("token" = [])), request_body = NewUser, responses(
    (status = 201, description = "The user may log in.", body = AddedUser),
    (status = 409, description = "`user_exists`: a user has that name; or `name_retired`: a deleted user had it, whose orders keep the name."),
    (status = 422, description = "The body has an invalid form, or a restaurant is missing for the role `restaurant`, or named for another role."),
))]
pub(super) async fn add_user(
    State(app): State<Arc<AppState>>,
    caller: AuthenticatedUser,
    body: Unread,
) -> Result<Response, Problem> {
    caller.operator()?;
    let user: NewUser = body.json().await?;
    let standing = user.role.at(user.restaurant).map_err(Problem::invalid)?;
    let add = AddUser {
        name: user.name.clone(),
        standing,
        hash: app.passwords.hash(user.password).await?,
    };
    app.store.execute(&add).await?;
    app.users.forget(&user.name);
    let added = AddedUser {
        name: user.name,
        role: user.role,
    };
    Ok(json(StatusCode::CREATED, &added))
}

/// List users by name, page by page.
///
/// For operators. The list includes deleted users.
#[utoipa::path(get, operation_id = "list_users", path = "/v1/users", tag = "users", security(("token" = [])), params(Page), responses(
    (status = 200, description = "A page of users, and the start of the next one.", body = UserPage),
    (status = 400, description = "A parameter has an invalid form."),
))]
pub(super) async fn list(
    State(app): State<Arc<AppState>>,
    caller: AuthenticatedUser,
    page: Result<Query<Page>, QueryRejection>,
) -> Result<Response, Problem> {
    caller.operator()?;
    let Query(page) = page.map_err(|e| Problem::malformed(e.body_text()))?;
    let limit = page.limit.unwrap_or(PAGE);
    if !(1..=MAX_PAGE).contains(&limit) {
        return Err(Problem::malformed(format!(
            "limit is 1 to {MAX_PAGE}, and not {limit}"
        )));
    }
    let users = app.store.users(page.after.as_ref(), limit).await?;
    let next = users.last().filter(|_| users.len() == limit);
    let page = UserPage {
        next: next.map(|(name, _)| name.clone()),
        users: users
            .into_iter()
            .map(|(name, user)| UserBody::new(name, user))
            .collect(),
    };
    Ok(json(StatusCode::OK, &page))
}

/// Get a user.
///
/// For the user and for operators.
#[utoipa::path(get, operation_id = "show_user", path = "/v1/users/{name}", tag = "users", security(("token" = [])),
    params(("name" = String, Path, description = "The user's name.")),
    responses(
    (status = 200, description = "The user.", body = UserBody),
    (status = 404, description = "The user does not exist, or is another one."),
))]
pub(super) async fn show(
    State(app): State<Arc<AppState>>,
    caller: AuthenticatedUser,
    PathParam(name): PathParam<UserName>,
) -> Result<Response, Problem> {
    may_see(&caller, &name)?;
    shown(&app, name).await
}

/// Disable or enable a user.
///
/// For operators. Disabling ends all sessions of the user, who cannot log in again; orders and deliveries go on. A
/// repeated change has no effect.
#[utoipa::path(patch, operation_id = "change_user", path = "/v1/users/{name}", tag = "users", security(("token" = [])), request_body = UserChange,
    params(("name" = String, Path, description = "The user's name.")),
    responses(
    (status = 200, description = "The user as it is now.", body = UserBody),
    (status = 404, description = "The user does not exist, or is another one."),
    (status = 409, description = "`last_operator`: no other operator could log in; or `user_deleted`."),
))]
pub(super) async fn change(
    State(app): State<Arc<AppState>>,
    caller: AuthenticatedUser,
    PathParam(name): PathParam<UserName>,
    body: Unread,
) -> Result<Response, Problem> {
    may_see(&caller, &name)?;
    caller.operator()?;
    let change: UserChange = body.json().await?;
    let status = match change.disabled {
        true => UserStatus::Disabled,
        false => UserStatus::Active,
    };
    set_status(&app, &caller, &name, status).await?;
    shown(&app, name).await
}

/// Delete a user for good.
///
/// For operators. The password is erased and all sessions end. Orders and deliveries go on and keep the name, so it
/// cannot be used again. A repeated deletion has no effect.
#[utoipa::path(delete, operation_id = "delete_user", path = "/v1/users/{name}", tag = "users", security(("token" = [])),
    params(("name" = String, Path, description = "The user's name.")),
    responses(
    (status = 204, description = "The user is deleted."),
    (status = 404, description = "The user does not exist, or is another one."),
    (status = 409, description = "`last_operator`: no other operator could log in."),
))]
pub(super) async fn delete(
    State(app): State<Arc<AppState>>,
    caller: AuthenticatedUser,
    PathParam(name): PathParam<UserName>,
) -> Result<StatusCode, Problem> {
    may_see(&caller, &name)?;
    caller.operator()?;
    set_status(&app, &caller, &name, UserStatus::Deleted).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Set a new password.
///
/// Users change their own with the present one, and operators that of any user. All sessions of the user end.
#[utoipa::path(put, operation_id = "set_password", path = "/v1/users/{name}/password", tag = "users", security(("token" = [])), request_body = PasswordChange,
    params(("name" = String, Path, description = "The user's name.")),
    responses(
    (status = 204, description = "The password is changed, and all sessions of the user have ended."),
    (status = 403, description = "`wrong_password`: the old password is wrong."),
    (status = 404, description = "The user does not exist, or is another one."),
    (status = 409, description = "`password_changed`: another request has changed it at the same moment; or `user_deleted`."),
    (status = 422, description = "The body has an invalid form; or `old_password_missing`: users need it to change their own."),
    (status = 429, description = "The user sends too many requests, has too many in flight, or has given wrong old passwords too often."),
))]
pub(super) async fn set_password(
    State(app): State<Arc<AppState>>,
    caller: AuthenticatedUser,
    PathParam(name): PathParam<UserName>,
    body: Unread,
) -> Result<StatusCode, Problem> {
    may_see(&caller, &name)?;
    let change: PasswordChange = body.json().await?;
    let replaces = match caller.name == name {
        true => Some(verified_hash(&app, &name, change.old_password).await?),
        false => None,
    };
    let set = SetPassword {
        name: name.clone(),
        hash: app.passwords.hash(change.password).await?,
        replaces,
    };
    let done = app.store.execute(&set).await;
    app.users.forget(&name);
    done.map(|_| StatusCode::NO_CONTENT).map_err(Problem::from)
}

/// Verifies the present password, and returns its hash.
async fn verified_hash(
    app: &AppState,
    name: &UserName,
    old: Option<Password>,
) -> Result<String, Problem> {
    let old = old.ok_or_else(|| {
        Problem::new(
            StatusCode::UNPROCESSABLE_ENTITY,
            "old_password_missing",
            "a new password of one's own needs the old one, as old_password",
        )
    })?;
    app.old_passwords
        .acquire(name.clone(), Instant::now())
        .map_err(|after| Problem::too_many("too many wrong old passwords", after))?;
    let user = UserCache::as_kept(&app.store, name).await?;
    let hash = user.map(|user| user.hash);
    let verified = app.passwords.verify(old, hash.clone(), true).await;
    if !matches!(verified, Ok(false)) {
        app.old_passwords.give_back(name, Instant::now());
    }
    match (verified?, hash) {
        (true, Some(hash)) => Ok(hash),
        _ => Err(Problem::new(
            StatusCode::FORBIDDEN,
            "wrong_password",
            "the old password is wrong",
        )),
    }
}

/// Checks that the caller may see this user. Any other caller does not learn whether the user exists.
pub(super) fn may_see(caller: &AuthenticatedUser, name: &UserName) -> Result<(), Problem> {
    match caller.standing {
        UserRole::Operator => Ok(()),
        _ if caller.name == *name => Ok(()),
        _ => Err(Problem::not_found("user")),
    }
}

async fn set_status(
    app: &AppState,
    caller: &AuthenticatedUser,
    name: &UserName,
    status: UserStatus,
) -> Result<(), Problem> {
    let other_operator = match caller.name == *name {
        true => app.store.other_operator(name).await?,
        false => Some(caller.name.clone()),
    };
    let set = SetUserStatus {
        name: name.clone(),
        status,
        other_operator,
    };
    let done = app.store.execute(&set).await;
    // After an error the role may have executed it all the same.
    app.users.forget(name);
    done.map(drop).map_err(Problem::from)
}

async fn shown(app: &AppState, name: UserName) -> Result<Response, Problem> {
    let user = UserCache::as_kept(&app.store, &name).await?;
    let user = user.ok_or_else(|| Problem::not_found("user"))?;
    Ok(json(StatusCode::OK, &UserBody::new(name, user)))
}
