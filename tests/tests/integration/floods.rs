//! More undecodable messages than a store may keep: valid events are still applied, and every loss is reported.

use doorstep_store::{Store, TableUsage};
use doorstep_tests::{
    LEDGER, RoleProcess, TestEnv,
    ledger::{Ledger, Move, event},
    wait_until,
};
use lapin::{BasicProperties, types::FieldTable};

use crate::{
    SOON,
    roles::{dead, summary},
    stores::for_each_store,
};

const ROUNDS: u64 = 100;
const JUNK_A_ROUND: u64 = 50;
const OF_KIND: u64 = 100;

for_each_store! {
    async fn undecodable_floods_do_not_stop_valid_events(storage) {
        let env = TestEnv::new("flood", &[LEDGER]).await;
        let store = storage.open();
        let mut settings = env.run_settings();
        // So few that the flood alone would fill the dead letters twenty times over and stop the role.
        settings.limits.dead_letters.rows = 2 * OF_KIND + 50;
        settings.limits.dead_letters_of_kind.rows = OF_KIND;
        let role = RoleProcess::start(Ledger, storage.open(), settings);
        role.consuming(SOON).await;
        let channel = env.channel().await;
        let exchange = env.namespace().events_exchange();
        for round in 1..=ROUNDS {
            for n in 0..JUNK_A_ROUND {
                let body = format!("junk {round} {n}");
                let properties = BasicProperties::default().with_headers(FieldTable::default());
                channel.publish(&exchange, "account.moved.v1", properties, body.as_bytes()).await;
            }
            env.publish(&[event("shop", "account/a", round, &Move::Add(1))]).await;
        }
        wait_until("every sound event is applied", SOON, async || {
            summary(&store).await.tally.applied == ROUNDS
        })
        .await;
        env.all_is_acked(&role, "ledger", SOON).await;
        let any = TableUsage { rows: 1, bytes: 1 };
        let streamless = store.streamless(any, 9).await.unwrap();
        let all = ROUNDS * JUNK_A_ROUND;
        assert_eq!(streamless.usage.rows, OF_KIND);
        // Redelivered messages of an unacknowledged commit may occur twice.
        assert!(streamless.overflowed >= all - OF_KIND, "{streamless:?}");
        assert_eq!((streamless.dropped, streamless.kinds.len()), (0, 1));
        assert_eq!(dead(&store).await.len() as u64, OF_KIND);
        wait_until("the role says why it is degraded", SOON, async || {
            let degraded = role.status().degraded;
            degraded.iter().any(|reason| {
                reason.message.contains(&streamless.kinds[0].fingerprint) && reason.message.contains("overflow file")
            })
        })
        .await;
        assert_eq!(role.status().phase, doorstep_runtime::runner::Phase::Consuming);
        let usage = summary(&store).await.usage;
        assert_eq!((usage.seen.rows, usage.dead_letters.rows), (OF_KIND, OF_KIND));
        role.stop().await.unwrap();
    }
}
