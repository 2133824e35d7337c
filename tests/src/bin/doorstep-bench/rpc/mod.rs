//! Round trips: a request of 300 bytes that is answered with 300 bytes, by a process of its own.
//!
//! Doorstep's requests against the bare client with direct reply-to on the same broker, and against plain HTTP without one, both of which
//! answer with what they are sent. Doorstep is asked three things: that too, a query that a role answers from its store, and a command
//! that it answers after its commit. All are measured within one round, in turn, at each number of requests in flight; who goes first
//! changes from round to round. The answering process serves all of them, and those that are not asked wait.
//!
//! - `callers` are the ways to ask, `answerer` is the process that answers them, with the role in `depot`.
//! - `bare` is the client alone, with nothing that Doorstep does beyond it: no deadline, no confirm, nothing tells of a queue that is
//!   not there.

mod answerer;
mod bare;
mod callers;
mod depot;
mod http;

use std::{
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
    figures::median,
    progress::Progress,
    world::{LIMIT, World},
};

use answerer::Answerer;
pub(crate) use answerer::answerer;
pub(crate) use callers::Way;
use callers::{Caller, weigh_all};
pub(crate) use depot::DEPOT;

/// How many requests are in flight, and how many are measured then.
const LEVELS: [(usize, usize); 3] = [(1, 3_000), (16, 12_000), (256, 40_000)];
const QUICK_LEVELS: [(usize, usize); 3] = [(1, 50), (16, 200), (256, 1_000)];

/// What one way of asking came to at one number in flight.
#[derive(Debug, Clone, Copy, Serialize)]
pub(crate) struct Trips {
    pub(crate) way: Way,
    pub(crate) in_flight: usize,
    pub(crate) p50_us: f64,
    pub(crate) p99_us: f64,
    pub(crate) per_second: f64,
}

/// The medians over the rounds.
#[derive(Debug, Clone, Copy, Serialize)]
pub(crate) struct Medians {
    pub(crate) way: Way,
    pub(crate) in_flight: usize,
    pub(crate) p50_us: f64,
    pub(crate) p99_us: f64,
    pub(crate) per_second: f64,
    /// The p50 over the bare client's, taken round by round.
    pub(crate) p50_of_bare: f64,
}

/// The measurements of all rounds.
#[derive(Debug, Clone, Default, Serialize)]
pub(crate) struct RoundTrips(pub(crate) Vec<Vec<Trips>>);

impl RoundTrips {
    /// This way's p50 over the bare client's at so many in flight; the median over the rounds.
    pub(crate) fn p50_ratio(&self, way: Way, in_flight: usize) -> Option<f64> {
        median(self.0.iter().filter_map(|round| {
            let p50 = |way| {
                let mut of = round.iter().filter(|t| t.in_flight == in_flight);
                of.find(|t| t.way == way).map(|t| t.p50_us)
            };
            Some(p50(way)? / p50(Way::Bare)?)
        }))
    }

    /// The medians over the rounds, for each way and each number in flight.
    pub(crate) fn medians(&self) -> Vec<Medians> {
        let Some(first) = self.0.first() else {
            return Vec::new();
        };
        let mut shapes: Vec<(usize, Way)> = first.iter().map(|t| (t.in_flight, t.way)).collect();
        shapes.sort_unstable();
        let of = |(in_flight, way): (usize, Way)| {
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

/// How many steps that takes.
pub(crate) fn steps(rounds: usize) -> usize {
    rounds * LEVELS.len() * Way::ALL.len()
}

/// Measures so many rounds, after one to warm up where that is wanted.
pub(crate) async fn measure(
    world: &World,
    progress: &Progress,
    rounds: usize,
    warm_up: bool,
    quick: bool,
) -> Result<RoundTrips> {
    let answerer = Answerer::start(world).await?;
    weigh_all(world).await?;
    let mut measured = Vec::new();
    let levels = if quick { QUICK_LEVELS } else { LEVELS };
    for number in 0..rounds + usize::from(warm_up) {
        let mut ways = Way::ALL;
        ways.rotate_left(number % Way::ALL.len());
        let mut round = Vec::new();
        for (in_flight, calls) in levels {
            for way in ways {
                let what = format!("round trips, {way}, {in_flight} in flight");
                progress.begin(&what);
                let trips = timeout(LIMIT, trips(world, &answerer, way, in_flight, calls));
                let trips = trips.await.context("too slow").flatten().context(what)?;
                let (p50, p99) = (trips.p50_us, trips.p99_us);
                progress.end(&format!("p50 {p50:.0} us, p99 {p99:.0} us"));
                round.push(trips);
            }
        }
        if number > 0 || !warm_up {
            measured.push(round);
        }
    }
    answerer.stop().await?;
    Ok(RoundTrips(measured))
}

async fn trips(
    world: &World,
    answerer: &Answerer,
    way: Way,
    in_flight: usize,
    calls: usize,
) -> Result<Trips> {
    let caller = Caller::connect(world, answerer, way).await?;
    let next = Arc::new(AtomicUsize::new(0));
    let began = Instant::now();
    let mut workers = JoinSet::new();
    for _ in 0..in_flight {
        let (next, mut line) = (next.clone(), caller.line().await?);
        workers.spawn(async move {
            let mut took = Vec::new();
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                if number >= calls {
                    return anyhow::Ok(took);
                }
                let asked = Instant::now();
                line.call(number).await?;
                took.push(asked.elapsed());
            }
        });
    }
    let mut took = Vec::with_capacity(calls);
    while let Some(worker) = workers.join_next().await {
        took.extend(worker??);
    }
    let seconds = began.elapsed().as_secs_f64();
    caller.close().await?;
    took.sort_unstable();
    Ok(Trips {
        way,
        in_flight,
        p50_us: at(&took, 50),
        p99_us: at(&took, 99),
        per_second: took.len() as f64 / seconds,
    })
}

/// The time within which so many of a hundred were back, in microseconds.
fn at(sorted: &[Duration], percent: usize) -> f64 {
    let index = (sorted.len() * percent / 100).min(sorted.len().saturating_sub(1));
    sorted
        .get(index)
        .map_or(0.0, |took| took.as_secs_f64() * 1_000_000.0)
}
