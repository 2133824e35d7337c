//! Round trips: a request of 300 bytes and a reply of 300 bytes, served by a separate process.
//!
//! Doorstep's requests are compared with the bare client with direct reply-to on the same broker, and with plain HTTP
//! without a broker; both echo. Doorstep serves three variants: an echo, a query that a role answers from its store,
//! and a command that it answers after its commit. Each round measures all variants, in turns of some hundred
//! milliseconds, at each number of requests in flight; the first variant changes from turn to turn. One process serves
//! all of them; those not called wait.
//!
//! - `callers` are the RPC variants, `answerer` is the server process, with the role in `depot`.
//! - `bare` is the client alone, without anything that Doorstep adds: no deadline, no confirm, no detection of a
//!   missing queue.

mod baseline;
mod callers;
mod http;
mod sample_role;
mod server;

use std::{
    ops::Range,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use serde::Serialize;
use tokio::{task::JoinSet, time::timeout};

use crate::{
    env::{BenchEnv, LIMIT},
    figures::median,
    progress::Progress,
};

pub(crate) use callers::CallPath;
use callers::{Caller, weigh_all};
pub(crate) use sample_role::DEPOT;
use server::RpcServerProcess;
pub(crate) use server::answerer;

/// The numbers of requests in flight, each with the number of requests to measure.
const LEVELS: [(usize, usize); 3] = [(1, 3_000), (16, 12_000), (256, 40_000)];
const QUICK_LEVELS: [(usize, usize); 3] = [(1, 50), (16, 200), (256, 1_000)];
/// The number of turns of each variant at each number in flight.
const TURNS: usize = 10;

/// The result of one variant at one number in flight.
#[derive(Debug, Clone, Copy, Serialize)]
pub(crate) struct Trips {
    pub(crate) way: CallPath,
    pub(crate) in_flight: usize,
    pub(crate) p50_us: f64,
    pub(crate) p99_us: f64,
    pub(crate) per_second: f64,
}

/// The medians over the rounds.
#[derive(Debug, Clone, Copy, Serialize)]
pub(crate) struct Medians {
    pub(crate) way: CallPath,
    pub(crate) in_flight: usize,
    pub(crate) p50_us: f64,
    pub(crate) p99_us: f64,
    pub(crate) per_second: f64,
    /// The p50 over the bare client's, computed for each round.
    pub(crate) p50_of_bare: f64,
}

/// The measurements of all rounds.
#[derive(Debug, Clone, Default, Serialize)]
pub(crate) struct RoundTrips(pub(crate) Vec<Vec<Trips>>);

impl RoundTrips {
    /// Returns the median over the rounds of this variant's p50 over the bare client's, at this number in flight.
    pub(crate) fn p50_ratio(&self, way: CallPath, in_flight: usize) -> Option<f64> {
        median(self.0.iter().filter_map(|round| {
            let p50 = |way| {
                let mut of = round.iter().filter(|t| t.in_flight == in_flight);
                of.find(|t| t.way == way).map(|t| t.p50_us)
            };
            Some(p50(way)? / p50(CallPath::Bare)?)
        }))
    }

    /// Returns the medians over the rounds, for each variant and each number in flight.
    pub(crate) fn medians(&self) -> Vec<Medians> {
        let Some(first) = self.0.first() else {
            return Vec::new();
        };
        let mut shapes: Vec<(usize, CallPath)> =
            first.iter().map(|t| (t.in_flight, t.way)).collect();
        shapes.sort_unstable();
        let of = |(in_flight, way): (usize, CallPath)| {
            let all = || {
                let rounds = self.0.iter().flatten();
                rounds.filter(move |t| t.in_flight == in_flight && t.way == way)
            };
            Some(Medians {
                way,
                in_flight,
                p50_us: median(all().map(|t| t.p50_us))?,
                p99_us: median(all().map(|t| t.p99_us))?,
                per_second: median(all().map(|t| t.per_second))?,
                p50_of_bare: self.p50_ratio(way, in_flight)?,
            })
        };
        shapes.into_iter().filter_map(of).collect()
    }
}

/// Returns the number of steps of progress.
pub(crate) fn steps(rounds: usize) -> usize {
    rounds * LEVELS.len()
}

/// Measures this many rounds, after an optional one to warm up.
pub(crate) async fn measure(
    env: &BenchEnv,
    progress: &Progress,
    rounds: usize,
    warm_up: bool,
    quick: bool,
) -> Result<RoundTrips> {
    let answerer = RpcServerProcess::start(env).await?;
    weigh_all(env).await?;
    let mut measured = Vec::new();
    let levels = if quick { QUICK_LEVELS } else { LEVELS };
    for number in 0..rounds + usize::from(warm_up) {
        let mut round = Vec::new();
        for (in_flight, calls) in levels {
            let what = format!("round trips, {in_flight} in flight");
            progress.begin(&what);
            let trips = timeout(LIMIT, level(env, &answerer, number, in_flight, calls));
            let trips = trips.await.context("too slow").flatten().context(what)?;
            progress.end(&summarized(&trips));
            round.extend(trips);
        }
        if number > 0 || !warm_up {
            measured.push(round);
        }
    }
    answerer.stop().await?;
    Ok(RoundTrips(measured))
}

/// Summarizes the results in a few words.
fn summarized(trips: &[Trips]) -> String {
    let p50s: Vec<String> = trips
        .iter()
        .map(|trips| format!("{}: {:.0} us", trips.way, trips.p50_us))
        .collect();
    format!("p50 of {}", p50s.join("; "))
}

/// Measures all variants at one number in flight, in short turns, so that other load on the machine affects all of them
/// alike.
async fn level(
    env: &BenchEnv,
    answerer: &RpcServerProcess,
    first: usize,
    in_flight: usize,
    calls: usize,
) -> Result<Vec<Trips>> {
    let mut askers = Vec::new();
    for way in CallPath::ALL {
        askers.push((Caller::connect(env, answerer, way).await?, Took::default()));
    }
    let mut done = 0;
    for turn in 0..TURNS {
        let upto = calls * (turn + 1) / TURNS;
        for way in 0..askers.len() {
            let next = (first + turn + way) % askers.len();
            if let Some((caller, took)) = askers.get_mut(next) {
                took.add(caller, in_flight, done..upto).await?;
            }
        }
        done = upto;
    }
    let mut all = Vec::new();
    for (way, (caller, took)) in CallPath::ALL.into_iter().zip(askers) {
        caller.close().await?;
        all.push(took.summary(way, in_flight));
    }
    Ok(all)
}

/// The duration of each request, and of all of them together.
#[derive(Default)]
struct Took {
    each: Vec<Duration>,
    together: Duration,
}

impl Took {
    async fn add(
        &mut self,
        caller: &Caller,
        in_flight: usize,
        numbers: Range<usize>,
    ) -> Result<()> {
        let next = Arc::new(AtomicUsize::new(numbers.start));
        let mut lines = Vec::with_capacity(in_flight);
        for _ in 0..in_flight {
            lines.push(caller.line().await?);
        }
        let began = Instant::now();
        let mut workers = JoinSet::new();
        for mut line in lines {
            let next = next.clone();
            workers.spawn(async move {
                let mut took = Vec::new();
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= numbers.end {
                        return anyhow::Ok(took);
                    }
                    let asked = Instant::now();
                    line.call(number).await?;
                    took.push(asked.elapsed());
                }
            });
        }
        while let Some(worker) = workers.join_next().await {
            self.each.extend(worker??);
        }
        self.together += began.elapsed();
        Ok(())
    }

    fn summary(mut self, way: CallPath, in_flight: usize) -> Trips {
        self.each.sort_unstable();
        Trips {
            way,
            in_flight,
            p50_us: at(&self.each, 50),
            p99_us: at(&self.each, 99),
            per_second: self.each.len() as f64 / self.together.as_secs_f64(),
        }
    }
}

/// Returns the percentile in microseconds.
fn at(sorted: &[Duration], percent: usize) -> f64 {
    let index = (sorted.len() * percent / 100).min(sorted.len().saturating_sub(1));
    sorted
        .get(index)
        .map_or(0.0, |took| took.as_secs_f64() * 1_000_000.0)
}
