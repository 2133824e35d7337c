//! `consumers dead-letters edit`: new data for one dead letter or for all of a kind, stored only if the role would accept it.

use doorstep_cli::{
    CliError, ExitReason, MessageLimiter,
    output::{print, print_line},
};
use doorstep_event::Timestamp;
use doorstep_runtime::operate::{self, Attribution, Edit, OperateError};
use doorstep_store::{DeadLetter, DeadLetterId};

use super::{
    Selection,
    diff::diff,
    dry_run::{Checked, check},
    editor::Draft,
    patch::{self, Patch, PatchedData},
    selection::{one, open_ids},
    skip::failed,
};
use crate::{
    cli::dead_letters::EditArgs,
    format::sanitize,
    progress::Progress,
    roles::{RoleEntry, RoleStore},
    stores::{self, StoreLocation},
};

/// Edits dead letters.
///
/// # Errors
/// The new data would not be accepted, or could not be stored; then nothing is stored. Within a kind, each dead letter
/// is stored or not by itself.
pub(crate) async fn edit(by: Attribution, args: EditArgs) -> Result<(), CliError> {
    let session = EditSession::open(&args.place, &by, args.change.dry_run, Edit::Edit)?;
    let patch = args.patch.as_deref().map(Patch::read).transpose()?;
    match (args.id, args.fingerprint, patch) {
        (Some(id), _, Some(patch)) => {
            let dead = one(&session.store, session.role.name, &id).await?;
            let changed = session.edit_one(&dead, |data| patch.apply(data)).await;
            changed.map_err(|rejected| rejected.into_failure(&id))
        }
        (Some(id), _, None) => session.edit_in_editor(&id).await,
        (None, Some(group), Some(patch)) => session.group(&Selection::Group(group), &patch).await,
        (None, _, _) => Err(CliError::settings(
            "use --patch for a whole kind, the editor edits one dead letter",
        )),
    }
}

/// The objects that every edit needs.
pub(super) struct EditSession<'a> {
    pub(super) role: &'a RoleEntry,
    pub(super) store: RoleStore,
    by: &'a Attribution,
    dry_run: bool,
    how: Edit,
}

/// The result of an edit that was not rejected.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Edited {
    /// It is stored, or would be; with the handler's outcome.
    Stored(String),
    /// It is stored, or would be, and no code of the role was run; with the reason.
    Untried(&'static str),
    /// The data is unchanged.
    Same,
}

/// The reason why an edit was not made.
#[derive(Debug)]
pub(super) enum EditError {
    /// The data is not acceptable, for this reason.
    Refused(String),
    /// Another operator was first, or the store failed.
    Failed(CliError),
}

impl EditError {
    pub(super) fn into_failure(self, id: &DeadLetterId) -> CliError {
        match self {
            Self::Refused(why) => {
                CliError::data(format!("{id}: {}; nothing was stored", sanitize(&why)))
            }
            Self::Failed(failure) => failure,
        }
    }
}

impl From<CliError> for EditError {
    fn from(failure: CliError) -> Self {
        Self::Failed(failure)
    }
}

impl<'a> EditSession<'a> {
    /// Opens the store of a role, only to be read in a dry run.
    pub(super) fn open(
        place: &'a StoreLocation,
        by: &'a Attribution,
        dry_run: bool,
        how: Edit,
    ) -> Result<Self, CliError> {
        Ok(Self {
            role: &place.role,
            store: if dry_run {
                stores::try_open_read_only(place)?
            } else {
                stores::open_existing(place)?
            },
            by,
            dry_run,
            how,
        })
    }

    /// Checks and stores new data for a dead letter.
    pub(super) async fn store(
        &self,
        dead: &DeadLetter,
        changed: &PatchedData,
    ) -> Result<Edited, EditError> {
        if !changed.is_change() {
            return Ok(Edited::Same);
        }
        let edited = match check(self.role, &self.store, dead, changed.data.clone()).await? {
            Checked::Refused(why) => return Err(EditError::Refused(why)),
            Checked::Taken(text) => Edited::Stored(text),
            Checked::Untried(text) => Edited::Untried(text),
        };
        if self.dry_run {
            return Ok(edited);
        }
        let by = self.by.at(Timestamp::now());
        let data = changed.data.clone();
        match operate::edit(&self.store, dead, data, self.how, by).await {
            Ok(()) => Ok(edited),
            Err(e @ OperateError::NotReplayable { .. }) => Err(EditError::Refused(e.to_string())),
            Err(e) => Err(EditError::Failed(failed(self.role.name, &e))),
        }
    }

    /// Edits one dead letter and reports every detail.
    async fn edit_one(
        &self,
        dead: &DeadLetter,
        change: impl FnOnce(&[u8]) -> Result<PatchedData, String>,
    ) -> Result<(), EditError> {
        let event = operate::replayable(dead).map_err(|e| EditError::Refused(e.to_string()))?;
        let changed = change(&event.data).map_err(EditError::Refused)?;
        let difference = diff(&changed.shown_before, &changed.shown_after);
        let difference: String = difference
            .lines()
            .map(|line| sanitize(line) + "\n")
            .collect();
        print(|out| out.write_all(difference.as_bytes()))?;
        let (id, role) = (&dead.id, self.role.name);
        let text = match self.store(dead, &changed).await? {
            Edited::Same => None,
            Edited::Stored(text) => Some(text),
            Edited::Untried(text) => Some(text.to_owned()),
        };
        let sentence = match (text, self.dry_run) {
            (None, _) => format!("{id} is left as it is: nothing differs"),
            (Some(text), true) => {
                format!("{id} {text}; nothing was stored, this is a dry run")
            }
            (Some(text), false) => format!(
                "{id} is edited and {text}: `consumers dead-letters replay {role} {id}` has it tried"
            ),
        };
        print_line(&sentence)?;
        Ok(())
    }

    async fn edit_in_editor(&self, id: &DeadLetterId) -> Result<(), CliError> {
        let dead = one(&self.store, self.role.name, id).await?;
        let event = operate::replayable(&dead)
            .map_err(|e| EditError::Refused(e.to_string()).into_failure(id))?;
        let shown = patch::pretty(&event.data);
        let draft = tokio::task::block_in_place(|| Draft::edited(&id.0, &shown))?;
        let text = draft.text()?;
        match self
            .edit_one(&dead, |data| patch::to_json(data, &text))
            .await
        {
            Ok(()) => {
                draft.done_with();
                Ok(())
            }
            Err(rejected) => {
                let failure = rejected.into_failure(id);
                Err(CliError::new(
                    failure.reason,
                    format!(
                        "{failure}; what was written is in {}",
                        draft.path().display()
                    ),
                ))
            }
        }
    }

    /// Edits all of a kind, each checked by itself, and reports the failed ones: a few of each cause, and their number.
    async fn group(&self, chosen: &Selection, patch: &Patch) -> Result<(), CliError> {
        let ids = open_ids(&self.store, chosen, Timestamp::now()).await?;
        let mut progress = Progress::new("edited", ids.len() as u64);
        let mut tally = EditSummary::default();
        let mut repeats = MessageLimiter::default();
        for id in &ids {
            let dead = match one(&self.store, self.role.name, id).await {
                Ok(dead) => dead,
                Err(failure) => {
                    tally.rejected(failure);
                    continue;
                }
            };
            let changed = operate::replayable(&dead)
                .map_err(|e| e.to_string())
                .and_then(|event| patch.apply(&event.data));
            let stored = match changed {
                Ok(changed) => self.store(&dead, &changed).await,
                Err(why) => Err(EditError::Refused(why)),
            };
            match stored {
                Ok(edited) => tally.add(&edited),
                Err(EditError::Failed(failure)) if failure.reason != ExitReason::Settled => {
                    progress.finish();
                    return Err(failure);
                }
                Err(rejected) => {
                    let failure = rejected.into_failure(id);
                    if let Some(line) = repeats.add(failure.to_string()) {
                        progress.note(&line);
                    }
                    tally.rejected(failure);
                }
            }
            progress.advance();
        }
        for line in repeats.rest() {
            progress.note(&line);
        }
        progress.finish();
        tally.sum_up(self.dry_run)
    }
}

/// The results of several edits.
#[derive(Debug, Default)]
pub(super) struct EditSummary {
    edited: u64,
    untried: u64,
    same: u64,
    rejected: u64,
    first: Option<ExitReason>,
}

impl EditSummary {
    pub(super) fn add(&mut self, edited: &Edited) {
        match edited {
            Edited::Same => self.same += 1,
            Edited::Stored(_) => self.edited += 1,
            Edited::Untried(_) => {
                self.edited += 1;
                self.untried += 1;
            }
        }
    }

    pub(super) fn rejected(&mut self, failure: CliError) {
        self.rejected += 1;
        self.first.get_or_insert(failure.reason);
    }

    /// Reports the totals.
    ///
    /// # Errors
    /// Some were rejected.
    pub(super) fn sum_up(self, dry_run: bool) -> Result<(), CliError> {
        let Self {
            edited,
            untried,
            same,
            rejected,
            first,
        } = self;
        let what = if dry_run {
            "would be edited (dry run)"
        } else {
            "edited"
        };
        print(|out| {
            writeln!(
                out,
                "{edited} {what}, {same} left as they are, {rejected} refused"
            )?;
            if untried > 0 {
                writeln!(
                    out,
                    "{untried} of the first were not given to the handler here, since they have crashed processes"
                )?;
            }
            Ok(())
        })?;
        match first {
            None => Ok(()),
            Some(reason) => Err(CliError::new(
                reason,
                format!("{rejected} of {} do not pass", edited + same + rejected),
            )),
        }
    }
}
