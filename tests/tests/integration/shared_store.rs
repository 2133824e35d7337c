//! Two owners of one role's store and queue.

use doorstep_tests::{
    LEDGER, TestEnv,
    ledger::{Ledger, Move, entries, event},
    wait_until,
};

use crate::{SOON, roles::summary, stores::for_each_store};

for_each_store! {
    async fn two_owners_apply_each_event_once(storage) {
        let env = TestEnv::new("shared", &[LEDGER]).await;
        let queue = env.namespace().role_queue("ledger", 0);
        let store = storage.open();
        let mut owners = vec![env.start(Ledger, storage.open()), env.start(Ledger, storage.open())];
        // The queue itself counts only the active consumer.
        let view = env.view();
        wait_until("both consume", SOON, async || {
            view.consumers().iter().filter(|(q, _)| *q == queue.as_str()).count() == 2
        })
        .await;
        let mut published = 0;
        // The active consumer is among those that crash, and a new one joins each time.
        for _ in 0..4 {
            let events: Vec<_> = (published + 1..=published + 200)
                .flat_map(|n| ["a", "b"].map(|k| event("shop", &format!("account/{k}"), n, &Move::Add(1))))
                .collect();
            published += 200;
            env.publish(&events).await;
            wait_until("some of them are applied", SOON, async || {
                summary(&store).await.tally.applied > 2 * (published - 200)
            })
            .await;
            owners.remove(0).crash();
            owners.push(env.start(Ledger, storage.open()));
        }
        wait_until("all of them are applied", SOON, async || {
            summary(&store).await.tally.applied >= 2 * published
        })
        .await;
        // Applied but unacknowledged deliveries of the crashed ones are redelivered and dropped; one consumer is
        // active.
        env.depth_is(&queue, 0, 1, SOON).await;
        for owner in owners {
            owner.stop().await.unwrap();
        }
        let all: Vec<_> = (1..=published).map(|n| format!("shop {n}")).collect();
        assert_eq!(entries(&store, "account/a").await, all);
        assert_eq!(entries(&store, "account/b").await, all);
        assert_eq!(summary(&store).await.tally.applied, 2 * published);
        assert_eq!(summary(&store).await.usage.deferred.rows, 0);
    }
}
