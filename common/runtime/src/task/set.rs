//! The kinds of tasks that a process can run.

use std::{collections::BTreeMap, fmt, future::Future, pin::Pin, time::Duration};

use doorstep_event::{EventType, MAX_DATA_BYTES, RequestContract};

use crate::Limits;

use super::{Task, TaskContext, TaskError, TaskOutput, TaskPolicy, kind_of};

/// The end of an attempt of any kind of task.
pub(crate) type AttemptFuture =
    Pin<Box<dyn Future<Output = Result<TaskOutput, TaskError>> + Send + 'static>>;

/// [`Task`] without its type.
pub(crate) trait RunTask: Send + Sync {
    fn policy(&self) -> &TaskPolicy;
    /// The type of its result command.
    fn output(&self) -> EventType;
    fn check(&self, input: &[u8]) -> Result<(), String>;
    fn run(&self, input: &[u8], context: TaskContext) -> AttemptFuture;
}

struct Registered<T: Task> {
    policy: TaskPolicy,
    resources: T::Resources,
}

fn read<T: Task>(input: &[u8]) -> Result<T, String> {
    let task: T = serde_json::from_slice(input).map_err(|e| e.to_string())?;
    task.check()?;
    Ok(task)
}

fn output_of<O: RequestContract>(output: &O) -> Result<TaskOutput, TaskError> {
    let failed = |detail: String| TaskError::Fail(format!("its result {}: {detail}", O::TYPE));
    output.check().map_err(failed)?;
    let data = serde_json::to_vec(output).map_err(|e| failed(e.to_string()))?;
    if data.len() > MAX_DATA_BYTES {
        return Err(failed(format!("{} bytes, more than 1 MiB", data.len())));
    }
    Ok(TaskOutput {
        kind: O::request_type(),
        data: data.into(),
    })
}

impl<T: Task> RunTask for Registered<T> {
    fn policy(&self) -> &TaskPolicy {
        &self.policy
    }

    fn output(&self) -> EventType {
        T::Output::request_type()
    }

    fn check(&self, input: &[u8]) -> Result<(), String> {
        read::<T>(input).map(drop)
    }

    fn run(&self, input: &[u8], context: TaskContext) -> AttemptFuture {
        let resources = self.resources.clone();
        let task = read::<T>(input);
        Box::pin(async move {
            let task = task.map_err(|e| TaskError::Fail(format!("its input: {e}")))?;
            output_of(&task.run(context, resources).await?)
        })
    }
}

/// The kinds of tasks that a process can run, with their resources and bounds.
#[derive(Default)]
pub struct TaskSet(BTreeMap<EventType, Box<dyn RunTask>>);

impl fmt::Debug for TaskSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

impl TaskSet {
    /// Returns the set without any kind.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a kind with [`Task::POLICY`].
    #[must_use]
    pub fn with<T: Task>(self, resources: T::Resources) -> Self {
        self.with_policy::<T>(resources, T::POLICY)
    }

    /// Adds a kind with bounds of its own.
    #[must_use]
    pub fn with_policy<T: Task>(mut self, resources: T::Resources, policy: TaskPolicy) -> Self {
        let task = Registered::<T> { policy, resources };
        self.0.insert(kind_of::<T>(), Box::new(task));
        self
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns whether a command of this type is a result of one of these tasks, so that no client may send it.
    #[must_use]
    pub fn is_output(&self, kind: &EventType) -> bool {
        self.0.values().any(|task| task.output() == *kind)
    }

    /// Checks the input of a task.
    ///
    /// # Errors
    /// Describes the violated rule, or an unknown kind.
    pub fn check(&self, kind: &EventType, input: &[u8]) -> Result<(), String> {
        match self.0.get(kind) {
            Some(task) => task.check(input),
            None => Err(format!("no task of kind {kind} is known here")),
        }
    }

    /// Returns the longest time until the next attempt of any kind.
    pub(crate) fn max_backoff(&self, limits: &Limits) -> Duration {
        let backoffs = self.0.values().map(|task| task.policy().max_backoff);
        let longest = backoffs.max().unwrap_or_default();
        longest.max(limits.max_task_retry_after)
    }

    pub(crate) fn get(&self, kind: &EventType) -> Option<&dyn RunTask> {
        self.0.get(kind).map(AsRef::as_ref)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (&EventType, &dyn RunTask)> {
        self.0.iter().map(|(kind, task)| (kind, task.as_ref()))
    }
}
