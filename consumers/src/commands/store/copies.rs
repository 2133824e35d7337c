//! `consumers store backup`, `restore`, `restored` and `accept`: copies of a store.

use std::path::PathBuf;

use doorstep_event::{Source, Timestamp};
use doorstep_program::{
    Failure, Reason,
    output::{print, print_json},
};
use doorstep_runtime::operate::{self, By};
use doorstep_store::{
    SqliteStore, StoreError,
    sqlite::{InPlace, OldOutbox, Options},
};
use serde::Serialize;

use crate::{
    settings::{Form, Place},
    stores,
};

#[derive(Serialize)]
struct BackupView {
    role: &'static str,
    file: PathBuf,
    bytes: u64,
    source: String,
    epoch: Option<String>,
}

/// Copies a store in use.
///
/// # Errors
/// There is no store, or the copy cannot be written or is not sound.
pub(super) async fn backup(place: &Place, to: PathBuf, form: Form) -> Result<(), Failure> {
    let (role, folder) = (place.role.name, place.folder.clone());
    let to = if to.is_dir() {
        let stamp = Timestamp::now().strftime("%Y%m%dT%H%M%SZ");
        to.join(format!("{role}-{stamp}.sqlite3"))
    } else {
        to
    };
    let file = to.clone();
    let made =
        blocking(move || SqliteStore::backup(&folder, role, &to, &Options::default())).await?;
    if let Form::Json = form {
        return print_json(&BackupView {
            role,
            file,
            bytes: made.bytes,
            source: made.source.to_string(),
            epoch: made.epoch.map(|epoch| epoch.to_string()),
        });
    }
    print(|out| {
        writeln!(
            out,
            "{role} is copied to {}: {} bytes, read back whole",
            file.display(),
            made.bytes
        )
    })
}

/// Puts a backup in the place of a store.
///
/// # Errors
/// It is no sound backup of the role, a store is in its place, or a file cannot be written.
pub(super) async fn restore(
    place: &Place,
    from: PathBuf,
    in_place: InPlace,
) -> Result<(), Failure> {
    let (role, folder) = (place.role.name, place.folder.clone());
    let done = blocking(move || {
        let now = Timestamp::now();
        SqliteStore::restore(&folder, role, &from, in_place, now, &Options::default())
    })
    .await?;
    print(|out| {
        for file in &done.aside {
            writeln!(out, "moved aside: {}", file.display())?;
        }
        writeln!(
            out,
            "{} is restored. It numbers anew what it had numbered since the backup, so before it is started:\n  \
             consumers store restored {role} --reason TEXT   gives it a source of its own\n\
             What it had applied since the backup does not come again by itself. When that is dealt with:\n  \
             consumers store accept {role} --reason TEXT     ends its being degraded",
            done.file.display()
        )
    })
}

/// Gives a restored store a source of its own.
///
/// # Errors
/// A process has it open, or its outbox is not empty.
pub(super) async fn restored(place: &Place, outbox: OldOutbox, by: By) -> Result<(), Failure> {
    let (role, folder) = (place.role.name, place.folder.clone());
    // One that is missing is told in the words of every other command.
    stores::look_at(place)?.close().await;
    let source = blocking(move || {
        let options = Options::default();
        SqliteStore::require_alone(&folder, role, &options)?;
        let record = operate::record_of_new_source(by);
        SqliteStore::mint_source(&folder, role, outbox, &record, &options)
    })
    .await?;
    print(|out| {
        writeln!(
            out,
            "{role} numbers under {source} from now on, each stream from 1"
        )
    })
}

/// Accepts that a store was restored.
///
/// # Errors
/// Nothing of the kind is recorded, or the store cannot be used.
pub(super) async fn accept(place: &Place, source: Option<Source>, by: By) -> Result<(), Failure> {
    let store = stores::existing(place)?;
    let role = place.role.name;
    let accepted = operate::accept_restored(&store, source.as_ref(), by).await;
    let what = source.map_or_else(
        || format!("the store of {role}"),
        |source| source.to_string(),
    );
    if accepted.map_err(|e| stores::failed(&e))? {
        return print(|out| writeln!(out, "{what} is accepted"));
    }
    Err(Failure::new(
        Reason::Missing,
        format!("{what} is not recorded as restored; `consumers health` tells what is"),
    ))
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, StoreError> + Send + 'static,
) -> Result<T, Failure> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|e| Failure::new(Reason::Internal, e.to_string()))?
        .map_err(|e| stores::failed(&e))
}
