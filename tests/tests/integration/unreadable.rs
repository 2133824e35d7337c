//! A queue that the broker has and that does not answer.

use doorstep_broker::{NodeOptions, PrivateNode};
use doorstep_messaging::QueueName;
use doorstep_tests::{TempDir, TestEnv, wait_for};
use serde_json::Value;
use tokio::task::{block_in_place, spawn_blocking};

use crate::{
    SOON,
    operator::{Office, ROLES, moved},
};

/// Applies this function of the broker to the server of a quorum queue, of which a single node has one.
fn with_server(node: &PrivateNode, function: &str, queue: &QueueName) {
    let script = format!(
        "[ra:{function}(quorum_queues, amqqueue:get_pid(Q)) || Q <- rabbit_amqqueue:list(), \
         element(4, amqqueue:get_name(Q)) =:= <<\"{queue}\">>]."
    );
    let done = block_in_place(|| node.ctl(&["eval", &script])).unwrap();
    assert_eq!(done.trim(), "[ok]", "{script}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leaderless_queue_has_no_known_depth() {
    let node = spawn_blocking(|| PrivateNode::start(NodeOptions::named("leaderless")));
    let node = node.await.unwrap().unwrap();
    let office = Office {
        env: TestEnv::on(&node.broker(), "leaderless", &ROLES).await,
        scratch: TempDir::new("leaderless"),
    };
    office.env.publish(&[moved("1", 1, -1)]).await;
    let queue = office.env.namespace().role_queue("inventory", 0);
    let status = async || -> Value {
        let ended = office.ran(&["status", "inventory", "--json"]).await;
        // The queues are shown although no role has run yet.
        assert_eq!(ended.code, Some(66), "{}", ended.stderr);
        serde_json::from_str::<Value>(&ended.stdout).unwrap()["roles"][0].take()
    };
    let is_ready = async |ready: Value| {
        wait_for(format!("{ready} are ready"), SOON, async || {
            let role = status().await;
            match role["queue"]["ready"] == ready && role["quarantine"]["ready"] == 0 {
                true => Ok(role),
                false => Err(role),
            }
        })
        .await
    };
    is_ready(1.into()).await;
    with_server(&node, "stop_server", &queue);
    let role = is_ready(Value::Null).await;
    assert_eq!(role["queue"]["name"], queue.as_str());
    assert_eq!(role["queue"]["consumers"], Value::Null);
    assert_eq!(role["lag"], Value::Null);
    let notes = role["notes"].to_string();
    assert!(notes.contains("exists but does not respond"), "{notes}");
    let shown = office.ran(&["status", "inventory"]).await.stdout;
    let line = shown.lines().find(|line| line.contains("inventory"));
    let cells: Vec<&str> = line.unwrap().split_whitespace().take(6).collect();
    assert_eq!(cells[..3], ["inventory", "?", "0"], "{shown}");

    with_server(&node, "restart_server", &queue);
    is_ready(1.into()).await;
    drop(office);
    block_in_place(|| drop(node));
}
