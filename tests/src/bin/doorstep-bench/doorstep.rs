//! Doorstep in its intended use: its publisher in batches, and a role on its runner with a store.

use std::{
    path::Path,
    sync::{Arc, OnceLock},
};

use anyhow::{Context, Result, ensure};
use doorstep_event::Event;
use doorstep_messaging::{BrokerSettings, Message, PublishOutcome, Publisher, Topology};
use doorstep_runtime::{
    HandlerLock, Limits,
    runner::{self, RunSettings},
};
use doorstep_store::sqlite::{Options, SqliteStore};
use futures_util::StreamExt;
use tokio::time::timeout;

use crate::{
    counter::{self, Counter, QUEUES},
    env::{BenchEnv, LIMIT, TIMEOUT},
    events::Generator,
    figures::{Figure, Stopwatch},
};

/// Messages published by one call.
const BATCH: usize = 500;
const CALLS: usize = 4;

/// Publishes these events and waits for every confirm.
pub(crate) async fn publish(env: &BenchEnv, events: &Arc<[Event]>) -> Result<Figure> {
    let publisher = connected(env).await?;
    let (handle, events) = (publisher.clone(), Arc::clone(events));
    let task = tokio::spawn(async move {
        let watch = Stopwatch::start()?;
        let mut calls = futures_util::stream::iter((0..events.len()).step_by(BATCH))
            .map(|from| {
                let batch = &events[from..(from + BATCH).min(events.len())];
                handle.publish_all(batch.iter().map(Message::event).collect())
            })
            .buffered(CALLS);
        while let Some(outcomes) = calls.next().await {
            confirmed(&outcomes)?;
        }
        watch.stop(events.len())
    });
    let figure = timeout(LIMIT, task)
        .await
        .context("the publisher timed out")?;
    publisher.close(TIMEOUT).await;
    figure?
}

/// Publishes this many events while generating them, to be consumed afterwards.
pub(crate) async fn fill(env: &BenchEnv, generator: &Generator, events: usize) -> Result<()> {
    let publisher = connected(env).await?;
    let (handle, generator) = (publisher.clone(), generator.clone());
    let task = tokio::spawn(async move {
        let mut calls = futures_util::stream::iter((0..events).step_by(BATCH))
            .map(|from| {
                let batch = from..(from + BATCH).min(events);
                let messages: Result<Vec<_>> = batch
                    .map(|n| Ok(Message::event(&generator.event(n)?)))
                    .collect();
                async { anyhow::Ok(handle.publish_all(messages?).await) }
            })
            .buffered(CALLS);
        while let Some(outcomes) = calls.next().await {
            confirmed(&outcomes?)?;
        }
        anyhow::Ok(())
    });
    let filled = timeout(LIMIT, task)
        .await
        .context("the publisher timed out")?;
    publisher.close(TIMEOUT).await;
    filled??;
    env.wait_for_depth(events).await
}

async fn connected(env: &BenchEnv) -> Result<Publisher> {
    let settings = &env.settings;
    let publisher = Publisher::start(
        settings,
        &format!("{}: publish", settings.namespace),
        env.topology.clone(),
    );
    publisher.ready(settings.start_timeout).await?;
    Ok(publisher)
}

fn confirmed(outcomes: &[PublishOutcome]) -> Result<()> {
    match outcomes
        .iter()
        .find(|outcome| **outcome != PublishOutcome::Confirmed)
    {
        None => Ok(()),
        Some(outcome) => anyhow::bail!("a message was not confirmed: {outcome:?}"),
    }
}

/// Consumes this many events exactly once into a store in this folder, and checks every stream. Timed from the first
/// event to the acknowledgement of the last.
pub(crate) async fn consume(
    settings: &BrokerSettings,
    topology: &Topology,
    folder: &Path,
    generator: &Generator,
    events: usize,
) -> Result<Figure> {
    let store = SqliteStore::open(folder, QUEUES.role, &Options::default())?;
    let figure = run(settings, topology, store.clone(), events).await?;
    counter::check(&store, generator, events).await?;
    Ok(figure)
}

async fn run(
    settings: &BrokerSettings,
    topology: &Topology,
    store: SqliteStore,
    events: usize,
) -> Result<Figure> {
    let first = Arc::new(OnceLock::new());
    let role = Counter {
        first: Arc::clone(&first),
    };
    let settings = RunSettings {
        broker: settings.clone(),
        topology: topology.clone(),
        limits: Limits::default(),
        process: HandlerLock::default(),
        shutdown_timeout: TIMEOUT,
        requires_owner_record: true,
    };
    let watch = Stopwatch::start()?;
    let running = runner::start(role, store, settings);
    let mut status = running.watch();
    let events_u64 = events as u64;
    let done = timeout(
        LIMIT,
        status.wait_for(|status| status.done.applied >= events_u64),
    )
    .await;
    let figure = match first.get() {
        Some(first) => watch.stop_since(*first, events),
        None => Err(anyhow::anyhow!("nothing was consumed")),
    };
    let (arrived, status) = match done {
        Ok(Ok(status)) => (true, status.clone()),
        Ok(Err(_)) | Err(_) => (false, running.status()),
    };
    running.stop();
    timeout(LIMIT, running.join())
        .await
        .context("the role did not stop")??;
    ensure!(
        arrived,
        "{} of {events} events were applied: {status:?}",
        status.done.applied
    );
    ensure!(
        status.done.applied == events_u64
            && status.done.dead_letters == 0
            && status.usage.deferred.rows == 0,
        "the result differs from {events} applied events: {status:?}"
    );
    figure
}
