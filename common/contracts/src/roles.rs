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
    pub answers: bool,
}

/// All roles.
pub const ROLES: &[RoleSpec] = &[
    RoleSpec {
        name: "orders",
        subjects: &["order", "return", "payment"],
        entities: &["order", "return"],
        answers: true,
    },
    RoleSpec {
        name: "inventory",
        subjects: &["stock"],
        entities: &["stock"],
        answers: false,
    },
    RoleSpec {
        name: "tracking",
        subjects: &["delivery"],
        entities: &["delivery"],
        answers: true,
    },
    RoleSpec {
        name: "restaurant",
        subjects: &["order"],
        entities: &["restaurant", "menu", "booking"],
        answers: true,
    },
    RoleSpec {
        name: "payments",
        subjects: &["order"],
        entities: &["payment", "account"],
        answers: true,
    },
];

#[cfg(test)]
mod tests {
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
    fn a_role_answers_where_a_request_names_it() {
        for role in ROLES {
            let is_asked = REQUESTS.iter().any(|r| r.role() == role.name);
            assert_eq!(role.answers, is_asked, "{}", role.name);
        }
        for request in REQUESTS {
            let role = request.role();
            assert!(ROLES.iter().any(|r| r.name == role), "{role}");
        }
    }
}
