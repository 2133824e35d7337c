//! The invariants of commands and their scheduled events, checked after draining.

use std::collections::{BTreeMap, BTreeSet};

use doorstep_event::{Rejection, RequestResult};
use doorstep_store::{ReadSet, Store};

use super::{callers::Given, executor::finish, world::Environment};
use crate::ledger::{Account, Bid, Move};

type Accounts = BTreeMap<String, Account>;

/// The prefix of a command's entry, before its id.
pub const CALLER: &str = "gateway/1 ";

/// No reply is sent before it is in the store.
pub fn replied(world: &mut Environment, given: &Given, answer: &RequestResult) {
    let Ok(reply) = answer else { return };
    let request = &given.request;
    let ask = ReadSet {
        replies: vec![(request.caller.clone(), request.id.clone())],
        ..ReadSet::default()
    };
    let mut loaded = finish(world.store.load(ask)).unwrap();
    let stored = loaded.replies.remove(0);
    if stored.is_none() && world.shape.jumps && loaded.pruned_to.replies.is_some() {
        return;
    }
    if stored.is_none_or(|stored| stored.reply != *reply) {
        let violation = format!("replied too early: {request:?}");
        world.history.violations.push(violation);
    }
}

/// Each command was executed once if it was ever replied to, and otherwise never; and its caller has got the same reply
/// each time.
pub fn commands(world: &Environment, accounts: &Accounts) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut replies: BTreeMap<&str, Vec<(usize, &bytes::Bytes)>> = BTreeMap::new();
    // If a reply was pruned, its caller cannot learn whether the command was executed.
    let mut untold = BTreeSet::new();
    for (number, request) in world.callers.orders.iter().enumerate() {
        let bid = world.callers.bid(number).bid;
        let replies = replies.entry(request.id.as_str()).or_default();
        let Some(answers) = world.callers.answers.get(&number) else {
            wrong.push(format!("{request:?} was never answered"));
            continue;
        };
        let before = world.callers.replies.get(&number).into_iter().flatten();
        for answer in before.chain(answers) {
            match answer {
                Ok(reply) => replies.push((number, reply)),
                Err(rejected) if rejected.code == Rejection::FAILED => {
                    // A crashing command is known by its id alone.
                    let kills = world.callers.is_under_one_id_with(number, &Bid::Kill);
                    let blamed = bid == Bid::Panic || kills;
                    // If a process is crashed from outside while it tries a command, the command counts as the cause.
                    if !blamed && !world.shape.crashes {
                        wrong.push(format!("innocent, and yet refused: {request:?}"));
                    }
                }
                Err(rejected) if rejected.code == Rejection::TOO_OLD && world.shape.jumps => {
                    untold.insert(request.id.as_str());
                }
                Err(_) => {}
            }
        }
    }
    for (id, replies) in replies {
        let first = replies.first();
        if replies.iter().any(|reply| Some(reply) != first) {
            wrong.push(format!("{id} has several replies: {replies:?}"));
        }
        let name = format!("{CALLER}{id}");
        let entries = accounts.values().flat_map(|account| &account.entries);
        let times = entries.filter(|entry| **entry == name).count();
        let silent =
            first.is_some_and(|(number, _)| world.callers.bid(*number).bid == Bid::Nothing);
        let untold = first.is_none() && untold.contains(id);
        if times != usize::from(first.is_some() && !silent) && !(untold && times == 1) {
            wrong.push(format!("{id} was executed {times} times: {first:?}"));
        }
    }
    wrong
}

/// Each event scheduled on an account has fired once, or was skipped as a dead letter. Returns the sum of their
/// amounts.
pub fn scheduled(world: &Environment, key: &str, account: &Account) -> Result<i64, String> {
    let fires = |entry: &&String| entry.starts_with("scheduled-");
    let mut fired: Vec<_> = account.entries.iter().filter(fires).collect();
    let times = fired.len();
    fired.sort_unstable();
    fired.dedup();
    let mut expected = Vec::new();
    for id in account
        .entries
        .iter()
        .filter_map(|e| e.strip_prefix(CALLER))
    {
        if let Some(Bid::Later(_, fact)) = world.callers.executed(id).map(|order| order.bid) {
            expected.push(fact);
        }
    }
    let skipped: Vec<Move> = world
        .history
        .skipped_events
        .iter()
        .filter(|event| {
            event.subject.as_str() == key && event.id.as_str().starts_with("scheduled-")
        })
        .map(|event| serde_json::from_slice(&event.data).unwrap())
        .collect();
    if times != fired.len() || times + skipped.len() != expected.len() {
        return Err(format!(
            "{key}: {fired:?} of {expected:?} have fired {times} times, {skipped:?} were skipped"
        ));
    }
    let sum = |facts: &[Move]| -> i64 {
        facts
            .iter()
            .map(|fact| match fact {
                Move::Add(amount) => *amount,
                _ => 0,
            })
            .sum()
    };
    Ok(sum(&expected) - sum(&skipped))
}
