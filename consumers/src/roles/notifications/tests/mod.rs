//! Tests of the role: its decisions, the words of its mails, and its task.

mod decisions;
mod letters;
mod sending;

use doorstep_contracts::{
    AddressConfirmed, AddressRemovalReason, AddressRemoved, AddressSet, DeliveryDelivered,
    EmailAddress, Label, LinkPath, OrderConfirmed, OrderPlaced, OrderRefused, RefusedBy,
    RestaurantId, SignedLink, requests::MailView,
};
use doorstep_event::{Contract, Event, Sequence, Source};
use doorstep_runtime::task::{TaskEffect, TaskEnding};

use super::*;
use crate::roles::testing::{RoleHarness, event, ten};

/// The role with its states, and a stream of events for each source and subject.
struct Shop {
    role: RoleHarness<Notifications>,
    sequences: std::collections::BTreeMap<(String, String), u64>,
}

impl Shop {
    fn new() -> Self {
        Self {
            role: RoleHarness::new(Notifications),
            sequences: std::collections::BTreeMap::new(),
        }
    }

    /// Gives the next event of a stream to the role, and then what it has scheduled.
    #[track_caller]
    fn give<C: Contract>(&mut self, program: &str, subject: &str, fact: &C) {
        let event = self.event(program, subject, fact);
        self.role.give(&event).unwrap();
        self.role.run_due_timers();
    }

    fn event<C: Contract>(&mut self, program: &str, subject: &str, fact: &C) -> Event {
        let stream = (program.to_owned(), subject.to_owned());
        let sequence = self.sequences.entry(stream).or_default();
        *sequence += 1;
        Event {
            source: Source::new(format!("{program}/1")).unwrap(),
            sequence: Some(Sequence::new(*sequence).unwrap()),
            ..event(subject, 1, fact)
        }
    }

    fn place(&mut self, program: &str, order: &str, customer: Option<&str>) {
        self.give(program, &format!("order/{order}"), &placed(customer));
    }

    fn set_address(&mut self, name: &str, address: &str, nonce: &str) {
        self.give(
            "gateway",
            &format!("user/{name}"),
            &address_set(address, nonce),
        );
    }

    fn confirm_address(&mut self, name: &str, address: &str, nonce: &str) {
        let confirmed = AddressConfirmed {
            address: EmailAddress::new(address).unwrap(),
            nonce: Label::new(nonce).unwrap(),
        };
        self.give("gateway", &format!("user/{name}"), &confirmed);
    }

    fn remove_address(&mut self, name: &str) {
        let removed = AddressRemoved {
            reason: AddressRemovalReason::Requested,
        };
        self.give("gateway", &format!("user/{name}"), &removed);
    }

    /// Gives a user a confirmed address, and forgets the mail with its link.
    fn with_address(name: &str) -> Self {
        let mut shop = Self::new();
        shop.set_address(name, &format!("{name}@example.com"), "n0");
        shop.confirm_address(name, &format!("{name}@example.com"), "n0");
        shop.role.tasks.clear();
        shop
    }

    /// Returns the ids of the started tasks, in order.
    fn started(&self) -> Vec<String> {
        let started = self.role.tasks.iter().map(|task| match task {
            TaskEffect::Start { id, .. } => id.to_string(),
            TaskEffect::Cancel(id) => panic!("{id} is cancelled"),
        });
        started.collect()
    }

    /// Returns the input of the only started task.
    #[track_caller]
    fn task(&self) -> SendMail {
        let [TaskEffect::Start { input, .. }] = self.role.tasks.as_slice() else {
            panic!("{:?}", self.role.tasks);
        };
        serde_json::from_slice(input).unwrap()
    }

    /// Returns cause, status and reason of each mail.
    fn mails(&self) -> Vec<(String, MailStatus, Option<String>)> {
        let mails = self.role.states().filter_map(|(_, state)| match state {
            Record::Mail(mail) => Some((mail.cause.clone(), mail.status, mail.reason.clone())),
            Record::User(_) | Record::Order(_) => None,
        });
        mails.collect()
    }

    #[track_caller]
    fn listed(&self, name: &str) -> MailsView {
        let customer = CustomerId::new(name).unwrap();
        self.role.query(&ReadMails { customer }).unwrap()
    }

    #[track_caller]
    fn ended(&mut self, task: &str, name: &str, ending: TaskEnding, detail: &str) {
        let outcome = TaskOutcome {
            task: task.to_owned(),
            kind: doorstep_runtime::task::kind_of::<SendMail>(),
            subject: CustomerId::new(name).unwrap().user_subject(),
            ending,
            detail: detail.to_owned(),
        };
        self.role.execute(&outcome).unwrap();
    }
}

fn placed(customer: Option<&str>) -> OrderPlaced {
    let golden = include_str!("../../../../../common/contracts/golden/order.placed.v1.json");
    OrderPlaced {
        customer: customer.map(|name| CustomerId::new(name).unwrap()),
        ..serde_json::from_str(golden).unwrap()
    }
}

fn address_set(address: &str, nonce: &str) -> AddressSet {
    AddressSet {
        address: EmailAddress::new(address).unwrap(),
        link: SignedLink {
            path: LinkPath::new(&format!("/confirm-email/{nonce}")).unwrap(),
            expires_at: ten(),
        },
        nonce: Label::new(nonce).unwrap(),
    }
}

fn confirmed() -> OrderConfirmed {
    OrderConfirmed {
        restaurant: RestaurantId::new("luigi").unwrap(),
        promised_at: ten(),
    }
}

fn refused() -> OrderRefused {
    OrderRefused {
        by: RefusedBy::Payment,
        reason: Label::new("card_declined").unwrap(),
    }
}

fn delivered() -> DeliveryDelivered {
    DeliveryDelivered {
        delivered_at: ten(),
    }
}

fn statuses(mails: &[MailView]) -> Vec<(&str, MailStatus)> {
    mails
        .iter()
        .map(|mail| (&*mail.cause, mail.status))
        .collect()
}
