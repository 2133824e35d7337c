//! Spans of requests, as a collector receives them: from the gateway through the broker to the serving role.

use doorstep_tests::{Program, TempDir, TestEnv, wait_for};
use opentelemetry_proto::tonic::trace::v1::{Span, span::SpanKind};
use serde_json::json;

use crate::{
    SOON,
    collector::{Collector, attribute, has},
    gateway::{Gateway, ROOT},
};

/// The gateway's request to open a restaurant.
const CONFIGURE: &str = "restaurant.configure.v1";

#[tokio::test(flavor = "multi_thread")]
async fn a_trace_spans_gateway_broker_and_role() {
    let env = TestEnv::new("ask-traces", &[]).await;
    let scratch = TempDir::new("ask-traces");
    let collector = Collector::default();
    let endpoint = collector.start().await;
    let amqp_url = env.amqp_url();
    let _kitchen = Program::consumers(&["run", "restaurant"])
        .broker(&amqp_url)
        .store(&scratch.join("roles"))
        .variable("DOORSTEP_OTLP_ENDPOINT", endpoint.as_str())
        .start(&scratch);
    let arguments = ["--otlp-endpoint", endpoint.as_str()];
    let gateway = Gateway::start_with("ask-traces", &amqp_url, &arguments).await;
    let root = gateway.log_in(ROOT).await;
    let restaurant = json!({
        "name": "Da Luigi", "time_zone": "Europe/Rome", "capacity": 5, "minutes_to_prepare": 20,
        "opening_hours": [{"day": "monday", "opens": "10:00", "closes": "22:00"}],
        "menu": [{"sku": "MARGHERITA", "name": "Pizza Margherita", "price": "7.50"}],
    });
    let path = "/v1/restaurants/luigi";
    wait_for("the restaurant is configured", SOON, async || {
        match root.request("PUT", path, &[], Some(&restaurant)).await {
            response if response.status == 204 => Ok(()),
            response => Err(response.text),
        }
    })
    .await;

    // An attempt without a server has no reply span; the served one has.
    let (asked, answered) = wait_for("both have handed over their spans", SOON, async || {
        let asked = collector.spans("doorstep-gateway", &format!("ask {CONFIGURE}"));
        let answered = collector.spans("doorstep-consumers", &format!("answer {CONFIGURE}"));
        let pair = answered.iter().find_map(|response| {
            let asks = |ask: &&Span| {
                ask.span_id == response.parent_span_id && attribute(ask, "error.type").is_none()
            };
            let ask = asked.iter().find(asks)?;
            Some((ask.clone(), response.clone()))
        });
        pair.ok_or((asked, answered))
    })
    .await;
    assert_eq!(asked.trace_id, answered.trace_id);
    assert_eq!(asked.kind, SpanKind::Client as i32);
    assert_eq!(answered.kind, SpanKind::Server as i32);
    for (span, operation) in [(&asked, "ask"), (&answered, "answer")] {
        has(
            span,
            &[
                ("messaging.operation.name", operation),
                ("rpc.system", "doorstep"),
                ("rpc.method", CONFIGURE),
            ],
        );
        assert_eq!(attribute(span, "error.type"), None, "{span:?}");
    }
    let id = |span: &Span| attribute(span, "messaging.message.id");
    assert!(id(&asked).is_some());
    assert_eq!(id(&asked), id(&answered));
    // The server's span ends within the client's.
    assert!(asked.start_time_unix_nano <= answered.start_time_unix_nano);
}
