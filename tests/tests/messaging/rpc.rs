//! Requests and replies: what comes back, what is told when nothing can, and that every call ends.

#![allow(
    clippy::unwrap_used,
    reason = "what cannot be made here fails the test that asks for it"
)]

use std::{sync::Arc, time::Duration};

use anyhow::{Context, Result};
use bytes::Bytes;
use doorstep_event::{Act, EventType, Request, RequestId, Source, Timestamp};
use doorstep_messaging::{
    AnswerSettings, AskError, AskSettings, Asked, BrokerSettings, Reply, Requester, Responder,
    RoleQueues, Topology,
};
use tokio::task::JoinHandle;

use crate::support::{LONG, World};

/// A role that answers.
const ECHO: RoleQueues = RoleQueues {
    role: "echo",
    subjects: &["echo"],
    answers: true,
};

fn topology(settings: &BrokerSettings) -> Topology {
    Topology::of(&settings.namespace, &[ECHO])
}

/// A request to the echo.
fn request(id: impl ToString, patience: Duration) -> Request {
    let now = Timestamp::now();
    Request {
        id: RequestId::new(id.to_string()).unwrap(),
        caller: Source::new("test/1").unwrap(),
        kind: EventType::new("echo.say.v1").unwrap(),
        act: Act::Query,
        time: now,
        deadline: now.checked_add(patience).unwrap(),
        traceparent: None,
        data: Bytes::from(id.to_string()),
    }
}

async fn requester(settings: &BrokerSettings) -> Result<Requester> {
    let requester = Requester::start(
        settings,
        "test: ask",
        topology(settings),
        AskSettings::default(),
    );
    requester.ready(LONG).await?;
    Ok(requester)
}

async fn responder(settings: &BrokerSettings, answers: AnswerSettings) -> Result<Arc<Responder>> {
    let responder = Responder::start(
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
fn echo(responder: &Arc<Responder>) -> JoinHandle<()> {
    let responder = responder.clone();
    tokio::spawn(async move {
        while let Some(asked) = responder.next().await {
            answer(asked);
        }
    })
}

fn answer(asked: Asked) {
    let data = asked.request.data.clone();
    asked.reply.send(Reply::Answer(Ok(data)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn thousands_of_requests_at_once_each_get_their_own_reply() -> Result<()> {
    const COUNT: usize = 5000;
    let world = World::new("rpc-echo").await?;
    let answers = AnswerSettings {
        bound: u16::MAX,
        ..AnswerSettings::default()
    };
    let responder = responder(&world.settings, answers).await?;
    let echo = echo(&responder);
    let requester = requester(&world.settings).await?;
    let calls: Vec<_> = (0..COUNT)
        .map(|n| {
            let requester = requester.clone();
            tokio::spawn(async move { requester.ask(request(n, LONG)).await })
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
    let role = || AskError::NoResponder {
        role: "nobody".to_owned(),
    };
    assert_eq!(requester.ask(to_nobody).await, Err(role()));
    // This one has a queue from which nobody consumes.
    let answer = requester.ask(request("2", LONG)).await;
    let role = ECHO.role.to_owned();
    assert_eq!(answer, Err(AskError::NoResponder { role }));
    Ok(())
}
