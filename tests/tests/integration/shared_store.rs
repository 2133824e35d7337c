//! Two owners of one role's store and queue.

use doorstep_tests::{
    LEDGER, TestEnv,
    ledger::{Ledger, Move, entries, event},
    wait_until,
};

use crate::{SOON, roles::summary, shelf::on_every_store};

on_every_store! {
    async fn two_owners_of_a_store_apply_each_event_once_and_one_goes_on_when_the_other_crashes(shelf) {
        let world = TestEnv::new("shared", &[LEDGER]).await;
        let queue = world.namespace().role_queue("ledger", 0);
        let store = shelf.open();
        let mut owners = vec![world.start(Ledger, shelf.open()), world.start(Ledger, shelf.open())];
        // The queue itself counts only the consumer that is active.
        let view = world.view();
        wait_until("both consume", SOON, async || {
            view.consumers().iter().filter(|(q, _)| *q == queue.as_str()).count() == 2
        })
        .await;
        let mut published = 0;
        // Whichever is active is among those that crash, and a new one joins each time.
        for _ in 0..4 {
            let events: Vec<_> = (published + 1..=published + 200)
                .flat_map(|n| ["a", "b"].map(|k| event("shop", &format!("account/{k}"), n, &Move::Add(1))))
                .collect();
            published += 200;
            world.publish(&events).await;
            wait_until("some of them are applied", SOON, async || {
                summary(&store).await.tally.applied > 2 * (published - 200)
            })
            .await;
            owners.remove(0).crash();
            owners.push(world.start(Ledger, shelf.open()));
        }
        wait_until("all of them are applied", SOON, async || {
            summary(&store).await.tally.applied >= 2 * published
        })
        .await;
        // What the crashed ones had applied and not settled comes again and is dropped; one consumer is active.
        world.depth_is(&queue, 0, 1, SOON).await;
        for owner in owners {
            owner.stop().await.unwrap();
        }
        let all: Vec<_> = (1..=published).map(|n| format!("shop {n}")).collect();
        assert_eq!(entries(&store, "account/a").await, all);
        assert_eq!(entries(&store, "account/b").await, all);
        assert_eq!(summary(&store).await.tally.applied, 2 * published);
        assert_eq!(summary(&store).await.usage.held.rows, 0);
    }
}
