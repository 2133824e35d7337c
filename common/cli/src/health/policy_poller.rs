//! Polls the effective policies on the roles' queues, if a management API is configured. Without one they are unknown,
//! which is no reason for a warning.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use doorstep_messaging::{Namespace, QueuePurpose, RoleQueues, Topology};
use doorstep_runtime::runner::{ReadinessReason, ReasonName};
use tokio::time::sleep;

use super::ProcessHealth;
use crate::management::{
    Management, ManagementError,
    policies::{Effective, read},
};

/// The interval between two polls.
const INTERVAL: Duration = Duration::from_secs(30);
/// The interval while the node has no statistics yet, which it gathers every few seconds.
const UNTIL_SHOWN: Duration = Duration::from_secs(5);
/// The time for which the API may be unreachable before a warning.
const MAX_UNKNOWN: Duration = Duration::from_mins(5);

/// The policies on a role's queues, as of the last poll.
#[derive(Debug, Default)]
pub(super) struct Policies {
    losing: Vec<String>,
    unknown: Option<(Instant, String)>,
}

impl Policies {
    /// Lists the policies that can lose messages. Adds a warning if the configured API has been unreachable for long.
    pub(super) fn reasons(&self) -> Vec<ReadinessReason> {
        let unknown = self
            .unknown
            .iter()
            .filter(|(since, _)| since.elapsed() > MAX_UNKNOWN)
            .map(|(_, reason)| {
                let message = format!("the policies on its queues are not known: {reason}");
                ReadinessReason::new(ReasonName::PoliciesUnknown, message)
            });
        let losing = self.losing.iter();
        let losing =
            losing.map(|policy| ReadinessReason::new(ReasonName::PolicyLosesMessages, policy));
        losing.chain(unknown).collect()
    }

    /// Records the policies that can lose messages, or the reason why they are unknown.
    fn note(&mut self, role: &str, seen: Result<Vec<String>, String>) {
        match seen {
            Ok(losing) => {
                for reason in losing.iter().filter(|line| !self.losing.contains(line)) {
                    tracing::warn!(role, reason, "a policy can lose messages");
                }
                if losing.is_empty() && !self.losing.is_empty() {
                    tracing::info!(role, "no policy can lose messages any more");
                }
                self.losing = losing;
                self.unknown = None;
            }
            Err(reason) => {
                let since = self
                    .unknown
                    .take()
                    .map_or_else(Instant::now, |(since, _)| since);
                self.unknown = Some((since, reason));
            }
        }
    }
}

/// Polls the policies of all roles.
pub(super) async fn poll_loop(process: Arc<ProcessHealth>, management: Option<Management>) {
    let Some(management) = management else {
        return;
    };
    // Logged once for all roles, and again if it changes.
    let mut last_error: Option<ManagementError> = None;
    loop {
        let mut pause = INTERVAL;
        for role in &process.roles {
            let seen = match of_role(&management, &process.namespace, role.name).await {
                Ok(Some(losing)) => {
                    last_error = None;
                    Ok(losing)
                }
                Ok(None) => {
                    pause = UNTIL_SHOWN;
                    Err("the broker has no statistics of them".to_owned())
                }
                Err(error) => {
                    let reason = error.to_string();
                    if last_error.as_ref() != Some(&error) {
                        tracing::warn!(reason, "the policies on the queues are not known");
                        last_error = Some(error);
                    }
                    Err(reason)
                }
            };
            role.policies().note(role.name, seen);
        }
        sleep(pause).await;
    }
}

/// Lists the policies on a role's queues that can lose messages; `None` if the broker shows none per queue.
async fn of_role(
    management: &Management,
    namespace: &Namespace,
    role: &'static str,
) -> Result<Option<Vec<String>>, ManagementError> {
    let role = RoleQueues {
        role,
        subjects: &[],
        handles_requests: true,
    };
    let mut losing = Vec::new();
    for queue in &Topology::for_roles(namespace, &[role]).queues {
        if queue.purpose == QueuePurpose::DeadLetters {
            continue;
        }
        match read(management, queue).await? {
            Effective::Known(findings) => losing.extend(findings.iter().map(ToString::to_string)),
            Effective::NotShown => return Ok(None),
            // A role without requests has no such queue; a missing one is reported elsewhere.
            Effective::NoQueue => {}
        }
    }
    Ok(Some(losing))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn losing() -> ReadinessReason {
        ReadinessReason::new(ReasonName::PolicyLosesMessages, "policy p")
    }

    #[test]
    fn long_api_outage_is_a_reason() {
        let mut policies = Policies::default();
        assert_eq!(policies.reasons(), []);
        policies.note("orders", Ok(vec!["policy p".to_owned()]));
        policies.note("orders", Err("away".to_owned()));
        assert_eq!(policies.reasons(), [losing()]);
        let long_ago = Instant::now().checked_sub(MAX_UNKNOWN * 2);
        policies.unknown = Some((long_ago.unwrap(), "away".to_owned()));
        policies.note("orders", Err("still away".to_owned()));
        let reasons = policies.reasons();
        assert_eq!(reasons.len(), 2, "{reasons:?}");
        assert!(reasons[1].message.contains("still away"), "{reasons:?}");
        policies.note("orders", Ok(Vec::new()));
        assert_eq!(policies.reasons(), []);
    }
}
