//! Entities: states under versions.

use doorstep_store::{ExpectedVersion, Store, WriteSet};

use crate::fixtures::*;

async fn put(store: &impl Store, second: i64, key: &str, state: &str) -> ExpectedVersion {
    let mut changes = WriteSet::at(at(second));
    changes.entities = vec![change_entity(store, key, Some(state)).await];
    commit(store, changes).await.entities.remove(0)
}

pub async fn a_written_state_is_read_back(store: impl Store) {
    let receipt = put(&store, 1, "order/1", r#"{"lines":1}"#).await;
    let row = entity_row(&store, "order/1").await;
    assert_eq!(row.state.as_deref(), Some(&br#"{"lines":1}"#[..]));
    assert_eq!((row.row, row.version), (receipt.row, receipt.version));
    let receipt = put(&store, 2, "order/1", "").await;
    let again = entity_row(&store, "order/1").await;
    assert_eq!(again.state.as_deref(), Some(&b""[..]));
    assert_eq!((again.row, again.version), (row.row, row.version + 1));
    assert_eq!(again.version, receipt.version);
}

pub async fn a_read_entity_has_no_state(store: impl Store) {
    for _ in 0..2 {
        let mut changes = WriteSet::at(at(1));
        changes.entities = vec![change_entity(&store, "order/1", None).await];
        let receipt = commit(&store, changes).await.entities;
        let row = entity_row(&store, "order/1").await;
        assert_eq!(row.state, None);
        assert!(row.row.is_some());
        assert_eq!(receipt[0].version, row.version);
    }
    assert_eq!(store.entities(None, 10).await.unwrap(), []);
    assert_eq!(store.summary(at(1)).await.unwrap().entities, 0);
    put(&store, 2, "order/1", "{}").await;
    assert_eq!(store.entities(None, 10).await.unwrap().len(), 1);
    assert_eq!(store.summary(at(1)).await.unwrap().entities, 1);
}

pub async fn an_entity_changed_since_is_a_conflict(store: impl Store) {
    put(&store, 1, "order/1", "1").await;
    let stale = change_entity(&store, "order/1", Some("3")).await;
    put(&store, 2, "order/1", "2").await;
    let mut changes = WriteSet::at(at(3));
    changes.entities = vec![stale];
    conflict(&store, changes).await;
    assert_eq!(
        entity_row(&store, "order/1").await.state.as_deref(),
        Some(&b"2"[..])
    );
}

pub async fn a_read_entity_changed_since_is_a_conflict(store: impl Store) {
    put(&store, 1, "order/1", "1").await;
    let mut changes = WriteSet::at(at(3));
    changes.entities = vec![change_entity(&store, "order/1", None).await];
    put(&store, 2, "order/1", "2").await;
    conflict(&store, changes).await;
}

pub async fn an_entity_created_meanwhile_is_a_conflict(store: impl Store) {
    let changed = change_entity(&store, "order/1", Some("2")).await;
    let only_read = change_entity(&store, "order/1", None).await;
    put(&store, 1, "order/1", "1").await;
    for stale in [changed, only_read] {
        let mut changes = WriteSet::at(at(2));
        changes.entities = vec![stale];
        conflict(&store, changes).await;
    }
}

pub async fn a_read_shows_every_earlier_commit(store: impl Store) {
    for n in 0..20 {
        let mut changes = WriteSet::at(at(n));
        let state = n.to_string();
        changes.entities = vec![
            change_entity(&store, "order/2", None).await,
            change_entity(&store, "order/1", Some(&state)).await,
        ];
        commit(&store, changes).await;
        let keys = ["order/1", "order/3", "order/2"].map(entity);
        let rows = store.read_entities(keys.to_vec()).await.unwrap();
        let loaded = entity_row(&store, "order/1").await;
        assert_eq!(rows[0], loaded);
        assert_eq!(rows[0].state.as_deref(), Some(state.as_bytes()));
        let (absent, empty) = (&rows[1], &rows[2]);
        assert_eq!(
            (&absent.key, absent.row, &absent.state),
            (&keys[1], None, &None)
        );
        assert!(empty.row.is_some() && empty.state.is_none());
    }
}

pub async fn removed_entities_leave_no_row(store: impl Store) {
    let first = put(&store, 1, "order/1", "1").await;
    put(&store, 1, "order/2", "2").await;
    let mut changes = WriteSet::at(at(2));
    changes.removed_entities = vec![(entity("order/1"), first)];
    commit(&store, changes.clone()).await;
    assert_eq!(entity_row(&store, "order/1").await.row, None);
    assert_eq!(store.entities(None, 10).await.unwrap().len(), 1);
    assert_eq!(store.summary(at(2)).await.unwrap().entities, 1);
    conflict(&store, changes.clone()).await;
    // The key may be used again, and the old handle denotes another row.
    let again = put(&store, 3, "order/1", "3").await;
    assert_ne!(again.row, first.row);
    conflict(&store, changes).await;
    let stale = ExpectedVersion {
        version: again.version - 1,
        ..again
    };
    let mut changes = WriteSet::at(at(4));
    changes.removed_entities = vec![(entity("order/1"), stale)];
    conflict(&store, changes).await;
    assert_eq!(store.summary(at(4)).await.unwrap().entities, 2);
}
