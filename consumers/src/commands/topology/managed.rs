//! The part of `consumers topology verify` that uses the management API: bindings, policies and topic permissions.

use std::collections::BTreeSet;

use doorstep_cli::management::{
    Management, ManagementError, bindings, granted,
    policies::{self, Effective},
};
use doorstep_messaging::{Finding, TopicPermissions, Topology, TopologyOwner};
use serde::Serialize;

use super::VerifyJob;
use super::permissions::{PermissionsQuery, users};

/// The maximum of users named in a line.
const MAX_NAMED: usize = 10;

const BINDINGS: &str = "bindings";
const POLICIES: &str = "policies";
const TOPICS: &str = "topic permissions";

/// The management API's findings.
#[derive(Debug, Default)]
pub(super) struct Managed {
    pub(super) findings: Vec<Finding>,
    /// The areas that were compared as a whole.
    pub(super) compared: Vec<&'static str>,
    pub(super) not_compared: Vec<NotCompared>,
}

/// An area that could not be compared.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub(super) struct NotCompared {
    pub(super) what: &'static str,
    pub(super) reason: String,
}

impl Managed {
    fn compared(&mut self, what: &'static str, findings: Vec<Finding>) {
        self.compared.push(what);
        self.findings.extend(findings);
    }

    fn not_compared(&mut self, what: &'static str, reason: impl Into<String>) {
        self.not_compared.push(NotCompared {
            what,
            reason: reason.into(),
        });
    }
}

/// Compares the topology with the management API's data. Areas without data are listed with the reason.
pub(super) async fn compare(job: &VerifyJob, topology: &Topology) -> Managed {
    let mut managed = Managed::default();
    let Some(management) = &job.management else {
        for what in [BINDINGS, POLICIES, TOPICS] {
            let reason = "AMQP does not show them, and no management API is named (--management-url, DOORSTEP_MANAGEMENT_URL)";
            managed.not_compared(what, reason);
        }
        return managed;
    };
    match bindings::compare(management, topology).await {
        Ok(findings) => managed.compared(BINDINGS, findings),
        Err(error) => managed.not_compared(BINDINGS, error.to_string()),
    }
    if let Err(error) = look_at_policies(&mut managed, management, topology).await {
        managed.not_compared(POLICIES, error.to_string());
    }
    if let Err(error) = look_at_topics(&mut managed, management, job).await {
        managed.not_compared(TOPICS, error.to_string());
    }
    managed
}

async fn look_at_policies(
    managed: &mut Managed,
    management: &Management,
    topology: &Topology,
) -> Result<(), ManagementError> {
    let (mut all, mut not_shown) = (Vec::new(), Vec::new());
    for queue in &topology.queues {
        match policies::read(management, queue).await? {
            Effective::Known(findings) => all.extend(findings),
            Effective::NotShown => not_shown.push(queue.name.to_string()),
            Effective::NoQueue => {}
        }
    }
    if not_shown.is_empty() {
        managed.compared(POLICIES, all);
    } else {
        managed.findings.extend(all);
        let reason = format!(
            "the broker has no statistics, or none yet, of {}: try again in half a minute, and see whether its management collects them",
            not_shown.join(", ")
        );
        managed.not_compared(POLICIES, reason);
    }
    Ok(())
}

async fn look_at_topics(
    managed: &mut Managed,
    management: &Management,
    job: &VerifyJob,
) -> Result<(), ManagementError> {
    let granted = granted::read(management).await?;
    let wanted = wanted(job, management.vhost());
    let names: BTreeSet<_> = wanted.iter().map(|(user, _)| user.as_str()).collect();
    let (known, others): (Vec<&str>, Vec<&str>) = granted
        .users()
        .iter()
        .map(String::as_str)
        .partition(|user| names.contains(user));
    if known.is_empty() {
        let reason = format!(
            "virtual host {} has no user of the names that `topology permissions --user {}` shows: give the beginning of their names by --user",
            management.vhost(),
            job.prefix
        );
        managed.not_compared(TOPICS, reason);
        return Ok(());
    }
    let findings = wanted
        .iter()
        .filter_map(|(user, wanted)| granted.compare(user, wanted));
    let findings = findings.collect();
    managed.compared(TOPICS, findings);
    if !others.is_empty() {
        let reason = format!(
            "what other users of virtual host {} may publish is not known here ({})",
            management.vhost(),
            named(&others)
        );
        managed.not_compared("topic permissions of others", reason);
    }
    Ok(())
}

/// Lists the users of `topology permissions`, with the topic permissions that they need if the programs declare the
/// topology, and if it was declared before.
fn wanted(job: &VerifyJob, vhost: &str) -> Vec<(String, Vec<TopicPermissions>)> {
    let asked = |declared_by| PermissionsQuery {
        namespace: job.broker.namespace.clone(),
        vhost: vhost.to_owned(),
        prefix: job.prefix.clone(),
        declared_by,
    };
    let mut wanted: Vec<(String, Vec<TopicPermissions>)> = Vec::new();
    for declared_by in [TopologyOwner::Others, TopologyOwner::Programs] {
        for user in users(&asked(declared_by)) {
            let topics = user.rights.topics;
            match wanted.iter_mut().find(|(name, _)| *name == user.user) {
                Some((_, rights)) => rights.extend(topics),
                None => wanted.push((user.user, topics.into_iter().collect())),
            }
        }
    }
    wanted
}

fn named(users: &[&str]) -> String {
    let mut named = users[..users.len().min(MAX_NAMED)].join(", ");
    let more = users.len().saturating_sub(MAX_NAMED);
    if more > 0 {
        named.push_str(&format!(" and {more} more"));
    }
    named
}
