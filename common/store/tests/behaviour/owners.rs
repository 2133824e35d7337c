//! The owners of sources.

use doorstep_event::{BrokerUser, Source};
use doorstep_store::{
    FormerOwner, OwnerChange, OwnerRow, ReadSet, SourceOwner, SourceRow, Store, WriteSet,
};

use crate::fixtures::*;

fn user(name: &str) -> BrokerUser {
    BrokerUser::new(name)
}

async fn read(store: &impl Store, from: &str) -> OwnerRow {
    let ask = ReadSet {
        owners: vec![source("unknown/1"), source(from)],
        ..ReadSet::default()
    };
    let mut rows = load(store, ask).await.owners;
    assert_eq!(rows.len(), 2);
    assert_eq!(rows[0], OwnerRow::default());
    rows.remove(1)
}

fn change(from: &str, expect: u64, after: Option<SourceOwner>) -> WriteSet {
    let mut changes = WriteSet::at(at(1));
    changes.owners = vec![OwnerChange {
        source: source(from),
        expect,
        after,
    }];
    changes
}

pub async fn a_written_owner_is_read_back(store: impl Store) {
    let nobody = SourceOwner::first(None, at(1));
    let claimed = nobody.succeeded_by(user("shop"), at(2));
    let transferred = claimed.succeeded_by(user("shop-eu"), at(3));
    assert_eq!(claimed.former, Some(FormerOwner::Nobody));
    assert_eq!(transferred.former, Some(FormerOwner::User(user("shop"))));
    let owners = [nobody, claimed, transferred];
    for (version, owner) in (0..).zip(owners) {
        commit(&store, change("shop/1", version, Some(owner.clone()))).await;
        let row = read(&store, "shop/1").await;
        assert_eq!((row.version, row.owner), (version + 1, Some(owner)));
        // A read changes nothing.
        commit(&store, change("shop/1", version + 1, None)).await;
    }
    assert_eq!(read(&store, "shop/1").await.version, 3);
}

pub async fn an_owner_changed_since_is_a_conflict(store: impl Store) {
    let owner = |name| Some(SourceOwner::first(Some(user(name)), at(1)));
    for expect in [1, 2] {
        conflict(&store, change("shop/1", expect, None)).await;
        conflict(&store, change("shop/1", expect, owner("shop"))).await;
    }
    commit(&store, change("shop/1", 0, None)).await;
    commit(&store, change("shop/1", 0, owner("shop"))).await;
    for expect in [0, 2] {
        conflict(&store, change("shop/1", expect, None)).await;
        conflict(&store, change("shop/1", expect, owner("thief"))).await;
    }
    assert_eq!(read(&store, "shop/1").await.owner, owner("shop"));
}

pub async fn sources_are_listed_with_their_owners_in_pages(store: impl Store) {
    let owner = SourceOwner::first(Some(user("shop")), at(1));
    commit(&store, change("shop/1", 0, Some(owner.clone()))).await;
    commit(&store, change("mill/1", 0, Some(owner.clone()))).await;
    advance(&store, 2, "order/1", cursor("order/1", 1)).await;
    advance(&store, 3, "order/2", cursor("order/2", 1)).await;
    let list = async |after: Option<Source>, limit| store.sources(after, limit).await.unwrap();
    let row = |from: &str, streams| SourceRow {
        source: source(from),
        owner: Some(owner.clone()),
        streams,
    };
    let all = [row("mill/1", 0), row("shop/1", 2)];
    assert_eq!(list(None, 9).await, all);
    assert_eq!(list(None, 1).await, all[..1]);
    assert_eq!(list(Some(source("mill/1")), 9).await, all[1..]);
    assert_eq!(list(Some(source("shop/1")), 9).await, []);
}
