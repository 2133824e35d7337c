//! The invariants of tasks, checked after draining.

use std::collections::{BTreeMap, BTreeSet};

use super::{checker::fact, executed::CALLER, history::TaskEnding, world::Environment};
use crate::ledger::{Account, Bid, Move};

type Accounts = BTreeMap<String, Account>;

/// Each started task has one end, and its account has heard of it once.
pub fn tasks(world: &Environment, accounts: &Accounts) -> Vec<String> {
    let mut wrong = Vec::new();
    let history = &world.history.tasks;
    for (number, id) in &history.started {
        let times = history.ended.iter().filter(|end| end.number == *number);
        let times = times.count();
        if times != 1 {
            wrong.push(format!(
                "task {id}, number {number}, has ended {times} times"
            ));
        }
    }
    let ids: BTreeSet<&str> = history.started.values().map(String::as_str).collect();
    for id in ids {
        let heard = accounts.values().flat_map(|account| &account.ends);
        let heard: Vec<_> = heard
            .filter_map(|end| end.strip_prefix(id)?.strip_prefix(' '))
            .collect();
        let times = |what: fn(&TaskEnding) -> bool| {
            let of_id = |number: &u64| history.started.get(number).is_some_and(|of| of == id);
            let ended = history.ended.iter();
            ended
                .filter(|end| of_id(&end.number) && what(&end.ending))
                .count()
        };
        let results: Vec<_> = heard.iter().filter(|end| end.starts_with('#')).collect();
        let distinct: BTreeSet<_> = results.iter().collect();
        let outcome = |name| heard.iter().filter(|end| **end == name).count();
        let expected = [
            ("results", results.len(), times(|e| *e == TaskEnding::Done)),
            ("distinct results", distinct.len(), results.len()),
            (
                "Failed",
                outcome("Failed"),
                times(|e| *e == TaskEnding::Failed),
            ),
            (
                "Cancelled",
                outcome("Cancelled"),
                times(|e| *e == TaskEnding::Cancelled),
            ),
            (
                "Settled",
                outcome("SettledDone") + outcome("SettledFailed"),
                times(|e| *e == TaskEnding::Settled),
            ),
            (
                "Unknown",
                outcome("Unknown"),
                history.unknown.iter().filter(|of| *of == id).count(),
            ),
        ];
        for (what, found, expected) in expected {
            if found != expected {
                wrong.push(format!(
                    "{id} has {found} {what}, not {expected}: {heard:?}"
                ));
            }
        }
    }
    wrong.extend(outside(world));
    let causes = causes(world, accounts);
    if causes != history.causes {
        let found = history.causes;
        wrong.push(format!("{causes} causes have started tasks {found} times"));
    }
    wrong
}

/// Returns the number of applied events and executed commands that start a task.
fn causes(world: &Environment, accounts: &Accounts) -> usize {
    let starts = |key: &str, entry: &str| match entry.strip_prefix(CALLER) {
        Some(id) => matches!(
            world.callers.executed(id).map(|order| order.bid),
            Some(Bid::Start(..))
        ),
        None => matches!(fact(world, key, entry), Some(Move::Start(..))),
    };
    let of_account = |(key, account): (&String, &Account)| {
        let entries = account.entries.iter();
        entries.filter(|entry| starts(key, entry)).count()
    };
    accounts.iter().map(of_account).sum()
}

/// No attempt acts outside while an older one does, and none loses to an older one.
fn outside(world: &Environment) -> Vec<String> {
    let mut wrong = Vec::new();
    for newer in &world.outside {
        for older in &world.outside {
            let is_pair = older.number == newer.number && older.token < newer.token;
            if is_pair && older.end > newer.begin {
                wrong.push(format!("two attempts at once: {older:?} and {newer:?}"));
            }
        }
        let history = &world.history.tasks;
        let end = history.ended.iter().find(|end| end.number == newer.number);
        if let Some(end) = end
            && end.token < newer.token
        {
            wrong.push(format!("{end:?} was accepted although there was {newer:?}"));
        }
    }
    wrong
}
