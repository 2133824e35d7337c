//! `consumers dead`: the dead letters of a role and the actions on them.

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

pub(super) use skip::failed;

use crate::settings::dead::DeadJob;
use doorstep_cli::CliError;

/// Runs the command.
///
/// # Errors
/// The reason why it was not done, or not all of it.
pub(crate) async fn work(job: DeadJob) -> Result<(), CliError> {
    match job {
        DeadJob::List {
            roles,
            folder,
            listing,
            limit,
            form,
        } => list::list(&roles, &folder, listing, limit, form).await,
        DeadJob::Show { place, id, form } => show::show(&place, id, form).await,
        DeadJob::Edit {
            place,
            chosen,
            change,
            by,
            mode,
        } => edit::edit(&place, &chosen, &change, &by, mode).await,
        DeadJob::Replay {
            place,
            replay,
            by,
            mode,
        } => replay::replay(&place, &replay, &by, mode).await,
        DeadJob::Skip {
            place,
            chosen,
            by,
            mode,
        } => skip::skip(&place, &chosen, &by, mode).await,
        DeadJob::SkipGap {
            place,
            gap,
            by,
            mode,
        } => skip::skip_gap(&place, &gap, &by, mode).await,
        DeadJob::Export { place, chosen } => export::export(&place, &chosen).await,
        DeadJob::Import {
            place,
            file,
            by,
            mode,
        } => import::import(&place, &file, &by, mode).await,
        DeadJob::Audit { place, limit, form } => audit::audit(&place, limit, form).await,
    }
}
