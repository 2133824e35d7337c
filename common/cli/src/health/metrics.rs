//! Metrics that are counted elsewhere, exported at each scrape.
//!
//! Names follow OpenTelemetry's messaging conventions where they have one, in Prometheus' spelling; all others begin
//! with `doorstep_`. Labels are roles, connections, queues and reasons, so there are few series. A role's quarantine
//! counts with its queue, and its copies of dead letters with its exchange.

use std::time::Duration;

use doorstep_messaging::{
    ConnectionPhase, ConnectionStatus, ConsumerTotals, Namespace, PublisherTotals, QueueName,
    RpcServerTotals,
};
use doorstep_runtime::runner::RoleConnections;
use doorstep_store::{EventCounts, Summary};
use doorstep_telemetry::health::{HealthStatus, RoleHealth};
use metrics::{counter, describe_counter, describe_gauge, gauge};

use super::RpcClientHealth;

const SENT: &str = "messaging_client_sent_messages_total";
const CONSUMED: &str = "messaging_client_consumed_messages_total";

/// Registers the descriptions of the metrics.
pub(super) fn describe() {
    for (name, text) in [
        (
            SENT,
            "Messages handed to the broker, by what became of them",
        ),
        (CONSUMED, "Deliveries, redeliveries included"),
        ("doorstep_applied_total", "Events applied"),
        (
            "doorstep_ignored_total",
            "Known events of types that the role does not handle",
        ),
        (
            "doorstep_duplicates_total",
            "Deliveries dropped because they had been worked before",
        ),
        ("doorstep_held_total", "Events deferred on arrival"),
        (
            "doorstep_replayed_total",
            "Dead letters replayed and then applied",
        ),
        ("doorstep_skipped_total", "Dead letters and gaps skipped"),
        ("doorstep_obeyed_total", "Commands executed, each once"),
        (
            "doorstep_requests_forbidden_total",
            "Requests rejected since their user of the broker is none of --rpc-callers",
        ),
        (
            "doorstep_requests_skewed_total",
            "Requests past their deadline at their first delivery: clocks differ, or the machine was suspended",
        ),
        (
            "doorstep_requests_total",
            "Requests that came by the broker, by how they ended",
        ),
        (
            "doorstep_asked_total",
            "Requests to other roles, by how they ended",
        ),
        (
            "doorstep_replies_late_total",
            "Replies that came after their caller had given up",
        ),
        ("doorstep_settled_total", "Deliveries acknowledged"),
        (
            "doorstep_settlements_discarded_total",
            "Settlements that came too late for their channel",
        ),
        (
            "doorstep_consumers_cancelled_total",
            "Consumers that the broker has cancelled",
        ),
        (
            "doorstep_channels_ended_total",
            "Channels that the broker has closed while their connection stayed",
        ),
        (
            "doorstep_reconnects_total",
            "Connections made after the first",
        ),
    ] {
        describe_counter!(name, text);
    }
    describe_gauges();
}

fn describe_gauges() {
    for (name, text) in [
        (
            "doorstep_role_status",
            "1 for how the role is now: ready, degraded or unready",
        ),
        ("doorstep_connected", "Whether there is a connection"),
        (
            "doorstep_blocked_by_broker",
            "Whether the broker takes nothing for want of memory or disk",
        ),
        (
            "doorstep_consumers",
            "The broker's own count of consumers on the role's queue",
        ),
        ("doorstep_unsettled", "Deliveries taken and not acked"),
        ("doorstep_asking", "Requests to other roles in flight"),
        (
            "doorstep_requests_held",
            "Requests taken and not replied to",
        ),
        (
            "doorstep_requests_waiting",
            "Requests in the role's queue that no process has taken",
        ),
        (
            "doorstep_unsettled_age_seconds",
            "Age of the oldest unacked delivery",
        ),
        (
            "doorstep_unconfirmed",
            "Messages published and not yet confirmed",
        ),
        ("doorstep_outbox_rows", "Rows pending in the outbox"),
        (
            "doorstep_outbox_age_seconds",
            "Age of the oldest row of the outbox",
        ),
        ("doorstep_held_rows", "Events deferred"),
        (
            "doorstep_held_age_seconds",
            "Age of the oldest deferred event",
        ),
        (
            "doorstep_scheduled_rows",
            "Events that the role has scheduled to itself",
        ),
        ("doorstep_replies_rows", "Replies to commands kept"),
        (
            "doorstep_dead_rows",
            "Dead letters that wait for an operator",
        ),
        ("doorstep_dead_age_seconds", "Age of the oldest dead letter"),
        (
            "doorstep_blocked_streams",
            "Streams whose next event is a dead letter",
        ),
        (
            "doorstep_gaps",
            "Streams that hold events behind a missing one",
        ),
        (
            "doorstep_restored",
            "1 while the store counts as restored from a backup or copied, until that is accepted",
        ),
        (
            "doorstep_restored_sources",
            "Sources found to be restored or copied, until that is accepted",
        ),
        ("doorstep_entities", "Entities with a state"),
        ("doorstep_streams", "Streams"),
        (
            "doorstep_dated_ahead_rows",
            "Held events, and the oldest outbox row, that are dated ahead of the clock",
        ),
        (
            "doorstep_store_log_bytes",
            "Size of the store's write-ahead log",
        ),
    ] {
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
        export_received(role, &namespace.net_queue(role), "quarantine", &quarantined);
        export_consumed(role, [&consumed, &quarantined]);
    }
    export_published(role, namespace, &links.published.read());
    if let Some(answer) = &links.answer {
        export_connection(role, "answer", &answer.borrow());
    }
    if let Some(answered) = &links.answered {
        export_rpc_server(role, &answered.read());
    }
}

/// Exports the calls made in the name of this role.
pub(super) fn export_rpc_client(role: &'static str, asking: &RpcClientHealth) {
    export_connection(role, "ask", &asking.link.borrow());
    let counts = asking.asked.read();
    for (end, count) in [
        ("answered", counts.answered),
        ("refused", counts.refused),
        ("no_responder", counts.no_responder),
        ("timed_out", counts.timed_out),
        ("overloaded", counts.overloaded),
        ("unreachable", counts.unreachable),
        ("malformed", counts.malformed),
        ("cancelled", counts.cancelled),
    ] {
        counter!("doorstep_asked_total", "role" => role, "end" => end).absolute(count);
    }
    counter!("doorstep_replies_late_total", "role" => role).absolute(counts.late);
    gauge!("doorstep_asking", "role" => role).set(counts.in_flight as f64);
}

/// Exports the number of requests ready in its queue.
pub(super) fn export_waiting(role: &'static str, waiting: u64) {
    gauge!("doorstep_requests_waiting", "role" => role).set(waiting as f64);
}

fn export_rpc_server(role: &'static str, counts: &RpcServerTotals) {
    for (end, count) in [
        ("answered", counts.answered),
        ("refused", counts.refused),
        ("shed", counts.shed),
        ("expired", counts.expired),
        ("cancelled", counts.cancelled),
        ("malformed", counts.malformed),
        ("put_back", counts.put_back),
        ("discarded", counts.discarded),
    ] {
        counter!("doorstep_requests_total", "role" => role, "end" => end).absolute(count);
    }
    counter!("doorstep_requests_forbidden_total", "role" => role).absolute(counts.forbidden);
    counter!("doorstep_requests_skewed_total", "role" => role).absolute(counts.skewed);
    gauge!("doorstep_requests_held", "role" => role).set(counts.held as f64);
}

fn export_connection(role: &'static str, link: &'static str, state: &ConnectionStatus) {
    let is = |yes: bool| f64::from(u8::from(yes));
    let blocked = matches!(state.phase, ConnectionPhase::Blocked(_));
    gauge!("doorstep_connected", "role" => role, "link" => link)
        .set(is(blocked || state.phase == ConnectionPhase::Connected));
    gauge!("doorstep_blocked_by_broker", "role" => role, "link" => link).set(is(blocked));
    counter!("doorstep_reconnects_total", "role" => role, "link" => link)
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
    counter!("doorstep_channels_ended_total", "role" => role, "link" => link)
        .absolute(counts.channels_ended);
}

/// Exports the outcomes of the deliveries from all of its queues.
fn export_consumed(role: &'static str, counts: [&ConsumerTotals; 2]) {
    let sum = |count: fn(&ConsumerTotals) -> u64| counts.into_iter().map(count).sum::<u64>();
    for (name, count) in [
        ("doorstep_settled_total", sum(|c| c.settled)),
        ("doorstep_settlements_discarded_total", sum(|c| c.discarded)),
        (
            "doorstep_consumers_cancelled_total",
            sum(|c| c.consumers_cancelled),
        ),
    ] {
        counter!(name, "role" => role).absolute(count);
    }
    gauge!("doorstep_unsettled", "role" => role).set(sum(|c| c.unsettled) as f64);
    let oldest = counts.into_iter().filter_map(|c| c.oldest_unsettled).min();
    let age = oldest.map(|since| since.elapsed());
    gauge!("doorstep_unsettled_age_seconds", "role" => role).set(seconds(age));
}

fn export_published(role: &'static str, namespace: &Namespace, counts: &PublisherTotals) {
    export_sent(role, &namespace.events_exchange(), counts);
    counter!("doorstep_channels_ended_total", "role" => role, "link" => "publish")
        .absolute(counts.channels_ended);
    gauge!("doorstep_unconfirmed", "role" => role).set(counts.outstanding as f64);
}

fn export_sent(role: &'static str, exchange: &str, counts: &PublisherTotals) {
    counter!(SENT, "messaging_system" => "rabbitmq", "messaging_operation_name" => "send",
        "messaging_destination_name" => exchange.to_owned(), "role" => role)
    .absolute(counts.confirmed);
    for (error, count) in [
        ("unroutable", counts.returned),
        ("refused", counts.refused),
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
        ("doorstep_applied_total", done.applied),
        ("doorstep_ignored_total", done.ignored),
        ("doorstep_duplicates_total", done.duplicates),
        ("doorstep_held_total", done.held),
        ("doorstep_replayed_total", done.replayed),
        ("doorstep_skipped_total", done.skipped),
        ("doorstep_obeyed_total", done.obeyed),
    ] {
        counter!(name, "role" => role).absolute(count);
    }
}

/// Exports the contents of its store.
pub(super) fn export_store(role: &'static str, summary: &Summary) {
    let age = |ms: Option<u64>| seconds(ms.map(Duration::from_millis));
    for (name, value) in [
        ("doorstep_outbox_rows", summary.usage.outbox.rows as f64),
        ("doorstep_outbox_age_seconds", age(summary.oldest_outbox_ms)),
        ("doorstep_held_rows", summary.usage.held.rows as f64),
        ("doorstep_held_age_seconds", age(summary.oldest_held_ms)),
        (
            "doorstep_scheduled_rows",
            summary.usage.scheduled.rows as f64,
        ),
        ("doorstep_replies_rows", summary.usage.replies.rows as f64),
        ("doorstep_dead_rows", summary.usage.dead.rows as f64),
        ("doorstep_dead_age_seconds", age(summary.oldest_dead_ms)),
        ("doorstep_blocked_streams", summary.blocked as f64),
        ("doorstep_gaps", summary.gaps as f64),
        (
            "doorstep_restored",
            f64::from(u8::from(summary.restored.is_some())),
        ),
        (
            "doorstep_restored_sources",
            summary.restored_sources.len() as f64,
        ),
        ("doorstep_entities", summary.entities as f64),
        ("doorstep_streams", summary.streams as f64),
        ("doorstep_dated_ahead_rows", summary.dated_ahead as f64),
    ] {
        gauge!(name, "role" => role).set(value);
    }
    if let Some(bytes) = summary.log_bytes {
        gauge!("doorstep_store_log_bytes", "role" => role).set(bytes as f64);
    }
}

/// 0 if there is nothing that has an age.
fn seconds(age: Option<Duration>) -> f64 {
    age.unwrap_or_default().as_secs_f64()
}
