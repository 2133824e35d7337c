//! Every bound of the runtime, with its default, in one place.

use std::time::Duration;

use doorstep_event::Timestamp;
use doorstep_store::{StoreUsage, Streamless, StreamlessBounds, TableUsage};

/// The bounds that a role runs within.
#[derive(Debug, Clone)]
pub struct Limits {
    /// The maximum of events in a batch. Larger batches make a commit cheaper per event; smaller ones are acked sooner,
    /// so that the prefetch of 2,000 unacked messages does not run dry. Measured, 500 is the better of the two.
    pub batch_size: usize,
    /// The maximum of bytes in a batch, exceeded by at most one event; deferred events may add the same amount once
    /// more.
    pub batch_bytes: usize,
    /// The maximum of a stream's deferred events that a batch takes along once their predecessor is applied; more
    /// follow in later batches.
    pub deferred_per_stream: usize,
    /// The maximum of due events in a batch.
    pub due_events: usize,
    /// The maximum wait of an event for another stream before it becomes a dead letter.
    pub max_wait: Duration,
    /// The number of process crashes during an event's attempts after which it becomes a dead letter without another
    /// one. At least 2: the first crash does not tell which of several events caused it.
    pub max_crashes: u32,
    /// The backoff before the first retry of a deferred event; it doubles with each further one.
    pub initial_backoff: Duration,
    /// The maximum backoff before a retry of a deferred event.
    pub max_backoff: Duration,
    /// The retention of the ids of events without a sequence. An older event is rejected, since it could be a
    /// duplicate. Crash counts whose events have not come again are kept as long.
    pub dedup_retention: Duration,
    /// The retention of replies to commands. An older command is rejected, since it may have been executed before.
    pub reply_retention: Duration,
    /// The time for which events of a source's former owner are accepted after a transfer: they may still be queued.
    pub former_owner_grace: Duration,
    /// The maximum of cached rows of streams, and the same of entities, between batches.
    pub remembered_rows: usize,
    /// The maximum of attempts after conflicts before the store counts as unavailable.
    pub conflicts: usize,
    /// The maximum of deferred rows and bytes.
    pub deferred: TableUsage,
    /// The maximum of rows and bytes of dead letters.
    pub dead_letters: TableUsage,
    /// The time that the copy of a dead letter stays in its queue for the management UI. The dead letter itself stays
    /// in the store until it is resolved.
    pub dead_letter_copy_ttl: Duration,
    /// The maximum of rows and bytes of dead letters of one kind that belong to no stream: undecodable messages, and
    /// rejected deliveries of events without a sequence. All such kinds together take at most half of [`Limits::dead`].
    /// Beyond either bound, dead letters go to the overflow file.
    pub dead_letters_of_kind: TableUsage,
    /// The maximum size of an overflow file in bytes.
    pub overflow_file_bytes: u64,
    /// The maximum of overflow files: another one replaces the oldest, whose content is lost.
    pub overflow_files: u32,
    /// The maximum of seen ids.
    pub seen: TableUsage,
    /// The maximum of rows and bytes pending in the outbox.
    pub outbox: TableUsage,
    /// The maximum of rows and bytes of replies to commands.
    pub replies: TableUsage,
    /// The maximum of rows and bytes of scheduled events.
    pub timers: TableUsage,
    /// The maximum of rows and bytes of live tasks.
    pub tasks: TableUsage,
    /// The length of the leases under which a process runs tasks. A process that dies is missed after one and a quarter.
    pub task_lease: Duration,
    /// The maximum of tasks that a process runs at a time for the role.
    pub running_tasks: usize,
    /// The time that an attempt of a task has to stop once it is asked to.
    pub task_stop_grace: Duration,
    /// The maximum time for which a task that may have crashed a process waits for the running ones to end.
    pub task_alone_wait: Duration,
    /// The interval at which the store is polled for due tasks.
    pub task_poll_interval: Duration,
    /// The minimum interval of heartbeats that only report progress.
    pub task_progress_interval: Duration,
    /// The maximum time that a task may set until its next attempt.
    pub max_task_retry_after: Duration,
    /// The maximum of commands in a batch.
    pub batch_commands: usize,
    /// The maximum of commands that wait for the loop. Beyond it, callers get an overload error.
    pub waiting_commands: usize,
    /// The maximum of queries in flight. Beyond it, callers get an overload error.
    pub queries: usize,
    /// The delay that an overload error recommends before a retry.
    pub retry_after: Duration,
    /// The maximum of outbox rows that the relay publishes at a time.
    pub relay_rows: usize,
    /// The age from which a gap makes the role degraded.
    pub gap_age: Duration,
}

/// The maximum difference between the clocks of processes.
pub const MAX_CLOCK_SKEW: Duration = Duration::from_hours(1);

/// The name of the table of deferred events in [`Capacity`].
pub const DEFERRED: &str = "deferred events";

const MIB: u64 = 1024 * 1024;

impl Default for Limits {
    fn default() -> Self {
        Self {
            batch_size: 500,
            batch_bytes: 8 * MIB as usize,
            deferred_per_stream: 64,
            due_events: 500,
            max_wait: Duration::from_hours(24),
            max_crashes: 3,
            initial_backoff: Duration::from_millis(200),
            max_backoff: Duration::from_secs(60),
            dedup_retention: Duration::from_hours(7 * 24),
            reply_retention: Duration::from_hours(24),
            former_owner_grace: Duration::from_hours(24),
            remembered_rows: 20_000,
            conflicts: 1_000,
            deferred: Self::max_deferred_of(1_000_000),
            dead_letters: TableUsage {
                rows: 100_000,
                bytes: 1024 * MIB,
            },
            dead_letter_copy_ttl: Duration::from_hours(24),
            dead_letters_of_kind: StreamlessBounds::default().kind,
            overflow_file_bytes: StreamlessBounds::default().file_bytes,
            overflow_files: StreamlessBounds::default().files,
            seen: TableUsage {
                rows: 10_000_000,
                bytes: 1024 * MIB,
            },
            outbox: TableUsage {
                rows: 1_000_000,
                bytes: 1024 * MIB,
            },
            replies: TableUsage {
                rows: 10_000_000,
                bytes: 4 * 1024 * MIB,
            },
            timers: TableUsage {
                rows: 1_000_000,
                bytes: 1024 * MIB,
            },
            tasks: TableUsage {
                rows: 100_000,
                bytes: 256 * MIB,
            },
            task_lease: Duration::from_secs(20),
            running_tasks: 32,
            task_stop_grace: Duration::from_secs(5),
            task_alone_wait: Duration::from_mins(1),
            task_poll_interval: Duration::from_millis(500),
            task_progress_interval: Duration::from_secs(1),
            max_task_retry_after: Duration::from_hours(24),
            batch_commands: 200,
            waiting_commands: 1_000,
            queries: 1_000,
            retry_after: Duration::from_secs(1),
            relay_rows: 500,
            gap_age: Duration::from_mins(1),
        }
    }
}

fn four_fifths(most: TableUsage) -> TableUsage {
    TableUsage {
        rows: most.rows.saturating_mul(4) / 5,
        bytes: most.bytes.saturating_mul(4) / 5,
    }
}

fn is_at_least(used: TableUsage, least: TableUsage) -> bool {
    used.rows >= least.rows || used.bytes >= least.bytes
}

/// The fill level of the fullest bounded table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Capacity {
    /// Below 80 %.
    Ok,
    /// At 80 % or more of this table: degraded.
    NearLimit(&'static str),
    /// This table is full: the role takes no deliveries, and the backlog waits in the queue.
    Full(&'static str),
}

impl Limits {
    /// Returns the bound for this many deferred events, of 1 KiB each on average.
    #[must_use]
    pub fn max_deferred_of(rows: u64) -> TableUsage {
        TableUsage {
            rows,
            bytes: rows.saturating_mul(1024),
        }
    }

    /// Returns the bounds of dead letters that belong to no stream.
    #[must_use]
    pub fn streamless(&self) -> StreamlessBounds {
        StreamlessBounds {
            kind: self.dead_letters_of_kind,
            all: TableUsage {
                rows: self.dead_letters.rows / 2,
                bytes: self.dead_letters.bytes / 2,
            },
            file_bytes: self.overflow_file_bytes,
            files: self.overflow_files,
        }
    }

    /// Returns a finding for each level of dead letters of no stream that makes a role degraded: 80 % of a kind's
    /// bound, or of the bound of all kinds together.
    #[must_use]
    pub fn streamless_findings(&self, streamless: &Streamless) -> Vec<String> {
        let bounds = self.streamless();
        let mut findings: Vec<_> = streamless
            .kinds
            .iter()
            .map(|kind| {
                format!(
                    "dead letters of the kind {} ({}) are at 80 % of their bound or more, further ones go to the overflow file",
                    kind.fingerprint, kind.reason
                )
            })
            .collect();
        if is_at_least(streamless.usage, four_fifths(bounds.all)) {
            findings.push(
                "dead letters that belong to no stream are at 80 % of their bound or more, further ones go to the overflow file"
                    .to_owned(),
            );
        }
        findings
    }

    /// Returns the rows and bytes from which one kind of dead letters of no stream makes a role degraded.
    #[must_use]
    pub fn large_kind(&self) -> TableUsage {
        let TableUsage { rows, bytes } = four_fifths(self.dead_letters_of_kind);
        TableUsage {
            rows: rows.max(1),
            bytes: bytes.max(1),
        }
    }

    /// Returns the fill level of the fullest bounded table.
    #[must_use]
    pub fn capacity(&self, usage: &StoreUsage) -> Capacity {
        let tables = [
            (DEFERRED, usage.deferred, self.deferred),
            ("dead letters", usage.dead_letters, self.dead_letters),
            ("seen ids", usage.seen, self.seen),
            ("outbox", usage.outbox, self.outbox),
            ("replies", usage.replies, self.replies),
            ("scheduled events", usage.timers, self.timers),
            ("tasks", usage.tasks, self.tasks),
        ];
        let share = |used: TableUsage, most: TableUsage| {
            let rows = used.rows.saturating_mul(100) / most.rows.max(1);
            let bytes = used.bytes.saturating_mul(100) / most.bytes.max(1);
            rows.max(bytes)
        };
        match tables
            .into_iter()
            .map(|(name, used, most)| (share(used, most), name))
            .max()
        {
            Some((100.., name)) => Capacity::Full(name),
            Some((80.., name)) => Capacity::NearLimit(name),
            _ => Capacity::Ok,
        }
    }

    /// Returns the time before which seen ids may be pruned. It leaves a margin to the age at which events are
    /// rejected, as for replies.
    #[must_use]
    pub fn oldest_seen(&self, now: Timestamp) -> Timestamp {
        let kept = self.dedup_retention.saturating_add(MAX_CLOCK_SKEW);
        now.checked_sub(kept).unwrap_or(Timestamp::MIN)
    }

    /// Returns whether seen ids or replies take more than half of their bound.
    pub(crate) fn is_crowded(&self, usage: &StoreUsage) -> bool {
        let above_half = |used: TableUsage, most: TableUsage| {
            used.rows > most.rows / 2 || used.bytes > most.bytes / 2
        };
        above_half(usage.seen, self.seen) || above_half(usage.replies, self.replies)
    }

    /// Returns the time before which replies may be pruned. It leaves a margin to the age at which commands are
    /// rejected: otherwise a process with a slow clock could take a repeated command for a new one after another
    /// process has pruned its reply.
    #[must_use]
    pub fn oldest_reply(&self, now: Timestamp) -> Timestamp {
        let kept = self.reply_retention.saturating_add(MAX_CLOCK_SKEW);
        now.checked_sub(kept).unwrap_or(Timestamp::MIN)
    }

    /// Returns the backoff before the next attempt of an event that was deferred `attempts` times. Its second half is
    /// jittered: `jitter` is a number from 0 to 1.
    #[must_use]
    pub fn retry_backoff(&self, attempts: u32, jitter: f64) -> Duration {
        let doubled = self.initial_backoff.saturating_mul(
            1_u32
                .checked_shl(attempts.saturating_sub(1))
                .unwrap_or(u32::MAX),
        );
        let longest = doubled.min(self.max_backoff);
        longest.mul_f64(0.5 + 0.5 * jitter.clamp(0.0, 1.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fullest_table_is_named() {
        let limits = Limits::default();
        let mut usage = StoreUsage::default();
        assert_eq!(limits.capacity(&usage), Capacity::Ok);
        usage.outbox.bytes = limits.outbox.bytes / 5 * 4 + 5;
        assert_eq!(limits.capacity(&usage), Capacity::NearLimit("outbox"));
        usage.tasks.rows = limits.tasks.rows;
        assert_eq!(limits.capacity(&usage), Capacity::Full("tasks"));
    }
}
