//! A broker that is killed, stopped and restarted, and a network that fails, under load.

use std::time::Duration;

use doorstep_broker::{NodeOptions, PrivateNode};
use doorstep_event::Event;
use doorstep_tests::{
    Direction, LEDGER, RoleProcess, TestEnv,
    ledger::{Ledger, Move, entries, event},
    wait_until,
};
use tokio::task::{block_in_place, spawn_blocking};

use crate::{
    SOON,
    roles::{dead, summary},
    stores::{InMemory, InSqlite, TestStorage, for_each_store},
};

/// A broker takes long to start on a busy machine.
const LONG: Duration = Duration::from_secs(240);

/// A role under load on a disturbed broker.
struct Load<K: TestStorage> {
    env: TestEnv,
    storage: K,
    role: RoleProcess,
}

const EVENTS: u64 = 1_500;

impl<K: TestStorage> Load<K> {
    async fn on(node: &PrivateNode) -> Self {
        let env = TestEnv::on(&node.broker(), "load", &[LEDGER]).await;
        let storage = K::new("ledger");
        let role = env.start(Ledger, storage.open());
        role.consuming(LONG).await;
        Self { env, storage, role }
    }

    async fn publish(&self) {
        let events: Vec<Event> = (1..=EVENTS)
            .map(|n| event("shop", "account/a", n, &Move::Add(1)))
            .collect();
        for part in events.chunks(5) {
            self.env.publish_at_last(part, LONG).await;
        }
    }

    async fn has_applied(&self, count: u64) {
        let store = self.storage.open();
        wait_until(format!("{count} events are applied"), LONG, async || {
            summary(&store).await.tally.applied >= count
        })
        .await;
    }

    /// Checks that no event is lost or applied twice, and that the role is healthy.
    async fn all_is_right(self) {
        self.has_applied(EVENTS).await;
        // Events confirmed or acknowledged too late arrive twice.
        self.env.all_is_acked(&self.role, "ledger", SOON).await;
        self.role.stop().await.unwrap();
        let store = self.storage.open();
        let all: Vec<_> = (1..=EVENTS).map(|n| format!("shop {n}")).collect();
        assert!(entries(&store, "account/a").await == all);
        assert!(dead(&store).await.is_empty());
        let after = summary(&store).await;
        assert_eq!(
            (after.tally.applied, after.usage.deferred.rows),
            (EVENTS, 0)
        );
        let queue = self.env.namespace().role_queue("ledger", 0);
        self.env.depth_is(&queue, 0, 0, SOON).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn role_and_publisher_recover_from_a_killed_broker() {
    let node = spawn_blocking(|| PrivateNode::start(NodeOptions::named("away")));
    let mut node = node.await.unwrap().unwrap();
    let memory = Load::<InMemory>::on(&node).await;
    let file = Load::<InSqlite>::on(&node).await;
    node.sync_declarations().unwrap();
    let disturb = async {
        memory.has_applied(EVENTS / 10).await;
        file.has_applied(EVENTS / 10).await;
        // Not on this task, on which the publishers wait as well.
        let mut node = spawn_blocking(move || {
            node.kill().unwrap();
            node.start_again().unwrap();
            node
        })
        .await
        .unwrap();
        memory.has_applied(EVENTS / 3).await;
        file.has_applied(EVENTS / 3).await;
        spawn_blocking(move || {
            node.restart().unwrap();
            node
        })
        .await
        .unwrap()
    };
    let ((), (), node) = tokio::join!(memory.publish(), file.publish(), disturb);
    memory.all_is_right().await;
    file.all_is_right().await;
    block_in_place(|| drop(node));
}

for_each_store! {
    async fn a_role_heals_whatever_happens_to_its_wire(storage) {
        let env = TestEnv::new("wire", &[LEDGER]).await;
        let proxy = env.proxy().await;
        let mut settings = env.run_settings();
        settings.broker = env.settings_by(&proxy);
        // So that silence is noticed within seconds.
        settings.broker.heartbeat = Duration::from_secs(1);
        settings.broker.ack_write_timeout = Duration::from_secs(2);
        settings.broker.confirm_timeout = Duration::from_secs(2);
        let store = storage.open();
        let role = RoleProcess::start(Ledger, storage.open(), settings);
        role.consuming(SOON).await;
        let disturbances: [&dyn Fn(); 6] = [
            &|| proxy.cut(),
            &|| proxy.reject_connections(),
            &|| proxy.stall(Direction::ToBroker),
            &|| proxy.stall(Direction::ToClient),
            &|| proxy.half_close(Direction::ToBroker),
            &|| proxy.half_close(Direction::ToClient),
        ];
        let mut published = 0;
        for disturb in disturbances {
            let part: Vec<_> =
                (published + 1..=published + 100).map(|n| event("shop", "account/a", n, &Move::Add(1))).collect();
            let connections = proxy.accepted();
            let (before, after) = part.split_at(50);
            env.publish(before).await;
            disturb();
            env.publish(after).await;
            wait_until("the role has noticed", SOON, async || proxy.accepted() > connections).await;
            proxy.restore();
            published += 100;
            wait_until("all is applied", SOON, async || {
                summary(&store).await.tally.applied == published
            })
            .await;
        }
        env.all_is_acked(&role, "ledger", SOON).await;
        role.stop().await.unwrap();
        let all: Vec<_> = (1..=published).map(|n| format!("shop {n}")).collect();
        assert_eq!(entries(&store, "account/a").await, all);
        env.depth_is(&env.namespace().role_queue("ledger", 0), 0, 0, SOON).await;
    }
}
