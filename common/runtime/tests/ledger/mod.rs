//! A role for tests: accounts that record the applied events, and events with every kind of failure.
#![allow(dead_code, reason = "each test file uses another part of it")]
#![allow(clippy::unwrap_used, reason = "a helper that fails fails its test")]

pub mod labor;

use doorstep_event::{
    Contract, ContractError, Event, Rejection, Request, RequestContract, RequestId, RequestKind,
    Sequence, Source, StreamKey, Subject, Timestamp,
};
use doorstep_runtime::{
    CommandOutcome, Effects, HandlerError, NewEvent, Reading, Role, States, reply,
    task::TaskOutcome,
};
use doorstep_store::{EntityKey, Store};
use serde::{Deserialize, Serialize};

use labor::{Labor, LaborDone, task_id};
use labor::{hear, work};

/// The effect of an event on its account.
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
    /// Waits for that account, which `keys` does not name.
    AwaitUnnamed(String),
    /// Is always rejected.
    Poison,
    /// Is rejected until the account has seen [`Move::Fix`].
    PoisonUntilFixed,
    /// Lets [`Move::PoisonUntilFixed`] through.
    Fix,
    Panic,
    /// Crashes the process: no panic that could be caught.
    Kill,
    /// Removes the account's state.
    Remove,
    /// Emits an event on `told/<subject>`.
    Tell,
    /// Adds an amount to this account and takes it from that one.
    MoveTo(String, i64),
    /// Schedules another one on this account, this many seconds later.
    Later(u64, Box<Move>),
    /// Starts a task of this id.
    Start(String, Labor),
    /// Cancels the task of this id.
    CancelTask(String),
}

impl Contract for Move {
    const TYPE: &'static str = "account.moved.v1";
    const REQUIRES_SEQUENCE: bool = false;
}

/// The event that [`Move::Tell`] emits.
#[derive(Debug, Serialize, Deserialize)]
pub struct Notice {
    /// The source and sequence of the event that caused it.
    pub of: String,
}

impl Contract for Notice {
    const TYPE: &'static str = "told.once.v1";
    const REQUIRES_SEQUENCE: bool = true;
}

/// The request of a command to an account.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Bid {
    /// Adds an amount, and emits an event on `told/<account>`.
    Deposit(i64),
    /// Takes an amount, if it is there.
    Withdraw(i64),
    /// Is rejected until the account is open.
    AfterOpen,
    /// Schedules this on the account, this many seconds later.
    Later(u64, Move),
    Nothing,
    Panic,
    /// Crashes the process: no panic that could be caught.
    Kill,
    /// Removes the account's state.
    Remove,
    /// Starts a task of this id.
    Start(String, Labor),
    /// Cancels the task of this id.
    CancelTask(String),
}

/// A command to the ledger.
#[derive(Debug)]
pub enum LedgerCommand {
    Order(Order),
    LaborDone(LaborDone),
    Outcome(TaskOutcome),
}

/// A command to an account.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Order {
    pub account: String,
    pub bid: Bid,
}

impl RequestContract for Order {
    const TYPE: &'static str = "ledger.order.v1";
    const ACT: RequestKind = RequestKind::Command;
    type Reply = AccountStatus;

    fn check(&self) -> Result<(), String> {
        match self.bid {
            Bid::Deposit(amount) if amount <= 0 => Err(format!("{amount} is not positive")),
            _ => Ok(()),
        }
    }
}

/// A query about an account.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct QueryAccount {
    pub account: String,
}

impl RequestContract for QueryAccount {
    const TYPE: &'static str = "ledger.ask.v1";
    const ACT: RequestKind = RequestKind::Query;
    type Reply = AccountStatus;
}

/// The status of an account.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AccountStatus {
    pub balance: i64,
    /// The number of applied entries.
    pub entries: usize,
}

/// An account.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Account {
    /// The sum of the added amounts.
    pub balance: i64,
    /// Every applied event, in order, as `SOURCE SEQUENCE`.
    pub entries: Vec<String>,
    /// Set by [`Move::Open`].
    pub open: bool,
    /// Set by [`Move::Fix`].
    pub fixed: bool,
    /// Every end of a task that it has heard of, as `TASK RESULT` or `TASK ENDING`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ends: Vec<String>,
}

pub struct Ledger;

impl Role for Ledger {
    type Payload = Move;
    type Command = LedgerCommand;
    type Query = QueryAccount;
    type State = Account;

    fn name(&self) -> &'static str {
        "ledger"
    }

    fn read(&self, event: &Event) -> Result<Reading<Move>, ContractError> {
        if event.event_type.as_str() == "account.ignored.v1" {
            return Ok(Reading::Ignored);
        }
        Move::read(event).map(Reading::Handled)
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
        now: Timestamp,
    ) -> Result<Effects, HandlerError> {
        let key = EntityKey::from(&event.subject);
        let mut account = states.get(&key).cloned().unwrap_or_default();
        let name = match event.sequence {
            None if event.id.as_str().starts_with("scheduled-") => event.id.to_string(),
            sequence => format!("{} {}", event.source, sequence.map_or(0, Sequence::get)),
        };
        let mut later = Effects::none();
        let mut emits = Vec::new();
        match fact {
            Move::Add(amount) => account.balance += amount,
            Move::Open => account.open = true,
            Move::AfterOpen if !account.open => return Err(HandlerError::Retry(key)),
            Move::AfterOpen => {}
            Move::AwaitUnnamed(other) => {
                return Err(HandlerError::Retry(EntityKey::new(other.as_str())));
            }
            Move::Poison => return Err(HandlerError::reject("poison")),
            Move::PoisonUntilFixed if !account.fixed => {
                return Err(HandlerError::reject("not fixed"));
            }
            Move::PoisonUntilFixed => {}
            Move::Fix => account.fixed = true,
            Move::Remove => {
                *states.first_mut() = None;
                return Ok(emits.into());
            }
            Move::Kill => std::process::abort(),
            Move::Panic => panic!("this event makes the handler panic"),
            Move::Tell => emits.push(NewEvent::from_contract(
                &Subject::new(format!("told/{}", event.subject))
                    .map_err(|e| HandlerError::reject(e.to_string()))?,
                &Notice { of: name.clone() },
            )?),
            Move::Start(id, labor) => later.start(task_id(id), &event.subject, labor)?,
            Move::CancelTask(id) => later.cancel(task_id(id)),
            Move::Later(seconds, fact) => later.schedule(
                now + std::time::Duration::from_secs(*seconds),
                &event.subject,
                fact.as_ref(),
            )?,
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
        later.events = emits;
        Ok(later)
    }

    fn read_command(&self, request: &Request) -> Result<LedgerCommand, ContractError> {
        match request.kind.as_str() {
            LaborDone::TYPE => LaborDone::read(request).map(LedgerCommand::LaborDone),
            TaskOutcome::TYPE => TaskOutcome::read(request).map(LedgerCommand::Outcome),
            _ => Order::read(request).map(LedgerCommand::Order),
        }
    }

    fn command_keys(&self, _: &Request, command: &LedgerCommand) -> Vec<EntityKey> {
        let account = match command {
            LedgerCommand::Order(order) => order.account.as_str(),
            LedgerCommand::LaborDone(done) => done.account.as_str(),
            LedgerCommand::Outcome(outcome) => outcome.subject.as_str(),
        };
        vec![EntityKey::new(account)]
    }

    fn execute(
        &self,
        states: &mut States<Account>,
        request: &Request,
        command: &LedgerCommand,
        now: Timestamp,
    ) -> Result<CommandOutcome, Rejection> {
        let order = match command {
            LedgerCommand::Order(order) => order,
            LedgerCommand::LaborDone(done) => return work(states, done),
            LedgerCommand::Outcome(outcome) => return hear(states, outcome),
        };
        let key = EntityKey::new(order.account.as_str());
        let subject = Subject::new(order.account.as_str())?;
        let mut account = states.get(&key).cloned().unwrap_or_default();
        let name = format!("{} {}", request.caller, request.id);
        let mut effects = Effects::none();
        match &order.bid {
            Bid::Deposit(amount) => {
                account.balance += amount;
                let told = Subject::new(format!("told/{subject}"))?;
                effects.publish(&told, &Notice { of: name.clone() })?;
            }
            Bid::Withdraw(amount) if *amount > account.balance => {
                let detail = format!("{} is less than {amount}", account.balance);
                return Err(Rejection::new("short", detail));
            }
            Bid::Withdraw(amount) => account.balance -= amount,
            Bid::AfterOpen if !account.open => return Err(HandlerError::Retry(key).into()),
            Bid::AfterOpen => {}
            Bid::Later(seconds, fact) => {
                let due = now + std::time::Duration::from_secs(*seconds);
                effects.schedule(due, &subject, fact)?;
            }
            Bid::Start(id, labor) => effects.start(task_id(id), &subject, labor)?,
            Bid::CancelTask(id) => effects.cancel(task_id(id)),
            Bid::Nothing => return CommandOutcome::new::<Order>(&standing(&account), effects),
            Bid::Panic => panic!("this command makes the handler panic"),
            Bid::Kill => std::process::abort(),
            Bid::Remove => {
                *states.first_mut() = None;
                return CommandOutcome::new::<Order>(&standing(&account), effects);
            }
        }
        account.entries.push(name);
        let standing = standing(&account);
        states.put(&key, account);
        CommandOutcome::new::<Order>(&standing, effects)
    }

    fn read_query(&self, request: &Request) -> Result<QueryAccount, ContractError> {
        QueryAccount::read(request)
    }

    fn query_keys(&self, _: &Request, ask: &QueryAccount) -> Vec<EntityKey> {
        vec![EntityKey::new(ask.account.as_str())]
    }

    fn query(
        &self,
        states: &States<Account>,
        _: &Request,
        ask: &QueryAccount,
        _: Timestamp,
    ) -> Result<Vec<u8>, Rejection> {
        match states.get(&EntityKey::new(ask.account.as_str())) {
            None => Err(Rejection::new("unknown_account", ask.account.clone())),
            Some(account) if account.open && account.fixed => panic!("this query makes it panic"),
            Some(account) => reply::<QueryAccount>(&standing(account)),
        }
    }
}

/// A part of the ledger that a test replaces.
pub trait Replace: Send + Sync + 'static {
    fn handle(
        &self,
        states: &mut States<Account>,
        event: &Event,
        fact: &Move,
        now: Timestamp,
    ) -> Result<Effects, HandlerError>;

    fn execute(
        &self,
        states: &mut States<Account>,
        request: &Request,
        command: &LedgerCommand,
        now: Timestamp,
    ) -> Result<CommandOutcome, Rejection> {
        Ledger.execute(states, request, command, now)
    }
}

/// The ledger with a replaced part.
pub struct LedgerWith<T>(pub T);

impl<T: Replace> Role for LedgerWith<T> {
    type Payload = Move;
    type Command = LedgerCommand;
    type Query = QueryAccount;
    type State = Account;

    fn name(&self) -> &'static str {
        Ledger.name()
    }

    fn read(&self, event: &Event) -> Result<Reading<Move>, ContractError> {
        Ledger.read(event)
    }

    fn keys(&self, event: &Event, fact: &Move) -> Vec<EntityKey> {
        Ledger.keys(event, fact)
    }

    fn handle(
        &self,
        states: &mut States<Account>,
        event: &Event,
        fact: &Move,
        now: Timestamp,
    ) -> Result<Effects, HandlerError> {
        self.0.handle(states, event, fact, now)
    }

    fn read_command(&self, request: &Request) -> Result<LedgerCommand, ContractError> {
        Ledger.read_command(request)
    }

    fn command_keys(&self, request: &Request, command: &LedgerCommand) -> Vec<EntityKey> {
        Ledger.command_keys(request, command)
    }

    fn execute(
        &self,
        states: &mut States<Account>,
        request: &Request,
        command: &LedgerCommand,
        now: Timestamp,
    ) -> Result<CommandOutcome, Rejection> {
        self.0.execute(states, request, command, now)
    }
}

fn standing(account: &Account) -> AccountStatus {
    AccountStatus {
        balance: account.balance,
        entries: account.entries.len(),
    }
}

/// Returns a request under this id, first sent at that time, with a deadline ten seconds later.
#[track_caller]
pub fn request<C: RequestContract>(caller: &str, id: &str, time: Timestamp, asked: &C) -> Request {
    Request::from_contract(
        &Source::new(caller).unwrap(),
        RequestId::new(id).unwrap(),
        time,
        time + std::time::Duration::from_secs(10),
        asked,
    )
    .unwrap()
}

/// Returns a command to an account.
#[track_caller]
pub fn order(id: &str, time: Timestamp, account: &str, bid: Bid) -> Request {
    let account = account.to_owned();
    request("gateway/1", id, time, &Order { account, bid })
}

/// Returns an event of this source with this sequence.
#[track_caller]
pub fn event(source: &str, subject: &str, sequence: u64, fact: &Move) -> Event {
    Event::from_contract(
        &Source::new(source).unwrap(),
        &Subject::new(subject).unwrap(),
        Sequence::new(sequence).unwrap(),
        "2026-11-23T09:00:00Z".parse().unwrap(),
        fact,
    )
    .unwrap()
}

/// Returns the stream of a source about a subject.
#[track_caller]
pub fn stream(source: &str, subject: &str) -> StreamKey {
    StreamKey {
        source: Source::new(source).unwrap(),
        subject: Subject::new(subject).unwrap(),
    }
}

/// Returns every account in a store.
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

/// Returns the entries of an account, in order.
pub async fn entries<S: Store>(store: &S, account: &str) -> Vec<String> {
    accounts(store)
        .await
        .into_iter()
        .find(|(key, _)| key == account)
        .map(|(_, account)| account.entries)
        .unwrap_or_default()
}
