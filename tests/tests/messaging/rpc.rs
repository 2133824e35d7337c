//! RPC: replies, the error of each call without one, and the end of every call.

#![allow(clippy::unwrap_used, reason = "a failing helper fails its test")]

use std::{sync::Arc, time::Duration};

use anyhow::{Context, Result};
use bytes::Bytes;
use doorstep_broker::percent_encoded;
use doorstep_event::{
    EventType, Idempotency, Rejection, Request, RequestId, RequestKind, Source, Timestamp,
};
use doorstep_messaging::{
    BrokerSettings, CallError, ConnectionPhase, Finding, IncomingRequest, Inspector, Permission,
    Permissions, Reply, ReplyOutcome, RoleQueues, RpcClient, RpcClientSettings, RpcServer,
    RpcServerSettings, Topology, TopologyOwner, verify,
};
use doorstep_tests::Direction;
use futures_util::{StreamExt, future::join_all};
use lapin::{
    BasicProperties,
    options::{BasicConsumeOptions, BasicPublishOptions, BasicQosOptions},
    types::{AMQPValue, FieldTable},
};
use tokio::task::JoinHandle;

use crate::support::{LONG, TestEnv, begin, until, within};

/// The queues of a role with a request queue.
pub const ECHO: RoleQueues = RoleQueues {
    role: "echo",
    subjects: &["echo"],
    handles_requests: true,
};

fn topology(settings: &BrokerSettings) -> Topology {
    Topology::for_roles(&settings.namespace, &[ECHO])
}

/// Returns a query to the echo.
pub fn request(id: impl ToString, timeout: Duration) -> Request {
    let now = Timestamp::now();
    Request {
        id: RequestId::new(id.to_string()).unwrap(),
        caller: Source::new("test/1").unwrap(),
        kind: EventType::new("echo.say.v1").unwrap(),
        act: RequestKind::Query,
        time: now,
        deadline: now.checked_add(timeout).unwrap(),
        idempotency: Idempotency::Retryable,
        traceparent: None,
        data: Bytes::from(id.to_string()),
    }
}

/// Returns a command to the echo, which the broker therefore confirms.
pub fn command(id: impl ToString, timeout: Duration) -> Request {
    Request {
        act: RequestKind::Command,
        ..request(id, timeout)
    }
}

pub async fn client(settings: &BrokerSettings) -> Result<RpcClient> {
    let client = RpcClient::start(
        settings,
        "test: ask",
        topology(settings),
        RpcClientSettings::default(),
    );
    client.ready(LONG).await?;
    Ok(client)
}

pub async fn server(
    settings: &BrokerSettings,
    answers: RpcServerSettings,
) -> Result<Arc<RpcServer>> {
    let server = RpcServer::start(
        settings,
        "test: answer",
        topology(settings),
        ECHO.role,
        answers,
        None,
    );
    server.ready(LONG).await?;
    Ok(Arc::new(server))
}

/// Echoes all requests.
pub fn echo(server: &Arc<RpcServer>) -> JoinHandle<()> {
    let server = server.clone();
    tokio::spawn(async move {
        while let Some(asked) = server.next().await {
            answer(asked);
        }
    })
}

fn answer(asked: IncomingRequest) {
    let data = asked.request.data.clone();
    asked.reply.send(Reply::Result(Ok(data)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn concurrent_requests_get_their_own_replies() -> Result<()> {
    const COUNT: usize = 5000;
    let env = TestEnv::new("rpc-echo").await?;
    let answers = RpcServerSettings {
        max_in_flight: u16::MAX,
        ..RpcServerSettings::default()
    };
    let server = server(&env.settings, answers).await?;
    let echo = echo(&server);
    let client = client(&env.settings).await?;
    let calls: Vec<_> = (0..COUNT)
        .map(|n| {
            let client = client.clone();
            tokio::spawn(async move { client.call_raw(request(n, LONG)).await })
        })
        .collect();
    for (n, call) in calls.into_iter().enumerate() {
        let reply = call.await?.with_context(|| format!("request {n}"))?;
        assert_eq!(reply, n.to_string());
    }
    let asked = client.stats().read();
    assert_eq!(
        (asked.replied, asked.late, asked.in_flight),
        (COUNT as u64, 0, 0)
    );
    client.close(LONG).await;
    server.close(LONG).await;
    echo.await?;
    let answered = server.stats().read();
    assert_eq!((answered.replied, answered.in_flight), (COUNT as u64, 0));
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn missing_queues_and_servers_differ_from_slow_ones() -> Result<()> {
    let env = TestEnv::new("rpc-nobody").await?;
    let client = client(&env.settings).await?;
    let mut to_nobody = request("1", LONG);
    to_nobody.kind = EventType::new("nobody.say.v1")?;
    let role = || CallError::NoResponder {
        role: "nobody".to_owned(),
    };
    assert_eq!(client.call_raw(to_nobody.clone()).await, Err(role()));
    // The broker returns queries and commands alike. A call with less time than the query of the queue's state takes
    // gets the error, too.
    for act in [RequestKind::Query, RequestKind::Command] {
        until("it is returned", async || {
            let deadline = Timestamp::now().checked_add(Duration::from_millis(900))?;
            let brief = Request {
                act,
                deadline,
                ..to_nobody.clone()
            };
            Ok(client.call_raw(brief).await == Err(role()))
        })
        .await?;
    }
    // This role has a queue without consumers.
    let answer = client.call_raw(request("2", LONG)).await;
    let role = ECHO.role.to_owned();
    assert_eq!(answer, Err(CallError::NoResponder { role }));
    Ok(())
}

/// Starts a server that answers nothing by itself: a test takes the requests.
async fn idle(env: &TestEnv, bound: u16) -> Result<Arc<RpcServer>> {
    let answers = RpcServerSettings {
        max_in_flight: bound,
        retry_after: RETRY_AFTER,
        ..RpcServerSettings::default()
    };
    server(&env.settings, answers).await
}

/// The `retry_after` of an overloaded server.
const RETRY_AFTER: Duration = Duration::from_millis(1234);
/// A timeout that expires soon.
const SHORT: Duration = Duration::from_millis(300);
/// A timeout that expires, but only after a request has reached a server on a busy machine.
const BRIEF: Duration = Duration::from_secs(5);

async fn take(server: &RpcServer) -> Result<IncomingRequest> {
    let asked = within(LONG, "a request", server.next()).await?;
    asked.context("the responder has ended")
}

/// Calls in a task of its own.
pub fn spawn_call(client: &RpcClient, request: Request) -> JoinHandle<Result<Bytes, CallError>> {
    let client = client.clone();
    tokio::spawn(async move { client.call_raw(request).await })
}

pub fn no_responder() -> CallError {
    CallError::NoResponder {
        role: ECHO.role.to_owned(),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rejection_has_code_and_message() -> Result<()> {
    let env = TestEnv::new("rpc-refused").await?;
    let server = idle(&env, 10).await?;
    let client = client(&env.settings).await?;
    let call = spawn_call(&client, request("1", LONG));
    let refused = Rejection::new("card_declined", "the card was declined: täglich");
    let asked = take(&server).await?;
    assert!(!asked.redelivered);
    assert_eq!(
        asked.reply.send(Reply::Result(Err(refused.clone()))),
        ReplyOutcome::Sent
    );
    assert_eq!(call.await?, Err(CallError::Rejected(refused)));
    assert_eq!(server.stats().read().rejected, 1);
    assert_eq!(client.stats().read().rejected, 1);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_arrives_unchanged() -> Result<()> {
    let env = TestEnv::new("rpc-whole").await?;
    let server = idle(&env, 10).await?;
    let client = client(&env.settings).await?;
    let mut sent = request("ä-1", LONG);
    sent.act = RequestKind::Command;
    sent.traceparent = Some("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".to_owned());
    let call = spawn_call(&client, sent.clone());
    let asked = take(&server).await?;
    assert_eq!(asked.request, sent);
    answer(asked);
    assert_eq!(call.await?, Ok(sent.data));
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_broker_drops_expired_requests() -> Result<()> {
    let env = TestEnv::new("rpc-expired").await?;
    let client = client(&env.settings).await?;
    let answer = client.call_raw(request("1", SHORT)).await;
    assert_eq!(answer, Err(CallError::TimedOut));
    // Its expiry starts at its arrival there, which may be a moment later.
    let inspector = Inspector::connect(&env.settings, "expired").await?;
    let queue = env.namespace().rpc_queue(ECHO.role);
    until("it is dropped", async || {
        Ok(inspector.queue_depth(&queue).await?.ready == 0)
    })
    .await?;
    let server = idle(&env, 10).await?;
    let call = spawn_call(&client, request("2", LONG));
    assert_eq!(take(&server).await?.request.id.as_str(), "2");
    assert_eq!(server.stats().read().delivered, 1);
    call.abort();
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn expired_and_cancelled_requests_are_not_started() -> Result<()> {
    let env = TestEnv::new("rpc-late").await?;
    let server = idle(&env, 10).await?;
    let client = client(&env.settings).await?;
    // Both are delivered to the server, and the test does not take them.
    let (expires, is_cancelled) = (request("1", BRIEF), request("2", LONG));
    let expiring = spawn_call(&client, expires);
    let cancelling = spawn_call(&client, is_cancelled);
    until("both are there", async || {
        Ok(server.stats().read().in_flight == 2)
    })
    .await?;
    assert_eq!(expiring.await?, Err(CallError::TimedOut));
    cancelling.abort();
    assert!(cancelling.await.is_err_and(|e| e.is_cancelled()));
    until("the cancelling is counted", async || {
        Ok(client.stats().read().cancelled == 1)
    })
    .await?;
    // A cancellation uses another channel, so it may arrive after the next request.
    let call = spawn_call(&client, request("3", LONG));
    until("the cancellation has arrived", async || {
        Ok(server.stats().read().in_flight == 3)
    })
    .await?;
    let third = loop {
        let asked = take(&server).await?;
        if asked.request.id.as_str() == "3" {
            break asked;
        }
        assert_eq!(asked.request.id.as_str(), "2", "expired and handed out");
        within(LONG, "the word", asked.cancelled.cancelled()).await?;
        drop(asked);
    };
    answer(third);
    assert_eq!(call.await?, Ok(Bytes::from("3")));
    assert_eq!(server.stats().read().expired, 1);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dropping_a_call_cancels_it_at_the_server() -> Result<()> {
    let env = TestEnv::new("rpc-cancel").await?;
    let server = idle(&env, 1).await?;
    let client = client(&env.settings).await?;
    let call = spawn_call(&client, request("1", LONG));
    let asked = take(&server).await?;
    assert!(!asked.cancelled.is_cancelled());
    call.abort();
    within(LONG, "the word", asked.cancelled.cancelled()).await?;
    assert!(asked.cancelled.is_cancelled());
    // A late reply has no caller.
    answer(asked);
    until("the late reply is counted", async || {
        Ok(client.stats().read().late == 1)
    })
    .await?;
    assert_eq!(client.stats().read().cancelled, 1);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_late_reply_is_counted_and_dropped() -> Result<()> {
    let env = TestEnv::new("rpc-too-late").await?;
    let server = idle(&env, 10).await?;
    let client = client(&env.settings).await?;
    let call = spawn_call(&client, request("1", BRIEF));
    let asked = take(&server).await?;
    assert_eq!(call.await?, Err(CallError::TimedOut));
    answer(asked);
    until("the late reply is counted", async || {
        Ok(client.stats().read().late == 1)
    })
    .await?;
    let counts = client.stats().read();
    assert_eq!((counts.timed_out, counts.cancelled), (1, 0));
    // A request whose deadline has passed before the call is not begun either.
    let past = Request {
        deadline: Timestamp::now().checked_sub(SHORT)?,
        ..request("2", LONG)
    };
    assert_eq!(client.call_raw(past).await, Err(CallError::TimedOut));
    assert_eq!(server.stats().read().delivered, 1);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_above_a_bound_are_shed_immediately() -> Result<()> {
    let env = TestEnv::new("rpc-shed").await?;
    let server = idle(&env, 2).await?;
    let client = client(&env.settings).await?;
    let calls: Vec<_> = (0..2)
        .map(|n| spawn_call(&client, request(n, LONG)))
        .collect();
    let held = [take(&server).await?, take(&server).await?];
    // The server's bound.
    let third = client.call_raw(request("3", LONG)).await;
    let overloaded = |retry_after| Err(CallError::Overloaded { retry_after });
    assert_eq!(third, overloaded(RETRY_AFTER));
    // A reply is counted a moment after it is sent.
    until(
        "it is counted",
        async || Ok(server.stats().read().shed == 1),
    )
    .await?;
    held.into_iter().for_each(answer);
    for call in calls {
        assert!(call.await?.is_ok());
    }
    // The caller's own bound.
    let settings = RpcClientSettings {
        max_in_flight: 1,
        retry_after: SHORT,
        ..RpcClientSettings::default()
    };
    let bounded = RpcClient::start(
        &env.settings,
        "test: ask one",
        topology(&env.settings),
        settings,
    );
    bounded.ready(LONG).await?;
    let first = spawn_call(&bounded, request("4", LONG));
    let asked = take(&server).await?;
    assert_eq!(
        bounded.call_raw(request("5", LONG)).await,
        overloaded(SHORT)
    );
    answer(asked);
    assert!(first.await?.is_ok());
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bytes_above_a_bound_are_shed_immediately() -> Result<()> {
    let env = TestEnv::new("rpc-bytes").await?;
    let answers = RpcServerSettings {
        max_bytes: 10,
        retry_after: RETRY_AFTER,
        ..RpcServerSettings::default()
    };
    let overloaded = |retry_after| Err(CallError::Overloaded { retry_after });
    let server = server(&env.settings, answers).await?;
    let generous = client(&env.settings).await?;
    // Each request has its id as body. One larger than the bound is still handed out if it is alone.
    for (first, second) in [("a123", "b123456"), ("c12345678901", "d")] {
        let call = spawn_call(&generous, request(first, LONG));
        let asked = take(&server).await?;
        let shed = generous.call_raw(request(second, LONG)).await;
        assert_eq!(shed, overloaded(RETRY_AFTER));
        answer(asked);
        assert!(call.await?.is_ok());
        // A reply arrives a moment before its request is released.
        let meter = server.stats();
        until("it is let go of", async || Ok(meter.read().in_flight == 0)).await?;
    }
    // The caller's own bound: unconfirmed requests.
    let echo = echo(&server);
    let proxy = env.proxy().await;
    let settings = RpcClientSettings {
        max_bytes: 10,
        retry_after: SHORT,
        ..RpcClientSettings::default()
    };
    let broker = env.settings_by(&proxy)?;
    let bounded = RpcClient::start(&broker, "test: ask", topology(&broker), settings);
    bounded.ready(LONG).await?;
    proxy.stall(Direction::ToBroker);
    let mut call = std::pin::pin!(bounded.call_raw(command("e123", LONG)));
    begin(call.as_mut()).await;
    let shed = bounded.call_raw(command("f123456", LONG)).await;
    assert_eq!(shed, overloaded(SHORT));
    proxy.restore();
    assert!(call.await.is_ok());
    until("there is capacity again", async || {
        Ok(bounded.call_raw(command("f123456", LONG)).await.is_ok())
    })
    .await?;
    echo.abort();
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_queue_rejects_commands_immediately() -> Result<()> {
    let env = TestEnv::new("rpc-full").await?;
    let small = r#"{"durable":true,"arguments":{"x-queue-type":"classic","x-max-length":1,"x-overflow":"reject-publish"}}"#;
    let queue = env.namespace().rpc_queue(ECHO.role);
    env.put_queue(queue.as_str(), small).await?;
    let client = RpcClient::start(
        &env.settings,
        "test: ask",
        Topology::none(),
        RpcClientSettings::default(),
    );
    client.ready(LONG).await?;
    // There is no consumer. The broker rejects requests beyond the bound, or slightly later.
    let calls = (0..50).map(|n| {
        let client = client.clone();
        async move { client.call_raw(command(n, LONG)).await }
    });
    let answers = within(LONG, "an answer for each", join_all(calls)).await?;
    let overloaded = answers
        .iter()
        .filter(|answer| matches!(answer, Err(CallError::Overloaded { .. })));
    assert!(overloaded.count() > 10, "{answers:?}");
    assert!(answers.contains(&Err(no_responder())), "{answers:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn queries_to_a_full_queue_end_early() -> Result<()> {
    const FULL: u64 = 10_000;
    let env = TestEnv::new("rpc-full-queries").await?;
    let client = client(&env.settings).await?;
    let queue = env.namespace().rpc_queue(ECHO.role);
    // A server that takes one request and nothing more.
    let (_connection, channel) = bare(&env).await?;
    channel.basic_qos(1, BasicQosOptions::default()).await?;
    let _stuck = channel
        .basic_consume(
            queue.as_str().into(),
            "stuck".into(),
            BasicConsumeOptions::default(),
            FieldTable::default(),
        )
        .await?;
    for _ in 0..FULL + 100 {
        channel
            .basic_publish(
                "".into(),
                queue.as_str().into(),
                BasicPublishOptions::default(),
                b"",
                BasicProperties::default(),
            )
            .await?;
    }
    let inspector = Inspector::connect(&env.settings, "test: look").await?;
    until("it is full", async || {
        Ok(inspector.queue_depth(&queue).await?.ready == FULL)
    })
    .await?;
    let answer = within(LONG, "the query", client.call_raw(request("1", LONG * 10))).await?;
    assert!(
        matches!(answer, Err(CallError::Overloaded { .. })),
        "{answer:?}"
    );
    // The outcome of a command is known immediately.
    let answer = within(
        LONG,
        "the command",
        client.call_raw(command("2", LONG * 10)),
    )
    .await?;
    assert!(
        matches!(answer, Err(CallError::Overloaded { .. })),
        "{answer:?}"
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_broker_calls_fail_immediately() -> Result<()> {
    let env = TestEnv::new("rpc-away").await?;
    let server = idle(&env, 10).await?;
    let proxy = env.proxy().await;
    let client = client(&env.settings_by(&proxy)?).await?;
    let under_way = spawn_call(&client, request("1", LONG));
    let asked = take(&server).await?;
    proxy.reject_connections();
    let answer_1 = within(LONG, "the call", under_way).await??;
    assert!(
        matches!(&answer_1, Err(CallError::Unreachable { reason }) if reason.contains("broke")),
        "{answer_1:?}"
    );
    let answer_2 = client.call_raw(request("2", LONG)).await;
    assert!(
        matches!(answer_2, Err(CallError::Unreachable { .. })),
        "{answer_2:?}"
    );
    // With enough time it is retried, and answered once the broker is back.
    answer(asked);
    let echo = echo(&server);
    let again = tokio::spawn({
        let client = client.clone();
        async move { client.call_raw_with_retry(request("3", LONG)).await }
    });
    proxy.restore();
    assert_eq!(
        within(LONG, "asking again", again).await??,
        Ok(Bytes::from("3"))
    );
    echo.abort();
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_server_serves_a_crashed_ones_requests() -> Result<()> {
    const COUNT: usize = 100;
    let env = TestEnv::new("rpc-dies").await?;
    let proxy = env.proxy().await;
    let answers = RpcServerSettings::default();
    let mortal = server(&env.settings_by(&proxy)?, answers).await?;
    let client = client(&env.settings).await?;
    let calls: Vec<_> = (0..COUNT)
        .map(|n| spawn_call(&client, request(n, LONG)))
        .collect();
    let mut begun = Vec::new();
    for _ in 0..COUNT {
        begun.push(take(&mortal).await?);
    }
    // Started before the first one is gone, which has all requests: without any server for a moment, calls would fail.
    let other = server(&env.settings, answers).await?;
    proxy.reject_connections();
    for asked in begun {
        within(LONG, "the word", asked.cancelled.cancelled()).await?;
        let replied = asked.reply.send(Reply::Result(Ok(Bytes::new())));
        assert_eq!(replied, ReplyOutcome::ConnectionLost);
    }
    for _ in 0..COUNT {
        let asked = take(&other).await?;
        assert!(asked.redelivered);
        answer(asked);
    }
    for (n, call) in calls.into_iter().enumerate() {
        assert_eq!(call.await?, Ok(Bytes::from(n.to_string())));
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dropped_request_is_redelivered_once() -> Result<()> {
    let env = TestEnv::new("rpc-dropped").await?;
    let server = idle(&env, 10).await?;
    let client = client(&env.settings).await?;
    let call = spawn_call(&client, request("1", LONG));
    drop(take(&server).await?);
    let again = take(&server).await?;
    assert!(again.redelivered);
    drop(again);
    let refused = call.await?;
    assert!(
        matches!(&refused, Err(CallError::Rejected(refused)) if refused.code == Rejection::FAILED),
        "{refused:?}"
    );
    // A reply arrives a moment before its request is released.
    let meter = server.stats();
    until("it is put back, refused and let go of", async || {
        let counts = meter.read();
        Ok((counts.requeued, counts.rejected, counts.in_flight) == (1, 1, 0))
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redelivered_commands_are_never_reported_as_unstarted() -> Result<()> {
    let env = TestEnv::new("rpc-begun").await?;
    let server = idle(&env, 10).await?;
    let client = client(&env.settings).await?;
    let shed = async |id: &str, act| {
        let request = Request {
            act,
            ..request(id, LONG)
        };
        let call = spawn_call(&client, request);
        drop(take(&server).await?);
        let again = take(&server).await?;
        assert!(again.redelivered);
        let retry_after = RETRY_AFTER;
        again.reply.send(Reply::Overloaded { retry_after });
        anyhow::Ok(call.await?)
    };
    let retry_after = RETRY_AFTER;
    let not_begun = Err(CallError::Overloaded { retry_after });
    assert_eq!(shed("1", RequestKind::Query).await?, not_begun);
    let in_doubt = shed("2", RequestKind::Command).await?;
    assert!(
        matches!(in_doubt, Err(CallError::Unreachable { .. })),
        "{in_doubt:?}"
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn closing_replies_only_to_requests_handed_out() -> Result<()> {
    let env = TestEnv::new("rpc-close").await?;
    let responder_1 = idle(&env, 10).await?;
    let client = client(&env.settings).await?;
    let handed_out = spawn_call(&client, request("1", LONG));
    let asked = take(&responder_1).await?;
    let waits = spawn_call(&client, request("2", LONG));
    until("the second server is consuming", async || {
        Ok(responder_1.stats().read().in_flight == 2)
    })
    .await?;
    // Started before the first one stops consuming, which has both requests: without any server for a moment, calls
    // would fail.
    let responder_2 = idle(&env, 10).await?;
    let closing = tokio::spawn({
        let server = responder_1.clone();
        async move { server.close(LONG).await }
    });
    let mut state = responder_1.status();
    within(
        LONG,
        "closing",
        state.wait_for(|s| s.phase == ConnectionPhase::Draining),
    )
    .await??;
    assert!(within(LONG, "the end", responder_1.next()).await?.is_none());
    let other = take(&responder_2).await?;
    assert_eq!(other.request.id.as_str(), "2");
    answer(other);
    assert!(waits.await?.is_ok());
    assert_eq!(
        asked.reply.send(Reply::Result(Ok(Bytes::new()))),
        ReplyOutcome::Sent
    );
    assert!(handed_out.await?.is_ok());
    within(LONG, "closing", closing).await??;
    // A closing client waits for the replies in flight, and takes no new calls.
    let last = spawn_call(&client, request("3", LONG));
    let asked = take(&responder_2).await?;
    let mut state = client.status();
    let closing = tokio::spawn(client.clone().close(LONG));
    within(
        LONG,
        "closing",
        state.wait_for(|s| s.phase == ConnectionPhase::Draining),
    )
    .await??;
    let refused = client.call_raw(request("4", LONG)).await;
    assert!(matches!(refused, Err(CallError::Unreachable { .. })));
    answer(asked);
    assert!(last.await?.is_ok());
    within(LONG, "closing", closing).await??;
    Ok(())
}

/// Opens a plain lapin connection.
async fn bare(env: &TestEnv) -> Result<(lapin::Connection, lapin::Channel)> {
    let properties = lapin::ConnectionProperties::default();
    let connection = lapin::Connection::connect(&env.amqp_url(), properties).await?;
    let channel = connection.create_channel().await?;
    Ok((connection, channel))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_strangers_reply_is_malformed() -> Result<()> {
    let env = TestEnv::new("rpc-stranger").await?;
    let client = client(&env.settings).await?;
    let (_connection, channel) = bare(&env).await?;
    let queue = env.namespace().rpc_queue(ECHO.role);
    let mut consumer = channel
        .basic_consume(
            queue.as_str().into(),
            "stranger".into(),
            BasicConsumeOptions::default(),
            FieldTable::default(),
        )
        .await?;
    let call = spawn_call(&client, request("1", LONG));
    let received = within(LONG, "the request", consumer.next()).await?;
    let properties = received.context("the consumer has ended")??.properties;
    let reply_to = properties.reply_to().clone().context("no reply-to")?;
    let mark = properties.correlation_id().clone().context("no mark")?;
    for mark in ["nobody".into(), mark] {
        channel
            .basic_publish(
                "".into(),
                reply_to.clone(),
                BasicPublishOptions::default(),
                b"{}",
                BasicProperties::default()
                    .with_correlation_id(mark)
                    .with_type("greeting".into()),
            )
            .await?;
    }
    let answer = call.await?;
    assert!(
        matches!(&answer, Err(CallError::Malformed(words)) if words.contains("greeting")),
        "{answer:?}"
    );
    assert_eq!(client.stats().read().late, 1);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn malformed_requests_with_a_reply_queue_are_rejected() -> Result<()> {
    let env = TestEnv::new("rpc-malformed").await?;
    let server = idle(&env, 10).await?;
    let (_connection, channel) = bare(&env).await?;
    let options = BasicConsumeOptions {
        no_ack: true,
        ..BasicConsumeOptions::default()
    };
    let reply_to = "amq.rabbitmq.reply-to";
    let mut replies = channel
        .basic_consume(reply_to.into(), "".into(), options, FieldTable::default())
        .await?;
    let queue = env.namespace().rpc_queue(ECHO.role);
    let properties = BasicProperties::default().with_message_id("1".into());
    for properties in [
        properties.clone(),
        properties.with_reply_to(reply_to.into()),
    ] {
        channel
            .basic_publish(
                "".into(),
                queue.as_str().into(),
                BasicPublishOptions::default(),
                b"{",
                properties,
            )
            .await?;
    }
    let reply = within(LONG, "the reply", replies.next()).await?;
    let reply = reply.context("the consumer has ended")??;
    let refused: Rejection = serde_json::from_slice(&reply.data)?;
    assert_eq!(refused.code, Rejection::BAD_REQUEST);
    assert!(refused.detail.contains("type"), "{}", refused.detail);
    // A reply arrives a moment before its request is released.
    let meter = server.stats();
    until("both are counted and neither is in flight", async || {
        let counts = meter.read();
        Ok((counts.malformed, counts.in_flight) == (2, 0))
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clock_skew_is_reported_to_the_caller() -> Result<()> {
    let env = TestEnv::new("rpc-clocks").await?;
    let server = idle(&env, 10).await?;
    let (_connection, channel) = bare(&env).await?;
    let options = BasicConsumeOptions {
        no_ack: true,
        ..BasicConsumeOptions::default()
    };
    let reply_to = "amq.rabbitmq.reply-to";
    let mut replies = channel
        .basic_consume(reply_to.into(), "".into(), options, FieldTable::default())
        .await?;
    // The broker would have dropped it, but the caller's clock is a minute behind.
    let deadline = Timestamp::now().checked_sub(Duration::from_mins(1))?;
    let mut headers = FieldTable::default();
    let terms = format!("command asked {deadline} until {deadline}");
    headers.insert(
        "doorstep-request".into(),
        AMQPValue::LongString(terms.into()),
    );
    let properties = BasicProperties::default()
        .with_message_id("1".into())
        .with_app_id("test/1".into())
        .with_type("echo.say.v1".into())
        .with_reply_to(reply_to.into())
        .with_headers(headers);
    let queue = env.namespace().rpc_queue(ECHO.role);
    channel
        .basic_publish(
            "".into(),
            queue.as_str().into(),
            BasicPublishOptions::default(),
            b"{}",
            properties,
        )
        .await?;
    let reply = within(LONG, "the reply", replies.next()).await?;
    let reply = reply.context("the consumer has ended")??;
    let refused: Rejection = serde_json::from_slice(&reply.data)?;
    assert_eq!(refused.code, Rejection::CLOCK_SKEW, "{refused:?}");
    let counts = server.stats().read();
    assert_eq!((counts.expired, counts.skewed), (1, 1));
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn minimal_permissions_suffice_to_call_and_serve() -> Result<()> {
    let env = TestEnv::new("rpc-rights").await?;
    // Another client declares before them.
    let owner = client(&env.settings).await?;
    let topology = topology(&env.settings);
    let user = async |rights: Permissions| {
        let fixed = |pattern: String| -> &'static str { pattern.leak() };
        let rights = doorstep_broker::UserPermissions {
            configure: fixed(rights.configure),
            write: fixed(rights.write),
            read: fixed(rights.read),
        };
        let user = env.user("rpc", rights).await?;
        let settings = crate::support::settings(user.amqp_url())?;
        anyhow::Ok((user, settings))
    };
    let (namespace, others) = (env.namespace(), TopologyOwner::Others);
    let (_answers, settings) = user(Permissions::for_consumer(
        namespace,
        &topology,
        Some(ECHO.role),
        others,
        &[],
    ))
    .await?;
    let server = server(&settings, RpcServerSettings::default()).await?;
    let (_asks, settings) = user(Permissions::for_rpc_client(
        namespace,
        &topology,
        others,
        &[],
    ))
    .await?;
    let client = client(&settings).await?;
    let call = spawn_call(&client, request("1", LONG));
    answer(take(&server).await?);
    assert_eq!(call.await?, Ok(Bytes::from("1")));
    let call = spawn_call(&client, request("2", LONG));
    let asked = take(&server).await?;
    call.abort();
    within(LONG, "the word", asked.cancelled.cancelled()).await?;
    // A client that may only call also learns that no server is there.
    asked.reply.send(Reply::Result(Ok(Bytes::new())));
    server.close(LONG).await;
    let answer = client.call_raw(request("3", LONG)).await;
    assert_eq!(answer, Err(no_responder()));
    owner.close(LONG).await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn servers_without_cancel_permission_still_reply() -> Result<()> {
    let env = TestEnv::new("rpc-deaf").await?;
    let client = client(&env.settings).await?;
    let rights = doorstep_broker::UserPermissions {
        configure: "^$",
        write: r"^amq\.default$",
        read: r"^test\.(rpc\.echo|echo\.(0|quarantine))$",
    };
    let user = env.user("rpc", rights).await?;
    let settings = crate::support::settings(user.amqp_url())?;
    let server = server(&settings, RpcServerSettings::default()).await?;
    let call = spawn_call(&client, request("1", LONG));
    answer(take(&server).await?);
    assert_eq!(call.await?, Ok(Bytes::from("1")));
    // Verification reports it.
    let verified = verify(&settings, &topology(&settings)).await?;
    let told = |right, name: &str| {
        let is_reported = |f: &Finding| matches!(f, Finding::Forbidden { right: r, name: n, .. } if *r == right && n == name);
        verified.findings.iter().any(is_reported)
    };
    for right in [Permission::Configure, Permission::Write, Permission::Read] {
        assert!(
            told(right, "test.rpc.echo.cancel.verify"),
            "{right:?}: {verified:#?}"
        );
    }
    assert!(!told(Permission::Read, "test.rpc.echo"), "{verified:#?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cancel_permission_leaves_no_report_and_no_objects() -> Result<()> {
    let env = TestEnv::new("rpc-hears").await?;
    let _owner = client(&env.settings).await?;
    let topology = topology(&env.settings);
    let rights = Permissions::for_verifier(env.namespace(), &topology);
    let fixed = |pattern: String| -> &'static str { pattern.leak() };
    let read = fixed(rights.read);
    let mut user_rights = doorstep_broker::UserPermissions {
        configure: fixed(rights.configure),
        write: fixed(rights.write),
        read,
    };
    let user = env.user("hears", user_rights).await?;
    let settings = crate::support::settings(user.amqp_url())?;
    assert_eq!(verify(&settings, &topology).await?.findings, []);
    let queues = env
        .manage(|broker, vhost| {
            let path = format!("/api/queues/{}?columns=name", percent_encoded(vhost));
            broker.management()?.get(&path)
        })
        .await?;
    assert!(!queues.contains(".cancel."), "{queues}");

    // All permissions except for the exchange of cancellations.
    user_rights.read =
        r"^test\.(rpc\.echo|echo\.(owner|(0|quarantine)(\.marker)?)|rpc\.echo\.cancel\.[^.]+)$";
    let deaf = env.user("deaf", user_rights).await?;
    let settings = crate::support::settings(deaf.amqp_url())?;
    let findings = verify(&settings, &topology).await?.findings;
    assert_eq!(findings.len(), 1, "{findings:#?}");
    let text = findings[0].to_string();
    assert!(
        text.contains("may not read from exchange test.rpc.echo.cancel"),
        "{text}"
    );
    Ok(())
}
