//! Declaring a topology: quick, repeatable, and with an answer that says what had to be made.
//!
//! Everything is looked for before it is declared. That tells whether a queue had to be created, which for a role that already has a
//! past means possible loss. And what is there already is enough: for a user who may not declare, and for a broker that has lost its
//! majority and can write nothing down, but still passes messages. A declaration of what is there only verifies its arguments.

mod marker;

use std::{
    collections::BTreeSet,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use lapin::{
    Channel,
    options::{ExchangeDeclareOptions, QueueBindOptions, QueueDeclareOptions},
    types::{AMQPValue, FieldTable, LongString},
};

use crate::{
    address::Address,
    connection::{Connection, unknown_kind},
    error::{ConnectError, ConnectErrorKind, Refusal, reply},
    names::QueueName,
    precondition_failed::{ArgumentValue, PreconditionFailed},
    probe_channel::{ProbeChannel, ProbeResult},
    topology::{Argument, Binding, Exchange, Queue, QueuePurpose, Topology},
    verify::{Finding, is_enough},
};

pub(crate) use marker::{MarkerState, check_marker};

/// Declares everything and returns the queues that had to be created, without those of which nothing can be lost that matters.
///
/// # Errors
/// Something exists with other arguments ([`ConnectErrorKind::Mismatch`]), is not there and may not be made
/// ([`Refusal::Permission`]) or cannot be made for now ([`ConnectErrorKind::Silent`]), or the connection is lost.
pub(crate) async fn declare(
    connection: &Connection,
    topology: &Topology,
    limit: Duration,
) -> Result<Vec<QueueName>, ConnectError> {
    let mut declarer = Declarer::new(connection, limit);
    if !is_enough(connection.frame_max()) {
        let bytes = connection.frame_max();
        tracing::warn!("{}", Finding::SmallFrames { bytes });
    }
    for exchange in &topology.exchanges {
        declarer.exchange(exchange).await?;
    }
    for queue in &topology.queues {
        let existence = declarer.queue(queue).await?;
        if existence == Existence::Created && queue.purpose.is_durable_work() {
            declarer.created.push(queue.name.clone());
        }
    }
    for binding in &topology.bindings {
        declarer.bind(binding).await?;
    }
    if declarer.not_verified > 0 {
        tracing::info!(
            count = declarer.not_verified,
            "bindings or queues not verified, since this user may not or the broker does not answer; they are taken to be there"
        );
    }
    declarer.asker.close().await;
    log_created_once(connection.address(), &declarer.created);
    Ok(declarer.created)
}

/// The outcome of binding again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Rebound {
    /// Everything is bound.
    All,
    /// The user may not bind, for this reason.
    Forbidden(String),
}

/// Binds again what somebody may have unbound. A binding that is there stays as it is, so in the usual case the broker writes nothing down.
/// An exchange that is gone is declared again. Cancel-safe: every step may be the last.
///
/// # Errors
/// As [`declare`]; also if the broker does not answer.
pub(crate) async fn rebind(
    connection: &Connection,
    topology: &Topology,
    limit: Duration,
) -> Result<Rebound, ConnectError> {
    let mut declarer = Declarer::new(connection, limit);
    for binding in &topology.bindings {
        let mut answer = declarer.ask_to_bind(binding).await?;
        if let ProbeResult::No(reply::NOT_FOUND, _) = answer {
            let of_binding = |exchange: &&Exchange| exchange.name == binding.exchange;
            for exchange in topology.exchanges.iter().filter(of_binding) {
                declarer.exchange(exchange).await?;
            }
            answer = declarer.ask_to_bind(binding).await?;
        }
        let queue = binding.queue.as_str();
        match answer {
            ProbeResult::Yes(()) => {}
            ProbeResult::No(reply::ACCESS_REFUSED, reason) => {
                return Ok(Rebound::Forbidden(reason));
            }
            ProbeResult::No(code, text) => {
                return Err(declarer.other("binding of queue", queue, code, &text));
            }
            ProbeResult::Silence => return Err(declarer.silence("binding of queue", queue)),
        }
    }
    if declarer.makes {
        tracing::warn!(
            address = %connection.address(),
            "an exchange was gone and is declared again: what was published meanwhile was refused"
        );
    }
    declarer.asker.close().await;
    Ok(Rebound::All)
}

/// Tells of queues that were created, each once a process: where several connections declare at once, one's view of who was first is
/// not worth a line of its own.
fn log_created_once(address: &Address, created: &[QueueName]) {
    /// More than any process declares; whatever is beyond is told again.
    const MAX_LOGGED: usize = 10_000;
    static LOGGED: Mutex<BTreeSet<(String, QueueName)>> = Mutex::new(BTreeSet::new());
    let mut told = LOGGED.lock().unwrap_or_else(PoisonError::into_inner);
    if told.len() > MAX_LOGGED {
        told.clear();
    }
    let place = address.to_string();
    let news: Vec<_> = created
        .iter()
        .filter(|queue| told.insert((place.clone(), QueueName::clone(queue))))
        .collect();
    if !news.is_empty() {
        tracing::info!(%address, queues = ?news, "queues created");
    }
}

struct Declarer<'a> {
    asker: ProbeChannel<'a>,
    verifying: Verifying,
    /// Queues that were not there, without those that only show copies.
    created: Vec<QueueName>,
    /// Whether anything was made.
    makes: bool,
    /// Bindings, and what is hidden from this user, that could be neither made nor compared.
    not_verified: u32,
}

/// How much is asked for beyond what is needed.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Verifying {
    /// Arguments of what is there, and bindings.
    Everything,
    /// The broker has left such a question unanswered; another would cost as much time and be as vain.
    Nothing,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Existence {
    Found,
    Created,
}

impl<'a> Declarer<'a> {
    fn new(connection: &'a Connection, limit: Duration) -> Self {
        Self {
            asker: ProbeChannel::new(connection, limit),
            verifying: Verifying::Everything,
            created: Vec::new(),
            makes: false,
            not_verified: 0,
        }
    }

    async fn exchange(&mut self, exchange: &Exchange) -> Result<(), ConnectError> {
        let name = exchange.name.as_str();
        let request = |passive| {
            let kind = lapin::ExchangeKind::Custom(exchange.kind.as_str().to_owned());
            let options = ExchangeDeclareOptions {
                passive,
                durable: true,
                ..ExchangeDeclareOptions::default()
            };
            async move |channel: Channel| {
                channel
                    .exchange_declare(name.into(), kind, options, FieldTable::default())
                    .await
            }
        };
        let mut hidden = false;
        let found = match self.asker.try_method(request(true)).await? {
            ProbeResult::Yes(()) => true,
            ProbeResult::No(code, _) => {
                hidden = code == reply::ACCESS_REFUSED;
                false
            }
            ProbeResult::Silence => return Err(self.silence("exchange", name)),
        };
        if found && self.verifying == Verifying::Nothing {
            return Ok(());
        }
        match self.asker.try_method(request(false)).await? {
            ProbeResult::Yes(()) => {
                self.makes |= !found;
                Ok(())
            }
            ProbeResult::No(reply::ACCESS_REFUSED, _) if found || self.assume_exists(hidden) => {
                Ok(())
            }
            ProbeResult::Silence if found => {
                self.verifying = Verifying::Nothing;
                Ok(())
            }
            ProbeResult::No(reply::ACCESS_REFUSED, text) => {
                Err(self.forbidden("exchange", name, &text))
            }
            ProbeResult::No(reply::PRECONDITION_FAILED, text) => {
                let address = self.asker.connection().address();
                Err(unknown_kind(address, &text).unwrap_or_else(|| ConnectError::new(
                    ConnectErrorKind::Mismatch,
                    format!(
                        "exchange {name} exists on {address} with other properties ({text}): delete it while nothing runs, or choose another namespace"
                    ),
                )))
            }
            ProbeResult::No(code, text) => Err(self.other("exchange", name, code, &text)),
            ProbeResult::Silence => Err(self.silence("exchange", name)),
        }
    }

    async fn queue(&mut self, queue: &Queue) -> Result<Existence, ConnectError> {
        let name = queue.name.as_str();
        let request = |passive, arguments| {
            let options = QueueDeclareOptions {
                passive,
                durable: true,
                ..QueueDeclareOptions::default()
            };
            async move |channel: Channel| {
                channel.queue_declare(name.into(), options, arguments).await
            }
        };
        let mut hidden = false;
        let found = match self
            .asker
            .try_method(request(true, FieldTable::default()))
            .await?
        {
            ProbeResult::Yes(_) => true,
            // Also if we may not look: the declaration says whether we may make it.
            ProbeResult::No(code @ (reply::NOT_FOUND | reply::ACCESS_REFUSED), _) => {
                hidden = code == reply::ACCESS_REFUSED;
                false
            }
            ProbeResult::No(code, text) => return Err(self.other("queue", name, code, &text)),
            ProbeResult::Silence => return Err(self.silence("queue", name)),
        };
        if found && self.verifying == Verifying::Nothing {
            return Ok(Existence::Found);
        }
        match self.asker.try_method(request(false, table(queue))).await? {
            ProbeResult::Yes(_) if found => Ok(Existence::Found),
            ProbeResult::Yes(_) => {
                self.makes = true;
                Ok(Existence::Created)
            }
            ProbeResult::No(reply::PRECONDITION_FAILED | reply::RESOURCE_LOCKED, text) => {
                Err(self.mismatch(queue, &text))
            }
            ProbeResult::No(reply::ACCESS_REFUSED, _) if found || self.assume_exists(hidden) => {
                Ok(Existence::Found)
            }
            ProbeResult::Silence if found => {
                self.verifying = Verifying::Nothing;
                Ok(Existence::Found)
            }
            ProbeResult::No(reply::ACCESS_REFUSED, text) => {
                Err(self.forbidden("queue", name, &text))
            }
            // To a declaration this means that the queue is there, on a node of the cluster that is away. It is a classic one, so
            // requests to one role have to wait for that node, and nothing else has.
            ProbeResult::No(reply::NOT_FOUND, text) if queue.purpose == QueuePurpose::Rpc => {
                tracing::warn!(queue = %queue.name, reason = text, "a queue of requests is out of reach");
                self.not_verified += 1;
                Ok(Existence::Found)
            }
            ProbeResult::No(code, text) => Err(self.other("queue", name, code, &text)),
            ProbeResult::Silence => Err(self.silence("queue", name)),
        }
    }

    /// Whether something that we may neither look at nor make is to be taken for what somebody else has made. Newer brokers hide what a
    /// user has no right to at all, as a producer has none to the queues. Who has just made one part is meant to make the others, too.
    fn assume_exists(&mut self, hidden: bool) -> bool {
        let taken = hidden && !self.makes;
        self.not_verified += u32::from(taken);
        taken
    }

    async fn ask_to_bind(&mut self, binding: &Binding) -> Result<ProbeResult<()>, ConnectError> {
        let request = async move |channel: Channel| {
            channel
                .queue_bind(
                    binding.queue.as_str().into(),
                    binding.exchange.as_str().into(),
                    binding.routing_key.as_str().into(),
                    QueueBindOptions::default(),
                    FieldTable::default(),
                )
                .await
        };
        self.asker.try_method(request).await
    }

    async fn bind(&mut self, binding: &Binding) -> Result<(), ConnectError> {
        let answer = match self.verifying {
            Verifying::Everything => self.ask_to_bind(binding).await?,
            Verifying::Nothing => ProbeResult::Silence,
        };
        let reason = match answer {
            ProbeResult::Yes(()) => return Ok(()),
            // What has just been created has no bindings yet.
            ProbeResult::No(reply::ACCESS_REFUSED, text)
                if self.created.contains(&binding.queue) =>
            {
                return Err(self.forbidden("binding of queue", binding.queue.as_str(), &text));
            }
            ProbeResult::No(reply::ACCESS_REFUSED, text) => text,
            ProbeResult::No(code, text) => {
                return Err(self.other("binding of queue", binding.queue.as_str(), code, &text));
            }
            ProbeResult::Silence => {
                self.verifying = Verifying::Nothing;
                "no answer".to_owned()
            }
        };
        // Bindings cannot be looked at over AMQP. Exchange and queue are there, so whoever made them has most likely bound them; and if
        // not, `consumers topology verify` says so where it may ask the management API.
        let Binding {
            exchange,
            queue,
            routing_key,
        } = binding;
        tracing::debug!(%queue, exchange, routing_key, reason, "binding not verified");
        self.not_verified += 1;
        Ok(())
    }

    fn mismatch(&self, queue: &Queue, text: &str) -> ConnectError {
        let name = &queue.name;
        let what = match PreconditionFailed::read(text) {
            Some(PreconditionFailed {
                argument,
                there,
                wanted,
            }) if !matches!(there, ArgumentValue::CutOff(_)) => {
                format!("{argument} is {there} there and {wanted} is wanted")
            }
            _ => text.to_owned(),
        };
        let address = self.asker.connection().address();
        ConnectError::new(
            ConnectErrorKind::Mismatch,
            format!(
                "queue {name} exists on {address} with other arguments: {what}; let it run empty and delete it with rabbitmqctl delete_queue -p {} {name}, or choose another namespace (`consumers topology verify` lists all that differs)",
                address.vhost(),
            ),
        )
    }

    fn forbidden(&self, what: &str, name: &str, text: &str) -> ConnectError {
        let address = self.asker.connection().address();
        let (user, vhost) = (address.user(), address.vhost());
        ConnectError::new(
            ConnectErrorKind::Refused(Refusal::Permission),
            format!(
                "{what} {name} does not exist on {address} and user {user:?} may not create it ({text}): grant it with rabbitmqctl set_permissions -p {vhost} {user} '.*' '.*' '.*', or as `consumers topology permissions` shows",
            ),
        )
    }

    fn silence(&self, what: &str, name: &str) -> ConnectError {
        ConnectError::new(
            ConnectErrorKind::Silent,
            format!(
                "{} has not answered for {:?} about {what} {name}: has its cluster lost its majority?",
                self.asker.connection().address(),
                self.asker.limit(),
            ),
        )
    }

    fn other(&self, what: &str, name: &str, code: u16, text: &str) -> ConnectError {
        ConnectError::new(
            ConnectErrorKind::Protocol,
            format!(
                "{} answers to the declaration of {what} {name}: {text} ({code})",
                self.asker.connection().address()
            ),
        )
    }
}

/// A queue's arguments in the client's form.
pub(crate) fn table(queue: &Queue) -> FieldTable {
    let mut table = FieldTable::default();
    for (name, value) in &queue.arguments {
        let value = match value {
            Argument::Text(text) => AMQPValue::LongString(LongString::from(text.as_str())),
            Argument::Number(number) => AMQPValue::LongLongInt(*number),
            Argument::Flag(flag) => AMQPValue::Boolean(*flag),
        };
        table.insert((*name).into(), value);
    }
    table
}
