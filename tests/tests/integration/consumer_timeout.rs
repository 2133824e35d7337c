//! The broker's own consumer timeout: if it expires, the channel is closed, and the role recovers by itself.

use std::time::Duration;

use doorstep_broker::{NodeOptions, PrivateNode};
use doorstep_store::MemoryStore;
use doorstep_tests::{
    Fault, FaultyStore, LEDGER, RoleProcess, TestEnv,
    ledger::{Ledger, Move, event},
    wait_for, wait_until,
};
use tokio::task::block_in_place;

use crate::{
    SOON,
    roles::{dead, entries_are, summary},
};

/// The time after which the node closes a channel over an unacknowledged delivery.
const CONSUMER_TIMEOUT: Duration = Duration::from_secs(3);

/// Returns a node that checks for such deliveries continuously; by default it does so once a minute.
fn node() -> PrivateNode {
    let timeout = format!("consumer_timeout = {}", CONSUMER_TIMEOUT.as_millis());
    let options = NodeOptions::named("consumer-timeout").setting(&timeout);
    let node = block_in_place(|| PrivateNode::start(options)).unwrap();
    // Channels check in older versions, queues in newer ones.
    let often = "[application:set_env(rabbit, Interval, 300) || Interval <- [channel_tick_interval, quorum_tick_interval]].";
    block_in_place(|| node.ctl(&["eval", often])).unwrap();
    node
}

/// Runs a role whose store hangs or fails, and which requeues its deliveries after this time by itself. Returns true if
/// the broker has closed its channel or its consumer meanwhile.
async fn comes_back(node: &PrivateNode, fault: Fault, ack_timeout: Duration) -> bool {
    let env = TestEnv::on(&node.broker(), "consumer-timeout", &[LEDGER]).await;
    let queue = env.namespace().role_queue("ledger", 0);
    let store = FaultyStore::new(MemoryStore::new("ledger"));
    let mut settings = env.run_settings();
    settings.broker.ack_timeout = ack_timeout;
    let role = RoleProcess::start(Ledger, store.clone(), settings);
    role.consuming(SOON).await;
    store.set(fault);
    let e = |n| event("shop", "account/a", n, &Move::Add(1));
    let first: Vec<_> = (1..=20).map(e).collect();
    env.publish(&first).await;
    let vitals = role.vitals();
    let links = vitals.links().unwrap();
    let (state, meter) = (
        links.consume.as_ref().unwrap(),
        links.consumed.as_ref().unwrap(),
    );
    // Its channel is closed, by either side, and its unacknowledged deliveries are requeued.
    let is_over = wait_for("a delivery takes too long", SOON, async || {
        let counts = meter.read();
        let ended = counts.channels_closed + counts.consumers_cancelled > 0;
        let now = state.borrow().clone();
        if ended
            || matches!(
                now.phase,
                doorstep_messaging::ConnectionPhase::Suspended { .. }
            )
        {
            Ok(ended)
        } else {
            Err(now)
        }
    })
    .await;
    if meter.read().channels_closed > 0 {
        let loss = state.borrow().last_loss.clone().unwrap().to_string();
        assert!(loss.contains("PRECONDITION_FAILED"), "{loss}");
    }
    store.set(Fault::None);
    wait_until("all are applied", SOON, async || {
        summary(store.inner()).await.tally.applied == 20
    })
    .await;
    env.all_is_acked(&role, "ledger", SOON).await;
    // The role continues, and no event was applied twice.
    env.publish(&(21..=25).map(e).collect::<Vec<_>>()).await;
    let all: Vec<_> = (1..=25).map(|n| format!("shop {n}")).collect();
    let all: Vec<_> = all.iter().map(String::as_str).collect();
    entries_are(store.inner(), "account/a", &all).await;
    env.all_is_acked(&role, "ledger", SOON).await;
    assert!(dead(store.inner()).await.is_empty());
    role.stop().await.unwrap();
    env.depth_is(&queue, 0, 0, SOON).await;
    is_over
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_timed_out_role_applies_each_event_once() {
    let node = node();
    // Its own timeout is never reached.
    let later = Duration::from_secs(3600);
    for fault in [
        Fault::Fails,
        Fault::HangsBeforeCommit,
        Fault::HangsAfterCommit,
    ] {
        assert!(comes_back(&node, fault, later).await, "{fault:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_role_recovers_from_either_timeout() {
    let node = node();
    for fault in [Fault::Fails, Fault::HangsAfterCommit] {
        let near = CONSUMER_TIMEOUT + Duration::from_millis(150);
        comes_back(&node, fault, near).await;
    }
}
