//! Real private nodes: the data after a kill and after a stop, and the isolation of nodes from each other.

use std::net::TcpStream;
use std::time::Duration;

use anyhow::{Context, Result};
use doorstep_broker::{
    InstalledNode, Management, NodeOptions, PrivateNode, UpNode, outlive_worker_crashes,
    percent_encoded, until,
};

/// The timeout of waits for quick operations.
const BOUND: Duration = Duration::from_secs(10);

#[test]
fn restarted_nodes_keep_their_durable_data() -> Result<()> {
    let mut node = PrivateNode::start(NodeOptions::named("durable"))?;
    let management = node.management();
    let vhost = node.broker().new_vhost("a/b")?;
    let queue = format!("{}/kept", percent_encoded(vhost.name()));
    management.put(
        &format!("/api/queues/{queue}"),
        r#"{"durable":true,"arguments":{"x-queue-type":"quorum"}}"#,
    )?;
    let exchange = format!(
        "/api/exchanges/{}/amq.default/publish",
        percent_encoded(vhost.name())
    );
    let published = management.post(
        &exchange,
        r#"{"properties":{"delivery_mode":2},"routing_key":"kept","payload":"still here","payload_encoding":"string"}"#,
    )?;
    assert_eq!(published, r#"{"routed":true}"#);

    node.sync_declarations()?;
    node.kill()?;
    assert!(!listens(node.ports().amqp));
    assert!(!management.answers());
    node.start_again()?;
    assert_eq!(payload(&management, &queue)?, "still here");

    node.restart()?;
    assert_eq!(payload(&management, &queue)?, "still here");
    assert!(node.start_again().is_err(), "it is running already");
    Ok(())
}

#[test]
fn dead_lettering_survives_crashes_of_its_workers() -> Result<()> {
    let node = PrivateNode::start(NodeOptions::named("crashing-workers"))?;
    outlive_worker_crashes(|arguments| node.ctl(arguments))?;
    let vhost = node.broker().new_vhost("crashing-workers")?;
    node.management().put(
        &format!("/api/queues/{}/source", percent_encoded(vhost.name())),
        r#"{"durable":true,"arguments":{"x-queue-type":"quorum","x-dead-letter-exchange":"amq.fanout",
            "x-dead-letter-strategy":"at-least-once","x-overflow":"reject-publish"}}"#,
    )?;
    // Kills a worker as soon as it has replaced the killed one, more often than any version's supervisor permits.
    let crash = "Worker = fun Worker(_, 0) -> exit(no_worker); \
                 Worker(Former, Left) -> \
                 case supervisor:which_children(rabbit_fifo_dlx_sup) of \
                 [{_, Pid, _, _}] when is_pid(Pid), Pid =/= Former -> Pid; \
                 _ -> timer:sleep(2), Worker(Former, Left - 1) end end, \
                 Crash = fun(_, Former) -> Pid = Worker(Former, 10000), exit(Pid, kill), Pid end, \
                 is_pid(Worker(lists:foldl(Crash, none, lists:seq(1, 120)), 10000)).";
    assert_eq!(node.ctl(&["eval", crash])?.trim(), "true");
    Ok(())
}

#[test]
fn nodes_live_side_by_side_and_leave_nothing() -> Result<()> {
    let first = PrivateNode::start(NodeOptions::named("side by side"))?;
    let second = PrivateNode::start(NodeOptions::named("side by side"))?;
    assert_ne!(first.ports(), second.ports());
    assert_ne!(
        first.management().password(),
        second.management().password()
    );

    // At-least-once dead-lettering needs both of these.
    let features = first.ctl(&["list_feature_flags", "name", "state"])?;
    for feature in ["quorum_queue\tenabled", "stream_queue\tenabled"] {
        assert!(features.contains(feature), "{features}");
    }

    first.block_publishers()?;
    assert!(first.ctl(&["status"])?.contains("Memory alarm on node"));
    first.unblock_publishers()?;
    assert!(!first.ctl(&["status"])?.contains("Memory alarm on node"));

    first.freeze()?;
    assert!(second.management().answers());
    first.thaw()?;
    assert!(first.management().answers());

    let ports = first.ports();
    drop(first);
    for port in [ports.amqp, ports.management, ports.distribution, ports.epmd] {
        assert!(!listens(port), "a process still listens on {port}");
    }
    assert!(second.management().answers());
    Ok(())
}

#[test]
fn a_node_left_up_is_found_again() -> Result<()> {
    let name = format!("left-up-{}", std::process::id());
    let options = NodeOptions::named(&name);
    let started = UpNode::up(options.clone(), |_| {})?;
    let found = UpNode::find(&name)?.context("it is not found")?;
    assert!(found.is_running());
    assert!(found.management().answers());

    // A second request finds the same node. The start of another node sweeps up nodes without an owner, but not this
    // one.
    let again = UpNode::up(options, |_| {})?;
    assert_eq!(again.broker().amqp_url(), started.broker().amqp_url());
    let sweeper = InstalledNode::start(NodeOptions::named("sweeper"))?;
    let swept = sweeper.folder().to_owned();
    assert!(swept.is_dir());
    drop(sweeper);
    // The sweep of another test may own the folder while it deletes it.
    let gone = until(BOUND, || Ok((!swept.exists()).then_some(())))?;
    assert!(gone.is_some(), "{} stays", swept.display());
    assert!(found.is_running());

    let port = found.broker().address().port;
    let folder = found.folder().to_owned();
    found.down()?;
    assert!(!listens(port));
    assert!(!folder.exists());
    assert!(UpNode::find(&name)?.is_none());
    Ok(())
}

#[test]
fn a_rejected_setting_is_reported_with_the_log() {
    let options = NodeOptions::named("refused").setting("no_such_setting = 1");
    let error = format!("{:#}", InstalledNode::start(options).unwrap_err());
    assert!(error.contains("no_such_setting"), "{error}");
}

fn listens(port: u16) -> bool {
    TcpStream::connect(("127.0.0.1", port)).is_ok()
}

/// Returns the first message's payload; the message stays in the queue.
fn payload(management: &Management, queue: &str) -> Result<String> {
    let got = management.post(
        &format!("/api/queues/{queue}/get"),
        r#"{"count":1,"ackmode":"ack_requeue_true","encoding":"auto"}"#,
    )?;
    let (_, rest) = got
        .split_once(r#""payload":""#)
        .unwrap_or_else(|| panic!("no message in {got}"));
    Ok(rest.split('"').next().unwrap_or_default().to_owned())
}
