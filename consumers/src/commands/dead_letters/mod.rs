//! `consumers dead-letters`: the dead letters of a role and the actions on them.

mod audit;
mod audit_view;
mod diff;
mod dry_run;
mod edit;
mod editor;
mod export;
mod import;
mod list;
mod patch;
mod replay;
mod selection;
mod show;
mod skip;
mod view;

pub(super) use skip::{WHEN, failed};

use crate::settings::dead_letters::DeadLettersJob;
use doorstep_cli::CliError;

/// Runs the command.
///
/// # Errors
/// The reason why it was not done, or not all of it.
pub(crate) async fn work(job: DeadLettersJob) -> Result<(), CliError> {
    match job {
        DeadLettersJob::List {
            roles,
            folder,
            listing,
            limit,
            form,
        } => list::list(&roles, &folder, listing, limit, form).await,
        DeadLettersJob::Show { place, id, form } => show::show(&place, id, form).await,
        DeadLettersJob::Edit {
            place,
            chosen,
            change,
            by,
            mode,
        } => edit::edit(&place, &chosen, &change, &by, mode).await,
        DeadLettersJob::Replay {
            place,
            replay,
            by,
            mode,
        } => replay::replay(&place, &replay, &by, mode).await,
        DeadLettersJob::Skip {
            place,
            chosen,
            by,
            mode,
        } => skip::skip(&place, &chosen, &by, mode).await,
        DeadLettersJob::Export { place, chosen } => export::export(&place, &chosen).await,
        DeadLettersJob::Import {
            place,
            file,
            by,
            mode,
        } => import::import(&place, &file, &by, mode).await,
        DeadLettersJob::Audit { place, limit, form } => audit::audit(&place, limit, form).await,
    }
}
