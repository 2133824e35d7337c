//! Which role takes which subjects. Both sides declare every role's queue from this list before they publish or consume, so that no
//! event is published while a role's queue is still missing.

/// A role's name and the subjects that it takes, whole: a filter on types would punch gaps into sequences.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RoleSpec {
    /// The name, as in its queues' names.
    pub name: &'static str,
    /// The first segments of the subjects, such as `order` for `order/536365`.
    pub subjects: &'static [&'static str],
    /// The first segments of its entities' keys.
    pub entities: &'static [&'static str],
    /// Whether it answers requests, over the queue `doorstep.rpc.NAME`.
    pub handles_requests: bool,
    /// The families of events that it publishes: the first words of their types.
    pub emits: &'static [&'static str],
}

/// A program that publishes events and consumes none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PublisherSpec {
    /// The name, as of its user of the broker.
    pub name: &'static str,
    /// The command.
    pub command: &'static str,
    /// The families of events that it publishes.
    pub emits: &'static [&'static str],
}

/// The families of all events.
pub const FAMILIES: &[&str] = &["order", "return", "payment", "stock", "delivery"];

/// All programs that publish events and consume none.
pub const PUBLISHERS: &[PublisherSpec] = &[
    PublisherSpec {
        name: "gateway",
        command: "producer serve",
        emits: &["order", "stock", "delivery"],
    },
    PublisherSpec {
        name: "retail",
        command: "producer import retail",
        emits: &["order", "return", "stock"],
    },
    PublisherSpec {
        name: "pickups",
        command: "producer import pickups",
        emits: &["delivery"],
    },
    // Events of other programs, whatever they are about.
    PublisherSpec {
        name: "producer",
        command: "producer publish",
        emits: FAMILIES,
    },
];

/// All roles.
pub const ROLES: &[RoleSpec] = &[
    RoleSpec {
        name: "orders",
        subjects: &["order", "return", "payment"],
        entities: &["order", "return"],
        handles_requests: true,
        emits: &[],
    },
    RoleSpec {
        name: "inventory",
        subjects: &["stock"],
        entities: &["stock"],
        handles_requests: false,
        emits: &[],
    },
    RoleSpec {
        name: "tracking",
        subjects: &["delivery"],
        entities: &["delivery"],
        handles_requests: true,
        emits: &[],
    },
    RoleSpec {
        name: "restaurant",
        subjects: &["order"],
        entities: &["restaurant", "menu", "booking"],
        handles_requests: true,
        emits: &[],
    },
    RoleSpec {
        name: "payments",
        subjects: &["order"],
        entities: &["payment", "account"],
        handles_requests: true,
        emits: &["payment"],
    },
];

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use doorstep_event::EventType;

    use super::*;
    use crate::{registry::TYPES, requests::REQUESTS};

    #[test]
    fn every_type_has_a_role_that_takes_it_and_every_subject_a_type() {
        let taken: Vec<&str> = ROLES
            .iter()
            .flat_map(|role| role.subjects)
            .copied()
            .collect();
        let told: Vec<EventType> = TYPES.iter().map(|t| EventType::new(*t).unwrap()).collect();
        for kind in &told {
            assert!(taken.contains(&kind.subject_kind()), "{kind}");
        }
        for subject in taken {
            assert!(
                told.iter().any(|t| t.subject_kind() == subject),
                "{subject}"
            );
        }
    }

    #[test]
    fn every_family_of_the_contracts_can_be_published() {
        let known: BTreeSet<_> = TYPES
            .iter()
            .map(|kind| kind.split('.').next().unwrap())
            .collect();
        assert_eq!(BTreeSet::from_iter(FAMILIES.iter().copied()), known);
        let roles = ROLES.iter().flat_map(|role| role.emits);
        for family in roles.chain(PUBLISHERS.iter().flat_map(|p| p.emits)) {
            assert!(FAMILIES.contains(family), "{family}");
        }
    }

    #[test]
    fn a_role_answers_where_a_request_names_it() {
        for role in ROLES {
            let is_asked = REQUESTS.iter().any(|r| r.role() == role.name);
            assert_eq!(role.handles_requests, is_asked, "{}", role.name);
        }
        for request in REQUESTS {
            let role = request.role();
            assert!(ROLES.iter().any(|r| r.name == role), "{role}");
        }
    }
}
