//! All that handlers share.

use std::{sync::Arc, time::Duration};

use doorstep_runtime::runner::Liveness;
use tokio::sync::watch;

use crate::{
    auth::{PasswordPool, Tokens},
    backends::Backends,
    checkout::{CheckoutSaga, InFlightKeys, LeftOrders},
    domain::UserName,
    feeds::OrderFeeds,
    limits::{AdmissionControl, KeyedSemaphore, LoginThrottle, RateLimiter, user_concurrency},
    repository::GatewayStore,
    user_cache::UserCache,
};

/// The rate at which a session may guess the old password in a second and at once: one that was stolen must not find it out.
const OLD_PER_SECOND: f64 = 0.02;
const OLD_AT_ONCE: f64 = 5.0;

/// All that handlers share.
pub(crate) struct AppState {
    /// What is kept.
    pub(crate) books: GatewayStore,
    /// Who is asked.
    pub(crate) roles: Backends,
    /// What can be kept now.
    pub(crate) keeper: AdmissionControl,
    /// The signs of life of the gateway's own role.
    pub(crate) vitals: Arc<Liveness>,
    /// How long one of its steps may take.
    pub(crate) stuck_after: Duration,
    /// Places orders.
    pub(crate) flow: CheckoutSaga,
    /// The orders that wait for an operator.
    pub(crate) left: LeftOrders,
    /// The Idempotency-Keys that are under way.
    pub(crate) under_way: InFlightKeys,
    /// Which feeds there may be.
    pub(crate) feeds: OrderFeeds,
    /// Users as they are now.
    pub(crate) users: UserCache,
    /// Hashes passwords.
    pub(crate) passwords: PasswordPool,
    /// Signs tokens.
    pub(crate) tokens: Tokens,
    /// How often a user may ask.
    pub(crate) user_rate: RateLimiter<UserName>,
    /// The rate at which a user may give a wrong old password for a new one.
    pub(crate) old_passwords: RateLimiter<UserName>,
    /// How many requests a user may have under way.
    pub(crate) user_places: KeyedSemaphore<UserName>,
    /// Those who have not logged in yet.
    pub(crate) strangers: LoginThrottle,
}

/// Parts of an [`AppState`], and its bounds.
pub(crate) struct Parts {
    /// What is kept.
    pub(crate) books: GatewayStore,
    /// Who is asked.
    pub(crate) roles: Backends,
    /// What can be kept now.
    pub(crate) keeper: AdmissionControl,
    /// The orders that wait for an operator.
    pub(crate) left: LeftOrders,
    /// The signs of life of the gateway's own role.
    pub(crate) vitals: Arc<Liveness>,
    /// How long one of its steps may take.
    pub(crate) stuck_after: Duration,
    /// Hashes passwords.
    pub(crate) passwords: PasswordPool,
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

impl AppState {
    /// Joins these.
    pub(crate) fn new(parts: Parts) -> Self {
        let per_second = f64::from(parts.per_second);
        Self {
            flow: CheckoutSaga {
                books: parts.books.clone(),
                roles: parts.roles.clone(),
                answer_within: parts.answer_within,
            },
            books: parts.books,
            roles: parts.roles,
            keeper: parts.keeper,
            left: parts.left,
            vitals: parts.vitals,
            stuck_after: parts.stuck_after,
            under_way: InFlightKeys::new(parts.most_requests),
            feeds: OrderFeeds::new(parts.stopping),
            users: UserCache::default(),
            passwords: parts.passwords,
            tokens: parts.tokens,
            user_rate: RateLimiter::new(per_second, per_second * 4.0),
            old_passwords: RateLimiter::new(OLD_PER_SECOND, OLD_AT_ONCE),
            user_places: user_concurrency(parts.most_requests),
            strangers: LoginThrottle::new(parts.most_requests),
        }
    }
}
