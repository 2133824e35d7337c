//! The outbox: unroutable rows wait there and delay no other.

use std::{collections::BTreeSet, time::Duration};

use doorstep_broker::{UserPermissions, percent_encoded};
use doorstep_event::{Contract, ContractError, Event, Timestamp};
use doorstep_messaging::RoleQueues;
use doorstep_runtime::{Effects, HandlerError, Reading, Role, States, Unsupported};
use doorstep_store::{EntityKey, Store};
use doorstep_tests::{RoleProcess, TestEnv, run_settings, wait_until};
use lapin::types::FieldTable;
use serde::{Deserialize, Serialize};

use tokio::task::block_in_place;

use crate::{SOON, roles::summary, stores::for_each_store};

/// The maximum backoff, and the time for which a broker caches permissions.
const LONG: Duration = Duration::from_secs(180);

/// The request to the crier.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
enum CryRequested {
    /// An event with a queue.
    Routed,
    /// An event without a queue.
    Unrouted,
}

impl Contract for CryRequested {
    const TYPE: &'static str = "cry.asked.v1";
    const REQUIRES_SEQUENCE: bool = true;
}

#[derive(Debug, Serialize, Deserialize)]
struct Routed {}

impl Contract for Routed {
    const TYPE: &'static str = "heard.cried.v1";
    const REQUIRES_SEQUENCE: bool = true;
}

#[derive(Debug, Serialize, Deserialize)]
struct Unrouted {}

impl Contract for Unrouted {
    const TYPE: &'static str = "unheard.cried.v1";
    const REQUIRES_SEQUENCE: bool = true;
}

/// Emits the requested events.
struct Crier;

const CRIER: RoleQueues = RoleQueues {
    role: "ledger",
    subjects: &["cry"],
    handles_requests: false,
};

impl Role for Crier {
    type Payload = CryRequested;
    type Command = Unsupported;
    type Query = Unsupported;
    type State = u64;

    fn name(&self) -> &'static str {
        CRIER.role
    }

    fn read(&self, event: &Event) -> Result<Reading<CryRequested>, ContractError> {
        CryRequested::read(event).map(Reading::Handled)
    }

    fn keys(&self, event: &Event, _fact: &CryRequested) -> Vec<EntityKey> {
        vec![EntityKey::from(&event.subject)]
    }

    fn handle(
        &self,
        states: &mut States<u64>,
        _event: &Event,
        fact: &CryRequested,
        _now: Timestamp,
    ) -> Result<Effects, HandlerError> {
        *states.first_or_default() += 1;
        let wrong = |e: doorstep_event::AttributeError| HandlerError::reject(e.to_string());
        let mut effects = Effects::none();
        match fact {
            CryRequested::Routed => {
                effects.publish(&"heard/a".parse().map_err(wrong)?, &Routed {})?;
            }
            CryRequested::Unrouted => {
                effects.publish(&"unheard/a".parse().map_err(wrong)?, &Unrouted {})?;
            }
        }
        Ok(effects)
    }
}

for_each_store! {
    async fn an_unroutable_event_delays_no_other(storage) {
        let env = TestEnv::new("outbox", &[CRIER]).await;
        let store = storage.open();
        let role = env.start(Crier, storage.open());
        role.consuming(SOON).await;
        let channel = env.channel().await;
        let exchange = env.namespace().events_exchange();
        channel.declare("heard", FieldTable::default()).await;
        channel.bind("heard", &exchange, "heard.#").await;

        let cry_requested: Vec<_> = [CryRequested::Unrouted, CryRequested::Routed, CryRequested::Unrouted, CryRequested::Routed]
            .iter()
            .zip(1..)
            .map(|(fact, n)| cry_requested(n, fact))
            .collect();
        env.publish(&cry_requested).await;
        let heard = channel.take_many("heard", 2, SOON).await;
        let ids: Vec<_> = heard.iter().map(|m| m.header("cloudEvents:id")).collect();
        assert_eq!(ids, ["heard/a#1", "heard/a#2"]);
        wait_until("only the unroutable ones are left", SOON, async || {
            let outbox = store.outbox(Timestamp::MAX, 10).await.unwrap();
            outbox.len() == 2 && outbox.iter().all(|row| row.attempts > 0)
        })
        .await;

        // They delay no others after a restart either.
        role.stop().await.unwrap();
        assert_eq!(summary(&store).await.usage.outbox.rows, 2);
        let role = env.start(Crier, storage.open());
        env.publish(&[self::cry_requested(5, &CryRequested::Routed)]).await;
        assert_eq!(channel.take_many("heard", 1, SOON).await[0].header("cloudEvents:id"), "heard/a#3");

        channel.declare("unheard", FieldTable::default()).await;
        channel.bind("unheard", &exchange, "unheard.#").await;
        let unheard = channel.take_many("unheard", 2, SOON).await;
        // In any order: each has a backoff of its own, and cursors restore the order.
        let ids: BTreeSet<_> = unheard.iter().map(|m| m.header("cloudEvents:id")).collect();
        assert_eq!(ids, BTreeSet::from(["unheard/a#1", "unheard/a#2"]));
        wait_until("the outbox is empty", SOON, async || {
            summary(&store).await.usage.outbox.rows == 0
        })
        .await;
        role.stop().await.unwrap();
        assert!(channel.take("unheard").await.is_none());
    }
}

for_each_store! {
    async fn a_stopping_role_drains_its_outbox(storage) {
        const OWED: u64 = 60;
        let env = TestEnv::new("outbox-stop", &[CRIER]).await;
        let store = storage.open();
        let mut settings = env.run_settings();
        // Row by row, so that much of the outbox is left when it stops, and each rejected row takes a turn of its own.
        settings.limits.relay_rows = 1;
        // Each turn is a confirm and a commit, which are slow on a slow disk.
        settings.shutdown_timeout = Duration::from_secs(120);
        let role = RoleProcess::start(Crier, storage.open(), settings);
        role.consuming(SOON).await;
        let channel = env.channel().await;
        channel.declare("heard", FieldTable::default()).await;
        channel.bind("heard", &env.namespace().events_exchange(), "heard.#").await;

        // Every third is rejected, including the first and the last.
        let fact = |n: u64| if n % 3 == 1 { CryRequested::Unrouted } else { CryRequested::Routed };
        let last = OWED / 2 * 3 + 1;
        let cry_requested: Vec<_> = (1..=last).map(|n| cry_requested(n, &fact(n))).collect();
        env.publish(&cry_requested).await;
        wait_until("all is applied", SOON, async || {
            summary(&store).await.tally.applied == last
        })
        .await;
        let unheard = last - OWED;
        role.stop().await.unwrap();
        assert_eq!(summary(&store).await.usage.outbox.rows, unheard);
        let heard = channel.take_many("heard", usize::try_from(OWED).unwrap(), SOON).await;
        let ids: Vec<_> = heard.iter().map(|m| m.header("cloudEvents:id")).collect();
        let in_order: Vec<_> = (1..=OWED).map(|n| format!("heard/a#{n}")).collect();
        assert_eq!(ids, in_order);
        assert!(channel.take("heard").await.is_none());
    }
}

for_each_store! {
    async fn a_row_that_closes_channels_delays_no_other(storage) {
        const HEARD: u64 = 30;
        let env = TestEnv::new("outbox-closing", &[CRIER]).await;
        let store = storage.open();
        // May publish events, but not to queues by their name: the broker closes the channel for a dead letter's copy.
        let rights = UserPermissions {
            configure: ".*",
            write: r"^(doorstep\.|@)",
            read: ".*",
        };
        let user = env.user("mute", rights);
        let mut settings = env.run_settings();
        settings.broker.addresses = run_settings(user.amqp_url(), &[CRIER]).broker.addresses;
        let channel = env.channel().await;
        let role = RoleProcess::start(Crier, storage.open(), settings);
        role.consuming(SOON).await;
        channel.declare("heard", FieldTable::default()).await;
        channel.bind("heard", &env.namespace().events_exchange(), "heard.#").await;

        let mut all: Vec<_> = (1..=HEARD).map(|n| cry_requested(n, &CryRequested::Routed)).collect();
        let unknown = Event {
            event_type: "cry.asked.v9".parse().unwrap(),
            subject: "cry/b".parse().unwrap(),
            ..cry_requested(1, &CryRequested::Routed)
        };
        all.insert(0, unknown);
        env.publish(&all).await;
        let mut heard = BTreeSet::new();
        while heard.len() < usize::try_from(HEARD).unwrap() {
            let next = channel.take_many("heard", 1, SOON).await;
            heard.insert(next[0].header("cloudEvents:id").to_owned());
        }
        wait_until("only the copy is left", SOON, async || {
            let outbox = store.outbox(Timestamp::MAX, 10).await.unwrap();
            outbox.len() == 1 && outbox[0].attempts > 0
        })
        .await;
        role.stop().await.unwrap();
    }
}

for_each_store! {
    async fn rejected_rows_degrade_the_role(storage) {
        const EACH: u64 = 20;
        let env = TestEnv::new("outbox-topics", &[CRIER]).await;
        let store = storage.open();
        let rights = UserPermissions { configure: ".*", write: ".*", read: ".*" };
        let user = env.user("half-mute", rights);
        let exchange = env.namespace().events_exchange();
        let may_write = |pattern: &str| {
            let path = format!(
                "/api/topic-permissions/{}/{}",
                percent_encoded(env.settings().addresses[0].vhost()),
                percent_encoded(user.name())
            );
            let body = format!(r#"{{"exchange":"{exchange}","write":"{pattern}","read":".*"}}"#);
            let management = env.broker().management().unwrap();
            block_in_place(|| management.put(&path, &body)).unwrap();
        };
        may_write("^heard[.]");
        let mut settings = env.run_settings();
        settings.broker.addresses = run_settings(user.amqp_url(), &[CRIER]).broker.addresses;
        let channel = env.channel().await;
        let role = RoleProcess::start(Crier, storage.open(), settings);
        role.consuming(SOON).await;
        channel.declare("heard", FieldTable::default()).await;
        channel.bind("heard", &exchange, "heard.#").await;
        channel.declare("unheard", FieldTable::default()).await;
        channel.bind("unheard", &exchange, "unheard.#").await;

        // Alternating, and more once the rejected ones are known.
        let mix = |from: u64| -> Vec<_> {
            (from..from + 2 * EACH)
                .map(|n| cry_requested(n, if n % 2 == 0 { &CryRequested::Routed } else { &CryRequested::Unrouted }))
                .collect()
        };
        for round in 0..2 {
            env.publish(&mix(1 + round * 2 * EACH)).await;
            channel.take_many("heard", usize::try_from(EACH).unwrap(), SOON).await;
            wait_until("only the refused are left", SOON, async || {
                let outbox = store.outbox(Timestamp::MAX, 1000).await.unwrap();
                outbox.len() as u64 == (round + 1) * EACH && outbox.iter().all(|row| row.attempts > 0)
            })
            .await;
        }
        wait_until("the role reports the rejected rows", SOON, async || {
            role.status().degraded.iter().any(|line| {
                let line = &line.message;
                line.contains("ACCESS_REFUSED") && line.contains("unheard.cried.v1") && line.contains("40 messages")
            })
        })
        .await;

        may_write(".*");
        channel.take_many("unheard", usize::try_from(2 * EACH).unwrap(), LONG).await;
        wait_until("nothing is refused any more", SOON, async || {
            role.status().degraded.iter().all(|line| !line.message.contains("ACCESS_REFUSED"))
        })
        .await;
        role.stop().await.unwrap();
    }
}

fn cry_requested(sequence: u64, fact: &CryRequested) -> Event {
    Event::from_contract(
        &"town".parse().unwrap(),
        &"cry/a".parse().unwrap(),
        doorstep_event::Sequence::new(sequence).unwrap(),
        Timestamp::UNIX_EPOCH,
        fact,
    )
    .unwrap()
}
