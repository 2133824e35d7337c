//! `consumers status`: the status of every role, by its queues and its store.

use std::{path::Path, time::Duration};

use doorstep_cli::{
    CliError,
    output::{print, print_json},
};
use doorstep_event::Timestamp;
use doorstep_messaging::{BrokerSettings, Depth, InspectError, Inspector, Namespace, QueueName};
use doorstep_runtime::{
    Limits,
    limits::{Capacity, DEFERRED},
};
use doorstep_store::{SequenceGap, Store, Streamless, Summary};
use doorstep_table::{Column, Table, terminal_width, wrapped};
use serde::Serialize;

use super::attention;
use crate::{
    cli::StatusArgs,
    format::{age, or_dash},
    roles::{self, answers},
    stores,
};

/// The maximum of gaps listed for a role.
const GAPS_LISTED: usize = 20;
/// The maximum of kinds of dead letters that are named.
const KINDS_NAMED: usize = 3;
/// The time limit for closing the connection.
const HANG_UP: Duration = Duration::from_secs(2);

/// The status of all roles.
#[derive(Debug, Serialize)]
struct Report {
    namespace: String,
    broker: BrokerReport,
    roles: Vec<RoleReport>,
}

/// The broker's part of the report.
#[derive(Debug, Serialize)]
struct BrokerReport {
    reachable: bool,
    /// The reason why it is unreachable.
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

/// The status of a role.
#[derive(Debug, Default, Serialize)]
struct RoleReport {
    role: &'static str,
    /// `null` where there is none.
    queue: Option<QueueReport>,
    quarantine: Option<QueueReport>,
    /// Its queue of requests; left out for a role that serves none.
    #[serde(skip_serializing_if = "Option::is_none")]
    requests: Option<QueueReport>,
    /// Events that have arrived and are not applied: those ready in both queues, and the deferred ones.
    lag: Option<u64>,
    store: Option<Summary>,
    streamless: Option<Streamless>,
    missing: Vec<GapReport>,
    /// The reasons why other fields are unknown.
    notes: Vec<String>,
    #[serde(skip)]
    gaps: Vec<SequenceGap>,
}

#[derive(Debug, Serialize)]
struct QueueReport {
    name: QueueName,
    /// `null` if the queue could not be read; a note has the reason.
    ready: Option<u64>,
    consumers: Option<u64>,
}

#[derive(Debug, Serialize)]
struct GapReport {
    subject: String,
    source: String,
    from: u64,
    to: u64,
    held: u64,
    since: Timestamp,
}

/// Shows the status of these roles.
///
/// # Errors
/// The broker is unreachable, a store cannot be read, or there is no store; everything else is shown all the same.
pub(crate) async fn status(broker: BrokerSettings, args: StatusArgs) -> Result<(), CliError> {
    let (roles, folder) = (roles::chosen(&args.roles), &args.store.folder);
    let mut failure = None;
    let name = format!("{} status", broker.namespace);
    let inspector = Inspector::connect(&broker, &name).await;
    let mut reports = Vec::new();
    for role in &roles {
        let mut report = RoleReport::empty(role.name);
        if let Err(e) = report.look_at_store(folder).await {
            report.notes.push(e.to_string());
            failure.get_or_insert(e);
        }
        match &inspector {
            Ok(inspector) => report.look_at_queues(inspector, &broker.namespace).await,
            Err(_) => report.knows_no_queue(&broker.namespace),
        }
        reports.push(report);
    }
    let broker_error = match inspector {
        Ok(inspector) => {
            inspector.close(HANG_UP).await;
            None
        }
        Err(e) => Some(e.to_string()),
    };
    let report = Report {
        namespace: broker.namespace.to_string(),
        broker: BrokerReport {
            reachable: broker_error.is_none(),
            error: broker_error.clone(),
        },
        roles: reports,
    };
    if args.json {
        print_json(&report)?;
    } else {
        print(|out| write_text(out, &report, terminal_width()))?;
    }
    match (failure, broker_error) {
        (Some(failure), _) => Err(failure),
        (None, Some(error)) => Err(CliError::broker(format!(
            "only the stores could be read: {error}"
        ))),
        (None, None) => stores::require_any(&roles, folder),
    }
}

impl RoleReport {
    /// Creates an empty report.
    fn empty(role: &'static str) -> Self {
        Self {
            role,
            ..Self::default()
        }
    }

    async fn look_at_store(&mut self, folder: &Path) -> Result<(), CliError> {
        let Some(store) = stores::open_read_only(folder, self.role)? else {
            let note = format!("no store in {} yet", folder.display());
            self.notes.push(note);
            return Ok(());
        };
        let now = Timestamp::now();
        let summary = store.summary(now).await?;
        // By the default bounds: a role that runs with others reports that itself.
        match Limits::default().capacity(&summary.usage) {
            // The missing event may be in the queue, but the full role takes no more deliveries.
            Capacity::Full(DEFERRED) => self.notes.push(
                "the store's held events are at their bound, unless the role runs with a higher --max-deferred: no deliveries are taken until \
                 there is room; settle the dead letters that block streams, let the role reach what is missing by a higher --max-deferred, or \
                 step over it by `consumers streams skip-gap ROLE`"
                    .to_owned(),
            ),
            Capacity::Full(table) => self.notes.push(format!(
                "the store's {table} are at their bound: no deliveries are taken until there is room"
            )),
            Capacity::NearLimit(table) => self
                .notes
                .push(format!("the store's {table} are at 80 % of their bound or more")),
            Capacity::Ok => {}
        }
        let unknown = attention::of_unknown(self.role, &summary);
        self.notes.extend(unknown);
        self.store = Some(summary);
        let limits = Limits::default();
        let streamless = store.streamless(limits.large_kind(), KINDS_NAMED).await?;
        self.notes.extend(limits.streamless_findings(&streamless));
        self.notes
            .extend(attention::of_overflow(&streamless, folder, self.role));
        self.streamless = Some(streamless);
        self.gaps = store.gaps(now, now, GAPS_LISTED).await?;
        self.missing = self.gaps.iter().map(GapReport::from_gap).collect();
        Ok(())
    }

    async fn look_at_queues(&mut self, inspector: &Inspector, namespace: &Namespace) {
        // A role without a queue has no quarantine either, which is noted once.
        self.queue = self
            .look_at_queue(inspector, namespace.role_queue(self.role, 0))
            .await;
        if self.queue.is_some() {
            self.quarantine = self
                .look_at_queue(inspector, namespace.quarantine_queue(self.role))
                .await;
            if answers(self.role) {
                let requests = namespace.rpc_queue(self.role);
                // A classic queue, which cannot lose its quorum; a `basic.get` would take a request out of it.
                let depth = inspector.queue_depth(&requests).await;
                self.requests = self.report_of(requests, depth);
            }
        }
        self.lag = self.lag();
    }

    /// Notes that no queue could be read, since there is no broker.
    fn knows_no_queue(&mut self, namespace: &Namespace) {
        self.queue = Some(QueueReport::unknown(namespace.role_queue(self.role, 0)));
        self.quarantine = Some(QueueReport::unknown(namespace.quarantine_queue(self.role)));
        if answers(self.role) {
            self.requests = Some(QueueReport::unknown(namespace.rpc_queue(self.role)));
        }
    }

    async fn look_at_queue(
        &mut self,
        inspector: &Inspector,
        name: QueueName,
    ) -> Option<QueueReport> {
        let depth = inspector.certain_depth(&name).await;
        self.report_of(name, depth)
    }

    fn report_of(
        &mut self,
        name: QueueName,
        depth: Result<Depth, InspectError>,
    ) -> Option<QueueReport> {
        match depth {
            Ok(depth) => Some(QueueReport {
                name,
                ready: Some(depth.ready),
                consumers: Some(depth.consumers),
            }),
            Err(e) => {
                self.notes.push(e.to_string());
                let is_missing = matches!(e, InspectError::Missing(_));
                (!is_missing).then(|| QueueReport::unknown(name))
            }
        }
    }

    fn lag(&self) -> Option<u64> {
        // A role without a store has no deferred events.
        let held = self
            .store
            .as_ref()
            .map_or(0, |store| store.usage.deferred.rows);
        Some(self.queue.as_ref()?.ready? + self.quarantine.as_ref()?.ready? + held)
    }
}

impl QueueReport {
    fn unknown(name: QueueName) -> Self {
        Self {
            name,
            ready: None,
            consumers: None,
        }
    }
}

impl GapReport {
    fn from_gap(gap: &SequenceGap) -> Self {
        Self {
            subject: gap.stream.subject.to_string(),
            source: gap.stream.source.to_string(),
            from: gap.from,
            to: gap.to,
            held: gap.deferred,
            since: gap.since,
        }
    }
}

fn write_text(
    out: &mut dyn std::io::Write,
    report: &Report,
    width: Option<usize>,
) -> std::io::Result<()> {
    writeln!(out, "{}", rows(report).fitted(width))?;
    let mut lines = Vec::new();
    for role in &report.roles {
        lines.extend(
            role.gaps
                .iter()
                .map(|gap| attention::of_gap(role.role, gap)),
        );
        let all = role.store.as_ref().map_or(0, |store| store.gaps);
        if all > role.gaps.len() as u64 {
            lines.push(format!("{}: {all} streams miss events in all", role.role));
        }
        lines.extend(
            role.notes
                .iter()
                .map(|note| format!("{}: {note}", role.role)),
        );
    }
    if !lines.is_empty() {
        writeln!(out)?;
    }
    lines
        .iter()
        .try_for_each(|line| writeln!(out, "{}", wrapped(line, width, "  ")))
}

fn rows(report: &Report) -> Table {
    let numbers = [
        "READY",
        "QUARANTINE",
        "CONSUMERS",
        "REQUESTS",
        "LAG",
        "DEFERRED",
        "BLOCKED",
        "MISSING",
        "TIMERS",
        "OUTBOX",
        "TASKS",
        "DEAD LETTERS",
        "ENTITIES",
        "APPLIED",
        "DUPLICATES",
    ];
    let numbers = numbers.into_iter().map(Column::number);
    let mut table = Table::new(std::iter::once(Column::text("ROLE")).chain(numbers));
    // An unknown number of a queue that exists is not the same as none.
    let known = |value: Option<u64>| value.map_or_else(|| "?".to_owned(), |n| n.to_string());
    let of_queue = |queue: Option<&QueueReport>, count: fn(&QueueReport) -> Option<u64>| {
        or_dash(queue.map(|queue| known(count(queue))))
    };
    for role in &report.roles {
        let store = role.store.as_ref();
        let stored = |count: fn(&Summary) -> u64| or_dash(store.map(count));
        let aged = |count: fn(&Summary) -> u64, oldest: fn(&Summary) -> Option<u64>| match store
            .and_then(oldest)
        {
            // An event dated ahead of the clock has no age.
            Some(0) if store.is_some_and(|s| s.dated_ahead > 0) => {
                format!("{} (dated ahead)", stored(count))
            }
            Some(ms) => format!("{} ({})", stored(count), age(Duration::from_millis(ms))),
            None => stored(count),
        };
        table.add_row([
            role.role.to_owned(),
            of_queue(role.queue.as_ref(), |queue| queue.ready),
            of_queue(role.quarantine.as_ref(), |queue| queue.ready),
            of_queue(role.queue.as_ref(), |queue| queue.consumers),
            of_queue(role.requests.as_ref(), |requests| requests.ready),
            or_dash(role.queue.as_ref().map(|_| known(role.lag))),
            aged(|s| s.usage.deferred.rows, |s| s.oldest_held_ms),
            stored(|s| s.blocked),
            stored(|s| s.gaps),
            stored(|s| s.usage.timers.rows),
            aged(|s| s.usage.outbox.rows, |s| s.oldest_outbox_ms),
            stored(|s| s.usage.tasks.rows),
            stored(|s| s.usage.dead_letters.rows),
            stored(|s| s.entities),
            stored(|s| s.tally.applied),
            stored(|s| s.tally.duplicates),
        ]);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report() -> Report {
        let mut store = Summary {
            blocked: 1,
            ..Summary::default()
        };
        store.usage.deferred.rows = 12;
        store.oldest_held_ms = Some(180_000);
        let queue = QueueReport {
            name: QueueName::new("doorstep.orders.0"),
            ready: Some(30),
            consumers: Some(1),
        };
        let quarantine = QueueReport {
            name: QueueName::new("doorstep.orders.quarantine"),
            ready: Some(2),
            consumers: Some(1),
        };
        let requests = QueueReport {
            name: QueueName::new("doorstep.rpc.orders"),
            ready: Some(7),
            consumers: Some(1),
        };
        let mut with = RoleReport {
            queue: Some(queue),
            quarantine: Some(quarantine),
            requests: Some(requests),
            store: Some(store),
            ..RoleReport::empty("orders")
        };
        with.lag = with.lag();
        let without = RoleReport {
            notes: vec!["no store in ./doorstep-data yet".to_owned()],
            ..RoleReport::empty("tracking")
        };
        Report {
            namespace: "doorstep".to_owned(),
            broker: BrokerReport {
                reachable: true,
                error: None,
            },
            roles: vec![with, without],
        }
    }

    #[test]
    fn lag_counts_arrived_unapplied_events() {
        assert_eq!(report().roles[0].lag, Some(44));
        assert_eq!(report().roles[1].lag(), None);
    }

    #[test]
    fn unknown_cells_are_dashes_followed_by_notes() {
        let mut out = Vec::new();
        write_text(&mut out, &report(), None).unwrap();
        let text = String::from_utf8(out).unwrap();
        let lines: Vec<Vec<&str>> = text
            .lines()
            .map(|line| line.split_whitespace().collect())
            .collect();
        assert_eq!(lines[1][..7], ["orders", "30", "2", "1", "7", "44", "12"]);
        assert!(text.contains("12 (3 min)"), "{text}");
        assert_eq!(lines[2][..6], ["tracking", "-", "-", "-", "-", "-"]);
        assert!(
            text.ends_with("tracking: no store in ./doorstep-data yet\n"),
            "{text}"
        );
    }

    #[test]
    fn unreadable_queue_is_unknown_rather_than_empty() {
        let mut role = RoleReport::empty("orders");
        let name = QueueName::new("doorstep.orders.0");
        let error = InspectError::Unreadable(name.clone());
        role.queue = role.report_of(name, Err(error));
        role.lag = role.lag();
        let missing = QueueName::new("doorstep.orders.quarantine");
        let error = InspectError::Missing(missing.clone());
        role.quarantine = role.report_of(missing, Err(error));
        let json = serde_json::to_value(&role).unwrap();
        assert_eq!(json["queue"]["ready"], serde_json::Value::Null);
        assert_eq!(json["queue"]["name"], "doorstep.orders.0");
        assert_eq!(json["quarantine"], serde_json::Value::Null);
        assert_eq!(json["lag"], serde_json::Value::Null);
        let report = Report {
            roles: vec![role],
            ..report()
        };
        let mut out = Vec::new();
        write_text(&mut out, &report, None).unwrap();
        let text = String::from_utf8(out).unwrap();
        let cells: Vec<&str> = text.lines().nth(1).unwrap().split_whitespace().collect();
        assert_eq!(cells[..6], ["orders", "?", "-", "?", "-", "?"], "{text}");
        assert!(
            text.contains("orders: queue doorstep.orders.0 exists but does not respond"),
            "{text}"
        );
    }

    #[test]
    fn numbers_stay_with_their_roles_at_every_width() {
        for width in [80, 120, 200] {
            let text = rows(&report()).fitted(Some(width));
            assert!(
                text.lines().all(|line| line.chars().count() <= width),
                "{text}"
            );
            assert!(text.contains("12 (3 min)"), "{text}");
            for name in ["orders", "tracking", "DUPLICATES"] {
                assert!(text.contains(name), "{name} at {width}: {text}");
            }
        }
    }

    #[test]
    fn programs_get_the_same_as_people() {
        let json = serde_json::to_value(report()).unwrap();
        assert_eq!(json["roles"][0]["queue"]["ready"], 30);
        assert_eq!(json["roles"][0]["requests"]["ready"], 7);
        assert_eq!(json["roles"][1].get("requests"), None);
        assert_eq!(json["roles"][0]["store"]["usage"]["deferred"]["rows"], 12);
        assert_eq!(json["roles"][1]["store"], serde_json::Value::Null);
        assert_eq!(json["broker"]["reachable"], true);
    }
}
