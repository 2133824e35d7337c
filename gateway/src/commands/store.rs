//! `gateway store`: backup and restore of the gateway's store.

use std::path::Path;

use doorstep_cli::{
    CliError,
    backups::{CopyJob, StorePlace},
    output::print,
};

use super::open;
use crate::{checkout::leave_open, domain, repository::GatewayStore};

/// Runs a backup or restore command on the gateway's store.
///
/// # Errors
/// As [`StorePlace::work`].
pub(crate) async fn run(folder: &Path, job: CopyJob) -> Result<(), CliError> {
    let place = StorePlace {
        folder,
        role: domain::NAME,
        command: "gateway store",
        named: "",
        created_by: "gateway serve",
        restored_sign: "/readyz at the gateway's --health-addr",
    };
    let is_of_copy = matches!(job, CopyJob::Restore(_) | CopyJob::Restored { .. });
    place.work(job).await?;
    if is_of_copy {
        leave(folder).await
    } else {
        Ok(())
    }
}

/// Marks the orders that are open in a restored copy as left, and prints their numbers.
async fn leave(folder: &Path) -> Result<(), CliError> {
    let left = leave_open(&GatewayStore::alone(open(folder)?)).await;
    let left = left.map_err(|e| CliError::io(e.to_string()))?;
    if left.is_empty() {
        return Ok(());
    }
    print(|out| {
        writeln!(
            out,
            "{} orders were open in the copy. The gateway queries the role orders for their outcomes and leaves the rest to an operator:",
            left.len()
        )?;
        left.iter()
            .try_for_each(|number| writeln!(out, "  {number}"))
    })
}
