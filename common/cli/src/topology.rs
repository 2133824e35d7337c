//! The queues of all roles, for programs that publish.

use doorstep_contracts::ROLES;
use doorstep_messaging::{Namespace, RoleQueues, Topology};

/// The exchanges and queues of all roles, which every program declares before it publishes, so that no event is sent before there is a queue for it.
#[must_use]
pub fn topology(namespace: &Namespace) -> Topology {
    let roles: Vec<RoleQueues> = ROLES
        .iter()
        .map(|role| RoleQueues {
            role: role.name,
            subjects: role.subjects,
            handles_requests: role.handles_requests,
        })
        .collect();
    Topology::for_roles(namespace, &roles)
}
