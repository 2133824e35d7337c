//! Audit records: written with the change, bounded.

use bytes::Bytes;
use doorstep_store::{
    AuditAction, AuditFilter, AuditRow, DeadLetterStatus, NewAudit, NewDeadLetter, Resolution,
    Store, TableUsage, WriteSet,
};

use crate::fixtures::*;

fn entry(about: &str) -> NewAudit {
    NewAudit {
        operator: "ada@desk".into(),
        action: AuditAction::Edit,
        about: about.into(),
        dead: Some(dead_id("d-1")),
        stream: Some(stream("order/1")),
        sequences: Some((7, 9)),
        reason: Some("a slip of the pen".into()),
        before: Some(Bytes::from_static(b"\xff{")),
        after: Some(Bytes::from_static(b"{}")),
    }
}

fn recorded(second: i64, entries: Vec<NewAudit>) -> WriteSet {
    let mut changes = WriteSet::at(at(second));
    changes.audit = entries;
    changes
}

async fn all(store: &impl Store) -> Vec<AuditRow> {
    let page = store.audit(AuditFilter::All, None, 100).await.unwrap();
    page.rows
}

fn abouts(rows: &[AuditRow]) -> String {
    let abouts: Vec<_> = rows.iter().map(|row| row.entry.about.as_str()).collect();
    abouts.join(" ")
}

pub async fn a_written_record_is_read_back(store: impl Store) {
    let mut entries: Vec<_> = (0..)
        .map_while(AuditAction::from_repr)
        .map(|action| NewAudit {
            action,
            ..entry("d")
        })
        .collect();
    entries.push(NewAudit {
        dead: None,
        stream: None,
        sequences: None,
        reason: None,
        before: None,
        after: None,
        ..entry("bare")
    });
    commit(&store, recorded(5, entries.clone())).await;
    let mut read = all(&store).await;
    read.reverse();
    assert!(read.iter().all(|row| row.at == at(5)));
    let read: Vec<_> = read.into_iter().map(|row| row.entry).collect();
    assert_eq!(read, entries);
}

pub async fn a_record_is_committed_with_its_change(store: impl Store) {
    let skip = |about| {
        let mut changes = recorded(6, vec![entry(about)]);
        changes.resolve = vec![(dead_id("d-1"), DeadLetterStatus::Open, Resolution::Gone)];
        changes
    };
    conflict(&store, skip("early")).await;
    let mut died = WriteSet::at(at(5));
    died.dead_letters = vec![NewDeadLetter {
        row: dead_letter("d-1", None),
    }];
    commit(&store, died).await;
    commit(&store, skip("first")).await;
    conflict(&store, skip("second")).await;
    assert_eq!(abouts(&all(&store).await), "first");
    let page = store.audit(AuditFilter::All, None, 9).await.unwrap();
    assert_eq!((page.kept.rows, page.forgotten), (1, 0));
    let commits = store.summary(at(9)).await.unwrap().commits;
    commit(&store, recorded(7, vec![entry("alone")])).await;
    assert_eq!(store.summary(at(9)).await.unwrap().commits, commits + 1);
}

pub async fn records_are_paged_newest_first(store: impl Store) {
    for about in ["a", "b", "a", "c", "a"] {
        commit(&store, recorded(5, vec![entry(about)])).await;
    }
    let ids: Vec<_> = all(&store).await.iter().map(|row| row.id).collect();
    assert!(ids.is_sorted_by(|a, b| a > b));
    let page = async |filter: AuditFilter, before: Option<usize>| {
        let before = before.map(|place| ids[place]);
        abouts(&store.audit(filter, before, 2).await.unwrap().rows)
    };
    assert_eq!(page(AuditFilter::All, None).await, "a c");
    assert_eq!(page(AuditFilter::All, Some(1)).await, "a b");
    let of_a = || AuditFilter::About("a".into());
    assert_eq!(page(of_a(), None).await, "a a");
    assert_eq!(page(of_a(), Some(2)).await, "a");
    assert_eq!(page(AuditFilter::About("z".into()), None).await, "");
}

pub async fn the_oldest_records_are_deleted_and_counted(store: impl Store) {
    let bounded = |about: &str, rows, bytes| {
        let mut changes = recorded(5, vec![entry(about)]);
        changes.audit_bounds.0 = TableUsage { rows, bytes };
        changes
    };
    for about in ["a", "b", "c"] {
        commit(&store, bounded(about, 2, u64::MAX)).await;
    }
    let page = store.audit(AuditFilter::All, None, 9).await.unwrap();
    assert_eq!(abouts(&page.rows), "c b");
    assert_eq!((page.kept.rows, page.forgotten), (2, 1));
    let each = page.kept.bytes / 2;
    commit(&store, bounded("d", 9, 2 * each)).await;
    let page = store.audit(AuditFilter::All, None, 9).await.unwrap();
    assert_eq!(abouts(&page.rows), "d c");
    assert_eq!((page.kept.bytes, page.forgotten), (2 * each, 2));
    // The newest record is never among the deleted ones.
    commit(&store, bounded("e", 0, 0)).await;
    let page = store.audit(AuditFilter::All, None, 9).await.unwrap();
    assert_eq!(abouts(&page.rows), "e");
    assert_eq!((page.kept.rows, page.forgotten), (1, 4));
}
