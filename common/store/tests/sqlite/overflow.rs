//! The overflow file beside a store.

use std::{
    fs,
    io::Write,
    path::{Path, PathBuf},
};

use doorstep_store::{
    DeadLetter, NewStreamless, SqliteStore, Store, StoreError, StreamlessBounds, TableUsage,
    WriteSet,
};
use serde_json::Value;

use crate::{fixtures::*, folder::Folder, open};

/// One of a kind is kept; the rest goes to files of this size.
fn junk(ids: &[&str], file_bytes: u64, files: u32) -> WriteSet {
    let mut changes = WriteSet::at(at(5));
    changes.streamless_bounds = StreamlessBounds {
        kind: TableUsage {
            rows: 0,
            bytes: u64::MAX,
        },
        file_bytes,
        files,
        ..StreamlessBounds::default()
    };
    for id in ids {
        let row = DeadLetter {
            body: vec![0xff, 0xfe].into(),
            ..dead_letter(id, None)
        };
        changes.streamless.push(NewStreamless { row, seen: None });
    }
    changes
}

fn current(folder: &Folder) -> PathBuf {
    SqliteStore::overflow_path(folder.path(), "tracking")
}

fn lines(path: &Path) -> Vec<Value> {
    let text = fs::read_to_string(path).unwrap_or_default();
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap_or(Value::Null))
        .collect()
}

fn ids(path: &Path) -> Vec<String> {
    let lines = lines(path);
    let ids = lines.iter().map(|line| line["id"].as_str().unwrap_or("?"));
    ids.map(str::to_owned).collect()
}

#[tokio::test]
async fn overflowed_lines_are_complete_and_private() {
    let folder = Folder::new();
    let store = open(&folder);
    let mut changes = junk(&["first", "second"], 1_000_000, 2);
    changes.streamless[1].row.body = "text".into();
    commit(&store, changes).await;
    commit(&store, junk(&["third"], 1_000_000, 2)).await;
    let lines = lines(&current(&folder));
    assert_eq!(ids(&current(&folder)), ["second", "third"]);
    assert_eq!(
        (&lines[0]["number"], &lines[1]["number"]),
        (&1.into(), &2.into())
    );
    assert_eq!(lines[0]["body"], "text");
    assert_eq!(lines[1]["body_base64"], "//4=");
    assert_eq!(lines[1]["reason"], "broken rule");
    assert_eq!(lines[1]["detail"], "a total of -1 is negative");
    assert_eq!(lines[1]["at"], at(5).to_string());
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        let mode = fs::metadata(current(&folder)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }
}

#[tokio::test]
async fn rotation_is_bounded_and_counts_dropped_lines() {
    let folder = Folder::new();
    let store = open(&folder);
    commit(&store, junk(&["kept"], 1, 3)).await;
    for id in ["1", "2", "3", "4", "5"] {
        commit(&store, junk(&[id], 1, 3)).await;
    }
    let older = |number: u32| current(&folder).with_extension(format!("{number}.jsonl"));
    assert_eq!(ids(&current(&folder)), ["5"]);
    assert_eq!(
        (ids(&older(1)), ids(&older(2))),
        (vec!["4".into()], vec!["3".into()])
    );
    assert!(!older(3).exists());
    let streamless = store.streamless(TableUsage::default(), 0).await.unwrap();
    assert_eq!((streamless.overflowed, streamless.dropped), (5, 2));
}

#[tokio::test]
async fn a_truncated_line_spoils_no_other() {
    let folder = Folder::new();
    let store = open(&folder);
    commit(&store, junk(&["kept", "1"], 1_000_000, 2)).await;
    let mut file = fs::OpenOptions::new()
        .append(true)
        .open(current(&folder))
        .unwrap();
    file.write_all(br#"{"number":2,"id":"cut"#).unwrap();
    commit(&store, junk(&["2"], 1_000_000, 2)).await;
    assert_eq!(ids(&current(&folder)), ["1", "?", "2"]);
}

#[tokio::test]
async fn an_unwritable_file_prevents_the_commit() {
    let folder = Folder::new();
    let store = open(&folder);
    commit(&store, junk(&["kept"], 1_000_000, 2)).await;
    fs::create_dir(current(&folder)).unwrap();
    match store.commit(junk(&["1"], 1_000_000, 2)).await {
        Err(StoreError::Unavailable { detail, .. }) => {
            assert!(detail.contains("overflow.jsonl"), "{detail}");
        }
        other => panic!("{other:?}"),
    }
    fs::remove_dir(current(&folder)).unwrap();
    commit(&store, junk(&["1"], 1_000_000, 2)).await;
    let streamless = store.streamless(TableUsage::default(), 0).await.unwrap();
    assert_eq!(streamless.overflowed, 1);
    assert_eq!(ids(&current(&folder)), ["1"]);
}
