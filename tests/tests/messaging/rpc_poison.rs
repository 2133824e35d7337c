//! Replies that no client can decode: each ends its own call, and no connection.

#![allow(clippy::unwrap_used, reason = "a failing helper fails its test")]

use anyhow::{Context, Result};
use bytes::Bytes;
use doorstep_messaging::CallError;
use doorstep_tests::{RawAmqp, RawProperties, nested_tables};
use futures_util::StreamExt;
use lapin::{
    ConnectionProperties, Consumer,
    options::{BasicAckOptions, BasicConsumeOptions},
    types::FieldTable,
};

use crate::{
    rpc::{ECHO, client, request},
    support::{LONG, TestEnv, until, within},
};

/// Takes a request, and returns its reply queue and correlation id.
async fn taken(requests: &mut Consumer) -> Result<(String, String)> {
    let next = within(LONG, "a request", requests.next()).await?;
    let delivery = next.context("no request")??;
    delivery.ack(BasicAckOptions::default()).await?;
    let properties = delivery.properties;
    Ok((
        properties.reply_to().as_ref().unwrap().to_string(),
        properties.correlation_id().as_ref().unwrap().to_string(),
    ))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_undecodable_reply_ends_only_its_call() -> Result<()> {
    let env = TestEnv::new("rpc-poison").await?;
    let asks = client(&env.settings).await?;
    let server =
        lapin::Connection::connect(&env.amqp_url(), ConnectionProperties::default()).await?;
    let channel = server.create_channel().await?;
    let queue = env.namespace().rpc_queue(ECHO.role);
    let mut requests = channel
        .basic_consume(
            queue.as_str().into(),
            "by hand".into(),
            BasicConsumeOptions::default(),
            FieldTable::default(),
        )
        .await?;
    let mut raw = RawAmqp::open(&env.amqp_url()).await;
    let reply = |mark: &str| {
        RawProperties::default()
            .text("type", b"reply")
            .text("correlation_id", mark.as_bytes())
    };

    for (n, why) in [(1, "app_id is not UTF-8"), (2, "nested more than")] {
        let asked = tokio::spawn({
            let asks = asks.clone();
            async move { asks.call_raw(request(n, LONG)).await }
        });
        let (to, mark) = taken(&mut requests).await?;
        let spoiled = match n {
            1 => reply(&mark).text("app_id", b"caf\xe9"),
            _ => reply(&mark).header(b"x", &nested_tables(2000)),
        };
        raw.publish("", to.as_bytes(), &spoiled, b"{}").await;
        match asked.await? {
            Err(CallError::Malformed(reason)) => assert!(reason.contains(why), "{reason}"),
            other => panic!("{other:?}"),
        }
    }

    let asked = tokio::spawn({
        let asks = asks.clone();
        async move { asks.call_raw(request(3, LONG)).await }
    });
    let (to, mark) = taken(&mut requests).await?;
    let unmarked = RawProperties::default().text("correlation_id", b"caf\xe9");
    raw.publish("", to.as_bytes(), &unmarked, b"{}").await;
    let meter = asks.stats();
    until("it is counted", async || Ok(meter.read().late == 1)).await?;
    raw.publish("", to.as_bytes(), &reply(&mark), b"sound")
        .await;
    assert_eq!(asked.await?, Ok(Bytes::from_static(b"sound")));
    assert_eq!(asks.status().borrow().connections, 1);
    Ok(())
}
