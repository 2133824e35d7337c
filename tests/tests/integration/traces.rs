//! Spans as a collector receives them: named by the messaging conventions, linked from the producer through the broker
//! to the role.

use doorstep_tests::{Program, wait_for};
use opentelemetry_proto::tonic::trace::v1::{Span, span::SpanKind};

use crate::{
    SOON,
    collector::{Collector, attribute, has, hex},
    operator::Office,
};

/// The ids of a trace and a span.
type Ids = (Vec<u8>, Vec<u8>);

/// Returns the ids of the spans, sorted for comparison.
fn ids(spans: &[Span]) -> Vec<Ids> {
    sorted(
        spans
            .iter()
            .map(|s| (s.trace_id.clone(), s.span_id.clone())),
    )
}

/// Returns the ids of the linked spans, sorted for comparison.
fn linked(spans: &[Span]) -> Vec<Ids> {
    let links = spans.iter().flat_map(|s| &s.links);
    sorted(links.map(|l| (l.trace_id.clone(), l.span_id.clone())))
}

fn sorted(ids: impl Iterator<Item = Ids>) -> Vec<Ids> {
    let mut ids: Vec<_> = ids.collect();
    ids.sort();
    ids
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_trace_spans_producer_broker_and_role() {
    let office = Office::new("traces").await;
    let collector = Collector::default();
    let endpoint = collector.start().await;
    // The first one continues a trace of another program.
    let cause = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let lines: String = (1..=5)
        .map(|n| {
            let mut line = serde_json::json!({
                "specversion": "1.0", "id": n.to_string(), "source": "till/7", "type": "stock.adjusted.v1",
                "subject": "stock/85123A", "sequence": n,
                "data": {"delta": -1, "reason": "sale", "reference": "order/1"},
            });
            if n == 1 {
                line["traceparent"] = cause.into();
            }
            format!("{line}\n")
        })
        .collect();
    let published = Program::producer(&["publish"])
        .broker(&office.env.amqp_url())
        .variable("DOORSTEP_OTLP_ENDPOINT", endpoint.as_str())
        .variable("OTEL_EXPORTER_OTLP_HEADERS", "x-team=shop")
        .input(lines)
        .run(&office.scratch, SOON)
        .await;
    assert_eq!(published.code, Some(0), "{}", published.stderr);
    let worked = office
        .consumers(&["run", "inventory", "--exit-when-idle", "1s"])
        .variable("DOORSTEP_OTLP_ENDPOINT", endpoint.as_str())
        .run(&office.scratch, SOON)
        .await;
    assert_eq!(worked.code, Some(0), "{}", worked.stderr);

    // Both exported their last spans before they exited.
    let created = wait_for("every event has a span", SOON, async || {
        let spans = collector.spans("doorstep-producer", "create ");
        if spans.len() == 5 {
            Ok(spans)
        } else {
            Err(spans)
        }
    })
    .await;
    assert!(collector.teams().iter().all(|team| team == "shop"));
    assert!(!collector.teams().is_empty());
    continued_once(&created);
    let sent = collector.spans("doorstep-producer", "send ");
    assert_eq!(linked(&sent), ids(&created), "{sent:?}");
    named_by_the_conventions(&sent);
    let processed = collector.spans("doorstep-consumers", "process ");
    assert_eq!(linked(&processed), ids(&created), "{processed:?}");
    all_processed(&processed);
}

/// Every span is named by the conventions, and one continues the other program's trace.
fn continued_once(created: &[Span]) {
    for span in created {
        assert_eq!(span.name, "create stock.adjusted.v1");
        assert_eq!(span.kind, SpanKind::Producer as i32);
        has(
            span,
            &[
                ("messaging.system", "rabbitmq"),
                ("messaging.operation.name", "create"),
                ("messaging.operation.type", "create"),
                (
                    "messaging.rabbitmq.destination.routing_key",
                    "stock.adjusted.v1",
                ),
            ],
        );
    }
    let continued: Vec<&Span> = created
        .iter()
        .filter(|span| attribute(span, "messaging.message.id").as_deref() == Some("1"))
        .collect();
    assert_eq!(continued.len(), 1);
    assert_eq!(
        continued[0].trace_id,
        hex("0af7651916cd43dd8448eb211c80319c")
    );
    assert_eq!(continued[0].parent_span_id, hex("b7ad6b7169203331"));
}

fn named_by_the_conventions(sent: &[Span]) {
    for span in sent {
        assert_eq!(span.name, "send doorstep.events");
        assert_eq!(span.kind, SpanKind::Client as i32);
        has(
            span,
            &[
                ("messaging.operation.type", "send"),
                ("messaging.destination.name", "doorstep.events"),
            ],
        );
    }
}

/// Every span is named by the conventions, and together they have all messages.
fn all_processed(processed: &[Span]) {
    let mut messages = 0;
    for span in processed {
        assert_eq!(span.name, "process doorstep.inventory.0");
        assert_eq!(span.kind, SpanKind::Consumer as i32);
        has(
            span,
            &[
                ("messaging.system", "rabbitmq"),
                ("messaging.operation.name", "process"),
                ("messaging.operation.type", "process"),
                ("messaging.destination.name", "doorstep.inventory.0"),
            ],
        );
        let count = attribute(span, "messaging.batch.message_count");
        messages += count.map_or(1, |count| count.parse().unwrap());
    }
    assert_eq!(messages, 5);
}
