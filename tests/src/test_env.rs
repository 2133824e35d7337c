//! The world of one test: a virtual host on a real broker, and what a test does in it.

use std::{env, time::Duration};

use doorstep_broker::{Broker, Rights, TEST_AMQP_URL, TEST_MANAGEMENT_URL, User, Vhost};
use doorstep_event::Event;
use doorstep_messaging::{
    Backoff, BrokerSettings, Depth, Inspector, Message, Namespace, PublishOutcome, Publisher,
    QueueName, RoleQueues, Topology,
};
use doorstep_runtime::{HandlerLock, Limits, Role, runner::RunSettings};
use doorstep_store::Store;
use tokio::{sync::OnceCell, task::block_in_place};

use crate::{ChaosProxy, ManagementView, RoleProcess, TestChannel, wait_for};

/// The role [`ledger::Ledger`](crate::ledger::Ledger) and what it takes.
pub const LEDGER: RoleQueues = RoleQueues {
    role: "ledger",
    subjects: &["account"],
    handles_requests: false,
};

/// The same, asked.
pub const LEDGER_WITH_RPC: RoleQueues = RoleQueues {
    handles_requests: true,
    ..LEDGER
};

/// What every name in a world starts with.
const NAMESPACE: &str = "doorstep";
/// Enough for a machine that is busy with other tests.
const CONNECT_LIMIT: Duration = Duration::from_secs(60);
const GRACE: Duration = Duration::from_secs(5);
/// Half a second of them: where a machine is busy, a delivery may be on its way for longer than the first few take.
const QUIET_LOOKS: u32 = 10;

/// A virtual host of its own, deleted in the end. Needs a multi-threaded runtime.
pub struct TestEnv {
    settings: BrokerSettings,
    topology: Topology,
    publisher: Publisher,
    inspector: OnceCell<Inspector>,
    /// Last, so that it is deleted after everything in it.
    vhost: Vhost,
}

impl TestEnv {
    /// A world on the broker that all tests share, with the queues of these roles. `hint` becomes part of its name.
    ///
    /// # Panics
    /// If there is no such broker.
    pub async fn new(hint: &str, roles: &[RoleQueues]) -> Self {
        let told = |name| env::var(name).is_ok_and(|url| !url.is_empty());
        assert!(
            told(TEST_AMQP_URL) && told(TEST_MANAGEMENT_URL),
            "these tests need a RabbitMQ, run them by `cargo xtask test`, which finds or starts one \
             (or name yours in {TEST_AMQP_URL} and {TEST_MANAGEMENT_URL})"
        );
        Self::on(doorstep_broker::shared().unwrap(), hint, roles).await
    }

    /// The same with a topology that is changed before anything is declared.
    ///
    /// # Panics
    /// If there is no such broker.
    pub async fn with(
        hint: &str,
        roles: &[RoleQueues],
        change: impl FnOnce(&mut Topology),
    ) -> Self {
        let broker = doorstep_broker::shared().unwrap();
        Self::declared(broker, hint, roles, change).await
    }

    /// A world on that broker, with the queues of these roles.
    ///
    /// # Panics
    /// If the broker does not let it be created.
    pub async fn on(broker: &Broker, hint: &str, roles: &[RoleQueues]) -> Self {
        Self::declared(broker, hint, roles, |_| {}).await
    }

    async fn declared(
        broker: &Broker,
        hint: &str,
        roles: &[RoleQueues],
        change: impl FnOnce(&mut Topology),
    ) -> Self {
        let vhost = block_in_place(|| broker.new_vhost(hint)).unwrap();
        let settings = settings(&vhost.amqp_url());
        let mut topology = Topology::of(&settings.namespace, roles);
        change(&mut topology);
        // Declared by one party before any other comes: what is published while two declare the same queue at once may be refused,
        // since the queue has no leader yet.
        let publisher = Publisher::start(&settings, "a test publishes", topology.clone());
        publisher.ready(CONNECT_LIMIT).await.unwrap();
        Self {
            topology,
            settings,
            publisher,
            inspector: OnceCell::new(),
            vhost,
        }
    }

    /// How to reach it. Retries are quick, since nobody else is waiting for the broker.
    #[must_use]
    pub fn settings(&self) -> &BrokerSettings {
        &self.settings
    }

    /// How to reach it by a proxy.
    #[must_use]
    pub fn settings_by(&self, proxy: &ChaosProxy) -> BrokerSettings {
        let mut address = self.vhost.broker().address().clone();
        address.host = proxy.address().ip().to_string();
        address.port = proxy.address().port();
        settings(&address.to_string())
    }

    /// A proxy to its broker.
    pub async fn proxy(&self) -> ChaosProxy {
        let address = self.vhost.broker().address();
        ChaosProxy::start(&address.host, address.port).await
    }

    /// Its address, with user and password.
    #[must_use]
    pub fn amqp_url(&self) -> String {
        self.vhost.amqp_url()
    }

    /// Its broker.
    #[must_use]
    pub fn broker(&self) -> &Broker {
        self.vhost.broker()
    }

    /// A user with these rights in it and none elsewhere.
    ///
    /// # Panics
    /// If the broker does not let it be created.
    #[must_use]
    pub fn user(&self, hint: &str, rights: Rights<'_>) -> User {
        block_in_place(|| self.vhost.new_user(hint, rights)).unwrap()
    }

    /// Its namespace.
    #[must_use]
    pub fn namespace(&self) -> &Namespace {
        &self.settings.namespace
    }

    /// What is declared in it.
    #[must_use]
    pub fn topology(&self) -> &Topology {
        &self.topology
    }

    /// What the management API shows of it.
    ///
    /// # Panics
    /// If the broker has no management API.
    #[must_use]
    pub fn view(&self) -> ManagementView {
        ManagementView::new(
            self.vhost.broker().management().unwrap().clone(),
            self.vhost.name(),
        )
    }

    /// Bare AMQP in it.
    pub async fn wire(&self) -> TestChannel {
        TestChannel::open(&self.amqp_url()).await
    }

    /// The settings for running a role in it.
    #[must_use]
    pub fn run_settings(&self) -> RunSettings {
        run_settings_of(self.settings.clone(), self.topology.clone())
    }

    /// Starts a role.
    pub fn start<R: Role, S: Store>(&self, role: R, store: S) -> RoleProcess {
        RoleProcess::start(role, store, self.run_settings())
    }

    /// Publishes events in this order, confirmed.
    ///
    /// # Panics
    /// Unless the broker confirms them all.
    pub async fn publish(&self, events: &[Event]) {
        let outcomes = self.try_publish(events).await;
        assert!(
            outcomes.iter().all(|o| *o == PublishOutcome::Confirmed),
            "{outcomes:?}"
        );
    }

    /// Publishes events in this order, each until it is confirmed, through whatever happens to the broker meanwhile.
    ///
    /// # Panics
    /// If they are not confirmed within the limit.
    pub async fn publish_at_last(&self, events: &[Event], limit: Duration) {
        let mut left = events.to_vec();
        wait_for("every event is confirmed", limit, async || {
            let outcomes = self.try_publish(&left).await;
            let mut outcomes = outcomes.into_iter();
            left.retain(|_| outcomes.next() != Some(PublishOutcome::Confirmed));
            if left.is_empty() {
                Ok(())
            } else {
                Err(left.len())
            }
        })
        .await;
    }

    /// How full a queue is.
    ///
    /// # Panics
    /// If it cannot be looked at.
    pub async fn depth(&self, queue: &QueueName) -> Depth {
        self.try_depth(queue).await.unwrap()
    }

    /// How full a queue is, if it can be looked at.
    ///
    /// # Errors
    /// In words, why it cannot.
    ///
    /// # Panics
    /// If there is no first connection to be had.
    pub async fn try_depth(&self, queue: &QueueName) -> Result<Depth, String> {
        let connect = || async {
            Inspector::connect(&self.settings, "a test looks")
                .await
                .unwrap()
        };
        let inspector = self.inspector.get_or_init(connect).await;
        inspector
            .queue_depth(queue)
            .await
            .map_err(|e| e.to_string())
    }

    /// Waits until a queue has this many messages ready and this many consumers.
    ///
    /// # Panics
    /// If it does not come to that.
    pub async fn depth_is(&self, queue: &QueueName, ready: u64, consumers: u64, limit: Duration) {
        let wanted = Depth { ready, consumers };
        wait_for(
            format!("{queue} has {wanted:?}"),
            limit,
            async || match self.try_depth(queue).await {
                Ok(depth) if depth == wanted => Ok(()),
                other => Err(other),
            },
        )
        .await;
    }

    /// Waits until the queues of a running role are empty and the role has settled all that it took.
    ///
    /// # Panics
    /// If it does not come to that.
    pub async fn all_is_settled(&self, role: &RoleProcess, name: &str, limit: Duration) {
        let queues = [
            self.namespace().role_queue(name, 0),
            self.namespace().net_queue(name),
        ];
        // What has left the queue shows in the role only once it is taken, a moment later: hence several looks in a row.
        let mut quiet = 0;
        wait_for("all is settled", limit, async || {
            let mut ready = 0;
            for queue in &queues {
                ready += self.try_depth(queue).await?.ready;
            }
            let unsettled = role.status().unsettled;
            quiet = if (ready, unsettled) == (0, 0) {
                quiet + 1
            } else {
                0
            };
            if quiet >= QUIET_LOOKS {
                return Ok(());
            }
            Err(format!("{ready} ready and {unsettled} unsettled"))
        })
        .await;
    }

    async fn try_publish(&self, events: &[Event]) -> Vec<PublishOutcome> {
        let messages = events.iter().map(Message::event).collect();
        self.publisher.publish_all(messages).await
    }
}

/// The settings for running a role in a world from another process.
///
/// # Panics
/// If that is no address.
#[must_use]
pub fn run_settings(amqp_url: &str, roles: &[RoleQueues]) -> RunSettings {
    let broker = settings(amqp_url);
    let topology = Topology::of(&broker.namespace, roles);
    run_settings_of(broker, topology)
}

fn run_settings_of(broker: BrokerSettings, topology: Topology) -> RunSettings {
    RunSettings {
        broker,
        topology,
        limits: Limits::default(),
        process: HandlerLock::default(),
        grace: GRACE,
        requires_owner_record: true,
    }
}

fn settings(amqp_url: &str) -> BrokerSettings {
    let backoff = Backoff::new(Duration::from_millis(20), Duration::from_millis(500));
    BrokerSettings {
        backoff: backoff.unwrap(),
        heartbeat: Duration::from_secs(5),
        confirm_timeout: Duration::from_secs(10),
        settle_timeout: Duration::from_secs(5),
        start_timeout: CONNECT_LIMIT,
        ..BrokerSettings::new(amqp_url, NAMESPACE).unwrap()
    }
}
