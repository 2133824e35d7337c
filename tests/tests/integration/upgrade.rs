//! A new version beside the queues and stores of an earlier one.

use std::{fs, path::PathBuf};

use doorstep_messaging::{Argument, QueuePurpose, RoleQueues};
use doorstep_tests::{Program, TempDir, TestEnv};
use tokio::{net::TcpSocket, task::block_in_place};

use crate::SOON;

/// A store of the role `payments` in schema version 4.
const STORE_4: &str = include_str!("../../../common/store/tests/sqlite/schema_4.sql");

const PAYMENTS: RoleQueues = RoleQueues {
    role: "payments",
    subjects: &["order"],
    handles_requests: true,
};

/// Creates a store of schema version 4.
fn older_store(folder: &TempDir) -> PathBuf {
    let file = folder.join("payments.sqlite3");
    let older = rusqlite::Connection::open(&file).unwrap();
    older.execute_batch(STORE_4).unwrap();
    older.close().unwrap();
    file
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn waiting_for_the_broker_is_stopped_at_once() {
    let folder = TempDir::new("upgrade-waits");
    let file = older_store(&folder);
    let before = fs::read(&file).unwrap();
    // Bound and never listening, so that no other program gets the port.
    let kept = TcpSocket::new_v4().unwrap();
    kept.bind(([127, 0, 0, 1], 0).into()).unwrap();
    let url = format!("amqp://doorstep:doorstep@{}", kept.local_addr().unwrap());
    let program = Program::consumers(&["run", "payments"]).broker(&url);
    let running = program.store(folder.join("").as_path()).start(&folder);
    running
        .says("waiting for the broker before stores are migrated", SOON)
        .await;
    running.terminate();
    let ended = running.ended(SOON).await;
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    assert_eq!(fs::read(&file).unwrap(), before);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_store_is_migrated_before_its_queues_fit() {
    let env = TestEnv::with("upgrade", &[PAYMENTS], |topology| {
        for queue in &mut topology.queues {
            if queue.purpose == QueuePurpose::Role {
                let former = Argument::Text("test.payments.net".to_owned());
                queue.arguments.insert("x-dead-letter-routing-key", former);
            }
        }
    })
    .await;
    let folder = TempDir::new("upgrade");
    let file = older_store(&folder);
    let before = fs::read(&file).unwrap();
    let run = || async {
        let namespace = env.namespace().to_string();
        let words = [
            "run",
            "payments",
            "--exit-when-idle",
            "1s",
            "--namespace",
            &namespace,
        ];
        let program = Program::consumers(&words).broker(&env.amqp_url());
        program
            .store(folder.join("").as_path())
            .run(&folder, SOON)
            .await
    };

    let rejected = run().await;
    assert_eq!(rejected.code, Some(69), "{}", rejected.stderr);
    for part in ["docs/operations/upgrade.md", "were not migrated"] {
        assert!(rejected.stderr.contains(part), "{}", rejected.stderr);
    }
    assert_eq!(fs::read(&file).unwrap(), before);

    let queue = env.namespace().role_queue("payments", 0);
    block_in_place(|| env.view().delete_queue(queue.as_str()));
    let migrated = run().await;
    assert!(matches!(migrated.code, Some(0 | 2)), "{}", migrated.stderr);
    assert_ne!(fs::read(&file).unwrap(), before);
}
