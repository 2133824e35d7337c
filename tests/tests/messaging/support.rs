//! Fixtures of the tests: an environment for each, and waiting for conditions with a timeout.
#![allow(clippy::unwrap_used, reason = "a failing helper fails its test")]

use std::{future::poll_fn, pin::Pin, sync::Arc, task::Poll, time::Duration};

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use doorstep_broker::{
    Broker, NodeOptions, PrivateNode, User, UserPermissions, Vhost, percent_encoded, shared,
};
use doorstep_event::{Event, EventId, EventType, Sequence, Source, Subject};
use doorstep_messaging::{
    Batch, BrokerSettings, Message, Namespace, PublishOutcome, Publisher, QueueName,
    QueueSubscription, RoleQueues, Subscription, Topology,
};
use doorstep_tests::ChaosProxy;
use tokio::task::spawn_blocking;

/// Generous, for a machine that compiles at the same time; reached only in a failure.
pub const LONG: Duration = Duration::from_secs(60);

/// A role with a queue for orders.
pub const ROLE: RoleQueues = RoleQueues {
    role: "orders",
    subjects: &["order"],
    handles_requests: false,
};

/// A virtual host and the settings to use it.
pub struct TestEnv {
    pub settings: BrokerSettings,
    vhost: Arc<Vhost>,
}

impl TestEnv {
    /// Creates a virtual host on the shared broker.
    pub async fn new(hint: &'static str) -> Result<Self> {
        let vhost = spawn_blocking(move || shared()?.new_vhost(hint)).await??;
        Ok(Self {
            settings: settings(&vhost.amqp_url())?,
            vhost: Arc::new(vhost),
        })
    }

    pub fn amqp_url(&self) -> String {
        self.vhost.amqp_url()
    }

    pub fn vhost(&self) -> &str {
        self.vhost.name()
    }

    pub fn namespace(&self) -> &Namespace {
        &self.settings.namespace
    }

    pub fn topology(&self) -> Topology {
        Topology::for_roles(self.namespace(), &[ROLE])
    }

    pub fn queue(&self) -> QueueName {
        self.namespace().role_queue(ROLE.role, 0)
    }

    /// Creates a user with these permissions in it.
    pub async fn user(&self, hint: &'static str, rights: UserPermissions<'static>) -> Result<User> {
        let vhost = self.vhost.clone();
        spawn_blocking(move || vhost.new_user(hint, rights)).await?
    }

    /// Runs a call of the management API.
    pub async fn manage<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Broker, &str) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let vhost = self.vhost.clone();
        spawn_blocking(move || work(vhost.broker(), vhost.name())).await?
    }

    /// Declares a queue through the management API.
    pub async fn put_queue(&self, name: &str, json: &'static str) -> Result<()> {
        let name = percent_encoded(name);
        self.manage(move |broker, vhost| {
            let path = format!("/api/queues/{}/{name}", percent_encoded(vhost));
            broker.management()?.put(&path, json).map(drop)
        })
        .await
    }

    /// Deletes a queue through the management API.
    pub async fn delete_queue(&self, name: &QueueName) -> Result<()> {
        let name = percent_encoded(name.as_str());
        self.manage(move |broker, vhost| {
            let path = format!("/api/queues/{}/{name}", percent_encoded(vhost));
            broker.management()?.delete(&path)
        })
        .await
    }

    /// Returns the settings through that proxy.
    pub fn settings_by(&self, proxy: &ChaosProxy) -> Result<BrokerSettings> {
        let there = proxy.address();
        let address = self.vhost.broker().address();
        let by_proxy = doorstep_broker::AmqpAddress {
            host: there.ip().to_string(),
            port: there.port(),
            ..address.clone()
        };
        settings(&by_proxy.to_string())
    }

    /// Starts a proxy to the broker.
    pub async fn proxy(&self) -> ChaosProxy {
        let address = &self.settings.addresses[0];
        ChaosProxy::start(address.host(), address.port()).await
    }

    pub async fn publisher(&self, name: &str) -> Result<Publisher> {
        publisher(&self.settings, name).await
    }

    pub async fn subscription(&self, name: &str) -> Result<Subscription> {
        subscription(&self.settings, name).await
    }
}

/// Returns settings with short timeouts, so that tests of them are quick. Only tests of heartbeats shorten the
/// heartbeat: on a machine that stalls for seconds a short one closes healthy connections.
pub fn settings(url: &str) -> Result<BrokerSettings> {
    let mut settings = BrokerSettings::new(url, "test")?;
    settings.heartbeat = Duration::from_secs(10);
    settings.outage_timeout = Duration::from_secs(2);
    Ok(settings)
}

pub async fn publisher(settings: &BrokerSettings, name: &str) -> Result<Publisher> {
    let topology = Topology::for_roles(&settings.namespace, &[ROLE]);
    let publisher = Publisher::start(settings, name, topology);
    publisher.ready(LONG).await?;
    Ok(publisher)
}

pub async fn subscription(settings: &BrokerSettings, name: &str) -> Result<Subscription> {
    let topology = Topology::for_roles(&settings.namespace, &[ROLE]);
    let queue = settings.namespace.role_queue(ROLE.role, 0);
    let subscription =
        Subscription::start(settings, name, topology, vec![consume(queue, 100)], None);
    subscription.ready(LONG).await?;
    Ok(subscription)
}

pub fn consume(queue: QueueName, prefetch: u16) -> QueueSubscription {
    QueueSubscription {
        consumer_tag: format!("{queue} test"),
        queue,
        prefetch,
    }
}

/// Starts a node that this test may disturb.
pub async fn private_node(name: &'static str) -> Result<PrivateNode> {
    spawn_blocking(move || PrivateNode::start(NodeOptions::named(name))).await?
}

/// Runs a call on a node, off the runtime's threads.
pub async fn on_node<T: Send + 'static>(
    mut node: PrivateNode,
    work: impl FnOnce(&mut PrivateNode) -> Result<T> + Send + 'static,
) -> Result<(PrivateNode, T)> {
    spawn_blocking(move || {
        let done = work(&mut node)?;
        Ok((node, done))
    })
    .await?
}

/// Returns the event with this sequence in the stream of one order.
pub fn event(order: &str, sequence: u64) -> Event {
    kind_of_event("order", order, sequence)
}

/// Returns the same about another kind of subject.
pub fn kind_of_event(kind: &str, key: &str, sequence: u64) -> Event {
    let subject = Subject::new(format!("{kind}/{key}")).unwrap();
    let sequence = Sequence::new(sequence).unwrap();
    Event {
        id: EventId::new(format!("{subject}#{sequence}")).unwrap(),
        source: Source::new("test/1").unwrap(),
        event_type: EventType::new(format!("{kind}.placed.v1")).unwrap(),
        subject,
        time: Some("2026-11-23T10:00:00.25Z".parse().unwrap()),
        sequence: Some(sequence),
        epoch: None,
        traceparent: Some("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".to_owned()),
        data: Bytes::from_static(b"{\"n\":1}"),
    }
}

/// Checks that all outcomes are confirms.
#[track_caller]
pub fn all_confirmed(outcomes: &[PublishOutcome]) {
    let other = outcomes
        .iter()
        .position(|o| *o != PublishOutcome::Confirmed);
    assert_eq!(other, None, "{:?}", other.map(|i| outcomes[i]));
}

pub async fn publish(publisher: &Publisher, events: impl IntoIterator<Item = Event>) {
    let messages = events.into_iter().map(|e| Message::event(&e)).collect();
    all_confirmed(&publisher.publish_all(messages).await);
}

/// Takes exactly this many deliveries, acknowledged or not by `each`.
pub async fn take(
    subscription: &Subscription,
    count: usize,
    mut each: impl AsyncFnMut(&Batch),
) -> Result<Vec<doorstep_messaging::Delivery>> {
    let mut taken = Vec::new();
    while taken.len() < count {
        let next = subscription.next_batch(count - taken.len(), usize::MAX);
        let batch = tokio::time::timeout(LONG, next)
            .await
            .with_context(|| format!("only {} of {count} deliveries came", taken.len()))?
            .context("the subscription has ended")?;
        each(&batch).await;
        taken.extend(batch.deliveries);
    }
    Ok(taken)
}

/// Polls until a condition is met.
pub async fn until(what: &str, mut so: impl AsyncFnMut() -> Result<bool>) -> Result<()> {
    let mut pause = tokio::time::interval(Duration::from_millis(50));
    let wait = async {
        while !so().await? {
            pause.tick().await;
        }
        Ok(())
    };
    match tokio::time::timeout(LONG, wait).await {
        Ok(done) => done,
        Err(_) => bail!("not within {LONG:?}: {what}"),
    }
}

/// Runs work with a timeout above all timeouts of the tests' settings.
pub async fn within<T>(limit: Duration, what: &str, work: impl Future<Output = T>) -> Result<T> {
    tokio::time::timeout(limit, work)
        .await
        .with_context(|| format!("{what} took longer than {limit:?}"))
}

/// Begins slow work and leaves it pending.
pub async fn begin<T>(mut work: Pin<&mut impl Future<Output = T>>) {
    poll_fn(|cx| {
        assert!(work.as_mut().poll(cx).is_pending(), "it was quicker");
        Poll::Ready(())
    })
    .await;
}
