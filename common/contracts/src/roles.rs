//! Roles and their subjects. Producers and consumers both declare all queues from this list, so no event is lost before its consumer first
//! starts.

/// A role and its subjects. It gets whole subjects, since a filter on types would leave gaps in sequences.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RoleSpec {
    /// The name, as in its queues' names.
    pub name: &'static str,
    /// First segments of the subjects: `order` for `order/536365`.
    pub subjects: &'static [&'static str],
    /// First segments of its entities' keys.
    pub entities: &'static [&'static str],
    /// True if it serves requests, on the queue `doorstep.rpc.NAME`.
    pub handles_requests: bool,
    /// Event families that it publishes: the first words of their types.
    pub emits: &'static [&'static str],
}

/// A program that publishes events and consumes none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PublisherSpec {
    /// The name, also of its broker user.
    pub name: &'static str,
    pub command: &'static str,
    /// Event families that it publishes.
    pub emits: &'static [&'static str],
}

pub const FAMILIES: &[&str] = &[
    "order", "return", "payment", "stock", "delivery", "request", "report", "user",
];

pub const PUBLISHERS: &[PublisherSpec] = &[
    PublisherSpec {
        name: "gateway",
        command: "gateway serve",
        emits: &["order", "stock", "delivery", "request", "user"],
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
    PublisherSpec {
        name: "access-log-import",
        command: "producer import access-log",
        emits: &["request"],
    },
    // Publishes events of other programs, of any family.
    PublisherSpec {
        name: "producer",
        command: "producer publish",
        emits: FAMILIES,
    },
];

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
    RoleSpec {
        name: "access_log",
        subjects: &["request"],
        entities: &["requests"],
        handles_requests: false,
        emits: &[],
    },
    RoleSpec {
        name: "reports",
        subjects: &["order", "return", "delivery"],
        entities: &[
            "sales",
            "deliveries",
            "order",
            "return",
            "delivery",
            "report",
            "requester",
        ],
        handles_requests: true,
        emits: &["report"],
    },
    RoleSpec {
        name: "notifications",
        subjects: &["order", "delivery", "report", "user"],
        entities: &["user", "mail", "order"],
        handles_requests: true,
        emits: &[],
    },
];

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use doorstep_event::EventType;

    use super::*;
    use crate::{registry::TYPES, requests::REQUESTS};

    #[test]
    fn each_type_has_a_role_and_vice_versa() {
        let taken: Vec<&str> = ROLES
            .iter()
            .flat_map(|role| role.subjects)
            .copied()
            .collect();
        let types: Vec<EventType> = TYPES.iter().map(|t| EventType::new(*t).unwrap()).collect();
        for kind in &types {
            assert!(taken.contains(&kind.subject_kind()), "{kind}");
        }
        for subject in taken {
            assert!(
                types.iter().any(|t| t.subject_kind() == subject),
                "{subject}"
            );
        }
    }

    #[test]
    fn families_match_the_contracts() {
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
    fn roles_with_requests_handle_requests() {
        for role in ROLES {
            let has_requests = REQUESTS.iter().any(|r| r.role() == role.name);
            assert_eq!(role.handles_requests, has_requests, "{}", role.name);
        }
        for request in REQUESTS {
            let role = request.role();
            assert!(ROLES.iter().any(|r| r.name == role), "{role}");
        }
    }
}
