//! Records at the broker which store owns a role's queues, before anything is consumed from them.
//!
//! The record is the argument `alternate-exchange` of an exchange to which nothing is published. It is the only argument that the broker
//! both compares on a redeclaration and quotes in its error. It need not name an existing exchange.
//!
//! An argument cannot be changed, so replacing a record takes two steps: delete, then declare. In between there is no record: for one round
//! trip, or until the next start if the process crashes there. A store that starts at that moment takes the queue, and the store that was
//! replacing the record then fails to declare its own. So two stores never both believe that they are recorded.

use std::{sync::Arc, time::Duration};

use futures_util::future::BoxFuture;
use lapin::{
    Channel, ExchangeKind,
    options::{ExchangeDeclareOptions, ExchangeDeleteOptions},
    types::{AMQPValue, FieldTable},
};
use tokio::sync::Mutex;

use super::record::{OwnerRecord, PresentOwner};
use crate::{
    amqp::{PASSIVE_QUEUE, long_string, short_string},
    connection::{
        Connection, Dialer,
        error::{ConnectError, Result, reply},
        probe_channel::{ProbeChannel, ProbeResult},
    },
    settings::{BrokerSettings, Namespace},
    topology::{
        names::QueueName,
        precondition_failed::{ArgumentValue, PreconditionFailed},
    },
};

/// Attempts at recording while other processes change the record too, for example when many processes of one store start.
const MAX_TRIES: u32 = 50;

/// The decision of a claiming store about the record it found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OwnerDecision {
    /// The record stays: it is from a later start of the same store.
    Keep,
    /// The claim's own record replaces it.
    Replace,
    /// The queues belong to another store; the text says so.
    Reject(String),
    /// The decision is impossible for now, for this reason. The claim is tried again.
    Unknown(String),
}

/// Decides about records of other starts. Only a store knows which starts were its own.
pub trait OwnerPolicy: Send + Sync + 'static {
    /// Decides about the present record. `is_consumed`: the role's queue has an active consumer.
    fn decide(&self, present: PresentOwner, is_consumed: bool) -> BoxFuture<'_, OwnerDecision>;

    /// Lists the records of the store's earlier starts, newest first. Each is compared with a present record whose end is cut off.
    fn earlier(&self) -> BoxFuture<'_, Vec<OwnerRecord>>;
}

/// A claim of a store's current start to its role's queues. Clones share it.
#[derive(Clone, derive_more::Debug)]
#[debug("OwnerClaim({}, {:?})", _0.role, _0.record)]
pub struct OwnerClaim(Arc<Claim>);

struct Claim {
    role: String,
    record: OwnerRecord,
    policy: Box<dyn OwnerPolicy>,
    is_required: bool,
    /// Serializes claims: one connection of the process at a time.
    turn: Mutex<()>,
}

/// The result of a claim that allows consuming.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Claimed {
    /// The record names this store.
    Recorded,
    /// The user lacks the permission to record; the text is the broker's.
    Forbidden(String),
    /// The broker does not respond, for example without a quorum. It then stores nothing, but still delivers messages.
    Silent(String),
}

impl OwnerClaim {
    /// Creates a claim to the role's queues. If `is_required` is false, consuming starts even if the user may not record the claim.
    #[must_use]
    pub fn new(
        role: &str,
        record: OwnerRecord,
        is_required: bool,
        policy: impl OwnerPolicy,
    ) -> Self {
        Self(Arc::new(Claim {
            role: role.to_owned(),
            record,
            policy: Box::new(policy),
            is_required,
            turn: Mutex::new(()),
        }))
    }

    /// Records the claim, or verifies that it is recorded.
    ///
    /// # Errors
    /// Fails if the queues belong to another store ([`ConnectErrorKind::OtherStore`]), the user may not record a required claim
    /// ([`Denial::Permission`]), the broker does not respond, or the connection is lost.
    pub(crate) async fn check(
        &self,
        connection: &Connection,
        namespace: &Namespace,
        limit: Duration,
    ) -> Result<Claimed> {
        let _turn = self.0.turn.lock().await;
        let mut records = Records::new(connection, namespace, &self.0.role, limit);
        let claimed = match self.try_claim(&mut records).await {
            Ok(Claimed::Forbidden(reason)) if self.0.is_required => Err(records.forbidden(&reason)),
            claimed => claimed,
        };
        records.probe.close().await;
        claimed
    }

    async fn try_claim(&self, records: &mut Records<'_>) -> Result<Claimed> {
        let Claim {
            role,
            record,
            policy,
            ..
        } = &*self.0;
        for _ in 0..MAX_TRIES {
            let is_there = match records.read().await? {
                Found::Forbidden(reason) => return Ok(Claimed::Forbidden(reason)),
                Found::Nothing => false,
                Found::NoRecord => true,
                Found::Record(present) => {
                    let present = self.completed(records, present).await?;
                    if present == record.clone().into() {
                        return Ok(Claimed::Recorded);
                    }
                    if present.store.is_none() {
                        return Err(records.unreadable());
                    }
                    let is_consumed = records.is_consumed().await?;
                    match policy.decide(present, is_consumed).await {
                        OwnerDecision::Keep => return Ok(Claimed::Recorded),
                        OwnerDecision::Replace => true,
                        OwnerDecision::Reject(text) => {
                            return Err(ConnectError::other_store(text));
                        }
                        OwnerDecision::Unknown(reason) => {
                            return Err(ConnectError::protocol(reason));
                        }
                    }
                }
            };
            if is_there && let Some(claimed) = records.delete().await? {
                return Ok(claimed);
            }
            match records.declare(&record.text(role)).await? {
                Some(Claimed::Recorded) => {
                    tracing::debug!(role, store = %record.store, epoch = %record.epoch, "queue owner recorded");
                    return Ok(Claimed::Recorded);
                }
                Some(claimed) => return Ok(claimed),
                None => {}
            }
        }
        Err(records.contested())
    }

    /// Completes a truncated record if it is one of the store's own.
    async fn completed(
        &self,
        records: &mut Records<'_>,
        present: PresentOwner,
    ) -> Result<PresentOwner> {
        let Claim {
            role,
            record,
            policy,
            ..
        } = &*self.0;
        let is_ours = present.store.as_ref().is_none_or(|s| *s == record.store);
        if present.epoch.is_some() || !is_ours {
            return Ok(present);
        }
        let own = std::iter::once(record.clone()).chain(policy.earlier().await);
        for candidate in own.take(MAX_TRIES as usize) {
            if records.declare(&candidate.text(role)).await? == Some(Claimed::Recorded) {
                return Ok(candidate.into());
            }
        }
        Ok(present)
    }
}

/// Gives a role's queues to another store, regardless of the current owner. Returns the previous record. Tries each address once; each
/// broker call is bounded by [`BrokerSettings::connect_timeout`]. If cancelled, it may have taken effect.
///
/// # Errors
/// Fails if the queue has a consumer ([`ConnectErrorKind::OtherStore`]), because that consumer would continue until its connection ends.
/// Also fails if the broker is unreachable, does not respond, or denies permission.
pub async fn take_over(
    settings: &BrokerSettings,
    role: &str,
    record: &OwnerRecord,
) -> Result<Option<PresentOwner>> {
    let (namespace, limit) = (&settings.namespace, settings.connect_timeout);
    let name = format!("{namespace} {role}: take-over");
    let connection = Dialer::new(settings, &name).open().await?;
    let mut records = Records::new(&connection, namespace, role, limit);
    let taken = replace(&mut records, record).await;
    records.probe.close().await;
    connection.close(limit).await;
    taken
}

async fn replace(records: &mut Records<'_>, record: &OwnerRecord) -> Result<Option<PresentOwner>> {
    let forbidden = |records: &Records<'_>, claimed: Claimed| match claimed {
        Claimed::Recorded | Claimed::Silent(_) => records.silence(),
        Claimed::Forbidden(reason) => ConnectError::no_permission(format!(
            "exchange {} cannot be replaced by user {:?}: {reason}; grant the permissions that `consumers topology permissions` prints",
            records.exchange,
            records.probe.connection().address().user()
        )),
    };
    for _ in 0..MAX_TRIES {
        let present = match records.read().await? {
            Found::Record(present) => Some(present),
            Found::Nothing | Found::NoRecord => None,
            Found::Forbidden(reason) => {
                return Err(forbidden(records, Claimed::Forbidden(reason)));
            }
        };
        if records.is_consumed().await? {
            let Records { role, queue, .. } = records;
            return Err(ConnectError::other_store(format!(
                "queue {queue} has an active consumer: stop every process that runs {role} first; if one has just crashed, wait until \
                     the broker has noticed, at most a minute"
            )));
        }
        if let Some(claimed) = records.delete().await? {
            return Err(forbidden(records, claimed));
        }
        match records.declare(&record.text(records.role)).await? {
            Some(Claimed::Recorded) => return Ok(present),
            Some(claimed) => return Err(forbidden(records, claimed)),
            None => {}
        }
    }
    Err(records.contested())
}

/// Reads a role's owner record without changing it.
pub(crate) async fn read_owner(
    connection: &Connection,
    namespace: &Namespace,
    role: &str,
    limit: Duration,
) -> Result<Found> {
    let mut records = Records::new(connection, namespace, role, limit);
    let found = records.read().await;
    records.probe.close().await;
    found
}

/// The content of the place of a record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Found {
    Nothing,
    /// An exchange without a record.
    NoRecord,
    /// A record, as much of it as the broker quotes.
    Record(PresentOwner),
    /// The user may not read the record; the text is the broker's.
    Forbidden(String),
}

/// Reads and writes a role's owner record.
struct Records<'a> {
    probe: ProbeChannel<'a>,
    role: &'a str,
    exchange: String,
    queue: QueueName,
}

impl<'a> Records<'a> {
    fn new(
        connection: &'a Connection,
        namespace: &Namespace,
        role: &'a str,
        limit: Duration,
    ) -> Self {
        Self {
            probe: ProbeChannel::new(connection, limit),
            role,
            exchange: namespace.owner_exchange(role),
            queue: namespace.role_queue(role, 0),
        }
    }

    /// Reads the record without creating one. The broker rejects a number as alternate exchange for a new exchange; for an existing one it
    /// quotes the present value.
    async fn read(&mut self) -> Result<Found> {
        let result = self.try_declare(AMQPValue::ShortShortInt(1)).await?;
        let text = match result {
            ProbeResult::Accepted(()) => return Ok(Found::NoRecord),
            ProbeResult::Rejected(reply::ACCESS_REFUSED, text) => {
                return Ok(Found::Forbidden(text));
            }
            ProbeResult::Rejected(reply::PRECONDITION_FAILED, text) => text,
            ProbeResult::Rejected(code, text) => return Err(self.other(code, &text)),
            ProbeResult::TimedOut => return Err(self.silence()),
        };
        let Some(difference) = PreconditionFailed::read(&text) else {
            return Ok(Found::Nothing);
        };
        if difference.argument != ALTERNATE {
            return Err(self.mismatch(&text));
        }
        let (text, is_cut_off) = match difference.actual {
            ArgumentValue::NotSet => return Ok(Found::NoRecord),
            ArgumentValue::Value { text, .. } => (text, false),
            ArgumentValue::CutOff(visible) => (visible, true),
        };
        // If nothing of the value is left, it may not even be a record.
        if is_cut_off && text.is_empty() {
            return Ok(Found::Record(PresentOwner {
                store: None,
                epoch: None,
                since: None,
            }));
        }
        let record = PresentOwner::read(&text, self.role, is_cut_off);
        Ok(record.map_or(Found::NoRecord, Found::Record))
    }

    /// Declares a record. Returns `None` if there is another one.
    async fn declare(&mut self, text: &str) -> Result<Option<Claimed>> {
        Ok(match self.try_declare(long_string(text)).await? {
            ProbeResult::Accepted(()) => Some(Claimed::Recorded),
            ProbeResult::Rejected(reply::PRECONDITION_FAILED, _) => None,
            ProbeResult::Rejected(reply::ACCESS_REFUSED, text) => Some(Claimed::Forbidden(text)),
            ProbeResult::Rejected(code, text) => return Err(self.other(code, &text)),
            ProbeResult::TimedOut => Some(Claimed::Silent(self.silence().to_string())),
        })
    }

    async fn try_declare(&mut self, alternate: AMQPValue) -> Result<ProbeResult<()>> {
        let exchange = short_string(&self.exchange);
        self.probe
            .try_method(async move |channel: Channel| {
                let mut arguments = FieldTable::default();
                arguments.insert(ALTERNATE.into(), alternate);
                let options = ExchangeDeclareOptions {
                    durable: true,
                    internal: true,
                    ..ExchangeDeclareOptions::default()
                };
                channel
                    .exchange_declare(exchange, ExchangeKind::Fanout, options, arguments)
                    .await
            })
            .await
    }

    /// Deletes the record. Returns the state of the claim if it cannot be deleted.
    async fn delete(&mut self) -> Result<Option<Claimed>> {
        let exchange = short_string(&self.exchange);
        let delete = async move |channel: Channel| {
            let options = ExchangeDeleteOptions {
                if_unused: true,
                ..ExchangeDeleteOptions::default()
            };
            channel.exchange_delete(exchange, options).await
        };
        match self.probe.try_method(delete).await? {
            // Another process of the store may have deleted it first.
            ProbeResult::Accepted(()) | ProbeResult::Rejected(reply::NOT_FOUND, _) => Ok(None),
            ProbeResult::Rejected(reply::ACCESS_REFUSED, text) => {
                Ok(Some(Claimed::Forbidden(text)))
            }
            ProbeResult::Rejected(reply::PRECONDITION_FAILED, text) => Err(self.mismatch(&text)),
            ProbeResult::Rejected(code, text) => Err(self.other(code, &text)),
            ProbeResult::TimedOut => Ok(Some(Claimed::Silent(self.silence().to_string()))),
        }
    }

    async fn is_consumed(&mut self) -> Result<bool> {
        let queue = short_string(self.queue.as_str());
        let inspect = async move |channel: Channel| {
            channel
                .queue_declare(queue, PASSIVE_QUEUE, FieldTable::default())
                .await
        };
        Ok(match self.probe.try_method(inspect).await? {
            ProbeResult::Accepted(queue) => queue.consumer_count() > 0,
            ProbeResult::Rejected(..) | ProbeResult::TimedOut => false,
        })
    }

    fn mismatch(&self, text: &str) -> ConnectError {
        let Self {
            exchange, queue, ..
        } = self;
        let address = self.probe.connection().address();
        ConnectError::mismatch(format!(
            "exchange {exchange} on {address} must record which store owns queue {queue}, but is used for something else ({text}): \
                 delete it, or choose another namespace"
        ))
    }

    fn forbidden(&self, reason: &str) -> ConnectError {
        let Self {
            exchange, queue, ..
        } = self;
        let address = self.probe.connection().address();
        let user = address.user();
        ConnectError::no_permission(format!(
            "exchange {exchange} on {address} must record which store owns queue {queue}, but user {user:?} cannot declare it \
                 ({reason}): grant the permissions that `consumers topology permissions` prints, or start with --without-owner-record; then nothing keeps \
                 another store from taking the queue's events"
        ))
    }

    fn unreadable(&self) -> ConnectError {
        let Self {
            role,
            exchange,
            queue,
            ..
        } = self;
        let address = self.probe.connection().address();
        ConnectError::other_store(format!(
            "queue {queue} on {address} belongs to a store whose name the broker cuts off, because the names of namespace and virtual host are too \
                 long; it is not one of this store's last {MAX_TRIES} starts. The alternate exchange of {exchange} names it in the management \
                 UI; `consumers store take-over {role}` gives the queue to this store"
        ))
    }

    fn contested(&self) -> ConnectError {
        ConnectError::protocol(format!(
            "exchange {} is continually replaced by other processes",
            self.exchange
        ))
    }

    fn silence(&self) -> ConnectError {
        self.probe.timed_out(&format!("exchange {}", self.exchange))
    }

    fn other(&self, code: u16, text: &str) -> ConnectError {
        self.probe
            .rejected(&format!("exchange {}", self.exchange), code, text)
    }
}

const ALTERNATE: &str = "alternate-exchange";
