//! Mail addresses of users: set, confirmed by a mailed link, removed; and the choice of mails.

use doorstep_contracts::{
    AddressConfirmed, AddressRemovalReason, AddressRemoved, AddressSet, EmailAddress,
};
use doorstep_event::{Rejection, Subject, Timestamp};
use doorstep_runtime::{CommandOutcome, Effects, States};
use doorstep_store::EntityKey;
use sha2::{Digest, Sha256};

use super::{
    Command, Entity, Executed,
    entities::{ConfirmedAddress, MailedLinks, PendingAddress, UserName},
    rejected,
    requests::{Ack, ChooseNotifications, ConfirmEmail, RemoveEmail, SetEmail},
    user::{known, not_deleted},
};

/// The limit of addresses that a user sets in 24 hours.
const MAX_SETTINGS: usize = 5;
/// The limit of mails that ask the owner of an address to confirm it in 24 hours, whichever users set it.
const MAX_CONFIRMATIONS: usize = 3;

impl Command for SetEmail {
    fn keys(&self) -> Vec<EntityKey> {
        vec![self.name.entity(), address_key(&self.address)]
    }

    /// Sets an address, which counts only once it is confirmed.
    fn execute(&self, states: &mut States<Entity>, now: Timestamp) -> Executed {
        let mut user = known(states, &self.name)?;
        not_deleted(&user, &self.name)?;
        if !user.email.settings.record(MAX_SETTINGS, now) {
            return Err(too_many("this user has set too many addresses"));
        }
        let key = address_key(&self.address);
        let mut mails = match states.get(&key) {
            Some(Entity::Address(mails)) => mails.clone(),
            _ => MailedLinks::default(),
        };
        if !mails.at.record(MAX_CONFIRMATIONS, now) {
            return Err(too_many("this address was sent too many links"));
        }
        user.email.pending = Some(PendingAddress {
            address: self.address.clone(),
            nonce: self.nonce.clone(),
            expires_at: self.link.expires_at,
        });
        let set = AddressSet {
            address: self.address.clone(),
            link: self.link.clone(),
            nonce: self.nonce.clone(),
        };
        let mut effects = Effects::none();
        effects.publish(&subject(&self.name), &set)?;
        states.put(&key, Entity::Address(mails));
        states.put(&self.name.entity(), Entity::User(user));
        CommandOutcome::new::<Self>(&Ack {}, effects)
    }
}

impl Command for ConfirmEmail {
    fn keys(&self) -> Vec<EntityKey> {
        vec![self.name.entity()]
    }

    /// Confirms the address that was set under the nonce. A repeated confirmation has no effect.
    fn execute(&self, states: &mut States<Entity>, now: Timestamp) -> Executed {
        let outdated = || {
            rejected(
                "link_outdated",
                "this link is for an address that was set anew or removed since: use the latest link",
            )
        };
        let mut user = known(states, &self.name).map_err(|_| outdated())?;
        let confirmed = user.email.confirmed.as_ref();
        if confirmed.is_some_and(|confirmed| confirmed.nonce == self.nonce) {
            return CommandOutcome::new::<Self>(&Ack {}, Effects::none());
        }
        let pending = user.email.pending.take();
        let pending = pending.filter(|set| set.nonce == self.nonce && now < set.expires_at);
        let Some(PendingAddress { address, nonce, .. }) = pending else {
            return Err(outdated());
        };
        let event = AddressConfirmed {
            address: address.clone(),
            nonce: nonce.clone(),
        };
        user.email.confirmed = Some(ConfirmedAddress { address, nonce });
        let mut effects = Effects::none();
        effects.publish(&subject(&self.name), &event)?;
        states.put(&self.name.entity(), Entity::User(user));
        CommandOutcome::new::<Self>(&Ack {}, effects)
    }
}

impl Command for RemoveEmail {
    fn keys(&self) -> Vec<EntityKey> {
        vec![self.name.entity()]
    }

    /// Removes the addresses, confirmed or not.
    fn execute(&self, states: &mut States<Entity>, _now: Timestamp) -> Executed {
        let mut user = known(states, &self.name)?;
        not_deleted(&user, &self.name)?;
        let mut effects = Effects::none();
        if user.email.remove_addresses() {
            let reason = AddressRemovalReason::Requested;
            effects.publish(&subject(&self.name), &AddressRemoved { reason })?;
        }
        states.put(&self.name.entity(), Entity::User(user));
        CommandOutcome::new::<Self>(&Ack {}, effects)
    }
}

impl Command for ChooseNotifications {
    fn keys(&self) -> Vec<EntityKey> {
        vec![self.name.entity()]
    }

    /// Stores the choice of mails. A repeated choice has no effect.
    fn execute(&self, states: &mut States<Entity>, _now: Timestamp) -> Executed {
        let mut user = known(states, &self.name)?;
        not_deleted(&user, &self.name)?;
        let mut effects = Effects::none();
        if user.email.choices != Some(self.choices) {
            effects.publish(&subject(&self.name), &self.choices)?;
            user.email.choices = Some(self.choices);
            states.put(&self.name.entity(), Entity::User(user));
        }
        CommandOutcome::new::<Self>(&Ack {}, effects)
    }
}

fn subject(name: &UserName) -> Subject {
    name.customer().user_subject()
}

/// Returns the key of an address. Mail servers differ in the case of names, so all forms count together.
fn address_key(address: &EmailAddress) -> EntityKey {
    let digest = Sha256::digest(address.expose().to_ascii_lowercase());
    EntityKey::new(format!("address/{}", hex::encode(digest)))
}

fn too_many(detail: &'static str) -> Rejection {
    let detail = format!("{detail} in 24 hours; wait, or use the latest link");
    rejected("too_many_confirmations", detail)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use doorstep_contracts::{Label, LinkPath, NotificationsChosen, SignedLink};

    use super::*;
    use crate::domain::{
        SetUserStatus, UserRole, UserStatus,
        tests::{TestDomain, add},
    };

    /// The first user has the first name.
    fn domain() -> TestDomain {
        let mut domain = TestDomain::default();
        for name in ["ada", "bob", "cleo"] {
            domain.execute(&add(name, UserRole::Customer)).unwrap();
        }
        domain
    }

    fn set(name: &str, address: &str, nonce: &str) -> SetEmail {
        SetEmail {
            name: name.parse().unwrap(),
            address: EmailAddress::new(address).unwrap(),
            nonce: Label::new(nonce).unwrap(),
            link: SignedLink {
                path: LinkPath::new("/confirm-email/x").unwrap(),
                expires_at: "2026-11-25T12:00:00Z".parse().unwrap(),
            },
        }
    }

    fn confirm(name: &str, nonce: &str) -> ConfirmEmail {
        ConfirmEmail {
            name: name.parse().unwrap(),
            nonce: Label::new(nonce).unwrap(),
        }
    }

    fn code(refused: Result<Ack, Rejection>) -> String {
        refused.unwrap_err().code
    }

    #[test]
    fn an_address_counts_once_its_link_was_used() {
        let mut domain = domain();
        domain.execute(&set("ada", "a@example.com", "1")).unwrap();
        domain.execute(&confirm("ada", "1")).unwrap();
        domain.execute(&confirm("ada", "1")).unwrap();
        domain.execute(&set("ada", "b@example.com", "2")).unwrap();
        domain.execute(&set("ada", "c@example.com", "3")).unwrap();
        assert_eq!(code(domain.execute(&confirm("ada", "2"))), "link_outdated");
        domain.execute(&confirm("ada", "3")).unwrap();
        assert_eq!(code(domain.execute(&confirm("ada", "1"))), "link_outdated");
        assert_eq!(code(domain.execute(&confirm("bob", "3"))), "link_outdated");
        assert_eq!(
            code(domain.execute(&confirm("nobody", "3"))),
            "link_outdated"
        );
        let [set, confirmed] = ["user.address_set.v1", "user.address_confirmed.v1"];
        assert_eq!(
            domain.emitted("user/ada"),
            [set, confirmed, set, set, confirmed]
        );
    }

    #[test]
    fn a_link_expires_in_the_domain_too() {
        let mut domain = domain();
        domain.execute(&set("ada", "a@example.com", "1")).unwrap();
        domain.elapsed = Duration::from_hours(24);
        assert_eq!(code(domain.execute(&confirm("ada", "1"))), "link_outdated");
    }

    #[test]
    fn settings_and_links_have_limits() {
        let mut domain = domain();
        for n in 0..MAX_SETTINGS {
            let address = format!("{n}@example.com");
            domain
                .execute(&set("ada", &address, &n.to_string()))
                .unwrap();
        }
        let refused = domain.execute(&set("ada", "z@example.com", "z"));
        assert_eq!(code(refused), "too_many_confirmations");
        // Nobody is sent many links by us, whichever users ask for it, and in whichever case.
        for (name, address) in [
            ("bob", "v@example.com"),
            ("cleo", "V@Example.com"),
            ("bob", "v@EXAMPLE.com"),
        ] {
            domain.execute(&set(name, address, "1")).unwrap();
        }
        let refused = domain.execute(&set("cleo", "v@example.com", "2"));
        assert_eq!(code(refused), "too_many_confirmations");
        domain.elapsed = Duration::from_hours(24) + Duration::from_secs(1);
        domain.execute(&set("ada", "z@example.com", "z")).unwrap();
        domain.execute(&set("cleo", "v@example.com", "2")).unwrap();
    }

    #[test]
    fn removal_and_deletion_take_the_address_away_once() {
        let mut domain = domain();
        let remove = RemoveEmail {
            name: "ada".parse().unwrap(),
        };
        domain.execute(&remove).unwrap();
        domain.execute(&set("ada", "a@example.com", "1")).unwrap();
        domain.execute(&remove).unwrap();
        domain.execute(&remove).unwrap();
        assert_eq!(code(domain.execute(&confirm("ada", "1"))), "link_outdated");
        domain.execute(&set("ada", "a@example.com", "2")).unwrap();
        domain.execute(&confirm("ada", "2")).unwrap();
        let delete = SetUserStatus {
            name: "ada".parse().unwrap(),
            status: UserStatus::Deleted,
            other_operator: None,
        };
        domain.execute(&delete).unwrap();
        assert_eq!(
            code(domain.execute(&set("ada", "a@example.com", "3"))),
            "user_deleted"
        );
        let emitted = domain.emitted("user/ada");
        let removed = emitted
            .iter()
            .filter(|kind| **kind == "user.address_removed.v1");
        assert_eq!(removed.count(), 2);
        assert_eq!(emitted.last(), Some(&"user.address_removed.v1"));
    }

    #[test]
    fn a_choice_is_told_once() {
        let mut domain = domain();
        let mut choose = ChooseNotifications {
            name: "ada".parse().unwrap(),
            choices: NotificationsChosen::default(),
        };
        domain.execute(&choose).unwrap();
        domain.execute(&choose).unwrap();
        choose.choices.reports = false;
        domain.execute(&choose).unwrap();
        assert_eq!(
            domain.emitted("user/ada"),
            ["user.notifications_chosen.v1"; 2]
        );
    }
}
