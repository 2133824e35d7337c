//! Checks of new data: its contract, and a dry run of the handler on the present state. A poison message is not given
//! to the handler here, where it would crash the operator's command: the role replays it under its crash guard. Nor is
//! a task run here, since its effects are outside.

use bytes::Bytes;
use doorstep_cli::CliError;
use doorstep_contracts::registry;
use doorstep_event::{Event, MAX_DATA_BYTES};
use doorstep_runtime::{DryRun, operate};
use doorstep_store::DeadLetter;
use serde::de::IgnoredAny;

use crate::roles::{RoleEntry, RoleStore};

/// The result of the checks, in words for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Checked {
    /// It would be applied.
    Taken(String),
    /// As far as can be told without the role's code, for the given reason, it would be taken.
    Untried(&'static str),
    /// It would be rejected.
    Refused(String),
}

/// The note on an event that was not given to its handler.
const NOT_RUN: &str =
    "meets its contract (its handler was not called here, since it has crashed processes)";

/// The note on a task that was not run.
const TASK_NOT_RUN: &str =
    "is well-formed JSON (its task was not run here, which checks it further)";

/// Checks new data for a dead letter. Nothing is written.
///
/// # Errors
/// The store cannot be read.
pub(super) async fn check(
    role: &RoleEntry,
    store: &RoleStore,
    dead: &DeadLetter,
    data: Bytes,
) -> Result<Checked, CliError> {
    let event = match operate::replayable(dead) {
        Ok(event) => event,
        Err(e) => return Ok(Checked::Refused(e.to_string())),
    };
    if data.len() > MAX_DATA_BYTES {
        return Ok(Checked::Refused(format!(
            "it would have {} bytes of data, at most {MAX_DATA_BYTES} may travel in an event",
            data.len()
        )));
    }
    if dead.task.is_some() {
        return Ok(check_input(&data));
    }
    let event = Event {
        data,
        ..event.clone()
    };
    if let Err(e) = registry::check(&event) {
        return Ok(Checked::Refused(format!(
            "it would break its contract: {e}"
        )));
    }
    if operate::is_poison(dead) {
        return Ok(Checked::Untried(NOT_RUN));
    }
    let dry_run = (role.dry_run)(store.clone(), dead.clone(), event).await?;
    Ok(describe(&dry_run))
}

fn describe(dry_run: &DryRun) -> Checked {
    match dry_run {
        DryRun::Applied { emitted: 0 } => Checked::Taken("would be applied".to_owned()),
        DryRun::Applied { emitted } => {
            Checked::Taken(format!("would be applied and emit {emitted} events"))
        }
        DryRun::Ignored => Checked::Taken("would be passed by".to_owned()),
        DryRun::Behind => {
            Checked::Taken("would wait for its missing predecessors in the stream".to_owned())
        }
        DryRun::Awaits(entity) => Checked::Taken(format!("would wait for {entity}")),
        DryRun::Refused { reason, detail } => {
            Checked::Refused(format!("it would be rejected: {reason}: {detail}"))
        }
        DryRun::NotNext => Checked::Refused(
            "it is no longer next in its stream: it was resolved meanwhile".to_owned(),
        ),
    }
}

/// Checks new input of a task, without the role's code.
fn check_input(input: &[u8]) -> Checked {
    match serde_json::from_slice::<IgnoredAny>(input) {
        Ok(_) => Checked::Untried(TASK_NOT_RUN),
        Err(e) => Checked::Refused(format!("its task could not read it: {e}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn input_is_checked_without_a_run() {
        assert_eq!(check_input(b"{}"), Checked::Untried(TASK_NOT_RUN));
        assert!(matches!(check_input(b"{"), Checked::Refused(why) if why.contains("EOF")));
    }
}
