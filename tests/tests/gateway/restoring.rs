//! Lost stores restored from backups: those of all roles and of the gateway, by the how-to, and the gateway's without
//! it.

use std::path::PathBuf;

use doorstep_tests::{Client, Ended, wait_for, wait_until};
use serde_json::{Value, json};

use crate::{
    SOON,
    gateway::ROOT,
    shop::{Shop, dinner, place, placed, placed_at_last},
};

const ROLES: [&str; 5] = ["orders", "payments", "inventory", "tracking", "restaurant"];
/// The numbers of orders before the backup, between backup and loss, and after the restore.
const BEFORE: usize = 3;
const LOST: usize = 4;
const AFTER: usize = 3;
/// The stock events of an order for each of its two codes: reserved, released, sold.
const EVENTS_OF_STOCK: usize = 6;

#[track_caller]
fn went_well(ended: &Ended) {
    assert_eq!(ended.code, Some(0), "{}{}", ended.stdout, ended.stderr);
}

impl Shop {
    async fn orders(&self, client: &Client, hint: &str, count: usize) {
        for n in 0..count {
            let _ = placed(client, &format!("{hint}-{n}")).await;
        }
    }

    fn backup_of(&self, role: &str) -> PathBuf {
        self.gateway.scratch.join(&format!("{role}.backup"))
    }

    /// Runs `store COMMAND` on a role's store or the gateway's.
    async fn on_store(&self, role: &str, command: &str, arguments: &[&str]) -> Ended {
        if role == "gateway" {
            let all = [&["store", command][..], arguments].concat();
            return self.gateway.command(&all).await;
        }
        let all = [&["store", command, role][..], arguments].concat();
        self.consumers(&all).await
    }

    async fn back_up(&self, role: &str) {
        let file = self.backup_of(role);
        let made = self
            .on_store(role, "backup", &["--to", file.to_str().unwrap()])
            .await;
        went_well(&made);
    }

    async fn restore(&self, role: &str) {
        let file = self.backup_of(role);
        let from = ["--from", file.to_str().unwrap()];
        // An existing store is not overwritten.
        let rejected = self.on_store(role, "restore", &from).await;
        assert_eq!(rejected.code, Some(73), "{}", rejected.stderr);
        let aside = [&from[..], &["--move-aside"]].concat();
        went_well(&self.on_store(role, "restore", &aside).await);
    }

    /// Gives a store a new source.
    async fn gets_a_new_source(&self, role: &str) {
        let because = ["--keep-outbox", "--reason", "a test"];
        went_well(&self.on_store(role, "restored", &because).await);
    }

    async fn dead(&self, role: &str) -> Vec<Value> {
        let list = self
            .consumers(&["dead-letters", "list", role, "--json"])
            .await;
        went_well(&list);
        let rows = list.stdout.lines();
        rows.map(|row| serde_json::from_str(row).unwrap()).collect()
    }

    async fn has_sold(&self, count: usize) {
        wait_for(format!("{count} are sold"), SOON, async || {
            let stock = self.entities("inventory").await;
            let of = &stock["stock/TIRAMISU"];
            if of["sold"] == count && of["reserved"].as_i64().unwrap_or(0) == 0 {
                Ok(())
            } else {
                Err(of.clone())
            }
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_how_to_restores_a_whole_shop() {
    let mut shop = Shop::open("restore-all").await;
    let ada = shop.gateway.user("ada", "customer").await;
    shop.orders(&ada, "before", BEFORE).await;
    shop.all_is_consistent(BEFORE).await;
    for role in ROLES.iter().chain(&["gateway"]) {
        shop.back_up(role).await;
        // A store in use gets no new source.
        let rejected = shop
            .on_store(role, "restored", &["--reason", "a test"])
            .await;
        assert_eq!(rejected.code, Some(74), "{role}: {}", rejected.stderr);
    }
    shop.orders(&ada, "lost", LOST / 2).await;
    // A start that is missing from the backups, so that the queues belong to the lost stores.
    shop.stop().await;
    shop.start().await;
    let ada = shop.gateway.log_in("ada").await;
    shop.orders(&ada, "lost-again", LOST - LOST / 2).await;
    shop.all_is_consistent(BEFORE + LOST).await;
    shop.stop().await;

    for role in ROLES.iter().chain(&["gateway"]) {
        shop.restore(role).await;
        shop.gets_a_new_source(role).await;
    }
    for role in ROLES {
        let rejected = shop
            .consumers(&["run", role, "--exit-when-idle", "1s"])
            .await;
        assert_eq!(rejected.code, Some(78), "{role}: {}", rejected.stderr);
        let taken = shop
            .on_store(role, "take-over", &["--reason", "a test"])
            .await;
        went_well(&taken);
    }
    shop.start().await;
    for role in ROLES.iter().chain(&["gateway"]) {
        let accept = ["--reason", "a test"];
        went_well(&shop.on_store(role, "accept", &accept).await);
        let again = shop.on_store(role, "accept", &accept).await;
        assert_eq!(again.code, Some(66), "{role}: {}", again.stderr);
    }

    let ada = shop.gateway.log_in("ada").await;
    shop.orders(&ada, "after", AFTER).await;
    shop.all_is_consistent(BEFORE + AFTER).await;
    shop.has_sold(BEFORE + AFTER).await;
    for role in ROLES {
        assert_eq!(shop.dead(role).await, [] as [Value; 0], "{role}");
    }
    let health = Client::new(shop.health_address().await);
    wait_for("no role is degraded", SOON, async || {
        let ready = health.get("/readyz").await;
        let roles = ready.json()["roles"].clone();
        let roles = roles.as_array().unwrap();
        if roles.iter().all(|role| role["status"] == "ready") {
            Ok(())
        } else {
            Err(ready.text)
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_new_source_events_are_dead_letters() {
    let mut shop = Shop::open("restore-careless").await;
    let ada = shop.gateway.user("ada", "customer").await;
    shop.orders(&ada, "before", BEFORE).await;
    shop.all_is_consistent(BEFORE).await;
    shop.back_up("gateway").await;
    shop.orders(&ada, "lost", LOST).await;
    shop.all_is_consistent(BEFORE + LOST).await;
    let source = shop.gateway.source();
    shop.gateway.stop().await;
    shop.restore("gateway").await;
    shop.gateway.start_again().await;
    shop.configure(1000).await;
    assert_eq!(shop.gateway.source(), source);

    // Fewer than were lost: each of their stock events has a sequence that was used before.
    let ada = shop.gateway.log_in("ada").await;
    shop.orders(&ada, "careless", AFTER).await;
    let dead = wait_for("all are dead letters", SOON, async || {
        let dead = shop.dead("inventory").await;
        if dead.len() == AFTER * EVENTS_OF_STOCK {
            Ok(dead)
        } else {
            Err(dead.len())
        }
    })
    .await;
    for letter in &dead {
        assert_eq!(letter["reason"], "numbering conflict", "{letter}");
    }
    let health = Client::new(shop.health_address().await);
    wait_for("the role names the source", SOON, async || {
        let ready = health.get("/readyz").await;
        let response = ready.json();
        let roles = response["roles"].as_array().unwrap();
        let inventory = roles.iter().find(|role| role["role"] == "inventory");
        let inventory = inventory.unwrap();
        let is_named = inventory.to_string().contains(&source);
        if inventory["status"] == "degraded" && is_named {
            Ok(())
        } else {
            Err(ready.text)
        }
    })
    .await;
    // The orders themselves are numbered by streams of their own.
    let known = shop.entities("orders").await;
    assert_eq!(known.len(), BEFORE + LOST + AFTER);
    shop.has_sold(BEFORE + LOST).await;

    // The remedy of the how-to for operators who skipped that step.
    shop.gateway.stop().await;
    shop.gets_a_new_source("gateway").await;
    shop.gateway.start_again().await;
    shop.configure(1000).await;
    let accept = ["--source", &source, "--reason", "a test"];
    went_well(&shop.on_store("inventory", "accept", &accept).await);
    let ada = shop.gateway.log_in("ada").await;
    shop.orders(&ada, "mended", AFTER).await;
    shop.has_sold(BEFORE + LOST + AFTER).await;
    assert_eq!(shop.dead("inventory").await.len(), dead.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restored_consumer_continues_after_skipping_its_gaps() {
    let mut shop = Shop::open("restore-one").await;
    let ada = shop.gateway.user("ada", "customer").await;
    shop.orders(&ada, "before", BEFORE).await;
    shop.has_sold(BEFORE).await;
    shop.back_up("inventory").await;
    shop.orders(&ada, "lost", LOST).await;
    shop.has_sold(BEFORE + LOST).await;
    shop.stop().await;
    shop.restore("inventory").await;
    shop.gets_a_new_source("inventory").await;
    shop.start().await;

    let ada = shop.gateway.log_in("ada").await;
    shop.orders(&ada, "after", AFTER).await;
    let missing = wait_for("it reports its gaps", SOON, async || {
        let status = shop.consumers(&["status", "inventory", "--json"]).await;
        let seen: Value = serde_json::from_str(&status.stdout).unwrap();
        let missing = seen["roles"][0]["missing"].as_array().cloned();
        match missing {
            Some(missing) if missing.len() == 2 => Ok(missing),
            _ => Err(status.stdout),
        }
    })
    .await;
    shop.has_sold(BEFORE).await;
    for gap in missing {
        let range = format!("{}..{}", gap["from"], gap["to"]);
        let of = |name: &str| gap[name].as_str().unwrap().to_owned();
        let (subject, source) = (of("subject"), of("source"));
        assert_eq!(source, shop.gateway.source());
        let gap = ["streams", "skip-gap", "inventory", &subject, &range];
        let skip = ["--source", &source, "--reason", "a test"];
        went_well(&shop.consumers(&[&gap[..], &skip].concat()).await);
    }
    shop.has_sold(BEFORE + AFTER).await;
    let accept = ["--reason", "skipped"];
    went_well(&shop.on_store("inventory", "accept", &accept).await);
    assert_eq!(shop.dead("inventory").await, [] as [Value; 0]);
}

impl Shop {
    /// Returns the number and the status of the only order, from the role `orders`.
    async fn only_order(&self) -> (String, String) {
        wait_for("the role orders has the order", SOON, async || {
            let orders = self.entities("orders").await;
            let mut all = orders.iter().map(|(key, order)| {
                let number = key.strip_prefix("order/").unwrap();
                (
                    number.to_owned(),
                    order["status"].as_str().unwrap().to_owned(),
                )
            });
            all.next().ok_or(())
        })
        .await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_order_open_at_backup_keeps_its_outcome() {
    let mut shop = Shop::open_with("restore-ended", &["--order-timeout", "20s"]).await;
    let ada = shop.gateway.user("ada", "customer").await;
    // The frozen roles answer only after the backup.
    shop.freeze_all_but_the_kitchen();
    let order = tokio::spawn(async move { place(&ada, "k", &dinner("card/visa")).await });
    wait_until("the order is begun", SOON, async || {
        shop.gateway.open_orders().await == 1
    })
    .await;
    shop.back_up("gateway").await;
    shop.thaw_all_but_the_kitchen();
    // Confirmed; or abandoned, on a machine too slow to send the requests in time.
    assert!([201, 503].contains(&order.await.unwrap().status));
    shop.all_is_consistent(1).await;
    let (number, status) = shop.only_order().await;
    shop.gateway.stop().await;
    shop.restore("gateway").await;
    shop.gets_a_new_source("gateway").await;
    let accept = ["--reason", "a test"];
    went_well(&shop.on_store("gateway", "accept", &accept).await);
    assert_eq!(shop.gateway.open_orders().await, 1);
    shop.gateway.start_again().await;

    let ada = shop.gateway.log_in("ada").await;
    let path = format!("/v1/orders/{number}");
    wait_for("the order has its outcome", SOON, async || {
        // This request needs the connection of the RPC client.
        let shown = ada.get(&path).await;
        match (shop.gateway.open_orders().await, shown.status) {
            (0, 200) if shown.json()["status"] == status.as_str() => Ok(()),
            (open, _) => Err((open, shown.text)),
        }
    })
    .await;
    // The outbox is sent in order, so all earlier events of the gateway are published before this one.
    shop.configure(1000).await;
    let abandoned = placed_at_last(&ada, "after", SOON).await;
    shop.all_is_consistent(2 + abandoned).await;
    assert_eq!(
        shop.entities("orders").await[&format!("order/{number}")]["status"],
        status.as_str()
    );
    for role in ROLES {
        assert_eq!(shop.dead(role).await, [] as [Value; 0], "{role}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unresolved_order_waits_for_an_operator() {
    let mut shop = Shop::open_with("restore-open", &["--order-timeout", "20s"]).await;
    let ada = shop.gateway.user("ada", "customer").await;
    shop.freeze_all_but_the_kitchen();
    let order = tokio::spawn(async move { place(&ada, "k", &dinner("card/visa")).await });
    wait_until("the order is begun", SOON, async || {
        shop.gateway.open_orders().await == 1
    })
    .await;
    shop.back_up("gateway").await;
    shop.gateway.kill();
    assert!(order.await.is_err(), "a killed gateway has answered");
    shop.thaw_all_but_the_kitchen();
    shop.restore("gateway").await;
    shop.gets_a_new_source("gateway").await;
    shop.gateway.start_again().await;
    shop.configure(1000).await;
    let is_left = async || {
        let ready = shop.gateway.nobody().get("/readyz").await.expect(200);
        let reasons = ready["reasons"].to_string();
        reasons.contains("open when the store was copied")
    };
    wait_until("the gateway tells of it", SOON, &is_left).await;
    let (number, _) = shop.only_order().await;
    // Later orders are placed and completed meanwhile.
    let ada = shop.gateway.log_in("ada").await;
    let abandoned = placed_at_last(&ada, "after", SOON).await;
    assert_eq!(shop.gateway.open_orders().await, 1);

    let path = format!("/v1/orders/{number}/cancellation");
    let because = json!({"reason": "never ended"});
    ada.post(&path, &because)
        .await
        .is_problem(409, "not_confirmed");
    let root = shop.gateway.log_in(ROOT).await;
    let ended = root.post(&path, &because).await.expect(200);
    assert_eq!(ended["status"], "abandoned");
    wait_until("no finding is left", SOON, async || !is_left().await).await;
    shop.all_is_consistent(2 + abandoned).await;
}
