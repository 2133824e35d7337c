//! `consumers show`: the state of one entity.

use doorstep_cli::{
    CliError,
    output::{print, print_line},
};
use doorstep_contracts::ROLES;
use doorstep_store::{EntityKey, ReadSet, Store};

use super::export::write_line;
use crate::{cli::ShowArgs, format::indented, stores};

/// Shows the state of the entity with this key.
///
/// # Errors
/// There is no store or no such entity, or the store cannot be read.
pub(crate) async fn show(args: ShowArgs) -> Result<(), CliError> {
    let store = stores::try_open_read_only(&args.place)?;
    let ask = ReadSet {
        entities: vec![EntityKey::new(args.key.as_str())],
        ..ReadSet::default()
    };
    let loaded = store.load(ask).await?;
    let found = loaded.entities.into_iter().next();
    let row = found
        .filter(|row| row.state.is_some())
        .ok_or_else(|| no_entity(args.place.role.name, &args.key))?;
    if args.json {
        return print(|out| write_line(out, &row));
    }
    let state = String::from_utf8_lossy(row.state.as_deref().unwrap_or(b"null"));
    print_line(&indented(&state))
}

fn no_entity(role: &str, key: &str) -> CliError {
    let entities = ROLES
        .iter()
        .find(|spec| spec.name == role)
        .map_or(&[][..], |spec| spec.entities);
    let forms: Vec<String> = entities.iter().map(|kind| format!("{kind}/...")).collect();
    CliError::missing(format!(
        "{role} has no entity {key:?}; its keys are of the form {}",
        forms.join(" or ")
    ))
}
