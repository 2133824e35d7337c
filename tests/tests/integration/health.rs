//! The endpoints of a running role: metrics with conventional names, readiness that follows the broker, liveness that
//! notices a stuck loop.

use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::{Condvar, Mutex, PoisonError},
    time::Duration,
};

use doorstep_broker::{NodeOptions, PrivateNode};
use doorstep_event::{Contract, ContractError, Event, EventType, Timestamp};
use doorstep_runtime::{Effects, HandlerError, Reading, Role, States, Unsupported, runner};
use doorstep_store::{EntityKey, MemoryStore};
use doorstep_telemetry::{
    HttpUrl,
    health::{HealthCheck, HealthStatus, Liveness, Readiness, get},
};
use doorstep_tests::{
    ChaosProxy, Direction, LEDGER, Point, RoleProcess, RunningProgram, TempDir, TestEnv, WireFault,
    ledger::{Ledger, Move, event},
    wait_for, wait_until,
};
use tokio::task::{block_in_place, spawn_blocking};

use crate::{
    SOON,
    operator::{Office, ROLES, moved},
};

/// The timeout of an answer.
const ANSWER: Duration = Duration::from_secs(10);

/// Running roles with a health address.
pub(crate) struct Answering {
    pub(crate) running: RunningProgram,
    address: SocketAddr,
}

impl Office {
    /// Runs the role `inventory` on this broker, and waits until its endpoints answer.
    pub(crate) async fn answering(&self, amqp_url: &str, arguments: &[&str]) -> Answering {
        let usual = ["run", "inventory", "--health-addr", "127.0.0.1:0"];
        let arguments = [&usual[..], arguments].concat();
        let running = self
            .consumers(&arguments)
            .variable("DOORSTEP_LOG_FORMAT", "json")
            .broker(amqp_url)
            .start(&self.scratch);
        let address = wait_for("the program answers", SOON, async || {
            let log = running.stderr();
            let said = log.lines().find(|line| line.contains("answering /livez"));
            let line: serde_json::Value = serde_json::from_str(said.ok_or(log.clone())?)
                .map_err(|e| format!("{e} in {log}"))?;
            let address = line["address"].as_str().unwrap_or_default();
            address.parse().map_err(|_| log)
        })
        .await;
        Answering { running, address }
    }
}

impl Answering {
    pub(crate) fn readiness(&self) -> (bool, Readiness) {
        let (is_good, answer) =
            block_in_place(|| get(self.address, HealthCheck::Ready, ANSWER)).unwrap();
        (is_good, serde_json::from_str(&answer).unwrap())
    }

    fn liveness(&self) -> (bool, Liveness) {
        let (is_good, answer) =
            block_in_place(|| get(self.address, HealthCheck::Alive, ANSWER)).unwrap();
        (is_good, serde_json::from_str(&answer).unwrap())
    }

    pub(crate) async fn is_ready(&self) -> Readiness {
        wait_for("the role is ready", SOON, async || {
            match self.readiness() {
                // The broker's own count arrives a moment later.
                (true, ready) if ready.roles[0].consumers.is_some() => Ok(ready),
                (_, other) => Err(other),
            }
        })
        .await
    }

    fn metrics(&self) -> String {
        let url: HttpUrl = format!("http://{}/metrics", self.address).parse().unwrap();
        let (status, text) = block_in_place(|| url.get(ANSWER)).unwrap();
        assert_eq!(status, 200, "{text}");
        text
    }

    /// Returns the value of the only series of this name with all of these labels, without `error_type` unless it is
    /// named.
    fn value(&self, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
        let wants_error = labels.iter().any(|(label, _)| *label == "error_type");
        let labels: Vec<String> = labels.iter().map(|(k, v)| format!("{k}=\"{v}\"")).collect();
        let text = self.metrics();
        let mut found = text
            .lines()
            .filter(|line| line.starts_with(name) && !line.starts_with('#'))
            .filter(|line| line[name.len()..].starts_with(['{', ' ']))
            .filter(|line| labels.iter().all(|label| line.contains(label.as_str())))
            .filter(|line| wants_error || !line.contains("error_type"));
        let one = found.next()?.rsplit_once(' ')?.1.parse().ok();
        assert_eq!(found.next(), None, "{name} {labels:?} is not one series");
        one
    }

    /// Waits until a counter has this value.
    async fn counts(&self, name: &str, labels: &[(&str, &str)], count: f64) {
        wait_for(format!("{name} is {count}"), SOON, async || {
            match self.value(name, labels) {
                value if value == Some(count) => Ok(()),
                other => Err(other),
            }
        })
        .await;
    }
}

/// Returns the address of an environment through a proxy.
fn by_proxy(env: &TestEnv, proxy: &ChaosProxy) -> String {
    let own = env.broker().address();
    let place = format!("{}:{}", own.host, own.port);
    let url = env.amqp_url();
    assert!(url.contains(&place), "{place} in {url}");
    url.replace(&place, &proxy.address().to_string())
}

/// A label of a series, with its value.
type Label = (&'static str, &'static str);

const INVENTORY: Label = ("role", "inventory");
const SYSTEM: Label = ("messaging_system", "rabbitmq");
const QUEUE: Label = ("messaging_destination_name", "doorstep.inventory.0");
const EXCHANGE: Label = ("messaging_destination_name", "doorstep.events");
const RECEIVE: Label = ("messaging_operation_name", "receive");
const PROCESS: Label = ("messaging_operation_name", "process");
const ACK: Label = ("messaging_operation_name", "ack");
const SEND: Label = ("messaging_operation_name", "send");
const UNROUTABLE: Label = ("error_type", "unroutable");

/// The series after twenty-three deliveries: twenty are applied, one is a duplicate, one deferred and one a dead letter.
const SERIES: [(&str, &[Label], f64); 19] = [
    (
        "messaging_client_consumed_messages_total",
        &[SYSTEM, RECEIVE, QUEUE, INVENTORY],
        23.0,
    ),
    // The copy of the dead letter.
    (
        "messaging_client_sent_messages_total",
        &[SYSTEM, SEND, EXCHANGE, INVENTORY],
        1.0,
    ),
    (
        "messaging_client_sent_messages_total",
        &[SYSTEM, SEND, EXCHANGE, UNROUTABLE],
        0.0,
    ),
    ("doorstep_deliveries_acked_total", &[INVENTORY], 23.0),
    ("doorstep_events_applied_total", &[INVENTORY], 20.0),
    ("doorstep_duplicate_deliveries_total", &[INVENTORY], 1.0),
    ("doorstep_events_deferred_total", &[INVENTORY], 1.0),
    (
        "doorstep_dead_letters_total",
        &[INVENTORY, ("reason", "unknown type")],
        1.0,
    ),
    ("doorstep_deferred_events", &[INVENTORY], 1.0),
    ("doorstep_dead_letters_open", &[INVENTORY], 1.0),
    ("doorstep_blocked_streams", &[INVENTORY], 1.0),
    ("doorstep_stream_gaps", &[INVENTORY], 1.0),
    ("doorstep_outbox_pending", &[INVENTORY], 0.0),
    ("doorstep_deliveries_unacked", &[INVENTORY], 0.0),
    ("doorstep_consumers", &[INVENTORY], 1.0),
    (
        "doorstep_role_status",
        &[INVENTORY, ("status", "degraded")],
        1.0,
    ),
    (
        "doorstep_connection_up",
        &[INVENTORY, ("connection", "consume")],
        1.0,
    ),
    (
        "doorstep_connection_blocked",
        &[INVENTORY, ("connection", "publish")],
        0.0,
    ),
    (
        "doorstep_reconnects_total",
        &[INVENTORY, ("connection", "publish")],
        0.0,
    ),
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn metrics_have_conventional_names() {
    let office = Office::new("numbers").await;
    let role = office.answering(&office.env.amqp_url(), &[]).await;
    role.is_ready().await;
    let mut events: Vec<Event> = (1..=20).map(|n| moved("1", n, -1)).collect();
    // A duplicate, an early event, and one that is rejected for good.
    events.push(moved("1", 20, -1));
    events.push(moved("2", 3, -1));
    let mut rejected = moved("3", 1, -1);
    rejected.event_type = EventType::new("stock.adjusted.v9").unwrap();
    events.push(rejected);
    office.env.publish(&events).await;

    for (name, labels, value) in SERIES {
        wait_for(
            format!("{name} {labels:?} is {value}"),
            SOON,
            async || match role.value(name, labels) {
                Some(found) if found == value => Ok(()),
                other => Err(other),
            },
        )
        .await;
    }
    batches_are_counted_once(&role);
    dead_letter_is_reported(&office, &role).await;
    // Skipping the event resolves its dead letter and unblocks its stream.
    office.skip_all("inventory").await;
    wait_for("no dead letter is left", SOON, async || {
        let (_, ready) = role.readiness();
        let health = &ready.roles[0];
        let is_reported = health
            .reasons
            .iter()
            .any(|reason| reason.message.contains("dead letter"));
        match (health.dead_letters, health.blocked_streams, is_reported) {
            (Some(0), Some(0), false) => Ok(()),
            _ => Err(health.clone()),
        }
    })
    .await;
}

/// Batch sizes vary; each batch was planned, committed and acknowledged once.
fn batches_are_counted_once(role: &Answering) {
    let count = |name, labels: &[_]| role.value(name, labels).unwrap_or_default();
    let batches = count(
        "messaging_process_duration_seconds_count",
        &[SYSTEM, PROCESS, QUEUE],
    );
    assert!((1.0..=23.0).contains(&batches), "{batches}");
    assert_eq!(count("doorstep_batch_events_sum", &[INVENTORY]), 23.0);
    assert_eq!(count("doorstep_batch_events_count", &[INVENTORY]), batches);
    let operation = "messaging_client_operation_duration_seconds_count";
    assert_eq!(count(operation, &[SYSTEM, ACK, QUEUE]), batches);
    assert!(count(operation, &[SYSTEM, SEND, EXCHANGE]) >= 1.0);
    assert!(count("doorstep_commit_duration_seconds_count", &[INVENTORY]) >= batches);
    let text = role.metrics();
    assert!(
        text.contains("# TYPE messaging_process_duration_seconds histogram"),
        "{text}"
    );
    assert!(
        text.contains("# HELP doorstep_oldest_deferred_age_seconds"),
        "{text}"
    );
    assert!(count("doorstep_oldest_deferred_age_seconds", &[INVENTORY]) > 0.0);
    for name in [
        "process_resident_memory_bytes",
        "process_open_fds",
        "process_start_time_seconds",
    ] {
        assert!(count(name, &[]) > 0.0, "{text}");
    }
    assert!(count("doorstep_store_log_bytes", &[INVENTORY]) > 0.0);
    assert_eq!(count("doorstep_build_info", &[]), 1.0);
    assert!(count("doorstep_oldest_dead_letter_age_seconds", &[INVENTORY]) > 0.0);
}

async fn dead_letter_is_reported(office: &Office, role: &Answering) {
    let (is_good, ready) = role.readiness();
    let health = &ready.roles[0];
    assert!(
        is_good && health.status == HealthStatus::Degraded,
        "{health:?}"
    );
    assert_eq!(
        (health.dead_letters, health.blocked_streams),
        (Some(1), Some(1))
    );
    assert!(health.oldest_dead_letter_ms > Some(0), "{health:?}");
    let output = "1 dead letter awaits an operator, the oldest for";
    let reason = health
        .reasons
        .iter()
        .find(|reason| reason.message.starts_with(output));
    assert!(
        reason.is_some_and(|reason| reason.message.contains("; 1 stream is blocked")),
        "{:?}",
        health.reasons
    );
    let address = role.address.to_string();
    let said = office.output(&["health", "--health-addr", &address]).await;
    assert!(said.starts_with("inventory: degraded, taking\n"), "{said}");
    assert!(said.contains(output), "{said}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn readiness_follows_the_broker() {
    let office = Office::new("unready").await;
    let proxy = office.env.proxy().await;
    let url = by_proxy(&office.env, &proxy);
    let mut role = office.answering(&url, &[]).await;
    let ready = role.is_ready().await;
    assert_eq!(ready.roles[0].role, "inventory");
    assert_eq!(ready.roles[0].phase, "taking");
    assert_eq!(ready.roles[0].consumers, Some(1));
    // The command shows the same.
    let address = role.address.to_string();
    let said = office.output(&["health", "--health-addr", &address]).await;
    assert_eq!(said, "inventory: ready, taking\n");
    proxy.reject_connections();
    // Each connection breaks at a different moment, and the role is unready from the first.
    let consuming_is_away = |found: &Readiness| {
        let mut reasons = found.roles[0].reasons.iter();
        reasons.any(|reason| reason.message.contains("no connection to consume by"))
    };
    let unready = wait_for("the role does not consume", SOON, async || {
        match role.readiness() {
            (false, unready) if consuming_is_away(&unready) => Ok(unready),
            (_, other) => Err(other),
        }
    })
    .await;
    assert_eq!(unready.status, HealthStatus::Unready);
    // No loop is stuck: a restart would not help.
    assert_eq!(
        role.liveness(),
        (
            true,
            Liveness {
                alive: true,
                stuck: Vec::new()
            }
        )
    );
    let asked = office.ran(&["health", "--health-addr", &address]).await;
    assert_eq!(asked.code, Some(2), "{}", asked.stderr);
    assert!(
        asked.stdout.starts_with("inventory: not ready"),
        "{}",
        asked.stdout
    );
    proxy.restore();
    role.is_ready().await;
    assert!(role.running.is_running());
    let reconnects = role.value("doorstep_reconnects_total", &[("connection", "consume")]);
    assert_eq!(reconnects, Some(1.0));
    let gone = role.running.kill();
    assert!(gone);
    let asked = office.ran(&["health", "--health-addr", &address]).await;
    assert_eq!(asked.code, Some(66), "{}", asked.stderr);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_memory_alarm_shows_in_health_and_metrics() {
    let node = spawn_blocking(|| PrivateNode::start(NodeOptions::named("alarm-health")));
    let node = node.await.unwrap().unwrap();
    let office = Office {
        env: TestEnv::on(&node.broker(), "alarm-health", &ROLES).await,
        scratch: TempDir::new("alarm-health"),
    };
    // The broker blocks publishers: here the role, with the copy of a dead letter.
    let mut rejected = moved("1", 1, -1);
    rejected.event_type = EventType::new("stock.adjusted.v9").unwrap();
    office.env.publish(&[rejected, moved("2", 1, -1)]).await;
    block_in_place(|| node.block_publishers()).unwrap();
    let role = office.answering(&office.env.amqp_url(), &[]).await;
    let publishing = [("role", "inventory"), ("connection", "publish")];
    let blocked = |role: &Answering| role.value("doorstep_connection_blocked", &publishing);
    let tells_of_alarm = |ready: &Readiness| {
        let mut reasons = ready.roles[0].reasons.iter();
        reasons.any(|reason| reason.message.contains("the broker blocks publishing"))
    };
    let degraded = wait_for("health tells of the alarm", SOON, async || {
        match role.readiness() {
            (true, ready) if tells_of_alarm(&ready) => Ok(ready),
            (_, other) => Err(other),
        }
    })
    .await;
    assert_eq!(degraded.status, HealthStatus::Degraded);
    wait_for("the metric says so", SOON, async || match blocked(&role) {
        Some(1.0) => Ok(()),
        other => Err(other),
    })
    .await;
    // Consuming continues, and the outbox is kept.
    let inventory = [("role", "inventory")];
    wait_for("consuming continues", SOON, async || {
        let value = |name| role.value(name, &inventory);
        match (
            value("doorstep_events_applied_total"),
            value("doorstep_outbox_pending"),
        ) {
            (Some(1.0), Some(1.0)) => Ok(()),
            other => Err(other),
        }
    })
    .await;

    block_in_place(|| node.unblock_publishers()).unwrap();
    wait_for("health tells of no alarm", SOON, async || {
        match role.readiness() {
            (true, ready) if !tells_of_alarm(&ready) => Ok(()),
            (_, other) => Err(other),
        }
    })
    .await;
    wait_for(
        "the metric says so no longer",
        SOON,
        async || match blocked(&role) {
            Some(0.0) => Ok(()),
            other => Err(other),
        },
    )
    .await;
    let copies = office.env.namespace().dead_letter_queue("inventory");
    // Perhaps twice, if the broker had read it before it blocked the connection.
    wait_for("the copy went out", SOON, async || {
        match office.env.try_depth(&copies).await?.ready {
            0 => Err("no copy".to_owned()),
            _ => Ok(()),
        }
    })
    .await;
    drop((role, office));
    block_in_place(|| drop(node));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn waiting_events_have_an_age_and_no_warning() {
    let office = Office::new("ages").await;
    let role = office.answering(&office.env.amqp_url(), &[]).await;
    role.is_ready().await;
    office.env.publish(&[moved("1", 2, -1)]).await;
    // Health shows ages as they are, and reports no problem for events that only wait.
    let held = wait_for("the deferred event has an age", SOON, async || {
        let (_, ready) = role.readiness();
        ready.roles[0].oldest_held_ms.ok_or(ready.roles[0].clone())
    })
    .await;
    let later = wait_for("it grows older", SOON, async || {
        let age = role.readiness().1.roles[0].oldest_held_ms;
        age.filter(|age| *age > held).ok_or(age)
    })
    .await;
    assert!(later > held);
    assert_eq!(role.readiness().1.status, HealthStatus::Ready);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn closed_channels_and_cancelled_consumers_are_counted() {
    let office = Office::new("ended").await;
    let proxy = office.env.proxy().await;
    let url = by_proxy(&office.env, &proxy);
    let role = office.answering(&url, &[]).await;
    role.is_ready().await;
    let queue = office.env.namespace().role_queue("inventory", 0);
    let inventory = ("role", "inventory");
    let channels = (
        "doorstep_channels_closed_by_broker_total",
        [inventory, ("connection", "consume")],
    );
    let consumers = ("doorstep_consumers_cancelled_total", [inventory]);
    assert_eq!(role.value(channels.0, &channels.1), Some(0.0));
    assert_eq!(role.value(consumers.0, &consumers.1), Some(0.0));

    // The broker closes the channel for such a tag, and keeps its connection.
    proxy.at(Point::Ack, WireFault::UnknownTag);
    office.env.publish(&[moved("1", 1, -1)]).await;
    role.counts(channels.0, &channels.1, 1.0).await;
    assert_eq!(*proxy.triggered().borrow(), 1);
    let more: Vec<_> = (2..=20).map(|n| moved("1", n, -1)).collect();
    office.env.publish(&more).await;
    office.has_applied(20).await;
    office.env.depth_is(&queue, 0, 1, SOON).await;
    role.counts("doorstep_deliveries_unacked", &[inventory], 0.0)
        .await;
    assert_eq!(role.value(consumers.0, &consumers.1), Some(0.0));

    office.env.view().delete_queue(queue.as_str());
    role.counts(consumers.0, &consumers.1, 1.0).await;
    office.env.depth_is(&queue, 0, 1, SOON).await;
    let more: Vec<_> = (21..=40).map(|n| moved("1", n, -1)).collect();
    office.env.publish(&more).await;
    office.has_applied(40).await;
    wait_for("the possible loss is reported", SOON, async || {
        let (_, ready) = role.readiness();
        let mut reasons = ready.roles[0].reasons.iter();
        if reasons.any(|reason| reason.message.contains("was recreated")) {
            Ok(())
        } else {
            Err(ready)
        }
    })
    .await;
    assert_eq!(role.value(channels.0, &channels.1), Some(1.0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stuck_loop_fails_liveness() {
    let office = Office::new("stuck").await;
    let proxy = office.env.proxy().await;
    let url = by_proxy(&office.env, &proxy);
    let role = office
        .answering(&url, &["--liveness-timeout", "500ms"])
        .await;
    role.is_ready().await;
    wait_until("the process is alive", SOON, async || role.liveness().0).await;
    // Published rows go into a silent connection, and neither arrive nor fail.
    let mut rejected = moved("1", 1, -1);
    rejected.event_type = EventType::new("stock.adjusted.v9").unwrap();
    proxy.stall(Direction::ToBroker);
    office.env.publish(&[rejected]).await;
    // On a busy machine other loops may have been stuck for a moment before.
    wait_for("the process is not alive", SOON, async || {
        let (is_alive, liveness) = role.liveness();
        let sends =
            |reason: &String| reason.starts_with("inventory: the outbox is being sent since");
        if !is_alive && liveness.stuck.iter().any(sends) {
            Ok(())
        } else {
            Err(liveness)
        }
    })
    .await;
    proxy.restore();
    wait_until("the process is alive again", SOON, async || {
        role.liveness().0
    })
    .await;
}

/// A role whose handler does not return until it is released.
struct Stubborn;

static LET_GO: (Mutex<bool>, Condvar) = (Mutex::new(false), Condvar::new());

impl Role for Stubborn {
    type Payload = Move;
    type Command = Unsupported;
    type Query = Unsupported;
    type State = u64;

    fn name(&self) -> &'static str {
        LEDGER.role
    }

    fn read(&self, event: &Event) -> Result<Reading<Move>, ContractError> {
        Move::read(event).map(Reading::Handled)
    }

    fn keys(&self, event: &Event, _fact: &Move) -> Vec<EntityKey> {
        vec![EntityKey::from(&event.subject)]
    }

    fn handle(
        &self,
        _states: &mut States<u64>,
        _event: &Event,
        _fact: &Move,
        _now: Timestamp,
    ) -> Result<Effects, HandlerError> {
        let held = LET_GO.0.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = LET_GO.1.wait_timeout_while(held, SOON, |free| !*free);
        drop(waited);
        Ok(Effects::none())
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stuck_handler_shows_in_liveness() {
    let env = TestEnv::new("stubborn", &[LEDGER]).await;
    let role = runner::start(Stubborn, MemoryStore::new("ledger"), env.run_settings());
    let vitals = role.liveness();
    env.publish(&[event("shop", "account/a", 1, &Move::Add(1))])
        .await;
    wait_for("the engine is amid a step", SOON, async || {
        match vitals.engine.busy_for() {
            Some(busy) if busy > Duration::from_millis(300) => Ok(()),
            other => Err(other),
        }
    })
    .await;
    *LET_GO.0.lock().unwrap() = true;
    LET_GO.1.notify_all();
    wait_until("the step is over", SOON, async || {
        vitals.engine.busy_for().is_none() && role.status().done.applied == 1
    })
    .await;
    role.stop();
    role.join().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_broker_counts_its_known_consumers() {
    let env = TestEnv::new("counted", &[LEDGER]).await;
    let queue = env.namespace().role_queue(LEDGER.role, 0);
    let store = MemoryStore::new("ledger");
    let first = RoleProcess::start(Ledger, store.clone(), env.run_settings());
    first.consuming(SOON).await;
    env.depth_is(&queue, 0, 1, SOON).await;
    let second = RoleProcess::start(Ledger, store, env.run_settings());
    second.consuming(SOON).await;
    let view = env.view();
    wait_until("the broker lists both", SOON, async || {
        let here = view.consumers();
        here.iter()
            .filter(|(name, _)| *name == queue.as_str())
            .count()
            == 2
    })
    .await;
    assert_eq!(env.depth(&queue).await.consumers, 1);
    first.crash();
    env.depth_is(&queue, 0, 1, SOON).await;
    second.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn alternating_reasons_are_logged_once() {
    let office = Office::new("reasons").await;
    let role = office.answering(&office.env.amqp_url(), &[]).await;
    role.is_ready().await;
    let stores = office.scratch.join("stores");
    let [database, log] = ["", "-wal"].map(|end| stores.join(format!("inventory.sqlite3{end}")));
    let aside = |file: &Path| PathBuf::from(format!("{}.aside", file.display()));
    let moved_aside = |file: &Path| fs::rename(file, aside(file)).unwrap();
    let put_back = |file: &Path| fs::rename(aside(file), file).unwrap();
    let is_missed = async |file: &Path| {
        let output = format!("paused: the store {}", database.display());
        let missed = format!("{} was moved away", file.display());
        wait_for("the role is paused by that", SOON, async || {
            let (_, ready) = role.readiness();
            let mut reasons = ready.roles[0].reasons.iter();
            match reasons
                .any(|reason| reason.message.contains(&output) && reason.message.contains(&missed))
            {
                true => Ok(()),
                false => Err(ready),
            }
        })
        .await;
    };
    // One fault persists throughout, so that it is one outage.
    moved_aside(&database);
    is_missed(&database).await;
    for _ in 0..3 {
        moved_aside(&log);
        put_back(&database);
        is_missed(&log).await;
        moved_aside(&database);
        put_back(&log);
        is_missed(&database).await;
    }
    put_back(&database);
    role.is_ready().await;

    let stderr = role.running.stderr();
    let logged = |file: &Path| {
        let missed = format!("{} was moved away", file.display());
        stderr.lines().filter(|line| line.contains(&missed)).count()
    };
    assert_eq!((logged(&database), logged(&log)), (1, 1), "{stderr}");
    assert_eq!(
        role.value("doorstep_store_outages_total", &[("role", "inventory")]),
        Some(1.0)
    );
}
