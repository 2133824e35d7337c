//! Declaring a topology: quick, repeatable, and with an answer that says what had to be made.
//!
//! Everything is looked for before it is declared. That tells whether a queue had to be created, which for a role that already has a
//! past means possible loss. And what is there already is enough: for a user who may not declare, and for a broker that has lost its
//! majority and can write nothing down, but still passes messages. A declaration of what is there only verifies its arguments.

mod mark;

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
    asker::{Answer, Asker},
    connection::{Connection, unknown_kind},
    difference::{Difference, Told},
    error::{ConnectError, ConnectErrorKind, Refusal, reply},
    names::QueueName,
    topology::{Argument, Binding, Exchange, Queue, QueuePurpose, Topology},
    verify::{Finding, is_enough},
};

pub(crate) use mark::{Marked, check_mark};

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
        if existence == Existence::Created && queue.purpose.keeps_what_must_not_be_lost() {
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
    declarer.asker.finish().await;
    tell(connection.address(), &declarer.created);
    Ok(declarer.created)
}

/// The outcome of binding again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum BoundAgain {
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
pub(crate) async fn bind_again(
    connection: &Connection,
    topology: &Topology,
    limit: Duration,
) -> Result<BoundAgain, ConnectError> {
    let mut declarer = Declarer::new(connection, limit);
    for binding in &topology.bindings {
        let mut answer = declarer.ask_to_bind(binding).await?;
        if let Answer::No(reply::NOT_FOUND, _) = answer {
            let of_binding = |exchange: &&Exchange| exchange.name == binding.exchange;
            for exchange in topology.exchanges.iter().filter(of_binding) {
                declarer.exchange(exchange).await?;
            }
            answer = declarer.ask_to_bind(binding).await?;
        }
        let queue = binding.queue.as_str();
        match answer {
            Answer::Yes(()) => {}
            Answer::No(reply::ACCESS_REFUSED, reason) => return Ok(BoundAgain::Forbidden(reason)),
            Answer::No(code, text) => {
                return Err(declarer.other("binding of queue", queue, code, &text));
            }
            Answer::Silence => return Err(declarer.silence("binding of queue", queue)),
        }
    }
    if declarer.makes {
        tracing::warn!(
            address = %connection.address(),
            "an exchange was gone and is declared again: what was published meanwhile was refused"
        );
    }
    declarer.asker.finish().await;
    Ok(BoundAgain::All)
}

/// Tells of queues that were created, each once a process: where several connections declare at once, one's view of who was first is
/// not worth a line of its own.
fn tell(address: &Address, created: &[QueueName]) {
    /// More than any process declares; whatever is beyond is told again.
    const REMEMBERED: usize = 10_000;
    static TOLD: Mutex<BTreeSet<(String, QueueName)>> = Mutex::new(BTreeSet::new());
    let mut told = TOLD.lock().unwrap_or_else(PoisonError::into_inner);
    if told.len() > REMEMBERED {
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
    asker: Asker<'a>,
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
            asker: Asker::new(connection, limit),
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
        let found = match self.asker.ask(request(true)).await? {
            Answer::Yes(()) => true,
            Answer::No(code, _) => {
                hidden = code == reply::ACCESS_REFUSED;
                false
            }
            Answer::Silence => return Err(self.silence("exchange", name)),
        };
        if found && self.verifying == Verifying::Nothing {
            return Ok(());
        }
        match self.asker.ask(request(false)).await? {
            Answer::Yes(()) => {
                self.makes |= !found;
                Ok(())
            }
            Answer::No(reply::ACCESS_REFUSED, _) if found || self.is_taken_to_be_there(hidden) => {
                Ok(())
            }
            Answer::Silence if found => {
                self.verifying = Verifying::Nothing;
                Ok(())
            }
            Answer::No(reply::ACCESS_REFUSED, text) => Err(self.forbidden("exchange", name, &text)),
            Answer::No(reply::PRECONDITION_FAILED, text) => {
                let address = self.asker.connection().address();
                Err(unknown_kind(address, &text).unwrap_or_else(|| ConnectError::new(
                    ConnectErrorKind::Mismatch,
                    format!(
                        "exchange {name} exists on {address} with other properties ({text}): delete it while nothing runs, or choose another namespace"
                    ),
                )))
            }
            Answer::No(code, text) => Err(self.other("exchange", name, code, &text)),
            Answer::Silence => Err(self.silence("exchange", name)),
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
        let found = match self.asker.ask(request(true, FieldTable::default())).await? {
            Answer::Yes(_) => true,
            // Also if we may not look: the declaration says whether we may make it.
            Answer::No(code @ (reply::NOT_FOUND | reply::ACCESS_REFUSED), _) => {
                hidden = code == reply::ACCESS_REFUSED;
                false
            }
            Answer::No(code, text) => return Err(self.other("queue", name, code, &text)),
            Answer::Silence => return Err(self.silence("queue", name)),
        };
        if found && self.verifying == Verifying::Nothing {
            return Ok(Existence::Found);
        }
        match self.asker.ask(request(false, table(queue))).await? {
            Answer::Yes(_) if found => Ok(Existence::Found),
            Answer::Yes(_) => {
                self.makes = true;
                Ok(Existence::Created)
            }
            Answer::No(reply::PRECONDITION_FAILED | reply::RESOURCE_LOCKED, text) => {
                Err(self.mismatch(queue, &text))
            }
            Answer::No(reply::ACCESS_REFUSED, _) if found || self.is_taken_to_be_there(hidden) => {
                Ok(Existence::Found)
            }
            Answer::Silence if found => {
                self.verifying = Verifying::Nothing;
                Ok(Existence::Found)
            }
            Answer::No(reply::ACCESS_REFUSED, text) => Err(self.forbidden("queue", name, &text)),
            // To a declaration this means that the queue is there, on a node of the cluster that is away. It is a classic one, so
            // requests to one role have to wait for that node, and nothing else has.
            Answer::No(reply::NOT_FOUND, text) if queue.purpose == QueuePurpose::Rpc => {
                tracing::warn!(queue = %queue.name, reason = text, "a queue of requests is out of reach");
                self.not_verified += 1;
                Ok(Existence::Found)
            }
            Answer::No(code, text) => Err(self.other("queue", name, code, &text)),
            Answer::Silence => Err(self.silence("queue", name)),
        }
    }

    /// Whether something that we may neither look at nor make is to be taken for what somebody else has made. Newer brokers hide what a
    /// user has no right to at all, as a producer has none to the queues. Who has just made one part is meant to make the others, too.
    fn is_taken_to_be_there(&mut self, hidden: bool) -> bool {
        let taken = hidden && !self.makes;
        self.not_verified += u32::from(taken);
        taken
    }

    async fn ask_to_bind(&mut self, binding: &Binding) -> Result<Answer<()>, ConnectError> {
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
        self.asker.ask(request).await
    }

    async fn bind(&mut self, binding: &Binding) -> Result<(), ConnectError> {
        let answer = match self.verifying {
            Verifying::Everything => self.ask_to_bind(binding).await?,
            Verifying::Nothing => Answer::Silence,
        };
        let reason = match answer {
            Answer::Yes(()) => return Ok(()),
            // What has just been created has no bindings yet.
            Answer::No(reply::ACCESS_REFUSED, text) if self.created.contains(&binding.queue) => {
                return Err(self.forbidden("binding of queue", binding.queue.as_str(), &text));
            }
            Answer::No(reply::ACCESS_REFUSED, text) => text,
            Answer::No(code, text) => {
                return Err(self.other("binding of queue", binding.queue.as_str(), code, &text));
            }
            Answer::Silence => {
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
        let what = match Difference::read(text) {
            Some(Difference {
                argument,
                there,
                wanted,
            }) if !matches!(there, Told::CutOff(_)) => {
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
