//! The queues of all roles.

use doorstep_contracts::ROLES;
use doorstep_messaging::{Namespace, RoleQueues, Topology};

/// The exchanges and queues of all roles, which every program declares before it publishes or consumes, so that no event is sent before
/// there is a queue for it. A process with a single role must not leave the others' events unroutable.
#[must_use]
pub fn topology(namespace: &Namespace) -> Topology {
    Topology::for_roles(namespace, &role_queues())
}

/// The queues of each role.
#[must_use]
pub fn role_queues() -> Vec<RoleQueues> {
    let queues = ROLES.iter().map(|role| RoleQueues {
        role: role.name,
        subjects: role.subjects,
        handles_requests: role.handles_requests,
    });
    queues.collect()
}
