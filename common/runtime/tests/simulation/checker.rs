//! The invariants: checked at each ack, and after draining.

use std::collections::{BTreeMap, BTreeSet};

use doorstep_event::{Event, Sequence, StreamKey, headers::Decoded};
use doorstep_runtime::InboundMessage;
use doorstep_store::{DeadLetterFilter, OutboxKind, ReadSet, Store};

use super::{
    ended,
    executed::{self, CALLER},
    executor::finish,
    input::{InputKind, Meant},
    queue::Message,
    world::Environment,
};
use crate::ledger::{
    self, Account, Bid, Move, Notice,
    labor::{Labor, Twist},
};

/// No delivery is acked before its event is durably applied, deferred, dead-lettered or dropped.
pub fn settled(world: &mut Environment, messages: &[Message]) {
    for message in messages {
        if let Err(why) = durable(world, &message.incoming) {
            world
                .history
                .violations
                .push(format!("settled too early: {why}: {:?}", message.incoming));
        }
    }
}

fn durable(world: &Environment, incoming: &InboundMessage) -> Result<(), String> {
    let event = match &incoming.decoded {
        Decoded::Valid(event) | Decoded::Invalid(event, _) => event,
        Decoded::Undecodable { body, .. } => {
            let body = String::from_utf8_lossy(body);
            let made = world.history.dead.values();
            return match made
                .filter(|(dead, _)| *dead.body == *body.as_bytes())
                .count()
            {
                0 => Err(format!("no dead letter says {body}")),
                _ => Ok(()),
            };
        }
    };
    let Some(sequence) = event.sequence else {
        let ask = ReadSet {
            seen: vec![(event.source.clone(), event.id.clone())],
            ..ReadSet::default()
        };
        let loaded = finish(world.store.load(ask)).unwrap();
        let pruned = world.shape.jumps && loaded.pruned_to.seen.is_some();
        return if loaded.seen[0] || pruned {
            Ok(())
        } else {
            Err("its id is not marked as seen".into())
        };
    };
    let ask = ReadSet {
        streams: vec![event.stream()],
        deferred_at: vec![(event.stream(), sequence)],
        ..ReadSet::default()
    };
    let loaded = finish(world.store.load(ask)).unwrap();
    let stream = &loaded.streams[0];
    if sequence.get() <= stream.cursor {
        return Ok(());
    }
    if stream.blocked.is_some() && sequence.get() == stream.cursor + 1 {
        return Ok(());
    }
    match &loaded.deferred_at[0] {
        Some((id, epoch)) if *id == event.id && *epoch == event.epoch => Ok(()),
        Some(_) if is_dead(world, event) => Ok(()),
        Some((id, _)) => Err(format!("{id} is held in its place")),
        None => Err(format!(
            "it is not held, and the cursor is at {}",
            stream.cursor
        )),
    }
}

fn is_dead(world: &Environment, event: &Event) -> bool {
    let key = (event.source.to_string(), event.id.clone());
    world.history.skipped_ids.contains(&key)
        || finish(
            world
                .store
                .dead_letters(DeadLetterFilter::All, None, usize::MAX),
        )
        .unwrap()
        .iter()
        .any(|dead| dead.event.as_ref().is_some_and(|e| e.id == event.id))
}

/// Checks the final state after draining, after any course of events.
pub fn drained(world: &Environment) -> Vec<String> {
    let mut wrong = world.history.violations.clone();
    let accounts: BTreeMap<_, _> = finish(ledger::accounts(&world.store)).into_iter().collect();
    wrong.extend(leftovers(world));
    wrong.extend(executed::commands(world, &accounts));
    wrong.extend(streams(world, &accounts));
    wrong.extend(loose(world, &accounts));
    wrong.extend(states(world, &accounts));
    wrong.extend(emitted(world, &accounts));
    wrong.extend(dead_letters(world));
    wrong.extend(ended::tasks(world, &accounts));
    wrong
}

fn leftovers(world: &Environment) -> Vec<String> {
    let summary = finish(world.store.summary(world.clock)).unwrap();
    let usage = summary.usage;
    [
        ("held", usage.deferred.rows),
        ("held bytes", usage.deferred.bytes),
        ("dead", usage.dead_letters.rows),
        ("dead bytes", usage.dead_letters.bytes),
        ("owed", usage.outbox.rows),
        ("owed bytes", usage.outbox.bytes),
        ("blocked", summary.blocked),
        ("gaps", summary.gaps),
        ("due", summary.held_due),
        ("scheduled", usage.timers.rows),
        ("scheduled bytes", usage.timers.bytes),
        ("in the queue", u64::from(!world.queue.is_empty())),
        (
            "made due by the sweep",
            finish(world.store.repair_due(world.clock)).unwrap(),
        ),
    ]
    .into_iter()
    .filter(|(_, left)| *left > 0)
    .map(|(what, left)| format!("left over: {left} {what}"))
    .collect()
}

type Accounts = BTreeMap<String, Account>;

fn entries<'a>(accounts: &'a Accounts, account: &str) -> &'a [String] {
    accounts.get(account).map_or(&[], |a| &a.entries)
}

/// Every event of each stream was applied once and in order, except the skipped ones.
fn streams(world: &Environment, accounts: &Accounts) -> Vec<String> {
    let mut wrong = Vec::new();
    for (key, meant) in &world.input.streams {
        let prefix = format!("{} ", key.source);
        let applied: Vec<u64> = entries(accounts, key.subject.as_str())
            .iter()
            .filter_map(|entry| entry.strip_prefix(&prefix)?.parse().ok())
            .collect();
        if !applied.is_sorted_by(|a, b| a < b) {
            wrong.push(format!("{key} was applied in the order {applied:?}"));
        }
        for (index, meant) in meant.iter().enumerate() {
            let number = index as u64 + 1;
            let skipped = world.history.skipped.contains(&(key.clone(), number));
            let times = applied.iter().filter(|n| **n == number).count();
            if times != expected_times(meant, skipped) {
                wrong.push(format!(
                    "{key} {number} {meant:?} was applied {times} times, skipped: {skipped}"
                ));
            }
            if !skipped
                && (meant.form == InputKind::Spoiled || kills_or_poisons(&meant.fact))
                && meant.form != InputKind::Ignored
            {
                wrong.push(format!("{key} {number} {meant:?} was passed by nobody"));
            }
        }
        wrong.extend(cursor(world, key, meant.len() as u64));
    }
    wrong
}

fn expected_times(meant: &Meant, skipped: bool) -> usize {
    usize::from(!skipped && meant.form == InputKind::Sound && !kills_or_poisons(&meant.fact))
}

/// Returns whether it can never be applied.
fn kills_or_poisons(fact: &Move) -> bool {
    matches!(fact, Move::Poison | Move::Kill)
}

fn cursor(world: &Environment, key: &StreamKey, length: u64) -> Option<String> {
    let ask = ReadSet {
        streams: vec![key.clone()],
        ..ReadSet::default()
    };
    let row = finish(world.store.load(ask)).unwrap().streams.remove(0);
    (row.cursor != length).then(|| format!("{key}: the cursor is at {} of {length}", row.cursor))
}

/// Every event without a sequence was applied once, or was a dead letter that the operator skipped.
fn loose(world: &Environment, accounts: &Accounts) -> Vec<String> {
    let mut wrong = Vec::new();
    for loose in &world.input.loose {
        let name = format!("{} 0", loose.source);
        let times = entries(accounts, &loose.account)
            .iter()
            .filter(|entry| **entry == name)
            .count();
        let skipped = world
            .history
            .skipped_ids
            .iter()
            .any(|(source, _)| *source == loose.source);
        // An event redelivered after its id was pruned is a dead letter as well.
        let twice_told = world.shape.jumps && times == 1;
        if times + usize::from(skipped && !twice_told) != 1 {
            wrong.push(format!(
                "{loose:?} was applied {times} times, skipped: {skipped}"
            ));
        }
    }
    wrong
}

/// Returns the fact behind an entry of an account.
pub fn fact<'a>(world: &'a Environment, account: &str, entry: &str) -> Option<&'a Move> {
    let (source, number) = entry.split_once(' ')?;
    let number: u64 = number.parse().ok()?;
    match Sequence::new(number) {
        Some(_) => {
            let stream = world.input.streams.get(&ledger::stream(source, account))?;
            Some(&stream.get(usize::try_from(number).ok()? - 1)?.fact)
        }
        None => {
            let loose = world.input.loose.iter().find(|l| l.source == source)?;
            Some(&loose.fact)
        }
    }
}

/// The states follow from the applied events: sums agree, and no event was applied before the one that it waits for.
fn states(world: &Environment, accounts: &Accounts) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut balances: BTreeMap<&str, i64> = BTreeMap::new();
    for (key, account) in accounts {
        let (mut open, mut fixed) = (false, false);
        match executed::scheduled(world, key, account) {
            Ok(sum) => *balances.entry(key).or_default() += sum,
            Err(why) => wrong.push(why),
        }
        for entry in &account.entries {
            if entry.starts_with("scheduled-") {
                continue;
            }
            if let Some(id) = entry.strip_prefix(CALLER) {
                match world.callers.executed(id).map(|order| order.bid) {
                    Some(Bid::Deposit(amount)) => *balances.entry(key).or_default() += amount,
                    Some(Bid::Withdraw(amount)) => *balances.entry(key).or_default() -= amount,
                    Some(Bid::AfterOpen) if !open => {
                        wrong.push(format!("{key}: {entry} came too soon"));
                    }
                    _ => {}
                }
                continue;
            }
            let Some(fact) = fact(world, key, entry) else {
                wrong.push(format!("{key} has {entry}, which nobody has published"));
                continue;
            };
            match fact {
                Move::Add(amount) => *balances.entry(key).or_default() += amount,
                Move::MoveTo(other, amount) => {
                    *balances.entry(key).or_default() += amount;
                    *balances.entry(other).or_default() -= amount;
                }
                Move::Open => open = true,
                Move::Fix => fixed = true,
                Move::AfterOpen if !open => wrong.push(format!("{key}: {entry} came too soon")),
                Move::PoisonUntilFixed if !fixed => {
                    wrong.push(format!("{key}: {entry} came too soon"));
                }
                _ => {}
            }
        }
        if (open, fixed) != (account.open, account.fixed) {
            wrong.push(format!("{key} is not what its entries make of it"));
        }
    }
    for (key, account) in accounts {
        let sum = balances.get(key.as_str()).copied().unwrap_or_default();
        if sum != account.balance {
            let balance = account.balance;
            wrong.push(format!("{key} has {balance}, its events say {sum}"));
        }
    }
    let entries = accounts.values().flat_map(|account| &account.entries);
    let applied = entries.filter(|entry| !entry.starts_with(CALLER)).count();
    if applied as u64 != world.history.tally.applied {
        let tally = world.history.tally.applied;
        wrong.push(format!("{applied} were applied, the tally says {tally}"));
    }
    wrong
}

/// The broker has every emitted event: numbered without gaps, one content per id, one event per cause.
fn emitted(world: &Environment, accounts: &Accounts) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut contents: BTreeMap<(String, String), &Event> = BTreeMap::new();
    let mut copies = BTreeSet::new();
    for row in &world.published {
        match row {
            OutboxKind::Event(event) => {
                let id = (event.source.to_string(), event.id.to_string());
                let first = contents.entry(id).or_insert(event);
                if *first != event {
                    wrong.push(format!("two contents: {first:?} and {event:?}"));
                }
            }
            OutboxKind::DeadCopy { id, .. } => {
                copies.insert(id.clone());
            }
        }
    }
    let mut numbers: BTreeMap<&str, Vec<u64>> = BTreeMap::new();
    let mut emitted: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for event in contents.values() {
        let subject = event.subject.as_str();
        let number = event.sequence.map_or(0, Sequence::get);
        numbers.entry(subject).or_default().push(number);
        let fact: Notice = serde_json::from_slice(&event.data).unwrap();
        emitted.entry(subject).or_default().push(fact.of);
    }
    for (subject, numbers) in &mut numbers {
        numbers.sort_unstable();
        if !(1..=numbers.len() as u64).eq(numbers.iter().copied()) {
            wrong.push(format!("{subject} was published with numbers {numbers:?}"));
        }
    }
    for (key, account) in accounts {
        let tells = |entry: &&String| match entry.strip_prefix(CALLER) {
            Some(id) => matches!(
                world.callers.executed(id).map(|order| order.bid),
                Some(Bid::Deposit(_))
            ),
            None => matches!(fact(world, key, entry), Some(Move::Tell)),
        };
        let mut expected: Vec<_> = account.entries.iter().filter(tells).cloned().collect();
        let mut emitted = emitted
            .remove(format!("told/{key}").as_str())
            .unwrap_or_default();
        expected.sort_unstable();
        emitted.sort_unstable();
        if expected != emitted {
            wrong.push(format!(
                "{key} was to tell {expected:?}, and told {emitted:?}"
            ));
        }
    }
    if !emitted.is_empty() {
        wrong.push(format!("told of nothing that was applied: {emitted:?}"));
    }
    for id in world.history.dead.keys().filter(|id| !copies.contains(*id)) {
        wrong.push(format!("no copy of dead letter {id} was published"));
    }
    wrong
}

/// Each rejection is one dead letter.
fn dead_letters(world: &Environment) -> Vec<String> {
    let mut wrong = Vec::new();
    for (id, (_, times)) in &world.history.dead {
        // Its message may come again after its id was pruned and the dead letter was resolved.
        let of_a_stream = world.history.dead[id].0.blocks;
        if *times != 1 && (of_a_stream || !world.shape.jumps) {
            wrong.push(format!("dead letter {id} was made {times} times"));
        }
    }
    for (dead, _) in world.history.dead.values() {
        let kills = dead
            .event
            .as_ref()
            .is_some_and(|event| serde_json::from_slice(&event.data).ok() == Some(Move::Kill));
        // A task runs beside events, and counts as the cause if one of these crashes its process.
        let kills = kills
            || dead.task.as_ref().is_some_and(|id| {
                world.shape.deaths || world.history.tasks.blameless.contains(id.as_str())
            })
            || dead.event.as_ref().is_some_and(|event| {
                let labor = serde_json::from_slice::<Labor>(&event.data);
                labor.is_ok_and(|labor| matches!(labor.twist, Twist::Kills | Twist::KillsRole))
            });
        // If a process is crashed from outside while it tries an event alone, the event counts as the cause.
        if dead.reason == "poison" && !kills && !world.shape.crashes {
            wrong.push(format!("innocent, and yet it was condemned: {dead:?}"));
        }
    }
    for body in &world.input.unreadable {
        let made = world.history.dead.values();
        let times = made
            .filter(|(dead, _)| dead.event.is_none() && dead.body == body.as_bytes())
            .count();
        if times != 1 {
            wrong.push(format!("unreadable {body:?} was {times} dead letters"));
        }
    }
    wrong
}
