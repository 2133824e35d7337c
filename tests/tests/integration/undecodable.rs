//! Messages that no client can decode: each becomes one dead letter with its raw header, and no connection, queue or
//! neighbour is affected.

use doorstep_messaging::ConnectionStatus;
use doorstep_runtime::runner::RoleConnections;
use doorstep_store::{DeadLetter, SqliteStore, sqlite::Options};
use doorstep_tests::{
    Fault, FaultyStore, LEDGER, LEDGER_WITH_RPC, Program, RawAmqp, RawProperties, TempDir, TestEnv,
    ledger::{Bid, Ledger, Move, Order, event, order},
    nested_arrays, nested_tables, wait_for, wait_until,
};

use crate::{
    SOON,
    requests::client,
    roles::{dead, dead_letters, entries_are, summary},
    stores::for_each_store,
};

/// A message that no client can decode.
struct Hostile {
    name: &'static str,
    routing_key: Vec<u8>,
    properties: RawProperties,
    /// The text of its dead letter.
    says: &'static str,
    /// The expected part of its raw header, in hexadecimal digits.
    holds: &'static str,
}

const LATIN1: &[u8] = b"caf\xe9";
const LATIN1_HEX: &str = "636166e9";
/// The name of one that is sent rarely.
const DEEPEST: &str = "deepest";

/// Returns an event that is valid except for the added parts.
fn sound(n: usize) -> RawProperties {
    RawProperties::default()
        .header_text("cloudEvents:specversion", "1.0")
        .header_text("cloudEvents:id", &format!("hostile-{n}"))
        .header_text("cloudEvents:source", "hostile")
        .header_text("cloudEvents:type", "account.moved.v1")
        .header_text("cloudEvents:subject", "account/hostile")
        .header_text("cloudEvents:sequence", &format!("{:020}", n + 1))
}

/// Returns one of each kind, all different.
fn hostile() -> Vec<Hostile> {
    let mut all = Vec::new();
    let mut add = |name, says, holds, change: fn(RawProperties) -> RawProperties| {
        all.push(Hostile {
            name,
            routing_key: b"account.moved.v1".to_vec(),
            properties: change(sound(all.len())),
            says,
            holds,
        });
    };
    add("deep", "nested more than", "0174", |p| {
        p.header(b"x", &nested_tables(2000))
    });
    add("deep arrays", "nested more than", "41", |p| {
        p.header(b"x", &nested_arrays(2000))
    });
    add(
        "header name",
        "name of a header is not UTF-8",
        LATIN1_HEX,
        |p| p.header(LATIN1, b"V"),
    );
    add(
        "inner name",
        "name of a header is not UTF-8",
        LATIN1_HEX,
        |p| {
            let mut table = b"F\0\0\0\x06\x04".to_vec();
            table.extend(LATIN1);
            table.push(b'V');
            p.header(b"x", &table)
        },
    );
    add("message id", "message_id is not UTF-8", LATIN1_HEX, |p| {
        p.text("message_id", LATIN1)
    });
    add("app id", "app_id is not UTF-8", LATIN1_HEX, |p| {
        p.text("app_id", LATIN1)
    });
    add("type", "type is not UTF-8", LATIN1_HEX, |p| {
        p.text("type", LATIN1)
    });
    add(
        "content type",
        "content_type is not UTF-8",
        LATIN1_HEX,
        |p| p.text("content_type", LATIN1),
    );
    add(
        "encoding",
        "content_encoding is not UTF-8",
        LATIN1_HEX,
        |p| p.text("content_encoding", LATIN1),
    );
    add(
        "correlation",
        "correlation_id is not UTF-8",
        LATIN1_HEX,
        |p| p.text("correlation_id", LATIN1),
    );
    add("reply to", "reply_to is not UTF-8", LATIN1_HEX, |p| {
        p.text("reply_to", LATIN1)
    });
    add("cluster", "cluster_id is not UTF-8", LATIN1_HEX, |p| {
        p.text("cluster_id", LATIN1)
    });
    all
}

/// Returns messages with a routing key that is not UTF-8, which only an exchange accepts, and with as many tables as
/// fit into a frame, which take the broker seconds.
fn hostile_by_exchange() -> Vec<Hostile> {
    let mut all = hostile();
    all.push(Hostile {
        name: DEEPEST,
        routing_key: b"account.moved.v1".to_vec(),
        properties: sound(all.len()).header(b"x", &nested_tables(18_500)),
        says: "nested more than",
        holds: "0174",
    });
    all.push(Hostile {
        name: "routing key",
        routing_key: b"account.caf\xe9".to_vec(),
        properties: sound(all.len()),
        says: "routing_key is not UTF-8",
        holds: LATIN1_HEX,
    });
    all
}

fn is_of(letter: &DeadLetter, hostile: &Hostile) -> bool {
    letter.body == hostile.name.as_bytes()
}

fn all_are_there(dead: &[DeadLetter], sent: &[Hostile]) {
    for hostile in sent {
        let letters: Vec<_> = dead
            .iter()
            .filter(|letter| is_of(letter, hostile))
            .collect();
        let [letter] = letters[..] else {
            panic!("{} dead letters of {}", letters.len(), hostile.name);
        };
        assert_eq!(letter.reason, "unreadable");
        assert!(!letter.blocks);
        let detail = &letter.detail;
        assert!(
            detail.contains(hostile.says),
            "{}: {detail:.300}",
            hostile.name
        );
        let (_, channel) = detail.split_once("_hex\":\"").unwrap();
        assert!(
            channel.contains(hostile.holds),
            "{}: {detail:.300}",
            hostile.name
        );
        // The decodable part is shown.
        assert!(
            detail.contains("account/hostile"),
            "{}: {detail:.300}",
            hostile.name
        );
    }
}

/// Checks that the role still has its first connections.
fn nothing_was_lost(links: &RoleConnections) {
    let states = [
        Some(&links.publish),
        links.consume.as_ref(),
        links.quarantine.as_ref(),
        links.serve.as_ref(),
    ];
    for state in states.into_iter().flatten() {
        let ConnectionStatus {
            connections,
            last_loss,
            ..
        } = &*state.borrow();
        assert_eq!((*connections, last_loss), (1, &None));
    }
}

for_each_store! {
    async fn an_undecodable_message_is_one_dead_letter(storage) {
        let env = TestEnv::new("undecodable", &[LEDGER]).await;
        let store = storage.open();
        let role = env.start(Ledger, storage.open());
        role.consuming(SOON).await;
        let sent = hostile_by_exchange();
        let mut raw = RawAmqp::open(&env.amqp_url()).await;
        let exchange = env.namespace().events_exchange();
        for (n, hostile) in (1..).zip(&sent) {
            env.publish(&[event("shop", "account/good", n, &Move::Add(1))]).await;
            // Twice, as after a crash: it is the same message, and one dead letter.
            for _ in 0..2 {
                raw.publish(&exchange, &hostile.routing_key, &hostile.properties, hostile.name.as_bytes()).await;
            }
            raw.confirmed().await;
        }
        let all: Vec<_> = (1..=sent.len()).map(|n| format!("shop {n}")).collect();
        let all: Vec<_> = all.iter().map(String::as_str).collect();
        entries_are(&store, "account/good", &all).await;
        all_are_there(&dead_letters(&store, sent.len()).await, &sent);
        env.all_is_acked(&role, "ledger", SOON).await;
        let duplicates = summary(&store).await.tally.duplicates;
        assert_eq!(duplicates, sent.len() as u64);
        let vitals = role.vitals();
        nothing_was_lost(vitals.links().unwrap());
        let quarantined = vitals.links().unwrap().quarantined.as_ref().unwrap().read();
        assert_eq!(quarantined.delivered, 0);
        role.stop().await.unwrap();
    }
}

for_each_store! {
    async fn the_quarantine_accepts_undecodable_messages(storage) {
        let env = TestEnv::new("undecodable-net", &[LEDGER]).await;
        let store = storage.open();
        let role = env.start(Ledger, storage.open());
        role.consuming(SOON).await;
        let sent = hostile();
        let net = env.namespace().quarantine_queue("ledger");
        let mut raw = RawAmqp::open(&env.amqp_url()).await;
        for hostile in &sent {
            raw.publish("", net.as_str().as_bytes(), &hostile.properties, hostile.name.as_bytes()).await;
        }
        raw.confirmed().await;
        env.publish(&[event("shop", "account/good", 1, &Move::Add(1))]).await;
        entries_are(&store, "account/good", &["shop 1"]).await;
        all_are_there(&dead_letters(&store, sent.len()).await, &sent);
        env.all_is_acked(&role, "ledger", SOON).await;
        nothing_was_lost(role.vitals().links().unwrap());
        role.stop().await.unwrap();
    }
}

for_each_store! {
    async fn many_undecodable_messages_stop_nothing(storage) {
        const ROUNDS: u64 = 100;
        let env = TestEnv::new("undecodable-many", &[LEDGER]).await;
        let store = storage.open();
        let exchange = env.namespace().events_exchange();
        let mut raw = RawAmqp::open(&env.amqp_url()).await;
        let sent = hostile_by_exchange();
        for round in 0..ROUNDS {
            for hostile in sent.iter().filter(|hostile| hostile.name != DEEPEST) {
                let body = format!("{} {round}", hostile.name);
                raw.publish(&exchange, &hostile.routing_key, &hostile.properties, body.as_bytes()).await;
            }
            raw.confirmed().await;
            env.publish(&[event("shop", "account/good", round + 1, &Move::Add(1))]).await;
        }
        // All messages are there before the role, so that many arrive at once.
        let role = env.start(Ledger, storage.open());
        wait_until("all that is sound is applied", SOON, async || {
            summary(&store).await.tally.applied == ROUNDS
        })
        .await;
        env.all_is_acked(&role, "ledger", SOON).await;
        let all = usize::try_from(ROUNDS).unwrap() * (sent.len() - 1);
        assert_eq!(dead(&store).await.len(), all);
        nothing_was_lost(role.vitals().links().unwrap());
        role.stop().await.unwrap();
    }
}

for_each_store! {
    async fn undecodable_requests_do_not_stop_serving(storage) {
        let env = TestEnv::new("undecodable-rpc", &[LEDGER_WITH_RPC]).await;
        let role = env.start(Ledger, storage.open());
        role.consuming(SOON).await;
        let asks = client(&env).await;
        let queue = env.namespace().rpc_queue("ledger");
        let mut raw = RawAmqp::open(&env.amqp_url()).await;
        let sent = hostile();
        for (n, hostile) in sent.iter().enumerate() {
            raw.publish("", queue.as_str().as_bytes(), &hostile.properties, b"{}").await;
            raw.confirmed().await;
            let now = doorstep_event::Timestamp::now();
            let mut deposit = order(&n.to_string(), now, "account/a", Bid::Deposit(1));
            deposit.deadline = now + SOON;
            let standing = asks.call::<Order>(deposit).await.unwrap();
            assert_eq!(standing.entries, n + 1);
        }
        let vitals = role.vitals();
        let links = vitals.links().unwrap();
        wait_for("all of them are counted", SOON, async || {
            let counts = links.served.as_ref().unwrap().read();
            if counts.malformed == sent.len() as u64 { Ok(()) } else { Err(counts) }
        })
        .await;
        nothing_was_lost(links);
        role.stop().await.unwrap();
        env.depth_is(&queue, 0, 0, SOON).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_roles_survive_undecodable_messages() {
    let env = TestEnv::new("undecodable-all", &[]).await;
    let scratch = TempDir::new("undecodable-all");
    let program = |arguments: &[&str]| {
        Program::consumers(arguments)
            .broker(&env.amqp_url())
            .store(&scratch.join("stores"))
    };
    let mut running = program(&["run"]).start(&scratch);
    let view = env.view();
    let mut queues = Vec::new();
    wait_until("all roles consume", SOON, async || {
        let consumers = tokio::task::block_in_place(|| view.consumers());
        queues = consumers.into_iter().map(|(queue, _)| queue).collect();
        [
            "restaurant.quarantine",
            "payments.quarantine",
            "tracking.quarantine",
            "rpc.restaurant",
        ]
        .iter()
        .all(|wanted| queues.iter().any(|queue| queue.ends_with(wanted)))
    })
    .await;
    // A busy broker may have closed a connection while ten of them declared the same queues.
    let before = running.stderr().len();
    let mut raw = RawAmqp::open(&env.amqp_url()).await;
    let worked: Vec<_> = queues
        .iter()
        .filter(|queue| !queue.contains(".cancel"))
        .collect();
    for queue in &worked {
        for hostile in hostile() {
            raw.publish(
                "",
                queue.as_bytes(),
                &hostile.properties,
                hostile.name.as_bytes(),
            )
            .await;
        }
    }
    raw.confirmed().await;
    for queue in &worked {
        let name = doorstep_messaging::QueueName::new(queue.as_str());
        wait_until(format!("{queue} is empty"), SOON, async || {
            env.try_depth(&name)
                .await
                .is_ok_and(|depth| depth.ready == 0)
        })
        .await;
    }
    assert!(running.is_running(), "{}", running.stderr());
    let log = running.stderr();
    assert!(!log[before..].contains("no connection"), "{log}");
    running.terminate();
    let ended = running.ended(SOON).await;
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    let roles = ["orders", "inventory", "tracking", "restaurant", "payments"];
    for role in roles {
        let store = SqliteStore::open(&scratch.join("stores"), role, &Options::default()).unwrap();
        // The same messages through its queue and its quarantine are the same dead letters.
        all_are_there(&dead(&store).await, &hostile());
    }
}

for_each_store! {
    async fn equal_undecodable_bodies_are_separate_dead_letters(storage) {
        let env = TestEnv::new("undecodable-bodies", &[LEDGER]).await;
        let queue = env.namespace().role_queue("ledger", 0);
        let mut raw = RawAmqp::open(&env.amqp_url()).await;
        let exchange = env.namespace().events_exchange();
        let without_headers = RawProperties::default();
        // The broker adds a header on redelivery, and sorts all headers.
        for properties in [sound(0), sound(1), without_headers] {
            let properties = properties.text("message_id", LATIN1);
            raw.publish(&exchange, b"account.moved.v1", &properties, b"{}").await;
        }
        raw.confirmed().await;
        let store = FaultyStore::new(storage.open());
        store.set(Fault::HangsAfterCommit);
        let role = env.start(Ledger, store.clone());
        wait_until("some are dead letters", SOON, async || store.hung() == 1).await;
        role.crash();
        env.depth_is(&queue, 3, 0, SOON).await;

        let store = storage.open();
        let before = summary(&store).await.tally.dead_letters;
        assert!(before > 0, "nothing was written");
        let role = env.start(Ledger, storage.open());
        wait_until("all were redelivered", SOON, async || {
            let tally = summary(&store).await.tally;
            tally.dead_letters + tally.duplicates >= 3 + before
        })
        .await;
        assert_eq!(dead_letters(&store, 3).await.len(), 3);
        assert_eq!(summary(&store).await.tally.duplicates, before);
        role.stop().await.unwrap();
    }
}
