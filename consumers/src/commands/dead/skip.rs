//! `consumers dead skip`: transactions on the role's store, whether the role runs or not.

use doorstep_event::Timestamp;
use doorstep_program::{Failure, Reason, output::print};
use doorstep_runtime::operate::{self, By, OperateError};

use super::choice::open_ids;
use crate::{
    settings::{GapRange, Place, dead::Chosen},
    stores,
};

/// Steps over dead letters.
///
/// # Errors
/// At least one of them could not be stepped over; the others are.
pub(crate) async fn skip(place: &Place, chosen: &Chosen, by: &By) -> Result<(), Failure> {
    let store = stores::existing(place)?;
    let role = place.role.name;
    let mut ended = Vec::new();
    for id in open_ids(&store, chosen, Timestamp::now()).await? {
        let done = operate::skip(&store, &id, by.at(Timestamp::now())).await;
        let next = format!("{id} is skipped: {role} applies what is held behind it {WHEN}");
        ended.push(tell(role, done, &next));
    }
    summed_up(&ended)
}

/// Steps over missing events.
///
/// # Errors
/// They are not what the stream misses, or the store cannot be used.
pub(crate) async fn skip_gap(place: &Place, gap: &GapRange, by: &By) -> Result<(), Failure> {
    let store = stores::existing(place)?;
    let role = place.role.name;
    let GapRange { stream, from, to } = gap;
    let done = operate::skip_gap(&store, stream, *from, *to, by.at(Timestamp::now())).await;
    let next = format!(
        "{from}..{to} of {stream} are skipped: {role} applies what is held behind them {WHEN}"
    );
    tell(role, done, &next)
}

/// When a role takes up what was changed in its store.
pub(super) const WHEN: &str = "within a moment if it runs, otherwise when it is started";

fn tell(role: &str, done: Result<(), OperateError>, success: &str) -> Result<(), Failure> {
    done.map_err(|e| failed(role, &e))?;
    print(|out| writeln!(out, "{success}"))
}

/// What was not done, as an end of the program.
pub(in crate::commands) fn failed(role: &str, error: &OperateError) -> Failure {
    match error {
        // One that never was looks the same as one that is gone.
        OperateError::AlreadySettled(_) => Failure::new(
            Reason::Settled,
            format!("{error}; `consumers dead list {role} --each` lists what is there"),
        ),
        OperateError::EditedMeanwhile(_) => Failure::new(Reason::Settled, error.to_string()),
        OperateError::NoSuchGap { .. } => Failure::new(
            Reason::Settled,
            format!("{error}; `consumers status {role}` lists what is missing"),
        ),
        OperateError::UnknownSource(_) => Failure::new(Reason::Missing, error.to_string()),
        OperateError::OwnedAlready { .. } => Failure::new(Reason::Settled, error.to_string()),
        OperateError::NotReplayable { .. } => Failure::new(Reason::Data, error.to_string()),
        OperateError::Busy(_) => Failure::new(Reason::Busy, error.to_string()),
        OperateError::Store(e) => stores::failed(e),
    }
}

/// The end of several: the first failure decides the exit code, and all are told.
pub(super) fn summed_up(ended: &[Result<(), Failure>]) -> Result<(), Failure> {
    let failures: Vec<&Failure> = ended
        .iter()
        .filter_map(|done| done.as_ref().err())
        .collect();
    let Some(first) = failures.first() else {
        return Ok(());
    };
    let texts: Vec<String> = failures.iter().map(|failure| failure.to_string()).collect();
    Err(Failure::new(first.reason, texts.join("\n       ")))
}

#[cfg(test)]
mod tests {
    use doorstep_store::DeadId;

    use super::*;

    #[test]
    fn all_failures_are_told_and_the_first_decides_the_exit_code() {
        assert!(summed_up(&[Ok(()), Ok(())]).is_ok());
        let settled = OperateError::AlreadySettled(DeadId("a-1".into()));
        let busy = OperateError::Busy("b-1".into());
        let ended = [
            Ok(()),
            Err(failed("orders", &settled)),
            Err(failed("orders", &busy)),
        ];
        let failure = summed_up(&ended).unwrap_err();
        assert_eq!(failure.reason, Reason::Settled);
        let said = failure.to_string();
        assert!(said.contains("a-1") && said.contains("b-1"), "{said}");
    }
}
