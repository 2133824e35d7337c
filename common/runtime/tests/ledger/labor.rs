//! The tasks of the ledger: their inputs, results and ends.

use doorstep_event::{
    ContractError, Event, Rejection, Request, RequestContract, RequestKind, Subject, Timestamp,
};
use doorstep_runtime::{
    CommandOutcome, Effects, HandlerError, Reading, Role, States,
    task::{Task, TaskContext, TaskError, TaskOutcome},
};
use doorstep_store::{EntityKey, TaskId};
use serde::{Deserialize, Serialize};

use super::{Account, Ledger, LedgerCommand, Move, QueryAccount};

/// A task of an account. Tests interpret it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Labor {
    /// The number of attempts that end with an error.
    pub errors: u32,
    pub twist: Twist,
}

/// The particularity of a task.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Twist {
    None,
    /// Fails for good.
    Fails,
    /// Crashes its process.
    Kills,
    /// Ends with an unknown effect.
    Unknown,
    /// The role rejects its result.
    Spoiled,
    /// The role panics over its result.
    Panics,
    /// The result crashes the process.
    KillsRole,
    /// The result starts a task of the same id.
    Again,
}

impl Task for Labor {
    const TYPE: &'static str = "ledger.labor.v1";
    type Resources = ();
    type Output = LaborDone;

    async fn run(self, _: TaskContext, (): ()) -> Result<LaborDone, TaskError> {
        Err(TaskError::Fail("it is not run here".to_owned()))
    }
}

/// The result of a task.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LaborDone {
    pub account: String,
    pub task: String,
    /// Tells results of one task apart.
    pub by: String,
    pub twist: Twist,
}

impl RequestContract for LaborDone {
    const TYPE: &'static str = "ledger.labor_done.v1";
    const ACT: RequestKind = RequestKind::Command;
    type Reply = ();
}

/// Returns the id of a task.
#[track_caller]
pub fn task_id(id: &str) -> TaskId {
    TaskId::new(id).unwrap()
}

/// Takes the result of a task.
pub(super) fn work(
    states: &mut States<Account>,
    done: &LaborDone,
) -> Result<CommandOutcome, Rejection> {
    let mut effects = Effects::none();
    match done.twist {
        Twist::Spoiled => return Err(Rejection::new("spoiled", "this result is rejected")),
        Twist::Panics => panic!("this result makes the handler panic"),
        Twist::KillsRole => std::process::abort(),
        Twist::Again => {
            let subject = Subject::new(done.account.as_str())?;
            let labor = Labor {
                errors: 0,
                twist: Twist::None,
            };
            effects.start(task_id(&done.task), &subject, &labor)?;
        }
        Twist::None | Twist::Fails | Twist::Kills | Twist::Unknown => {}
    }
    let account = states.first_mut().get_or_insert_default();
    account.ends.push(format!("{} {}", done.task, done.by));
    CommandOutcome::new::<LaborDone>(&(), effects)
}

/// Takes the outcome of a task. Some panic or are rejected.
pub(super) fn hear(
    states: &mut States<Account>,
    outcome: &TaskOutcome,
) -> Result<CommandOutcome, Rejection> {
    assert!(
        outcome.detail != "panic",
        "this outcome makes the handler panic"
    );
    if outcome.detail == "reject" {
        return Err(Rejection::new("unwanted", "this outcome is rejected"));
    }
    let account = states.first_mut().get_or_insert_default();
    account
        .ends
        .push(format!("{} {:?}", outcome.task, outcome.ending));
    CommandOutcome::new::<TaskOutcome>(&(), Effects::none())
}

/// The ledger with a query that shows the progress of the task `work`, and the ends that the account has heard of.
pub struct Watcher;

impl Role for Watcher {
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
        Ledger.handle(states, event, fact, now)
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
        Ledger.execute(states, request, command, now)
    }

    fn read_query(&self, request: &Request) -> Result<QueryAccount, ContractError> {
        QueryAccount::read(request)
    }

    fn query_keys(&self, request: &Request, ask: &QueryAccount) -> Vec<EntityKey> {
        Ledger.query_keys(request, ask)
    }

    fn query_tasks(&self, _: &Request, _: &QueryAccount) -> Vec<TaskId> {
        vec![task_id("work")]
    }

    fn query(
        &self,
        states: &States<Account>,
        _: &Request,
        ask: &QueryAccount,
        _: Timestamp,
    ) -> Result<Vec<u8>, Rejection> {
        // A task that the query does not name is not shown.
        assert_eq!(states.task(&task_id("other")), None);
        let done = states.task(&task_id("work")).map(|task| task.done);
        let account = states.get(&EntityKey::new(ask.account.as_str()));
        let ends = account
            .map(|account| account.ends.clone())
            .unwrap_or_default();
        Ok(serde_json::to_vec(&(done, ends)).unwrap())
    }
}
