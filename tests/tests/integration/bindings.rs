//! A deleted binding: `topology verify` reports it if it may use the management API, and the role binds again.

use std::time::Duration;

use doorstep_broker::{UserPermissions, percent_encoded};
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
    /// Returns the management API's address with the login of an administrator.
    pub(crate) fn management_url(&self) -> String {
        let management = self.env.broker().management().unwrap();
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

/// Parses the findings of `topology verify --json`.
pub(crate) fn findings(ended: &Ended) -> Vec<Value> {
    let report: Value = serde_json::from_str(&ended.stdout)
        .unwrap_or_else(|e| panic!("{e}: {} {}", ended.stdout, ended.stderr));
    report["findings"].as_array().unwrap().clone()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn verify_finds_missing_and_surplus_bindings() {
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

    let channel = office.env.channel().await;
    channel
        .unbind("doorstep.inventory.0", "doorstep.events", "stock.#")
        .await;
    channel
        .bind("doorstep.orders.quarantine", "amq.topic", "tap.#")
        .await;
    let ended = office.verified(&management, &[]).await;
    assert_eq!(ended.code, Some(2), "{}", ended.stderr);
    for part in [
        "queue doorstep.inventory.0 is not bound to exchange doorstep.events by stock.#",
        "queue doorstep.orders.quarantine is bound to exchange amq.topic by \"tap.#\"",
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

    // If the API cannot be used, that is reported, and there are no findings.
    let text = office.output(&["topology", "verify"]).await;
    let output = "bindings not compared: AMQP does not show them";
    assert!(text.contains(output), "{text}");
    let ended = office.verified("http://127.0.0.1:1", &[]).await;
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    let output = "bindings not compared: the management API at http://127.0.0.1:1 does not answer";
    assert!(ended.stdout.contains(output), "{}", ended.stdout);
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

/// Returns the settings of a role that binds at this interval, with this broker address.
fn binding_every(interval: Duration, env: &TestEnv, broker: BrokerSettings) -> RunSettings {
    let broker = BrokerSettings {
        rebind_interval: interval,
        ..broker
    };
    RunSettings {
        broker,
        ..env.run_settings()
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
async fn a_deleted_binding_is_restored() {
    let env = TestEnv::new("unbound", &[LEDGER]).await;
    let store = MemoryStore::new("ledger");
    let settings = binding_every(OFTEN, &env, env.settings().clone());
    let role = RoleProcess::start(Ledger, store.clone(), settings);
    role.consuming(SOON).await;
    env.publish(&[added(1)]).await;
    applied(&store, 1).await;

    let channel = env.channel().await;
    channel
        .unbind("doorstep.ledger.0", "doorstep.events", "account.#")
        .await;
    env.publish_at_last(&[added(2)], SOON).await;
    applied(&store, 2).await;
    role.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deleted_exchange_is_declared_and_bound_again() {
    let env = TestEnv::new("no-exchange", &[LEDGER]).await;
    let proxy = env.proxy().await;
    let store = MemoryStore::new("ledger");
    let seldom = Duration::from_secs(2);
    let settings = binding_every(seldom, &env, env.settings_by(&proxy));
    let role = RoleProcess::start(Ledger, store.clone(), settings);
    role.consuming(SOON).await;
    // All declarations of its connections are complete.
    wait_until("every connection is open", SOON, async || {
        let vitals = role.vitals();
        let links = vitals.links().unwrap();
        let others = [&links.consume, &links.quarantine].into_iter().flatten();
        let mut all = others.chain([&links.publish]);
        all.all(|link| link.borrow().is_connected())
    })
    .await;
    // Right after the role has bound. RabbitMQ 4.3 may list a binding and not route by it if the exchange is deleted
    // and declared again at the same moment.
    let mut bound = proxy.triggered();
    proxy.at(Point::BindOk, WireFault::Slow(u32::MAX));
    timeout(SOON, bound.wait_for(|count| *count == 1))
        .await
        .expect("it has bound again")
        .unwrap();
    let channel = env.channel().await;
    let deleted = channel
        .channel()
        .exchange_delete("doorstep.events".into(), Default::default());
    deleted.await.unwrap();
    // No other client declares it: the test publishes only once it exists.
    let view = env.view();
    wait_for("the exchange exists again", SOON, async || {
        match view.exchanges() {
            names if names.iter().any(|name| name == "doorstep.events") => Ok(()),
            names => Err(names),
        }
    })
    .await;
    env.publish_at_last(&[added(1)], SOON).await;
    applied(&store, 1).await;
    role.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_permission_to_bind_a_role_keeps_consuming() {
    let env = TestEnv::new("may-not-bind", &[LEDGER]).await;
    let user = env.user(
        "reader",
        UserPermissions {
            configure: ".*",
            write: ".*",
            read: r"^doorstep\.ledger\..*$",
        },
    );
    let proxy = env.proxy().await;
    let mut broker = env.settings_by(&proxy);
    let address = &broker.addresses[0];
    let place = format!("{}:{}", address.host(), address.port());
    let url = user.amqp_url();
    let (login, _) = url.rsplit_once('@').unwrap();
    let vhost = percent_encoded(address.vhost());
    broker.addresses = vec![format!("{login}@{place}/{vhost}").parse().unwrap()];
    let store = MemoryStore::new("ledger");
    let role = RoleProcess::start(Ledger, store.clone(), binding_every(OFTEN, &env, broker));
    role.consuming(SOON).await;
    // In each period the proxy counts the first bind, and does nothing else to it. The rejected one may be in any of
    // these periods.
    let counted = proxy.triggered();
    for _ in 0..3 {
        proxy.at(Point::Bind, WireFault::Slow(u32::MAX));
        sleep(OFTEN * 20).await;
    }
    let binds = *counted.borrow();
    assert!(binds <= 1, "it tries to bind again and again");
    env.publish(&[added(1)]).await;
    applied(&store, 1).await;
    let vitals = role.vitals();
    let consume = vitals.links().unwrap().consume.clone().unwrap();
    assert_eq!(consume.borrow().connections, 1);
    role.stop().await.unwrap();
    block_in_place(|| drop(user));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replaced_queue_is_reported_as_possible_loss() {
    let env = TestEnv::new("made-again", &[LEDGER]).await;
    let store = MemoryStore::new("ledger");
    let settings = binding_every(OFTEN, &env, env.settings().clone());
    let role = RoleProcess::start(Ledger, store.clone(), settings);
    role.consuming(SOON).await;
    assert!(role.status().degraded.is_empty());
    // The broker deletes it together with the queue. Whether it keeps the consumer on the new queue depends on
    // milliseconds.
    let channel = env.channel().await;
    let deleted = channel
        .channel()
        .exchange_delete("doorstep.ledger.0.marker".into(), Default::default());
    deleted.await.unwrap();
    wait_for("the possible loss is reported", SOON, async || {
        let degraded = role.status().degraded;
        let output = "queue doorstep.ledger.0 was recreated";
        if degraded.iter().any(|line| line.message.contains(output)) {
            Ok(())
        } else {
            Err(degraded)
        }
    })
    .await;
    let view = env.view();
    wait_until("the queue has its marker again", SOON, async || {
        let mark = "doorstep.ledger.0.marker".to_owned();
        view.exchanges().contains(&mark)
    })
    .await;
    let vitals = role.vitals();
    let consume = vitals.links().unwrap().consume.clone().unwrap();
    assert_eq!(consume.borrow().connections, 1);
    role.stop().await.unwrap();
}
