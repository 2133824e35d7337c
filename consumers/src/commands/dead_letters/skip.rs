//! `consumers dead-letters skip`: transactions on the role's store, whether the role runs or not.

use doorstep_cli::{CliError, MessageLimiter, output::print_line};
use doorstep_event::Timestamp;
use doorstep_runtime::operate::{self, Attribution, OperateError};
use doorstep_store::DeadLetterStatus;

use super::{
    Selection,
    selection::{one, open_ids},
    show::held_behind,
};
use crate::{
    cli::dead_letters::SkipArgs,
    format::sanitize,
    progress::Progress,
    stores::{self, StoreLocation},
};

/// Skips dead letters. Reports each named one, and the number of a whole kind.
///
/// # Errors
/// At least one named dead letter could not be skipped; the others are. Or the store cannot be used.
pub(crate) async fn skip(by: Attribution, args: SkipArgs) -> Result<(), CliError> {
    let (place, role) = (&args.place, args.place.role.name);
    let chosen = &Selection::new(args.chosen.ids, args.chosen.fingerprint);
    if args.skip.dry_run {
        return dry_run(place, chosen).await;
    }
    let store = stores::open_existing(place)?;
    let ids = open_ids(&store, chosen, Timestamp::now()).await?;
    let is_named = matches!(chosen, Selection::Ids(_));
    let mut progress = Progress::new("stepped over", ids.len() as u64);
    let mut ended = Vec::new();
    let (mut skipped, mut settled) = (0_u64, 0_u64);
    for id in ids {
        match operate::skip(&store, &id, by.at(Timestamp::now())).await {
            Ok(()) => {
                skipped += 1;
                if is_named {
                    print_line(&format!(
                        "{id} is skipped: {role} applies the events deferred behind it {WHEN}"
                    ))?;
                }
            }
            Err(e @ OperateError::Store(_)) => {
                progress.finish();
                return Err(failed(role, &e));
            }
            Err(OperateError::AlreadySettled(_) | OperateError::RefusedAnew { .. })
                if !is_named =>
            {
                settled += 1;
            }
            Err(e) => ended.push(Err(failed(role, &e))),
        }
        progress.advance();
    }
    progress.finish();
    if !is_named {
        print_line(&format!(
            "{skipped} are skipped, {settled} were already resolved: {role} applies the events deferred behind them {WHEN}"
        ))?;
    }
    combine(&ended)
}

/// Shows the dead letters that would be skipped.
async fn dry_run(place: &StoreLocation, chosen: &Selection) -> Result<(), CliError> {
    const NOTHING: &str = "nothing was written, this is a dry run";
    let store = stores::try_open_read_only(place)?;
    let role = place.role.name;
    let ids = open_ids(&store, chosen, Timestamp::now()).await?;
    let Selection::Ids(_) = chosen else {
        let count = ids.len();
        return print_line(&format!("{count} would be skipped; {NOTHING}"));
    };
    let mut ended = Vec::new();
    for id in ids {
        let row = one(&store, role, &id).await?;
        if row.status == DeadLetterStatus::Replaying {
            ended.push(Err(failed(role, &OperateError::AlreadySettled(id))));
            continue;
        }
        let what = match &row.event {
            Some(event) if row.blocks => format!(
                "its stream {} would go on, {} deferred behind it",
                event.stream(),
                held_behind(&store, &row).await?
            ),
            _ => "it blocks nothing".to_owned(),
        };
        print_line(&format!(
            "{id} would be skipped: {}; {NOTHING}",
            sanitize(&what)
        ))?;
    }
    combine(&ended)
}

/// The time at which a role notices a change of its store.
pub(in crate::commands) const WHEN: &str =
    "within a moment if it runs, otherwise when it is started";

/// Converts an error to the failure of the program.
pub(in crate::commands) fn failed(role: &str, error: &OperateError) -> CliError {
    match error {
        // An id that never existed looks the same as a deleted one.
        OperateError::AlreadySettled(_) => CliError::settled(format!(
            "{error}; `consumers dead-letters list {role}` lists what is there"
        )),
        OperateError::RefusedAnew { now, .. } => CliError::settled(format!(
            "{error}; `consumers dead-letters show {role} {now}` shows it"
        )),
        OperateError::EditedMeanwhile(_) => CliError::settled(error.to_string()),
        OperateError::NoSuchGap { .. } => CliError::settled(format!(
            "{error}; `consumers status {role}` lists what is missing"
        )),
        OperateError::UnknownSource(_) => CliError::missing(error.to_string()),
        OperateError::OwnedAlready { .. } => CliError::settled(error.to_string()),
        OperateError::NotReplayable { .. } | OperateError::Foreign { .. } => {
            CliError::data(error.to_string())
        }
        OperateError::Busy(_) => CliError::busy(error.to_string()),
        OperateError::Store(e) => e.clone().into(),
    }
}

/// Combines several results: the first failure decides the exit code. A few failures of each kind are reported, with
/// the number of the others.
pub(in crate::commands) fn combine(ended: &[Result<(), CliError>]) -> Result<(), CliError> {
    let failures: Vec<&CliError> = ended
        .iter()
        .filter_map(|done| done.as_ref().err())
        .collect();
    let Some(first) = failures.first() else {
        return Ok(());
    };
    let mut repeats = MessageLimiter::default();
    let mut texts: Vec<String> = failures
        .iter()
        .filter_map(|failure| repeats.add(failure.to_string()))
        .collect();
    texts.extend(repeats.rest());
    Err(CliError::new(first.reason, texts.join("\n       ")))
}

#[cfg(test)]
mod tests {
    use doorstep_cli::ExitReason;
    use doorstep_store::DeadLetterId;

    use super::*;

    #[test]
    fn all_failures_are_reported_first_sets_exit_code() {
        assert!(combine(&[Ok(()), Ok(())]).is_ok());
        let settled = OperateError::AlreadySettled(DeadLetterId("a-1".into()));
        let busy = OperateError::Busy("b-1".into());
        let ended = [
            Ok(()),
            Err(failed("orders", &settled)),
            Err(failed("orders", &busy)),
        ];
        let failure = combine(&ended).unwrap_err();
        assert_eq!(failure.reason, ExitReason::Settled);
        let said = failure.to_string();
        assert!(said.contains("a-1") && said.contains("b-1"), "{said}");
    }
}
