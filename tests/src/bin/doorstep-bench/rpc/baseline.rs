//! The bare client with direct reply-to, as its users write it: replies are matched by a number, and requests are
//! acknowledged after their reply, up to 256 at a time.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use anyhow::{Context, Result};
use futures_util::StreamExt;
use lapin::{
    BasicProperties, Channel, Connection,
    options::{
        BasicAckOptions, BasicConsumeOptions, BasicPublishOptions, BasicQosOptions,
        QueueDeclareOptions, QueueDeleteOptions,
    },
    types::{FieldTable, ShortString},
};
use tokio::{sync::oneshot, time::timeout};

use crate::env::{BenchEnv, TIMEOUT, connect};

const REPLY_TO: &str = "amq.rabbitmq.reply-to";
const AT_A_TIME: u16 = 256;

pub(super) fn queue(namespace: &str) -> String {
    format!("{namespace}.bare-rpc")
}

/// Echoes requests until the connection ends.
pub(super) async fn answer(url: &str, namespace: &str) -> Result<impl Future<Output = ()> + use<>> {
    let (connection, channel) = connect(url, &format!("{namespace}: bare answer")).await?;
    let queue: ShortString = queue(namespace).into();
    let durable = QueueDeclareOptions {
        durable: true,
        ..QueueDeclareOptions::default()
    };
    channel
        .queue_declare(queue.clone(), durable, FieldTable::default())
        .await?;
    channel
        .basic_qos(AT_A_TIME, BasicQosOptions::default())
        .await?;
    let mut consumer = channel
        .basic_consume(
            queue,
            "bare".into(),
            BasicConsumeOptions::default(),
            FieldTable::default(),
        )
        .await?;
    Ok(async move {
        let _open = connection;
        while let Some(Ok(request)) = consumer.next().await {
            let channel = channel.clone();
            tokio::spawn(async move {
                let properties = &request.properties;
                let (Some(reply_to), Some(number)) =
                    (properties.reply_to().clone(), properties.correlation_id())
                else {
                    return;
                };
                let reply = BasicProperties::default().with_correlation_id(number.clone());
                let options = BasicPublishOptions::default();
                let by_name = ShortString::default();
                // An error ends the connection, and the bench reports it.
                let _ = channel
                    .basic_publish(by_name, reply_to, options, &request.data, reply)
                    .await;
                let _ = channel
                    .basic_ack(request.delivery_tag, BasicAckOptions::default())
                    .await;
            });
        }
    })
}

/// A client with one channel.
pub(super) struct BareCaller {
    connection: Connection,
    channel: Channel,
    queue: ShortString,
    next: AtomicU64,
    waiting: Arc<Waiting>,
}

type Waiting = Mutex<HashMap<String, oneshot::Sender<Vec<u8>>>>;

impl BareCaller {
    pub(super) async fn connect(env: &BenchEnv) -> Result<Arc<Self>> {
        let namespace = env.settings.namespace.as_str();
        let (connection, channel) = connect(&env.url, &format!("{namespace}: bare ask")).await?;
        let no_ack = BasicConsumeOptions {
            no_ack: true,
            ..BasicConsumeOptions::default()
        };
        let consumed = channel.basic_consume(
            REPLY_TO.into(),
            ShortString::default(),
            no_ack,
            FieldTable::default(),
        );
        let mut consumer = timeout(TIMEOUT, consumed).await??;
        let waiting = Arc::new(Waiting::default());
        let open = waiting.clone();
        tokio::spawn(async move {
            while let Some(Ok(reply)) = consumer.next().await {
                let number = reply.properties.correlation_id().as_ref();
                let waiter = number.and_then(|number| lock(&open).remove(number.as_str()));
                if let Some(waiter) = waiter {
                    let _ = waiter.send(reply.data);
                }
            }
        });
        Ok(Arc::new(Self {
            connection,
            channel,
            queue: queue(namespace).into(),
            next: AtomicU64::new(0),
            waiting,
        }))
    }

    pub(super) async fn call(&self, body: &[u8]) -> Result<Vec<u8>> {
        let number = self.next.fetch_add(1, Ordering::Relaxed).to_string();
        let (done, reply) = oneshot::channel();
        lock(&self.waiting).insert(number.clone(), done);
        let properties = BasicProperties::default()
            .with_correlation_id(number.into())
            .with_reply_to(REPLY_TO.into());
        self.channel
            .basic_publish(
                ShortString::default(),
                self.queue.clone(),
                BasicPublishOptions::default(),
                body,
                properties,
            )
            .await?;
        reply.await.context("no reply to the bare client")
    }

    pub(super) async fn close(&self) -> Result<()> {
        timeout(TIMEOUT, self.connection.close(200, "OK".into())).await??;
        Ok(())
    }
}

fn lock(waiting: &Waiting) -> std::sync::MutexGuard<'_, HashMap<String, oneshot::Sender<Vec<u8>>>> {
    waiting.lock().unwrap_or_else(PoisonError::into_inner)
}

pub(super) async fn delete_queue(url: &str, namespace: &str) -> Result<()> {
    let (connection, channel) = connect(url, &format!("{namespace}: bare delete")).await?;
    let delete = channel.queue_delete(queue(namespace).into(), QueueDeleteOptions::default());
    timeout(TIMEOUT, delete).await??;
    timeout(TIMEOUT, connection.close(200, "OK".into())).await??;
    Ok(())
}
