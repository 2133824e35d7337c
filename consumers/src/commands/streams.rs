//! `consumers streams skip-gap`: one transaction on the role's store, whether the role runs or not.

use doorstep_cli::{CliError, output::print};
use doorstep_event::{StreamKey, Timestamp};
use doorstep_runtime::operate::{self, Attribution};

use super::dead_letters::{Mode, WHEN, failed};
use crate::stores::{self, StoreLocation};

/// A range of missing events.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct GapRange {
    pub(crate) stream: StreamKey,
    /// The first missing sequence.
    pub(crate) from: u64,
    /// The last missing sequence.
    pub(crate) to: u64,
}

/// Skips missing events.
///
/// # Errors
/// The stream does not miss them, or the store cannot be used.
pub(crate) async fn skip_gap(
    place: &StoreLocation,
    gap: &GapRange,
    by: &Attribution,
    mode: Mode,
) -> Result<(), CliError> {
    let role = place.role.name;
    let GapRange { stream, from, to } = gap;
    let (done, sentence) = if mode == Mode::DryRun {
        let store = stores::try_open_read_only(place)?;
        let done = operate::missing(&store, stream, *from, *to).await;
        let sentence = format!(
            "{from}..{to} of {stream} would be skipped; nothing was written, this is a dry run"
        );
        (done.map(|_| ()), sentence)
    } else {
        let store = stores::open_existing(place)?;
        let by = by.at(Timestamp::now());
        let done = operate::skip_gap(&store, stream, *from, *to, by).await;
        let sentence = format!(
            "{from}..{to} of {stream} are skipped: {role} applies the events deferred behind them {WHEN}"
        );
        (done, sentence)
    };
    done.map_err(|e| failed(role, &e))?;
    print(|out| writeln!(out, "{sentence}"))
}
