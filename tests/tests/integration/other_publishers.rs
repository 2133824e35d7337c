//! Messages of programs in other languages: every form that the wire format permits is applied, contradictions are
//! rejected with their values, and no two messages are mistaken for one.

use doorstep_messaging::QueueName;
use doorstep_store::{DeadLetter, EntityKey, Store};
use doorstep_tests::{
    LEDGER, TestChannel, TestEnv,
    ledger::{Ledger, Move},
};
use lapin::{
    BasicProperties,
    types::{AMQPValue, ByteArray, DecimalValue, FieldTable, LongString},
};

use crate::{
    SOON,
    roles::{dead_letters, entries_are, summary},
    stores::for_each_store,
};

const KIND: &str = "account.moved.v1";
const STRUCTURED: &str = "application/cloudevents+json";

/// Sends messages to a role as another program would.
struct Program {
    channel: TestChannel,
    exchange: String,
}

impl Program {
    async fn connect(env: &TestEnv) -> Self {
        Self {
            channel: env.channel().await,
            exchange: env.namespace().events_exchange(),
        }
    }

    async fn send(&self, properties: BasicProperties, body: &[u8]) {
        self.channel
            .publish(&self.exchange, KIND, properties, body)
            .await;
    }

    async fn send_structured(&self, body: &str) {
        let properties = BasicProperties::default().with_content_type(STRUCTURED.into());
        self.send(properties, body.as_bytes()).await;
    }
}

for_each_store! {
    async fn structured_mode_equals_binary_mode(storage) {
        let env = TestEnv::new("structured", &[LEDGER]).await;
        let store = storage.open();
        let role = env.start(Ledger, storage.open());
        let program = Program::connect(&env).await;
        let data = serde_json::to_string(&Move::Add(1)).unwrap();
        let event = |n: u64, more: &str| {
            format!(
                r#"{{"specversion":"1.0","id":"s-{n}","source":"till","type":"{KIND}","subject":"account/a","color":"red"{more}}}"#
            )
        };
        for (content_type, body) in [
            (STRUCTURED, event(1, &format!(r#","sequence":"1","data":{data}"#))),
            (
                "Application/CloudEvents+JSON; charset=\"UTF-8\"",
                event(2, &format!(r#","sequence":2,"datacontenttype":"application/json","data":{data}"#)),
            ),
            (
                "application/cloudevents+json;charset=utf-8",
                event(
                    3,
                    r#","sequence":"00000000000000000003","time":"2026-11-30t03:00:00.123456789012z","data_base64":"eyJBZGQiOjF9""#,
                ),
            ),
        ] {
            let properties = BasicProperties::default().with_content_type(content_type.into());
            program.send(properties, body.as_bytes()).await;
        }
        // In both modes at once, without contradiction; the id and the type as properties.
        let mut headers = FieldTable::default();
        for (name, value) in [
            ("cloudEvents_subject", text("account/a")),
            ("cloudEvents:sequence", AMQPValue::LongInt(4)),
        ] {
            headers.insert(name.into(), value);
        }
        let properties = BasicProperties::default()
            .with_content_type(STRUCTURED.into())
            .with_message_id("another-name-of-the-message".into())
            .with_type("com.example.Moved".into())
            .with_headers(headers);
        program
            .send(properties, event(4, &format!(r#","sequence":"4","data":{data}"#)).as_bytes())
            .await;
        entries_are(&store, "account/a", &["till 1", "till 2", "till 3", "till 4"]).await;
        let state = store.read_entities(vec![EntityKey::new("account/a")]).await.unwrap();
        let state: serde_json::Value =
            serde_json::from_slice(state[0].state.as_ref().unwrap()).unwrap();
        assert_eq!(state["balance"], 4, "{state}");
        assert_eq!(summary(&store).await.usage.dead_letters.rows, 0);
        role.stop().await.unwrap();
    }
}

for_each_store! {
    async fn structured_mode_errors_name_the_cause(storage) {
        let env = TestEnv::new("structured", &[LEDGER]).await;
        let store = storage.open();
        let role = env.start(Ledger, storage.open());
        let program = Program::connect(&env).await;
        let event = |n: usize, more: &str| {
            format!(
                r#"{{"specversion":"1.0","id":"{n}","source":"till","type":"{KIND}","subject":"account/{n}"{more}}}"#
            )
        };
        let says = [
            (r#","sequence":1.0,"data":{"Add":1}"#, "sequence is a number with a fraction or an exponent (\"1.0\")"),
            (r#","sequence":"1","sequence":"2","data":{"Add":1}"#, "sequence is both \"1\" and \"2\""),
            (r#","sequence":"1","id":"other","data":{"Add":1}"#, "and \"other\""),
            (r#","sequence":"1","type":"account.closed.v1","data":{"Add":1}"#, "type is both \"account.moved.v1\" and \"account.closed.v1\""),
            (r#","sequence":"1","data":{"Add":1},"data":{"Add":2}"#, "two values of data"),
            (r#","sequence":"1","data":{"Add":1},"data_base64":"e30=""#, "both data and data_base64"),
            (r#","sequence":"1","datacontenttype":"application/xml","data":"<a/>""#, "application/xml"),
            (r#","sequence":"1","time":"noon","data":{"Add":1}"#, "time \"noon\""),
            (r#","sequence":"1","data":{"Add":"#, "not a CloudEvents object in JSON"),
        ];
        for (n, (more, _)) in says.iter().enumerate() {
            program.send_structured(&event(n, more)).await;
        }
        let batch = format!("[{}]", event(99, r#","sequence":"1","data":{"Add":1}"#));
        let properties = BasicProperties::default()
            .with_content_type("application/cloudevents-batch+json; charset=utf-8".into());
        program.send(properties, batch.as_bytes()).await;
        let dead = dead_letters(&store, says.len() + 1).await;
        for says in says.into_iter().map(|(_, says)| says).chain(["send each event in its own message"]) {
            assert_eq!(saying(&dead, says), 1, "{says}: {dead:#?}");
        }
        assert!(dead.iter().any(|dead| dead.event.is_none() && dead.body == batch));
        role.stop().await.unwrap();
    }
}

for_each_store! {
    async fn a_contradiction_is_rejected_with_both_values(storage) {
        let env = TestEnv::new("contradictions", &[LEDGER]).await;
        let store = storage.open();
        let role = env.start(Ledger, storage.open());
        let program = Program::connect(&env).await;
        let others = [
            ("cloudEvents_id", text("another"), "id is both \"till#0\" and \"another\""),
            ("cloudEvents_source", text("shop"), "source is both \"till\" and \"shop\""),
            ("cloudEvents_subject", text("account/z"), "subject is both \"account/2\" and \"account/z\""),
            ("cloudEvents_sequence", AMQPValue::LongInt(2), "sequence is both \"1\" and \"2\""),
            ("cloudEvents_time", text("2026-11-30T04:00:00Z"), "time is both"),
            ("cloudEvents_type", text("account.closed.v1"), "type is both"),
        ];
        for (n, (name, value, _)) in others.iter().enumerate() {
            let headers = attributes(n, &[(*name, value.clone())]);
            let properties = BasicProperties::default().with_headers(headers);
            program.send(properties, &add(1)).await;
        }
        let properties = BasicProperties::default()
            .with_type("account.closed.v1".into())
            .with_headers(attributes(6, &[]));
        program.send(properties, &add(1)).await;
        // The same under both prefixes, and properties that are no attributes.
        let headers = attributes(
            7,
            &[
                ("cloudEvents_id", text("till#7")),
                ("cloudEvents_sequence", AMQPValue::ShortShortUInt(1)),
                ("cloudEvents_time", text("2026-11-30T04:00:00+01:00")),
            ],
        );
        let properties = BasicProperties::default()
            .with_message_id("b0e7a3".into())
            .with_type("com.example.Moved".into())
            .with_headers(headers);
        program.send(properties, &add(1)).await;
        entries_are(&store, "account/7", &["till 1"]).await;
        let dead = dead_letters(&store, others.len() + 1).await;
        for (_, _, says) in others {
            assert!(saying(&dead, says) >= 1, "{says}: {dead:#?}");
        }
        assert_eq!(saying(&dead, "type is both \"account.moved.v1\" and \"account.closed.v1\""), 2);
        role.stop().await.unwrap();
    }
}

for_each_store! {
    async fn a_header_of_another_type_is_rejected(storage) {
        let env = TestEnv::new("types", &[LEDGER]).await;
        let store = storage.open();
        let role = env.start(Ledger, storage.open());
        let program = Program::connect(&env).await;
        let bad = [
            ("sequence", AMQPValue::Double(1.0), "sequence is a double (1.0), not a whole number or text"),
            ("sequence", AMQPValue::Float(1.0), "sequence is a float (1.0)"),
            ("sequence", AMQPValue::DecimalValue(DecimalValue { scale: 0, value: 1 }), "sequence is a decimal"),
            ("sequence", AMQPValue::Boolean(true), "sequence is a boolean (true)"),
            ("sequence", AMQPValue::ByteArray(ByteArray::from(b"1".to_vec())), "sequence is 1 raw bytes"),
            ("sequence", AMQPValue::FieldTable(FieldTable::default()), "sequence is a table"),
            ("sequence", AMQPValue::LongLongInt(-1), "sequence \"-1\" is not a whole number from 1"),
            ("time", AMQPValue::Double(1.5), "time is a double (1.5), not a timestamp or text"),
            ("time", AMQPValue::Timestamp((-1_i64).cast_unsigned()), "a timestamp before 1970 (-1)"),
            ("time", AMQPValue::LongLongInt(1_700_000_000), "time \"1700000000\" is not an RFC 3339 time"),
            ("id", AMQPValue::LongString(LongString::from(vec![0xe9])), "id is text that is not UTF-8"),
        ];
        for (n, (name, value, _)) in bad.iter().enumerate() {
            let headers = attributes(n, &[(&format!("cloudEvents:{name}"), value.clone())]);
            let properties = BasicProperties::default().with_headers(headers);
            program.send(properties, &add(1)).await;
        }
        let compressed = BasicProperties::default()
            .with_content_encoding("gzip".into())
            .with_headers(attributes(20, &[]));
        program.send(compressed, &add(1)).await;
        let dead = dead_letters(&store, bad.len() + 1).await;
        for says in bad.into_iter().map(|(_, _, says)| says).chain(["content encoding \"gzip\" is not supported"]) {
            assert_eq!(saying(&dead, says), 1, "{says}: {dead:#?}");
        }
        assert!(dead.iter().all(|dead| !dead.detail.contains("missing")), "{dead:#?}");
        role.stop().await.unwrap();
    }
}

for_each_store! {
    async fn times_of_any_precision_and_unit_are_decoded(storage) {
        let env = TestEnv::new("times", &[LEDGER]).await;
        let store = storage.open();
        let role = env.start(Ledger, storage.open());
        let program = Program::connect(&env).await;
        let now = doorstep_event::Timestamp::now();
        let times = [
            text(&format!("{}.123456789012Z", now.strftime("%Y-%m-%dT%H:%M:%S"))),
            text(&now.strftime("%Y-%m-%dt%H:%M:%Sz").to_string()),
            AMQPValue::Timestamp(now.as_second().cast_unsigned()),
            AMQPValue::Timestamp(now.as_millisecond().cast_unsigned()),
            AMQPValue::Timestamp(now.as_microsecond().cast_unsigned()),
        ];
        // Without a sequence, a missing time or one far from today is rejected.
        for (n, time) in times.iter().enumerate() {
            let mut headers = attributes(n, &[("cloudEvents:time", time.clone())]);
            headers.insert("cloudEvents:sequence".into(), AMQPValue::Void);
            program.send(BasicProperties::default().with_headers(headers), &add(1)).await;
        }
        for n in 0..times.len() {
            entries_are(&store, &format!("account/{n}"), &["till 0"]).await;
        }
        assert_eq!(summary(&store).await.usage.dead_letters.rows, 0);
        role.stop().await.unwrap();
    }
}

for_each_store! {
    async fn equal_bodies_are_separate_dead_letters(storage) {
        let env = TestEnv::new("same_bodies", &[LEDGER]).await;
        let store = storage.open();
        let program = Program::connect(&env).await;
        let namespace = env.namespace();
        let (queue, net) = (namespace.role_queue("ledger", 0), namespace.quarantine_queue("ledger"));
        let properties = |n: usize| {
            let headers = attributes(n, &[("cloudEvents:sequence", AMQPValue::Double(1.0))]);
            BasicProperties::default().with_headers(headers)
        };
        // One through the quarantine, and again through the queue: it is the same message.
        program.send(properties(1), &add(1)).await;
        program.channel.give_back_until_given_up(queue.as_str(), net.as_str(), SOON).await;
        for n in [1, 1, 2, 3, 4, 5, 2, 3, 4, 5] {
            program.send(properties(n), &add(1)).await;
        }
        let role = env.start(Ledger, storage.open());
        dead_letters(&store, 5).await;
        env.depth_is(&queue, 0, 1, SOON).await;
        drained(&env, &net).await;
        role.stop().await.unwrap();
        let dead = dead_letters(&store, 5).await;
        for n in 1..=5 {
            assert_eq!(saying(&dead, &format!("\"account/{n}\"")), 1, "{dead:#?}");
        }
        assert_eq!(summary(&store).await.tally.duplicates, 6);
    }
}

async fn drained(env: &TestEnv, queue: &QueueName) {
    env.depth_is(queue, 0, 1, SOON).await;
}

fn saying(dead: &[DeadLetter], says: &str) -> usize {
    dead.iter()
        .filter(|dead| dead.detail.contains(says))
        .count()
}

fn add(amount: i64) -> Vec<u8> {
    serde_json::to_vec(&Move::Add(amount)).unwrap()
}

/// Returns the headers of an event on account `n`, with others added or replaced.
fn attributes(n: usize, other: &[(&str, AMQPValue)]) -> FieldTable {
    let mut headers = FieldTable::default();
    for (name, value) in [
        ("cloudEvents:specversion", "1.0"),
        ("cloudEvents:id", &format!("till#{n}")),
        ("cloudEvents:source", "till"),
        ("cloudEvents:type", KIND),
        ("cloudEvents:subject", &format!("account/{n}")),
        ("cloudEvents:time", "2026-11-30T03:00:00Z"),
        ("cloudEvents:sequence", "1"),
    ] {
        headers.insert(name.into(), text(value));
    }
    for (name, value) in other {
        headers.insert((*name).into(), value.clone());
    }
    headers
}

fn text(value: &str) -> AMQPValue {
    AMQPValue::LongString(LongString::from(value))
}
