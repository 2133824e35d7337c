//! Looking at how a broker differs from what Doorstep needs. Nothing is created, changed, published or consumed.
//!
//! Bindings cannot be looked at over AMQP; what is published without one is reported when it is published.

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
    connection::{Connection, Dialer},
    error::{ConnectError, ConnectErrorKind, Refusal},
    owner::{self, Found, PresentOwner},
    probe_channel::ProbeChannel,
    server_properties::ServerProperties,
    settings::BrokerSettings,
    topology::{Owner, QueuePurpose, Topology},
};

use compare::Presence;
pub use finding::{Finding, Permission};
pub(crate) use frames::is_enough;
pub(crate) use user_id::check_user_id;
use verifier::Verifier;

/// What a look at a broker has shown.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Verified {
    /// Where that was, with the password masked.
    pub address: String,
    /// The broker's name; not known if it does not greet in time.
    pub broker: Option<ServerProperties>,
    /// How it differs, in the order of the topology.
    pub findings: Vec<Finding>,
    /// Which stores the queues of the roles belong to.
    pub owners: Vec<QueuesOf>,
}

/// Which store the queues of a role belong to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct QueuesOf {
    /// The role.
    pub role: String,
    /// The record; `None` if there is none, so that the next store that starts gets them, or if this user may not look.
    pub owner: Option<PresentOwner>,
}

/// The first release that dead-letters at least once.
const MIN_VERSION: (u32, u32) = (3, 10);
/// The first release that does so whatever it was upgraded from.
const STREAM_QUEUE_BUILTIN: (u32, u32) = (4, 0);
/// What has to be so on releases before that.
const STREAM_QUEUE_HINT: &str = "RabbitMQ 3 dead-letters at least once only where its feature flag stream_queue is enabled, which an upgrade may have left off and which cannot be looked at over AMQP: rabbitmqctl enable_feature_flag stream_queue does no harm where it is";

impl Verified {
    /// What matters on this broker and cannot be looked at over AMQP, with the remedy.
    #[must_use]
    pub fn notes(&self) -> Vec<&'static str> {
        let release = self.broker.as_ref().and_then(ServerProperties::release);
        match release {
            Some(release) if (MIN_VERSION..STREAM_QUEUE_BUILTIN).contains(&release) => {
                vec![STREAM_QUEUE_HINT]
            }
            // An older one is a finding, and what cannot be told is no reason to complain.
            Some(_) | None => Vec::new(),
        }
    }
}

/// Compares the first broker that answers with the topology, and its user's rights with what working with it takes: configuring all,
/// publishing to its exchanges and to the default one, consuming from the queues that roles work, marking them and recording their owners, and hearing of requests
/// that are cancelled. One attempt is made on each address, and each question has the bound of [`BrokerSettings::connect_timeout`]. May
/// be cancelled: nothing it does stays.
///
/// # Errors
/// There is no broker, it does not let us in, or it does not answer.
pub async fn verify(
    settings: &BrokerSettings,
    topology: &Topology,
) -> Result<Verified, ConnectError> {
    let limit = settings.connect_timeout;
    let name = format!("{} topology verify", settings.namespace);
    let connection = Dialer::new(settings, &name).open().await?;
    let address = connection.address().clone();
    let broker = ServerProperties::of(&address, &settings.tls, limit).await;
    let mut look = Verifier::new(ProbeChannel::new(&connection, limit));
    look.findings
        .extend(broker.as_ref().and_then(unsupported_version));
    let frame_max = connection.frame_max();
    if !is_enough(frame_max) {
        look.findings
            .push(Finding::SmallFrames { bytes: frame_max });
    }
    let mut missing = Vec::new();
    for exchange in &topology.exchanges {
        match compare::exchange(&mut look, exchange).await? {
            Presence::There => permissions::write(&mut look, &exchange.name).await?,
            Presence::Missing => missing.push(exchange),
        }
    }
    for queue in &topology.queues {
        let presence = compare::queue(&mut look, queue).await?;
        // Copies of dead letters are for people to look at; no role reads them.
        if presence == Presence::There && queue.purpose != QueuePurpose::Dead {
            permissions::read(&mut look, &queue.name).await?;
        }
        if presence == Presence::There && queue.purpose.is_durable_work() {
            permissions::check_marker(&mut look, &queue.name).await?;
        }
        if presence == Presence::There && queue.purpose == QueuePurpose::Rpc {
            permissions::check_cancel_binding(&mut look, &queue.name).await?;
        }
    }
    if !topology.queues.is_empty() {
        permissions::write(&mut look, "").await?;
    }
    let mut owners = Vec::new();
    for Owner { role, exchange } in &topology.owners {
        let found = owner::look(&connection, &settings.namespace, role, limit).await?;
        if matches!(found, Found::Forbidden(_)) {
            look.forbidden(Permission::Configure, "exchange", exchange);
        }
        permissions::own(&mut look, exchange).await?;
        let owner = match found {
            Found::Record(owner) => Some(owner),
            Found::Nothing | Found::NoRecord | Found::Forbidden(_) => None,
        };
        owners.push(QueuesOf {
            role: role.clone(),
            owner,
        });
    }
    let mut known = BTreeSet::new();
    for exchange in missing {
        if known.insert(exchange.kind.as_str()) && !plugins::plugin(&mut look, exchange).await? {
            break;
        }
    }
    let Verifier {
        asker, findings, ..
    } = look;
    asker.close().await;
    connection.close(limit).await;
    Ok(Verified {
        address: address.to_string(),
        broker,
        findings,
        owners,
    })
}

/// Looks at the version only, for a program that starts: `None` if it is recent enough, or cannot be told. Cancel-safe.
pub async fn check_version(settings: &BrokerSettings) -> Option<Finding> {
    for address in &settings.addresses {
        if let Some(greeting) =
            ServerProperties::of(address, &settings.tls, settings.connect_timeout).await
        {
            return unsupported_version(&greeting);
        }
    }
    None
}

/// Whether the user may publish to this exchange.
///
/// # Errors
/// It may not ([`Refusal::Permission`]), or the broker cannot be asked.
pub(crate) async fn may_publish(
    connection: &Connection,
    exchange: &str,
    limit: Duration,
) -> Result<(), ConnectError> {
    let mut look = Verifier::new(ProbeChannel::new(connection, limit));
    permissions::write(&mut look, exchange).await?;
    let Verifier {
        asker, findings, ..
    } = look;
    asker.close().await;
    match findings.first() {
        None => Ok(()),
        Some(finding) => Err(ConnectError::new(
            ConnectErrorKind::Refused(Refusal::Permission),
            finding.to_string(),
        )),
    }
}

fn unsupported_version(greeting: &ServerProperties) -> Option<Finding> {
    if greeting.product != "RabbitMQ" {
        return Some(Finding::OtherProduct {
            product: greeting.to_string(),
        });
    }
    match greeting.release() {
        Some(release) if release < MIN_VERSION => Some(Finding::OldVersion {
            version: greeting.version.clone(),
        }),
        // A version that does not read as one is no reason to complain.
        Some(_) | None => None,
    }
}
