//! Upkeep of the store, and the status that the role shows: phase, fill level, and reasons of degradation.

use doorstep_event::Timestamp;
use doorstep_store::{Store, StoreError, StoreUsage};

use super::RoleLoop;
use crate::runner::{Phase, ReadinessReason, ReasonName, RunError, upkeep::keep_up};
use crate::{Role, limits::Capacity, telemetry};

/// The maximum of gaps named in a degraded reason.
const GAPS_NAMED: usize = 3;
/// The maximum of kinds of dead letters named in degraded reasons.
const KINDS_NAMED: usize = 3;

impl<R: Role, S: Store> RoleLoop<'_, R, S> {
    /// Looks after overlooked rows, retention and gaps. No batch depends on it, so a failure is left to the next turn.
    pub(super) async fn housekeeping(&mut self, usage: &StoreUsage) {
        let now = self.now();
        let limits = self.engine.limits().clone();
        let longest = self.tasks.as_ref().map(|tasks| tasks.max_backoff);
        let store = self.engine.store();
        let gaps_since = now.checked_sub(limits.gap_age).unwrap_or(Timestamp::MIN);
        let may_prune = self.wall.may_prune(limits.is_crowded(usage));
        let looked = async {
            keep_up(store, &limits, longest, may_prune, now).await?;
            let kept_log = store.trim_log().await?;
            let streamless = store.streamless(limits.large_kind(), KINDS_NAMED).await?;
            let gaps = store.gaps(gaps_since, now, GAPS_NAMED + 1).await?;
            Ok::<_, StoreError>((gaps, kept_log, streamless))
        };
        let Ok((gaps, kept_log, streamless)) = looked.await else {
            return;
        };
        let mut degraded: Vec<ReadinessReason> = gaps
            .iter()
            .take(GAPS_NAMED)
            .map(|gap| {
                let message = format!(
                    "missing {}..{} of {} ({} held)",
                    gap.from, gap.to, gap.stream, gap.deferred
                );
                ReadinessReason::new(ReasonName::StreamGap, message)
            })
            .collect();
        if gaps.len() > GAPS_NAMED {
            degraded.push(ReadinessReason::new(ReasonName::StreamGap, "further gaps"));
        }
        if let Capacity::NearLimit(table) | Capacity::Full(table) = limits.capacity(usage) {
            degraded.push(ReadinessReason::new(
                ReasonName::StoreNearlyFull,
                format!("the store's {table} are at 80 % of their bound or more"),
            ));
        }
        let named = |name| move |message| ReadinessReason::new(name, message);
        let kept_log = kept_log.map(|log| log.to_string());
        degraded.extend(kept_log.map(named(ReasonName::StoreLogKept)));
        degraded.extend(
            self.wall
                .degraded_reason()
                .map(named(ReasonName::ClockJump)),
        );
        let overflowing = limits.streamless_findings(&streamless).into_iter();
        degraded.extend(overflowing.map(named(ReasonName::DeadLetterOverflow)));
        self.findings = degraded;
        self.publish_degraded();
    }

    /// Publishes every reason why the role is degraded. A new reason is logged once, unless it was logged where it was
    /// noticed.
    pub(super) fn publish_degraded(&mut self) {
        let mut degraded = self.links.possible_losses();
        degraded.extend_from_slice(&self.findings);
        self.status.send_if_modified(|status| {
            for line in degraded
                .iter()
                .filter(|line| !status.degraded.contains(line))
            {
                telemetry::degraded(self.engine.role().name(), &line.message);
            }
            degraded.extend(self.links.issues());
            let changed = status.degraded != degraded;
            if changed {
                status.degraded = degraded;
            }
            changed
        });
    }

    /// Publishes the fill level of the store. Returns whether deliveries must wait.
    pub(super) fn publish_capacity(&self, usage: &StoreUsage) -> bool {
        let fullness = self.engine.limits().capacity(usage);
        self.status.send_if_modified(|status| {
            // Also while nothing is processed, since other processes make room by publishing or resolving rows.
            status.usage = *usage;
            let phase = match (&status.phase, fullness) {
                (Phase::Paused { .. } | Phase::Stopping | Phase::Stopped, _) => return false,
                (_, Capacity::Full(table)) => Phase::Full { table },
                (_, Capacity::Ok | Capacity::NearLimit(_)) => Phase::Consuming,
            };
            let changed = status.phase != phase;
            if changed && let Phase::Full { table } = &phase {
                telemetry::store_full(self.engine.role().name(), table);
            }
            status.phase = phase;
            changed
        });
        matches!(fullness, Capacity::Full(_))
    }

    /// Pauses for an unusable store. Each kind of reason is logged once per outage.
    pub(super) fn pause(&mut self, error: StoreError) -> Result<(), RunError> {
        let role = self.engine.role().name();
        match error {
            StoreError::Unusable { .. } => Err(error.into()),
            StoreError::Unavailable { .. } => {
                self.status.send_if_modified(|status| {
                    let reason = error.to_string();
                    let error = &error;
                    let is_new = self.store_outage.is_new(&reason);
                    match status.phase {
                        Phase::Paused { .. } if is_new => {
                            telemetry::store_still_unavailable(role, error);
                        }
                        Phase::Paused { .. } => {}
                        _ => telemetry::store_unavailable(role, error),
                    }
                    status.phase = Phase::Paused { reason };
                    true
                });
                Ok(())
            }
        }
    }

    pub(super) fn resume(&mut self) {
        self.store_outage.clear();
        self.status.send_if_modified(|status| {
            let paused = matches!(status.phase, Phase::Paused { .. });
            if paused {
                telemetry::store_recovered(self.engine.role().name());
                status.phase = Phase::Consuming;
            }
            paused
        });
    }
}
