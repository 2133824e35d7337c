//! `demo`: publishes some minutes of sales and deliveries to running consumers, with duplicates, disorder and invalid
//! messages. Its report lists the published events, to compare with the consumers' results.

mod customers;
mod invalid_messages;
mod scenario;

use std::{path::Path, time::Duration};

use doorstep_cli::{CliError, ShutdownSignal};
use doorstep_event::{Source, Timestamp};
use doorstep_messaging::{BrokerSettings, Message, PublishOutcome, Publisher, UncheckedPublisher};
use serde::Serialize;
use tokio::time::{Instant, sleep_until};

use crate::{
    cli::DemoArgs,
    progress::{Progress, Unit},
    stop::{interrupted, nothing_sent},
};
use customers::MailCauses;
use invalid_messages::InvalidMessage;
use scenario::{Sales, Scenario, Step};

/// The time for which an event is published again before the demo gives up.
const TIMEOUT: Duration = Duration::from_secs(60);
/// The timeout of closing a connection.
const GRACE: Duration = Duration::from_secs(5);

/// The report of published events.
#[derive(Debug, Serialize)]
struct Report {
    seed: u64,
    source: Source,
    minutes: u32,
    events: u64,
    requests: u64,
    /// The orders that were not refused, and the sum of their amounts.
    sales: Sales,
    mails: MailCauses,
    duplicates: u64,
    early: u64,
    bad: Vec<InvalidMessage>,
    held_behind: u64,
}

/// Runs the demo.
///
/// # Errors
/// The broker is unreachable or rejects events; the report cannot be written; the user stops the program.
pub(crate) async fn run(
    args: DemoArgs,
    broker: BrokerSettings,
    mut stop: ShutdownSignal,
) -> Result<(), CliError> {
    let mistake = |text: String| CliError::failed(text);
    let start = Timestamp::now();
    // Each run has a source of its own: a second run is new sales, not duplicates of the first.
    let source = Source::new(format!("demo/{}/{}", args.seed, start.as_millisecond()))
        .map_err(|e| mistake(e.to_string()))?;
    let play = Scenario::make(args.seed, &source, start, args.minutes).map_err(mistake)?;
    let exchange = broker.namespace.events_exchange();
    let bad = invalid_messages::messages(&source, &exchange, start);

    let publisher = Publisher::start(
        &broker,
        &format!("{} producer demo", broker.namespace),
        doorstep_cli::topology(&broker.namespace),
    );
    let unreachable = |e: doorstep_messaging::ConnectError| CliError::broker(e.to_string());
    stop.or_cancelled(publisher.ready(broker.start_timeout))
        .await
        .ok_or_else(nothing_sent)?
        .map_err(unreachable)?;
    let mut raw = UncheckedPublisher::connect(
        &broker,
        &format!("{} producer demo, bad messages", broker.namespace),
    )
    .await
    .map_err(unreachable)?;

    let total = play.steps.len() as u64;
    let mut progress = Progress::new("playing", Unit::Events, Some(total));
    let began = Instant::now();
    let every = (play.steps.len() / (bad.len() + 1)).max(1);
    let mut bad_left = bad.iter();
    let speed = f64::from(args.speed.max(1));
    let time = |step: &Step| began + Duration::from_secs_f64(step.at / speed);
    let mut batch = Vec::new();
    for (index, step) in play.steps.iter().enumerate() {
        batch.push(Message::event(&step.event));
        if index % every == every - 1
            && let Some(bad) = bad_left.next()
        {
            confirmed(raw.publish(bad.message.clone()).await, bad.what)?;
        }
        // Events within a tenth of a second are published together.
        let at = time(step);
        let next = play.steps.get(index + 1).map(time);
        let is_last_of_its_tenth = next.is_none_or(|next| next > at + Duration::from_millis(100));
        if is_last_of_its_tenth || batch.len() >= 500 {
            let sent = batch.len() as u64;
            if stop.or_cancelled(sleep_until(at)).await.is_none() {
                return Err(interrupted("the demo was interrupted"));
            }
            send(&publisher, std::mem::take(&mut batch)).await?;
            progress.advance(sent, sent);
        }
        progress.refresh();
    }
    for bad in bad_left {
        confirmed(raw.publish(bad.message.clone()).await, bad.what)?;
    }
    confirmed(
        raw.publish(invalid_messages::held_behind(&source, &exchange, start))
            .await,
        "an event behind a bad one",
    )?;
    progress.finish();
    raw.close(GRACE).await;
    publisher.close(GRACE).await;

    let report = Report {
        seed: args.seed,
        source,
        minutes: args.minutes,
        events: play.events,
        requests: play.requests,
        sales: play.sales,
        mails: play.mails,
        duplicates: play.duplicates,
        early: play.early,
        bad,
        held_behind: 1,
    };
    eprintln!(
        "sent {} events, {} of them early, {} duplicates, {} invalid messages, and 1 event behind an invalid one",
        report.events,
        report.early,
        report.duplicates,
        report.bad.len()
    );
    match args.report {
        None => Ok(()),
        Some(path) => write(&report, &path),
    }
}

fn write(report: &Report, path: &Path) -> Result<(), CliError> {
    serde_json::to_vec_pretty(report)
        .map_err(std::io::Error::from)
        .and_then(|json| std::fs::write(path, json))
        .map_err(|e| {
            CliError::io(format!(
                "cannot write the report to {}: {e}",
                path.display()
            ))
        })
}

/// Publishes until every message is confirmed.
async fn send(publisher: &Publisher, messages: Vec<Message>) -> Result<(), CliError> {
    let give_up = Instant::now() + TIMEOUT;
    let mut left = messages;
    loop {
        let outcomes = publisher.publish_all(left.clone()).await;
        let trouble = outcomes
            .iter()
            .find(|outcome| **outcome != PublishOutcome::Confirmed)
            .copied();
        left = left
            .into_iter()
            .zip(outcomes)
            .filter_map(|(message, outcome)| {
                (outcome != PublishOutcome::Confirmed).then_some(message)
            })
            .collect();
        match trouble {
            None => return Ok(()),
            Some(outcome) if Instant::now() > give_up => return confirmed(outcome, "the events"),
            // The publisher itself waits while the broker is unavailable, so this does not spin.
            Some(_) => sleep_until(Instant::now() + Duration::from_millis(250)).await,
        }
    }
}

fn confirmed(outcome: PublishOutcome, what: &str) -> Result<(), CliError> {
    match outcome {
        PublishOutcome::Confirmed => Ok(()),
        other => Err(CliError::broker(format!(
            "the broker did not confirm {what}: {other:?}; check the broker's health and the queue of every role"
        ))),
    }
}
