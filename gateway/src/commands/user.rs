//! `gateway user`: manages users and ends their sessions, also beside a gateway that runs on the same store.

use std::{
    env::{self, VarError},
    io::{self, BufRead, IsTerminal},
    path::Path,
};

use doorstep_cli::{
    CliError,
    output::{print, print_json},
};
use doorstep_store::{SqliteStore, sqlite::Options};
use doorstep_table::{Column, Table};

use super::open;
use crate::{
    auth::{MAX_CHARS, Password, hash},
    domain::{
        self, AddUser, RevokeTokens, SetPassword, SetUserStatus, User, UserName, UserRole,
        UserStatus,
    },
    repository::{self, GatewayStore, GatewayStoreError},
    routes::{RoleName, UserBody},
};

/// The variable that may hold a password, instead of standard input.
const VARIABLE: &str = "DOORSTEP_USER_PASSWORD";

/// The number of users that one read returns.
const PAGE: usize = 500;

/// Adds a user.
///
/// # Errors
/// There is such a user already, the password cannot be read or used, or the store cannot be used.
pub(crate) async fn add(folder: &Path, name: UserName, standing: UserRole) -> Result<(), CliError> {
    let hash = hash(&password()?).map_err(CliError::failed)?;
    let add = AddUser {
        name: name.clone(),
        standing,
        hash,
    };
    let store = GatewayStore::alone(open(folder)?);
    store.execute(&add).await.map_err(failed)?;
    print(|out| writeln!(out, "{name} may log in"))
}

/// Ends all sessions of a user.
///
/// # Errors
/// There is no such user, or the store cannot be used.
pub(crate) async fn revoke(folder: &Path, name: UserName) -> Result<(), CliError> {
    let store = GatewayStore::alone(open(folder)?);
    let revoke = RevokeTokens { name: name.clone() };
    store.execute(&revoke).await.map_err(failed)?;
    print(|out| writeln!(out, "all sessions of {name} have ended; {SOON}"))
}

/// Enables, disables or deletes a user.
///
/// # Errors
/// There is no such user, or it is the last operator; or the store cannot be used.
pub(crate) async fn set_status(
    folder: &Path,
    name: UserName,
    status: UserStatus,
) -> Result<(), CliError> {
    let store = GatewayStore::alone(open(folder)?);
    let other_operator = store.other_operator(&name).await.map_err(failed)?;
    let set = SetUserStatus {
        name: name.clone(),
        status,
        other_operator,
    };
    store.execute(&set).await.map_err(failed)?;
    print(|out| match status {
        UserStatus::Active => writeln!(out, "{name} may log in"),
        UserStatus::Disabled => {
            writeln!(
                out,
                "{name} may not log in, and all sessions have ended; {SOON}"
            )
        }
        UserStatus::Deleted => writeln!(
            out,
            "{name} is deleted, and all sessions have ended; the name stays with the orders; {SOON}"
        ),
    })
}

/// Sets another password.
///
/// # Errors
/// There is no such user, the password cannot be read or used, or the store cannot be used.
pub(crate) async fn set_password(folder: &Path, name: UserName) -> Result<(), CliError> {
    let hash = hash(&password()?).map_err(CliError::failed)?;
    let set = SetPassword {
        name: name.clone(),
        hash,
        replaces: None,
    };
    let store = GatewayStore::alone(open(folder)?);
    store.execute(&set).await.map_err(failed)?;
    print(|out| {
        writeln!(
            out,
            "{name} has a new password, and all sessions have ended; {SOON}"
        )
    })
}

/// A hint at the delay until a running gateway notices the change.
const SOON: &str = "a running gateway notices within 5 s";

/// Prints all users by name. Creates no store if there is none.
pub(crate) async fn list(folder: &Path, json: bool) -> Result<(), CliError> {
    let store = SqliteStore::open_read_only(folder, domain::NAME, &Options::default())
        .map_err(|e| CliError::missing(e.to_string()))?;
    let mut after: Option<UserName> = None;
    let mut table = Table::new([
        Column::text("NAME"),
        Column::text("ROLE"),
        Column::text("STATUS"),
        Column::text("SINCE").optional(),
        Column::text("RESTAURANT").optional(),
    ]);
    loop {
        let page = repository::users(&store, after.as_ref(), PAGE).await;
        let page = page.map_err(failed)?;
        let is_last = page.len() < PAGE;
        after = page.last().map(|(name, _)| name.clone());
        for (name, user) in page {
            if json {
                print_json(&UserBody::new(name, user))?;
            } else {
                table.add_row(cells(&name, &user));
            }
        }
        if is_last {
            break;
        }
    }
    if json {
        return Ok(());
    }
    print(|out| {
        if table.is_empty() {
            writeln!(out, "no users yet")
        } else {
            writeln!(out, "{table}")
        }
    })
}

fn cells(name: &UserName, user: &User) -> [String; 5] {
    [
        name.to_string(),
        RoleName::from_role(&user.standing).as_str().to_owned(),
        user.status.as_str().to_owned(),
        user.added_at.strftime("%Y-%m-%d").to_string(),
        match &user.standing {
            // Printed as a literal: the name may be older than the rule for names.
            UserRole::Restaurant { restaurant } => format!("{restaurant:?}"),
            _ => "-".to_owned(),
        },
    ]
}

/// Reads the password from the environment or from a line of standard input. It is never an argument, which other users
/// of the machine could read.
fn password() -> Result<Password, CliError> {
    let (from, text) = match env::var(VARIABLE) {
        Ok(text) => (VARIABLE, text),
        Err(VarError::NotUnicode(_)) => {
            let text = format!("{VARIABLE}: it is not UTF-8");
            return Err(CliError::settings(text));
        }
        Err(VarError::NotPresent) => {
            if io::stdin().is_terminal() {
                eprintln!(
                    "type the password and Enter; it is visible as you type, so better pipe it in or set {VARIABLE}"
                );
            }
            ("standard input", line()?)
        }
    };
    Password::try_from(text).map_err(|e| CliError::settings(format!("{from}: {e}")))
}

fn line() -> Result<String, CliError> {
    let mut line = String::new();
    let mut input = io::Read::take(io::stdin().lock(), MAX_CHARS as u64 * 4 + 3);
    input
        .read_line(&mut line)
        .map_err(|e| CliError::io(format!("cannot read the password: {e}")))?;
    let length = line.trim_end_matches(['\r', '\n']).len();
    line.truncate(length);
    Ok(line)
}

fn failed(error: GatewayStoreError) -> CliError {
    match error {
        GatewayStoreError::Refused(rejected) => CliError::settled(rejected.detail),
        error @ (GatewayStoreError::Overloaded { .. } | GatewayStoreError::Unavailable(_)) => {
            CliError::io(error.to_string())
        }
    }
}
