//! `consumers store`: whose queues a store has.

mod take_over;

use doorstep_program::Failure;

use crate::settings::StoreJob;

/// Does what is asked.
///
/// # Errors
/// As each of the commands.
pub(crate) async fn work(job: StoreJob) -> Result<(), Failure> {
    match job {
        StoreJob::TakeOver { place, broker, by } => take_over::take_over(&place, &broker, by).await,
    }
}
