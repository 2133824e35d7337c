//! Couriers' positions: accepted once they are durable, even while no role is running.

use std::time::Duration;

use doorstep_event::Timestamp;
use doorstep_tests::wait_for;
use serde_json::{Value, json};

use crate::{
    SOON,
    shop::{Shop, placed},
};

fn fix(order: &str, longitude: f64, latitude: f64, at: &str) -> Value {
    json!({"order": order, "longitude": longitude, "latitude": latitude, "recorded_at": at})
}

#[tokio::test(flavor = "multi_thread")]
async fn an_invalid_position_rejects_its_batch() {
    let shop = Shop::open("positions").await;
    let ada = shop.gateway.user("ada", "customer").await;
    let bea = shop.gateway.user("bea", "courier").await;
    let number = placed(&ada, "k").await;
    let early = "2025-11-24T12:00:00Z";
    let send = async |fixes: Value| {
        bea.post("/v1/positions", &json!({"positions": fixes}))
            .await
    };
    send(json!([fix(&number, 9.19, 45.46, early)]))
        .await
        .is_problem(404, "unknown_delivery");

    let delivery = format!("/v1/deliveries/{number}");
    let nothing = json!({});
    let _ = bea
        .post(&format!("{delivery}/assignment"), &nothing)
        .await
        .expect(204);
    for (bad, code) in [
        (fix(&number, 181.0, 45.0, early), "outside_the_world"),
        (fix(&number, 9.0, -90.1, early), "outside_the_world"),
        (
            fix(&number, 9.0, 45.0, "2199-01-01T00:00:00Z"),
            "in_the_future",
        ),
        (fix(&number, 9.0, 45.0, "yesterday"), "invalid"),
    ] {
        let response = send(json!([fix(&number, 9.19, 45.46, early), bad])).await;
        response.is_problem(422, code);
    }
    send(json!([])).await.is_problem(422, "invalid");
    ada.post(
        "/v1/positions",
        &json!({"positions": [fix(&number, 9.0, 45.0, early)]}),
    )
    .await
    .is_problem(403, "forbidden");

    // A batch with a key counts once, and the key belongs to that batch alone.
    let key = [("Idempotency-Key", "batch-1")];
    let at = |minutes: u64| {
        let past = Duration::from_secs(minutes * 60);
        Timestamp::now().checked_sub(past).unwrap().to_string()
    };
    let batch =
        json!({"positions": [fix(&number, 9.19, 45.46, &at(2)), fix(&number, 9.2, 45.47, &at(1))]});
    for _ in 0..3 {
        let response = bea
            .request("POST", "/v1/positions", &key, Some(&batch))
            .await;
        assert_eq!(response.expect(202)["accepted"], 2);
    }
    let other = json!({"positions": [fix(&number, 0.0, 0.0, &at(0))]});
    bea.request("POST", "/v1/positions", &key, Some(&other))
        .await
        .is_problem(422, "id_reused");
    // A batch this old could be a repetition: its key would have been pruned by now.
    let old = json!({"positions": [fix(&number, 9.19, 45.46, &at(1)), fix(&number, 9.2, 45.47, &at(25 * 60))]});
    let key = [("Idempotency-Key", "batch-2")];
    bea.request("POST", "/v1/positions", &key, Some(&old))
        .await
        .is_problem(422, "too_old");

    let _ = bea
        .post(&format!("{delivery}/pick-up"), &nothing)
        .await
        .expect(204);
    wait_for("the customer sees the courier", SOON, async || {
        let seen = ada.get(&delivery).await;
        if seen.status == 200 && seen.json()["status"] == "picked_up" {
            Ok(())
        } else {
            Err(seen.text)
        }
    })
    .await;
    let seen = ada.get(&delivery).await.expect(200);
    assert_eq!(seen["position"]["longitude"], 9.2);
    let path = format!("/v1/orders/{number}/cancellation");
    let late = json!({"reason": "late"});
    let cancel = ada.post(&path, &late);
    cancel.await.is_problem(409, "picked_up");
    let _ = bea
        .post(&format!("{delivery}/hand-over"), &nothing)
        .await
        .expect(204);
    let tracked = shop.entities("tracking").await;
    assert_eq!(tracked[&format!("delivery/{number}")]["fixes"], 2);
}
