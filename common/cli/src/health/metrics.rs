//! Metrics that are counted elsewhere, exported at each scrape.
//!
//! Names follow OpenTelemetry's messaging conventions where they have one, in Prometheus' spelling; all others begin
//! with `doorstep_`. Labels are roles, connections, queues and reasons, so there are few series. A role's quarantine
//! counts with its queue, and its copies of dead letters with its exchange.

use std::{
    collections::BTreeSet,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use doorstep_messaging::{
    ConnectionPhase, ConnectionStatus, ConsumerTotals, Namespace, PublisherTotals, QueueName,
    RpcServerTotals,
};
use doorstep_runtime::runner::RoleConnections;
use doorstep_store::{EventCounts, Summary, TaskKindCount};
use doorstep_telemetry::health::{HealthStatus, RoleHealth};
use metrics::{counter, describe_counter, describe_gauge, gauge};

use super::RpcClientHealth;

const SENT: &str = "messaging_client_sent_messages_total";
const CONSUMED: &str = "messaging_client_consumed_messages_total";

/// The counters and their descriptions.
const COUNTERS: &str = "\
messaging_client_sent_messages_total: Messages handed to the broker, by what became of them
messaging_client_consumed_messages_total: Deliveries, redeliveries included
doorstep_events_applied_total: Events applied
doorstep_events_ignored_total: Known events of types that the role does not handle
doorstep_duplicate_deliveries_total: Deliveries of events that were applied before
doorstep_events_deferred_total: Events deferred on arrival
doorstep_dead_letters_replayed_total: Dead letters replayed and then applied
doorstep_dead_letters_skipped_total: Dead letters and gaps skipped
doorstep_commands_executed_total: Commands executed, each once
doorstep_tasks_done_total: Tasks ended with their result
doorstep_rpc_forbidden_total: Requests rejected because their broker user is not in --rpc-callers
doorstep_rpc_clock_skew_total: Requests past their deadline on first delivery: clocks differ, or the machine stalled
doorstep_rpc_late_replies_total: Replies received after their call had ended
doorstep_rpc_server_requests_total: Requests received over AMQP, by outcome
doorstep_rpc_client_requests_total: Requests to other roles, by outcome
doorstep_deliveries_acked_total: Deliveries acknowledged
doorstep_stale_acks_total: Acknowledgements of deliveries whose channel was gone
doorstep_consumers_cancelled_total: Consumers cancelled by the broker
doorstep_channels_closed_by_broker_total: Channels closed by the broker while their connection stayed open
doorstep_reconnects_total: Connections made after the first";

/// The gauges and their descriptions.
const GAUGES: &str = "\
doorstep_role_status: 1 for the current status: ready, degraded or unready
doorstep_connection_up: 1 while the connection is open
doorstep_connection_blocked: 1 while the broker blocks the connection for lack of memory or disk
doorstep_consumers: The broker's own count of consumers on the role's queue
doorstep_deliveries_unacked: Deliveries taken and not acked
doorstep_rpc_client_in_flight: Requests to other roles in flight
doorstep_rpc_server_in_flight: Requests received and not answered
doorstep_rpc_queue_ready: Requests ready in the role's queue
doorstep_oldest_unacked_age_seconds: Age of the oldest unacknowledged delivery
doorstep_publishes_unconfirmed: Messages published and not yet confirmed
doorstep_outbox_pending: Rows pending in the outbox
doorstep_oldest_outbox_age_seconds: Age of the oldest message in the outbox
doorstep_deferred_events: Events deferred
doorstep_oldest_deferred_age_seconds: Age of the oldest deferred event
doorstep_timers: Events that the role has scheduled for itself
doorstep_stored_replies: Stored replies to commands
doorstep_tasks: Live tasks by kind and state
doorstep_oldest_ready_task_age_seconds: Age of the oldest task of its kind that waits to be run
doorstep_dead_letters_open: Open dead letters
doorstep_oldest_dead_letter_age_seconds: Age of the oldest dead letter
doorstep_blocked_streams: Streams whose next event is a dead letter
doorstep_stream_gaps: Streams with events deferred behind a missing one
doorstep_restored: 1 while the store counts as restored from a backup or copied, until that is accepted
doorstep_restored_sources: Sources found to be restored or copied, until that is accepted
doorstep_entities: Entities with a state
doorstep_streams: Streams
doorstep_dated_ahead_events: Deferred events, and the oldest outbox message, dated ahead of the clock
doorstep_store_log_bytes: Size of the store's write-ahead log";

/// Registers the descriptions of the metrics.
pub(super) fn describe() {
    for (name, text) in COUNTERS.lines().filter_map(|line| line.split_once(": ")) {
        describe_counter!(name, text);
    }
    for (name, text) in GAUGES.lines().filter_map(|line| line.split_once(": ")) {
        describe_gauge!(name, text);
    }
}

/// Exports the health of a role.
pub(super) fn export_health(role: &'static str, health: &RoleHealth) {
    for (standing, word) in [
        (HealthStatus::Ready, "ready"),
        (HealthStatus::Degraded, "degraded"),
        (HealthStatus::Unready, "unready"),
    ] {
        let is = f64::from(u8::from(health.status == standing));
        gauge!("doorstep_role_status", "role" => role, "status" => word).set(is);
    }
    // A missing value is better than a wrong one: if the broker cannot be reached, the last one is kept, and the status
    // reports the failure.
    if let Some(consumers) = health.consumers {
        gauge!("doorstep_consumers", "role" => role).set(consumers as f64);
    }
}

/// Exports the counters of its connections.
pub(super) fn export_connections(
    role: &'static str,
    namespace: &Namespace,
    links: &RoleConnections,
) {
    export_connection(role, "publish", &links.publish.borrow());
    if let Some(consume) = &links.consume {
        export_connection(role, "consume", &consume.borrow());
    }
    if let Some(quarantine) = &links.quarantine {
        export_connection(role, "quarantine", &quarantine.borrow());
    }
    if let (Some(consumed), Some(quarantined)) = (&links.consumed, &links.quarantined) {
        let (consumed, quarantined) = (consumed.read(), quarantined.read());
        export_received(role, &namespace.role_queue(role, 0), "consume", &consumed);
        export_received(
            role,
            &namespace.quarantine_queue(role),
            "quarantine",
            &quarantined,
        );
        export_consumed(role, [&consumed, &quarantined]);
    }
    export_published(role, namespace, &links.published.read());
    if let Some(answer) = &links.serve {
        export_connection(role, "rpc_server", &answer.borrow());
    }
    if let Some(answered) = &links.served {
        export_rpc_server(role, &answered.read());
    }
}

/// Exports the calls made in the name of this role.
pub(super) fn export_rpc_client(role: &'static str, rpc_client: &RpcClientHealth) {
    export_connection(role, "rpc_client", &rpc_client.link.borrow());
    let counts = rpc_client.stats.read();
    for (outcome, count) in [
        ("answered", counts.replied),
        ("rejected", counts.rejected),
        ("no_responder", counts.no_responder),
        ("timed_out", counts.timed_out),
        ("overloaded", counts.overloaded),
        ("unreachable", counts.unreachable),
        ("malformed", counts.malformed),
        ("cancelled", counts.cancelled),
    ] {
        counter!("doorstep_rpc_client_requests_total", "role" => role, "outcome" => outcome)
            .absolute(count);
    }
    counter!("doorstep_rpc_late_replies_total", "role" => role).absolute(counts.late);
    gauge!("doorstep_rpc_client_in_flight", "role" => role).set(counts.in_flight as f64);
}

/// Exports the number of requests ready in its queue.
pub(super) fn export_waiting(role: &'static str, waiting: u64) {
    gauge!("doorstep_rpc_queue_ready", "role" => role).set(waiting as f64);
}

fn export_rpc_server(role: &'static str, counts: &RpcServerTotals) {
    for (outcome, count) in [
        ("answered", counts.replied),
        ("rejected", counts.rejected),
        ("overloaded", counts.shed),
        ("expired", counts.expired),
        ("cancelled", counts.cancelled),
        ("malformed", counts.malformed),
        ("requeued", counts.requeued),
        ("discarded", counts.replies_lost),
    ] {
        counter!("doorstep_rpc_server_requests_total", "role" => role, "outcome" => outcome)
            .absolute(count);
    }
    counter!("doorstep_rpc_forbidden_total", "role" => role).absolute(counts.forbidden);
    counter!("doorstep_rpc_clock_skew_total", "role" => role).absolute(counts.skewed);
    gauge!("doorstep_rpc_server_in_flight", "role" => role).set(counts.in_flight as f64);
}

fn export_connection(role: &'static str, link: &'static str, state: &ConnectionStatus) {
    let is = |yes: bool| f64::from(u8::from(yes));
    let blocked = matches!(state.phase, ConnectionPhase::Blocked(_));
    gauge!("doorstep_connection_up", "role" => role, "connection" => link)
        .set(is(blocked || state.phase == ConnectionPhase::Connected));
    gauge!("doorstep_connection_blocked", "role" => role, "connection" => link).set(is(blocked));
    counter!("doorstep_reconnects_total", "role" => role, "connection" => link)
        .absolute(state.connections.saturating_sub(1));
}

/// Exports the deliveries from one of its queues.
fn export_received(
    role: &'static str,
    queue: &QueueName,
    link: &'static str,
    counts: &ConsumerTotals,
) {
    counter!(CONSUMED, "messaging_system" => "rabbitmq", "messaging_operation_name" => "receive",
        "messaging_destination_name" => queue.to_string(), "role" => role)
    .absolute(counts.delivered);
    counter!("doorstep_channels_closed_by_broker_total", "role" => role, "connection" => link)
        .absolute(counts.channels_closed);
}

/// Exports the outcomes of the deliveries from all of its queues.
fn export_consumed(role: &'static str, counts: [&ConsumerTotals; 2]) {
    let sum = |count: fn(&ConsumerTotals) -> u64| counts.into_iter().map(count).sum::<u64>();
    for (name, count) in [
        ("doorstep_deliveries_acked_total", sum(|c| c.acked)),
        ("doorstep_stale_acks_total", sum(|c| c.stale_acks)),
        (
            "doorstep_consumers_cancelled_total",
            sum(|c| c.consumers_cancelled),
        ),
    ] {
        counter!(name, "role" => role).absolute(count);
    }
    gauge!("doorstep_deliveries_unacked", "role" => role).set(sum(|c| c.unacked) as f64);
    let oldest = counts.into_iter().filter_map(|c| c.oldest_unacked).min();
    let age = oldest.map(|since| since.elapsed());
    gauge!("doorstep_oldest_unacked_age_seconds", "role" => role).set(seconds(age));
}

fn export_published(role: &'static str, namespace: &Namespace, counts: &PublisherTotals) {
    export_sent(role, &namespace.events_exchange(), counts);
    counter!("doorstep_channels_closed_by_broker_total", "role" => role, "connection" => "publish")
        .absolute(counts.channels_closed);
    gauge!("doorstep_publishes_unconfirmed", "role" => role).set(counts.unconfirmed as f64);
}

fn export_sent(role: &'static str, exchange: &str, counts: &PublisherTotals) {
    counter!(SENT, "messaging_system" => "rabbitmq", "messaging_operation_name" => "send",
        "messaging_destination_name" => exchange.to_owned(), "role" => role)
    .absolute(counts.confirmed);
    for (error, count) in [
        ("unroutable", counts.returned),
        ("rejected", counts.rejected),
        ("timed_out", counts.timed_out),
        ("disconnected", counts.disconnected),
        ("blocked", counts.blocked),
    ] {
        counter!(SENT, "messaging_system" => "rabbitmq", "messaging_operation_name" => "send",
            "messaging_destination_name" => exchange.to_owned(), "error_type" => error, "role" => role)
        .absolute(count);
    }
}

/// Exports the outcomes counted since its start.
pub(super) fn export_done(role: &'static str, done: &EventCounts) {
    for (name, count) in [
        ("doorstep_events_applied_total", done.applied),
        ("doorstep_events_ignored_total", done.ignored),
        ("doorstep_duplicate_deliveries_total", done.duplicates),
        ("doorstep_events_deferred_total", done.deferred),
        ("doorstep_dead_letters_replayed_total", done.replayed),
        ("doorstep_dead_letters_skipped_total", done.skipped),
        ("doorstep_commands_executed_total", done.executed),
        ("doorstep_tasks_done_total", done.tasks_done),
    ] {
        counter!(name, "role" => role).absolute(count);
    }
}

/// Exports the contents of its store.
pub(super) fn export_store(role: &'static str, summary: &Summary) {
    let age = |ms: Option<u64>| seconds(ms.map(Duration::from_millis));
    let set = |name, value: f64| gauge!(name, "role" => role).set(value);
    let is_restored = summary.restored.is_some();
    let usage = &summary.usage;
    set("doorstep_outbox_pending", usage.outbox.rows as f64);
    set(
        "doorstep_oldest_outbox_age_seconds",
        age(summary.oldest_outbox_ms),
    );
    set("doorstep_deferred_events", usage.deferred.rows as f64);
    set(
        "doorstep_oldest_deferred_age_seconds",
        age(summary.oldest_held_ms),
    );
    set("doorstep_timers", usage.timers.rows as f64);
    set("doorstep_stored_replies", usage.replies.rows as f64);
    set("doorstep_dead_letters_open", usage.dead_letters.rows as f64);
    set(
        "doorstep_oldest_dead_letter_age_seconds",
        age(summary.oldest_dead_ms),
    );
    set("doorstep_blocked_streams", summary.blocked as f64);
    set("doorstep_stream_gaps", summary.gaps as f64);
    set("doorstep_restored", f64::from(u8::from(is_restored)));
    set(
        "doorstep_restored_sources",
        summary.restored_sources.len() as f64,
    );
    set("doorstep_entities", summary.entities as f64);
    set("doorstep_streams", summary.streams as f64);
    set("doorstep_dated_ahead_events", summary.dated_ahead as f64);
    export_tasks(role, &summary.tasks);
    if let Some(bytes) = summary.log_bytes {
        set("doorstep_store_log_bytes", bytes as f64);
    }
}

/// Exports the live tasks by kind. A kind without any is no longer in the summary: its last values are set to 0.
fn export_tasks(role: &'static str, tasks: &[TaskKindCount]) {
    static KNOWN: Mutex<BTreeSet<(&str, String)>> = Mutex::new(BTreeSet::new());
    let mut known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
    known.extend(tasks.iter().map(|of| (role, of.kind.to_string())));
    for (_, kind) in known.iter().filter(|(of, _)| *of == role) {
        let count = tasks.iter().find(|of| of.kind.as_str() == kind);
        let states = [
            ("ready", count.map(|of| of.ready)),
            ("running", count.map(|of| of.running)),
            ("unknown", count.map(|of| of.unknown)),
        ];
        for (state, tasks) in states {
            gauge!("doorstep_tasks", "role" => role, "kind" => kind.clone(), "state" => state)
                .set(tasks.unwrap_or(0) as f64);
        }
        let oldest = count.and_then(|of| of.oldest_ready_ms);
        gauge!("doorstep_oldest_ready_task_age_seconds", "role" => role, "kind" => kind.clone())
            .set(seconds(oldest.map(Duration::from_millis)));
    }
}

/// 0 if there is nothing that has an age.
fn seconds(age: Option<Duration>) -> f64 {
    age.unwrap_or_default().as_secs_f64()
}
