//! A role's queues belong to one store: another one is rejected before it consumes anything.

use std::{fs, path::Path};

use doorstep_broker::UserPermissions;
use doorstep_event::{Epoch, Event, Timestamp};
use doorstep_messaging::{
    BrokerSettings, ConnectErrorKind, Denial, OwnerRecord, Topology, delete, take_over, verify,
};
use doorstep_runtime::runner::{Phase, ReadinessReason, RunError, RunSettings};
use doorstep_store::{
    MemoryStore, SqliteStore, Store, WriteSet,
    sqlite::{OldOutbox, Options},
};
use doorstep_tests::{
    Ended, LEDGER, Program, RoleProcess, TestEnv,
    ledger::{Ledger, Move, entries, event},
    wait_for,
};

use crate::{
    SOON,
    operator::{Office, moved},
    roles::summary,
    stores::for_each_store,
};

/// The exit code of a role whose queue belongs to another store.
const OTHER_STORE: Option<i32> = Some(78);

const UNTIL_IDLE: [&str; 4] = ["run", "inventory", "--exit-when-idle", "1s"];

impl Office {
    /// Returns the command with the stores in another folder.
    fn elsewhere(&self, arguments: &[&str]) -> Program {
        self.consumers(arguments)
            .store(&self.scratch.join("elsewhere"))
    }

    async fn publish(&self, sequences: std::ops::RangeInclusive<u64>) {
        let events: Vec<Event> = sequences.map(|n| moved("1", n, -1)).collect();
        self.env.publish(&events).await;
    }

    fn source(&self, folder: &str) -> String {
        let folder = self.scratch.join(folder);
        let store = SqliteStore::open_read_only(&folder, "inventory", &Options::default());
        store.unwrap().source().to_string()
    }

    /// Checks that nothing was consumed: this many messages are ready, and there is no consumer.
    async fn waits(&self, ready: u64) {
        let queue = self.env.namespace().role_queue("inventory", 0);
        self.env.depth_is(&queue, ready, 0, SOON).await;
    }
}

#[track_caller]
fn is_refused(ended: &Ended, words: &[&str]) {
    assert_eq!(ended.code, OTHER_STORE, "{}", ended.stderr);
    for word in words {
        assert!(ended.stderr.contains(word), "{word} in {}", ended.stderr);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_store_is_rejected_until_it_takes_over() {
    let office = Office::new("owner").await;
    let run = async |program: Program| program.run(&office.scratch, SOON * 3).await;
    office.publish(1..=10).await;
    office.output(&UNTIL_IDLE).await;
    office.publish(11..=20).await;
    office.waits(10).await;

    let owner = office.source("stores");
    let rejected = run(office.elsewhere(&UNTIL_IDLE)).await;
    let file = SqliteStore::path(&office.scratch.join("elsewhere"), "inventory");
    let file = file.to_str().unwrap();
    is_refused(&rejected, &[&owner, "store take-over inventory", file]);
    office.waits(10).await;
    let verified = office.ran(&["topology", "verify", "inventory"]).await;
    assert_eq!(verified.code, Some(0), "{}", verified.stdout);
    let line = format!("The queues of inventory belong to the store {owner}");
    assert!(verified.stdout.contains(&line), "{}", verified.stdout);

    // Not while the owner runs.
    let take = [
        "store",
        "take-over",
        "inventory",
        "--reason",
        "a test",
        "--operator",
        "ada",
    ];
    let running = office
        .consumers(&["run", "inventory"])
        .start(&office.scratch);
    running.says("taking deliveries", SOON).await;
    let ended = run(office.elsewhere(&take)).await;
    is_refused(&ended, &["has an active consumer"]);
    running.terminate();
    assert_eq!(running.ended(SOON).await.code, Some(0));

    office.publish(21..=30).await;
    let taken = run(office.elsewhere(&take)).await;
    assert_eq!(taken.code, Some(0), "{}", taken.stderr);
    assert!(taken.stdout.contains(&owner), "{}", taken.stdout);
    is_refused(
        &office.ran(&UNTIL_IDLE).await,
        &[&office.source("elsewhere")],
    );
    office.waits(10).await;
    // The events that the owner has acknowledged are missing here.
    let ended = run(office.elsewhere(&UNTIL_IDLE)).await;
    assert_eq!(ended.code, Some(2), "{}", ended.stderr);
    office.waits(0).await;
    let audit = run(office.elsewhere(&["dead-letters", "audit", "inventory", "--json"])).await;
    let row: serde_json::Value = serde_json::from_str(audit.stdout.trim()).unwrap();
    assert_eq!(
        (&row["action"], &row["operator"]),
        (&"take_over".into(), &"ada".into())
    );
    assert_eq!(row["reason"], "a test");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_moved_before_start_is_missed() {
    let office = Office::new("owner-moved").await;
    let (place, away) = (office.scratch.join("stores"), office.scratch.join("away"));
    office.publish(1..=10).await;
    office.output(&UNTIL_IDLE).await;
    let owner = office.source("stores");
    office.publish(11..=20).await;
    fs::rename(&place, &away).unwrap();
    is_refused(
        &office.ran(&UNTIL_IDLE).await,
        &[&owner, "files are put back"],
    );
    office.waits(10).await;
    fs::remove_dir_all(&place).unwrap();
    fs::rename(&away, &place).unwrap();
    office.output(&UNTIL_IDLE).await;
    office.waits(0).await;
    assert_eq!(office.source("stores"), owner);
}

fn copied(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for file in fs::read_dir(from).unwrap() {
        let file = file.unwrap();
        fs::copy(file.path(), to.join(file.file_name())).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_copy_is_rejected_beside_its_original() {
    let env = TestEnv::new("owner-copy", &[LEDGER]).await;
    let scratch = doorstep_tests::TempDir::new("owner-copy");
    let open = |folder: &Path| SqliteStore::open(folder, "ledger", &Options::default()).unwrap();
    let (place, copy) = (scratch.join("place"), scratch.join("copy"));
    let store = open(&place);
    let role = env.start(Ledger, store.clone());
    role.consuming(SOON).await;
    role.stop().await.unwrap();
    store.close().await;
    copied(&place, &copy);

    let original = env.start(Ledger, open(&place));
    original.consuming(SOON).await;
    let rejected = env.start(Ledger, open(&copy)).ended(SOON).await;
    let error = other_store(rejected);
    assert!(error.contains("another copy of that store"), "{error}");
    original.stop().await.unwrap();

    let store = open(&copy);
    let restored = env.start(Ledger, store.clone());
    restored.consuming(SOON).await;
    let mark = summary(&store).await.restored.expect("no mark");
    assert!(mark.detail.contains("may be missing"), "{mark:?}");
    // The original is stale by now.
    let rejected = env.start(Ledger, open(&place)).ended(SOON).await;
    other_store(rejected);
    restored.stop().await.unwrap();
    store.close().await;

    // With a new source it is still the store in the record.
    let record = WriteSet::at(Timestamp::now());
    let outbox = OldOutbox::MustBeEmpty;
    SqliteStore::mint_source(&copy, "ledger", outbox, &record, &Options::default()).unwrap();
    let renamed = env.start(Ledger, open(&copy));
    renamed.consuming(SOON).await;
    renamed.stop().await.unwrap();
}

#[track_caller]
fn other_store(ended: Result<(), RunError>) -> String {
    match ended {
        Err(RunError::Connect(error)) if error.kind() == ConnectErrorKind::OtherStore => {
            error.to_string()
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_running_role_ends_after_a_takeover() {
    let env = TestEnv::new("owner-lost", &[LEDGER]).await;
    let queue = env.namespace().role_queue("ledger", 0);
    let proxy = env.proxy().await;
    let settings = RunSettings {
        broker: env.settings_by(&proxy),
        ..env.run_settings()
    };
    let role = RoleProcess::start(Ledger, MemoryStore::new("ledger"), settings);
    role.consuming(SOON).await;
    proxy.reject_connections();
    env.depth_is(&queue, 0, 0, SOON).await;
    let other = OwnerRecord {
        store: MemoryStore::new("ledger").source().clone(),
        epoch: Epoch::new(7, 7).unwrap(),
        since: Timestamp::now(),
    };
    let before = take_over(env.settings(), "ledger", &other).await.unwrap();
    assert!(before.is_some_and(|before| before.store.is_some()));
    env.publish(&[event("shop", "account/a", 1, &Move::Add(1))])
        .await;
    proxy.restore();
    let error = other_store(role.ended(SOON).await);
    assert!(error.contains(other.store.as_str()), "{error}");
    env.depth_is(&queue, 1, 0, SOON).await;
}

for_each_store! {
    async fn concurrent_starts_of_one_store_succeed(storage) {
        let env = TestEnv::new("owner-pair", &[LEDGER]).await;
        for round in 1..=6 {
            let pair = [0, 1].map(|_| env.start(Ledger, storage.open()));
            env.publish(&[event("shop", "account/a", round, &Move::Add(1))]).await;
            for role in &pair {
                role.consuming(SOON).await;
            }
            let [first, second] = pair;
            // Either may be consuming, and the other's record may be in any state.
            first.crash();
            wait_for("the event is applied", SOON, async || {
                let applied = summary(&storage.open()).await.tally.applied;
                if applied == round { Ok(()) } else { Err(applied) }
            })
            .await;
            if round % 2 == 0 {
                second.crash();
            } else {
                second.stop().await.unwrap();
            }
        }
        let store = storage.open();
        assert_eq!(summary(&store).await.restored, None);
        assert_eq!(entries(&store, "account/a").await.len(), 6);
        let verified = verify(env.settings(), env.topology()).await.unwrap();
        let owner = verified.owners[0].owner.clone().expect("no record");
        assert_eq!(owner.store.as_ref(), Some(store.source()));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_permission_to_record_consuming_needs_consent() {
    let env = TestEnv::new("owner-rights", &[LEDGER]).await;
    // RabbitMQ's patterns support negative lookahead.
    let configure = r"^doorstep\.(?!ledger\.owner).*$";
    let user = env.user(
        "no-record",
        UserPermissions {
            configure,
            write: ".*",
            read: ".*",
        },
    );
    let settings = |requires_owner_record| RunSettings {
        broker: BrokerSettings {
            addresses: vec![user.amqp_url().parse().unwrap()],
            ..env.settings().clone()
        },
        requires_owner_record,
        ..env.run_settings()
    };
    let store = MemoryStore::new("ledger");
    let role = RoleProcess::start(Ledger, store.clone(), settings(true));
    match role.ended(SOON).await {
        Err(RunError::Connect(error)) => {
            let kind = ConnectErrorKind::Denied(Denial::Permission);
            assert_eq!(error.kind(), kind, "{error}");
            let says = error.to_string();
            assert!(says.contains("--without-owner-record"), "{says}");
        }
        other => panic!("{other:?}"),
    }
    let role = RoleProcess::start(Ledger, store, settings(false));
    role.consuming(SOON).await;
    wait_for("it is degraded", SOON, async || {
        let degraded = role.status().degraded;
        let is_reported =
            |line: &ReadinessReason| line.message.contains("not recorded which store");
        if degraded.iter().any(is_reported) {
            Ok(())
        } else {
            Err(degraded)
        }
    })
    .await;
    role.stop().await.unwrap();
    let verified = verify(&settings(true).broker, env.topology())
        .await
        .unwrap();
    let findings: Vec<String> = verified.findings.iter().map(ToString::to_string).collect();
    let [finding] = findings.as_slice() else {
        panic!("{findings:?}");
    };
    assert!(finding.contains("doorstep.ledger.owner"), "{finding}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn truncated_records_of_two_stores_still_differ() {
    let env = TestEnv::new("owner-long", &[LEDGER]).await;
    // From a few bytes too many to the whole name of the store.
    for long in [40, 60, 100] {
        let broker = BrokerSettings {
            namespace: "n".repeat(long).parse().unwrap(),
            ..env.settings().clone()
        };
        let topology = Topology::for_roles(&broker.namespace, &[LEDGER]);
        let settings = || RunSettings {
            broker: broker.clone(),
            topology: topology.clone(),
            ..env.run_settings()
        };
        let store = MemoryStore::new("ledger");
        for _ in 0..3 {
            let role = RoleProcess::start(Ledger, store.clone(), settings());
            role.consuming(SOON).await;
            role.stop().await.unwrap();
        }
        assert_eq!(summary(&store).await.restored, None);
        let other = RoleProcess::start(Ledger, MemoryStore::new("ledger"), settings());
        let error = other_store(other.ended(SOON).await);
        assert!(error.contains("take-over ledger"), "{error}");
        // The record is deleted with everything else: the queues have no owner then.
        delete(&broker, &topology).await.unwrap();
        let other = RoleProcess::start(Ledger, MemoryStore::new("ledger"), settings());
        other.consuming(SOON).await;
        assert_eq!(other.status().phase, Phase::Consuming);
        other.stop().await.unwrap();
        delete(&broker, &topology).await.unwrap();
    }
}
