//! The order of the measurements.
//!
//! A disturbance of the machine lasts for a while, so each round measures both sides in turn, and the ratio is computed
//! for each round. The first side changes from round to round, since the second one finds the broker a little warmer.
//! Each side consumes its own messages; the messages of both are identical to the byte, which is checked first.

use std::{path::PathBuf, sync::Arc, time::Duration};

use anyhow::{Context, Result, ensure};
use doorstep_event::Event;
use doorstep_messaging::{BrokerSettings, ServerProperties};
use serde::Serialize;

use crate::{
    baseline::{self, MessageShape},
    doorstep,
    env::BenchEnv,
    events::Generator,
    figures::{Figure, median},
    memory::{self, Consumed},
    options::{Options, Part},
    progress::Progress,
    rpc::{self, RoundTrips},
};

#[derive(Debug)]
pub(crate) struct Figures {
    pub(crate) broker: String,
    pub(crate) rounds: Vec<Round>,
    pub(crate) round_trips: RoundTrips,
    pub(crate) bare_consume_without_headers: Option<Figure>,
    pub(crate) other_streams: Vec<OtherStreams>,
    pub(crate) consumer: Option<Consumed>,
}

/// Every shape once.
#[derive(Debug, Clone, Copy, Serialize)]
pub(crate) struct Round {
    pub(crate) bare: Side,
    pub(crate) doorstep: Side,
}

/// The results of one side in a round.
#[derive(Debug, Clone, Copy, Serialize)]
pub(crate) struct Side {
    pub(crate) publish: Figure,
    pub(crate) consume: Figure,
}

/// Doorstep's consumer with another number of streams.
#[derive(Debug, Serialize)]
pub(crate) struct OtherStreams {
    pub(crate) streams: usize,
    pub(crate) rounds: Vec<Figure>,
}

impl Figures {
    /// Doorstep's publish rate relative to the bare client's; the median over the rounds.
    pub(crate) fn publish_ratio(&self) -> Option<f64> {
        median(
            self.rounds
                .iter()
                .map(|r| ratio(r.doorstep.publish, r.bare.publish)),
        )
    }

    /// Doorstep's consume rate relative to the bare client's; the median over the rounds.
    pub(crate) fn consume_ratio(&self) -> Option<f64> {
        median(
            self.rounds
                .iter()
                .map(|r| ratio(r.doorstep.consume, r.bare.consume)),
        )
    }
}

fn ratio(ours: Figure, bare: Figure) -> f64 {
    ours.events_per_second / bare.events_per_second
}

pub(crate) async fn run(env: &BenchEnv, options: &Options) -> Result<Figures> {
    let measured = |part| options.parts.contains(&part);
    let rounds = options.rounds + usize::from(options.warm_up);
    let steps = [
        (Part::Rounds, 4 * rounds),
        (Part::Rpc, rpc::steps(rounds)),
        (Part::Headers, 1),
        (
            Part::Streams,
            options.other_streams.len() * options.other_rounds,
        ),
        (Part::Memory, 1),
    ];
    let steps = steps.iter().filter(|(part, _)| measured(*part));
    let progress = Progress::new(steps.map(|(_, steps)| steps).sum());
    let bench = Bench {
        env,
        options,
        progress,
    };
    bench.same_bytes().await?;
    let mut figures = Figures {
        broker: broker(&env.settings).await,
        rounds: Vec::new(),
        round_trips: RoundTrips::default(),
        bare_consume_without_headers: None,
        other_streams: Vec::new(),
        consumer: None,
    };
    if measured(Part::Rounds) {
        figures.rounds = bench.rounds().await?;
    }
    if measured(Part::Rpc) {
        let (rounds, warm_up) = (options.rounds, options.warm_up);
        let trips = rpc::measure(env, &bench.progress, rounds, warm_up, options.quick);
        figures.round_trips = trips.await?;
    }
    if measured(Part::Headers) {
        figures.bare_consume_without_headers = Some(bench.without_headers().await?);
    }
    if measured(Part::Streams) {
        for streams in options.other_streams {
            figures.other_streams.push(bench.over(streams).await?);
        }
    }
    if measured(Part::Memory) {
        figures.consumer = Some(bench.memory().await?);
    }
    Ok(figures)
}

struct Bench<'a> {
    env: &'a BenchEnv,
    options: &'a Options,
    progress: Progress,
}

impl Bench<'_> {
    async fn rounds(&self) -> Result<Vec<Round>> {
        let generator = Generator::new(self.options.streams)?;
        let events: Vec<Event> = (0..self.options.events)
            .map(|n| generator.event(n))
            .collect::<Result<_>>()?;
        let events: Arc<[Event]> = events.into();
        if self.options.warm_up {
            self.bare("warm-up", &events).await?;
            self.doorstep("warm-up", &events, &generator).await?;
        }
        let mut rounds = Vec::new();
        for number in 1..=self.options.rounds {
            let name = format!("round {number} of {}", self.options.rounds);
            let (bare, doorstep);
            if number % 2 == 1 {
                bare = self.bare(&name, &events).await?;
                doorstep = self.doorstep(&name, &events, &generator).await?;
            } else {
                doorstep = self.doorstep(&name, &events, &generator).await?;
                bare = self.bare(&name, &events).await?;
            }
            rounds.push(Round { bare, doorstep });
        }
        Ok(rounds)
    }

    async fn bare(&self, round: &str, events: &Arc<[Event]>) -> Result<Side> {
        let publish = self
            .step(
                &format!("{round}, bare client, publish"),
                baseline::publish(self.env, events, MessageShape::AsDoorstep),
            )
            .await?;
        self.env.wait_for_depth(events.len()).await?;
        let consume = self
            .step(
                &format!("{round}, bare client, consume"),
                baseline::consume(self.env, events.len()),
            )
            .await?;
        Ok(Side { publish, consume })
    }

    async fn doorstep(
        &self,
        round: &str,
        events: &Arc<[Event]>,
        generator: &Generator,
    ) -> Result<Side> {
        let publish = self
            .step(
                &format!("{round}, Doorstep, publish"),
                doorstep::publish(self.env, events),
            )
            .await?;
        self.env.wait_for_depth(events.len()).await?;
        let consume = self
            .step(
                &format!("{round}, Doorstep, consume"),
                self.consume(generator, events.len()),
            )
            .await?;
        Ok(Side { publish, consume })
    }

    async fn consume(&self, generator: &Generator, events: usize) -> Result<Figure> {
        let folder: PathBuf = self.env.fresh_folder().await?;
        let env = self.env;
        let figure =
            doorstep::consume(&env.settings, &env.topology, &folder, generator, events).await?;
        std::fs::remove_dir_all(folder)?;
        Ok(figure)
    }

    async fn without_headers(&self) -> Result<Figure> {
        let generator = Generator::new(self.options.streams)?;
        let events: Vec<Event> = (0..self.options.events)
            .map(|n| generator.event(n))
            .collect::<Result<_>>()?;
        self.progress.begin("bare client, consume without headers");
        baseline::publish(self.env, &events.into(), MessageShape::Plain).await?;
        self.env.wait_for_depth(self.options.events).await?;
        let consumed = baseline::consume(self.env, self.options.events);
        self.step("bare client, consume without headers", consumed)
            .await
    }

    async fn over(&self, streams: usize) -> Result<OtherStreams> {
        let generator = Generator::new(streams)?;
        let events = self.options.events.max(streams);
        let mut rounds = Vec::new();
        for number in 1..=self.options.other_rounds {
            let what = format!(
                "{streams} streams, round {number} of {}, Doorstep, consume",
                self.options.other_rounds
            );
            self.progress.begin(&what);
            doorstep::fill(self.env, &generator, events).await?;
            rounds.push(self.step(&what, self.consume(&generator, events)).await?);
        }
        Ok(OtherStreams { streams, rounds })
    }

    async fn memory(&self) -> Result<Consumed> {
        let events = self.options.waiting;
        self.progress.begin(&format!(
            "publishing {events} events that wait for a consumer"
        ));
        let generator = Generator::new(self.options.streams)?;
        doorstep::fill(self.env, &generator, events).await?;
        self.progress.begin(&format!(
            "{events} waiting, Doorstep in a process of its own"
        ));
        let consumed = memory::measure(self.env, self.options.streams, events).await?;
        self.progress
            .end(&format!("at most {:.1} MB", consumed.peak_mb));
        Ok(consumed)
    }

    /// Checks that both sides send the same message for an event.
    async fn same_bytes(&self) -> Result<()> {
        let events: Arc<[Event]> = [Generator::new(1)?.event(0)?].into();
        baseline::publish(self.env, &events, MessageShape::AsDoorstep).await?;
        let bare = self.env.take_one().await?;
        doorstep::publish(self.env, &events).await?;
        let ours = self.env.take_one().await?;
        ensure!(
            bare == ours,
            "the bare client sends {bare:?}, Doorstep {ours:?}"
        );
        Ok(())
    }

    async fn step(
        &self,
        what: &str,
        measured: impl Future<Output = Result<Figure>>,
    ) -> Result<Figure> {
        self.progress.begin(what);
        let figure = measured.await.with_context(|| what.to_owned())?;
        self.progress.end(&format!(
            "{:.0} events/s, {:.2} processor s per million",
            figure.events_per_second, figure.processor_seconds_per_million
        ));
        Ok(figure)
    }
}

/// The broker's name, or a note that it is unknown.
async fn broker(settings: &BrokerSettings) -> String {
    const LIMIT: Duration = Duration::from_secs(2);
    let greeting = match settings.addresses.first() {
        Some(address) => ServerProperties::fetch(address, &settings.tls, LIMIT).await,
        None => None,
    };
    greeting.map_or_else(|| "unknown broker".to_owned(), |g| g.to_string())
}
