//! Replies to commands.

use doorstep_event::RequestId;
use doorstep_store::{NewReply, ReadSet, ReplyRow, RequestHash, Store, WriteSet};

use crate::fixtures::*;

fn replies(second: i64, new: Vec<NewReply>) -> WriteSet {
    let mut changes = WriteSet::at(at(second));
    changes.replies = new;
    changes
}

async fn replied(store: &impl Store, caller: &str, id: &str) -> Option<ReplyRow> {
    let ask = ReadSet {
        replies: vec![(source(caller), RequestId::new(id).unwrap())],
        ..ReadSet::default()
    };
    load(store, ask).await.replies.remove(0)
}

pub async fn a_written_reply_is_read_back(store: impl Store) {
    commit(&store, replies(1, vec![reply("a", 1, 1), reply("b", 2, 1)])).await;
    let expected = ReplyRow {
        hash: RequestHash([2; 32]),
        reply: reply("b", 2, 1).reply,
    };
    assert_eq!(replied(&store, "gateway/1", "b").await, Some(expected));
    assert_eq!(replied(&store, "gateway/1", "c").await, None);
    // The same id of another caller is another command.
    assert_eq!(replied(&store, "gateway/2", "b").await, None);
    let of_another = NewReply {
        caller: source("gateway/2"),
        ..reply("b", 3, 2)
    };
    let written = commit(&store, replies(2, vec![of_another])).await;
    assert_eq!(written.usage.replies.rows, 3);
}

pub async fn a_second_reply_is_a_conflict(store: impl Store) {
    commit(&store, replies(1, vec![reply("a", 1, 1)])).await;
    // The other changes of the second commit are not written either.
    let mut second = replies(2, vec![reply("b", 1, 2), reply("a", 1, 2)]);
    second.entities = vec![change_entity(&store, "order/1", Some("{}")).await];
    conflict(&store, second).await;
    assert_eq!(replied(&store, "gateway/1", "b").await, None);
    assert_eq!(entity_row(&store, "order/1").await.state, None);
    conflict(&store, replies(3, vec![reply("c", 1, 3), reply("c", 1, 3)])).await;
    assert_eq!(store.summary(at(3)).await.unwrap().usage.replies.rows, 1);
}

pub async fn old_replies_are_pruned_in_pages(store: impl Store) {
    for (second, id) in (0..).zip(["a", "b", "c", "d"]) {
        commit(&store, replies(9, vec![reply(id, 1, second)])).await;
    }
    let commits = store.summary(at(9)).await.unwrap().commits;
    assert_eq!(store.prune_replies(at(0), 10).await.unwrap(), 0);
    assert_eq!(store.summary(at(9)).await.unwrap().commits, commits);
    assert_eq!(store.prune_replies(at(3), 2).await.unwrap(), 2);
    assert_eq!(replied(&store, "gateway/1", "a").await, None);
    assert!(replied(&store, "gateway/1", "c").await.is_some());
    assert_eq!(store.prune_replies(at(3), 2).await.unwrap(), 1);
    assert_eq!(store.prune_replies(at(9), 2).await.unwrap(), 1);
    let usage = store.summary(at(9)).await.unwrap().usage;
    assert_eq!(usage.replies, doorstep_store::TableUsage::default());
    // The latest time of the pruned replies is kept. A batch that does not know it has missed replies.
    let again = || vec![reply("a", 2, 9)];
    conflict(&store, replies(9, again())).await;
    let ask = ReadSet {
        replies: vec![(source("gateway/1"), RequestId::new("a").unwrap())],
        ..ReadSet::default()
    };
    let pruned_to = load(&store, ask).await.pruned_to;
    assert_eq!((pruned_to.seen, pruned_to.replies), (None, Some(at(3))));
    let mut again = replies(9, again());
    again.pruned_to = pruned_to;
    commit(&store, again).await;
}
