//! The state that all handlers share.

use std::{sync::Arc, time::Duration};

use doorstep_runtime::runner::Liveness;
use tokio::sync::watch;

use crate::{
    auth::{Links, PasswordPool, Tokens},
    backends::Backends,
    checkout::{CheckoutSaga, InFlightKeys, LeftOrders},
    domain::UserName,
    feeds::OrderFeeds,
    limits::{AdmissionControl, KeyedSemaphore, LoginThrottle, RateLimiter, user_concurrency},
    report_files::ReportFiles,
    repository::GatewayStore,
    user_cache::UserCache,
};

/// The rate and burst at which a session may try old passwords: a stolen token must not be enough to guess one.
const OLD_PER_SECOND: f64 = 0.02;
const OLD_AT_ONCE: f64 = 5.0;

/// The state that all handlers share.
pub(crate) struct AppState {
    pub(crate) store: GatewayStore,
    /// The RPC client of the roles.
    pub(crate) backends: Backends,
    /// The admission control, which says whether the store can take more.
    pub(crate) admission: AdmissionControl,
    /// The liveness of the gateway's own role.
    pub(crate) liveness: Arc<Liveness>,
    /// The limit of one step of that role.
    pub(crate) stuck_after: Duration,
    pub(crate) checkout: CheckoutSaga,
    /// The orders that wait for an operator after a restore.
    pub(crate) left: LeftOrders,
    /// The Idempotency-Keys whose first request is in flight.
    pub(crate) in_flight_keys: InFlightKeys,
    /// The open feeds and their limits.
    pub(crate) feeds: OrderFeeds,
    /// The cache of user records.
    pub(crate) users: UserCache,
    pub(crate) passwords: PasswordPool,
    pub(crate) tokens: Tokens,
    pub(crate) links: Links,
    /// The lifetime of links to reports.
    pub(crate) link_ttl: Duration,
    pub(crate) report_files: ReportFiles,
    /// The rate limit of each user.
    pub(crate) user_rate: RateLimiter<UserName>,
    /// The rate limit of wrong old passwords, by user.
    pub(crate) old_passwords: RateLimiter<UserName>,
    /// The limit of requests in flight, by user.
    pub(crate) user_permits: KeyedSemaphore<UserName>,
    /// The throttle of clients that have not logged in yet.
    pub(crate) login_throttle: LoginThrottle,
}

/// The parts of an [`AppState`], and its limits.
pub(crate) struct AppParts {
    pub(crate) store: GatewayStore,
    /// The RPC client of the roles.
    pub(crate) backends: Backends,
    /// The admission control, which says whether the store can take more.
    pub(crate) admission: AdmissionControl,
    /// The orders that wait for an operator after a restore.
    pub(crate) left: LeftOrders,
    /// The liveness of the gateway's own role.
    pub(crate) liveness: Arc<Liveness>,
    /// The limit of one step of that role.
    pub(crate) stuck_after: Duration,
    pub(crate) passwords: PasswordPool,
    pub(crate) tokens: Tokens,
    pub(crate) links: Links,
    /// The lifetime of links to reports.
    pub(crate) link_ttl: Duration,
    pub(crate) report_files: ReportFiles,
    /// True once the gateway is to stop.
    pub(crate) stopping: watch::Receiver<bool>,
    /// The requests that a user may make per second; four times as many in a burst.
    pub(crate) per_second: u32,
    /// The limit of requests in flight.
    pub(crate) most_requests: usize,
    /// The time that payment and restaurant have together to reply.
    pub(crate) answer_within: Duration,
}

impl AppState {
    pub(crate) fn new(parts: AppParts) -> Self {
        let per_second = f64::from(parts.per_second);
        Self {
            checkout: CheckoutSaga {
                store: parts.store.clone(),
                roles: parts.backends.clone(),
                answer_within: parts.answer_within,
            },
            store: parts.store,
            backends: parts.backends,
            admission: parts.admission,
            left: parts.left,
            liveness: parts.liveness,
            stuck_after: parts.stuck_after,
            in_flight_keys: InFlightKeys::new(parts.most_requests),
            feeds: OrderFeeds::new(parts.stopping),
            users: UserCache::default(),
            passwords: parts.passwords,
            tokens: parts.tokens,
            links: parts.links,
            link_ttl: parts.link_ttl,
            report_files: parts.report_files,
            user_rate: RateLimiter::new(per_second, per_second * 4.0),
            old_passwords: RateLimiter::new(OLD_PER_SECOND, OLD_AT_ONCE),
            user_permits: user_concurrency(parts.most_requests),
            login_throttle: LoginThrottle::new(parts.most_requests),
        }
    }
}
