//! All that handlers share.

use std::net::IpAddr;

use super::{
    auth::{Passwords, Tokens},
    books::Books,
    http::rate::Rate,
    role::UserName,
    users::Users,
};

/// What one address may try to log in, in a second and at once.
const LOGINS_PER_SECOND: f64 = 2.0;
const LOGINS_AT_ONCE: f64 = 20.0;

/// All that handlers share.
pub(crate) struct App {
    /// What is kept.
    pub(crate) books: Books,
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

impl App {
    /// Joins these; a user may ask `per_second` times in a second, and four times as often for a moment.
    pub(crate) fn new(books: Books, passwords: Passwords, tokens: Tokens, per_second: u32) -> Self {
        let per_second = f64::from(per_second);
        Self {
            books,
            users: Users::default(),
            passwords,
            tokens,
            user_rate: Rate::new(per_second, per_second * 4.0),
            login_rate: Rate::new(LOGINS_PER_SECOND, LOGINS_AT_ONCE),
        }
    }
}
