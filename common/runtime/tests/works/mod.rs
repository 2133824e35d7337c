//! A role for tests of tasks: works that are asked for by events or commands, and tasks with every kind of end.
#![allow(dead_code, reason = "each test file uses another part of it")]
#![allow(clippy::unwrap_used, reason = "a helper that fails fails its test")]

use std::{
    fs::{self, OpenOptions},
    io::Write,
    path::{Path, PathBuf},
    time::Duration,
};

use doorstep_event::{
    Contract, ContractError, Event, Rejection, Request, RequestContract, RequestKind, Subject,
    Timestamp,
};
use doorstep_runtime::{
    CommandOutcome, Effects, HandlerError, Limits, Reading, Role, States, Unsupported,
    task::{
        StopReason, Task, TaskContext, TaskEnding, TaskError, TaskOutcome, TaskPolicy, TaskSet,
    },
};
use doorstep_store::{EntityKey, TaskId};
use serde::{Deserialize, Serialize};

/// The behaviour of a task.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum WorkJob {
    /// Returns at once.
    Quick,
    /// Saves a checkpoint after each of these steps, continues after the last one, and pauses for milliseconds between
    /// them.
    Steps {
        steps: u64,
        pause: u64,
    },
    /// Returns after this many milliseconds.
    Sleeps {
        pause: u64,
    },
    /// Fails this often with an error that passes.
    Retried {
        times: u32,
    },
    Fails,
    Unknown,
    Panics,
    /// Crashes its process: no panic that could be caught.
    Aborts,
    /// Waits until it is released, and returns as soon as it is asked to stop.
    Waits,
    /// Waits until it is released, and heeds no stop.
    Stubborn,
    /// Saves a checkpoint, then waits as [`WorkJob::Waits`] does. Continued, it returns at once.
    WaitsOnce,
}

/// The event that asks for a work.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkAsked {
    pub job: WorkJob,
}

impl Contract for WorkAsked {
    const TYPE: &'static str = "work.asked.v1";
    const REQUIRES_SEQUENCE: bool = false;
}

/// The command that asks for a work, or cancels it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OrderWork {
    pub work: String,
    /// `None`: it is cancelled.
    pub job: Option<WorkJob>,
}

impl RequestContract for OrderWork {
    const TYPE: &'static str = "works.order.v1";
    const ACT: RequestKind = RequestKind::Command;
    type Reply = ();
}

/// The result of a task.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkDone {
    pub work: String,
    /// The key under which the outside has seen it.
    pub key: String,
    pub attempt: u32,
    /// The steps that this attempt has made.
    pub steps: u64,
}

impl RequestContract for WorkDone {
    const TYPE: &'static str = "works.done.v1";
    const ACT: RequestKind = RequestKind::Command;
    type Reply = ();
}

/// The state of a work.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Work {
    /// The results of its task, in order.
    pub results: Vec<WorkDone>,
    /// The ends of its task without a result, in order.
    pub endings: Vec<TaskEnding>,
}

#[derive(Debug)]
pub enum WorkCommand {
    Order(OrderWork),
    Done(WorkDone),
    Ended(TaskOutcome),
}

/// Returns the id of a work's task, which is also its subject and entity.
pub fn task_id(work: &str) -> TaskId {
    TaskId::new(work).unwrap()
}

pub struct Works;

impl Role for Works {
    type Payload = WorkAsked;
    type Command = WorkCommand;
    type Query = Unsupported;
    type State = Work;

    fn name(&self) -> &'static str {
        "works"
    }

    fn read(&self, event: &Event) -> Result<Reading<WorkAsked>, ContractError> {
        WorkAsked::read(event).map(Reading::Handled)
    }

    fn keys(&self, event: &Event, _: &WorkAsked) -> Vec<EntityKey> {
        vec![EntityKey::from(&event.subject)]
    }

    fn handle(
        &self,
        _: &mut States<Work>,
        event: &Event,
        asked: &WorkAsked,
        _: Timestamp,
    ) -> Result<Effects, HandlerError> {
        let mut effects = Effects::none();
        let job = asked.job.clone();
        let id = task_id(event.subject.as_str());
        effects.start(id, &event.subject, &DoWork { job })?;
        Ok(effects)
    }

    fn read_command(&self, request: &Request) -> Result<WorkCommand, ContractError> {
        match request.kind.as_str() {
            OrderWork::TYPE => OrderWork::read(request).map(WorkCommand::Order),
            WorkDone::TYPE => WorkDone::read(request).map(WorkCommand::Done),
            TaskOutcome::TYPE => TaskOutcome::read(request).map(WorkCommand::Ended),
            unknown => Err(ContractError::UnknownType(unknown.to_owned())),
        }
    }

    fn command_keys(&self, _: &Request, command: &WorkCommand) -> Vec<EntityKey> {
        let work = match command {
            WorkCommand::Order(order) => &order.work,
            WorkCommand::Done(done) => &done.work,
            WorkCommand::Ended(ended) => &ended.task,
        };
        vec![EntityKey::new(work.as_str())]
    }

    fn execute(
        &self,
        states: &mut States<Work>,
        _: &Request,
        command: &WorkCommand,
        _: Timestamp,
    ) -> Result<CommandOutcome, Rejection> {
        let mut effects = Effects::none();
        match command {
            WorkCommand::Order(OrderWork { work, job: None }) => effects.cancel(task_id(work)),
            WorkCommand::Order(OrderWork {
                work,
                job: Some(job),
            }) => {
                let job = job.clone();
                let subject = Subject::new(work.as_str())?;
                effects.start(task_id(work), &subject, &DoWork { job })?;
            }
            WorkCommand::Done(done) => states.first_or_default().results.push(done.clone()),
            WorkCommand::Ended(ended) => states.first_or_default().endings.push(ended.ending),
        }
        CommandOutcome::new::<OrderWork>(&(), effects)
    }
}

/// The world outside: a folder with a log, which all processes append to.
#[derive(Debug, Clone)]
pub struct Outside(PathBuf);

/// A line of the outside's log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogLine {
    /// `begin`, `step`, the reason of a stop, or `end`.
    pub what: String,
    pub work: String,
    pub token: i64,
    /// Since the epoch, in milliseconds.
    pub at: i64,
}

impl Outside {
    pub fn new(folder: &Path) -> Self {
        fs::create_dir_all(folder).unwrap();
        Self(folder.to_owned())
    }

    fn write(&self, what: &str, context: &TaskContext) {
        let at = Timestamp::now().as_millisecond();
        let token = context.fencing_token();
        let line = format!("{what} {} {token} {at}\n", context.id());
        let mut log = OpenOptions::new();
        let mut log = log.append(true).create(true).open(self.log()).unwrap();
        // One write, so that lines of several processes do not mix.
        log.write_all(line.as_bytes()).unwrap();
    }

    fn log(&self) -> PathBuf {
        self.0.join("outside.log")
    }

    /// Returns the log.
    pub fn lines(&self) -> Vec<LogLine> {
        let log = fs::read_to_string(self.log()).unwrap_or_default();
        let complete = log.rsplit_once('\n').map_or("", |(complete, _)| complete);
        let read = |line: &str| {
            let mut words = line.split(' ');
            let mut next = || words.next().unwrap().to_owned();
            let (what, work, token, at) = (next(), next(), next(), next());
            LogLine {
                what,
                work,
                token: token.parse().unwrap(),
                at: at.parse().unwrap(),
            }
        };
        complete.lines().map(read).collect()
    }

    /// Returns the number of lines of this kind about a work.
    pub fn count(&self, what: &str, work: &str) -> usize {
        let lines = self.lines();
        let of = |line: &&LogLine| line.what == what && line.work == work;
        lines.iter().filter(of).count()
    }

    /// Releases all works that wait, and those that would.
    pub fn release(&self) {
        fs::write(self.0.join("released"), "").unwrap();
    }

    async fn released(&self) {
        while !self.0.join("released").exists() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

/// Returns the shortest leases, and quick polls.
pub fn quick_limits() -> Limits {
    Limits {
        task_lease: Duration::from_secs(2),
        task_poll_interval: Duration::from_millis(50),
        task_stop_grace: Duration::from_millis(500),
        ..Limits::default()
    }
}

/// Returns bounds with quick retries and without a timeout that matters.
pub fn quick_policy() -> TaskPolicy {
    TaskPolicy {
        timeout: Duration::from_hours(1),
        max_running: 32,
        initial_backoff: Duration::from_millis(10),
        max_backoff: Duration::from_millis(100),
        ..TaskPolicy::DEFAULT
    }
}

/// Returns the tasks of the role.
pub fn tasks(outside: &Outside) -> TaskSet {
    TaskSet::new().with_policy::<DoWork>(outside.clone(), quick_policy())
}

/// The task of a work.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DoWork {
    pub job: WorkJob,
}

impl Task for DoWork {
    const TYPE: &'static str = "works.do.v1";
    type Resources = Outside;
    type Output = WorkDone;

    async fn run(self, context: TaskContext, outside: Outside) -> Result<WorkDone, TaskError> {
        let _presence = Presence::begin(&outside, &context);
        let steps = self.job.run(&context, &outside).await?;
        Ok(WorkDone {
            work: context.id().to_string(),
            key: context.idempotency_key().to_owned(),
            attempt: context.attempt(),
            steps,
        })
    }
}

/// Logs the beginning of an attempt and its end, also if it is dropped.
struct Presence<'a>(&'a Outside, &'a TaskContext);

impl<'a> Presence<'a> {
    fn begin(outside: &'a Outside, context: &'a TaskContext) -> Self {
        outside.write("begin", context);
        Self(outside, context)
    }
}

impl Drop for Presence<'_> {
    fn drop(&mut self) {
        self.0.write("end", self.1);
    }
}

impl WorkJob {
    /// Returns the steps made.
    async fn run(self, context: &TaskContext, outside: &Outside) -> Result<u64, TaskError> {
        match self {
            Self::Quick => {}
            Self::Sleeps { pause } => tokio::time::sleep(Duration::from_millis(pause)).await,
            Self::Steps { steps, pause } => {
                let begun = context.checkpoint::<u64>()?.unwrap_or_default();
                for step in begun..steps {
                    context.proceed()?;
                    tokio::time::sleep(Duration::from_millis(pause)).await;
                    context.save_checkpoint(&(step + 1)).await?;
                    outside.write("step", context);
                    context.progress(step + 1, steps);
                }
                return Ok(steps - begun);
            }
            Self::Retried { times } if context.attempt() <= times => {
                return Err(TaskError::Retry("not yet".to_owned()));
            }
            Self::Retried { .. } => {}
            Self::Fails => return Err(TaskError::Fail("it cannot be done".to_owned())),
            Self::Unknown => return Err(TaskError::Unknown("no reply".to_owned())),
            Self::Panics => panic!("this task panics"),
            Self::Aborts => std::process::abort(),
            Self::WaitsOnce if context.checkpoint::<u64>()?.is_some() => {}
            Self::Waits | Self::WaitsOnce => {
                if self == Self::WaitsOnce {
                    context.save_checkpoint(&1_u64).await?;
                    outside.write("step", context);
                }
                tokio::select! {
                    () = outside.released() => {}
                    reason = context.stopped() => {
                        let what = match reason {
                            StopReason::Cancelled => "cancelled",
                            StopReason::Shutdown => "shutdown",
                            StopReason::LeaseLost => "lost",
                            StopReason::TimedOut => "timed-out",
                        };
                        outside.write(what, context);
                        return Err(TaskError::Stopped);
                    }
                }
            }
            Self::Stubborn => outside.released().await,
        }
        Ok(0)
    }
}
