//! Login throttling: limits attempts per address and failures per user name.
//!
//! Logins share a fraction of all requests in flight, so clients without a session take no permits from users.
//!
//! Each network has a budget of failures for each name. A network from which the user has recently logged in needs only
//! that. Any other network also needs a slot in the name's queue. So failed logins from elsewhere never lock a user out
//! of a known network. From a new network, the user waits at most one slot for each network that guesses.

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

/// The rate and burst of login attempts of one address.
const PER_SECOND: f64 = 2.0;
const AT_ONCE: f64 = 20.0;
/// The rate and burst of failed logins for one name from one network.
const WRONG_PER_SECOND: f64 = 0.1;
const WRONG_AT_ONCE: f64 = 20.0;
/// The divisor of the limit of logins: a quarter of all permits.
const SHARE: usize = 4;
/// The `Retry-After` when no permit is free.
const RETRY_AFTER: Duration = Duration::from_secs(2);

#[derive(Debug)]
pub(crate) struct LoginThrottle {
    tries: RateLimiter<IpAddr>,
    /// The budgets by name and network. Unknown names have them too, so they do not reveal which users exist.
    wrong: RateLimiter<(UserName, IpAddr)>,
    known: KnownNetworks,
    queues: NameQueues,
    places: Arc<Semaphore>,
}

/// An admitted login, which holds its permit until it is dropped.
///
/// In a handler's arguments it comes before the body, so the gateway reads no body of a client that is over a limit.
#[derive(Debug)]
pub(crate) struct LoginAttempt {
    address: IpAddr,
    _place: OwnedSemaphorePermit,
}

/// A login attempt for one name whose password may be verified.
#[derive(Debug)]
pub(crate) struct Try<'a> {
    throttle: &'a LoginThrottle,
    name: &'a UserName,
    address: IpAddr,
    /// True if the user has recently logged in from this network.
    pub(crate) is_known: bool,
}

impl LoginAttempt {
    /// Releases the permit, and returns the client's address.
    pub(crate) fn release(self) -> IpAddr {
        self.address
    }
}

impl LoginThrottle {
    /// Creates the throttle of a gateway with this many permits.
    pub(crate) fn new(most_requests: usize) -> Self {
        Self {
            tries: RateLimiter::new(PER_SECOND, AT_ONCE),
            wrong: RateLimiter::new(WRONG_PER_SECOND, WRONG_AT_ONCE),
            known: KnownNetworks::default(),
            queues: NameQueues::default(),
            places: Arc::new(Semaphore::new((most_requests / SHARE).max(1))),
        }
    }

    /// Admits a login from this address.
    ///
    /// # Errors
    /// The address is over its rate, or no permit is free.
    pub(crate) fn admit(&self, address: IpAddr, now: Instant) -> Result<LoginAttempt, Problem> {
        self.tries
            .acquire(network(address), now)
            .map_err(|after| Problem::too_many("too many login attempts", after))?;
        let place = Arc::clone(&self.places).try_acquire_owned().map_err(|_| {
            Problem::unavailable("overloaded", "too many logins are in progress", RETRY_AFTER)
        })?;
        Ok(LoginAttempt {
            address,
            _place: place,
        })
    }

    /// Takes a failure from the budget of this name, which [`Try`] gives back if the login does not fail.
    ///
    /// # Errors
    /// The budget is used up, or it is not the network's turn.
    pub(crate) fn check_name<'a>(
        &'a self,
        name: &'a UserName,
        address: IpAddr,
        now: Instant,
    ) -> Result<Try<'a>, Problem> {
        let too_often = |after| Problem::too_many("too many wrong passwords for this name", after);
        let network = network(address);
        let here = (name.clone(), network);
        self.wrong.acquire(here.clone(), now).map_err(too_often)?;
        let is_known = self.known.has(name, network, now);
        if !is_known {
            self.queues
                .take(name, site(address), now)
                .map_err(|after| {
                    // No password is verified, so this does not count as an attempt.
                    self.wrong.give_back(&here, now);
                    too_often(after)
                })?;
        }
        Ok(Try {
            throttle: self,
            name,
            address,
            is_known,
        })
    }
}

impl Try<'_> {
    /// Records that the password was right.
    pub(crate) fn was_right(self, now: Instant) {
        let network = network(self.address);
        self.give_back(network, now);
        if !self.is_known {
            self.throttle.queues.give_back(self.name);
        }
        self.throttle.known.add(self.name, network, now);
    }

    /// Records that the password could not be verified: the client may retry at once.
    pub(crate) fn was_none(self, now: Instant) {
        self.give_back(network(self.address), now);
        if !self.is_known {
            self.throttle
                .queues
                .keep(self.name, site(self.address), now);
        }
    }

    fn give_back(&self, network: IpAddr, now: Instant) {
        self.throttle
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
    fn unknown_clients_share_few_slots() {
        let throttle = LoginThrottle::new(40);
        let now = Instant::now();
        let enter = |n: u8| throttle.admit(address(n), now);
        let heard: Vec<LoginAttempt> = (0..10).map(|n| enter(n).unwrap()).collect();
        let rejected = enter(10).unwrap_err();
        assert_eq!(rejected.status(), StatusCode::SERVICE_UNAVAILABLE);
        drop(heard);
        assert!(enter(10).is_ok());
        // There is always a permit for one login.
        let narrow = LoginThrottle::new(1);
        assert!(narrow.admit(address(1), now).is_ok());
    }

    #[test]
    fn one_address_may_try_only_so_often() {
        let throttle = LoginThrottle::new(1000);
        let now = Instant::now();
        let tries = (0..100).map(|_| throttle.admit(address(1), now));
        let told: Vec<_> = tries.filter_map(Result::err).collect();
        assert_eq!(told.len(), 80);
        assert_eq!(told[0].status(), StatusCode::TOO_MANY_REQUESTS);
        assert!(throttle.admit(address(2), now).is_ok());
    }

    #[test]
    fn a_whole_network_has_one_address() {
        let throttle = LoginThrottle::new(1000);
        let now = Instant::now();
        let enter = |text: &str| throttle.admit(text.parse().unwrap(), now).map(drop);
        for n in 0..20 {
            enter(&format!("2001:db8:0:1::{n:x}")).unwrap();
        }
        assert!(enter("2001:db8:0:1:ffff::1").is_err());
        assert!(enter("2001:db8:0:2::1").is_ok());
        // The same address, in its various forms.
        for _ in 0..20 {
            enter("192.0.2.1").unwrap();
        }
        assert!(enter("::ffff:192.0.2.1").is_err());
    }

    #[test]
    fn only_failed_logins_are_limited() {
        let throttle = LoginThrottle::new(1000);
        let now = Instant::now();
        let [ada, bob] = ["ada", "bob"].map(|name| name.parse::<UserName>().unwrap());
        let here = address(1);
        for _ in 0..300 {
            throttle.check_name(&ada, here, now).unwrap().was_right(now);
            throttle.check_name(&bob, here, now).unwrap().was_none(now);
        }
        for _ in 0..20 {
            throttle.check_name(&ada, here, now).unwrap();
        }
        let rejected = throttle.check_name(&ada, here, now).unwrap_err();
        assert_eq!(rejected.status(), StatusCode::TOO_MANY_REQUESTS);
        assert!(throttle.check_name(&bob, here, now).is_ok());
        let later = now + Duration::from_secs(10);
        assert!(throttle.check_name(&ada, here, later).is_ok());
    }

    /// Lets forty networks guess twice a second each, and go on after every rejection; returns the number of admitted
    /// guesses.
    fn guess(throttle: &LoginThrottle, name: &UserName, then: Instant) -> usize {
        let guesses = (0..80).filter(|n| {
            let there = [198, 51, 100, n % 40].into();
            throttle.admit(there, then).is_ok() && throttle.check_name(name, there, then).is_ok()
        });
        guesses.count()
    }

    #[test]
    fn distributed_guesses_delay_only_unknown_networks() {
        let throttle = LoginThrottle::new(1000);
        let start = Instant::now();
        let ada: UserName = "ada".parse().unwrap();
        let home = address(1);
        throttle
            .check_name(&ada, home, start)
            .unwrap()
            .was_right(start);
        let mut guessed = 0;
        // The user comes from a new network every two minutes, and retries when told to.
        let mut away = (address(2), start + Duration::from_secs(60));
        let mut logins = 0;
        for second in 0..3600 {
            let now = start + Duration::from_secs(second);
            guessed += guess(&throttle, &ada, now);
            let known = throttle.check_name(&ada, home, now).unwrap();
            assert!(known.is_known);
            known.was_right(now);
            let (place, when) = away;
            if now >= when {
                match throttle.check_name(&ada, place, now) {
                    Ok(away_from_home) => {
                        assert!(!away_from_home.is_known);
                        logins += 1;
                        let next = u8::try_from(3 + logins).unwrap();
                        away = (address(next), now + Duration::from_secs(60));
                    }
                    Err(rejected) => {
                        let wait = rejected.wait().unwrap();
                        assert!(wait <= Duration::from_secs(41), "{wait:?}");
                        away = (place, now + wait);
                    }
                }
            }
        }
        // Every login was admitted, and at most one guess per second plus the burst.
        assert!(logins >= 30, "{logins}");
        assert!(guessed <= 3600 + 200, "{guessed}");
    }

    #[test]
    fn networks_of_one_site_share_a_slot() {
        let throttle = LoginThrottle::new(1000);
        let now = Instant::now();
        let ada: UserName = "ada".parse().unwrap();
        for n in 0..10_000 {
            let there: IpAddr = format!("2001:db8:1:{n:x}::1").parse().unwrap();
            let _ = throttle.check_name(&ada, there, now);
        }
        let rejected = throttle.check_name(&ada, address(1), now).unwrap_err();
        assert_eq!(rejected.wait(), Some(Duration::from_secs(2)));
    }

    #[test]
    fn guesses_do_not_reveal_users() {
        // The throttle knows users only by their logins, and those count only for their networks.
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
