//! Orders: placed, rejected, cancelled, repeated, and hidden from other users.

use std::sync::Arc;

use doorstep_tests::{never_closed, wait_for};
use serde_json::{Value, json};

use crate::{
    SOON,
    gateway::ROOT,
    shop::{Shop, dinner, place, placed},
};

#[tokio::test(flavor = "multi_thread")]
async fn a_confirmed_order_is_cancelled_once() {
    let shop = Shop::open("order").await;
    let ada = shop.gateway.user("ada", "customer").await;
    let response = place(&ada, "dinner-1", &dinner("card/visa")).await;
    let order = response.expect(201);
    assert_eq!(order["status"], "confirmed");
    assert_eq!(order["total"], "19.00");
    let number = order["order"].as_str().unwrap().to_owned();
    let path = format!("/v1/orders/{number}");
    assert_eq!(response.header("location"), Some(path.as_str()));

    // A repetition gets the same answer and orders nothing.
    let again = place(&ada, "dinner-1", &dinner("card/visa")).await;
    assert_eq!((again.status, &again.text), (201, &response.text));
    let other = place(&ada, "dinner-1", &dinner("card/amex")).await;
    other.is_problem(422, "idempotency_key_reused");

    shop.payment_becomes(&ada, &number, "captured").await;
    let seen = ada.get(&path).await.expect(200);
    assert_eq!(seen["status"], "confirmed");
    let what: Vec<&Value> = seen["history"]
        .as_array()
        .unwrap()
        .iter()
        .map(|h| &h["what"])
        .collect();
    for expected in [
        "placed",
        "confirmed",
        "payment_authorized",
        "payment_captured",
    ] {
        assert!(what.contains(&&json!(expected)), "{expected} in {what:?}");
    }
    shop.all_is_consistent(1).await;
    let stock = &shop.entities("inventory").await["stock/MARGHERITA"];
    assert_eq!((&stock["on_hand"], &stock["sold"]), (&json!(-2), &json!(2)));
    assert_eq!(shop.entities("orders").await.len(), 1);

    let cancel = format!("{path}/cancellation");
    let reason = json!({"reason": "not hungry any more"});
    for _ in 0..2 {
        let cancelled = ada.post(&cancel, &reason).await.expect(200);
        assert_eq!(cancelled["status"], "cancelled");
    }
    shop.payment_becomes(&ada, &number, "refunded").await;
    wait_for("the stock is back", SOON, async || {
        let stock = shop.entities("inventory").await["stock/MARGHERITA"].clone();
        if stock["on_hand"] == 0 {
            Ok(())
        } else {
            Err(stock)
        }
    })
    .await;
    // The answer to the key does not change either.
    let again = place(&ada, "dinner-1", &dinner("card/visa")).await;
    assert_eq!((again.status, &again.text), (201, &response.text));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rejected_order_leaves_nothing_reserved_or_charged() {
    let shop = Shop::open("refused").await;
    let ada = shop.gateway.user("ada", "customer").await;
    let declined = place(&ada, "a", &dinner("card/declined")).await;
    declined.is_problem(402, "card_declined");
    let again = place(&ada, "a", &dinner("card/declined")).await;
    assert_eq!(again.text, declined.text);
    place(&ada, "b", &dinner("card/insufficient_funds"))
        .await
        .is_problem(402, "insufficient_funds");

    // Money is held already when the kitchen rejects the order.
    shop.configure(2).await;
    place(&ada, "c", &dinner("card/visa"))
        .await
        .is_problem(409, "at_capacity");
    shop.all_is_consistent(3).await;
    let orders = shop.entities("orders").await;
    assert_eq!(orders.len(), 3);
    assert!(
        orders.values().all(|o| o["status"] == "refused"),
        "{orders:?}"
    );
    let payments = shop.entities("payments").await;
    assert!(
        payments
            .values()
            .all(|p| p["payment"]["status"] != "captured"),
        "{payments:?}"
    );
    let stock = shop.entities("inventory").await;
    assert!(stock.values().all(|s| s["sold"] == 0), "{stock:?}");

    // An invalid order is not begun.
    let wrong =
        |lines: Value| json!({"restaurant": "luigi", "method": "card/visa", "lines": lines});
    let line = |sku: &str, quantity: Value| json!([{"sku": sku, "quantity": quantity}]);
    for (order, status, code) in [
        (wrong(line("CAVIAR", json!(1))), 422, "unknown_sku"),
        (wrong(line("TIRAMISU", json!(0))), 422, "invalid_quantity"),
        (wrong(line("TIRAMISU", json!(-1))), 422, "invalid_quantity"),
        (
            wrong(line("TIRAMISU", json!(1001))),
            422,
            "invalid_quantity",
        ),
        (wrong(line("TIRAMISU", json!(9.9e99))), 422, "invalid"),
        (wrong(line("TRUFFLES", json!(2))), 422, "invalid_amount"),
        (dinner("bitcoin"), 422, "invalid"),
        (dinner("card/"), 422, "invalid"),
        (wrong(json!([])), 422, "invalid"),
        (
            json!({"restaurant": "nobody", "method": "card/visa", "lines": line("X", json!(1))}),
            404,
            "unknown_restaurant",
        ),
    ] {
        place(&ada, "d", &order).await.is_problem(status, code);
    }
    let keyless = ada.post("/v1/orders", &dinner("card/visa")).await;
    keyless.is_problem(400, "idempotency_key_missing");
    place(&ada, "no key", &dinner("card/visa"))
        .await
        .is_problem(400, "malformed");
    assert_eq!(shop.entities("orders").await.len(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_menu_item_can_be_ordered() {
    let shop = Shop::open("names").await;
    let root = shop.gateway.log_in(ROOT).await;
    let ada = shop.gateway.user("ada", "customer").await;
    // The longest names, of the characters with the most bytes.
    let longest = "\u{1f355}".repeat(50);
    let in_path = "%F0%9F%8D%95".repeat(50);
    let menu = |sku: &str, price: &str| {
        json!({
            "name": longest, "time_zone": "UTC", "opening_hours": never_closed(), "capacity": 10,
            "minutes_to_prepare": 1, "menu": [{"sku": sku, "name": longest, "price": price}],
        })
    };
    let put = async |path: &str, menu: Value| {
        let path = format!("/v1/restaurants/{path}");
        root.request("PUT", &path, &[], Some(&menu)).await
    };
    let _ = put(&in_path, menu(&longest, "0.01")).await.expect(204);
    let order = json!({
        "restaurant": longest, "method": format!("card/{}", "x".repeat(45)), "country": longest,
        "lines": [{"sku": longest, "quantity": 1}],
    });
    let placed = place(&ada, "k", &order).await.expect(201);
    assert_eq!(placed["restaurant"], longest);

    // An item that could never be ordered cannot be configured.
    let too_long = "x".repeat(51);
    for (path, sku, price) in [
        (too_long.as_str(), "X", "1"),
        ("luigi", too_long.as_str(), "1"),
        ("luigi", "X", "0"),
        ("luigi", "X", "-1"),
        ("luigi", "X", "1234567890"),
        ("luigi", "X", "1.0000000001"),
    ] {
        let rejected = put(path, menu(sku, price)).await;
        rejected.is_problem(422, "invalid");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn users_see_only_their_own_orders() {
    let shop = Shop::open("theirs").await;
    let ada = shop.gateway.user("ada", "customer").await;
    let eve = shop.gateway.user("eve", "customer").await;
    let bea = shop.gateway.user("bea", "courier").await;
    let carl = shop.gateway.user("carl", "courier").await;
    let luigi = shop.gateway.user("mario", "restaurant").await;
    let number = placed(&ada, "k").await;
    let path = format!("/v1/orders/{number}");
    let reason = json!({"reason": "because"});
    for stranger in [&eve, &bea] {
        stranger.get(&path).await.is_problem(404, "not_found");
        stranger
            .get(&format!("{path}/feed"))
            .await
            .is_problem(404, "not_found");
        let cancelled = stranger
            .post(&format!("{path}/cancellation"), &reason)
            .await;
        cancelled.is_problem(404, "not_found");
        let delivery = stranger.get(&format!("/v1/deliveries/{number}")).await;
        delivery.is_problem(404, "not_found");
    }
    eve.get("/v1/orders/unheard-of")
        .await
        .is_problem(404, "not_found");
    let root = shop.gateway.log_in(ROOT).await;
    for path in ["/v1/orders/unheard-of", "/v1/orders/unheard-of/feed"] {
        root.get(path).await.is_problem(404, "not_found");
    }
    for friend in [&luigi, &root] {
        assert_eq!(friend.get(&path).await.expect(200)["customer"], "ada");
    }

    // The assigned courier sees the order, and no other courier does.
    let assign = format!("/v1/deliveries/{number}/assignment");
    let nothing = json!({});
    let _ = bea.post(&assign, &nothing).await.expect(204);
    let _ = bea.get(&path).await.expect(200);
    // The answer for a hidden order does not reveal if it exists.
    let taken = carl.post(&assign, &nothing).await;
    taken.is_problem(404, "not_found");
    let unheard_of = carl
        .post("/v1/deliveries/unheard-of/assignment", &nothing)
        .await;
    assert_eq!(taken.text, unheard_of.text);
    let courier = json!({"courier": "carl"});
    for friend in [&luigi, &root] {
        friend
            .post(&assign, &courier)
            .await
            .is_problem(409, "assigned");
    }
    carl.get(&path).await.is_problem(404, "not_found");
    let pick_up = format!("/v1/deliveries/{number}/pick-up");
    carl.post(&pick_up, &nothing)
        .await
        .is_problem(404, "unknown_delivery");
    // Users who see the order but lack the role get 403; users who do not see it get 404.
    for friend in [&ada, &luigi, &root] {
        friend
            .post(&pick_up, &nothing)
            .await
            .is_problem(403, "forbidden");
    }
    ada.post(&assign, &courier)
        .await
        .is_problem(403, "forbidden");
    bea.post(&format!("{path}/cancellation"), &reason)
        .await
        .is_problem(403, "forbidden");
    for path in [&pick_up, &assign] {
        eve.post(path, &courier).await.is_problem(404, "not_found");
    }
    bea.post("/v1/orders", &dinner("card/visa"))
        .await
        .is_problem(403, "forbidden");

    let gino = json!({
        "name": "Da Gino", "time_zone": "UTC", "opening_hours": [], "capacity": 1,
        "minutes_to_prepare": 1, "menu": [],
    });
    let elsewhere = luigi.request("PUT", "/v1/restaurants/gino", &[], Some(&gino));
    elsewhere.await.is_problem(403, "forbidden");
}

#[tokio::test(flavor = "multi_thread")]
async fn concurrent_requests_of_one_key_order_once() {
    let shop = Shop::open("at-once").await;
    let ada = Arc::new(shop.gateway.user("ada", "customer").await);
    let tries: Vec<_> = (0..20)
        .map(|_| {
            let ada = Arc::clone(&ada);
            tokio::spawn(async move { place(&ada, "k", &dinner("card/visa")).await })
        })
        .collect();
    let mut numbers = Vec::new();
    for one in tries {
        let response = one.await.unwrap();
        match response.status {
            201 => numbers.push(response.json()["order"].clone()),
            _ => response.is_problem(409, "in_progress"),
        }
    }
    assert!(!numbers.is_empty());
    numbers.dedup();
    assert_eq!(numbers.len(), 1, "{numbers:?}");
    shop.all_is_consistent(1).await;
    assert_eq!(shop.entities("orders").await.len(), 1);
}
