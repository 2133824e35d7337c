//! Those who have not logged in yet: an address may try only so often, a name may only so often be tried in vain, from one address and more
//! often from all together, and few bodies are waited for at a time, so that strangers take no place from users.

use std::{
    net::IpAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use axum::{
    Extension,
    extract::FromRequestParts,
    http::{HeaderMap, request::Parts},
};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::serve::{
    app::App,
    http::{
        Problem,
        listen::{Peer, network},
        rate::Rate,
    },
    role::UserName,
};

/// What one address may try in a second and at once.
const PER_SECOND: f64 = 2.0;
const AT_ONCE: f64 = 20.0;
/// How often a name may be tried in vain from one address in a second and at once.
const WRONG_PER_SECOND: f64 = 0.1;
const WRONG_AT_ONCE: f64 = 20.0;
/// So many times as often from all addresses together: one alone keeps nobody else from logging in.
const EVERYWHERE: f64 = 10.0;
/// Where a proxy says for whom it asks.
const FORWARDED: &str = "x-forwarded-for";
/// Bodies of strangers take no more than one in so many of all places.
const SHARE: usize = 4;
/// When to come again where there is no place.
const COME_AGAIN: Duration = Duration::from_secs(2);

/// All of them.
#[derive(Debug)]
pub(crate) struct Strangers {
    tries: Rate<IpAddr>,
    /// Of names from one address, whether there is such a user or not, so that it tells nothing.
    wrong: Rate<(UserName, IpAddr)>,
    /// The same from everywhere.
    wrong_everywhere: Rate<UserName>,
    /// Whose word is taken for who asks.
    proxy: Option<IpAddr>,
    places: Arc<Semaphore>,
}

/// One who may be heard: the place is held until it is dropped. Comes before the body in a handler's arguments, so that nobody waits for the
/// body of whoever may not be heard.
#[derive(Debug)]
pub(crate) struct Stranger {
    network: IpAddr,
    _place: OwnedSemaphorePermit,
}

impl Stranger {
    /// Where this one is, which is all that is known after the place was given back.
    pub(crate) fn leave(self) -> IpAddr {
        self.network
    }
}

impl Strangers {
    /// Strangers at a gateway with so many places, behind this proxy if behind any.
    pub(crate) fn new(most_requests: usize, proxy: Option<IpAddr>) -> Self {
        Self {
            tries: Rate::new(PER_SECOND, AT_ONCE),
            wrong: Rate::new(WRONG_PER_SECOND, WRONG_AT_ONCE),
            wrong_everywhere: Rate::new(WRONG_PER_SECOND * EVERYWHERE, WRONG_AT_ONCE * EVERYWHERE),
            proxy,
            places: Arc::new(Semaphore::new((most_requests / SHARE).max(1))),
        }
    }

    /// Lets somebody at this address be heard.
    ///
    /// # Errors
    /// It tries too often, or too many are heard.
    pub(crate) fn enter(&self, address: IpAddr, now: Instant) -> Result<Stranger, Problem> {
        let network = network(address);
        self.tries
            .take(network, now)
            .map_err(|after| Problem::too_many("too many tries to log in", after))?;
        let place = Arc::clone(&self.places).try_acquire_owned().map_err(|_| {
            Problem::unavailable("overloaded", "too many are logging in", COME_AGAIN)
        })?;
        Ok(Stranger {
            network,
            _place: place,
        })
    }

    /// Lets somebody there try this name; a try that was not in vain is given back by [`Strangers::was_not_wrong`].
    ///
    /// # Errors
    /// It was tried in vain too often.
    pub(crate) fn try_name(
        &self,
        name: &UserName,
        network: IpAddr,
        now: Instant,
    ) -> Result<(), Problem> {
        let too_often =
            |after| Problem::too_many("this name was tried with wrong passwords too often", after);
        let here = (name.clone(), network);
        self.wrong.take(here.clone(), now).map_err(too_often)?;
        self.wrong_everywhere
            .take(name.clone(), now)
            .map_err(|after| {
                // It was no try.
                self.wrong.give_back(&here, now);
                too_often(after)
            })
    }

    /// A try of this name from there was not in vain.
    pub(crate) fn was_not_wrong(&self, name: &UserName, network: IpAddr, now: Instant) {
        self.wrong.give_back(&(name.clone(), network), now);
        self.wrong_everywhere.give_back(name, now);
    }

    /// Where a request comes from: what the proxy says if it comes from there. Only the last address is its own word.
    fn origin(&self, peer: IpAddr, headers: &HeaderMap) -> IpAddr {
        if self.proxy != Some(peer.to_canonical()) {
            return peer;
        }
        let last = headers.get_all(FORWARDED).into_iter().next_back();
        let last = last.and_then(|value| value.to_str().ok()?.rsplit(',').next());
        last.and_then(|text| text.trim().parse().ok())
            .unwrap_or(peer)
    }
}

impl FromRequestParts<Arc<App>> for Stranger {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &Arc<App>) -> Result<Self, Problem> {
        let peer = Extension::<Peer>::from_request_parts(parts, app).await;
        let Extension(Peer(peer)) = peer.map_err(|_| Problem::internal())?;
        let origin = app.strangers.origin(peer.ip(), &parts.headers);
        app.strangers.enter(origin, Instant::now())
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
        let strangers = Strangers::new(40, None);
        let now = Instant::now();
        let enter = |n: u8| strangers.enter(address(n), now);
        let heard: Vec<Stranger> = (0..10).map(|n| enter(n).unwrap()).collect();
        let refused = enter(10).unwrap_err();
        assert_eq!(refused.status(), StatusCode::SERVICE_UNAVAILABLE);
        drop(heard);
        assert!(enter(10).is_ok());
        // There is always a place for one.
        let narrow = Strangers::new(1, None);
        assert!(narrow.enter(address(1), now).is_ok());
    }

    #[test]
    fn one_address_may_try_only_so_often() {
        let strangers = Strangers::new(1000, None);
        let now = Instant::now();
        let tries = (0..100).map(|_| strangers.enter(address(1), now));
        let told: Vec<_> = tries.filter_map(Result::err).collect();
        assert_eq!(told.len(), 80);
        assert_eq!(told[0].status(), StatusCode::TOO_MANY_REQUESTS);
        assert!(strangers.enter(address(2), now).is_ok());
    }

    #[test]
    fn whoever_has_a_whole_network_has_one_address() {
        let strangers = Strangers::new(1000, None);
        let now = Instant::now();
        let enter = |text: &str| strangers.enter(text.parse().unwrap(), now).map(drop);
        for n in 0..20 {
            enter(&format!("2001:db8:0:1::{n:x}")).unwrap();
        }
        assert!(enter("2001:db8:0:1:ffff::1").is_err());
        assert!(enter("2001:db8:0:2::1").is_ok());
        // The same address, however it is written.
        for _ in 0..20 {
            enter("192.0.2.1").unwrap();
        }
        assert!(enter("::ffff:192.0.2.1").is_err());
    }

    #[test]
    fn a_name_may_be_tried_in_vain_only_so_often_and_rightly_as_often_as_one_likes() {
        let strangers = Strangers::new(1000, None);
        let now = Instant::now();
        let [ada, bob] = ["ada", "bob"].map(|name| name.parse::<UserName>().unwrap());
        let here = address(1);
        for _ in 0..300 {
            strangers.try_name(&ada, here, now).unwrap();
            strangers.was_not_wrong(&ada, here, now);
        }
        for _ in 0..20 {
            strangers.try_name(&ada, here, now).unwrap();
        }
        let refused = strangers.try_name(&ada, here, now).unwrap_err();
        assert_eq!(refused.status(), StatusCode::TOO_MANY_REQUESTS);
        assert!(strangers.try_name(&bob, here, now).is_ok());
        let later = now + Duration::from_secs(10);
        assert!(strangers.try_name(&ada, here, later).is_ok());
    }

    #[test]
    fn one_address_keeps_nobody_else_from_logging_in_and_many_may_guess_only_so_often() {
        let strangers = Strangers::new(1000, None);
        let now = Instant::now();
        let ada: UserName = "ada".parse().unwrap();
        // However long somebody goes on at one address.
        for second in 0..3600 {
            let then = now + Duration::from_secs(second);
            for _ in 0..3 {
                let _ = strangers.try_name(&ada, address(1), then);
            }
            strangers.try_name(&ada, address(2), then).unwrap();
            strangers.was_not_wrong(&ada, address(2), then);
        }
        let strangers = Strangers::new(1000, None);
        let tries = (0..20).flat_map(|_| (0..50).map(address));
        let tries = tries.map(|there| strangers.try_name(&ada, there, now));
        assert_eq!(tries.filter(Result::is_ok).count(), 200);
    }

    #[test]
    fn only_the_proxy_is_believed_and_only_its_own_word() {
        let strangers = Strangers::new(1000, Some(address(1)));
        let origin = |peer: u8, said: &[&str]| {
            let said = said
                .iter()
                .map(|text| (FORWARDED.parse().unwrap(), text.parse().unwrap()));
            strangers.origin(address(peer), &HeaderMap::from_iter(said))
        };
        assert_eq!(origin(1, &["192.0.2.7"]), address(7));
        assert_eq!(origin(1, &["192.0.2.8, 192.0.2.7"]), address(7));
        assert_eq!(origin(1, &["192.0.2.8", "192.0.2.7"]), address(7));
        assert_eq!(origin(2, &["192.0.2.7"]), address(2));
        for nothing in [&[][..], &[""], &["unknown"]] {
            assert_eq!(origin(1, nothing), address(1));
        }
    }
}
