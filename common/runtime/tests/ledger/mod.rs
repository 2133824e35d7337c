//! A role for tests: accounts that write down what was applied to them, and events that bring every kind of trouble.
#![allow(dead_code, reason = "each test file uses another part of it")]
#![allow(clippy::unwrap_used, reason = "a helper that fails fails its test")]

use doorstep_event::{
    Contract, ContractError, Event, Sequence, Source, StreamKey, Subject, Timestamp,
};
use doorstep_runtime::{Effects, Emit, NoRequest, Reading, Refusal, Role, States};
use doorstep_store::{EntityKey, Store};
use serde::{Deserialize, Serialize};

/// What an event does to its account.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[allow(
    clippy::enum_variant_names,
    reason = "moving to another account is one of the moves"
)]
pub enum Move {
    /// Adds an amount.
    Add(i64),
    /// Opens the account for [`Move::AfterOpen`].
    Open,
    /// Waits until the account is open.
    AfterOpen,
    /// Is refused always.
    Poison,
    /// Is refused until the account has seen [`Move::Fix`].
    PoisonUntilFixed,
    /// Lets [`Move::PoisonUntilFixed`] through.
    Fix,
    /// Makes the handler panic.
    Panic,
    /// Ends the process: no panic that could be caught.
    Kill,
    /// Takes the account's state away.
    Remove,
    /// Emits an event on `told/<subject>`.
    Tell,
    /// Adds an amount to this account and takes it from that one.
    MoveTo(String, i64),
}

impl Contract for Move {
    const TYPE: &'static str = "account.moved.v1";
    const REQUIRES_SEQUENCE: bool = false;
}

/// What [`Move::Tell`] emits.
#[derive(Debug, Serialize, Deserialize)]
pub struct Told {
    /// The source and sequence of the event that it tells of.
    pub of: String,
}

impl Contract for Told {
    const TYPE: &'static str = "told.once.v1";
    const REQUIRES_SEQUENCE: bool = true;
}

/// An account.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Account {
    /// The sum of what was added.
    pub balance: i64,
    /// Every event applied, in order, as `SOURCE SEQUENCE`.
    pub entries: Vec<String>,
    /// [`Move::Open`] was applied.
    pub open: bool,
    /// [`Move::Fix`] was applied.
    pub fixed: bool,
}

/// The role.
pub struct Ledger;

impl Role for Ledger {
    type Fact = Move;
    type Command = NoRequest;
    type Query = NoRequest;
    type State = Account;

    fn name(&self) -> &'static str {
        "ledger"
    }

    fn read(&self, event: &Event) -> Result<Reading<Move>, ContractError> {
        if event.kind.as_str() == "account.ignored.v1" {
            return Ok(Reading::Ignored);
        }
        Move::read(event).map(Reading::Fact)
    }

    fn keys(&self, event: &Event, fact: &Move) -> Vec<EntityKey> {
        let mut keys = vec![EntityKey::from(&event.subject)];
        if let Move::MoveTo(other, _) = fact
            && other != event.subject.as_str()
        {
            keys.push(EntityKey::new(other.as_str()));
        }
        keys
    }

    fn handle(
        &self,
        states: &mut States<Account>,
        event: &Event,
        fact: &Move,
        _now: Timestamp,
    ) -> Result<Effects, Refusal> {
        let key = EntityKey::from(&event.subject);
        let mut account = states.get(&key).cloned().unwrap_or_default();
        let name = format!(
            "{} {}",
            event.source,
            event.sequence.map_or(0, Sequence::get)
        );
        let mut emits = Vec::new();
        match fact {
            Move::Add(amount) => account.balance += amount,
            Move::Open => account.open = true,
            Move::AfterOpen if !account.open => return Err(Refusal::NotYet(key)),
            Move::AfterOpen => {}
            Move::Poison => return Err(Refusal::never("poison")),
            Move::PoisonUntilFixed if !account.fixed => return Err(Refusal::never("not fixed")),
            Move::PoisonUntilFixed => {}
            Move::Fix => account.fixed = true,
            Move::Remove => {
                *states.first_mut() = None;
                return Ok(emits.into());
            }
            Move::Kill => std::process::abort(),
            Move::Panic => panic!("this event makes the handler panic"),
            Move::Tell => emits.push(Emit::of(
                &Subject::new(format!("told/{}", event.subject))
                    .map_err(|e| Refusal::never(e.to_string()))?,
                &Told { of: name.clone() },
            )?),
            Move::MoveTo(other, amount) => {
                account.balance += amount;
                let other = EntityKey::new(other.as_str());
                if other == key {
                    account.balance -= amount;
                } else {
                    let mut state = states.get(&other).cloned().unwrap_or_default();
                    state.balance -= amount;
                    states.put(&other, state);
                }
            }
        }
        account.entries.push(name);
        states.put(&key, account);
        Ok(emits.into())
    }
}

/// An event with this number from this source.
#[track_caller]
pub fn event(source: &str, subject: &str, sequence: u64, fact: &Move) -> Event {
    Event::of(
        &Source::new(source).unwrap(),
        &Subject::new(subject).unwrap(),
        Sequence::new(sequence).unwrap(),
        "2026-11-23T09:00:00Z".parse().unwrap(),
        fact,
    )
    .unwrap()
}

/// The stream of a source about a subject.
#[track_caller]
pub fn stream(source: &str, subject: &str) -> StreamKey {
    StreamKey {
        source: Source::new(source).unwrap(),
        subject: Subject::new(subject).unwrap(),
    }
}

/// Every account in a store.
pub async fn accounts<S: Store>(store: &S) -> Vec<(String, Account)> {
    store
        .entities(None, 100_000)
        .await
        .unwrap()
        .into_iter()
        .map(|row| {
            (
                row.key.to_string(),
                serde_json::from_slice(&row.state.unwrap()).unwrap(),
            )
        })
        .collect()
}

/// What was applied to an account, in order.
pub async fn entries<S: Store>(store: &S, account: &str) -> Vec<String> {
    accounts(store)
        .await
        .into_iter()
        .find(|(key, _)| key == account)
        .map(|(_, account)| account.entries)
        .unwrap_or_default()
}
