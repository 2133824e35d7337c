//! `consumers export`: every entity of a role, one JSON line each, sorted by key.

use std::io::{self, BufWriter, ErrorKind, Write};

use doorstep_cli::{CliError, output::cannot_write};
use doorstep_store::{EntityRow, Store};

use super::output_file::OutputFile;
use crate::{cli::ExportArgs, stores};

/// The number of entities read at a time, so that the store is not blocked for longer.
const PAGE: usize = 1_000;

/// Writes the entities to the file, or to standard output.
///
/// # Errors
/// There is no store, it cannot be read, or the output cannot be written.
pub(crate) async fn export(args: ExportArgs) -> Result<(), CliError> {
    let store = stores::try_open_read_only(&args.place)?;
    let Some(path) = args.output else {
        return match write_all(&store, &mut io::stdout()).await {
            // A reader that has closed the pipe (`| head`) has read enough.
            Err(Stopped::Write(e)) if e.kind() == ErrorKind::BrokenPipe => Ok(()),
            ended => ended.map_err(|stopped| stopped.into_failure("standard output")),
        };
    };
    let mut file = OutputFile::create(&path)?;
    let written = write_all(&store, &mut file).await;
    written.map_err(|stopped| stopped.into_failure(&path.display().to_string()))?;
    file.complete()
}

/// The reason why an export ended early.
enum Stopped {
    Read(CliError),
    Write(io::Error),
}

impl Stopped {
    fn into_failure(self, what: &str) -> CliError {
        match self {
            Self::Read(failure) => failure,
            Self::Write(e) => cannot_write(what, &e),
        }
    }
}

async fn write_all<S: Store>(store: &S, out: &mut (impl Write + Send)) -> Result<(), Stopped> {
    let mut out = BufWriter::new(out);
    let mut after = None;
    loop {
        let page = store
            .entities(after.take(), PAGE)
            .await
            .map_err(|e| Stopped::Read(e.into()))?;
        let is_last = page.len() < PAGE;
        for row in &page {
            write_line(&mut out, row).map_err(Stopped::Write)?;
        }
        after = page.into_iter().next_back().map(|row| row.key);
        if is_last || after.is_none() {
            return out.flush().map_err(Stopped::Write);
        }
    }
}

/// Writes one entity as one line, its state as the role wrote it.
///
/// # Errors
/// The output cannot be written.
pub(crate) fn write_line(out: &mut dyn Write, row: &EntityRow) -> io::Result<()> {
    out.write_all(b"{\"key\":")?;
    serde_json::to_writer(&mut *out, &row.key)?;
    out.write_all(b",\"state\":")?;
    out.write_all(row.state.as_deref().unwrap_or(b"null"))?;
    out.write_all(b"}\n")
}

#[cfg(test)]
mod tests {
    use doorstep_event::Timestamp;
    use doorstep_store::{Commit, EntityChange, EntityKey, ExpectedVersion, MemoryStore, WriteSet};

    use super::*;

    async fn store_with(keys: &[String]) -> MemoryStore {
        let store = MemoryStore::new("inventory");
        let mut changes = WriteSet::at(Timestamp::UNIX_EPOCH);
        changes.entities = keys
            .iter()
            .map(|key| EntityChange {
                key: EntityKey::new(key.as_str()),
                expect: ExpectedVersion {
                    row: None,
                    version: 0,
                },
                after: Some(br#"{"on_hand":-1}"#.to_vec()),
            })
            .collect();
        assert!(matches!(
            store.commit(changes).await,
            Ok(Commit::Written(_))
        ));
        store
    }

    async fn exported(store: &MemoryStore) -> String {
        let mut out = Vec::new();
        assert!(write_all(store, &mut out).await.is_ok());
        String::from_utf8(out).unwrap()
    }

    #[tokio::test]
    async fn export_has_one_line_per_entity_sorted() {
        let keys = ["stock/ä", "stock/a", "stock/B", "stock/\"q\""].map(str::to_owned);
        let text = exported(&store_with(&keys).await).await;
        assert_eq!(
            text,
            "{\"key\":\"stock/\\\"q\\\"\",\"state\":{\"on_hand\":-1}}\n\
             {\"key\":\"stock/B\",\"state\":{\"on_hand\":-1}}\n\
             {\"key\":\"stock/a\",\"state\":{\"on_hand\":-1}}\n\
             {\"key\":\"stock/ä\",\"state\":{\"on_hand\":-1}}\n"
        );
    }

    #[tokio::test]
    async fn export_of_several_pages_is_complete() {
        for count in [0, 1, PAGE, PAGE + 1, 2 * PAGE + 3] {
            let keys: Vec<String> = (0..count).map(|n| format!("stock/{n:05}")).collect();
            let text = exported(&store_with(&keys).await).await;
            let lines: Vec<String> = text.lines().map(str::to_owned).collect();
            let expected: Vec<String> = keys
                .iter()
                .map(|key| format!("{{\"key\":\"{key}\",\"state\":{{\"on_hand\":-1}}}}"))
                .collect();
            assert_eq!(lines, expected);
        }
    }
}
