//! The lookup of selected dead letters.

use std::collections::HashSet;

use doorstep_cli::CliError;
use doorstep_event::Timestamp;
use doorstep_runtime::operate;
use doorstep_store::{DeadLetter, DeadLetterFilter, DeadLetterId, DeadLetterStatus, Store};

use super::Selection;

/// The number of dead letters read at a time.
const PAGE: usize = 500;

/// Returns the ids of the selected open dead letters that are not younger than `until`, oldest first. Named ones are
/// taken as they are. The store bounds their number.
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
            // The list starts anew if the last one of a page is resolved meanwhile.
            .filter(|id| known.insert(id.clone()));
        ids.extend(open);
    }
    Ok(ids)
}

/// Returns one dead letter.
///
/// # Errors
/// It does not exist, or the store cannot be read.
pub(super) async fn one<S: Store>(
    store: &S,
    role: &str,
    id: &DeadLetterId,
) -> Result<DeadLetter, CliError> {
    let found = store
        .dead_letters(DeadLetterFilter::Id(id.clone()), None, 1)
        .await?;
    if let Some(row) = found.into_iter().next() {
        return Ok(row);
    }
    let text = match operate::refused_anew(store, id).await? {
        Some(now) => format!(
            "{role} has no dead letter {:?} any more: it was replayed and rejected again, and is {now} now",
            id.0
        ),
        None => format!(
            "{role} has no dead letter {:?}: it was resolved, or never existed; see `consumers dead-letters list {role}`",
            id.0
        ),
    };
    Err(CliError::missing(text))
}

/// Describes a selection, always in the same words.
pub(super) fn label(chosen: &Selection) -> String {
    match chosen {
        Selection::Ids(ids) => format!("{} dead letters", ids.len()),
        Selection::Group(fingerprint) => format!("group {fingerprint}"),
        Selection::All => "all".to_owned(),
    }
}

/// Pages of a selection, oldest first.
pub(super) struct Pages<'s, S> {
    store: &'s S,
    filter: DeadLetterFilter,
    after: Option<DeadLetterId>,
    at_end: bool,
}

impl<'s, S: Store> Pages<'s, S> {
    /// Starts with the oldest. Named ones need no pages.
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

    /// Returns the next page, `None` at the end. If the last one of a page is resolved meanwhile, the list starts anew.
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
            .await?;
        self.at_end = page.len() < PAGE;
        self.after = page.last().map(|row| row.id.clone());
        Ok(Some(page))
    }
}

/// Returns whether a dead letter of this date is selected by `until`. One dated after now is: the clock was ahead.
fn is_meant(since: Timestamp, until: Timestamp, now: Timestamp) -> bool {
    since <= until || since > now
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn run_excludes_younger_dead_letters() {
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
