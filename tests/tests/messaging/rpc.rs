//! Requests and replies: what comes back, what is told when nothing can, and that every call ends.

#![allow(
    clippy::unwrap_used,
    reason = "what cannot be made here fails the test that asks for it"
)]

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

use crate::support::{LONG, World, begin, until, within};

/// A role that answers.
pub const ECHO: RoleQueues = RoleQueues {
    role: "echo",
    subjects: &["echo"],
    handles_requests: true,
};

fn topology(settings: &BrokerSettings) -> Topology {
    Topology::of(&settings.namespace, &[ECHO])
}

/// A request to the echo.
pub fn request(id: impl ToString, patience: Duration) -> Request {
    let now = Timestamp::now();
    Request {
        id: RequestId::new(id.to_string()).unwrap(),
        caller: Source::new("test/1").unwrap(),
        kind: EventType::new("echo.say.v1").unwrap(),
        act: RequestKind::Query,
        time: now,
        deadline: now.checked_add(patience).unwrap(),
        idempotency: Idempotency::Retryable,
        traceparent: None,
        data: Bytes::from(id.to_string()),
    }
}

/// A request to the echo that says it changes something, and that the broker therefore confirms.
pub fn command(id: impl ToString, patience: Duration) -> Request {
    Request {
        act: RequestKind::Command,
        ..request(id, patience)
    }
}

pub async fn requester(settings: &BrokerSettings) -> Result<RpcClient> {
    let requester = RpcClient::start(
        settings,
        "test: ask",
        topology(settings),
        RpcClientSettings::default(),
    );
    requester.ready(LONG).await?;
    Ok(requester)
}

pub async fn responder(
    settings: &BrokerSettings,
    answers: RpcServerSettings,
) -> Result<Arc<RpcServer>> {
    let responder = RpcServer::start(
        settings,
        "test: answer",
        topology(settings),
        ECHO.role,
        answers,
    );
    responder.ready(LONG).await?;
    Ok(Arc::new(responder))
}

/// Answers all requests with what they bring.
pub fn echo(responder: &Arc<RpcServer>) -> JoinHandle<()> {
    let responder = responder.clone();
    tokio::spawn(async move {
        while let Some(asked) = responder.next().await {
            answer(asked);
        }
    })
}

fn answer(asked: IncomingRequest) {
    let data = asked.request.data.clone();
    asked.reply.send(Reply::Answer(Ok(data)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn thousands_of_requests_at_once_each_get_their_own_reply() -> Result<()> {
    const COUNT: usize = 5000;
    let world = World::new("rpc-echo").await?;
    let answers = RpcServerSettings {
        max_in_flight: u16::MAX,
        ..RpcServerSettings::default()
    };
    let responder = responder(&world.settings, answers).await?;
    let echo = echo(&responder);
    let requester = requester(&world.settings).await?;
    let calls: Vec<_> = (0..COUNT)
        .map(|n| {
            let requester = requester.clone();
            tokio::spawn(async move { requester.call_raw(request(n, LONG)).await })
        })
        .collect();
    for (n, call) in calls.into_iter().enumerate() {
        let reply = call.await?.with_context(|| format!("request {n}"))?;
        assert_eq!(reply, n.to_string());
    }
    let asked = requester.meter().read();
    assert_eq!(
        (asked.answered, asked.late, asked.in_flight),
        (COUNT as u64, 0, 0)
    );
    requester.close(LONG).await;
    responder.close(LONG).await;
    echo.await?;
    let answered = responder.meter().read();
    assert_eq!((answered.answered, answered.held), (COUNT as u64, 0));
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_role_without_a_queue_and_one_without_a_server_are_told_apart_from_a_slow_one()
-> Result<()> {
    let world = World::new("rpc-nobody").await?;
    let requester = requester(&world.settings).await?;
    let mut to_nobody = request("1", LONG);
    to_nobody.kind = EventType::new("nobody.say.v1")?;
    let role = || CallError::NoResponder {
        role: "nobody".to_owned(),
    };
    assert_eq!(requester.call_raw(to_nobody.clone()).await, Err(role()));
    // The broker returns queries and commands alike: whoever waits for less time than it takes to ask about the queue hears of it, too.
    for act in [RequestKind::Query, RequestKind::Command] {
        until("it is returned", async || {
            let deadline = Timestamp::now().checked_add(Duration::from_millis(900))?;
            let brief = Request {
                act,
                deadline,
                ..to_nobody.clone()
            };
            Ok(requester.call_raw(brief).await == Err(role()))
        })
        .await?;
    }
    // This one has a queue from which nobody consumes.
    let answer = requester.call_raw(request("2", LONG)).await;
    let role = ECHO.role.to_owned();
    assert_eq!(answer, Err(CallError::NoResponder { role }));
    Ok(())
}

/// A server that answers nothing by itself: a test takes what it wants.
async fn idle(world: &World, bound: u16) -> Result<Arc<RpcServer>> {
    let answers = RpcServerSettings {
        max_in_flight: bound,
        retry_after: RETRY_AFTER,
        ..RpcServerSettings::default()
    };
    responder(&world.settings, answers).await
}

/// What servers of these tests say when it is too much.
const RETRY_AFTER: Duration = Duration::from_millis(1234);
/// A patience that is over soon.
const SHORT: Duration = Duration::from_millis(300);
/// A patience that ends, and not before a request has come to a server on a busy machine.
const BRIEF: Duration = Duration::from_secs(5);

async fn take(responder: &RpcServer) -> Result<IncomingRequest> {
    let asked = within(LONG, "a request", responder.next()).await?;
    asked.context("the responder has ended")
}

/// Asks in a task of its own.
pub fn ask(requester: &RpcClient, request: Request) -> JoinHandle<Result<Bytes, CallError>> {
    let requester = requester.clone();
    tokio::spawn(async move { requester.call_raw(request).await })
}

pub fn no_responder() -> CallError {
    CallError::NoResponder {
        role: ECHO.role.to_owned(),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refusal_comes_back_with_its_code_and_its_words() -> Result<()> {
    let world = World::new("rpc-refused").await?;
    let responder = idle(&world, 10).await?;
    let requester = requester(&world.settings).await?;
    let call = ask(&requester, request("1", LONG));
    let refused = Rejection::new("card_declined", "the card was declined: täglich");
    let asked = take(&responder).await?;
    assert!(!asked.redelivered);
    assert_eq!(
        asked.reply.send(Reply::Answer(Err(refused.clone()))),
        ReplyOutcome::Sent
    );
    assert_eq!(call.await?, Err(CallError::Refused(refused)));
    assert_eq!(responder.meter().read().refused, 1);
    assert_eq!(requester.meter().read().refused, 1);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_arrives_as_it_was_asked() -> Result<()> {
    let world = World::new("rpc-whole").await?;
    let responder = idle(&world, 10).await?;
    let requester = requester(&world.settings).await?;
    let mut sent = request("ä-1", LONG);
    sent.act = RequestKind::Command;
    sent.traceparent = Some("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".to_owned());
    let call = ask(&requester, sent.clone());
    let asked = take(&responder).await?;
    assert_eq!(asked.request, sent);
    answer(asked);
    assert_eq!(call.await?, Ok(sent.data));
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_broker_drops_a_request_whose_deadline_is_over() -> Result<()> {
    let world = World::new("rpc-expired").await?;
    let requester = requester(&world.settings).await?;
    let answer = requester.call_raw(request("1", SHORT)).await;
    assert_eq!(answer, Err(CallError::TimedOut));
    // Its time runs from its arrival there, which may be a moment later.
    let inspector = Inspector::connect(&world.settings, "expired").await?;
    let queue = world.namespace().rpc_queue(ECHO.role);
    until("it is dropped", async || {
        Ok(inspector.queue_depth(&queue).await?.ready == 0)
    })
    .await?;
    let responder = idle(&world, 10).await?;
    let call = ask(&requester, request("2", LONG));
    assert_eq!(take(&responder).await?.request.id.as_str(), "2");
    assert_eq!(responder.meter().read().delivered, 1);
    call.abort();
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_does_not_begin_what_nobody_waits_for_any_more() -> Result<()> {
    let world = World::new("rpc-late").await?;
    let responder = idle(&world, 10).await?;
    let requester = requester(&world.settings).await?;
    // Both are given to the server, and nobody takes them from it.
    let (expires, is_cancelled) = (request("1", BRIEF), request("2", LONG));
    let expiring = ask(&requester, expires);
    let cancelling = ask(&requester, is_cancelled);
    until("both are there", async || {
        Ok(responder.meter().read().held == 2)
    })
    .await?;
    assert_eq!(expiring.await?, Err(CallError::TimedOut));
    cancelling.abort();
    assert!(cancelling.await.is_err_and(|e| e.is_cancelled()));
    until("the cancelling is counted", async || {
        Ok(requester.meter().read().cancelled == 1)
    })
    .await?;
    // A cancelling is told on another channel, so it may come behind the next request.
    let call = ask(&requester, request("3", LONG));
    until("the word has come", async || {
        Ok(responder.meter().read().held == 3)
    })
    .await?;
    let third = loop {
        let asked = take(&responder).await?;
        if asked.request.id.as_str() == "3" {
            break asked;
        }
        assert_eq!(asked.request.id.as_str(), "2", "expired and handed out");
        within(LONG, "the word", asked.cancelled.cancelled()).await?;
        drop(asked);
    };
    answer(third);
    assert_eq!(call.await?, Ok(Bytes::from("3")));
    assert_eq!(responder.meter().read().expired, 1);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dropping_a_call_reaches_the_server_that_works_on_it_and_the_queue_behind_it() -> Result<()>
{
    let world = World::new("rpc-cancel").await?;
    let responder = idle(&world, 1).await?;
    let requester = requester(&world.settings).await?;
    let call = ask(&requester, request("1", LONG));
    let asked = take(&responder).await?;
    assert!(!asked.cancelled.is_cancelled());
    call.abort();
    within(LONG, "the word", asked.cancelled.cancelled()).await?;
    assert!(asked.cancelled.is_cancelled());
    // A reply all the same is nobody's.
    answer(asked);
    until("the late reply is counted", async || {
        Ok(requester.meter().read().late == 1)
    })
    .await?;
    assert_eq!(requester.meter().read().cancelled, 1);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reply_after_the_deadline_is_counted_and_given_to_nobody() -> Result<()> {
    let world = World::new("rpc-too-late").await?;
    let responder = idle(&world, 10).await?;
    let requester = requester(&world.settings).await?;
    let call = ask(&requester, request("1", BRIEF));
    let asked = take(&responder).await?;
    assert_eq!(call.await?, Err(CallError::TimedOut));
    answer(asked);
    until("the late reply is counted", async || {
        Ok(requester.meter().read().late == 1)
    })
    .await?;
    let counts = requester.meter().read();
    assert_eq!((counts.timed_out, counts.cancelled), (1, 0));
    // Nor is a request begun whose deadline is over before it is asked.
    let past = Request {
        deadline: Timestamp::now().checked_sub(SHORT)?,
        ..request("2", LONG)
    };
    assert_eq!(requester.call_raw(past).await, Err(CallError::TimedOut));
    assert_eq!(responder.meter().read().delivered, 1);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_exceeds_a_bound_is_shed_at_once_wherever_the_bound_is() -> Result<()> {
    let world = World::new("rpc-shed").await?;
    let responder = idle(&world, 2).await?;
    let requester = requester(&world.settings).await?;
    let calls: Vec<_> = (0..2).map(|n| ask(&requester, request(n, LONG))).collect();
    let held = [take(&responder).await?, take(&responder).await?];
    // The server's.
    let third = requester.call_raw(request("3", LONG)).await;
    let overloaded = |retry_after| Err(CallError::Overloaded { retry_after });
    assert_eq!(third, overloaded(RETRY_AFTER));
    // A reply is counted a moment after it is handed over.
    until("it is counted", async || {
        Ok(responder.meter().read().shed == 1)
    })
    .await?;
    held.into_iter().for_each(answer);
    for call in calls {
        assert!(call.await?.is_ok());
    }
    // The caller's own.
    let settings = RpcClientSettings {
        max_in_flight: 1,
        retry_after: SHORT,
        ..RpcClientSettings::default()
    };
    let bounded = RpcClient::start(
        &world.settings,
        "test: ask one",
        topology(&world.settings),
        settings,
    );
    bounded.ready(LONG).await?;
    let first = ask(&bounded, request("4", LONG));
    let asked = take(&responder).await?;
    assert_eq!(
        bounded.call_raw(request("5", LONG)).await,
        overloaded(SHORT)
    );
    answer(asked);
    assert!(first.await?.is_ok());
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_exceeds_a_bound_of_bytes_is_shed_at_once_wherever_the_bound_is() -> Result<()> {
    let world = World::new("rpc-bytes").await?;
    let answers = RpcServerSettings {
        max_bytes: 10,
        retry_after: RETRY_AFTER,
        ..RpcServerSettings::default()
    };
    let overloaded = |retry_after| Err(CallError::Overloaded { retry_after });
    let responder = responder(&world.settings, answers).await?;
    let generous = requester(&world.settings).await?;
    // Each request brings its id. One that is larger than the bound is handed out all the same if it is alone.
    for (first, second) in [("a123", "b123456"), ("c12345678901", "d")] {
        let call = ask(&generous, request(first, LONG));
        let asked = take(&responder).await?;
        let shed = generous.call_raw(request(second, LONG)).await;
        assert_eq!(shed, overloaded(RETRY_AFTER));
        answer(asked);
        assert!(call.await?.is_ok());
        // A reply arrives a moment before its request is let go of.
        let meter = responder.meter();
        until("it is let go of", async || Ok(meter.read().held == 0)).await?;
    }
    // The caller's own: what the broker has not confirmed.
    let echo = echo(&responder);
    let proxy = world.proxy().await;
    let settings = RpcClientSettings {
        max_bytes: 10,
        retry_after: SHORT,
        ..RpcClientSettings::default()
    };
    let broker = world.settings_by(&proxy)?;
    let bounded = RpcClient::start(&broker, "test: ask", topology(&broker), settings);
    bounded.ready(LONG).await?;
    proxy.stall(Direction::ToBroker);
    let mut call = std::pin::pin!(bounded.call_raw(command("e123", LONG)));
    begin(call.as_mut()).await;
    let shed = bounded.call_raw(command("f123456", LONG)).await;
    assert_eq!(shed, overloaded(SHORT));
    proxy.restore();
    assert!(call.await.is_ok());
    until("there is room again", async || {
        Ok(bounded.call_raw(command("f123456", LONG)).await.is_ok())
    })
    .await?;
    echo.abort();
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_queue_refuses_commands_at_once() -> Result<()> {
    let world = World::new("rpc-full").await?;
    let small = r#"{"durable":true,"arguments":{"x-queue-type":"classic","x-max-length":1,"x-overflow":"reject-publish"}}"#;
    let queue = world.namespace().rpc_queue(ECHO.role);
    world.put_queue(queue.as_str(), small).await?;
    let requester = RpcClient::start(
        &world.settings,
        "test: ask",
        Topology::none(),
        RpcClientSettings::default(),
    );
    requester.ready(LONG).await?;
    // Nobody consumes. The broker refuses what is beyond the bound, or a little later.
    let calls = (0..50).map(|n| {
        let requester = requester.clone();
        async move { requester.call_raw(command(n, LONG)).await }
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
async fn queries_to_a_full_queue_are_ended_long_before_their_deadline() -> Result<()> {
    const FULL: u64 = 10_000;
    let world = World::new("rpc-full-queries").await?;
    let requester = requester(&world.settings).await?;
    let queue = world.namespace().rpc_queue(ECHO.role);
    // A server that takes one request and nothing more.
    let (_connection, channel) = bare(&world).await?;
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
    let inspector = Inspector::connect(&world.settings, "test: look").await?;
    until("it is full", async || {
        Ok(inspector.queue_depth(&queue).await?.ready == FULL)
    })
    .await?;
    let answer = within(
        LONG,
        "the query",
        requester.call_raw(request("1", LONG * 10)),
    )
    .await?;
    assert!(
        matches!(answer, Err(CallError::Overloaded { .. })),
        "{answer:?}"
    );
    // What became of a command is known at once.
    let answer = within(
        LONG,
        "the command",
        requester.call_raw(command("2", LONG * 10)),
    )
    .await?;
    assert!(
        matches!(answer, Err(CallError::Overloaded { .. })),
        "{answer:?}"
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_broker_a_call_ends_at_once_and_says_why() -> Result<()> {
    let world = World::new("rpc-away").await?;
    let responder = idle(&world, 10).await?;
    let proxy = world.proxy().await;
    let requester = requester(&world.settings_by(&proxy)?).await?;
    let under_way = ask(&requester, request("1", LONG));
    let asked = take(&responder).await?;
    proxy.refuse();
    let answer_1 = within(LONG, "the call", under_way).await??;
    assert!(
        matches!(&answer_1, Err(CallError::Unreachable { reason }) if reason.contains("broke")),
        "{answer_1:?}"
    );
    let answer_2 = requester.call_raw(request("2", LONG)).await;
    assert!(
        matches!(answer_2, Err(CallError::Unreachable { .. })),
        "{answer_2:?}"
    );
    // With patience it is asked again, and answered once the broker is back.
    answer(asked);
    let echo = echo(&responder);
    let again = tokio::spawn({
        let requester = requester.clone();
        async move { requester.call_raw_with_retry(request("3", LONG)).await }
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
async fn the_requests_of_a_server_that_dies_are_answered_by_another() -> Result<()> {
    const COUNT: usize = 100;
    let world = World::new("rpc-dies").await?;
    let proxy = world.proxy().await;
    let answers = RpcServerSettings::default();
    let mortal = responder(&world.settings_by(&proxy)?, answers).await?;
    let requester = requester(&world.settings).await?;
    let calls: Vec<_> = (0..COUNT)
        .map(|n| ask(&requester, request(n, LONG)))
        .collect();
    let mut begun = Vec::new();
    for _ in 0..COUNT {
        begun.push(take(&mortal).await?);
    }
    // There before the first one is gone, which has all of them: for a while without any server, nobody would answer.
    let other = responder(&world.settings, answers).await?;
    proxy.refuse();
    for asked in begun {
        within(LONG, "the word", asked.cancelled.cancelled()).await?;
        let replied = asked.reply.send(Reply::Answer(Ok(Bytes::new())));
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
async fn a_request_that_is_dropped_is_given_out_once_more_and_then_refused() -> Result<()> {
    let world = World::new("rpc-dropped").await?;
    let responder = idle(&world, 10).await?;
    let requester = requester(&world.settings).await?;
    let call = ask(&requester, request("1", LONG));
    drop(take(&responder).await?);
    let again = take(&responder).await?;
    assert!(again.redelivered);
    drop(again);
    let refused = call.await?;
    assert!(
        matches!(&refused, Err(CallError::Refused(refused)) if refused.code == Rejection::FAILED),
        "{refused:?}"
    );
    // A reply arrives a moment before its request is let go of.
    let meter = responder.meter();
    until("it is put back, refused and let go of", async || {
        let counts = meter.read();
        Ok((counts.put_back, counts.refused, counts.held) == (1, 1, 0))
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_hears_that_a_command_was_not_begun_which_another_server_had_before() -> Result<()> {
    let world = World::new("rpc-begun").await?;
    let responder = idle(&world, 10).await?;
    let requester = requester(&world.settings).await?;
    let shed = async |id: &str, act| {
        let request = Request {
            act,
            ..request(id, LONG)
        };
        let call = ask(&requester, request);
        drop(take(&responder).await?);
        let again = take(&responder).await?;
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
async fn closing_answers_what_was_handed_out_and_leaves_the_rest_to_others() -> Result<()> {
    let world = World::new("rpc-close").await?;
    let responder_1 = idle(&world, 10).await?;
    let requester = requester(&world.settings).await?;
    let handed_out = ask(&requester, request("1", LONG));
    let asked = take(&responder_1).await?;
    let waits = ask(&requester, request("2", LONG));
    until("the second is there", async || {
        Ok(responder_1.meter().read().held == 2)
    })
    .await?;
    // There before the first one takes no more, which has both: for a while without any server, nobody would answer.
    let responder_2 = idle(&world, 10).await?;
    let closing = tokio::spawn({
        let responder = responder_1.clone();
        async move { responder.close(LONG).await }
    });
    let mut state = responder_1.state();
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
        asked.reply.send(Reply::Answer(Ok(Bytes::new()))),
        ReplyOutcome::Sent
    );
    assert!(handed_out.await?.is_ok());
    within(LONG, "closing", closing).await??;
    // Who asks waits for the replies that are on their way, and takes nothing new.
    let last = ask(&requester, request("3", LONG));
    let asked = take(&responder_2).await?;
    let mut state = requester.state();
    let closing = tokio::spawn(requester.clone().close(LONG));
    within(
        LONG,
        "closing",
        state.wait_for(|s| s.phase == ConnectionPhase::Draining),
    )
    .await??;
    let refused = requester.call_raw(request("4", LONG)).await;
    assert!(matches!(refused, Err(CallError::Unreachable { .. })));
    answer(asked);
    assert!(last.await?.is_ok());
    within(LONG, "closing", closing).await??;
    Ok(())
}

/// A connection of the bare client.
async fn bare(world: &World) -> Result<(lapin::Connection, lapin::Channel)> {
    let properties = lapin::ConnectionProperties::default();
    let connection = lapin::Connection::connect(&world.amqp_url(), properties).await?;
    let channel = connection.create_channel().await?;
    Ok((connection, channel))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_comes_back_from_a_stranger_is_malformed() -> Result<()> {
    let world = World::new("rpc-stranger").await?;
    let requester = requester(&world.settings).await?;
    let (_connection, channel) = bare(&world).await?;
    let queue = world.namespace().rpc_queue(ECHO.role);
    let mut consumer = channel
        .basic_consume(
            queue.as_str().into(),
            "stranger".into(),
            BasicConsumeOptions::default(),
            FieldTable::default(),
        )
        .await?;
    let call = ask(&requester, request("1", LONG));
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
    assert_eq!(requester.meter().read().late, 1);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_malformed_request_is_refused_where_there_is_a_way_back() -> Result<()> {
    let world = World::new("rpc-malformed").await?;
    let responder = idle(&world, 10).await?;
    let (_connection, channel) = bare(&world).await?;
    let options = BasicConsumeOptions {
        no_ack: true,
        ..BasicConsumeOptions::default()
    };
    let reply_to = "amq.rabbitmq.reply-to";
    let mut replies = channel
        .basic_consume(reply_to.into(), "".into(), options, FieldTable::default())
        .await?;
    let queue = world.namespace().rpc_queue(ECHO.role);
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
    // A reply arrives a moment before its request is let go of.
    let meter = responder.meter();
    until("both are counted and neither is held", async || {
        let counts = meter.read();
        Ok((counts.malformed, counts.held) == (2, 0))
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_asks_by_another_clock_is_told_so() -> Result<()> {
    let world = World::new("rpc-clocks").await?;
    let responder = idle(&world, 10).await?;
    let (_connection, channel) = bare(&world).await?;
    let options = BasicConsumeOptions {
        no_ack: true,
        ..BasicConsumeOptions::default()
    };
    let reply_to = "amq.rabbitmq.reply-to";
    let mut replies = channel
        .basic_consume(reply_to.into(), "".into(), options, FieldTable::default())
        .await?;
    // What the broker would have dropped, were it not that the asker's clock is a minute behind.
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
    let queue = world.namespace().rpc_queue(ECHO.role);
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
    let counts = responder.meter().read();
    assert_eq!((counts.expired, counts.skewed), (1, 1));
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_least_rights_are_enough_to_ask_and_to_answer() -> Result<()> {
    let world = World::new("rpc-rights").await?;
    // Somebody declares before them.
    let owner = requester(&world.settings).await?;
    let topology = topology(&world.settings);
    let user = async |rights: Permissions| {
        let fixed = |pattern: String| -> &'static str { pattern.leak() };
        let rights = doorstep_broker::Rights {
            configure: fixed(rights.configure),
            write: fixed(rights.write),
            read: fixed(rights.read),
        };
        let user = world.user("rpc", rights).await?;
        let settings = crate::support::settings(user.amqp_url())?;
        anyhow::Ok((user, settings))
    };
    let (namespace, others) = (world.namespace(), TopologyOwner::Others);
    let (_answers, settings) = user(Permissions::for_consumer(
        namespace,
        &topology,
        Some(ECHO.role),
        others,
        &[],
    ))
    .await?;
    let responder = responder(&settings, RpcServerSettings::default()).await?;
    let (_asks, settings) = user(Permissions::for_rpc_client(
        namespace,
        &topology,
        others,
        &[],
    ))
    .await?;
    let requester = requester(&settings).await?;
    let call = ask(&requester, request("1", LONG));
    answer(take(&responder).await?);
    assert_eq!(call.await?, Ok(Bytes::from("1")));
    let call = ask(&requester, request("2", LONG));
    let asked = take(&responder).await?;
    call.abort();
    within(LONG, "the word", asked.cancelled.cancelled()).await?;
    // Also that nobody is there is known to whoever may only ask.
    asked.reply.send(Reply::Answer(Ok(Bytes::new())));
    responder.close(LONG).await;
    let answer = requester.call_raw(request("3", LONG)).await;
    assert_eq!(answer, Err(no_responder()));
    owner.close(LONG).await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_may_not_hear_of_cancelling_answers_all_the_same() -> Result<()> {
    let world = World::new("rpc-deaf").await?;
    let requester = requester(&world.settings).await?;
    let rights = doorstep_broker::Rights {
        configure: "^$",
        write: r"^amq\.default$",
        read: r"^test\.(rpc\.echo|echo\.(0|net))$",
    };
    let user = world.user("rpc", rights).await?;
    let settings = crate::support::settings(user.amqp_url())?;
    let responder = responder(&settings, RpcServerSettings::default()).await?;
    let call = ask(&requester, request("1", LONG));
    answer(take(&responder).await?);
    assert_eq!(call.await?, Ok(Bytes::from("1")));
    // Whoever verifies is told.
    let verified = verify(&settings, &topology(&settings)).await?;
    let told = |right, name: &str| {
        let is_told = |f: &Finding| matches!(f, Finding::Forbidden { right: r, name: n, .. } if *r == right && n == name);
        verified.findings.iter().any(is_told)
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
async fn whoever_may_hear_of_cancelling_is_told_of_nothing_and_leaves_nothing_behind() -> Result<()>
{
    let world = World::new("rpc-hears").await?;
    let _owner = requester(&world.settings).await?;
    let topology = topology(&world.settings);
    let rights = Permissions::for_verifier(world.namespace(), &topology);
    let fixed = |pattern: String| -> &'static str { pattern.leak() };
    let read = fixed(rights.read);
    let mut user_rights = doorstep_broker::Rights {
        configure: fixed(rights.configure),
        write: fixed(rights.write),
        read,
    };
    let user = world.user("hears", user_rights).await?;
    let settings = crate::support::settings(user.amqp_url())?;
    assert_eq!(verify(&settings, &topology).await?.findings, []);
    let queues = world
        .manage(|broker, vhost| {
            let path = format!("/api/queues/{}?columns=name", percent_encoded(vhost));
            broker.management()?.get(&path)
        })
        .await?;
    assert!(!queues.contains(".cancel."), "{queues}");

    // All but the exchange where it is said.
    user_rights.read =
        r"^test\.(rpc\.echo|echo\.(owner|(0|net)(\.mark)?)|rpc\.echo\.cancel\.[^.]+)$";
    let deaf = world.user("deaf", user_rights).await?;
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
