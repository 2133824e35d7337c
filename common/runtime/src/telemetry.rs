//! The internal events of a role: one struct or function each, which alone writes the log line, the metric and its labels.
//!
//! A batch costs a few atomic operations in total, and none per event. Counters that exist elsewhere, such as those of
//! deliveries and of applied events, are not kept a second time here: the exporter of metrics reads them at their
//! place.

use std::time::Duration;

use doorstep_event::{EventType, Rejection, RequestKind, RequestResult};
use doorstep_messaging::{AckOutcome, PublishOutcome, QueueName};
use doorstep_store::{DeadLetter, StoreError, TaskHolder, TaskId};
use jiff::SignedDuration;
use metrics::{Histogram, Unit, counter, describe_counter, describe_histogram, histogram};

use crate::limits;

/// The name of the messaging system in OpenTelemetry's conventions.
const SYSTEM: (&str, &str) = ("messaging_system", "rabbitmq");

const PROCESS_DURATION: &str = "messaging_process_duration_seconds";
const OPERATION_DURATION: &str = "messaging_client_operation_duration_seconds";
const REQUEST_DURATION: &str = "rpc_server_call_duration_seconds";
const REJECTED: &str = "doorstep_requests_rejected_total";
const COMMIT_DURATION: &str = "doorstep_commit_duration_seconds";
const BATCH_EVENTS: &str = "doorstep_batch_events";
const CONFLICTS: &str = "doorstep_commit_conflicts_total";
const DEAD_LETTERS: &str = "doorstep_dead_letters_total";
const CLOCK_JUMPS: &str = "doorstep_clock_jumps_total";
const OVERFLOWED: &str = "doorstep_dead_letters_overflowed_total";
const TASK_ATTEMPTS: &str = "doorstep_task_attempts_total";
const TASK_DURATION: &str = "doorstep_task_duration_seconds";
const TASK_TAKE_OVERS: &str = "doorstep_task_take_overs_total";
const STORE_OUTAGES: &str = "doorstep_store_outages_total";

/// Registers the descriptions of a role's metrics. To be called once, after the recorder is installed.
pub fn describe() {
    let seconds = [
        (PROCESS_DURATION, "Time to decide and commit a batch"),
        (OPERATION_DURATION, "Duration of an operation on the broker"),
        (COMMIT_DURATION, "Duration of a commit"),
        (
            REQUEST_DURATION,
            "Time from the arrival of a command or query to its reply",
        ),
        (TASK_DURATION, "Duration of an attempt of a task"),
    ];
    for (name, text) in seconds {
        describe_histogram!(name, Unit::Seconds, text);
    }
    describe_histogram!(BATCH_EVENTS, Unit::Count, "Events in a batch");
    let counts = [
        (
            CONFLICTS,
            "Batches processed again after a conflicting commit",
        ),
        (DEAD_LETTERS, "Dead letters made, by reason"),
        (
            OVERFLOWED,
            "Dead letters of no stream that went to the overflow file",
        ),
        (REJECTED, "Commands and queries rejected, by reason"),
        (
            CLOCK_JUMPS,
            "Jumps of the wall clock, or suspensions of the machine",
        ),
        (
            TASK_ATTEMPTS,
            "Attempts of tasks that have ended, by kind and outcome",
        ),
        (
            TASK_TAKE_OVERS,
            "Tasks taken over from a process whose heartbeat has stopped",
        ),
        (STORE_OUTAGES, "Times that the store could not be used"),
    ];
    for (name, text) in counts {
        describe_counter!(name, Unit::Count, text);
    }
}

/// The instruments of every request, looked up once.
#[derive(Debug, Clone)]
pub(crate) struct RequestInstruments {
    role: &'static str,
    commands: Histogram,
    queries: Histogram,
}

impl RequestInstruments {
    pub(crate) fn new(role: &'static str) -> Self {
        let of = |act| histogram!(REQUEST_DURATION, "rpc_system_name" => "doorstep", "rpc_method" => act, "role" => role);
        Self {
            role,
            commands: of(kind_label(RequestKind::Command)),
            queries: of(kind_label(RequestKind::Query)),
        }
    }

    /// Reports that a command or query was replied to; `took` is the time from its arrival until its reply was durable.
    pub(crate) fn ended(&self, act: RequestKind, result: &RequestResult, took: Duration) {
        let (role, kind) = (self.role, kind_label(act));
        match act {
            RequestKind::Command => self.commands.record(took),
            RequestKind::Query => self.queries.record(took),
        }
        let Err(rejected) = result else { return };
        if rejected.code == Rejection::FAILED {
            tracing::error!(role, act = kind, "a request failed: {rejected}");
        }
        // The codes are part of the roles' contracts, so there are few.
        counter!(REJECTED, "rpc_method" => kind, "error_type" => rejected.code.clone(), "role" => role)
            .increment(1);
    }
}

fn kind_label(act: RequestKind) -> &'static str {
    match act {
        RequestKind::Command => "command",
        RequestKind::Query => "query",
    }
}

/// The instruments of every batch, looked up once.
#[derive(Debug, Clone)]
pub(crate) struct BatchInstruments {
    role: &'static str,
    processed: Histogram,
    acked: Histogram,
    sent: Histogram,
    events: Histogram,
}

impl BatchInstruments {
    pub(crate) fn new(role: &'static str, queue: &QueueName, exchange: &str) -> Self {
        let operation = |name, kind, destination: &str| {
            histogram!(OPERATION_DURATION, SYSTEM.0 => SYSTEM.1, "messaging_operation_name" => name,
                "messaging_operation_type" => kind, "messaging_destination_name" => destination.to_owned(), "role" => role)
        };
        Self {
            role,
            processed: histogram!(PROCESS_DURATION, SYSTEM.0 => SYSTEM.1, "messaging_operation_name" => "process",
                "messaging_destination_name" => queue.as_str().to_owned(), "role" => role),
            acked: operation("ack", "settle", queue.as_str()),
            sent: operation("send", "send", exchange),
            events: histogram!(BATCH_EVENTS, "role" => role),
        }
    }

    /// Reports that a batch was decided and committed.
    pub(crate) fn processed(&self, events: usize, conflicts: usize, took: Duration) {
        // Commands have measurements of their own.
        if events > 0 {
            self.processed.record(took);
            self.events.record(events as f64);
        }
        if conflicts > 0 {
            counter!(CONFLICTS, "role" => self.role).increment(conflicts as u64);
        }
    }

    /// Reports that a batch was acked, or that its channel was gone.
    pub(crate) fn acked(&self, outcome: AckOutcome, took: Duration) {
        match outcome {
            AckOutcome::Acked => self.acked.record(took),
            AckOutcome::ChannelGone => {
                tracing::debug!(role = self.role, "an ack was discarded with its channel");
            }
        }
    }

    /// Reports that the broker has confirmed or refused each published row of the outbox.
    pub(crate) fn sent(&self, took: Duration) {
        self.sent.record(took);
    }
}

/// The instruments of every commit, looked up once.
pub(crate) struct CommitInstruments {
    role: &'static str,
    duration: Histogram,
}

/// A dead letter, reduced to its telemetry.
pub(crate) struct DeadLettered {
    id: String,
    reason: String,
}

impl DeadLettered {
    /// Collects one for each dead letter. They are rare, so the usual commit allocates nothing.
    pub(crate) fn all<'a>(dead: impl Iterator<Item = &'a DeadLetter>) -> Vec<Self> {
        dead.map(|row| Self {
            id: row.id.0.clone(),
            reason: row.reason.clone(),
        })
        .collect()
    }
}

impl CommitInstruments {
    /// Returns the histogram of a role's commits, looked up once.
    pub(crate) fn new(role: &'static str) -> Self {
        Self {
            role,
            duration: histogram!(COMMIT_DURATION, "role" => role),
        }
    }

    /// Reports that a commit was written.
    pub(crate) fn committed(&self, took: Duration, dead: Vec<DeadLettered>, overflowed: u64) {
        self.duration.record(took);
        if let Some(first) = dead.first() {
            tracing::warn!(
                role = self.role,
                count = dead.len(),
                first = first.id,
                reason = first.reason,
                "dead-lettered, see `consumers dead-letters list`"
            );
        }
        if overflowed > 0 {
            tracing::debug!(
                role = self.role,
                count = overflowed,
                "went to the overflow file, since the bound of their kind of dead letters is reached"
            );
            counter!(OVERFLOWED, "role" => self.role).increment(overflowed);
        }
        for death in dead {
            counter!(DEAD_LETTERS, "role" => self.role, "reason" => death.reason).increment(1);
        }
    }
}

/// The instruments of a role's tasks.
#[derive(Debug, Clone)]
pub(crate) struct TaskInstruments {
    role: &'static str,
}

impl TaskInstruments {
    pub(crate) fn new(role: &'static str) -> Self {
        Self { role }
    }

    /// Reports that the code of an attempt has ended. Kinds are named by the program, so there are few.
    pub(crate) fn ran(&self, kind: &EventType, took: Duration) {
        histogram!(TASK_DURATION, "role" => self.role, "kind" => kind.to_string()).record(took);
    }

    /// Reports that the outcome of an attempt is decided.
    pub(crate) fn ended(&self, kind: &EventType, outcome: &'static str) {
        let kind = kind.to_string();
        counter!(TASK_ATTEMPTS, "role" => self.role, "kind" => kind, "outcome" => outcome)
            .increment(1);
    }

    /// Reports that an attempt has failed and its task will be retried.
    pub(crate) fn retries(&self, id: &TaskId, kind: &EventType, error: &str) {
        tracing::info!(role = self.role, task = %id, %kind, "a task is retried later: {error}");
    }

    /// Reports that the tasks of another process were taken over.
    pub(crate) fn taken_over(&self, holder: TaskHolder, tasks: u64) {
        let role = self.role;
        tracing::warn!(role, %holder, tasks, "took over the tasks of a process whose heartbeat has stopped");
        counter!(TASK_TAKE_OVERS, "role" => role).increment(tasks);
    }

    /// Reports that the store cannot be used for tasks.
    pub(crate) fn unavailable(&self, error: &StoreError) {
        tracing::warn!(
            role = self.role,
            "tasks wait until the store is available, and running ones stop with their leases: {error}"
        );
    }

    /// Reports that attempts are dropped, since no heartbeat has succeeded for the length of a lease.
    pub(crate) fn leases_ended(&self, attempts: usize) {
        tracing::warn!(
            role = self.role,
            attempts,
            "attempts of tasks are dropped, since their leases could not be renewed"
        );
    }
}

/// Reports that the store cannot be used, and deliveries wait.
pub(crate) fn store_unavailable(role: &'static str, error: &StoreError) {
    tracing::error!(
        role,
        "consuming paused until the store is available: {error}"
    );
    counter!(STORE_OUTAGES, "role" => role).increment(1);
}

/// Reports that the store still cannot be used, for another reason than before.
pub(crate) fn store_still_unavailable(role: &'static str, error: &StoreError) {
    tracing::error!(role, "consuming still paused, for another reason: {error}");
}

/// Reports that the store can be used again.
pub(crate) fn store_recovered(role: &'static str) {
    tracing::warn!(role, "the store is available again, consuming resumed");
}

/// Reports that a bounded table is full, and deliveries wait.
pub(crate) fn store_full(role: &'static str, table: &'static str) {
    tracing::error!(
        role,
        "the store's {table} are at their bound: no deliveries are taken until there is room{}",
        remedy(table)
    );
}

/// Returns the remedy for a full table that does not drain by itself.
fn remedy(table: &str) -> &'static str {
    if table == limits::DEFERRED {
        "; `consumers status` lists what is missing or blocked. If the missing event is in the queue, a higher --max-deferred lets the role reach it"
    } else {
        ""
    }
}

/// Reports that the wall clock has jumped; `by` is negative if it went back.
pub(crate) fn clock_jumped(role: &'static str, by: SignedDuration) {
    tracing::warn!(
        role,
        seconds = by.as_secs(),
        "the clock has jumped, or this machine was suspended: nothing is pruned and no waiting event expires until it has run evenly for \
         an hour; if it is wrong, set it right"
    );
    counter!(CLOCK_JUMPS, "role" => role).increment(1);
}

/// Reports a new reason that makes a role degraded.
pub(crate) fn degraded(role: &'static str, reason: &str) {
    tracing::warn!(role, "degraded: {reason}");
}

/// Reports that rows of the outbox cannot be published.
pub(crate) fn outbox_stalled(role: &'static str, rows: usize, outcome: PublishOutcome) {
    tracing::warn!(
        role,
        rows,
        outcome = ?outcome,
        "the outbox keeps the rows that could not be published"
    );
}

/// Reports that the outbox is published again.
pub(crate) fn outbox_recovered(role: &'static str) {
    tracing::info!(role, "outbox publishing resumed");
}

/// Reports that a role has rejected the word of an end of a task, which has ended all the same.
pub(crate) fn outcome_rejected(role: &'static str, task: &TaskId, rejected: &Rejection) {
    tracing::warn!(
        role,
        %task,
        "the role has rejected the outcome of a task, and keeps its states: {rejected}"
    );
}
