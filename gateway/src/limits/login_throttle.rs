//! Those who have not logged in yet: an address may try only so often, and few bodies are waited for at a time, so that strangers take no
//! place from users.
//!
//! A name may only so often be tried in vain. Each network has a budget of its own for a name. One from which the name has logged in lately
//! needs no more than that; any other also takes a slot of the name's queue. So guesses from elsewhere never keep a user out who comes from
//! where the user was before, and make one who comes from a new place wait for no more than a slot for each network that guesses.

use std::{
    net::IpAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::{
    known_networks::KnownNetworks,
    name_queue::NameQueues,
    network::{network, site},
    rate_limiter::RateLimiter,
};
use crate::{domain::UserName, http::Problem};

/// What one address may try in a second and at once.
const PER_SECOND: f64 = 2.0;
const AT_ONCE: f64 = 20.0;
/// How often a name may be tried in vain from one address in a second and at once.
const WRONG_PER_SECOND: f64 = 0.1;
const WRONG_AT_ONCE: f64 = 20.0;
/// Bodies of strangers take no more than one in so many of all places.
const SHARE: usize = 4;
/// When to come again where there is no place.
const COME_AGAIN: Duration = Duration::from_secs(2);

/// All of them.
#[derive(Debug)]
pub(crate) struct LoginThrottle {
    tries: RateLimiter<IpAddr>,
    /// Of names from one network, whether there is such a user or not, so that it tells nothing.
    wrong: RateLimiter<(UserName, IpAddr)>,
    known: KnownNetworks,
    queues: NameQueues,
    places: Arc<Semaphore>,
}

/// One who may be heard: the place is held until it is dropped. Comes before the body in a handler's arguments, so that nobody waits for the
/// body of whoever may not be heard.
#[derive(Debug)]
pub(crate) struct LoginAttempt {
    address: IpAddr,
    _place: OwnedSemaphorePermit,
}

/// A try to log in under a name that is let through to the check of its password.
#[derive(Debug)]
pub(crate) struct Try<'a> {
    strangers: &'a LoginThrottle,
    name: &'a UserName,
    address: IpAddr,
    /// True if the user has lately logged in from there.
    pub(crate) is_known: bool,
}

impl LoginAttempt {
    /// The client's address, which is all that is known after the place was given back.
    pub(crate) fn release(self) -> IpAddr {
        self.address
    }
}

impl LoginThrottle {
    /// Strangers at a gateway with so many places.
    pub(crate) fn new(most_requests: usize) -> Self {
        Self {
            tries: RateLimiter::new(PER_SECOND, AT_ONCE),
            wrong: RateLimiter::new(WRONG_PER_SECOND, WRONG_AT_ONCE),
            known: KnownNetworks::default(),
            queues: NameQueues::default(),
            places: Arc::new(Semaphore::new((most_requests / SHARE).max(1))),
        }
    }

    /// Lets somebody at this address be heard.
    ///
    /// # Errors
    /// It tries too often, or too many are heard.
    pub(crate) fn admit(&self, address: IpAddr, now: Instant) -> Result<LoginAttempt, Problem> {
        self.tries
            .acquire(network(address), now)
            .map_err(|after| Problem::too_many("too many tries to log in", after))?;
        let place = Arc::clone(&self.places).try_acquire_owned().map_err(|_| {
            Problem::unavailable("overloaded", "too many are logging in", COME_AGAIN)
        })?;
        Ok(LoginAttempt {
            address,
            _place: place,
        })
    }

    /// Lets somebody there try this name. The try counts as one in vain unless it is told otherwise.
    ///
    /// # Errors
    /// It was tried in vain too often.
    pub(crate) fn check_name<'a>(
        &'a self,
        name: &'a UserName,
        address: IpAddr,
        now: Instant,
    ) -> Result<Try<'a>, Problem> {
        let too_often =
            |after| Problem::too_many("this name was tried with wrong passwords too often", after);
        let network = network(address);
        let here = (name.clone(), network);
        self.wrong.acquire(here.clone(), now).map_err(too_often)?;
        let is_known = self.known.has(name, network, now);
        if !is_known {
            self.queues
                .take(name, site(address), now)
                .map_err(|after| {
                    // It was no try.
                    self.wrong.give_back(&here, now);
                    too_often(after)
                })?;
        }
        Ok(Try {
            strangers: self,
            name,
            address,
            is_known,
        })
    }
}

impl Try<'_> {
    /// The password was right.
    pub(crate) fn was_right(self, now: Instant) {
        let network = network(self.address);
        self.give_back(network, now);
        if !self.is_known {
            self.strangers.queues.give_back(self.name);
        }
        self.strangers.known.add(self.name, network, now);
    }

    /// The password could not be checked: the same may be tried again at once.
    pub(crate) fn was_none(self, now: Instant) {
        self.give_back(network(self.address), now);
        if !self.is_known {
            self.strangers
                .queues
                .keep(self.name, site(self.address), now);
        }
    }

    fn give_back(&self, network: IpAddr, now: Instant) {
        self.strangers
            .wrong
            .give_back(&(self.name.clone(), network), now);
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
        let strangers = LoginThrottle::new(40);
        let now = Instant::now();
        let enter = |n: u8| strangers.admit(address(n), now);
        let heard: Vec<LoginAttempt> = (0..10).map(|n| enter(n).unwrap()).collect();
        let refused = enter(10).unwrap_err();
        assert_eq!(refused.status(), StatusCode::SERVICE_UNAVAILABLE);
        drop(heard);
        assert!(enter(10).is_ok());
        // There is always a place for one.
        let narrow = LoginThrottle::new(1);
        assert!(narrow.admit(address(1), now).is_ok());
    }

    #[test]
    fn one_address_may_try_only_so_often() {
        let strangers = LoginThrottle::new(1000);
        let now = Instant::now();
        let tries = (0..100).map(|_| strangers.admit(address(1), now));
        let told: Vec<_> = tries.filter_map(Result::err).collect();
        assert_eq!(told.len(), 80);
        assert_eq!(told[0].status(), StatusCode::TOO_MANY_REQUESTS);
        assert!(strangers.admit(address(2), now).is_ok());
    }

    #[test]
    fn whoever_has_a_whole_network_has_one_address() {
        let strangers = LoginThrottle::new(1000);
        let now = Instant::now();
        let enter = |text: &str| strangers.admit(text.parse().unwrap(), now).map(drop);
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
        let strangers = LoginThrottle::new(1000);
        let now = Instant::now();
        let [ada, bob] = ["ada", "bob"].map(|name| name.parse::<UserName>().unwrap());
        let here = address(1);
        for _ in 0..300 {
            strangers
                .check_name(&ada, here, now)
                .unwrap()
                .was_right(now);
            strangers.check_name(&bob, here, now).unwrap().was_none(now);
        }
        for _ in 0..20 {
            strangers.check_name(&ada, here, now).unwrap();
        }
        let refused = strangers.check_name(&ada, here, now).unwrap_err();
        assert_eq!(refused.status(), StatusCode::TOO_MANY_REQUESTS);
        assert!(strangers.check_name(&bob, here, now).is_ok());
        let later = now + Duration::from_secs(10);
        assert!(strangers.check_name(&ada, here, later).is_ok());
    }

    /// Forty networks guess twice a second each, and go on after every refusal; returns how many guesses were let through.
    fn guess(strangers: &LoginThrottle, name: &UserName, then: Instant) -> usize {
        let guesses = (0..80).filter(|n| {
            let there = [198, 51, 100, n % 40].into();
            strangers.admit(there, then).is_ok() && strangers.check_name(name, there, then).is_ok()
        });
        guesses.count()
    }

    #[test]
    fn guesses_from_many_networks_keep_a_user_out_of_no_known_one_and_a_while_out_of_a_new_one() {
        let strangers = LoginThrottle::new(1000);
        let start = Instant::now();
        let ada: UserName = "ada".parse().unwrap();
        let home = address(1);
        strangers
            .check_name(&ada, home, start)
            .unwrap()
            .was_right(start);
        let mut guessed = 0;
        // The user comes from a new place every two minutes, and comes again when told to.
        let mut away = (address(2), start + Duration::from_secs(60));
        let mut logins = 0;
        for second in 0..3600 {
            let now = start + Duration::from_secs(second);
            guessed += guess(&strangers, &ada, now);
            let known = strangers.check_name(&ada, home, now).unwrap();
            assert!(known.is_known);
            known.was_right(now);
            let (place, when) = away;
            if now >= when {
                match strangers.check_name(&ada, place, now) {
                    Ok(away_from_home) => {
                        assert!(!away_from_home.is_known);
                        logins += 1;
                        let next = u8::try_from(3 + logins).unwrap();
                        away = (address(next), now + Duration::from_secs(60));
                    }
                    Err(refused) => {
                        let wait = refused.wait().unwrap();
                        assert!(wait <= Duration::from_secs(41), "{wait:?}");
                        away = (place, now + wait);
                    }
                }
            }
        }
        // Every one of them got in, and no more guesses than one a second, and those of a quiet time.
        assert!(logins >= 30, "{logins}");
        assert!(guessed <= 3600 + 200, "{guessed}");
    }

    #[test]
    fn whoever_has_many_networks_of_one_site_waits_for_one_slot() {
        let strangers = LoginThrottle::new(1000);
        let now = Instant::now();
        let ada: UserName = "ada".parse().unwrap();
        for n in 0..10_000 {
            let there: IpAddr = format!("2001:db8:1:{n:x}::1").parse().unwrap();
            let _ = strangers.check_name(&ada, there, now);
        }
        let refused = strangers.check_name(&ada, address(1), now).unwrap_err();
        assert_eq!(refused.wait(), Some(Duration::from_secs(2)));
    }

    #[test]
    fn guesses_tell_nothing_of_whether_there_is_such_a_user() {
        // Nothing in here knows of users but by their logins, and those count only where they came from.
        let [one, other] = [(); 2].map(|()| LoginThrottle::new(1000));
        let now = Instant::now();
        let ada: UserName = "ada".parse().unwrap();
        one.check_name(&ada, address(1), now)
            .unwrap()
            .was_right(now);
        for second in 0..100 {
            let then = now + Duration::from_secs(second);
            assert_eq!(guess(&one, &ada, then), guess(&other, &ada, then));
        }
    }
}
