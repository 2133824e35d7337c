//! Those who have not logged in yet: they may try only so often, and few of their bodies are waited for at a time, so that they take no
//! place from users.

use std::{
    net::IpAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use axum::{Extension, extract::FromRequestParts, http::request::Parts};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::serve::{
    app::App,
    http::{Problem, listen::Peer, rate::Rate},
};

/// What one address may try in a second and at once.
const PER_SECOND: f64 = 2.0;
const AT_ONCE: f64 = 20.0;
/// Bodies of strangers take no more than one in so many of all places.
const SHARE: usize = 4;
/// When to come again where there is no place.
const COME_AGAIN: Duration = Duration::from_secs(2);

/// All of them.
#[derive(Debug)]
pub(crate) struct Strangers {
    tries: Rate<IpAddr>,
    places: Arc<Semaphore>,
}

/// One who may be heard: the place is held until it is dropped. Comes before the body in a handler's arguments, so that nobody waits for the
/// body of whoever may not be heard.
#[derive(Debug)]
pub(crate) struct Stranger {
    _place: OwnedSemaphorePermit,
}

impl Strangers {
    /// Strangers at a gateway with so many places.
    pub(crate) fn new(most_requests: usize) -> Self {
        Self {
            tries: Rate::new(PER_SECOND, AT_ONCE),
            places: Arc::new(Semaphore::new((most_requests / SHARE).max(1))),
        }
    }

    /// Lets somebody at this address be heard.
    ///
    /// # Errors
    /// It tries too often, or too many are heard.
    pub(crate) fn enter(&self, address: IpAddr, now: Instant) -> Result<Stranger, Problem> {
        self.tries
            .take(address, now)
            .map_err(|after| Problem::too_many("too many tries to log in", after))?;
        let place = Arc::clone(&self.places).try_acquire_owned().map_err(|_| {
            Problem::unavailable("overloaded", "too many are logging in", COME_AGAIN)
        })?;
        Ok(Stranger { _place: place })
    }
}

impl FromRequestParts<Arc<App>> for Stranger {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &Arc<App>) -> Result<Self, Problem> {
        let peer = Extension::<Peer>::from_request_parts(parts, app).await;
        let Extension(Peer(peer)) = peer.map_err(|_| Problem::internal())?;
        app.strangers.enter(peer.ip(), Instant::now())
    }
}

#[cfg(test)]
mod tests {
    use axum::http::StatusCode;

    use super::*;

    fn address(last: u8) -> IpAddr {
        [192, 0, 2, last].into()
    }

    #[test]
    fn few_strangers_are_heard_at_a_time_wherever_they_are() {
        let strangers = Strangers::new(40);
        let now = Instant::now();
        let enter = |n: u8| strangers.enter(address(n), now);
        let heard: Vec<Stranger> = (0..10).map(|n| enter(n).unwrap()).collect();
        let refused = enter(10).unwrap_err();
        assert_eq!(refused.status(), StatusCode::SERVICE_UNAVAILABLE);
        drop(heard);
        assert!(enter(10).is_ok());
        // There is always a place for one.
        let narrow = Strangers::new(1);
        assert!(narrow.enter(address(1), now).is_ok());
    }

    #[test]
    fn one_address_may_try_only_so_often() {
        let strangers = Strangers::new(1000);
        let now = Instant::now();
        let tries = (0..100).map(|_| strangers.enter(address(1), now));
        let told: Vec<_> = tries.filter_map(Result::err).collect();
        assert_eq!(told.len(), 80);
        assert_eq!(told[0].status(), StatusCode::TOO_MANY_REQUESTS);
        assert!(strangers.enter(address(2), now).is_ok());
    }
}
