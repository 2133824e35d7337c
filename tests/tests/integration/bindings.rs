//! A binding that somebody has deleted: `topology verify` tells it where it may ask the management API, and the role makes it again.

use std::time::Duration;

use doorstep_broker::{Rights, percent_encoded};
use doorstep_event::Event;
use doorstep_messaging::BrokerSettings;
use doorstep_runtime::runner::RunSettings;
use doorstep_store::MemoryStore;
use doorstep_tests::{
    Ended, LEDGER, Point, RoleProcess, TestEnv, WireFault,
    ledger::{Ledger, Move, entries, event},
    wait_for, wait_until,
};
use serde_json::Value;
use tokio::{
    task::block_in_place,
    time::{sleep, timeout},
};

use crate::{SOON, operator::Office};

const OFTEN: Duration = Duration::from_millis(50);

impl Office {
    /// The management API with the login of an administrator.
    pub(crate) fn management_url(&self) -> String {
        let management = self.world.broker().management().unwrap();
        management.url_with_login()
    }

    /// Verifies with the management API at this address.
    pub(crate) async fn verified(&self, management_url: &str, arguments: &[&str]) -> Ended {
        let words = [&["topology", "verify"], arguments].concat();
        self.consumers(&words)
            .variable("DOORSTEP_MANAGEMENT_URL", management_url)
            .run(&self.scratch, Duration::from_secs(120))
            .await
    }
}

/// The findings of `topology verify --json`.
pub(crate) fn findings(ended: &Ended) -> Vec<Value> {
    let report: Value = serde_json::from_str(&ended.stdout)
        .unwrap_or_else(|e| panic!("{e}: {} {}", ended.stdout, ended.stderr));
    report["findings"].as_array().unwrap().clone()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn missing_and_surplus_bindings_are_found_where_the_management_api_answers() {
    let office = Office::new("verify-bindings").await;
    let management = office.management_url();
    let ended = office.verified(&management, &[]).await;
    assert_eq!(ended.code, Some(0), "{} {}", ended.stdout, ended.stderr);
    assert!(ended.stdout.contains("bindings"), "{}", ended.stdout);
    assert!(
        !ended.stdout.contains("bindings not compared"),
        "{}",
        ended.stdout
    );

    let wire = office.world.wire().await;
    wire.unbind("doorstep.inventory.0", "doorstep.events", "stock.#")
        .await;
    wire.bind("doorstep.orders.net", "amq.topic", "tap.#").await;
    let ended = office.verified(&management, &[]).await;
    assert_eq!(ended.code, Some(2), "{}", ended.stderr);
    for part in [
        "queue doorstep.inventory.0 is not bound to exchange doorstep.events by stock.#",
        "queue doorstep.orders.net is bound to exchange amq.topic by \"tap.#\"",
    ] {
        assert!(
            ended.stdout.contains(part),
            "{part} is not in {}",
            ended.stdout
        );
    }
    let ended = office.verified(&management, &["inventory", "--json"]).await;
    let found = findings(&ended);
    assert_eq!(found.len(), 1, "{found:#?}");
    assert_eq!(found[0]["finding"], "binding_missing");
    assert_eq!(found[0]["queue"], "doorstep.inventory.0");
    assert_eq!(found[0]["routing_key"], "stock.#");

    // Where the API cannot be asked that is said, and nothing is found.
    let text = office.told(&["topology", "verify"]).await;
    let told = "bindings not compared: AMQP does not show them";
    assert!(text.contains(told), "{text}");
    let ended = office.verified("http://127.0.0.1:1", &[]).await;
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    let told = "bindings not compared: the management API at http://127.0.0.1:1 does not answer";
    assert!(ended.stdout.contains(told), "{}", ended.stdout);
    let wrong = management.replacen("http://", "http://nobody-", 1);
    let ended = office.verified(&wrong, &["--json"]).await;
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    let report: Value = serde_json::from_str(&ended.stdout).unwrap();
    let not_compared = report["not_compared"].as_array().unwrap();
    let whats: Vec<_> = not_compared.iter().map(|n| &n["what"]).collect();
    assert_eq!(whats, ["bindings", "policies", "topic permissions"]);
    for line in not_compared {
        let reason = line["reason"].as_str().unwrap();
        assert!(reason.contains("refuses user nobody-"), "{reason}");
    }
}

fn added(n: u64) -> Event {
    event("shop", "account/a", n, &Move::Add(1))
}

/// The settings of a role that binds again after such times, by this address.
fn binding_every(interval: Duration, world: &TestEnv, broker: BrokerSettings) -> RunSettings {
    let broker = BrokerSettings {
        rebind_interval: interval,
        ..broker
    };
    RunSettings {
        broker,
        ..world.run_settings()
    }
}

async fn applied(store: &MemoryStore, upto: usize) {
    wait_for(
        format!("{upto} are applied"),
        SOON,
        async || match entries(store, "account/a").await.len() {
            count if count == upto => Ok(()),
            other => Err(other),
        },
    )
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_role_gets_events_again_after_its_binding_was_deleted() {
    let world = TestEnv::new("unbound", &[LEDGER]).await;
    let store = MemoryStore::new("ledger");
    let settings = binding_every(OFTEN, &world, world.settings().clone());
    let role = RoleProcess::start(Ledger, store.clone(), settings);
    role.taking(SOON).await;
    world.publish(&[added(1)]).await;
    applied(&store, 1).await;

    let wire = world.wire().await;
    wire.unbind("doorstep.ledger.0", "doorstep.events", "account.#")
        .await;
    world.publish_at_last(&[added(2)], SOON).await;
    applied(&store, 2).await;
    role.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_exchange_of_events_that_was_deleted_is_declared_and_bound_again() {
    let world = TestEnv::new("no-exchange", &[LEDGER]).await;
    let proxy = world.proxy().await;
    let store = MemoryStore::new("ledger");
    let seldom = Duration::from_secs(2);
    let settings = binding_every(seldom, &world, world.settings_by(&proxy));
    let role = RoleProcess::start(Ledger, store.clone(), settings);
    role.taking(SOON).await;
    // All that its connections declare is behind them.
    wait_until("every connection is there", SOON, async || {
        let vitals = role.vitals();
        let links = vitals.links().unwrap();
        let others = [&links.consume, &links.quarantine].into_iter().flatten();
        let mut all = others.chain([&links.publish]);
        all.all(|link| link.borrow().is_connected())
    })
    .await;
    // Right after the role has bound. RabbitMQ 4.3 may list a binding and not route by it if the exchange is deleted and declared again
    // in the same moment.
    let mut bound = proxy.triggered();
    proxy.at(Point::BindOk, WireFault::Slow(u32::MAX));
    timeout(SOON, bound.wait_for(|count| *count == 1))
        .await
        .expect("it binds again")
        .unwrap();
    let wire = world.wire().await;
    let deleted = wire
        .channel()
        .exchange_delete("doorstep.events".into(), Default::default());
    deleted.await.unwrap();
    // Nobody else declares it: the test publishes only once it is there.
    let view = world.view();
    wait_for("the exchange is there again", SOON, async || {
        match view.exchanges() {
            names if names.iter().any(|name| name == "doorstep.events") => Ok(()),
            names => Err(names),
        }
    })
    .await;
    world.publish_at_last(&[added(1)], SOON).await;
    applied(&store, 1).await;
    role.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_user_who_may_not_bind_is_asked_once_a_connection_and_goes_on_consuming() {
    let world = TestEnv::new("may-not-bind", &[LEDGER]).await;
    let user = world.user(
        "reader",
        Rights {
            configure: ".*",
            write: ".*",
            read: r"^doorstep\.ledger\..*$",
        },
    );
    let proxy = world.proxy().await;
    let mut broker = world.settings_by(&proxy);
    let address = &broker.addresses[0];
    let place = format!("{}:{}", address.host(), address.port());
    let url = user.amqp_url();
    let (login, _) = url.rsplit_once('@').unwrap();
    let vhost = percent_encoded(address.vhost());
    broker.addresses = vec![format!("{login}@{place}/{vhost}").parse().unwrap()];
    let store = MemoryStore::new("ledger");
    let role = RoleProcess::start(Ledger, store.clone(), binding_every(OFTEN, &world, broker));
    role.taking(SOON).await;
    // Each time the first to bind is counted, and nothing else happens to it. The one that is refused may come in any of these times.
    let counted = proxy.triggered();
    for _ in 0..3 {
        proxy.at(Point::Bind, WireFault::Slow(u32::MAX));
        sleep(OFTEN * 20).await;
    }
    let binds = *counted.borrow();
    assert!(binds <= 1, "it tries to bind again and again");
    world.publish(&[added(1)]).await;
    applied(&store, 1).await;
    let vitals = role.vitals();
    let consume = vitals.links().unwrap().consume.clone().unwrap();
    assert_eq!(consume.borrow().connections, 1);
    role.stop().await.unwrap();
    block_in_place(|| drop(user));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_queue_that_was_made_again_under_its_consumer_is_told_as_possible_loss() {
    let world = TestEnv::new("made-again", &[LEDGER]).await;
    let store = MemoryStore::new("ledger");
    let settings = binding_every(OFTEN, &world, world.settings().clone());
    let role = RoleProcess::start(Ledger, store.clone(), settings);
    role.taking(SOON).await;
    assert!(role.status().degraded.is_empty());
    // The broker deletes it together with the queue. Whether it lets the consumer go on with the new queue is a matter of milliseconds.
    let wire = world.wire().await;
    let deleted = wire
        .channel()
        .exchange_delete("doorstep.ledger.0.mark".into(), Default::default());
    deleted.await.unwrap();
    wait_for("the loss is told", SOON, async || {
        let degraded = role.status().degraded;
        let told = "queue doorstep.ledger.0 was created again";
        if degraded.iter().any(|line| line.contains(told)) {
            Ok(())
        } else {
            Err(degraded)
        }
    })
    .await;
    let view = world.view();
    wait_until("the queue is marked again", SOON, async || {
        let mark = "doorstep.ledger.0.mark".to_owned();
        view.exchanges().contains(&mark)
    })
    .await;
    let vitals = role.vitals();
    let consume = vitals.links().unwrap().consume.clone().unwrap();
    assert_eq!(consume.borrow().connections, 1);
    role.stop().await.unwrap();
}
