//! `consumers store`: the ownership of queues, and copies of a store.

mod take_over;

use doorstep_cli::{
    CliError,
    backups::{CopyJob, StorePlace},
};

pub(crate) use take_over::take_over;

use crate::stores::StoreLocation;

/// Runs a command on copies of a store.
///
/// # Errors
/// As each of the commands.
pub(crate) async fn copy(place: StoreLocation, job: CopyJob) -> Result<(), CliError> {
    let role = place.role.name;
    let place = StorePlace {
        folder: &place.store.folder,
        role,
        command: "consumers store",
        named: &format!(" {role}"),
        created_by: &format!("consumers run {role}"),
        restored_sign: "`consumers health`",
    };
    place.work(job).await
}
