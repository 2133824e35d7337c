//! Finding the dead letters that are meant.

use std::collections::HashSet;

use doorstep_event::Timestamp;
use doorstep_program::{CliError, ExitReason};
use doorstep_runtime::operate;
use doorstep_store::{DeadLetter, DeadLetterFilter, DeadLetterId, DeadLetterStatus, Store};

use crate::{settings::dead::Selection, stores};

/// How many dead letters are read at a time.
const PAGE: usize = 500;

/// The ids of the open dead letters that are meant and died no later than `until`, oldest first. Those that were named are taken as
/// they are. The store bounds how many there can be.
///
/// # Errors
/// The store cannot be read.
pub(super) async fn open_ids<S: Store>(
    store: &S,
    chosen: &Selection,
    until: Timestamp,
) -> Result<Vec<DeadLetterId>, CliError> {
    if let Selection::Ids(ids) = chosen {
        return Ok(ids.clone());
    }
    let (mut ids, mut known) = (Vec::new(), HashSet::new());
    let mut pages = Pages::new(store, chosen);
    let now = Timestamp::now();
    while let Some(page) = pages.next().await? {
        let open = page
            .into_iter()
            .filter(|row| row.status == DeadLetterStatus::Open && is_meant(row.since, until, now))
            .map(|row| row.id)
            // The list begins anew where the last of a page is settled meanwhile.
            .filter(|id| known.insert(id.clone()));
        ids.extend(open);
    }
    Ok(ids)
}

/// One dead letter.
///
/// # Errors
/// It is not there, or the store cannot be read.
pub(super) async fn one<S: Store>(
    store: &S,
    role: &str,
    id: &DeadLetterId,
) -> Result<DeadLetter, CliError> {
    let found = store
        .dead_letters(DeadLetterFilter::Id(id.clone()), None, 1)
        .await;
    let found = found.map_err(|e| stores::failed(&e))?;
    if let Some(row) = found.into_iter().next() {
        return Ok(row);
    }
    let anew = operate::refused_anew(store, id).await;
    let text = match anew.map_err(|e| stores::failed(&e))? {
        Some(now) => format!(
            "{role} has no dead letter {:?} any more: it was tried again and refused anew, and is {now} now",
            id.0
        ),
        None => format!(
            "{role} has no dead letter {:?}: it was settled, or never was; see `consumers dead list {role} --each`",
            id.0
        ),
    };
    Err(CliError::new(ExitReason::Missing, text))
}

/// What is meant, in the same words whenever it is the same.
pub(super) fn label(chosen: &Selection) -> String {
    match chosen {
        Selection::Ids(ids) => format!("{} dead letters", ids.len()),
        Selection::Group(fingerprint) => format!("group {fingerprint}"),
        Selection::All => "all".to_owned(),
    }
}

/// Pages of what is chosen, oldest first.
pub(super) struct Pages<'s, S> {
    store: &'s S,
    filter: DeadLetterFilter,
    after: Option<DeadLetterId>,
    at_end: bool,
}

impl<'s, S: Store> Pages<'s, S> {
    /// From the oldest on. Of named ones there is nothing to page through.
    pub(super) fn new(store: &'s S, chosen: &Selection) -> Self {
        let filter = match chosen {
            Selection::Group(fingerprint) => DeadLetterFilter::Fingerprint(fingerprint.clone()),
            Selection::Ids(_) | Selection::All => DeadLetterFilter::All,
        };
        Self {
            store,
            filter,
            after: None,
            at_end: matches!(chosen, Selection::Ids(_)),
        }
    }

    /// The next page, `None` at the end. Where the last of a page is settled by somebody else meanwhile, the list begins anew.
    ///
    /// # Errors
    /// The store cannot be read.
    pub(super) async fn next(&mut self) -> Result<Option<Vec<DeadLetter>>, CliError> {
        if self.at_end {
            return Ok(None);
        }
        let page = self
            .store
            .dead_letters(self.filter.clone(), self.after.take(), PAGE)
            .await
            .map_err(|e| stores::failed(&e))?;
        self.at_end = page.len() < PAGE;
        self.after = page.last().map(|row| row.id.clone());
        Ok(Some(page))
    }
}

/// Returns whether a dead letter of this date is meant where those up to `until` are. One dated after now is as well: the clock was ahead.
fn is_meant(since: Timestamp, until: Timestamp, now: Timestamp) -> bool {
    since <= until || since > now
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_died_after_the_beginning_of_a_run_is_not_meant_unless_the_clock_was_ahead() {
        let at = |text: &str| text.parse().unwrap();
        let (until, now) = (at("2026-11-23T10:00:00Z"), at("2026-11-23T10:05:00Z"));
        for (since, meant) in [
            ("2026-11-23T09:00:00Z", true),
            ("2026-11-23T10:00:00Z", true),
            ("2026-11-23T10:01:00Z", false),
            ("2027-11-23T10:00:00Z", true),
        ] {
            assert_eq!(is_meant(at(since), until, now), meant, "{since}");
        }
    }
}
