//! All that handlers share.

use std::{net::IpAddr, time::Duration};

use tokio::sync::watch;

use super::{
    auth::{Passwords, Tokens},
    books::Books,
    feeds::Feeds,
    http::rate::Rate,
    orders::{Flow, UnderWay},
    role::UserName,
    roles::Roles,
    users::Users,
};

/// What one address may try to log in, in a second and at once.
const LOGINS_PER_SECOND: f64 = 2.0;
const LOGINS_AT_ONCE: f64 = 20.0;

/// All that handlers share.
pub(crate) struct App {
    /// What is kept.
    pub(crate) books: Books,
    /// Who is asked.
    pub(crate) roles: Roles,
    /// Places orders.
    pub(crate) flow: Flow,
    /// The Idempotency-Keys that are under way.
    pub(crate) under_way: UnderWay,
    /// Which feeds there may be.
    pub(crate) feeds: Feeds,
    /// Users as they are now.
    pub(crate) users: Users,
    /// Hashes passwords.
    pub(crate) passwords: Passwords,
    /// Signs tokens.
    pub(crate) tokens: Tokens,
    /// How often a user may ask.
    pub(crate) user_rate: Rate<UserName>,
    /// How often somebody may try to log in.
    pub(crate) login_rate: Rate<IpAddr>,
}

/// What an [`App`] is made of, and its bounds.
pub(crate) struct Parts {
    /// What is kept.
    pub(crate) books: Books,
    /// Who is asked.
    pub(crate) roles: Roles,
    /// Hashes passwords.
    pub(crate) passwords: Passwords,
    /// Signs tokens.
    pub(crate) tokens: Tokens,
    /// Whether the gateway is to stop.
    pub(crate) stopping: watch::Receiver<bool>,
    /// How often a user may ask in a second; four times as often for a moment.
    pub(crate) per_second: u32,
    /// How many requests may be under way.
    pub(crate) most_requests: usize,
    /// How long money and kitchen may take together.
    pub(crate) answer_within: Duration,
}

impl App {
    /// Joins these.
    pub(crate) fn new(parts: Parts) -> Self {
        let per_second = f64::from(parts.per_second);
        Self {
            flow: Flow {
                books: parts.books.clone(),
                roles: parts.roles.clone(),
                answer_within: parts.answer_within,
            },
            books: parts.books,
            roles: parts.roles,
            under_way: UnderWay::new(parts.most_requests),
            feeds: Feeds::new(parts.stopping),
            users: Users::default(),
            passwords: parts.passwords,
            tokens: parts.tokens,
            user_rate: Rate::new(per_second, per_second * 4.0),
            login_rate: Rate::new(LOGINS_PER_SECOND, LOGINS_AT_ONCE),
        }
    }
}
