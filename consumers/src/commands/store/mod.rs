//! `consumers store`: whose queues a store has, and copies of it.

mod copies;
mod take_over;

use doorstep_program::Failure;

use crate::settings::StoreJob;

/// Does what is asked.
///
/// # Errors
/// As each of the commands.
pub(crate) async fn work(job: StoreJob) -> Result<(), Failure> {
    match job {
        StoreJob::Backup { place, to, form } => copies::backup(&place, to, form).await,
        StoreJob::Restore {
            place,
            from,
            in_place,
        } => copies::restore(&place, from, in_place).await,
        StoreJob::Restored { place, outbox, by } => copies::restored(&place, outbox, by).await,
        StoreJob::Accept { place, source, by } => copies::accept(&place, source, by).await,
        StoreJob::TakeOver { place, broker, by } => take_over::take_over(&place, &broker, by).await,
    }
}
