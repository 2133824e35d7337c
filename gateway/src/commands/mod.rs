//! The commands, and the store that all of them work on.

pub(crate) mod serve;
pub(crate) mod store;
pub(crate) mod user;

use std::path::Path;

use doorstep_cli::CliError;
use doorstep_store::{SqliteStore, sqlite::Options};

use crate::domain;

/// Opens the gateway's store, and creates it if there is none.
fn open(folder: &Path) -> Result<SqliteStore, CliError> {
    Ok(SqliteStore::open(
        folder,
        domain::NAME,
        &Options::default(),
    )?)
}
