//! `consumers dead replay` and `dead skip`: transactions on the role's store, whether the role runs or not.

use doorstep_event::Timestamp;
use doorstep_runtime::operate::{self, OperateError};
use doorstep_store::DeadId;

use crate::{
    failure::{Failure, Reason},
    output::print,
    settings::{GapRange, Place},
    stores::{self, RoleStore},
};

/// Makes dead letters due again.
///
/// # Errors
/// At least one of them could not be; the others are.
pub(crate) async fn replay(place: &Place, ids: &[DeadId]) -> Result<(), Failure> {
    let store = stores::existing(place)?;
    let mut ended = Vec::new();
    for id in ids {
        let done = operate::replay(&store, id, Timestamp::now()).await;
        let role = place.role.name;
        ended.push(tell(done, || {
            format!("{id} will be tried again: {role} does it within a moment if it runs, otherwise when it is started")
        }));
    }
    summed_up(ended)
}

/// Steps over dead letters.
///
/// # Errors
/// At least one of them could not be stepped over; the others are.
pub(crate) async fn skip(place: &Place, ids: &[DeadId]) -> Result<(), Failure> {
    let store = stores::existing(place)?;
    let mut ended = Vec::new();
    for id in ids {
        let done = operate::skip(&store, id, Timestamp::now()).await;
        let next = goes_on(place);
        ended.push(tell(done, || format!("{id} is skipped: {next}")));
    }
    summed_up(ended)
}

/// Steps over missing events.
///
/// # Errors
/// They are not what the stream misses, or the store cannot be used.
pub(crate) async fn skip_gap(place: &Place, gap: &GapRange) -> Result<(), Failure> {
    let store: RoleStore = stores::existing(place)?;
    let GapRange { stream, from, to } = gap;
    let done = operate::skip_gap(&store, stream, *from, *to, Timestamp::now()).await;
    let next = goes_on(place);
    tell(done, || {
        format!("{from}..{to} of {stream} are skipped: {next}")
    })
}

fn goes_on(place: &Place) -> String {
    let role = place.role.name;
    format!(
        "{role} applies what is held behind it within a moment if it runs, otherwise when it is started"
    )
}

fn tell(done: Result<(), OperateError>, success: impl FnOnce() -> String) -> Result<(), Failure> {
    done.map_err(|e| failed(&e))?;
    print(|out| writeln!(out, "{}", success()))
}

fn failed(error: &OperateError) -> Failure {
    let reason = match error {
        OperateError::AlreadySettled(_) | OperateError::NoSuchGap { .. } => Reason::Settled,
        OperateError::NotReplayable { .. } => Reason::Data,
        OperateError::Busy(_) => Reason::Busy,
        OperateError::Store(e) => return stores::failed(e),
    };
    Failure::new(reason, error.to_string())
}

/// The end of several: the first failure decides the exit code, and all are told.
fn summed_up(ended: Vec<Result<(), Failure>>) -> Result<(), Failure> {
    let failures: Vec<Failure> = ended.into_iter().filter_map(Result::err).collect();
    let Some(first) = failures.first() else {
        return Ok(());
    };
    let texts: Vec<String> = failures.iter().map(ToString::to_string).collect();
    Err(Failure::new(first.reason, texts.join("\n       ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_failures_are_told_and_the_first_decides_the_exit_code() {
        assert!(summed_up(vec![Ok(()), Ok(())]).is_ok());
        let settled = OperateError::AlreadySettled(DeadId("a-1".into()));
        let busy = OperateError::Busy("b-1".into());
        let failure =
            summed_up(vec![Ok(()), Err(failed(&settled)), Err(failed(&busy))]).unwrap_err();
        assert_eq!(failure.reason, Reason::Settled);
        let said = failure.to_string();
        assert!(said.contains("a-1") && said.contains("b-1"), "{said}");
    }
}
