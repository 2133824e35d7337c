//! Every bound of the runtime, with its default, in one place.

use std::time::Duration;

use doorstep_event::Timestamp;
use doorstep_store::{StoreUsage, Streamless, StreamlessBounds, TableUsage};

/// The bounds that a role runs within.
#[derive(Debug, Clone)]
pub struct Limits {
    /// The most events in a batch. Larger ones make a commit cheaper for each event, smaller ones are settled sooner, so that the
    /// broker, which has at most 2,000 unsettled messages under way, does not run dry: measured, 500 is the better of the two.
    pub batch_size: usize,
    /// The most bytes in a batch, one event more or less; of held events it takes so many more at most.
    pub batch_bytes: usize,
    /// How many held events of a stream a batch takes along right after its predecessor was applied; more follow in later batches.
    pub held_per_stream: usize,
    /// How many due events a batch takes.
    pub due_events: usize,
    /// How long an event may wait for another stream before it becomes a dead letter.
    pub max_wait: Duration,
    /// How many processes may end while an event is tried before it becomes a dead letter without another try. At least 2: of the
    /// first trial nobody can tell yet which of several events was the reason.
    pub max_crashes: u32,
    /// The first pause before a put-off event is tried again; each further one is twice as long.
    pub retry_first: Duration,
    /// The longest pause before a put-off event is tried again.
    pub retry_longest: Duration,
    /// How long the ids of events without a sequence are kept: an older one is refused, since it could be a duplicate. Trials whose
    /// events have not come again are kept as long.
    pub dedup_retention: Duration,
    /// How long replies to commands are kept: an older command is refused, since it may have been obeyed before.
    pub reply_retention: Duration,
    /// The time that events of a source's former owner are accepted after another has taken over: they may still be in a queue.
    pub former_owner_grace: Duration,
    /// How many rows of streams, and how many of entities, are remembered between batches.
    pub remembered_rows: usize,
    /// How often a batch is worked again after conflicts before the store counts as unavailable.
    pub conflicts: usize,
    /// The most rows and bytes that are held.
    pub held: TableUsage,
    /// The most rows and bytes of dead letters.
    pub dead: TableUsage,
    /// The time that the copy of a dead letter stays in its queue for the management UI. The dead letter itself stays in the store until it is
    /// resolved.
    pub dead_copy_ttl: Duration,
    /// The most rows and bytes of dead letters of one kind that belong to no stream: messages that cannot be read, and events without a
    /// sequence that come and are refused. All kinds of them together take half of [`Limits::dead`] at most. Beyond either bound they go
    /// to the overflow file.
    pub dead_of_kind: TableUsage,
    /// The most bytes of an overflow file.
    pub overflow_file_bytes: u64,
    /// The most overflow files: what the oldest of them holds is lost when another is begun.
    pub overflow_files: u32,
    /// The most seen ids.
    pub seen: TableUsage,
    /// The most rows and bytes that the outbox owes.
    pub outbox: TableUsage,
    /// The most rows and bytes of replies to commands.
    pub replies: TableUsage,
    /// The most rows and bytes that are scheduled.
    pub scheduled: TableUsage,
    /// The most commands that a batch takes along.
    pub batch_commands: usize,
    /// How many commands may wait for the loop; whoever is one too many hears that it is too much.
    pub waiting_commands: usize,
    /// How many queries may be under way; likewise.
    pub queries: usize,
    /// What whoever is one too many is told: when it is worth trying again.
    pub retry_after: Duration,
    /// How many outbox rows the relay sends at a time.
    pub relay_rows: usize,
    /// A gap older than this makes the role degraded.
    pub gap_age: Duration,
}

/// How far the clocks of processes may be apart.
pub const MAX_CLOCK_SKEW: Duration = Duration::from_hours(1);

/// What [`Capacity`] calls what is held.
pub const HELD: &str = "held events";

const MIB: u64 = 1024 * 1024;

impl Default for Limits {
    fn default() -> Self {
        Self {
            batch_size: 500,
            batch_bytes: 8 * MIB as usize,
            held_per_stream: 64,
            due_events: 500,
            max_wait: Duration::from_hours(24),
            max_crashes: 3,
            retry_first: Duration::from_millis(200),
            retry_longest: Duration::from_secs(60),
            dedup_retention: Duration::from_hours(7 * 24),
            reply_retention: Duration::from_hours(24),
            former_owner_grace: Duration::from_hours(24),
            remembered_rows: 20_000,
            conflicts: 1_000,
            held: Self::max_deferred_of(1_000_000),
            dead: TableUsage {
                rows: 100_000,
                bytes: 1024 * MIB,
            },
            dead_copy_ttl: Duration::from_hours(24),
            dead_of_kind: StreamlessBounds::default().kind,
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
            scheduled: TableUsage {
                rows: 1_000_000,
                bytes: 1024 * MIB,
            },
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

/// How full the fullest bounded table is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Capacity {
    /// Below 80 %.
    Ok,
    /// At 80 % or more of this table: degraded.
    NearLimit(&'static str),
    /// This table is full: no deliveries are taken, the backlog waits in the queue.
    Full(&'static str),
}

impl Limits {
    /// The bound of so many held events, of 1 KiB each on average.
    #[must_use]
    pub fn max_deferred_of(rows: u64) -> TableUsage {
        TableUsage {
            rows,
            bytes: rows.saturating_mul(1024),
        }
    }

    /// The bounds of dead letters that belong to no stream.
    #[must_use]
    pub fn streamless(&self) -> StreamlessBounds {
        StreamlessBounds {
            kind: self.dead_of_kind,
            all: TableUsage {
                rows: self.dead.rows / 2,
                bytes: self.dead.bytes / 2,
            },
            file_bytes: self.overflow_file_bytes,
            files: self.overflow_files,
        }
    }

    /// The level of dead letters of no stream that makes a role degraded: 80 % of a kind's bound or of the bound of all kinds.
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

    /// From how many rows or bytes on a kind of dead letters of no stream makes a role degraded.
    #[must_use]
    pub fn large_kind(&self) -> TableUsage {
        let TableUsage { rows, bytes } = four_fifths(self.dead_of_kind);
        TableUsage {
            rows: rows.max(1),
            bytes: bytes.max(1),
        }
    }

    /// How full the fullest bounded table is.
    #[must_use]
    pub fn capacity(&self, usage: &StoreUsage) -> Capacity {
        let tables = [
            (HELD, usage.held, self.held),
            ("dead letters", usage.dead, self.dead),
            ("seen ids", usage.seen, self.seen),
            ("outbox", usage.outbox, self.outbox),
            ("replies", usage.replies, self.replies),
            ("scheduled events", usage.scheduled, self.scheduled),
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

    /// Seen ids older than this may be pruned. Younger by a margin than events that are rejected for their age, as replies are.
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

    /// Replies older than this may be forgotten. Younger by a margin than commands that are refused for their age, so that no process
    /// whose clock is behind takes a command for a new one whose reply another has forgotten.
    #[must_use]
    pub fn oldest_reply(&self, now: Timestamp) -> Timestamp {
        let kept = self.reply_retention.saturating_add(MAX_CLOCK_SKEW);
        now.checked_sub(kept).unwrap_or(Timestamp::MIN)
    }

    /// The pause before the next try of an event that was put off `attempts` times, with full jitter from the second half on:
    /// `jitter` is a number from 0 to 1.
    #[must_use]
    pub fn retry_backoff(&self, attempts: u32, jitter: f64) -> Duration {
        let doubled = self.retry_first.saturating_mul(
            1_u32
                .checked_shl(attempts.saturating_sub(1))
                .unwrap_or(u32::MAX),
        );
        let longest = doubled.min(self.retry_longest);
        longest.mul_f64(0.5 + 0.5 * jitter.clamp(0.0, 1.0))
    }
}
