//! The environment of one test: a virtual host on a real broker, and the operations of a test in it.

use std::{env, time::Duration};

use doorstep_broker::{Broker, TEST_AMQP_URL, TEST_MANAGEMENT_URL, User, UserPermissions, Vhost};
use doorstep_event::Event;
use doorstep_messaging::{
    Backoff, BrokerSettings, Depth, Inspector, Message, Namespace, PublishOutcome, Publisher,
    QueueName, RoleQueues, Topology,
};
use doorstep_runtime::{HandlerLock, Limits, Role, runner::RunSettings};
use doorstep_store::Store;
use tokio::{sync::OnceCell, task::block_in_place};

use crate::{ChaosProxy, ManagementView, RoleProcess, TestChannel, wait_for};

/// The queues of the role [`ledger::Ledger`](crate::ledger::Ledger).
pub const LEDGER: RoleQueues = RoleQueues {
    role: "ledger",
    subjects: &["account"],
    handles_requests: false,
};

/// The same with a request queue.
pub const LEDGER_WITH_RPC: RoleQueues = RoleQueues {
    handles_requests: true,
    ..LEDGER
};

/// The queues of the role [`works::Works`](crate::works::Works).
pub const WORKS: RoleQueues = RoleQueues {
    role: "works",
    subjects: &["work"],
    handles_requests: false,
};

/// The prefix of every name in an environment.
const NAMESPACE: &str = "doorstep";
/// Enough for a machine that is busy with other tests.
const CONNECT_LIMIT: Duration = Duration::from_secs(60);
const GRACE: Duration = Duration::from_secs(5);
/// Half a second of polls: on a busy machine a delivery may be in flight for longer than the first few take.
const QUIET_LOOKS: u32 = 10;

/// A virtual host of its own, deleted on drop. Needs a multi-threaded runtime.
pub struct TestEnv {
    settings: BrokerSettings,
    topology: Topology,
    publisher: Publisher,
    inspector: OnceCell<Inspector>,
    /// Last, so that it is deleted after everything in it.
    vhost: Vhost,
}

impl TestEnv {
    /// Creates an environment on the broker that all tests share, with the queues of these roles. `hint` becomes part
    /// of its name.
    ///
    /// # Panics
    /// If there is no such broker.
    pub async fn new(hint: &str, roles: &[RoleQueues]) -> Self {
        let is_set = |name| env::var(name).is_ok_and(|url| !url.is_empty());
        assert!(
            is_set(TEST_AMQP_URL) && is_set(TEST_MANAGEMENT_URL),
            "these tests need a RabbitMQ, run them by `cargo xtask test`, which finds or starts one \
             (or name yours in {TEST_AMQP_URL} and {TEST_MANAGEMENT_URL})"
        );
        Self::on(doorstep_broker::shared().unwrap(), hint, roles).await
    }

    /// Creates an environment with a topology that is changed before it is declared.
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

    /// Creates an environment on this broker, with the queues of these roles.
    ///
    /// # Panics
    /// If the broker rejects it.
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
        let mut topology = Topology::for_roles(&settings.namespace, roles);
        change(&mut topology);
        // Declared by one client before any other connects. If two declare the same queue at once, a message published
        // meanwhile may be rejected, since the queue has no leader yet.
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

    /// Returns the connection settings. Retries are quick, since no other client waits for the broker.
    #[must_use]
    pub fn settings(&self) -> &BrokerSettings {
        &self.settings
    }

    /// Returns the connection settings through a proxy.
    #[must_use]
    pub fn settings_by(&self, proxy: &ChaosProxy) -> BrokerSettings {
        let mut address = self.vhost.broker().address().clone();
        address.host = proxy.address().ip().to_string();
        address.port = proxy.address().port();
        settings(&address.to_string())
    }

    /// Starts a proxy to its broker.
    pub async fn proxy(&self) -> ChaosProxy {
        let address = self.vhost.broker().address();
        ChaosProxy::start(&address.host, address.port).await
    }

    /// Returns its address, with user and password.
    #[must_use]
    pub fn amqp_url(&self) -> String {
        self.vhost.amqp_url()
    }

    #[must_use]
    pub fn broker(&self) -> &Broker {
        self.vhost.broker()
    }

    /// Creates a user with these permissions in it and none elsewhere.
    ///
    /// # Panics
    /// If the broker rejects it.
    #[must_use]
    pub fn user(&self, hint: &str, rights: UserPermissions<'_>) -> User {
        block_in_place(|| self.vhost.new_user(hint, rights)).unwrap()
    }

    #[must_use]
    pub fn namespace(&self) -> &Namespace {
        &self.settings.namespace
    }

    #[must_use]
    pub fn topology(&self) -> &Topology {
        &self.topology
    }

    /// Returns its view through the management API.
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

    /// Opens a plain channel in it.
    pub async fn channel(&self) -> TestChannel {
        TestChannel::open(&self.amqp_url()).await
    }

    /// Returns the settings to run a role in it.
    #[must_use]
    pub fn run_settings(&self) -> RunSettings {
        run_settings_of(self.settings.clone(), self.topology.clone())
    }

    pub fn start<R: Role, S: Store>(&self, role: R, store: S) -> RoleProcess {
        RoleProcess::start(role, store, self.run_settings())
    }

    /// Publishes events in this order, each confirmed.
    ///
    /// # Panics
    /// Unless the broker confirms all of them.
    pub async fn publish(&self, events: &[Event]) {
        let outcomes = self.try_publish(events).await;
        assert!(
            outcomes.iter().all(|o| *o == PublishOutcome::Confirmed),
            "{outcomes:?}"
        );
    }

    /// Publishes events in this order, each until it is confirmed, through any fault of the broker.
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

    /// Returns the depth of a queue.
    ///
    /// # Panics
    /// If it cannot be read.
    pub async fn depth(&self, queue: &QueueName) -> Depth {
        self.try_depth(queue).await.unwrap()
    }

    /// Returns the depth of a queue.
    ///
    /// # Errors
    /// A description of the reason why it cannot be read.
    ///
    /// # Panics
    /// If the first connection fails.
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

    /// Waits until a queue has this many ready messages and this many consumers.
    ///
    /// # Panics
    /// If it does not within the limit.
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

    /// Waits until the queues of a running role are empty and the role has acknowledged all deliveries.
    ///
    /// # Panics
    /// If it does not within the limit.
    pub async fn all_is_acked(&self, role: &RoleProcess, name: &str, limit: Duration) {
        let queues = [
            self.namespace().role_queue(name, 0),
            self.namespace().quarantine_queue(name),
        ];
        // A message that has left the queue shows in the role only a moment later, hence several polls in a row.
        let mut quiet = 0;
        wait_for("all deliveries are acknowledged", limit, async || {
            let mut ready = 0;
            for queue in &queues {
                ready += self.try_depth(queue).await?.ready;
            }
            let unsettled = role.status().unacked;
            quiet = if (ready, unsettled) == (0, 0) {
                quiet + 1
            } else {
                0
            };
            if quiet >= QUIET_LOOKS {
                return Ok(());
            }
            Err(format!("{ready} ready and {unsettled} unacked"))
        })
        .await;
    }

    async fn try_publish(&self, events: &[Event]) -> Vec<PublishOutcome> {
        let messages = events.iter().map(Message::event).collect();
        self.publisher.publish_all(messages).await
    }
}

/// Returns the settings to run a role in an environment of another process.
///
/// # Panics
/// If the address is invalid.
#[must_use]
pub fn run_settings(amqp_url: &str, roles: &[RoleQueues]) -> RunSettings {
    let broker = settings(amqp_url);
    let topology = Topology::for_roles(&broker.namespace, roles);
    run_settings_of(broker, topology)
}

fn run_settings_of(broker: BrokerSettings, topology: Topology) -> RunSettings {
    RunSettings {
        broker,
        topology,
        limits: Limits::default(),
        process: HandlerLock::default(),
        shutdown_timeout: GRACE,
        requires_owner_record: true,
    }
}

fn settings(amqp_url: &str) -> BrokerSettings {
    let backoff = Backoff::new(Duration::from_millis(20), Duration::from_millis(500));
    BrokerSettings {
        backoff: backoff.unwrap(),
        heartbeat: Duration::from_secs(5),
        confirm_timeout: Duration::from_secs(10),
        ack_write_timeout: Duration::from_secs(5),
        start_timeout: CONNECT_LIMIT,
        ..BrokerSettings::new(amqp_url, NAMESPACE).unwrap()
    }
}
