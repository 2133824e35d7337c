//! The gateway's promises while the broker, the roles or the gateway itself are down.

use std::{sync::Arc, time::Duration};

use doorstep_broker::{NodeOptions, PrivateNode};
use doorstep_tests::{wait_for, wait_until};
use serde_json::json;
use tokio::task::{block_in_place, spawn_blocking};

use crate::{
    SOON,
    shop::{Shop, dinner, place, placed, placed_at_last},
};

/// A broker takes long to start on a busy machine.
const LONG: Duration = Duration::from_secs(240);

#[tokio::test(flavor = "multi_thread")]
async fn without_a_broker_requests_fail_fast_or_persist() {
    let mut node =
        spawn_blocking(|| PrivateNode::start(NodeOptions::named("gateway-away")).unwrap())
            .await
            .unwrap();
    let vhost = block_in_place(|| node.broker().new_vhost("away")).unwrap();
    let shop = Shop::on("away", &vhost.amqp_url(), &[]).await;
    let ada = shop.gateway.user("ada", "customer").await;
    let bea = shop.gateway.user("bea", "courier").await;
    let number = placed(&ada, "before").await;
    let delivery = format!("/v1/deliveries/{number}");
    let _ = bea
        .post(&format!("{delivery}/assignment"), &json!({}))
        .await
        .expect(204);

    block_in_place(|| node.sync_declarations()).unwrap();
    block_in_place(|| node.kill()).unwrap();
    wait_until("the gateway notices", SOON, async || {
        let ready = shop.gateway.nobody().get("/readyz").await;
        ready.expect(200)["status"] == "degraded"
    })
    .await;
    let rejected = place(&ada, "meanwhile-0", &dinner("card/visa")).await;
    rejected.is_problem(503, "broker_unavailable");
    assert!(rejected.header("retry-after").is_some());
    let fix = json!({"order": number, "longitude": 9.19, "latitude": 45.46, "recorded_at": "2025-11-24T12:00:00Z"});
    for _ in 0..5 {
        let batch = json!({"positions": [fix, fix]});
        let _ = bea.post("/v1/positions", &batch).await.expect(202);
    }

    block_in_place(|| node.start_again()).unwrap();
    wait_for("all positions are tracked", LONG, async || {
        let tracked = shop.entities("tracking").await;
        match tracked.get(&format!("delivery/{number}")) {
            Some(delivery) if delivery["fixes"] == 10 => Ok(()),
            seen => Err(format!("{seen:?}")),
        }
    })
    .await;
    // A rejected order was not begun. The kitchen may be back before payments, and then further orders are begun and
    // abandoned.
    let abandoned = placed_at_last(&ada, "meanwhile", LONG).await;
    shop.all_is_consistent(2 + abandoned).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_undecidable_order_is_abandoned_and_compensated() {
    let mut shop = Shop::open_with("undecided", &["--order-timeout", "3s"]).await;
    let ada = shop.gateway.user("ada", "customer").await;
    let before = placed_at_last(&ada, "before", SOON).await;
    shop.kill_all_but_the_kitchen();
    let rejected = place(&ada, "meanwhile", &dinner("card/visa")).await;
    rejected.is_problem(503, "order_abandoned");
    let again = place(&ada, "meanwhile", &dinner("card/visa")).await;
    assert_eq!(again.text, rejected.text);
    shop.start_all_but_the_kitchen();
    // A late answer may cause further orders to be abandoned, and a slow machine some before.
    let abandoned = before + 1 + placed_at_last(&ada, "after", SOON).await;
    shop.all_is_consistent(2 + abandoned).await;
    let orders = shop.entities("orders").await;
    let count = |status: &str| orders.values().filter(|o| o["status"] == status).count();
    assert_eq!(
        (count("confirmed"), count("abandoned")),
        (2, abandoned),
        "{orders:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn kills_leave_nothing_reserved_or_charged() {
    let mut shop = Shop::open_with("killed", &["--order-timeout", "2s"]).await;
    let _ = shop.gateway.user("ada", "customer").await;
    for round in 0..4_u32 {
        let ada = Arc::new(shop.gateway.log_in("ada").await);
        let orders: Vec<_> = (0..30)
            .map(|n| {
                let ada = Arc::clone(&ada);
                tokio::spawn(async move {
                    let head = [("Idempotency-Key", format!("{round}-{n}"))];
                    let head = head.each_ref().map(|(name, value)| (*name, value.as_str()));
                    let body = dinner(if n % 3 == 0 {
                        "card/declined"
                    } else {
                        "card/visa"
                    });
                    // The answer is not read: the process is gone by then.
                    let mut all = head.to_vec();
                    let text = body.to_string();
                    let length = text.len().to_string();
                    all.extend([
                        ("Content-Type", "application/json"),
                        ("Content-Length", length.as_str()),
                    ]);
                    let mut stream = ada.open("POST", "/v1/orders", &all).await;
                    let _ = tokio::io::AsyncWriteExt::write_all(&mut stream, text.as_bytes()).await;
                    stream
                })
            })
            .collect();
        let mut streams = Vec::new();
        for order in orders {
            streams.push(order.await.unwrap());
        }
        doorstep_tests::random_moment(Duration::from_millis(u64::from(round) * 60 + 20)).await;
        shop.gateway.kill();
        drop(streams);
        shop.gateway.start_again().await;
    }
    let ada = shop.gateway.log_in("ada").await;
    shop.configure(1000).await;
    // Every key has one outcome in the end, however often it is repeated.
    for round in 0..4 {
        for n in 0..30 {
            let body = dinner(if n % 3 == 0 {
                "card/declined"
            } else {
                "card/visa"
            });
            wait_for("there is an outcome", SOON, async || {
                let response = place(&ada, &format!("{round}-{n}"), &body).await;
                let code = response.json()["code"]
                    .as_str()
                    .unwrap_or_default()
                    .to_owned();
                match (response.status, code.as_str()) {
                    (201, _) | (402, "card_declined") | (503, "order_abandoned") => Ok(()),
                    _ => Err(response.text),
                }
            })
            .await;
        }
    }
    shop.all_is_consistent(120).await;
    let orders = shop.entities("orders").await;
    assert!(orders.len() == 120, "{}", orders.len());
    let confirmed = orders
        .values()
        .filter(|o| o["status"] == "confirmed")
        .count();
    let sold = shop.entities("inventory").await["stock/TIRAMISU"]["sold"].clone();
    assert_eq!(sold, confirmed);
    let payments = shop.entities("payments").await;
    let captured = payments
        .values()
        .filter(|p| p["payment"]["status"] == "captured")
        .count();
    assert_eq!(captured, confirmed);
}

#[tokio::test(flavor = "multi_thread")]
async fn orders_in_flight_at_a_stop_get_responses() {
    let arguments = ["--order-timeout", "20s", "--shutdown-timeout", "40s"];
    let mut shop = Shop::open_with("stopped", &arguments).await;
    let ada = shop.gateway.user("ada", "customer").await;
    let nobody = shop.gateway.nobody().clone();
    shop.freeze_all_but_the_kitchen();
    let order = tokio::spawn(async move { place(&ada, "k", &dinner("card/visa")).await });
    wait_until("the order is begun", SOON, async || {
        shop.gateway.open_orders().await == 1
    })
    .await;
    shop.gateway.terminate();
    wait_until("no connection is accepted any more", SOON, async || {
        let response = nobody.try_ask("GET", "/livez", &[], &json!(null)).await;
        response.is_none()
    })
    .await;
    assert!(!order.is_finished(), "the stop did not wait for the order");
    shop.thaw_all_but_the_kitchen();
    let placed = order.await.unwrap().expect(201);
    assert_eq!(placed["status"], "confirmed");
    let _ = shop.gateway.has_stopped().await;
    shop.gateway.start_again().await;
    shop.all_is_consistent(1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_gateways_orders_are_abandoned_and_voided() {
    const ORDERS: usize = 10;
    // Time for all of them to be begun before the first is abandoned.
    let mut shop = Shop::open_with("begun", &["--order-timeout", "15s"]).await;
    let ada = Arc::new(shop.gateway.user("ada", "customer").await);
    // The payments role does not answer in time; it will hold the money after the caller has given up.
    shop.freeze_all_but_the_kitchen();
    let orders: Vec<_> = (0..ORDERS)
        .map(|n| {
            let ada = Arc::clone(&ada);
            let key = format!("begun-{n}");
            tokio::spawn(async move { place(&ada, &key, &dinner("card/visa")).await })
        })
        .collect();
    wait_until("all orders are begun", SOON, async || {
        shop.gateway.open_orders().await == ORDERS
    })
    .await;
    shop.gateway.kill();
    for order in orders {
        assert!(order.await.is_err(), "a killed gateway has answered");
    }
    shop.thaw_all_but_the_kitchen();
    shop.gateway.start_again().await;
    wait_until("no order is open", SOON, async || {
        shop.gateway.open_orders().await == 0
    })
    .await;
    let ada = shop.gateway.log_in("ada").await;
    for n in 0..ORDERS {
        let again = place(&ada, &format!("begun-{n}"), &dinner("card/visa")).await;
        again.is_problem(503, "order_abandoned");
    }
    shop.all_is_consistent(ORDERS).await;
    let orders = shop.entities("orders").await;
    assert!(
        orders.values().all(|o| o["status"] == "abandoned"),
        "{orders:?}"
    );
}
