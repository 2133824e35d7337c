//! The gateway's access log: every request is in it or counted as dropped, and no request waits for it.

use std::time::Duration;

use doorstep_broker::{Footprint, NodeOptions, PrivateNode, Vhost, percent_encoded};
use doorstep_tests::{Client, Program, RunningProgram, TempDir, wait_for};
use serde_json::Value;
use tokio::{
    task::{JoinSet, block_in_place, spawn_blocking},
    time::interval,
};

use crate::{
    SOON,
    gateway::{Gateway, NO_BROKER},
};

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

/// A node that can be killed, a gateway with the log, and the role's programs.
struct LogSetup {
    node: PrivateNode,
    vhost: Vhost,
    gateway: Gateway,
    scratch: TempDir,
    run: Program,
    show: Program,
    /// The requests so far.
    sum: u64,
}

impl LogSetup {
    async fn new() -> Self {
        let options = NodeOptions::named("access-log").footprint(Footprint::Full);
        let node = spawn_blocking(|| PrivateNode::start(options).unwrap());
        let node = node.await.unwrap();
        let vhost = block_in_place(|| node.broker().new_vhost("access-log")).unwrap();
        let scratch = TempDir::new("access-log");
        let consumers = |arguments: &[&str]| {
            Program::consumers(arguments)
                .broker(&vhost.amqp_url())
                .store(&scratch.join("stores"))
        };
        Self {
            run: consumers(&["run", "access_log"]),
            show: consumers(&["show", "access_log", "--json"]),
            gateway: Gateway::start_with("access-log", &vhost.amqp_url(), &["--access-log"]).await,
            scratch,
            node,
            vhost,
            sum: 0,
        }
    }

    async fn request(&mut self, times: u64) {
        request(self.gateway.nobody().clone(), times).await;
        self.sum += times;
    }

    async fn flood(&mut self) {
        flood(&self.gateway).await;
        self.sum += FLOOD;
    }

    /// Waits until the role has counted every request, as one of the endpoint or as dropped. Returns the drops.
    async fn dropped(&self) -> u64 {
        let what = format!("log and drops are {} requests", self.sum);
        wait_for(what, LONG, async || {
            match counted(&self.show, &self.scratch).await {
                Ok((other, dropped)) if other + dropped == self.sum => Ok(dropped),
                seen => Err(format!("{seen:?}")),
            }
        })
        .await
    }
}

/// Makes the role's queue hold one event, or as many as it is declared for.
fn limit_queue(vhost: &Vhost, is_limited: bool) {
    let policy = format!("/api/policies/{}/full", percent_encoded(vhost.name()));
    let full = r#"{"pattern":"access_log","apply-to":"queues","definition":{"max-length":1}}"#;
    let management = vhost.broker().management().unwrap();
    block_in_place(|| match is_limited {
        true => management.put(&policy, full).map(drop),
        false => management.delete(&policy),
    })
    .unwrap();
}

async fn stopped(role: RunningProgram) {
    role.terminate();
    role.ended(SOON).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn log_and_drops_are_all_requests() {
    let mut setup = LogSetup::new().await;
    let role = setup.run.start(&setup.scratch);
    setup.request(20).await;
    assert_eq!(setup.dropped().await, 0);

    // The role is down: the queue keeps its events.
    stopped(role).await;
    setup.request(200).await;
    let role = setup.run.start(&setup.scratch);
    assert_eq!(setup.dropped().await, 0);

    // Its queue is full: the buffer keeps events, and counts those that it drops.
    stopped(role).await;
    limit_queue(&setup.vhost, true);
    wait_for("the queue is full", LONG, async || {
        setup.request(10).await;
        match setup.gateway.has_said("the broker refuses the access log") {
            true => Ok(()),
            false => Err(format!("{} requests", setup.sum)),
        }
    })
    .await;
    setup.flood().await;
    setup
        .gateway
        .says("the buffer of the access log is full")
        .await;
    limit_queue(&setup.vhost, false);
    let role = setup.run.start(&setup.scratch);
    let dropped = setup.dropped().await;
    assert!((1..FLOOD / 2).contains(&dropped), "{dropped}");

    // The broker is down.
    block_in_place(|| setup.node.sync_declarations()).unwrap();
    block_in_place(|| setup.node.kill()).unwrap();
    setup.flood().await;
    block_in_place(|| setup.node.start_again()).unwrap();
    let more = setup.dropped().await - dropped;
    assert!((1..FLOOD / 2).contains(&more), "{more}");
    drop(role);
}

/// The requests of a measurement: three seconds at 200 a second.
const PACED: usize = 600;
const PACE: Duration = Duration::from_millis(5);
const ROUNDS: usize = 10;

/// Returns the 99th percentile of paced requests' times in milliseconds, each from the moment at which it was due.
async fn p99(client: &Client) -> f64 {
    let mut ticks = interval(PACE);
    let mut requests = JoinSet::new();
    for _ in 0..PACED {
        let due = ticks.tick().await;
        let client = client.clone();
        requests.spawn(async move {
            assert_eq!(client.get(UNKNOWN_PATH).await.status, 404);
            due.elapsed().as_secs_f64() * 1e3
        });
    }
    let mut times = requests.join_all().await;
    times.sort_by(f64::total_cmp);
    times[PACED * 99 / 100]
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    f64::midpoint(values[ROUNDS / 2 - 1], values[ROUNDS / 2])
}

/// Compares the times of requests in each state of the log, in interleaved rounds on four gateways. On a busy machine the
/// figures say little.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "it measures, and takes minutes"]
async fn no_state_of_the_log_slows_requests() {
    let options = NodeOptions::named("access-log").footprint(Footprint::Full);
    let start = || PrivateNode::start(options).unwrap();
    let node = spawn_blocking(start).await.unwrap();
    let vhosts = ["up", "unread", "full"]
        .map(|state| block_in_place(|| node.broker().new_vhost(state)).unwrap());
    limit_queue(&vhosts[2], true);
    let [up, unread, full] = vhosts.each_ref().map(|vhost| vhost.amqp_url());
    let states = [
        ("all up", up.as_str()),
        ("the role down", &unread),
        ("its queue full", &full),
        ("the broker down", NO_BROKER),
    ];
    let scratch = TempDir::new("access-log");
    let _role = Program::consumers(&["run", "access_log"])
        .broker(&up)
        .store(&scratch.join("stores"))
        .start(&scratch);
    let mut gateways = Vec::new();
    for (state, url) in states {
        let gateway = Gateway::start_with("access-log", url, &["--access-log"]).await;
        if ["its queue full", "the broker down"].contains(&state) {
            flood(&gateway).await;
            gateway.says("the buffer of the access log is full").await;
        }
        gateways.push(gateway);
    }
    let mut times = states.map(|_| Vec::new());
    for round in 0..ROUNDS {
        for turn in 0..states.len() {
            let state = (round + turn) % states.len();
            times[state].push(p99(gateways[state].nobody()).await);
        }
    }
    let medians = times.map(median);
    let ratios = medians.map(|time| time / medians[0]);
    for (((state, _), time), ratio) in states.iter().zip(medians).zip(ratios) {
        println!("{state}: p99 {time:.2} ms, {ratio:.2} of all up");
    }
    assert!(ratios.iter().all(|ratio| *ratio <= 1.2), "{ratios:?}");
}
