//! `consumers show`: the state of one entity, or a role's report.

use doorstep_cli::{
    CliError,
    output::{print, print_line},
};
use doorstep_contracts::ROLES;
use doorstep_store::{EntityKey, ReadSet, Store};

use super::{access_log, export::write_line};
use crate::{cli::ShowArgs, format::indented, stores};

/// Shows the state of the entity with this key; without one, the report of a role that has one.
///
/// # Errors
/// There is no store, no such entity or no report, or the store cannot be read.
pub(crate) async fn show(args: ShowArgs) -> Result<(), CliError> {
    let name = args.place.role.name;
    let key = match &args.key {
        Some(key) => key,
        None if name == "access_log" => return access_log::report(&args.place, args.json).await,
        None => {
            let forms = key_forms(name);
            return Err(CliError::settings(format!(
                "which entity of {name}? Name its key, of the form {forms}"
            )));
        }
    };
    let store = stores::try_open_read_only(&args.place)?;
    let ask = ReadSet {
        entities: vec![EntityKey::new(key.as_str())],
        ..ReadSet::default()
    };
    let loaded = store.load(ask).await?;
    let found = loaded.entities.into_iter().next();
    let row = found
        .filter(|row| row.state.is_some())
        .ok_or_else(|| no_entity(name, key))?;
    if args.json {
        return print(|out| write_line(out, &row));
    }
    let state = String::from_utf8_lossy(row.state.as_deref().unwrap_or(b"null"));
    print_line(&indented(&state))
}

fn no_entity(role: &str, key: &str) -> CliError {
    let forms = key_forms(role);
    CliError::missing(format!(
        "{role} has no entity {key:?}; its keys are of the form {forms}"
    ))
}

fn key_forms(role: &str) -> String {
    let entities = ROLES
        .iter()
        .find(|spec| spec.name == role)
        .map_or(&[][..], |spec| spec.entities);
    let forms: Vec<String> = entities.iter().map(|kind| format!("{kind}/...")).collect();
    forms.join(" or ")
}
