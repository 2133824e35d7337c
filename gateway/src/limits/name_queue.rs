//! A virtual queue for each user name. Login attempts from networks that are unknown for the name get its slots one
//! after the other, each network one at a time. So many guessing networks delay a new one, and never keep it out.
//!
//! No request waits here: a network that comes too early is told when its slot begins, and gets the slot if it returns
//! then.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use crate::domain::UserName;

/// The time between two slots of a name, and the number of slots that may be used at once after a quiet time.
const SLOT: Duration = Duration::from_secs(1);
const BURST: u32 = 200;
/// The longest wait for a slot, which limits the queue of a name to 300 networks that guess without pause.
const MAX_WAIT: Duration = Duration::from_secs(300);
/// The `Retry-After` when the queue is longer: a slot may be free then.
const RETRY_AFTER: Duration = Duration::from_secs(10);
/// The time for which a slot is kept for a network that does not return.
const HOLD: Duration = Duration::from_secs(60);
/// The limit of kept slots. Beyond it no network waits until some are used or have expired.
const MAX_SLOTS: usize = 20_000;
/// The limit of names. Beyond it, the half with the fewest attempts is forgotten.
const MAX_NAMES: usize = 10_000;

/// The queues by name. Unknown names have them too, so they do not reveal which users exist.
#[derive(Debug, Default)]
pub(super) struct NameQueues(Mutex<Queues>);

#[derive(Debug, Default)]
struct Queues {
    /// The end of the last slot assigned to each name.
    ends: HashMap<UserName, Instant>,
    /// The start of each slot that a network waits for.
    slots: HashMap<(UserName, IpAddr), Instant>,
}

impl NameQueues {
    /// Takes a slot of this name for an attempt from this network.
    ///
    /// # Errors
    /// It is not the network's turn; contains the time until it is.
    pub(super) fn take(
        &self,
        name: &UserName,
        network: IpAddr,
        now: Instant,
    ) -> Result<(), Duration> {
        let mut queues = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let waiting = (name.clone(), network);
        match queues.slots.get(&waiting) {
            Some(slot) if *slot > now => return Err(*slot - now),
            Some(slot) => {
                let is_kept = now - *slot < HOLD;
                queues.slots.remove(&waiting);
                if is_kept {
                    return Ok(());
                }
            }
            None => {}
        }
        let end = queues.end(name, now) + SLOT;
        let wait = (end - now).saturating_sub(SLOT * BURST);
        if wait.is_zero() {
            queues.ends.insert(name.clone(), end);
            return Ok(());
        }
        if wait > MAX_WAIT || !queues.has_room(now) {
            return Err(RETRY_AFTER);
        }
        queues.ends.insert(name.clone(), end);
        queues.slots.insert(waiting, now + wait);
        Err(wait)
    }

    /// Lets the network retry at once: another limit has rejected its attempt.
    pub(super) fn keep(&self, name: &UserName, network: IpAddr, now: Instant) {
        let mut queues = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if queues.has_room(now) {
            queues.slots.insert((name.clone(), network), now);
        }
    }

    /// Gives back the slot of a login that did not fail.
    pub(super) fn give_back(&self, name: &UserName) {
        let mut queues = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(end) = queues.ends.get_mut(name) {
            *end = end.checked_sub(SLOT).unwrap_or(*end);
        }
    }
}

impl Queues {
    /// Returns the end of the last slot assigned to this name, or now if there is none.
    fn end(&mut self, name: &UserName, now: Instant) -> Instant {
        if self.ends.len() >= MAX_NAMES && !self.ends.contains_key(name) {
            let mut ends: Vec<Instant> = self.ends.values().copied().collect();
            let middle = ends.len() / 2;
            let (_, median, _) = ends.select_nth_unstable(middle);
            let median = now.max(*median);
            self.ends.retain(|_, end| *end > median);
        }
        self.ends.get(name).map_or(now, |end| now.max(*end))
    }

    /// Returns true if another slot can be kept.
    fn has_room(&mut self, now: Instant) -> bool {
        if self.slots.len() >= MAX_SLOTS {
            self.slots
                .retain(|_, slot| now.saturating_duration_since(*slot) < HOLD);
        }
        self.slots.len() < MAX_SLOTS
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn network(n: usize) -> IpAddr {
        let [.., high, low] = n.to_be_bytes();
        [198, 51, high, low].into()
    }

    fn name(text: &str) -> UserName {
        text.parse().unwrap()
    }

    /// Returns queues in which the burst of a quiet time is used up.
    fn busy(now: Instant) -> NameQueues {
        let queues = NameQueues::default();
        for _ in 0..BURST {
            queues.take(&name("ada"), network(0), now).unwrap();
        }
        queues
    }

    #[test]
    fn network_waits_for_one_slot_of_its_own() {
        let now = Instant::now();
        let queues = busy(now);
        let ada = name("ada");
        for n in 1..=3 {
            let wait = queues.take(&ada, network(n), now).unwrap_err();
            assert_eq!(wait, SLOT * u32::try_from(n).unwrap());
        }
        // A network that retries often keeps its slot, and so does the next one.
        for _ in 0..100 {
            assert_eq!(queues.take(&ada, network(1), now), Err(SLOT));
        }
        assert_eq!(queues.take(&ada, network(4), now), Err(SLOT * 4));
        assert_eq!(queues.take(&name("bob"), network(1), now), Ok(()));
        assert_eq!(queues.take(&ada, network(3), now + SLOT * 3), Ok(()));
        assert_eq!(queues.take(&ada, network(3), now + SLOT * 3), Err(SLOT * 2));
    }

    #[test]
    fn a_slot_is_kept_for_a_minute() {
        let now = Instant::now();
        let queues = busy(now);
        let ada = name("ada");
        for n in 1..=200 {
            queues.take(&ada, network(n), now).unwrap_err();
        }
        let end = now + SLOT + HOLD;
        assert_eq!(queues.take(&ada, network(2), end), Ok(()));
        assert!(queues.take(&ada, network(1), end).is_err());
    }

    #[test]
    fn successful_login_takes_no_slot() {
        let now = Instant::now();
        let queues = NameQueues::default();
        let ada = name("ada");
        for _ in 0..BURST * 2 {
            queues.take(&ada, network(0), now).unwrap();
            queues.give_back(&ada);
        }
        let queues = busy(now);
        queues.keep(&ada, network(0), now);
        assert_eq!(queues.take(&ada, network(0), now), Ok(()));
        assert!(queues.take(&ada, network(0), now).is_err());
    }

    #[test]
    fn queues_names_and_slots_are_bounded() {
        let now = Instant::now();
        let queues = busy(now);
        let ada = name("ada");
        let waits = (1..=1000).map(|n| queues.take(&ada, network(n), now).unwrap_err());
        assert_eq!(waits.max(), Some(MAX_WAIT));
        for n in 0..=MAX_NAMES {
            let _ = queues.take(&name(&format!("user-{n}")), network(0), now);
        }
        let kept = queues.0.lock().unwrap();
        assert!(kept.ends.len() <= MAX_NAMES);
        assert_eq!(kept.slots.len(), 300);
        // The name that is being guessed stays.
        assert!(kept.ends.contains_key(&ada));
        drop(kept);
        assert_eq!(queues.take(&ada, network(5000), now), Err(RETRY_AFTER));
    }
}
