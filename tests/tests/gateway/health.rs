//! The gateway's own endpoints: the public ones where it listens, and those for operators on a separate address.

use doorstep_broker::{NodeOptions, PrivateNode};
use doorstep_tests::{Client, HttpResponse, wait_for, wait_until};
use tokio::task::{block_in_place, spawn_blocking};

use crate::{
    SOON,
    shop::{Shop, dinner, place, placed, placed_at_last},
};

/// The value of a metric with all of these labels, in the text form of Prometheus.
fn value(metrics: &HttpResponse, name: &str, labels: &[&str]) -> Option<f64> {
    let lines = metrics.text.lines();
    let mut those = lines.filter(|line| line.starts_with(&format!("{name}{{")));
    let line = those.find(|line| labels.iter().all(|label| line.contains(label)))?;
    line.rsplit_once(' ')?.1.parse().ok()
}

#[tokio::test(flavor = "multi_thread")]
async fn metrics_cover_connections_outbox_and_rpc() {
    let node = spawn_blocking(|| PrivateNode::start(NodeOptions::named("gateway-health")));
    let node = node.await.unwrap().unwrap();
    let vhost = block_in_place(|| node.broker().new_vhost("health")).unwrap();
    let arguments = ["--health-addr", "127.0.0.1:0"];
    let shop = Shop::on("health", &vhost.amqp_url(), &arguments).await;
    let operator = Client::new(shop.gateway.health_address().await);
    let ada = shop.gateway.user("ada", "customer").await;
    let _ = placed(&ada, "before").await;

    wait_until("it is ready", SOON, async || {
        let ready = operator.get("/readyz").await;
        ready.status == 200 && ready.expect(200)["roles"][0]["status"] == "ready"
    })
    .await;
    assert_eq!(operator.get("/livez").await.expect(200)["alive"], true);
    assert_eq!(
        shop.gateway.nobody().get("/readyz").await.expect(200)["status"],
        "ready"
    );
    // One request each for the price, the payment and the kitchen.
    let metrics = operator.get("/metrics").await;
    let gateway = r#"role="gateway""#;
    let answered = [gateway, r#"outcome="answered""#];
    assert!(value(&metrics, "doorstep_rpc_client_requests_total", &answered) >= Some(3.0));
    let executed = value(&metrics, "doorstep_commands_executed_total", &[gateway]);
    assert!(executed >= Some(2.0), "{executed:?}");
    for link in [r#"connection="publish""#, r#"connection="rpc_client""#] {
        assert_eq!(
            value(&metrics, "doorstep_connection_up", &[gateway, link]),
            Some(1.0)
        );
    }
    assert_eq!(
        shop.gateway.nobody().get("/metrics").await.status,
        404,
        "not everybody's business"
    );

    block_in_place(|| node.block_publishers()).unwrap();
    let rejected = place(&ada, "meanwhile", &dinner("card/visa")).await;
    assert_eq!(rejected.status, 503, "{}", rejected.text);
    wait_for("the public endpoint shows it", SOON, async || {
        let ready = shop.gateway.nobody().get("/readyz").await.expect(200);
        let is_reported = ready["reasons"][0]["message"] == "the broker takes nothing for now";
        is_reported.then_some(()).ok_or(ready)
    })
    .await;
    let blocked = [gateway, r#"connection="rpc_client""#];
    wait_for("the metric says so", SOON, async || {
        match value(
            &operator.get("/metrics").await,
            "doorstep_connection_blocked",
            &blocked,
        ) {
            Some(1.0) => Ok(()),
            other => Err(other),
        }
    })
    .await;

    wait_for(
        "the operators' endpoint shows the reason",
        SOON,
        async || {
            let ready = operator.get("/readyz").await.expect(200);
            let reasons = ready["reasons"].to_string();
            let is_reported =
                ready["status"] == "degraded" && reasons.contains("no requests to others");
            is_reported.then_some(()).ok_or(ready)
        },
    )
    .await;

    block_in_place(|| node.unblock_publishers()).unwrap();
    let _ = placed_at_last(&ada, "after", SOON).await;
    wait_until("it is ready again", SOON, async || {
        let ready = operator.get("/readyz").await;
        ready.status == 200 && ready.expect(200)["status"] == "ready"
    })
    .await;
}
