//! The readiness of a role, derived from its monitored state, with every reason against it.

use std::time::Duration;

use doorstep_messaging::{ConnectionPhase as LinkPhase, ConnectionStatus};
use doorstep_runtime::runner::{Phase, ReadinessReason, ReasonName};
use doorstep_telemetry::health::{HealthReason, HealthStatus, RoleHealth};

use doorstep_store::Summary;

use super::poller::{ConsumerCount, Polled};

/// The time for which the broker's count may be unknown before a warning.
const COUNT_UNKNOWN: Duration = Duration::from_secs(30);
/// The time for which a delivery may be unacked, or an outbox row pending, before a warning.
const OLD: Duration = Duration::from_secs(60);
/// The time for which a task may wait before a warning: a few retries.
const LATE: Duration = Duration::from_mins(10);

/// The monitored state of a role.
#[derive(Debug, Clone)]
pub(super) struct RoleSnapshot {
    pub(super) role: &'static str,
    pub(super) phase: Phase,
    pub(super) degraded: Vec<ReadinessReason>,
    pub(super) consume: ConsumerLink,
    pub(super) quarantine: ConsumerLink,
    pub(super) unsettled: u64,
    pub(super) oldest_unsettled: Option<Duration>,
    pub(super) polled: Polled,
    /// The policies that can lose messages.
    pub(super) policies: Vec<ReadinessReason>,
}

/// The connection that a role consumes by, reduced to its effect on readiness.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum ConsumerLink {
    /// The connection is up.
    Open,
    /// The role has no queue, so there is no connection.
    NoQueue,
    /// The connection is down, for this reason.
    Away(String),
}

impl ConsumerLink {
    pub(super) fn from_status(link: &ConnectionStatus) -> Self {
        match &link.phase {
            // A blocked connection still consumes; its effects are among the degraded reasons.
            LinkPhase::Connected | LinkPhase::Blocked(_) => Self::Open,
            LinkPhase::Suspended { unacked_for } => Self::Away(format!(
                "deliveries could not be acknowledged for {unacked_for:.0?}, so it is suspended until they can be taken"
            )),
            LinkPhase::Draining => Self::Away("it is being closed".to_owned()),
            LinkPhase::Closed => Self::Away("it is closed".to_owned()),
            LinkPhase::Connecting => Self::Away(match &link.last_error {
                Some(error) => error.to_string(),
                None => "it is being made".to_owned(),
            }),
        }
    }

    /// The health before anything is known.
    pub(super) fn not_begun() -> Self {
        Self::Away("it is not begun yet".to_owned())
    }
}

/// Returns the reason why a process cannot call other roles. It makes the first role degraded only, since all work
/// without calls goes on.
pub(super) fn rpc_degraded_reason(link: &ConnectionStatus) -> Option<ReadinessReason> {
    match (&link.phase, ConsumerLink::from_status(link)) {
        (LinkPhase::Blocked(reason), _) => Some(ReadinessReason::new(
            ReasonName::BrokerBlocked,
            format!("the broker takes no requests to others for now ({reason})"),
        )),
        (_, ConsumerLink::Away(reason)) => {
            let message = format!("no connection to call other roles: {reason}");
            Some(ReadinessReason::new(
                ReasonName::NoRpcClientConnection,
                message,
            ))
        }
        (_, ConsumerLink::Open | ConsumerLink::NoQueue) => None,
    }
}

/// Derives the health of a role.
pub(super) fn evaluate(seen: RoleSnapshot) -> RoleHealth {
    let summary = seen.polled.summary.as_ref();
    let oldest_outbox_ms = summary.and_then(|s| s.oldest_outbox_ms);
    let oldest_held_ms = summary.and_then(|s| s.oldest_held_ms);
    let against = unready_reasons(&seen);
    let worth_a_look = degraded_reasons(&seen, oldest_outbox_ms);
    let status = match (against.is_empty(), worth_a_look.is_empty()) {
        (false, _) => HealthStatus::Unready,
        (true, false) => HealthStatus::Degraded,
        (true, true) => HealthStatus::Ready,
    };
    let reasons = against
        .into_iter()
        .chain(worth_a_look)
        .map(published)
        .collect();
    RoleHealth {
        role: seen.role.to_owned(),
        status,
        phase: as_str(&seen.phase).to_owned(),
        reasons,
        consumers: match seen.polled.consumers {
            ConsumerCount::Known { queue, .. } => Some(queue),
            ConsumerCount::Unknown { .. } | ConsumerCount::NoQueue => None,
        },
        unsettled: seen.unsettled,
        oldest_unsettled_ms: seen.oldest_unsettled.map(milliseconds),
        oldest_outbox_ms,
        oldest_held_ms,
        dead_letters: summary.map(|s| s.usage.dead_letters.rows),
        oldest_dead_letter_ms: summary.and_then(|s| s.oldest_dead_ms),
        blocked_streams: summary.map(|s| s.blocked),
    }
}

/// Returns the form of a reason in an answer.
pub(super) fn published(reason: ReadinessReason) -> HealthReason {
    HealthReason {
        name: reason.name.as_str().to_owned(),
        message: reason.message,
    }
}

/// Lists the reasons why a role does not do its work.
fn unready_reasons(seen: &RoleSnapshot) -> Vec<ReadinessReason> {
    let mut reasons = Vec::new();
    let mut add = |name, message: String| reasons.push(ReadinessReason::new(name, message));
    match &seen.phase {
        Phase::Consuming => {}
        Phase::Starting => add(
            ReasonName::Starting,
            "it has not got through to the broker yet".to_owned(),
        ),
        Phase::Paused { reason } => add(ReasonName::StoreUnavailable, format!("paused: {reason}")),
        Phase::Full { table } => {
            add(
                ReasonName::StoreFull,
                format!("the store's {table} are at their bound"),
            );
        }
        Phase::Stopping => add(ReasonName::Stopping, "it is stopping".to_owned()),
        Phase::Stopped => add(ReasonName::Stopping, "it has ended".to_owned()),
    }
    if let ConsumerLink::Away(reason) = &seen.consume {
        add(
            ReasonName::NoConsumerConnection,
            format!("no connection to consume by: {reason}"),
        );
    }
    if let ConsumerLink::Away(reason) = &seen.quarantine {
        add(
            ReasonName::NoQuarantineConnection,
            format!("no connection to the quarantine: {reason}"),
        );
    }
    if let ConsumerCount::Known { queue, quarantine } = seen.polled.consumers {
        if queue == 0 {
            add(
                ReasonName::NoConsumer,
                "the broker counts no consumer on its queue".to_owned(),
            );
        }
        if quarantine == 0 {
            add(
                ReasonName::NoConsumer,
                "the broker counts no consumer on its quarantine queue".to_owned(),
            );
        }
    }
    reasons
}

/// Lists the reasons for which an operator should look at a role, even though it works.
fn degraded_reasons(seen: &RoleSnapshot, oldest_outbox_ms: Option<u64>) -> Vec<ReadinessReason> {
    let mut reasons = seen.degraded.clone();
    reasons.extend_from_slice(&seen.policies);
    if let Some(summary) = &seen.polled.summary {
        reasons.extend(restored(summary, seen.role));
        reasons.extend(dead_letters(summary, seen.role));
        reasons.extend(tasks(summary, seen.role));
    }
    let mut add = |name, message: String| reasons.push(ReadinessReason::new(name, message));
    if let ConsumerCount::Unknown { since, reason } = &seen.polled.consumers
        && since.elapsed() > COUNT_UNKNOWN
    {
        add(
            ReasonName::ConsumerCountUnknown,
            format!("the broker's count of consumers is not known: {reason}"),
        );
    }
    if let Some(age) = seen.oldest_unsettled.filter(|age| *age > OLD) {
        add(
            ReasonName::DeliveryUnacked,
            format!("a delivery has been unacked for {age:.0?}"),
        );
    }
    if let Some(age) = oldest_outbox_ms
        .map(Duration::from_millis)
        .filter(|age| *age > OLD)
    {
        add(
            ReasonName::OutboxStalled,
            format!("a row of the outbox has been pending for {age:.0?}"),
        );
    }
    if let Some(ahead) = seen.polled.summary.as_ref().map(|s| s.dated_ahead)
        && ahead > 0
    {
        add(
            ReasonName::RowsDatedAhead,
            format!(
                "{ahead} rows of the store are dated ahead of the clock, which was ahead when they were written or is behind now: they are older \
             than can be told; if the clock is wrong, set it right"
            ),
        );
    }
    reasons
}

/// Counts the dead letters that need an operator, and the streams that they block.
fn dead_letters(summary: &Summary, role: &str) -> Option<ReadinessReason> {
    let count = summary.usage.dead_letters.rows;
    let await_operator = match count {
        0 => return None,
        1 => "1 dead letter awaits".to_owned(),
        count => format!("{count} dead letters await"),
    };
    let oldest = Duration::from_millis(summary.oldest_dead_ms.unwrap_or(0));
    let streams = match summary.blocked {
        0 => "no stream is blocked".to_owned(),
        1 => "1 stream is blocked".to_owned(),
        blocked => format!("{blocked} streams are blocked"),
    };
    let message = format!(
        "{await_operator} an operator, the oldest for {oldest:.0?}; {streams}: `consumers dead-letters list {role}` shows why"
    );
    Some(ReadinessReason::new(ReasonName::DeadLetters, message))
}

/// Lists the kinds of tasks of unknown effect, and those that wait for long.
fn tasks(summary: &Summary, role: &str) -> Vec<ReadinessReason> {
    let mut reasons = Vec::new();
    for of in &summary.tasks {
        let kind = &of.kind;
        if of.unknown > 0 {
            let message = format!(
                "the effect of {} {kind} is unknown: `consumers tasks list {role} --state unknown` shows them, `consumers tasks retry` and \
                 `resolve` decide",
                of.unknown
            );
            reasons.push(ReadinessReason::new(ReasonName::TaskUnknown, message));
        }
        let oldest = of.oldest_ready_ms.map(Duration::from_millis);
        if let Some(age) = oldest.filter(|age| *age > LATE) {
            let message = format!(
                "{} {kind} wait to be run, the oldest for {age:.0?}: `consumers tasks list {role}` shows their errors",
                of.ready
            );
            reasons.push(ReadinessReason::new(ReasonName::TaskLate, message));
        }
    }
    reasons
}

/// The maximum of restored sources that are named.
const MAX_NAMED: usize = 5;

/// Lists the stores and sources that were restored or copied and are not accepted yet.
fn restored(summary: &Summary, role: &str) -> Vec<ReadinessReason> {
    let own = summary.restored.iter().map(|mark| {
        format!(
            "the store counts as restored since {}: {}; `{}` ends this",
            mark.since,
            mark.detail,
            accepted_by(role)
        )
    });
    let sources = summary.restored_sources.iter().take(MAX_NAMED).map(|found| {
        let source = &found.source;
        format!(
            "the store of {source} was restored or copied, found {}: {} of its events are dead letters by a numbering conflict; give it a \
             new source by `store restored` there, then `consumers store accept {role} --source {source}`",
            found.since, found.conflicts
        )
    });
    let more = summary.restored_sources.len().saturating_sub(MAX_NAMED);
    let rest = (more > 0).then(|| format!("{more} more sources were restored or copied"));
    let named = |name| move |message: String| ReadinessReason::new(name, message);
    let sources = sources.chain(rest).map(named(ReasonName::SourceRestored));
    own.map(named(ReasonName::StoreRestored))
        .chain(sources)
        .collect()
}

/// Returns the command that accepts a restored store.
fn accepted_by(role: &str) -> String {
    match role {
        // Its store belongs to another program.
        "gateway" => "gateway store accept".to_owned(),
        role => format!("consumers store accept {role}"),
    }
}

fn as_str(phase: &Phase) -> &'static str {
    match phase {
        Phase::Starting => "starting",
        Phase::Consuming => "taking",
        Phase::Paused { .. } => "paused",
        Phase::Full { .. } => "full",
        Phase::Stopping => "stopping",
        Phase::Stopped => "stopped",
    }
}

fn milliseconds(age: Duration) -> u64 {
    u64::try_from(age.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use doorstep_store::Summary;

    use super::*;

    fn well() -> RoleSnapshot {
        RoleSnapshot {
            role: "orders",
            phase: Phase::Consuming,
            degraded: Vec::new(),
            consume: ConsumerLink::Open,
            quarantine: ConsumerLink::Open,
            unsettled: 0,
            oldest_unsettled: None,
            polled: Polled {
                consumers: ConsumerCount::Known {
                    queue: 1,
                    quarantine: 1,
                },
                ..Polled::nothing_yet()
            },
            policies: Vec::new(),
        }
    }

    #[test]
    fn unknown_and_late_tasks_are_degraded() {
        let kind = |unknown, oldest_ready_ms| doorstep_store::TaskKindCount {
            kind: "reports.render.v1".parse().unwrap(),
            ready: 2,
            running: 1,
            unknown,
            oldest_ready_ms,
        };
        let reasons = |tasks| {
            let mut seen = well();
            seen.polled.summary = Some(Summary {
                tasks,
                ..Summary::default()
            });
            let health = evaluate(seen);
            let names = health.reasons.iter().map(|reason| reason.name.clone());
            (health.status, names.collect::<Vec<_>>())
        };
        let late = Some(600_001);
        assert_eq!(
            reasons(vec![kind(0, None), kind(0, Some(600_000))]),
            (HealthStatus::Ready, vec![])
        );
        assert_eq!(
            reasons(vec![kind(1, None)]),
            (HealthStatus::Degraded, vec!["task-unknown".to_owned()])
        );
        assert_eq!(
            reasons(vec![kind(0, late)]),
            (HealthStatus::Degraded, vec!["task-late".to_owned()])
        );
    }

    #[test]
    fn consuming_and_counted_role_is_ready() {
        let health = evaluate(well());
        assert_eq!(
            (health.status, health.consumers),
            (HealthStatus::Ready, Some(1))
        );
        assert!(health.reasons.is_empty(), "{:?}", health.reasons);
    }

    #[test]
    fn every_consuming_failure_makes_a_role_unready() {
        let mut away = well();
        away.consume = ConsumerLink::Away("broken".to_owned());
        let mut uncounted = well();
        uncounted.polled.consumers = ConsumerCount::Known {
            queue: 0,
            quarantine: 1,
        };
        let mut no_quarantine = well();
        no_quarantine.polled.consumers = ConsumerCount::Known {
            queue: 1,
            quarantine: 0,
        };
        let mut cases = vec![
            (away, "consume by"),
            (uncounted, "queue"),
            (no_quarantine, "quarantine"),
        ];
        for (phase, word) in [
            (Phase::Starting, "broker"),
            (
                Phase::Paused {
                    reason: "disk full".to_owned(),
                },
                "disk full",
            ),
            (Phase::Full { table: "outbox" }, "outbox"),
            (Phase::Stopping, "stopping"),
        ] {
            cases.push((RoleSnapshot { phase, ..well() }, word));
        }
        for (seen, word) in cases {
            let health = evaluate(seen);
            assert_eq!(health.status, HealthStatus::Unready, "{word}");
            assert!(
                health.reasons[0].message.contains(word),
                "{:?}",
                health.reasons
            );
        }
    }

    #[test]
    fn states_that_need_attention_are_degraded() {
        let mut gap = well();
        gap.degraded
            .push(ReadinessReason::new(ReasonName::StreamGap, "missing 3..4"));
        let mut policy = well();
        policy.policies.push(ReadinessReason::new(
            ReasonName::PolicyLosesMessages,
            "policy p sets expires",
        ));
        let mut unknown = well();
        unknown.polled.consumers = ConsumerCount::Unknown {
            since: Instant::now().checked_sub(COUNT_UNKNOWN * 2).unwrap(),
            reason: "away".to_owned(),
        };
        let mut pending = well();
        pending.polled.summary = Some(Summary {
            oldest_outbox_ms: Some(2 * 60_000),
            ..Summary::default()
        });
        let mut ahead = well();
        ahead.polled.summary = Some(Summary {
            dated_ahead: 3,
            ..Summary::default()
        });
        let mut dead = well();
        let mut summary = Summary {
            blocked: 2,
            oldest_dead_ms: Some(90_000),
            ..Summary::default()
        };
        summary.usage.dead_letters.rows = 3;
        dead.polled.summary = Some(summary);
        let mut slow = well();
        slow.oldest_unsettled = Some(OLD * 2);
        for (seen, word) in [
            (unknown, "not known"),
            (pending, "pending"),
            (gap, "missing"),
            (policy, "policy p"),
            (ahead, "3 rows of the store are dated ahead"),
            (
                dead,
                "3 dead letters await an operator, the oldest for 90s; 2 streams are blocked",
            ),
            (slow, "unacked"),
        ] {
            let health = evaluate(seen);
            assert_eq!(health.status, HealthStatus::Degraded, "{word}");
            assert!(
                health.reasons[0].message.contains(word),
                "{:?}",
                health.reasons
            );
        }
    }

    #[test]
    fn a_role_without_a_queue_needs_no_consumer() {
        let mut without_queue = well();
        without_queue.consume = ConsumerLink::NoQueue;
        without_queue.polled.consumers = ConsumerCount::NoQueue;
        let health = evaluate(without_queue.clone());
        assert_eq!(
            (health.status, health.consumers),
            (HealthStatus::Ready, None)
        );
        without_queue.phase = Phase::Full { table: "outbox" };
        assert_eq!(evaluate(without_queue).status, HealthStatus::Unready);
    }

    #[test]
    fn briefly_unknown_count_is_no_reason() {
        let mut seen = well();
        seen.polled.consumers = ConsumerCount::Unknown {
            since: Instant::now(),
            reason: "away".to_owned(),
        };
        let health = evaluate(seen);
        assert_eq!(
            (health.status, health.consumers),
            (HealthStatus::Ready, None)
        );
    }
}
