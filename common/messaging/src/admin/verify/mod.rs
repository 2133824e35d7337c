//! Compares a broker with Doorstep's needs. Creates, changes, publishes and consumes nothing.
//!
//! AMQP cannot list bindings; a missing one is reported when a message is published.

mod compare;
mod finding;
mod frames;
mod permissions;
mod plugins;
mod user_id;
mod verifier;

use std::{collections::BTreeSet, time::Duration};

use serde::Serialize;

use crate::{
    admin::server_properties::ServerProperties,
    connection::{
        Connection, Dialer,
        error::{ConnectError, Result},
        probe_channel::ProbeChannel,
    },
    settings::BrokerSettings,
    topology::{
        Owner, QueuePurpose, Topology,
        queue_owner::{self, Found, PresentOwner},
    },
};

use compare::Presence;
pub use finding::{Finding, Permission};
pub(crate) use frames::is_enough;
pub(crate) use user_id::check_user_id;
use verifier::Verifier;

/// The result of a verification.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Verified {
    /// The broker's address, with the password masked.
    pub address: String,
    /// The broker's product; `None` if it does not send its server in time.
    pub broker: Option<ServerProperties>,
    /// Differences, in the order of the topology.
    pub findings: Vec<Finding>,
    pub owners: Vec<RoleOwner>,
}

/// The store that owns a role's queues.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RoleOwner {
    pub role: String,
    /// The record. `None` if there is none, so the next store that starts gets the queues, or if this user may not read it.
    pub owner: Option<PresentOwner>,
}

/// The first release with at-least-once dead-lettering.
const MIN_VERSION: (u32, u32) = (3, 10);
/// The first release on which it never depends on a feature flag.
const STREAM_QUEUE_BUILTIN: (u32, u32) = (4, 0);
/// Requirement on releases before that.
const STREAM_QUEUE_HINT: &str = "RabbitMQ 3 dead-letters at least once only if its feature flag stream_queue is enabled, which an upgrade may have left off and AMQP cannot show: run rabbitmqctl enable_feature_flag stream_queue, which is harmless if it is enabled";

impl Verified {
    /// Returns requirements on this broker that AMQP cannot verify, with the remedy.
    #[must_use]
    pub fn notes(&self) -> Vec<&'static str> {
        let release = self.broker.as_ref().and_then(ServerProperties::release);
        match release {
            Some(release) if (MIN_VERSION..STREAM_QUEUE_BUILTIN).contains(&release) => {
                vec![STREAM_QUEUE_HINT]
            }
            // An older release is a finding. An unknown release is no reason to complain.
            Some(_) | None => Vec::new(),
        }
    }
}

/// Compares the first responding broker with the topology, and its user's permissions with the needed ones. These are: configure
/// everything, publish to its exchanges and the default exchange, consume the roles' queues, mark them, record their owners, and receive
/// cancellations of requests. Tries each address once; each broker call is bounded by [`BrokerSettings::connect_timeout`]. If cancelled,
/// nothing stays at the broker.
///
/// # Errors
/// Fails if no broker is reachable, it rejects the login, or does not respond.
pub async fn verify(settings: &BrokerSettings, topology: &Topology) -> Result<Verified> {
    let limit = settings.connect_timeout;
    let name = format!("{} topology verify", settings.namespace);
    let connection = Dialer::new(settings, &name).open().await?;
    let address = connection.address().clone();
    let broker = ServerProperties::fetch(&address, &settings.tls, limit).await;
    let mut verifier = Verifier::new(ProbeChannel::new(&connection, limit));
    verifier
        .findings
        .extend(broker.as_ref().and_then(unsupported_version));
    let frame_max = connection.frame_max();
    if !is_enough(frame_max) {
        verifier
            .findings
            .push(Finding::SmallFrames { bytes: frame_max });
    }
    let mut missing = Vec::new();
    for exchange in &topology.exchanges {
        match compare::exchange(&mut verifier, exchange).await? {
            Presence::There => permissions::check_write(&mut verifier, &exchange.name).await?,
            Presence::Missing => missing.push(exchange),
        }
    }
    for queue in &topology.queues {
        let presence = compare::queue(&mut verifier, queue).await?;
        // Copies of dead letters are for people; no role consumes them.
        if presence == Presence::There && queue.purpose != QueuePurpose::DeadLetters {
            permissions::check_read(&mut verifier, &queue.name).await?;
        }
        if presence == Presence::There && queue.purpose.is_durable_work() {
            permissions::check_marker(&mut verifier, &queue.name).await?;
        }
        if presence == Presence::There && queue.purpose == QueuePurpose::Rpc {
            permissions::check_cancel_binding(&mut verifier, &queue.name).await?;
        }
    }
    if !topology.queues.is_empty() {
        permissions::check_write(&mut verifier, "").await?;
    }
    let mut owners = Vec::new();
    for Owner { role, exchange } in &topology.owners {
        let found = queue_owner::read_owner(&connection, &settings.namespace, role, limit).await?;
        if matches!(found, Found::Forbidden(_)) {
            verifier.forbidden(Permission::Configure, "exchange", exchange);
        }
        permissions::check_owner_record(&mut verifier, exchange).await?;
        let owner = match found {
            Found::Record(owner) => Some(owner),
            Found::Nothing | Found::NoRecord | Found::Forbidden(_) => None,
        };
        owners.push(RoleOwner {
            role: role.clone(),
            owner,
        });
    }
    let mut known = BTreeSet::new();
    for exchange in missing {
        if known.insert(exchange.kind.as_str()) && !plugins::plugin(&mut verifier, exchange).await?
        {
            break;
        }
    }
    let Verifier {
        probe, findings, ..
    } = verifier;
    probe.close().await;
    connection.close(limit).await;
    Ok(Verified {
        address: address.to_string(),
        broker,
        findings,
        owners,
    })
}

/// Checks only the version, for a program that starts. Returns `None` if it is recent enough or unknown. Cancel-safe.
pub async fn check_version(settings: &BrokerSettings) -> Option<Finding> {
    for address in &settings.addresses {
        if let Some(server) =
            ServerProperties::fetch(address, &settings.tls, settings.connect_timeout).await
        {
            return unsupported_version(&server);
        }
    }
    None
}

/// Checks that the user may publish to this exchange.
///
/// # Errors
/// Fails if it may not ([`Denial::Permission`]), or the broker cannot be reached.
pub(crate) async fn may_publish(
    connection: &Connection,
    exchange: &str,
    limit: Duration,
) -> Result<()> {
    let mut verifier = Verifier::new(ProbeChannel::new(connection, limit));
    permissions::check_write(&mut verifier, exchange).await?;
    let Verifier {
        probe, findings, ..
    } = verifier;
    probe.close().await;
    match findings.first() {
        None => Ok(()),
        Some(finding) => Err(ConnectError::no_permission(finding.to_string())),
    }
}

fn unsupported_version(server: &ServerProperties) -> Option<Finding> {
    if server.product != "RabbitMQ" {
        return Some(Finding::OtherProduct {
            product: server.to_string(),
        });
    }
    match server.release() {
        Some(release) if release < MIN_VERSION => Some(Finding::OldVersion {
            version: server.version.clone(),
        }),
        // An unparseable version is no reason to complain.
        Some(_) | None => None,
    }
}
