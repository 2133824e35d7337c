//! The environment of this bench: a namespace on the broker and a folder, deleted at the end.

use std::{path::PathBuf, time::Duration};

use anyhow::{Context, Result, ensure};
use doorstep_messaging::{BrokerSettings, Publisher, Topology, delete};
use futures_util::StreamExt;
use lapin::{
    BasicProperties, Channel, Connection, ConnectionProperties,
    options::{
        BasicAckOptions, BasicConsumeOptions, BasicQosOptions, ExchangeDeleteOptions,
        QueueDeclareOptions,
    },
    types::FieldTable,
};
use tokio::time::{Instant, MissedTickBehavior, interval};

use crate::{counter::QUEUES, options::Options, rpc::DEPOT};

/// The timeout of each broker operation that is not measured.
pub(crate) const TIMEOUT: Duration = Duration::from_secs(60);
/// The timeout of one measurement; even a million messages take seconds.
pub(crate) const LIMIT: Duration = Duration::from_secs(600);
/// The interval between two polls of a queue's depth.
const LOOK: Duration = Duration::from_millis(50);

/// The environment of the bench.
pub(crate) struct BenchEnv {
    pub(crate) url: String,
    pub(crate) settings: BrokerSettings,
    pub(crate) topology: Topology,
    /// The exchange of all messages.
    pub(crate) exchange: String,
    /// The queue of all messages.
    pub(crate) queue: String,
    /// The folder of the stores.
    pub(crate) folder: PathBuf,
    control: Connection,
    channel: Channel,
}

impl BenchEnv {
    pub(crate) async fn create(options: &Options) -> Result<Self> {
        let namespace = format!("bench-{}", std::process::id());
        let settings = BrokerSettings::new(&options.url, &namespace)?;
        let topology = Topology::for_roles(&settings.namespace, &[QUEUES, DEPOT]);
        let folder = options.folder.join(&namespace);
        std::fs::create_dir_all(&folder)
            .with_context(|| format!("cannot create {}", folder.display()))?;
        let publisher = Publisher::start(
            &settings,
            &format!("{namespace}: declare"),
            topology.clone(),
        );
        publisher.ready(settings.start_timeout).await?;
        publisher.close(TIMEOUT).await;
        let (control, channel) = connect(&options.url, &format!("{namespace}: control")).await?;
        Ok(Self {
            url: options.url.clone(),
            exchange: settings.namespace.events_exchange(),
            queue: settings.namespace.role_queue(QUEUES.role, 0).to_string(),
            settings,
            topology,
            folder,
            control,
            channel,
        })
    }

    /// Returns an unused folder for a store, which becomes the owner of the queues.
    pub(crate) async fn fresh_folder(&self) -> Result<PathBuf> {
        for owner in &self.topology.owners {
            let exchange = owner.exchange.as_str().into();
            let options = ExchangeDeleteOptions::default();
            self.channel.exchange_delete(exchange, options).await?;
        }
        let folder = self.folder.join(uuid::Uuid::now_v7().to_string());
        std::fs::create_dir(&folder)?;
        Ok(folder)
    }

    /// Waits until this many messages are ready.
    pub(crate) async fn wait_for_depth(&self, messages: usize) -> Result<()> {
        let began = Instant::now();
        let mut look = interval(LOOK);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            look.tick().await;
            let depth = self.depth().await?;
            if depth == messages {
                return Ok(());
            }
            ensure!(
                began.elapsed() < TIMEOUT,
                "queue {} has {depth} messages ready, expected {messages}",
                self.queue
            );
        }
    }

    async fn depth(&self) -> Result<usize> {
        let passive = QueueDeclareOptions {
            passive: true,
            durable: true,
            ..QueueDeclareOptions::default()
        };
        let declared =
            self.channel
                .queue_declare(self.queue.as_str().into(), passive, FieldTable::default());
        let queue = tokio::time::timeout(TIMEOUT, declared).await??;
        Ok(queue.message_count() as usize)
    }

    /// Takes one message out of the queue: its routing key, its properties and its body.
    pub(crate) async fn take_one(&self) -> Result<(String, BasicProperties, Vec<u8>)> {
        let (connection, channel) =
            connect(&self.url, &format!("{}: look", self.settings.namespace)).await?;
        let taken = async {
            // A queue with a single active consumer does not allow `basic.get`.
            let options = BasicConsumeOptions::default();
            let (queue, tag) = (self.queue.as_str().into(), "look".into());
            let mut consumer = channel
                .basic_consume(queue, tag, options, FieldTable::default())
                .await?;
            let taken = consumer
                .next()
                .await
                .context("the broker ended the consumer")??;
            channel
                .basic_ack(taken.delivery_tag, BasicAckOptions::default())
                .await?;
            // Closing immediately would not wait for the acknowledgement; this answer comes after it.
            channel.basic_qos(1, BasicQosOptions::default()).await?;
            connection.close(200, "OK".into()).await?;
            anyhow::Ok((taken.routing_key.to_string(), taken.properties, taken.data))
        };
        tokio::time::timeout(TIMEOUT, taken)
            .await
            .context("the queue is empty")?
    }

    /// Deletes the environment in any state, and prints what could not be deleted.
    pub(crate) async fn delete(self) {
        // The measurement is over, so an error does not matter.
        let _ = tokio::time::timeout(TIMEOUT, self.control.close(200, "OK".into())).await;
        if let Err(error) = delete(&self.settings, &self.topology).await {
            eprintln!(
                "warning: queues and exchanges beginning with {}. are left on the broker, delete them by hand: {error}",
                self.settings.namespace
            );
        }
        if let Err(error) = std::fs::remove_dir_all(&self.folder) {
            eprintln!("warning: {} is left: {error}", self.folder.display());
        }
    }
}

/// Opens a plain connection with a channel.
pub(crate) async fn connect(url: &str, name: &str) -> Result<(Connection, Channel)> {
    let properties = ConnectionProperties::default().with_connection_name(name.into());
    tokio::time::timeout(TIMEOUT, async {
        let connection = Connection::connect(url, properties).await?;
        let channel = connection.create_channel().await?;
        anyhow::Ok((connection, channel))
    })
    .await
    .context("cannot connect the bare client")?
}
