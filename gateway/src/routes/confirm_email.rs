//! The mailed link that confirms an address: a page with a button, since programs that scan mails open their links.

use std::{str::FromStr, sync::Arc, time::Duration};

use askama::Template;
use axum::{
    extract::State,
    http::{HeaderName, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use doorstep_contracts::{EmailAddress, Label, LinkPath, SignedLink};
use doorstep_event::Timestamp;

use crate::{
    app::AppState,
    auth::{LinkError, LinkPurpose, Links},
    domain::{ConfirmEmail, UserName},
    http::{PathParam, Problem},
    limits::LoginAttempt,
    user_cache::UserCache,
};

/// The time for which a link confirms an address.
const LIFETIME: Duration = Duration::from_hours(24);

/// Headers of the page. It loads nothing, and its own address, which is a secret, is passed to nobody.
const HEADERS: [(HeaderName, HeaderValue); 3] = [
    (
        header::CONTENT_TYPE,
        HeaderValue::from_static("text/html; charset=utf-8"),
    ),
    (
        header::CONTENT_SECURITY_POLICY,
        HeaderValue::from_static(
            "default-src 'none'; style-src 'unsafe-inline'; form-action 'self'; frame-ancestors 'none'",
        ),
    ),
    (
        header::REFERRER_POLICY,
        HeaderValue::from_static("no-referrer"),
    ),
];

/// The last segment of a link: `NAME.NONCE.EXPIRES.SIGNATURE`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ConfirmationToken {
    name: UserName,
    nonce: Label,
    expires: String,
    signature: String,
}

#[derive(Template)]
#[template(path = "confirm_email.html")]
struct Page<'a> {
    name: &'a str,
    /// The masked address.
    address: String,
    is_confirmed: bool,
}

impl FromStr for ConfirmationToken {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let mut parts = text.split('.');
        let mut next = || parts.next().ok_or(());
        let token = Self {
            name: next()?.parse().map_err(drop)?,
            nonce: Label::new(next()?).map_err(drop)?,
            expires: next()?.to_owned(),
            signature: next()?.to_owned(),
        };
        parts.next().is_none().then_some(token).ok_or(())
    }
}

impl ConfirmationToken {
    fn verify(&self, links: &Links) -> Result<(), Problem> {
        let subject = signed_subject(&self.name, &self.nonce);
        let now = Timestamp::now();
        let purpose = LinkPurpose::EmailConfirmation;
        let verified = links.verify(purpose, &subject, &self.expires, &self.signature, now);
        verified.map_err(|error| match error {
            LinkError::Invalid => Problem::not_found("link"),
            LinkError::Expired => Problem::new(StatusCode::GONE, "link_expired", error.to_string()),
        })
    }
}

/// Returns a new link that confirms the address that the user sets under this nonce.
pub(super) fn confirmation_link(
    links: &Links,
    name: &UserName,
    nonce: &Label,
) -> Result<SignedLink, Problem> {
    let subject = signed_subject(name, nonce);
    let purpose = LinkPurpose::EmailConfirmation;
    let signed = links.sign(purpose, &subject, LIFETIME, Timestamp::now());
    let expires = signed.expires_at.as_second();
    let path = format!("/confirm-email/{subject}.{expires}.{}", signed.signature);
    Ok(SignedLink {
        path: LinkPath::new(&path).map_err(|_| Problem::internal())?,
        expires_at: signed.expires_at,
    })
}

/// Returns the text that is signed. Neither part contains a point.
fn signed_subject(name: &UserName, nonce: &Label) -> String {
    format!("{name}.{nonce}")
}

/// Open a link that confirms a mail address: a page with a button.
///
/// For anyone with the link. It changes nothing.
#[utoipa::path(get, operation_id = "open_confirmation", path = "/confirm-email/{token}", tag = "users",
    params(("token" = String, Path, description = "The last part of the mailed link.")),
    responses(
    (status = 200, description = "The page.", content_type = "text/html", body = String),
    (status = 410, description = "`link_expired`: it is older than 24 hours; or `link_outdated`: the address was set anew or removed since."),
    (status = 429, description = "Too many requests without a session from this address."),
))]
pub(super) async fn open(
    State(app): State<Arc<AppState>>,
    stranger: LoginAttempt,
    PathParam(token): PathParam<ConfirmationToken>,
) -> Result<Response, Problem> {
    token.verify(&app.links)?;
    stranger.release();
    page(&app, &token).await
}

/// Confirm a mail address.
///
/// For anyone with the link: the button of its page. A repeated confirmation has no effect.
#[utoipa::path(post, operation_id = "confirm_email", path = "/confirm-email/{token}", tag = "users",
    params(("token" = String, Path, description = "The last part of the mailed link.")),
    responses(
    (status = 200, description = "The address is confirmed; a page says so.", content_type = "text/html", body = String),
    (status = 410, description = "`link_expired`: it is older than 24 hours; or `link_outdated`: the address was set anew or removed since."),
    (status = 429, description = "Too many requests without a session from this address."),
))]
pub(super) async fn confirm(
    State(app): State<Arc<AppState>>,
    stranger: LoginAttempt,
    PathParam(token): PathParam<ConfirmationToken>,
) -> Result<Response, Problem> {
    token.verify(&app.links)?;
    stranger.release();
    let confirm = ConfirmEmail {
        name: token.name.clone(),
        nonce: token.nonce.clone(),
    };
    let confirmed = app.store.execute(&confirm).await;
    app.users.forget(&token.name);
    confirmed?;
    page(&app, &token).await
}

/// Returns the page for the present state of the address.
async fn page(app: &AppState, token: &ConfirmationToken) -> Result<Response, Problem> {
    let user = UserCache::as_kept(&app.store, &token.name).await?;
    let email = user.map(|user| user.email).unwrap_or_default();
    let confirmed = email.confirmed.filter(|it| it.nonce == token.nonce);
    let pending = email.pending.filter(|it| it.nonce == token.nonce);
    let (address, is_confirmed): (EmailAddress, bool) = match (confirmed, pending) {
        (Some(confirmed), _) => (confirmed.address, true),
        (None, Some(pending)) => (pending.address, false),
        (None, None) => {
            return Err(Problem::new(
                StatusCode::GONE,
                "link_outdated",
                "this link is for an address that was set anew or removed since: use the latest link",
            ));
        }
    };
    let page = Page {
        name: token.name.as_str(),
        address: address.to_string(),
        is_confirmed,
    };
    let page = page.render().map_err(|_| Problem::internal())?;
    Ok((HEADERS, page).into_response())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::SigningKey;

    #[test]
    fn mailed_link_is_verified() {
        let links = Links::new(SigningKey::random());
        let (name, nonce) = ("a-d_a".parse().unwrap(), Label::new("5b1f").unwrap());
        let link = confirmation_link(&links, &name, &nonce).unwrap();
        let token = link.path.as_str().strip_prefix("/confirm-email/").unwrap();
        let parsed: ConfirmationToken = token.parse().unwrap();
        assert_eq!((&parsed.name, &parsed.nonce), (&name, &nonce));
        assert!(parsed.verify(&links).is_ok());
        for (part, other) in [("a-d_a", "bob"), ("5b1f", "5b1e")] {
            let changed = token.replacen(part, other, 1);
            let changed: ConfirmationToken = changed.parse().unwrap();
            let problem = changed.verify(&links).unwrap_err();
            assert_eq!(problem.status(), StatusCode::NOT_FOUND);
        }
        for bad in ["", "a", "a.b.c", "A.b.1.2", &format!("{token}.x")] {
            assert!(bad.parse::<ConfirmationToken>().is_err(), "{bad}");
        }
    }

    #[test]
    fn page_escapes_the_address() {
        let page = Page {
            name: "ada",
            address: EmailAddress::new("&o'neil@example.com")
                .unwrap()
                .to_string(),
            is_confirmed: false,
        };
        let page = page.render().unwrap();
        assert!(page.contains("&#38;***@example.com"), "{page}");
        assert!(page.contains("<form method=\"post\">"), "{page}");
    }
}
