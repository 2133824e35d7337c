//! Messages that Doorstep never sends: each becomes a dead letter once, with its reason, and the others are applied.

use std::{collections::BTreeMap, time::Duration};

use doorstep_store::DeadLetter;
use doorstep_tests::{
    LEDGER, RoleProcess, Taken, TestChannel, TestEnv,
    ledger::{Ledger, Move, event},
    wait_until,
};
use lapin::{
    BasicProperties,
    types::{AMQPValue, ByteArray, DecimalValue, FieldArray, FieldTable, LongString},
};

use crate::{
    SOON,
    roles::{dead_letters, entries_are, summary},
    stores::for_each_store,
};

/// An invalid message and the expected dead letter.
struct InvalidMessage {
    headers: FieldTable,
    body: Vec<u8>,
    reason: &'static str,
    detail: &'static str,
    /// True if its stream and sequence are known.
    has_place: bool,
}

const MIB: usize = 1024 * 1024;

for_each_store! {
    async fn each_invalid_message_is_one_dead_letter(storage) {
        let env = TestEnv::new("bad", &[LEDGER]).await;
        let store = storage.open();
        let role = env.start(Ledger, storage.open());
        role.consuming(SOON).await;
        let channel = env.channel().await;
        let bad = bad_messages();
        for (n, bad) in (1..).zip(&bad) {
            // Twice, as after a crash: it is the same message, and one dead letter.
            send(&env, &channel, bad).await;
            send(&env, &channel, bad).await;
            env.publish(&[event("shop", "account/good", n, &Move::Add(1))]).await;
        }
        let all: Vec<_> = (1..=bad.len()).map(|n| format!("shop {n}")).collect();
        let all: Vec<_> = all.iter().map(String::as_str).collect();
        entries_are(&store, "account/good", &all).await;
        let dead = dead_letters(&store, bad.len()).await;
        wait_until("the second ones are recognised", SOON, async || {
            summary(&store).await.tally.duplicates == bad.len() as u64
        })
        .await;
        for bad in &bad {
            let letter = letter_of(&dead, bad);
            assert_eq!(letter.reason, bad.reason, "{}", letter.detail);
            assert_eq!(letter.event.is_some(), bad.has_place, "{}", letter.detail);
            assert_eq!(letter.blocks, bad.has_place, "{}", letter.detail);
        }

        // The queue of copies has each of them once, for other tools.
        let queue = env.namespace().dead_letter_queue("ledger");
        let copies = channel.take_many(queue.as_str(), bad.len(), SOON).await;
        role.stop().await.unwrap();
        assert!(channel.take(queue.as_str()).await.is_none());
        let copies: BTreeMap<String, Taken> = copies
            .into_iter()
            .map(|copy| (copy.properties.message_id().as_ref().unwrap().to_string(), copy))
            .collect();
        for bad in &bad {
            let letter = letter_of(&dead, bad);
            shows(&copies[&letter.id.0], letter, bad);
        }
        env.depth_is(&env.namespace().role_queue("ledger", 0), 0, 0, SOON).await;
    }
}

for_each_store! {
    async fn skipping_an_undecodable_message_unblocks_its_stream(storage) {
        let env = TestEnv::new("bad", &[LEDGER]).await;
        let store = storage.open();
        let role = env.start(Ledger, storage.open());
        role.consuming(SOON).await;
        let channel = env.channel().await;
        let early = event("shop", "account/a", 3, &Move::Add(1));
        let spoiled = InvalidMessage {
            headers: attributes("shop", "account/a", "2", &[("cloudEvents:specversion", text("2.0"))]),
            body: b"{}".to_vec(),
            reason: "unreadable",
            detail: "specversion",
            has_place: true,
        };
        // An early event: it is rejected only when it is next.
        send(&env, &channel, &spoiled).await;
        env.publish(&[early]).await;
        wait_until("both are deferred", SOON, async || summary(&store).await.usage.deferred.rows == 2).await;
        assert!(crate::roles::dead(&store).await.is_empty());
        env.publish(&[event("shop", "account/a", 1, &Move::Add(1))]).await;
        let dead = dead_letters(&store, 1).await;
        entries_are(&store, "account/a", &["shop 1"]).await;
        doorstep_runtime::operate::skip(&store, &dead[0].id, doorstep_event::Timestamp::now())
            .await
            .unwrap();
        entries_are(&store, "account/a", &["shop 1", "shop 3"]).await;
        role.stop().await.unwrap();
    }
}

for_each_store! {
    async fn headers_of_any_type_are_decoded(storage) {
        let env = TestEnv::new("bad", &[LEDGER]).await;
        let store = storage.open();
        let role = env.start(Ledger, storage.open());
        role.consuming(SOON).await;
        let channel = env.channel().await;
        let body = serde_json::to_vec(&Move::Add(5)).unwrap();
        let exchange = env.namespace().events_exchange();
        // With an underscore for the colon, a number for the sequence, and the id and type only as properties.
        let mut headers = FieldTable::default();
        for (name, value) in [
            ("cloudEvents_specversion", text("1.0")),
            ("cloudEvents_source", text("other")),
            ("cloudEvents_subject", text("account/a")),
            ("cloudEvents_sequence", AMQPValue::LongLongInt(1)),
            ("cloudEvents_time", AMQPValue::Timestamp(1_700_000_000)),
            ("x-something", AMQPValue::Void),
        ] {
            headers.insert(name.into(), value);
        }
        let properties = BasicProperties::default()
            .with_message_id("from-another-library".into())
            .with_type("account.moved.v1".into())
            .with_headers(headers);
        channel.publish(&exchange, "account.moved.v1", properties, &body).await;
        entries_are(&store, "account/a", &["other 1"]).await;
        assert!(crate::roles::dead(&store).await.is_empty());
        role.stop().await.unwrap();
    }
}

fn letter_of<'a>(dead: &'a [DeadLetter], bad: &InvalidMessage) -> &'a DeadLetter {
    let mut same = dead.iter().filter(|letter| letter.body == bad.body);
    let letter = same
        .next()
        .unwrap_or_else(|| panic!("no dead letter has the reason {}", bad.detail));
    assert!(
        same.next().is_none(),
        "two dead letters have the reason {}",
        bad.detail
    );
    assert!(
        letter.detail.contains(bad.detail),
        "{} in {}",
        bad.detail,
        letter.detail
    );
    letter
}

for_each_store! {
    async fn copies_expire_and_dead_letters_stay(storage) {
        let env = TestEnv::new("expiring", &[LEDGER]).await;
        let store = storage.open();
        let mut settings = env.run_settings();
        settings.limits.dead_letter_copy_ttl = Duration::from_secs(5);
        let role = RoleProcess::start(Ledger, storage.open(), settings);
        role.consuming(SOON).await;
        let channel = env.channel().await;
        let bad = bad_messages().remove(0);
        send(&env, &channel, &bad).await;
        let dead = dead_letters(&store, 1).await;
        // The role's outbox is empty, so the copy was published, and the broker drops it by itself.
        wait_until("the copy is confirmed", SOON, async || {
            summary(&store).await.usage.outbox.rows == 0
        })
        .await;
        let copies = env.namespace().dead_letter_queue("ledger");
        env.depth_is(&copies, 0, 0, SOON).await;
        assert_eq!(dead_letters(&store, 1).await[0].id, dead[0].id);
        role.stop().await.unwrap();
    }
}

/// Checks that a copy agrees with the dead letter.
fn shows(copy: &Taken, letter: &DeadLetter, bad: &InvalidMessage) {
    assert_eq!(copy.header("doorstep-role"), "ledger");
    assert_eq!(copy.header("doorstep-reason"), letter.reason);
    assert!(copy.header("doorstep-detail").contains(bad.detail));
    assert_eq!(
        copy.header("doorstep-attempts"),
        letter.attempts.to_string()
    );
    assert_eq!(copy.header("doorstep-fingerprint"), letter.fingerprint);
    let died_at = copy.header("doorstep-died-at");
    assert!(
        died_at.parse::<doorstep_event::Timestamp>().is_ok(),
        "{died_at}"
    );
    assert_eq!(copy.body, bad.body);
    assert_eq!(*copy.properties.delivery_mode(), Some(2));
    let expiration = copy.properties.expiration().as_ref().unwrap();
    assert_eq!(expiration.as_str(), "86400000", "a day in milliseconds");
    if let Some(event) = &letter.event {
        assert_eq!(copy.header("cloudEvents:source"), event.source.as_str());
        assert_eq!(copy.header("cloudEvents:subject"), event.subject.as_str());
        let sequence = event.sequence.unwrap().get();
        assert_eq!(copy.header("cloudEvents:sequence").parse(), Ok(sequence));
    }
}

async fn send(env: &TestEnv, channel: &TestChannel, bad: &InvalidMessage) {
    let properties = BasicProperties::default().with_headers(bad.headers.clone());
    let exchange = env.namespace().events_exchange();
    channel
        .publish(&exchange, "account.moved.v1", properties, &bad.body)
        .await;
}

/// Returns all invalid messages: each on an account of its own if it has one, and each with a body of its own, by which
/// it is found.
fn bad_messages() -> Vec<InvalidMessage> {
    let mut all = broken_messages();
    all.extend(unreadable_messages());
    all.extend(spoiled_messages());
    all
}

/// Returns the headers of the first event of an account.
fn first(subject: &str, other: &[(&str, AMQPValue)]) -> FieldTable {
    attributes("shop", subject, "1", other)
}

fn kind(kind: &str) -> [(&'static str, AMQPValue); 1] {
    [("cloudEvents:type", text(kind))]
}

fn json(text: &str) -> Vec<u8> {
    serde_json::to_vec(text).unwrap()
}

/// Returns events whose data breaks their contract, or that have none.
fn broken_messages() -> Vec<InvalidMessage> {
    let broken = |headers, body: Vec<u8>, detail| InvalidMessage {
        headers,
        body,
        reason: "breaks its contract",
        detail,
        has_place: true,
    };
    vec![
        broken(
            first("account/1", &[]),
            b"{not json".to_vec(),
            "data does not fit",
        ),
        broken(first("account/2", &[]), Vec::new(), "data does not fit"),
        broken(
            first("account/3", &[]),
            json("no such move"),
            "data does not fit",
        ),
        broken(
            first("account/4", &kind("account.vanished.v1")),
            json("unknown type"),
            "account.vanished.v1",
        ),
        broken(
            first("account/5", &kind("account.moved.v2")),
            json("unknown version"),
            "account.moved.v2",
        ),
    ]
}

/// Returns messages whose stream or sequence is unknown.
fn unreadable_messages() -> Vec<InvalidMessage> {
    let without = |name: &str| {
        let mut headers = FieldTable::default();
        for (other, value) in &first("account/w", &[]) {
            if other.as_str() != name {
                headers.insert(other.clone(), value.clone());
            }
        }
        headers
    };
    let unreadable = |headers, body: &str, detail| InvalidMessage {
        headers,
        body: json(body),
        reason: "unreadable",
        detail,
        has_place: false,
    };
    vec![
        unreadable(
            FieldTable::default(),
            "no headers",
            "header cloudEvents:id is missing",
        ),
        unreadable(
            without("cloudEvents:id"),
            "no id",
            "header cloudEvents:id is missing",
        ),
        unreadable(
            without("cloudEvents:source"),
            "no source",
            "header cloudEvents:source is missing",
        ),
        unreadable(
            without("cloudEvents:subject"),
            "no subject",
            "header cloudEvents:subject is missing",
        ),
        unreadable(
            attributes("shop", "account/6", "0", &[]),
            "sequence 0",
            "is not a whole number from 1",
        ),
        unreadable(
            attributes("shop", "account/7", "-1", &[]),
            "sequence -1",
            "is not a whole number from 1",
        ),
        unreadable(
            attributes("shop", "account/8", "99999999999999999999", &[]),
            "sequence too high",
            "is not a whole number from 1",
        ),
        unreadable(
            attributes("shop", "nothing", "1", &[]),
            "no key",
            "is not of the form KIND/KEY",
        ),
        unreadable(
            attributes("", "account/9", "1", &[]),
            "empty source",
            "source is empty",
        ),
        unreadable(
            attributes(&"s".repeat(300), "account/9", "1", &[]),
            "long source",
            "source has 300 bytes",
        ),
        unreadable(
            attributes("a\u{7}b", "account/9", "1", &[]),
            "bell in the source",
            "source contains a control character",
        ),
        unreadable(garbage(), "garbage", "id is a boolean (true), not text"),
    ]
}

/// Returns messages that are invalid at a known sequence of a stream.
fn spoiled_messages() -> Vec<InvalidMessage> {
    let large = |bytes: usize| {
        let mut body = vec![b' '; bytes - 2];
        body.extend(b"{}");
        body
    };
    let spoiled = |headers, body: Vec<u8>, detail| InvalidMessage {
        headers,
        body,
        reason: "unreadable",
        detail,
        has_place: true,
    };
    vec![
        spoiled(
            first("account/10", &kind("Account Moved")),
            json("type of no form"),
            "Account Moved",
        ),
        spoiled(
            first("account/11", &[("cloudEvents:specversion", text("0.3"))]),
            json("old specification"),
            "specversion",
        ),
        spoiled(
            first("account/12", &[("cloudEvents:time", text("yesterday"))]),
            json("time of no form"),
            "yesterday",
        ),
        spoiled(
            first("order/13", &[]),
            json("on another subject"),
            "does not belong on subject",
        ),
        spoiled(first("account/14", &[]), large(MIB + 1), "1048577 bytes"),
        spoiled(first("account/15", &[]), large(12 * MIB), "12582912 bytes"),
    ]
}

/// Returns the headers of an event of the ledger, with others added or replaced.
fn attributes(
    source: &str,
    subject: &str,
    sequence: &str,
    other: &[(&str, AMQPValue)],
) -> FieldTable {
    let mut headers = FieldTable::default();
    for (name, value) in [
        ("cloudEvents:specversion", "1.0"),
        ("cloudEvents:id", &*format!("{}#{sequence}", &subject)),
        ("cloudEvents:source", source),
        ("cloudEvents:type", "account.moved.v1"),
        ("cloudEvents:subject", subject),
        ("cloudEvents:time", "2026-11-23T09:00:00Z"),
        ("cloudEvents:sequence", sequence),
    ] {
        headers.insert(name.into(), text(value));
    }
    for (name, value) in other {
        headers.insert((*name).into(), value.clone());
    }
    headers
}

/// Returns a value of every other AMQP type, in place of text.
fn garbage() -> FieldTable {
    let mut inner = FieldTable::default();
    inner.insert("inner".into(), AMQPValue::Double(f64::MAX));
    let values = [
        ("cloudEvents:id", AMQPValue::Boolean(true)),
        ("cloudEvents:source", AMQPValue::FieldTable(inner)),
        (
            "cloudEvents:subject",
            AMQPValue::FieldArray(FieldArray::from(vec![AMQPValue::Void])),
        ),
        (
            "cloudEvents:type",
            AMQPValue::ByteArray(ByteArray::from(vec![0, 159, 146, 150])),
        ),
        ("cloudEvents:sequence", AMQPValue::Float(f32::MIN)),
        (
            "cloudEvents:time",
            AMQPValue::DecimalValue(DecimalValue {
                scale: 200,
                value: u32::MAX,
            }),
        ),
        ("cloudEvents:specversion", AMQPValue::Void),
        ("cloudEvents:", AMQPValue::ShortShortInt(-1)),
        ("", AMQPValue::ShortInt(i16::MIN)),
        (
            "traceparent",
            AMQPValue::LongString(LongString::from(vec![0xff, 0xfe])),
        ),
        ("x-delivery-count", AMQPValue::LongInt(-7)),
        (
            "long",
            AMQPValue::LongString(LongString::from("x".repeat(2_000))),
        ),
        ("time", AMQPValue::Timestamp(u64::MAX)),
    ];
    let mut headers = FieldTable::default();
    for (name, value) in values {
        headers.insert(name.into(), value);
    }
    headers
}

fn text(value: &str) -> AMQPValue {
    AMQPValue::LongString(LongString::from(value))
}
