//! The gateway's access log: every request is in it or counted as dropped, and no request waits for it.

use std::time::Duration;

use doorstep_broker::{NodeOptions, PrivateNode};
use doorstep_tests::{Client, Program, TempDir, wait_for};
use serde_json::Value;
use tokio::task::{JoinSet, block_in_place, spawn_blocking};

use crate::{SOON, gateway::Gateway};

/// A broker takes long to start on a busy machine.
const LONG: Duration = Duration::from_secs(240);
/// A path without a route: its requests are those of the endpoint `other`, and no other request is.
const UNKNOWN_PATH: &str = "/nowhere";
/// More than the buffer and a batch can take.
const FLOOD: u64 = 12_000;
const CLIENTS: u64 = 8;

async fn request(client: Client, times: u64) {
    for _ in 0..times {
        assert_eq!(client.get(UNKNOWN_PATH).await.status, 404);
    }
}

async fn flood(gateway: &Gateway) {
    let mut clients = JoinSet::new();
    for _ in 0..CLIENTS {
        clients.spawn(request(gateway.nobody().clone(), FLOOD / CLIENTS));
    }
    let _ = clients.join_all().await;
}

/// Returns the requests of the endpoint `other` and the dropped ones, as the role has counted them.
async fn counted(stores: &Program, scratch: &TempDir) -> Result<(u64, u64), String> {
    let shown = stores.run(scratch, SOON).await;
    if shown.code != Some(0) {
        return Err(shown.stderr);
    }
    let (mut other, mut dropped) = (0, 0);
    for line in shown.stdout.lines() {
        let row: Value = serde_json::from_str(line).unwrap();
        if row["endpoint"] == "other" {
            assert_eq!(row["client_errors"], row["requests"], "{row}");
            assert!(row["p50_us"].as_u64().unwrap() <= row["p99_us"].as_u64().unwrap());
            other += row["requests"].as_u64().unwrap();
        }
        dropped += row["dropped"].as_u64().unwrap_or(0);
    }
    Ok((other, dropped))
}

#[tokio::test(flavor = "multi_thread")]
async fn log_and_drops_are_all_requests() {
    let start = || PrivateNode::start(NodeOptions::named("access-log")).unwrap();
    let mut node = spawn_blocking(start).await.unwrap();
    let vhost = block_in_place(|| node.broker().new_vhost("access-log")).unwrap();
    let gateway = Gateway::start_with("access-log", &vhost.amqp_url(), &["--access-log"]).await;
    let scratch = TempDir::new("access-log");
    let consumers = |arguments: &[&str]| {
        Program::consumers(arguments)
            .broker(&vhost.amqp_url())
            .store(&scratch.join("stores"))
    };
    let role = consumers(&["run", "access_log"]).start(&scratch);
    let show = consumers(&["show", "access_log", "--json"]);

    request(gateway.nobody().clone(), 20).await;
    wait_for(
        "the role has counted the first requests",
        LONG,
        async || match counted(&show, &scratch).await {
            Ok((20, 0)) => Ok(()),
            seen => Err(format!("{seen:?}")),
        },
    )
    .await;

    block_in_place(|| node.sync_declarations()).unwrap();
    block_in_place(|| node.kill()).unwrap();
    flood(&gateway).await;
    block_in_place(|| node.start_again()).unwrap();
    let mut dropped = 0;
    wait_for("log and drops are all requests", LONG, async || {
        let seen = counted(&show, &scratch).await;
        match seen {
            Ok((other, drops)) if other + drops == 20 + FLOOD => {
                dropped = drops;
                Ok(())
            }
            seen => Err(format!("{seen:?}")),
        }
    })
    .await;
    assert!((1..FLOOD - 10_000).contains(&dropped), "{dropped}");
    drop(role);
}
