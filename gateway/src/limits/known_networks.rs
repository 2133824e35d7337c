//! The networks from which each user has recently logged in. Failed logins from elsewhere take nothing from a login
//! that comes from one of them.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use crate::domain::UserName;

/// The time for which a network is remembered after a login.
const MEMORY: Duration = Duration::from_secs(30 * 24 * 60 * 60);
/// The limit of networks of one user; the one of the oldest login goes first. So a user with very many networks evicts
/// no other user's.
const MAX_NETWORKS: usize = 8;
/// The limit of users. Beyond it, the half with the oldest logins is forgotten.
const MAX_USERS: usize = 10_000;

/// The networks of logins by user, in memory: after a start, each is unknown until its next login.
#[derive(Debug, Default)]
pub(super) struct KnownNetworks(Mutex<HashMap<UserName, Vec<Login>>>);

#[derive(Debug)]
struct Login {
    network: IpAddr,
    at: Instant,
}

impl KnownNetworks {
    /// Returns true if this user has recently logged in from this network.
    pub(super) fn has(&self, name: &UserName, network: IpAddr, now: Instant) -> bool {
        let users = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let logins = users.get(name).map_or(&[][..], Vec::as_slice);
        logins
            .iter()
            .any(|login| login.network == network && is_lately(login.at, now))
    }

    pub(super) fn add(&self, name: &UserName, network: IpAddr, now: Instant) {
        let mut users = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if users.len() >= MAX_USERS && !users.contains_key(name) {
            forget_older_half(&mut users);
        }
        let logins = users.entry(name.clone()).or_default();
        logins.retain(|login| login.network != network && is_lately(login.at, now));
        if logins.len() >= MAX_NETWORKS {
            // Every login moves to the end, so the oldest is first.
            logins.remove(0);
        }
        logins.push(Login { network, at: now });
    }
}

fn is_lately(at: Instant, now: Instant) -> bool {
    now.saturating_duration_since(at) < MEMORY
}

fn forget_older_half(users: &mut HashMap<UserName, Vec<Login>>) {
    let last = |logins: &Vec<Login>| logins.last().map(|login| login.at);
    let mut times: Vec<_> = users.values().map(last).collect();
    let middle = times.len() / 2;
    let (_, median, _) = times.select_nth_unstable(middle);
    let median = *median;
    users.retain(|_, logins| last(logins) > median);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn network(n: u8) -> IpAddr {
        [192, 0, 2, n].into()
    }

    #[test]
    fn known_networks_are_per_user_for_a_month() {
        let known = KnownNetworks::default();
        let [ada, bob] = ["ada", "bob"].map(|name| name.parse().unwrap());
        let now = Instant::now();
        known.add(&ada, network(1), now);
        assert!(known.has(&ada, network(1), now));
        assert!(!known.has(&ada, network(2), now));
        assert!(!known.has(&bob, network(1), now));
        assert!(!known.has(&ada, network(1), now + MEMORY));
    }

    #[test]
    fn no_user_takes_the_place_of_another() {
        let known = KnownNetworks::default();
        let [ada, mallory] = ["ada", "mallory"].map(|name| name.parse().unwrap());
        let now = Instant::now();
        known.add(&ada, network(1), now);
        for n in 0..=255 {
            known.add(&mallory, network(n), now);
        }
        assert!(known.has(&ada, network(1), now));
        assert!(known.has(&mallory, network(255), now));
        assert!(!known.has(&mallory, network(0), now));
    }

    #[test]
    fn no_more_users_are_remembered_than_the_bound() {
        let known = KnownNetworks::default();
        let now = Instant::now();
        for n in 0..=MAX_USERS {
            let name: UserName = format!("user-{n}").parse().unwrap();
            known.add(&name, network(1), now + Duration::from_secs(n as u64));
        }
        let last: UserName = format!("user-{MAX_USERS}").parse().unwrap();
        let end = now + Duration::from_secs(MAX_USERS as u64);
        assert!(known.has(&last, network(1), end));
        assert!(known.0.lock().unwrap().len() <= MAX_USERS);
    }
}
