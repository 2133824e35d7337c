//! RPC while connections, servers and brokers fail: every call ends by its deadline, with a reply or an error with the
//! reason.

#![allow(clippy::unwrap_used, reason = "a failing helper fails its test")]

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use anyhow::{Result, ensure};
use bytes::Bytes;
use doorstep_event::{Request, RequestKind};
use doorstep_messaging::{Backoff, BrokerSettings, CallError, RpcClient, RpcServerSettings};
use doorstep_tests::{ChaosProxy, Direction, Point, WireFault};
use futures_util::future::try_join_all;
use tokio::time::Instant;

use crate::{
    rpc::{client, command, echo, no_responder, request, server, spawn_call},
    support::{LONG, TestEnv, on_node, private_node, settings, until, within},
};

const FAULTS: [WireFault; 8] = [
    WireFault::Cut,
    WireFault::Stall,
    WireFault::Slow(20_000),
    WireFault::HalfClose(Direction::ToBroker),
    WireFault::HalfClose(Direction::ToClient),
    WireFault::CorruptType,
    WireFault::CorruptSize,
    WireFault::CorruptEnd,
];
/// The time after its deadline beyond which a call counts as hung. The actual excess is measured, since the promised
/// one holds only on a machine with free processors.
const HANGS: Duration = LONG;
/// A server absent for less than this never counts as missing: that takes two checks without a consumer, half a second
/// apart.
const MOMENT: Duration = Duration::from_millis(250);

/// The timeout of each call of these tests. It does not matter if all of them must be answered or fail immediately.
fn timeout(fault: WireFault) -> Duration {
    match fault {
        WireFault::Slow(_) | WireFault::Cut => LONG,
        _ => Duration::from_secs(4),
    }
}

/// Returns settings with timeouts that end each fault within seconds.
fn hasty(mut settings: BrokerSettings) -> BrokerSettings {
    settings.heartbeat = Duration::from_secs(2);
    settings.connect_timeout = Duration::from_secs(3);
    settings.ack_write_timeout = Duration::from_secs(2);
    settings.confirm_timeout = Duration::from_secs(4);
    let backoff = Backoff::new(Duration::from_millis(20), Duration::from_millis(200));
    settings.backoff = backoff.expect("these bounds make sense");
    settings
}

/// Calls sequentially until one is answered.
async fn answered(client: &RpcClient, name: &str) -> Result<()> {
    let mut number = 0;
    until(name, async || {
        number += 1;
        let id = format!("{name} again {number}");
        let answer = client.call_raw(request(&id, LONG)).await;
        Ok(answer == Ok(Bytes::from(id)))
    })
    .await
}

/// Makes twenty calls, queries and commands, over a connection that fails at that method.
async fn caller_meets(env: &TestEnv, point: Point, fault: WireFault) -> Result<()> {
    let name = format!("{point:?} {fault:?}");
    let proxy = env.proxy().await;
    let client = client(&hasty(env.settings_by(&proxy)?)).await?;
    answered(&client, &name).await?;
    proxy.at(point, fault);
    let timeout = timeout(fault);
    let calls = (0..20).map(|n| {
        let id = format!("{name} {n}");
        let request = if n % 2 == 0 {
            command(id, timeout)
        } else {
            request(id, timeout)
        };
        spawn_call(&client, request)
    });
    let answers = within(timeout + HANGS, &name, try_join_all(calls)).await??;
    // A confirm may arrive after the replies.
    let mut triggered = proxy.triggered();
    within(LONG, &name, triggered.wait_for(|times| *times == 1)).await??;
    for answer in &answers {
        ensure!(
            matches!(
                answer,
                Ok(_) | Err(CallError::Unreachable { .. } | CallError::TimedOut)
            ),
            "{name}: {answer:?}"
        );
    }
    if let WireFault::Slow(_) = fault {
        ensure!(answers.iter().all(Result::is_ok), "{name}: {answers:?}");
    }
    if fault == WireFault::Cut {
        ensure!(
            answers.iter().any(Result::is_err) && !answers.contains(&Err(CallError::TimedOut)),
            "a cut is not reported immediately: {answers:?}"
        );
    }
    // It recovers by itself from every fault.
    answered(&client, &name).await?;
    let counts = client.stats().read();
    ensure!(counts.in_flight == 0, "{name}: {counts:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_end_through_faults_of_the_caller() -> Result<()> {
    let env = TestEnv::new("rpc-faults").await?;
    let server = server(&env.settings, RpcServerSettings::default()).await?;
    let echo = echo(&server);
    let mut rows = Vec::new();
    for point in [Point::Publish, Point::Confirm, Point::Deliver] {
        for fault in FAULTS {
            rows.push(caller_meets(&env, point, fault));
        }
    }
    try_join_all(rows).await?;
    echo.abort();
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn short_calls_replace_a_corrupt_connection() -> Result<()> {
    let env = TestEnv::new("rpc-brief").await?;
    let server = server(&env.settings, RpcServerSettings::default()).await?;
    let echo = echo(&server);
    for (point, act) in [
        (Point::Confirm, RequestKind::Command),
        (Point::Deliver, RequestKind::Command),
        (Point::Deliver, RequestKind::Query),
    ] {
        let proxy = env.proxy().await;
        let client = client(&hasty(env.settings_by(&proxy)?)).await?;
        answered(&client, "before").await?;
        // From here on the client waits for gigabytes, and counts each heartbeat as part of them.
        proxy.at(point, WireFault::CorruptSize);
        let brief = Duration::from_millis(500);
        let mut number = 0;
        let mut call = async || {
            number += 1;
            let request = Request {
                act,
                ..request(number, brief)
            };
            client.call_raw(request).await
        };
        until("it has happened", async || {
            let _ = call().await;
            Ok(*proxy.triggered().borrow() == 1)
        })
        .await?;
        until("brief calls are answered again", async || {
            Ok(call().await.is_ok())
        })
        .await?;
    }
    echo.abort();
    Ok(())
}

/// Makes twenty calls to a server whose connection fails at that method.
async fn server_meets(point: Point, fault: WireFault) -> Result<()> {
    let name = format!("{point:?} {fault:?}");
    let env = TestEnv::new("rpc-server-fault").await?;
    let proxy = env.proxy().await;
    let server = server(
        &hasty(env.settings_by(&proxy)?),
        RpcServerSettings::default(),
    )
    .await?;
    let echo = echo(&server);
    let client = client(&env.settings).await?;
    answered(&client, &name).await?;
    let mut state = server.status();
    let away = tokio::spawn(async move {
        state.wait_for(|s| s.last_loss.is_some()).await?;
        let since = Instant::now();
        state.wait_for(|s| s.connections > 1).await?;
        anyhow::Ok(since.elapsed())
    });
    proxy.at(point, fault);
    let timeout = timeout(fault);
    let calls = (0..20).map(|n| spawn_call(&client, request(format!("{name} {n}"), timeout)));
    let answers = within(timeout + HANGS, &name, try_join_all(calls)).await??;
    // An acknowledgement is sent a moment after its reply.
    let mut triggered = proxy.triggered();
    within(LONG, &name, triggered.wait_for(|times| *times == 1)).await??;
    for answer in &answers {
        let ended =
            matches!(answer, Ok(_) | Err(CallError::TimedOut)) || *answer == Err(no_responder());
        ensure!(ended, "{name}: {answer:?}");
    }
    let is_well = answers.iter().all(Result::is_ok);
    if let WireFault::Slow(_) = fault {
        ensure!(is_well, "{name}: {answers:?}");
    }
    if fault == WireFault::Cut && !is_well {
        ensure!(!answers.contains(&Err(CallError::TimedOut)), "{name}");
        // On a busy machine it may reconnect slowly, and then counts as missing.
        let away = within(LONG, &name, away).await???;
        ensure!(away >= MOMENT, "{name}: away for {away:?}: {answers:?}");
    }
    answered(&client, &name).await?;
    until("no request is in flight", async || {
        Ok(server.stats().read().in_flight == 0)
    })
    .await?;
    echo.abort();
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_end_through_faults_of_the_server() -> Result<()> {
    for point in [Point::Deliver, Point::Publish, Point::Ack] {
        try_join_all(FAULTS.map(|fault| server_meets(point, fault))).await?;
    }
    Ok(())
}

/// The results of calls, and the longest excess over a deadline.
#[derive(Default)]
struct Ends {
    by_kind: Mutex<BTreeMap<&'static str, u64>>,
    longest_over: Mutex<Duration>,
    asked: AtomicU64,
}

impl Ends {
    fn note(&self, timeout: Duration, took: Duration, answer: &Result<Bytes, CallError>) {
        let kind = match answer {
            Ok(_) => "answered",
            Err(CallError::Rejected(_)) => "refused",
            Err(CallError::NoResponder { .. }) => "no responder",
            Err(CallError::TimedOut) => "timed out",
            Err(CallError::Overloaded { .. }) => "overloaded",
            Err(CallError::Unreachable { .. }) => "unreachable",
            Err(CallError::Malformed(_)) => "malformed",
        };
        *self.by_kind.lock().unwrap().entry(kind).or_default() += 1;
        let mut longest = self.longest_over.lock().unwrap();
        *longest = (*longest).max(took.saturating_sub(timeout));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_end_through_server_and_broker_restarts() -> Result<()> {
    const WORKERS: usize = 2000;
    const CALL: Duration = Duration::from_secs(2);
    let node = private_node("rpc-restart").await?;
    let broker = hasty(settings(&node.amqp_url())?);
    let answers = RpcServerSettings {
        max_in_flight: 3000,
        ..RpcServerSettings::default()
    };
    let lasting = server(&broker, answers).await?;
    let echo_1 = echo(&lasting);
    let address = &broker.addresses[0];
    let proxy = ChaosProxy::start(address.host(), address.port()).await;
    let by_proxy = node.amqp_url().replace(
        &format!(":{}", address.port()),
        &format!(":{}", proxy.address().port()),
    );
    let mortal = server(&hasty(settings(&by_proxy)?), answers).await?;
    let echo_2 = echo(&mortal);
    let client = client(&broker).await?;
    let (ends, stop) = (Arc::new(Ends::default()), Arc::new(AtomicBool::new(false)));
    let workers: Vec<_> = (0..WORKERS)
        .map(|worker| {
            let (client, ends, stop) = (client.clone(), ends.clone(), stop.clone());
            tokio::spawn(async move {
                // A call that fails immediately without a broker is retried after a while.
                let mut pause = tokio::time::interval(Duration::from_millis(200));
                while !stop.load(Ordering::Relaxed) {
                    let number = ends.asked.fetch_add(1, Ordering::Relaxed);
                    let began = Instant::now();
                    let answer = client
                        .call_raw(request(format!("{worker}-{number}"), CALL))
                        .await;
                    ends.note(CALL, began.elapsed(), &answer);
                    pause.tick().await;
                }
            })
        })
        .collect();
    let grown = async |by: u64| {
        let before = client.stats().read().replied;
        until("calls are answered", async || {
            Ok(client.stats().read().replied >= before + by)
        })
        .await
    };
    grown(WORKERS as u64).await?;
    // A server disappears at once, with its unfinished requests.
    proxy.reject_connections();
    echo_2.abort();
    grown(WORKERS as u64).await?;
    // The broker stops gracefully and restarts, then is killed and restarts.
    let (node, ()) = on_node(node, |node| node.stop()).await?;
    let (node, ()) = on_node(node, |node| node.start_again()).await?;
    grown(WORKERS as u64).await?;
    let (node, ()) = on_node(node, |node| node.kill()).await?;
    let (_node, ()) = on_node(node, |node| node.start_again()).await?;
    grown(WORKERS as u64).await?;
    stop.store(true, Ordering::Relaxed);
    // Each has its deadline, so this is only a safety net.
    within(LONG, "the end of every call", try_join_all(workers)).await??;
    let counts = client.stats().read();
    assert_eq!(counts.in_flight, 0);
    let by_kind = ends.by_kind.lock().unwrap().clone();
    let longest = *ends.longest_over.lock().unwrap();
    println!(
        "measured: {} calls: {by_kind:?}; {} replies came late; at most {longest:?} over the deadline",
        ends.asked.load(Ordering::Relaxed),
        counts.late
    );
    assert!(
        longest < HANGS,
        "a call ended {longest:?} after its deadline"
    );
    assert!(by_kind.contains_key("unreachable"), "{by_kind:?}");
    assert!(!by_kind.contains_key("malformed"), "{by_kind:?}");
    echo_1.abort();
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_memory_alarm_ends_calls_immediately() -> Result<()> {
    let node = private_node("rpc-blocked").await?;
    let broker = hasty(settings(&node.amqp_url())?);
    let server = server(&broker, RpcServerSettings::default()).await?;
    let echo = echo(&server);
    let client = client(&broker).await?;
    answered(&client, "before").await?;
    let (node, ()) = on_node(node, |node| node.block_publishers()).await?;
    // The broker reports the alarm when it sees the next request, which waits with it.
    let mut state = client.status();
    let first = spawn_call(&client, request("first", LONG));
    within(LONG, "being blocked", state.wait_for(|s| !s.is_connected())).await??;
    let second = client.call_raw(request("second", LONG)).await;
    ensure!(
        matches!(&second, Err(CallError::Unreachable { reason }) if reason.contains("nothing for now")),
        "{second:?}"
    );
    let (_node, ()) = on_node(node, |node| node.unblock_publishers()).await?;
    within(LONG, "going on", state.wait_for(|s| s.is_connected())).await??;
    let first = first.await?;
    ensure!(first.is_ok(), "{first:?}");
    answered(&client, "after").await?;
    echo.abort();
    Ok(())
}
