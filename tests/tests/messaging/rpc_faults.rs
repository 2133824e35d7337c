//! Requests and replies while wires, servers and brokers fail: every call ends by its deadline, in a reply or in an error that says why.

#![allow(
    clippy::unwrap_used,
    reason = "what cannot be made here fails the test that asks for it"
)]

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
    rpc::{ask, command, echo, no_responder, request, requester, responder},
    support::{LONG, World, on_node, private_node, settings, until, within},
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
/// A call that has not ended so long after its deadline hangs. How much longer than that a call takes is measured, since what is promised
/// is promised on a machine that has time for it.
const HANGS: Duration = LONG;
/// A server that is away for less than this is never taken for one that is not there: for that, nobody was found twice, half a second apart.
const MOMENT: Duration = Duration::from_millis(250);

/// How long each call of these tests is waited for; where all of them are to be answered, or to hear of it at once, it is no matter of time.
fn patience(fault: WireFault) -> Duration {
    match fault {
        WireFault::Slow(_) | WireFault::Cut => LONG,
        _ => Duration::from_secs(4),
    }
}

/// Bounds that let each fault be over within seconds.
fn hasty(mut settings: BrokerSettings) -> BrokerSettings {
    settings.heartbeat = Duration::from_secs(2);
    settings.connect_timeout = Duration::from_secs(3);
    settings.settle_timeout = Duration::from_secs(2);
    settings.confirm_timeout = Duration::from_secs(4);
    let backoff = Backoff::new(Duration::from_millis(20), Duration::from_millis(200));
    settings.backoff = backoff.expect("these bounds make sense");
    settings
}

/// Calls one after the other until one is answered.
async fn answered(requester: &RpcClient, name: &str) -> Result<()> {
    let mut number = 0;
    until(name, async || {
        number += 1;
        let id = format!("{name} again {number}");
        let answer = requester.call_raw(request(&id, LONG)).await;
        Ok(answer == Ok(Bytes::from(id)))
    })
    .await
}

/// Twenty calls, queries and commands, by a wire that fails at that word.
async fn caller_meets(world: &World, point: Point, fault: WireFault) -> Result<()> {
    let name = format!("{point:?} {fault:?}");
    let proxy = world.proxy().await;
    let requester = requester(&hasty(world.settings_by(&proxy)?)).await?;
    answered(&requester, &name).await?;
    proxy.at(point, fault);
    let patience = patience(fault);
    let calls = (0..20).map(|n| {
        let id = format!("{name} {n}");
        let request = if n % 2 == 0 {
            command(id, patience)
        } else {
            request(id, patience)
        };
        ask(&requester, request)
    });
    let answers = within(patience + HANGS, &name, try_join_all(calls)).await??;
    // A confirm may come behind the replies.
    let mut sprung = proxy.triggered();
    within(LONG, &name, sprung.wait_for(|times| *times == 1)).await??;
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
            "a cut is not heard of at once: {answers:?}"
        );
    }
    // Whatever it was, it heals by itself.
    answered(&requester, &name).await?;
    let counts = requester.meter().read();
    ensure!(counts.in_flight == 0, "{name}: {counts:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_end_in_time_whatever_becomes_of_the_callers_wire() -> Result<()> {
    let world = World::new("rpc-faults").await?;
    let server = responder(&world.settings, RpcServerSettings::default()).await?;
    let echo = echo(&server);
    let mut rows = Vec::new();
    for point in [Point::Publish, Point::Confirm, Point::Deliver] {
        for fault in FAULTS {
            rows.push(caller_meets(&world, point, fault));
        }
    }
    try_join_all(rows).await?;
    echo.abort();
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn callers_who_wait_briefly_get_a_new_connection_for_one_that_is_not_understood_any_more()
-> Result<()> {
    let world = World::new("rpc-brief").await?;
    let server = responder(&world.settings, RpcServerSettings::default()).await?;
    let echo = echo(&server);
    for (point, act) in [
        (Point::Confirm, RequestKind::Command),
        (Point::Deliver, RequestKind::Command),
        (Point::Deliver, RequestKind::Query),
    ] {
        let proxy = world.proxy().await;
        let requester = requester(&hasty(world.settings_by(&proxy)?)).await?;
        answered(&requester, "before").await?;
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
            requester.call_raw(request).await
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

/// Twenty calls to a server whose wire fails at that word.
async fn server_meets(point: Point, fault: WireFault) -> Result<()> {
    let name = format!("{point:?} {fault:?}");
    let world = World::new("rpc-server-fault").await?;
    let proxy = world.proxy().await;
    let server = responder(
        &hasty(world.settings_by(&proxy)?),
        RpcServerSettings::default(),
    )
    .await?;
    let echo = echo(&server);
    let requester = requester(&world.settings).await?;
    answered(&requester, &name).await?;
    let mut state = server.state();
    let away = tokio::spawn(async move {
        state.wait_for(|s| s.last_loss.is_some()).await?;
        let since = Instant::now();
        state.wait_for(|s| s.connections > 1).await?;
        anyhow::Ok(since.elapsed())
    });
    proxy.at(point, fault);
    let patience = patience(fault);
    let calls = (0..20).map(|n| ask(&requester, request(format!("{name} {n}"), patience)));
    let answers = within(patience + HANGS, &name, try_join_all(calls)).await??;
    // An acknowledgement comes a moment after its reply.
    let mut sprung = proxy.triggered();
    within(LONG, &name, sprung.wait_for(|times| *times == 1)).await??;
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
        // On a busy machine it may take its time to come back, and is then taken for one that is not there.
        let away = within(LONG, &name, away).await???;
        ensure!(away >= MOMENT, "{name}: away for {away:?}: {answers:?}");
    }
    answered(&requester, &name).await?;
    until("nothing is held", async || {
        Ok(server.meter().read().held == 0)
    })
    .await?;
    echo.abort();
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_end_in_time_whatever_becomes_of_the_servers_wire() -> Result<()> {
    for point in [Point::Deliver, Point::Publish, Point::Ack] {
        try_join_all(FAULTS.map(|fault| server_meets(point, fault))).await?;
    }
    Ok(())
}

/// What became of calls, and the longest that one took beyond its deadline.
#[derive(Default)]
struct Ends {
    by_kind: Mutex<BTreeMap<&'static str, u64>>,
    longest_over: Mutex<Duration>,
    asked: AtomicU64,
}

impl Ends {
    fn note(&self, patience: Duration, took: Duration, answer: &Result<Bytes, CallError>) {
        let kind = match answer {
            Ok(_) => "answered",
            Err(CallError::Refused(_)) => "refused",
            Err(CallError::NoResponder { .. }) => "no responder",
            Err(CallError::TimedOut) => "timed out",
            Err(CallError::Overloaded { .. }) => "overloaded",
            Err(CallError::Unreachable { .. }) => "unreachable",
            Err(CallError::Malformed(_)) => "malformed",
        };
        *self.by_kind.lock().unwrap().entry(kind).or_default() += 1;
        let mut longest = self.longest_over.lock().unwrap();
        *longest = (*longest).max(took.saturating_sub(patience));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_call_ends_by_its_deadline_while_servers_are_killed_and_the_broker_is_restarted()
-> Result<()> {
    const WORKERS: usize = 2000;
    const CALL: Duration = Duration::from_secs(2);
    let node = private_node("rpc-restart").await?;
    let broker = hasty(settings(&node.amqp_url())?);
    let answers = RpcServerSettings {
        max_in_flight: 3000,
        ..RpcServerSettings::default()
    };
    let lasting = responder(&broker, answers).await?;
    let echo_1 = echo(&lasting);
    let address = &broker.addresses[0];
    let proxy = ChaosProxy::start(address.host(), address.port()).await;
    let by_proxy = node.amqp_url().replace(
        &format!(":{}", address.port()),
        &format!(":{}", proxy.address().port()),
    );
    let mortal = responder(&hasty(settings(&by_proxy)?), answers).await?;
    let echo_2 = echo(&mortal);
    let requester = requester(&broker).await?;
    let (ends, stop) = (Arc::new(Ends::default()), Arc::new(AtomicBool::new(false)));
    let workers: Vec<_> = (0..WORKERS)
        .map(|worker| {
            let (requester, ends, stop) = (requester.clone(), ends.clone(), stop.clone());
            tokio::spawn(async move {
                // Who hears at once that there is no broker asks again after a while.
                let mut pause = tokio::time::interval(Duration::from_millis(200));
                while !stop.load(Ordering::Relaxed) {
                    let number = ends.asked.fetch_add(1, Ordering::Relaxed);
                    let began = Instant::now();
                    let answer = requester
                        .call_raw(request(format!("{worker}-{number}"), CALL))
                        .await;
                    ends.note(CALL, began.elapsed(), &answer);
                    pause.tick().await;
                }
            })
        })
        .collect();
    let grown = async |by: u64| {
        let before = requester.meter().read().answered;
        until("calls are answered", async || {
            Ok(requester.meter().read().answered >= before + by)
        })
        .await
    };
    grown(WORKERS as u64).await?;
    // A server is gone from one moment to the next, with what it had begun.
    proxy.refuse();
    echo_2.abort();
    grown(WORKERS as u64).await?;
    // The broker ends in order and starts again, then is killed and starts again.
    let (node, ()) = on_node(node, |node| node.stop()).await?;
    let (node, ()) = on_node(node, |node| node.start_again()).await?;
    grown(WORKERS as u64).await?;
    let (node, ()) = on_node(node, |node| node.kill()).await?;
    let (_node, ()) = on_node(node, |node| node.start_again()).await?;
    grown(WORKERS as u64).await?;
    stop.store(true, Ordering::Relaxed);
    // Each has its deadline, so this is no more than a net.
    within(LONG, "the end of every call", try_join_all(workers)).await??;
    let counts = requester.meter().read();
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
async fn while_the_broker_is_short_of_memory_a_call_ends_at_once() -> Result<()> {
    let node = private_node("rpc-blocked").await?;
    let broker = hasty(settings(&node.amqp_url())?);
    let server = responder(&broker, RpcServerSettings::default()).await?;
    let echo = echo(&server);
    let requester = requester(&broker).await?;
    answered(&requester, "before").await?;
    let (node, ()) = on_node(node, |node| node.block_publishers()).await?;
    // The broker says so when it sees the next request, which waits with it.
    let mut state = requester.state();
    let first = ask(&requester, request("first", LONG));
    within(LONG, "being blocked", state.wait_for(|s| !s.is_connected())).await??;
    let second = requester.call_raw(request("second", LONG)).await;
    ensure!(
        matches!(&second, Err(CallError::Unreachable { reason }) if reason.contains("nothing for now")),
        "{second:?}"
    );
    let (_node, ()) = on_node(node, |node| node.unblock_publishers()).await?;
    within(LONG, "going on", state.wait_for(|s| s.is_connected())).await??;
    let first = first.await?;
    ensure!(first.is_ok(), "{first:?}");
    answered(&requester, "after").await?;
    echo.abort();
    Ok(())
}
