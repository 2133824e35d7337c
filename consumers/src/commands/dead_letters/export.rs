//! `consumers dead-letters export`: complete dead letters as JSON lines, to be read, edited and imported again.

use doorstep_cli::{CliError, output::print_json};
use doorstep_store::{DeadLetter, Store};
use serde::Serialize;

use super::{
    Selection,
    audit_view::RecordView,
    selection::Pages,
    show::edits,
    view::{DeadLetterDetail, Original},
};
use crate::{cli::dead_letters::ExportArgs, stores};

/// One line of the export.
#[derive(Debug, Serialize)]
struct ExportedDeadLetter<'a> {
    #[serde(flatten)]
    letter: DeadLetterDetail<'a>,
    /// The original data, if it was edited.
    #[serde(flatten)]
    original: Option<Original<'a>>,
    /// Its audit records so far, the oldest first.
    edits: Vec<RecordView<'a>>,
}

/// Writes dead letters to standard output.
///
/// # Errors
/// There is no store, it cannot be read, or the output cannot be written.
pub(crate) async fn export(args: ExportArgs) -> Result<(), CliError> {
    let store = stores::try_open_read_only(&args.place)?;
    let chosen = args.fingerprint.map_or(Selection::All, Selection::Group);
    let mut pages = Pages::new(&store, &chosen);
    while let Some(page) = pages.next().await? {
        for row in &page {
            write(&store, args.place.role.name, row).await?;
        }
    }
    Ok(())
}

async fn write<S: Store>(store: &S, role: &str, row: &DeadLetter) -> Result<(), CliError> {
    let records = edits(store, row).await?;
    print_json(&ExportedDeadLetter {
        letter: DeadLetterDetail::new(role, row),
        original: Original::if_edited(row),
        edits: records.iter().map(RecordView::new).collect(),
    })
}
