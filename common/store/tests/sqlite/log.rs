//! The write-ahead log while a reader keeps it.

use doorstep_store::{Store, sqlite::Options, sqlite::SqliteStore};

use crate::{fixtures::*, folder::Folder};

#[tokio::test]
async fn a_readers_log_is_reported_and_later_truncated() {
    let folder = Folder::new();
    let options = Options {
        checkpoint_pages: 20,
        ..Options::default()
    };
    let store = SqliteStore::open(folder.path(), "tracking", &options).unwrap();
    let write = async |count| {
        for n in 0..count {
            let state = "x".repeat(20_000);
            let mut changes = doorstep_store::WriteSet::at(at(1));
            let name = format!("order/{n}");
            changes.entities = vec![change_entity(&store, &name, Some(&state)).await];
            commit(&store, changes).await;
        }
    };
    let log_bytes = async || store.summary(at(1)).await.unwrap().log_bytes.unwrap();
    // Without readers it stays within its bound, whatever is written.
    write(100).await;
    assert!(log_bytes().await <= options.max_log_bytes());
    assert_eq!(store.trim_log().await.unwrap(), None);

    let shell = rusqlite::Connection::open(SqliteStore::path(folder.path(), "tracking")).unwrap();
    shell
        .execute_batch("BEGIN; SELECT count(*) FROM entities")
        .unwrap();
    write(100).await;
    let kept = store.trim_log().await.unwrap().unwrap();
    assert!(kept.bytes > options.max_log_bytes());
    assert_eq!(kept.bytes, log_bytes().await);
    let message = kept.to_string();
    for word in ["tracking.sqlite3", "MiB", "fuser -v", "lsof"] {
        assert!(message.contains(word), "{message}");
    }

    // It shrinks without a further write.
    shell.execute_batch("COMMIT").unwrap();
    assert_eq!(store.trim_log().await.unwrap(), None);
    assert!(log_bytes().await <= options.max_log_bytes());
    assert!(entity_row(&store, "order/99").await.state.is_some());
}
