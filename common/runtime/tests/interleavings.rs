//! The events of several streams in any order, delayed and duplicated, and in batches of any size: the states end
//! alike. Tried on every store.
#![allow(clippy::unwrap_used, reason = "a helper that fails fails its test")]

mod ledger;

use std::{
    cell::Cell,
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

use doorstep_event::{Event, Sender, Timestamp};
use doorstep_runtime::{Engine, InboundMessage, Limits};
use doorstep_store::{MemoryStore, SqliteStore, Store, sqlite::Options};
use ledger::{Account, Ledger, Move, event};
use proptest::{prelude::*, test_runner::TestRunner};

const SOURCES: [&str; 3] = ["shop", "web", "pay"];
const ACCOUNTS: [&str; 3] = ["account/a", "account/b", "account/c"];

/// Streams, and the order of their arrival.
#[derive(Debug, Clone)]
struct Case {
    /// By source and account, both as indices into the lists above.
    streams: BTreeMap<(usize, usize), Vec<Move>>,
    /// The delay of each message, and that of its duplicate, if there is one.
    arrival: Vec<(u8, Option<u8>)>,
    /// The sizes of batches, used again from the first when they are used up.
    cuts: Vec<usize>,
    /// The batches after which due events are processed.
    due_after: Vec<bool>,
}

fn moves() -> impl Strategy<Value = Move> {
    prop_oneof![
        4 => (-9..9_i64).prop_map(Move::Add),
        2 => (0..ACCOUNTS.len(), 1..9_i64)
            .prop_map(|(to, amount)| Move::MoveTo(ACCOUNTS[to].to_owned(), amount)),
        1 => Just(Move::Open),
        1 => Just(Move::Tell),
    ]
}

fn cases() -> impl Strategy<Value = Case> {
    let stream = (0..SOURCES.len(), 0..ACCOUNTS.len());
    let streams =
        proptest::collection::btree_map(stream, proptest::collection::vec(moves(), 1..8), 1..6);
    let arrival = (0..40_u8, proptest::option::weighted(0.3, 0..60_u8));
    (
        streams,
        proptest::collection::vec(arrival, 48),
        proptest::collection::vec(1..9_usize, 1..8),
        proptest::collection::vec(any::<bool>(), 1..8),
    )
        .prop_map(|(streams, arrival, cuts, due_after)| Case {
            streams,
            arrival,
            cuts,
            due_after,
        })
}

impl Case {
    /// Returns all events, stream by stream and in order.
    fn in_order(&self) -> Vec<Event> {
        let mut events = Vec::new();
        for ((source, account), moves) in &self.streams {
            for (index, fact) in moves.iter().enumerate() {
                let sequence = index as u64 + 1;
                events.push(event(SOURCES[*source], ACCOUNTS[*account], sequence, fact));
            }
        }
        events
    }

    /// Returns all events in the order of arrival: streams mixed, some early, some late, some twice.
    fn as_they_come(&self) -> Vec<Event> {
        let mut line = Vec::new();
        for (index, event) in self.in_order().into_iter().enumerate() {
            let turn = event.sequence.map_or(0, |s| s.get() * 4);
            let (late, again) = self.arrival[index % self.arrival.len()];
            let place = turn + u64::from(late);
            if let Some(later) = again {
                line.push((place + u64::from(later), event.clone()));
            }
            line.push((place, event));
        }
        line.sort_by_key(|(place, _)| *place);
        line.into_iter().map(|(_, event)| event).collect()
    }

    /// Returns the accounts with a single stream.
    fn fed_by_one(&self) -> BTreeSet<&'static str> {
        let mut feeders: BTreeMap<&str, BTreeSet<(usize, usize)>> = BTreeMap::new();
        for (stream, moves) in &self.streams {
            let account = ACCOUNTS[stream.1];
            feeders.entry(account).or_default().insert(*stream);
            for fact in moves {
                if let Move::MoveTo(to, _) = fact {
                    feeders.entry(to).or_default().insert(*stream);
                }
            }
        }
        let alone = |account: &&str| feeders.get(account).is_some_and(|from| from.len() == 1);
        ACCOUNTS.into_iter().filter(alone).collect()
    }

    /// Returns the final balance of each account, in any order.
    fn balances(&self) -> BTreeMap<String, i64> {
        let mut balances = BTreeMap::new();
        for ((_, account), moves) in &self.streams {
            let account = ACCOUNTS[*account];
            for fact in moves {
                let own = balances.entry(account.to_owned()).or_default();
                match fact {
                    Move::Add(amount) => *own += amount,
                    Move::MoveTo(other, amount) => {
                        *own += amount;
                        *balances.entry(other.clone()).or_default() -= amount;
                    }
                    _ => {}
                }
            }
        }
        balances
    }
}

fn now() -> Timestamp {
    "2026-11-23T10:00:00Z".parse().unwrap()
}

/// Creates an engine whose cache and look-ahead are so small that rows are dropped and deferred events left for later.
fn engine<S: Store>(store: &S) -> Engine<Ledger, S> {
    let limits = Limits {
        remembered_rows: 3,
        deferred_per_stream: 2,
        due_events: 3,
        ..Limits::default()
    };
    Engine::new(Ledger, store.clone(), limits)
}

fn incoming(events: &[Event]) -> Vec<InboundMessage> {
    let delivery = |event: &Event| InboundMessage::event(event.clone(), Sender::Anonymous);
    events.iter().map(delivery).collect()
}

/// Processes the events by two engines in turns, in the batches of the case. Returns the final accounts.
async fn worked<S: Store>(store: &S, case: &Case, events: &[Event]) -> BTreeMap<String, Account> {
    let mut engines = [engine(store), engine(store)];
    let mut rest = events;
    for turn in 0.. {
        if rest.is_empty() {
            break;
        }
        let size = case.cuts[turn % case.cuts.len()].min(rest.len());
        let (batch, later) = rest.split_at(size);
        rest = later;
        let engine = &mut engines[turn % 2];
        let mut batch = engine.read_batch(incoming(batch));
        engine.process(&mut batch, now(), 0.5).await.unwrap();
        if case.due_after[turn % case.due_after.len()] {
            let other = &mut engines[(turn + 1) % 2];
            other.process_due(now(), 0.5).await.unwrap();
        }
    }
    // The clock is frozen and no sweep runs: deferred events must become due by themselves.
    while engines[0].process_due(now(), 0.5).await.unwrap().is_some() {}
    ledger::accounts(store).await.into_iter().collect()
}

async fn check<S: Store>(store: &S, case: &Case) -> Result<(), TestCaseError> {
    let came = case.as_they_come();
    let accounts = worked(store, case, &came).await;
    let summary = store.summary(now()).await.unwrap();
    prop_assert_eq!(summary.usage.deferred.rows, 0, "something is still held");
    prop_assert_eq!(summary.usage.dead_letters.rows, 0);
    let events = case.in_order().len() as u64;
    prop_assert_eq!(summary.tally.applied, events);
    let tells = case.streams.values().flatten();
    let tells = tells.filter(|fact| **fact == Move::Tell).count() as u64;
    prop_assert_eq!(summary.usage.outbox.rows, tells);

    let quiet = MemoryStore::new("ledger");
    let reference = worked(&quiet, case, &case.in_order()).await;
    for account in case.fed_by_one() {
        prop_assert_eq!(&accounts[account], &reference[account], "{}", account);
    }
    for (account, balance) in case.balances() {
        prop_assert_eq!(accounts[&account].balance, balance, "{}", account);
    }
    for ((source, account), moves) in &case.streams {
        let prefix = format!("{} ", SOURCES[*source]);
        let applied: Vec<_> = accounts[ACCOUNTS[*account]]
            .entries
            .iter()
            .filter_map(|entry| entry.strip_prefix(&prefix)?.parse::<usize>().ok())
            .collect();
        let expected: Vec<_> = (1..=moves.len()).collect();
        prop_assert_eq!(applied, expected, "{} {}", source, account);
    }
    Ok(())
}

/// Tries this many cases, each on a store of its own.
fn try_on<S: Store>(cases_to_try: u32, new_store: impl Fn() -> S) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let config = ProptestConfig {
        failure_persistence: None,
        ..ProptestConfig::with_cases(cases_to_try)
    };
    TestRunner::new(config)
        .run(&cases(), |case| {
            runtime.block_on(check(&new_store(), &case))
        })
        .unwrap();
}

#[test]
fn interleavings_end_alike_in_memory() {
    try_on(500, || MemoryStore::new("ledger"));
}

#[test]
fn interleavings_end_alike_in_sqlite() {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR"))
        .join(format!("interleavings-{}", std::process::id()));
    let number = Cell::new(0);
    try_on(40, || {
        number.set(number.get() + 1);
        let role = format!("ledger-{}", number.get());
        SqliteStore::open(&folder, &role, &Options::default()).unwrap()
    });
    std::fs::remove_dir_all(folder).unwrap();
}
