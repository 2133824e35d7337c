//! The operator's commands on real stores beside real roles: run until idle, lists, replay, skip, export.

use std::time::Duration;

use doorstep_contracts::{
    InvoiceNo, Money, OrderLine, OrderPlaced, Sku, StockAdjusted, StockReason,
};
use doorstep_event::{Contract, Event, EventType, Sequence, Source, Timestamp};
use doorstep_messaging::RoleQueues;
use doorstep_runtime::Limits;
use doorstep_store::{
    Commit, DeadLetter, DeadLetterId, DeadLetterStatus, NewDeadLetter, SqliteStore, Store,
    WriteSet, sqlite::Options,
};
use doorstep_tests::{Ended, Program, TempDir, TestEnv, random_moment, retail::Stock, wait_until};
use lapin::BasicProperties;
use serde_json::Value;

use crate::SOON;

/// The queues that the binaries declare and these tests publish to.
pub(crate) const ROLES: [RoleQueues; 8] = [
    RoleQueues {
        role: "orders",
        subjects: &["order", "return", "payment"],
        handles_requests: true,
    },
    RoleQueues {
        role: "inventory",
        subjects: &["stock"],
        handles_requests: false,
    },
    RoleQueues {
        role: "tracking",
        subjects: &["delivery"],
        handles_requests: true,
    },
    RoleQueues {
        role: "restaurant",
        subjects: &["order"],
        handles_requests: true,
    },
    RoleQueues {
        role: "payments",
        subjects: &["order"],
        handles_requests: true,
    },
    RoleQueues {
        role: "access_log",
        subjects: &["request"],
        handles_requests: false,
    },
    RoleQueues {
        role: "reports",
        subjects: &["order", "return", "delivery"],
        handles_requests: true,
    },
    RoleQueues {
        role: "notifications",
        subjects: &["order", "delivery", "report", "user"],
        handles_requests: true,
    },
];

/// The environment of the binaries: a broker and a folder with stores.
pub(crate) struct Office {
    pub(crate) env: TestEnv,
    pub(crate) scratch: TempDir,
}

impl Office {
    pub(crate) async fn new(hint: &str) -> Self {
        Self {
            env: TestEnv::new(hint, &ROLES).await,
            scratch: TempDir::new(hint),
        }
    }

    pub(crate) fn consumers(&self, arguments: &[&str]) -> Program {
        Program::consumers(arguments)
            .broker(&self.env.amqp_url())
            .store(&self.scratch.join("stores"))
    }

    /// Runs a command of the consumers to its end.
    pub(crate) async fn ran(&self, arguments: &[&str]) -> Ended {
        self.consumers(arguments)
            .run(&self.scratch, Duration::from_secs(120))
            .await
    }

    /// Skips all dead letters of a role.
    pub(crate) async fn skip_all(&self, role: &str) {
        let dead = self.dead(role).await;
        let ids = dead.iter().map(|(id, _)| id.as_str());
        let words = ["dead-letters", "skip", role, "--reason", "a test"];
        let words: Vec<&str> = words.into_iter().chain(ids).collect();
        self.output(&words).await;
    }

    /// Returns the output of a command that succeeds.
    pub(crate) async fn output(&self, arguments: &[&str]) -> String {
        let ended = self.ran(arguments).await;
        assert_eq!(ended.code, Some(0), "{arguments:?}: {}", ended.stderr);
        ended.stdout
    }

    /// Returns the ids of a role's dead letters, with their reasons.
    pub(crate) async fn dead(&self, role: &str) -> Vec<(String, String)> {
        let list = self.output(&["dead-letters", "list", role, "--json"]).await;
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        list.lines()
            .map(|line| serde_json::from_str::<Value>(line).unwrap())
            .map(|row| (text(&row["id"]), text(&row["reason"])))
            .collect()
    }
}

/// Returns an event that moves the stock of a code.
pub(crate) fn moved(code: &str, sequence: u64, delta: i64) -> Event {
    let fact = StockAdjusted {
        delta,
        reason: StockReason::Sale,
        reference: "order/1".parse().unwrap(),
    };
    event(&format!("stock/{code}"), sequence, &fact)
}

pub(crate) fn placed(no: &str, sequence: u64) -> Event {
    let line = OrderLine::new(
        Sku::new("85123A").unwrap(),
        None,
        2,
        "1.255".parse::<Money>().unwrap(),
    )
    .unwrap();
    let fact = OrderPlaced {
        placed_at: Timestamp::UNIX_EPOCH,
        customer: None,
        country: "France".parse().unwrap(),
        total: line.amount,
        lines: vec![line],
    };
    let subject = InvoiceNo::new(no).unwrap().order_subject();
    event(subject.as_str(), sequence, &fact)
}

pub(crate) fn event<C: Contract>(subject: &str, sequence: u64, fact: &C) -> Event {
    Event::from_contract(
        &Source::new("shop/1").unwrap(),
        &subject.parse().unwrap(),
        Sequence::new(sequence).unwrap(),
        Timestamp::UNIX_EPOCH,
        fact,
    )
    .unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn until_idle_ends_with_0_once_idle() {
    let office = Office::new("idle").await;
    let mut events = vec![placed("536365", 1)];
    events.extend((1..=500).rev().map(|n| moved("85123A", n, -2)));
    office.env.publish(&events).await;
    office.output(&["run", "--exit-when-idle", "1s"]).await;
    let stock = office
        .output(&["show", "inventory", "stock/85123A", "--json"])
        .await;
    let stock = &Stock::read_all(&stock)["stock/85123A"];
    assert_eq!((stock.on_hand, stock.movements), (-1_000, 500));
    let order = office.output(&["show", "orders", "order/536365"]).await;
    assert!(order.contains(r#""2.51""#), "{order}");
    // Again, with nothing to do.
    office.output(&["run", "--exit-when-idle", "1s"]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn until_idle_waits_for_events_being_published() {
    const PAUSES: u32 = 8;
    let office = Office::new("idle").await;
    let window = Duration::from_secs(10);
    let run = office
        .consumers(&["run", "inventory", "--exit-when-idle", "10s"])
        .start(&office.scratch);
    // An event arrives long before each window is over, and all of them take longer than one: a run that measured only
    // the time since its start would leave the last ones in the queue.
    for n in 1..=u64::from(PAUSES) {
        office.env.publish(&[moved("85123A", n, -1)]).await;
        office.has_applied(n).await;
        random_moment(window * 3 / 2 / PAUSES).await;
    }
    office
        .env
        .publish(&[moved("85123A", u64::from(PAUSES) + 1, -1)])
        .await;
    let ended = run.ended(SOON).await;
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    office.has_applied(u64::from(PAUSES) + 1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn until_idle_ends_with_2_until_resolved() {
    let office = Office::new("idle").await;
    // An order placed twice blocks its stream; a stock movement is missing; one message is undecodable; types are
    // unknown.
    let unknown = |no: &str, kind: &str| Event {
        event_type: EventType::new(kind).unwrap(),
        ..placed(no, 1)
    };
    office
        .env
        .publish(&[
            placed("1", 1),
            placed("1", 2),
            placed("1", 3),
            moved("A", 1, -1),
            moved("A", 3, -1),
            unknown("2", "order.placed.v2"),
            unknown("3", "order.eaten.v1"),
        ])
        .await;
    let channel = office.env.channel().await;
    channel
        .publish(
            "doorstep.events",
            "stock.adjusted.v1",
            BasicProperties::default(),
            b"hello",
        )
        .await;

    all_is_listed(&office).await;
    // Both count an order once.
    for role in ["orders", "reports"] {
        second_placements_are_skipped(&office, role).await;
    }
    // The other roles that receive orders do not know such types either.
    for role in ["restaurant", "payments", "notifications"] {
        let dead = office.dead(role).await;
        let is_unknown = |(_, reason): &(String, String)| reason == "unknown type";
        assert!(dead.len() == 2 && dead.iter().all(is_unknown), "{dead:?}");
        office.skip_all(role).await;
    }
    the_rest_is_skipped(&office).await;
    office.output(&["run", "--exit-when-idle", "1s"]).await;
    let stock = office.output(&["export", "inventory"]).await;
    assert_eq!(Stock::read_all(&stock)["stock/A"].movements, 2);
    assert_eq!(office.output(&["dead-letters", "list", "--json"]).await, "");
}

async fn all_is_listed(office: &Office) {
    let ended = office.ran(&["run", "--exit-when-idle", "1s"]).await;
    assert_eq!(ended.code, Some(2), "{}", ended.stderr);
    for part in [
        "orders: dead ",
        "order.placed.v1 number 2 of order/1 from shop/1: breaks a rule: order/1 was already placed",
        "order.placed.v2 number 1 of order/2 from shop/1: unknown type: ",
        "order.eaten.v1 number 1 of order/3 from shop/1: unknown type: ",
        "orders: 3 streams are blocked",
        "reports: 3 streams are blocked",
        "inventory: missing 2..2 of stock/A from shop/1, 1 deferred behind it",
        "inventory: dead ",
        "an unreadable message: unreadable: ",
    ] {
        assert!(
            ended.stderr.contains(part),
            "{part:?} is not in: {}",
            ended.stderr
        );
    }
}

/// A replayed second placement is rejected again; after a skip the next one is, and so on to the end of the stream.
async fn second_placements_are_skipped(office: &Office, role: &str) {
    let dead = office.dead(role).await;
    let reasons: Vec<_> = dead.iter().map(|(_, reason)| reason.as_str()).collect();
    assert_eq!(dead.len(), 3, "{dead:?}");
    assert_eq!(
        reasons.iter().filter(|r| **r == "unknown type").count(),
        2,
        "{dead:?}"
    );
    let again = &dead
        .iter()
        .find(|(_, reason)| reason == "breaks a rule")
        .unwrap()
        .0;
    office
        .output(&["dead-letters", "replay", role, again])
        .await;
    let late = office
        .ran(&["dead-letters", "skip", role, again, "--reason", "late"])
        .await;
    assert_eq!(late.code, Some(3), "{}", late.stderr);
    assert!(late.stderr.contains("already resolved"), "{}", late.stderr);
    assert_eq!(
        office.ran(&["run", "--exit-when-idle", "1s"]).await.code,
        Some(2)
    );
    for _ in 0..2 {
        office.skip_all(role).await;
        let _ = office.ran(&["run", "--exit-when-idle", "1s"]).await;
    }
}

/// Skips the unreadable message, which cannot be replayed, and the gap.
async fn the_rest_is_skipped(office: &Office) {
    let unreadable = office.dead("inventory").await.remove(0).0;
    let replay = office
        .ran(&["dead-letters", "replay", "inventory", &unreadable])
        .await;
    assert_eq!(replay.code, Some(65), "{}", replay.stderr);
    office
        .output(&[
            "dead-letters",
            "skip",
            "inventory",
            &unreadable,
            "--reason",
            "rubbish",
        ])
        .await;
    let gap = "streams skip-gap inventory stock/A 2..2 --source shop/1";
    let gap: Vec<&str> = gap.split(' ').collect();
    // Nothing is skipped in a dry run, or there would be no gap left.
    for option in [&["--dry-run"][..], &["--reason", "it was never sent"]] {
        office.output(&[&gap[..], option].concat()).await;
    }
}

/// Returns a dead letter that blocks nothing.
fn unreadable(number: u32) -> NewDeadLetter {
    NewDeadLetter {
        row: DeadLetter {
            id: DeadLetterId(format!("{number:016x}")),
            event: None,
            body: "x".into(),
            blocks: false,
            reason: "unreadable".to_owned(),
            detail: "no id".to_owned(),
            fingerprint: "1".to_owned(),
            attempts: 0,
            since: Timestamp::UNIX_EPOCH,
            status: DeadLetterStatus::Open,
            defect: None,
            task: None,
        },
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn until_idle_names_the_full_table() {
    let office = Office::new("full").await;
    let stores = office.scratch.join("stores");
    let store = SqliteStore::open(&stores, "inventory", &Options::default()).unwrap();
    let mut changes = WriteSet::at(Timestamp::UNIX_EPOCH);
    let most = u32::try_from(Limits::default().dead_letters.rows).unwrap();
    changes.dead_letters = (0..most).map(unreadable).collect();
    let written = store.commit(changes).await.unwrap();
    assert!(matches!(written, Commit::Written(_)));
    store.close().await;

    let run = ["run", "inventory", "--exit-when-idle", "1s"];
    let full = "inventory: the store's dead letters are at their bound";
    let ended = office.ran(&run).await;
    assert_eq!(ended.code, Some(2), "{}", ended.stderr);
    assert!(ended.stderr.contains(full), "{}", ended.stderr);
    // With a message in its queue, too, which it does not consume.
    office.env.publish(&[moved("85123A", 1, -1)]).await;
    let ended = office.ran(&run).await;
    assert_eq!(ended.code, Some(2), "{}", ended.stderr);
    assert!(ended.stderr.contains(full), "{}", ended.stderr);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_export_beside_a_role_has_consistent_states() {
    let office = Office::new("export").await;
    // Every code moves equally often, so that a state shows its progress.
    let (codes, rounds) = (40, 60);
    let run = office
        .consumers(&["run", "inventory", "--batch-size", "20"])
        .start(&office.scratch);
    let mut before = 0;
    for round in 1..=rounds {
        let events: Vec<_> = (0..codes)
            .map(|code| moved(&format!("{code:02}"), round, -3))
            .collect();
        office.env.publish(&events).await;
        if round % 10 == 0 {
            let export = office.ran(&["export", "inventory"]).await;
            if export.code != Some(0) {
                assert_eq!(export.code, Some(66), "{}", export.stderr);
                continue;
            }
            let all = Stock::read_all(&export.stdout);
            assert!(export.stdout.lines().is_sorted(), "{}", export.stdout);
            assert!(
                all.values()
                    .all(|stock| stock.on_hand == -3 * stock.movements),
                "{all:?}"
            );
            let movements = all.values().map(|stock| stock.movements).sum();
            assert!(movements >= before, "{movements} after {before}");
            before = movements;
        }
    }
    wait_until("the last export has all", SOON, async || {
        let export = office.ran(&["export", "inventory"]).await;
        // The role may be slow to start.
        if export.code == Some(66) {
            return false;
        }
        assert_eq!(export.code, Some(0), "{}", export.stderr);
        let all = Stock::read_all(&export.stdout);
        let movements = all.values().map(|stock| stock.movements);
        movements.sum::<i64>() == i64::from(codes) * rounds as i64
    })
    .await;
    run.terminate();
    let ended = run.ended(SOON).await;
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
}
