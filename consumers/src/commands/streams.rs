//! `consumers streams skip-gap`: one transaction on the role's store, whether the role runs or not.

use doorstep_cli::{CliError, output::print_line};
use doorstep_event::Timestamp;
use doorstep_runtime::operate::{self, Attribution};

use super::dead_letters::{WHEN, failed};
use crate::{cli::streams::SkipGapArgs, stores};

/// Skips missing events.
///
/// # Errors
/// The stream does not miss them, or the store cannot be used.
pub(crate) async fn skip_gap(by: Attribution, args: SkipGapArgs) -> Result<(), CliError> {
    let (place, role) = (&args.place, args.place.role.name);
    let (stream, (from, to)) = (args.stream(), args.range);
    let (done, sentence) = if args.skip.dry_run {
        let store = stores::try_open_read_only(place)?;
        let done = operate::missing(&store, &stream, from, to).await;
        let sentence = format!(
            "{from}..{to} of {stream} would be skipped; nothing was written, this is a dry run"
        );
        (done.map(|_| ()), sentence)
    } else {
        let store = stores::open_existing(place)?;
        let by = by.at(Timestamp::now());
        let done = operate::skip_gap(&store, &stream, from, to, by).await;
        let sentence = format!(
            "{from}..{to} of {stream} are skipped: {role} applies the events deferred behind them {WHEN}"
        );
        (done, sentence)
    };
    done.map_err(|e| failed(role, &e))?;
    print_line(&sentence)
}
