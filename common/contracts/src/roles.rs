//! Which role takes which subjects. Both sides declare every role's queue from this list before they publish or consume, so that no
//! event is published while a role's queue is still missing.

/// A role's name and the subjects that it takes, whole: a filter on types would punch gaps into sequences.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RoleSpec {
    /// The name, as in its queues' names.
    pub name: &'static str,
    /// The first segments of the subjects, such as `order` for `order/536365`.
    pub subjects: &'static [&'static str],
    /// Whether it answers requests, over the queue `doorstep.rpc.NAME`.
    pub answers: bool,
}

/// All roles.
pub const ROLES: &[RoleSpec] = &[
    RoleSpec {
        name: "orders",
        subjects: &["order", "return"],
        answers: false,
    },
    RoleSpec {
        name: "inventory",
        subjects: &["stock"],
        answers: false,
    },
    RoleSpec {
        name: "tracking",
        subjects: &["delivery"],
        answers: false,
    },
];

#[cfg(test)]
mod tests {
    use doorstep_event::EventType;

    use super::*;
    use crate::registry::TYPES;

    #[test]
    fn every_type_has_a_role_that_takes_it_and_every_subject_a_type() {
        let taken: Vec<&str> = ROLES
            .iter()
            .flat_map(|role| role.subjects)
            .copied()
            .collect();
        let told: Vec<EventType> = TYPES.iter().map(|t| EventType::new(*t).unwrap()).collect();
        // Payments are published by nobody yet.
        for kind in told.iter().filter(|t| t.subject_kind() != "payment") {
            assert!(taken.contains(&kind.subject_kind()), "{kind}");
        }
        for subject in taken {
            assert!(
                told.iter().any(|t| t.subject_kind() == subject),
                "{subject}"
            );
        }
    }
}
