//! Mails to users: their addresses, and which mails they get.

use std::sync::Arc;

use axum::{extract::State, http::StatusCode, response::Response};
use doorstep_contracts::{
    EmailAddress, Label, NotificationsChosen,
    requests::{MailStatus, MailView, ReadMails},
};
use doorstep_event::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

use super::{confirm_email::confirmation_link, health::json, users::may_see};
use crate::{
    app::AppState,
    auth::AuthenticatedUser,
    domain::{ChooseNotifications, RemoveEmail, SetEmail, UserEmail, UserName},
    http::{PathParam, Problem, Unread},
    user_cache::UserCache,
};

/// A mail address to set.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct NewEmail {
    /// The address, in the form name@example.com.
    #[schema(format = Email, max_length = 254, example = "ada@example.com")]
    address: String,
}

/// The choice of mails.
#[derive(Debug, Clone, Copy, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Choices {
    /// Mails about confirmed orders.
    confirmations: bool,
    /// Mails about refused, abandoned and cancelled orders.
    refusals: bool,
    /// Mails about delivered orders.
    deliveries: bool,
    /// Mails about requested reports.
    reports: bool,
}

/// A user's mail address, choice of mails, and latest mails.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Notifications {
    /// The confirmed address, to which mails go. Operators see it masked.
    #[serde(skip_serializing_if = "Option::is_none")]
    address: Option<String>,
    /// The address that was set and not confirmed. Operators see it masked.
    #[serde(skip_serializing_if = "Option::is_none")]
    unconfirmed_address: Option<String>,
    choices: Choices,
    /// The latest mails, oldest first; at most 50.
    mails: Vec<Mail>,
}

/// A mail, or the reason why there was none.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Mail {
    /// The fact that caused it.
    #[schema(example = "order/20261124-8F3K2/confirmed")]
    cause: String,
    /// The status: `queued`, `sent`, `skipped`, `unknown`, `failed` or `cancelled`.
    #[schema(value_type = String, example = "skipped")]
    status: MailStatus,
    /// The reason why it was not sent.
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    /// The time of the latest change of its status.
    #[schema(value_type = String, format = DateTime)]
    at: Timestamp,
}

impl From<Choices> for NotificationsChosen {
    fn from(choices: Choices) -> Self {
        let Choices {
            confirmations,
            refusals,
            deliveries,
            reports,
        } = choices;
        Self {
            confirmations,
            refusals,
            deliveries,
            reports,
        }
    }
}

impl From<NotificationsChosen> for Choices {
    fn from(choices: NotificationsChosen) -> Self {
        Self {
            confirmations: choices.confirmations,
            refusals: choices.refusals,
            deliveries: choices.deliveries,
            reports: choices.reports,
        }
    }
}

impl From<MailView> for Mail {
    fn from(mail: MailView) -> Self {
        Self {
            cause: mail.cause,
            // The reply to a sent mail is for operators, who find it in the role's store.
            reason: mail.reason.filter(|_| mail.status != MailStatus::Sent),
            status: mail.status,
            at: mail.at,
        }
    }
}

/// Set the mail address.
///
/// For the user. A mail with a link goes to the address, which counts once the link is opened and the address
/// confirmed, within 24 hours. An earlier confirmed address stays until then.
#[utoipa::path(put, operation_id = "set_email", path = "/v1/users/{name}/email", tag = "users", security(("token" = [])), request_body = NewEmail,
    params(("name" = String, Path, description = "The user's name.")),
    responses(
    (status = 202, description = "A mail with a link is sent to the address."),
    (status = 422, description = "The body has an invalid form; or `invalid_address`: it is not an address that mails are sent to."),
    (status = 429, description = "The user sends too many requests, or has too many in flight; or `too_many_confirmations`: 5 addresses of a user or 3 links to an address in 24 hours."),
))]
pub(super) async fn set_email(
    State(app): State<Arc<AppState>>,
    caller: AuthenticatedUser,
    PathParam(name): PathParam<UserName>,
    body: Unread,
) -> Result<StatusCode, Problem> {
    only_the_user(&caller, &name)?;
    let new: NewEmail = body.json().await?;
    let address = EmailAddress::new(&new.address).map_err(|error| {
        Problem::new(
            StatusCode::UNPROCESSABLE_ENTITY,
            "invalid_address",
            error.to_string(),
        )
    })?;
    let nonce = Uuid::new_v4().simple().to_string();
    let nonce = Label::new(&nonce).map_err(|_| Problem::internal())?;
    let set = SetEmail {
        link: confirmation_link(&app.links, &name, &nonce)?,
        name: name.clone(),
        address,
        nonce,
    };
    let done = app.store.execute(&set).await;
    app.users.forget(&name);
    done.map(|_| StatusCode::ACCEPTED).map_err(Problem::from)
}

/// Remove the mail address.
///
/// For the user. No mails are sent from then on. A repeated removal has no effect.
#[utoipa::path(delete, operation_id = "remove_email", path = "/v1/users/{name}/email", tag = "users", security(("token" = [])),
    params(("name" = String, Path, description = "The user's name.")),
    responses(
    (status = 204, description = "The user has no address."),
))]
pub(super) async fn remove_email(
    State(app): State<Arc<AppState>>,
    caller: AuthenticatedUser,
    PathParam(name): PathParam<UserName>,
) -> Result<StatusCode, Problem> {
    only_the_user(&caller, &name)?;
    let done = app.store.execute(&RemoveEmail { name: name.clone() }).await;
    app.users.forget(&name);
    done.map(|_| StatusCode::NO_CONTENT).map_err(Problem::from)
}

/// Choose the mails.
///
/// For the user. Until then the user gets all of them, once there is a confirmed address.
#[utoipa::path(put, operation_id = "choose_notifications", path = "/v1/users/{name}/notifications", tag = "users", security(("token" = [])), request_body = Choices,
    params(("name" = String, Path, description = "The user's name.")),
    responses(
    (status = 204, description = "The choice is stored."),
))]
pub(super) async fn choose(
    State(app): State<Arc<AppState>>,
    caller: AuthenticatedUser,
    PathParam(name): PathParam<UserName>,
    body: Unread,
) -> Result<StatusCode, Problem> {
    only_the_user(&caller, &name)?;
    let choices: Choices = body.json().await?;
    let choose = ChooseNotifications {
        name: name.clone(),
        choices: choices.into(),
    };
    let done = app.store.execute(&choose).await;
    app.users.forget(&name);
    done.map(|_| StatusCode::NO_CONTENT).map_err(Problem::from)
}

/// Get the mail address, the choice of mails, and the latest mails.
///
/// For the user and for operators, who see the address masked. A mail that was not sent has a reason.
#[utoipa::path(get, operation_id = "show_notifications", path = "/v1/users/{name}/notifications", tag = "users", security(("token" = [])),
    params(("name" = String, Path, description = "The user's name.")),
    responses(
    (status = 200, description = "The user's mails.", body = Notifications),
    (status = 404, description = "The user does not exist, or is another one."),
))]
pub(super) async fn show(
    State(app): State<Arc<AppState>>,
    caller: AuthenticatedUser,
    PathParam(name): PathParam<UserName>,
) -> Result<Response, Problem> {
    may_see(&caller, &name)?;
    let user = UserCache::as_kept(&app.store, &name).await?;
    let email = user.ok_or_else(|| Problem::not_found("user"))?.email;
    let customer = name.customer();
    let mails = app.backends.query(&ReadMails { customer }).await?.mails;
    let shown = Notifications::new(email, mails, caller.name == name);
    Ok(json(StatusCode::OK, &shown))
}

impl Notifications {
    fn new(email: UserEmail, mails: Vec<MailView>, is_own: bool) -> Self {
        let shown = |address: EmailAddress| match is_own {
            true => address.expose().to_owned(),
            false => address.to_string(),
        };
        Self {
            address: email.confirmed.map(|it| shown(it.address)),
            unconfirmed_address: email.pending.map(|it| shown(it.address)),
            choices: email.choices.unwrap_or_default().into(),
            mails: mails.into_iter().map(Mail::from).collect(),
        }
    }
}

/// Checks that the caller is this user. Operators do not set addresses of others, who would get their mails.
fn only_the_user(caller: &AuthenticatedUser, name: &UserName) -> Result<(), Problem> {
    may_see(caller, name)?;
    match caller.name == *name {
        true => Ok(()),
        false => Err(Problem::forbidden("only the user may do this")),
    }
}
