//! The roles' stores: opened to be run, to be changed by an operator, or only to be read.

use std::path::Path;

use clap::Args;
use doorstep_cli::{CliError, args::StoreArgs, backups::no_store};
use doorstep_store::{SqliteStore, sqlite::Options};

use crate::roles::{self, RoleEntry, RoleStore};

/// A role and the folder with its store.
#[derive(Debug, Args)]
pub(crate) struct StoreLocation {
    /// The role.
    #[arg(value_name = "ROLE", value_parser = roles::parser())]
    pub(crate) role: RoleEntry,

    #[command(flatten)]
    pub(crate) store: StoreArgs,
}

/// Opens the store of a role that is to run; creates it if there is none.
///
/// # Errors
/// It cannot be created or opened.
pub(crate) fn create(folder: &Path, role: &str) -> Result<RoleStore, CliError> {
    Ok(SqliteStore::open(folder, role, &Options::default())?)
}

/// Opens the store of a role for a change by an operator, even while the role runs.
///
/// # Errors
/// There is none, or it cannot be opened.
pub(crate) fn open_existing(place: &StoreLocation) -> Result<RoleStore, CliError> {
    let (folder, role) = (&place.store.folder, place.role.name);
    if !SqliteStore::exists(folder, role) {
        return Err(missing(folder, role));
    }
    Ok(SqliteStore::open_existing(
        folder,
        role,
        &Options::default(),
    )?)
}

/// Opens the store of a role only to be read, even while the role runs; `None` if there is none.
///
/// # Errors
/// It cannot be opened.
pub(crate) fn open_read_only(folder: &Path, role: &str) -> Result<Option<RoleStore>, CliError> {
    if !SqliteStore::exists(folder, role) {
        return Ok(None);
    }
    let store = SqliteStore::open_read_only(folder, role, &Options::default())?;
    Ok(Some(store))
}

/// Opens the store of a role only to be read.
///
/// # Errors
/// There is none, or it cannot be opened.
pub(crate) fn try_open_read_only(place: &StoreLocation) -> Result<RoleStore, CliError> {
    require_read_only(&place.store.folder, place.role.name)
}

/// Opens the store of the role with this name only to be read.
///
/// # Errors
/// There is none, or it cannot be opened.
pub(crate) fn require_read_only(folder: &Path, role: &str) -> Result<RoleStore, CliError> {
    open_read_only(folder, role)?.ok_or_else(|| missing(folder, role))
}

/// Checks that the folder has a store of at least one of these roles: an empty answer would look like that of a role
/// without events.
///
/// # Errors
/// There is none.
pub(crate) fn require_any(roles: &[RoleEntry], folder: &Path) -> Result<(), CliError> {
    if roles
        .iter()
        .any(|role| SqliteStore::exists(folder, role.name))
    {
        return Ok(());
    }
    let names: Vec<&str> = roles.iter().map(|role| role.name).collect();
    Err(CliError::missing(format!(
        "no store here: {} has none of {}; `consumers run` creates them, and another folder is named by --data-dir or DOORSTEP_DATA_DIR",
        folder.display(),
        names.join(", ")
    )))
}

fn missing(folder: &Path, role: &str) -> CliError {
    no_store(folder, role, &format!("consumers run {role}"))
}
