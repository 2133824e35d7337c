//! `consumers store`: the ownership of queues, and copies of a store.

mod take_over;

use doorstep_cli::{CliError, copies::StorePlace};

use crate::settings::{StoreJob, StoreLocation};

/// Runs the command.
///
/// # Errors
/// As each of the commands.
pub(crate) async fn work(job: StoreJob) -> Result<(), CliError> {
    match job {
        StoreJob::Copy { place, job } => {
            let StoreLocation { role, folder } = place;
            let place = StorePlace {
                folder: &folder,
                role: role.name,
                command: "consumers store",
                named: &format!(" {}", role.name),
                created_by: &format!("consumers run {}", role.name),
                told_by: "`consumers health`",
            };
            place.work(job).await
        }
        StoreJob::TakeOver { place, broker, by } => take_over::take_over(&place, &broker, by).await,
    }
}
