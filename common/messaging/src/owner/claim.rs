//! Recording at the broker which store a role's queues belong to, before anything is consumed from them.
//!
//! The record is the argument `alternate-exchange` of an exchange that nothing is published to. It is the one argument that the broker
//! compares when the exchange is declared again, and whose present value its refusal tells. It need not name an exchange that exists.
//!
//! An argument cannot be changed, so a newer record replaces an older one in two steps: delete and declare. In between there is none for
//! the time of one round trip, or until the next start if the process dies there. A store that starts in that moment takes the queue, and
//! the one that was replacing its record is refused by its declaration: never do both believe that they have recorded themselves.

use std::{fmt, sync::Arc, time::Duration};

use futures_util::future::BoxFuture;
use lapin::{
    Channel, ExchangeKind,
    options::{ExchangeDeclareOptions, ExchangeDeleteOptions, QueueDeclareOptions},
    types::{AMQPValue, FieldTable, LongString},
};
use tokio::sync::Mutex;

use super::record::{OwnerRecord, PresentOwner};
use crate::{
    connection::{Connection, Dialer},
    error::{ConnectError, ConnectErrorKind, Refusal, reply},
    message::short_string,
    names::QueueName,
    precondition_failed::{ArgumentValue, PreconditionFailed},
    probe_channel::{ProbeChannel, ProbeResult},
    settings::{BrokerSettings, Namespace},
};

/// The most tries of a record that others change at the same time, as when many processes of one store start.
const MAX_TRIES: u32 = 50;

/// The meaning of a present record for the store that claims the queues.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OwnerDecision {
    /// It stays: it is of the same store, by a process that has started later.
    Keep,
    /// It is replaced by the claim's own.
    Replace,
    /// The queues belong to another store, in these words.
    Refuse(String),
    /// That cannot be told now, for this reason; it is asked again.
    Unknown(String),
}

/// Decides what the record of another start means, since only a store knows which starts were its own.
pub trait OwnerPolicy: Send + Sync + 'static {
    /// Decides about a record that is there. `is_consumed` tells whether a consumer is active on the role's queue.
    fn decide(&self, present: PresentOwner, is_consumed: bool) -> BoxFuture<'_, OwnerDecision>;

    /// Lists records of earlier starts of the store, the newest first: compared one by one with a record whose end is cut off.
    fn earlier(&self) -> BoxFuture<'_, Vec<OwnerRecord>>;
}

/// The claim of one start of a store to the queues of its role. Clones share it.
#[derive(Clone)]
pub struct OwnerClaim(Arc<Claim>);

struct Claim {
    role: String,
    record: OwnerRecord,
    policy: Box<dyn OwnerPolicy>,
    is_required: bool,
    /// One connection of the process at a time.
    turn: Mutex<()>,
}

impl fmt::Debug for OwnerClaim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OwnerClaim")
            .field("role", &self.0.role)
            .field("record", &self.0.record)
            .finish_non_exhaustive()
    }
}

/// The state of a claim once nothing speaks against consuming.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Claimed {
    /// The record names the store.
    Recorded,
    /// The user may not record anything, in the broker's words.
    Forbidden(String),
    /// The broker does not answer for now, as without a majority: then it writes nothing down, and hands out messages all the same.
    Silent(String),
}

impl OwnerClaim {
    /// A claim to the queues of this role. Unless it is required, consuming begins also where the user may not record it.
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

    /// Records the claim, or finds it recorded.
    ///
    /// # Errors
    /// The queues belong to another store ([`ConnectErrorKind::OtherStore`]), the user may not record it and it is required
    /// ([`Refusal::Permission`]), the broker does not answer, or the connection is lost.
    pub(crate) async fn check(
        &self,
        connection: &Connection,
        namespace: &Namespace,
        limit: Duration,
    ) -> Result<Claimed, ConnectError> {
        let _turn = self.0.turn.lock().await;
        let mut records = Records::new(connection, namespace, &self.0.role, limit);
        let claimed = self.settle(&mut records).await;
        records.asker.close().await;
        match claimed? {
            Claimed::Forbidden(reason) if self.0.is_required => {
                Err(forbidden(connection, namespace, &self.0.role, &reason))
            }
            claimed => Ok(claimed),
        }
    }

    async fn settle(&self, records: &mut Records<'_>) -> Result<Claimed, ConnectError> {
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
                        return Err(records.illegible());
                    }
                    let is_consumed = records.is_consumed().await?;
                    match policy.decide(present, is_consumed).await {
                        OwnerDecision::Keep => return Ok(Claimed::Recorded),
                        OwnerDecision::Replace => true,
                        OwnerDecision::Refuse(text) => {
                            return Err(ConnectError::new(ConnectErrorKind::OtherStore, text));
                        }
                        OwnerDecision::Unknown(reason) => {
                            return Err(ConnectError::new(ConnectErrorKind::Protocol, reason));
                        }
                    }
                }
            };
            if is_there && let Some(claimed) = records.delete().await? {
                return Ok(claimed);
            }
            match records.declare(&record.text(role)).await? {
                Declared::Yes => {
                    tracing::debug!(role, store = %record.store, epoch = %record.epoch, "owner of the queues recorded");
                    return Ok(Claimed::Recorded);
                }
                Declared::Differs => {}
                Declared::No(claimed) => return Ok(claimed),
            }
        }
        Err(records.unsteady())
    }

    /// Finds out what is cut off of a record, if it is one of the store's own.
    async fn completed(
        &self,
        records: &mut Records<'_>,
        present: PresentOwner,
    ) -> Result<PresentOwner, ConnectError> {
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
            if matches!(records.declare(&candidate.text(role)).await?, Declared::Yes) {
                return Ok(candidate.into());
            }
        }
        Ok(present)
    }
}

/// Gives the queues of a role to another store, whoever they belong to. Returns the record that was there. One attempt is made on each
/// address, and each question has the bound of [`BrokerSettings::connect_timeout`]. May be cancelled: it may then be done already.
///
/// # Errors
/// The queue is being consumed from ([`ConnectErrorKind::OtherStore`]), since whoever does so would go on until its connection ends; or
/// the broker cannot be reached, does not answer, or does not let us.
pub async fn take_over(
    settings: &BrokerSettings,
    role: &str,
    record: &OwnerRecord,
) -> Result<Option<PresentOwner>, ConnectError> {
    let (namespace, limit) = (&settings.namespace, settings.connect_timeout);
    let name = format!("{namespace} {role}: is taken over");
    let connection = Dialer::new(settings, &name).open().await?;
    let mut records = Records::new(&connection, namespace, role, limit);
    let taken = replace(&mut records, record).await;
    records.asker.close().await;
    connection.close(limit).await;
    taken
}

async fn replace(
    records: &mut Records<'_>,
    record: &OwnerRecord,
) -> Result<Option<PresentOwner>, ConnectError> {
    let forbidden = |records: &Records<'_>, claimed: Claimed| match claimed {
        Claimed::Recorded | Claimed::Silent(_) => records.silence(),
        Claimed::Forbidden(reason) => ConnectError::new(
            ConnectErrorKind::Refused(Refusal::Permission),
            format!(
                "exchange {} cannot be declared anew by user {:?} ({reason}): grant it as `consumers topology permissions` shows",
                records.exchange,
                records.asker.connection().address().user()
            ),
        ),
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
            return Err(ConnectError::new(
                ConnectErrorKind::OtherStore,
                format!(
                    "queue {queue} is being consumed from: stop every process that runs {role} first; if one has just crashed, wait until \
                     the broker has noticed, a minute at most"
                ),
            ));
        }
        if let Some(claimed) = records.delete().await? {
            return Err(forbidden(records, claimed));
        }
        match records.declare(&record.text(records.role)).await? {
            Declared::Yes => return Ok(present),
            Declared::Differs => {}
            Declared::No(claimed) => return Err(forbidden(records, claimed)),
        }
    }
    Err(records.unsteady())
}

/// Looks at the record of a role's owner without changing it.
pub(crate) async fn look(
    connection: &Connection,
    namespace: &Namespace,
    role: &str,
    limit: Duration,
) -> Result<Found, ConnectError> {
    let mut records = Records::new(connection, namespace, role, limit);
    let found = records.read().await;
    records.asker.close().await;
    found
}

/// The content of the place of a record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Found {
    /// No exchange.
    Nothing,
    /// An exchange without a record.
    NoRecord,
    /// A record, as far as the broker tells it.
    Record(PresentOwner),
    /// The user may not look, in the broker's words.
    Forbidden(String),
}

enum Declared {
    Yes,
    /// Another record is there.
    Differs,
    /// It cannot be made by this user, or for now.
    No(Claimed),
}

/// The way to a role's record.
struct Records<'a> {
    asker: ProbeChannel<'a>,
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
            asker: ProbeChannel::new(connection, limit),
            role,
            exchange: namespace.owner_exchange(role),
            queue: namespace.role_queue(role, 0),
        }
    }

    /// Reads the record. Creates none: the broker refuses to create an exchange with a number for its alternate, and of one that is there
    /// it tells the present value.
    async fn read(&mut self) -> Result<Found, ConnectError> {
        let answer = self.ask(AMQPValue::ShortShortInt(1)).await?;
        let text = match answer {
            ProbeResult::Yes(()) => return Ok(Found::NoRecord),
            ProbeResult::No(reply::ACCESS_REFUSED, text) => return Ok(Found::Forbidden(text)),
            ProbeResult::No(reply::PRECONDITION_FAILED, text) => text,
            ProbeResult::No(code, text) => return Err(self.other(code, &text)),
            ProbeResult::Silence => return Err(self.silence()),
        };
        let Some(difference) = PreconditionFailed::read(&text) else {
            return Ok(Found::Nothing);
        };
        if difference.argument != ALTERNATE {
            return Err(self.mismatch(&text));
        }
        let (text, is_cut_off) = match difference.there {
            ArgumentValue::NotSet => return Ok(Found::NoRecord),
            ArgumentValue::Value { text, .. } => (text, false),
            ArgumentValue::CutOff(visible) => (visible, true),
        };
        // Of a value that is cut off before it begins nothing is known, not even whether it is a record.
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

    async fn declare(&mut self, text: &str) -> Result<Declared, ConnectError> {
        let value = AMQPValue::LongString(LongString::from(text));
        Ok(match self.ask(value).await? {
            ProbeResult::Yes(()) => Declared::Yes,
            ProbeResult::No(reply::PRECONDITION_FAILED, _) => Declared::Differs,
            ProbeResult::No(reply::ACCESS_REFUSED, text) => Declared::No(Claimed::Forbidden(text)),
            ProbeResult::No(code, text) => return Err(self.other(code, &text)),
            ProbeResult::Silence => Declared::No(Claimed::Silent(self.silence().to_string())),
        })
    }

    async fn ask(&mut self, alternate: AMQPValue) -> Result<ProbeResult<()>, ConnectError> {
        let exchange = short_string(&self.exchange);
        self.asker
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

    /// Deletes the record. Returns how the claim stands if it cannot be deleted.
    async fn delete(&mut self) -> Result<Option<Claimed>, ConnectError> {
        let exchange = short_string(&self.exchange);
        let delete = async move |channel: Channel| {
            let options = ExchangeDeleteOptions {
                if_unused: true,
                ..ExchangeDeleteOptions::default()
            };
            channel.exchange_delete(exchange, options).await
        };
        match self.asker.try_method(delete).await? {
            // Another process of the store may have been quicker.
            ProbeResult::Yes(()) | ProbeResult::No(reply::NOT_FOUND, _) => Ok(None),
            ProbeResult::No(reply::ACCESS_REFUSED, text) => Ok(Some(Claimed::Forbidden(text))),
            ProbeResult::No(reply::PRECONDITION_FAILED, text) => Err(self.mismatch(&text)),
            ProbeResult::No(code, text) => Err(self.other(code, &text)),
            ProbeResult::Silence => Ok(Some(Claimed::Silent(self.silence().to_string()))),
        }
    }

    /// Returns whether a consumer is active on the role's queue.
    async fn is_consumed(&mut self) -> Result<bool, ConnectError> {
        let queue = short_string(self.queue.as_str());
        let look = async move |channel: Channel| {
            let passive = QueueDeclareOptions {
                passive: true,
                durable: true,
                ..QueueDeclareOptions::default()
            };
            channel
                .queue_declare(queue, passive, FieldTable::default())
                .await
        };
        Ok(match self.asker.try_method(look).await? {
            ProbeResult::Yes(queue) => queue.consumer_count() > 0,
            ProbeResult::No(..) | ProbeResult::Silence => false,
        })
    }

    fn mismatch(&self, text: &str) -> ConnectError {
        let Self {
            exchange, queue, ..
        } = self;
        let address = self.asker.connection().address();
        ConnectError::new(
            ConnectErrorKind::Mismatch,
            format!(
                "exchange {exchange} on {address} is to record which store queue {queue} belongs to, and is used for something else ({text}): \
                 delete it, or choose another namespace"
            ),
        )
    }

    /// The text of the store is not told at all.
    fn illegible(&self) -> ConnectError {
        let Self {
            role,
            exchange,
            queue,
            ..
        } = self;
        let address = self.asker.connection().address();
        ConnectError::new(
            ConnectErrorKind::OtherStore,
            format!(
                "queue {queue} on {address} belongs to a store whose name the broker does not tell, since namespace and virtual host are too \
                 long; it is none of the last {MAX_TRIES} starts of this one. The alternate exchange of {exchange} names it in the management \
                 UI; `consumers store take-over {role}` gives the queue to this store"
            ),
        )
    }

    fn unsteady(&self) -> ConnectError {
        ConnectError::new(
            ConnectErrorKind::Protocol,
            format!(
                "exchange {} is declared anew by others all the time",
                self.exchange
            ),
        )
    }

    fn silence(&self) -> ConnectError {
        ConnectError::new(
            ConnectErrorKind::Silent,
            format!(
                "{} has not answered for {:?} about exchange {}: has its cluster lost its majority?",
                self.asker.connection().address(),
                self.asker.limit(),
                self.exchange
            ),
        )
    }

    fn other(&self, code: u16, text: &str) -> ConnectError {
        ConnectError::new(
            ConnectErrorKind::Protocol,
            format!(
                "{} answers to the declaration of exchange {}: {text} ({code})",
                self.asker.connection().address(),
                self.exchange
            ),
        )
    }
}

/// The argument that holds the record.
const ALTERNATE: &str = "alternate-exchange";

fn forbidden(
    connection: &Connection,
    namespace: &Namespace,
    role: &str,
    reason: &str,
) -> ConnectError {
    let queue = namespace.role_queue(role, 0);
    let exchange = namespace.owner_exchange(role);
    let address = connection.address();
    let user = address.user();
    ConnectError::new(
        ConnectErrorKind::Refused(Refusal::Permission),
        format!(
            "exchange {exchange} on {address} is to record which store queue {queue} belongs to, and user {user:?} cannot declare it \
             ({reason}): grant it as `consumers topology permissions` shows, or start with --without-owner-record, and then nothing keeps \
             another store from taking the queue's events"
        ),
    )
}
