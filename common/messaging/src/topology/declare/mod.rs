//! Declares a topology: fast, repeatable, and reporting what it created.
//!
//! Each object is checked passively before it is declared. This shows whether a queue had to be created, which means possible loss for a
//! role with a past. An existing object is enough for a user without the permission to declare, and for a broker without a quorum, which
//! cannot store a declaration but still passes messages. Declaring an existing object only verifies its arguments.

mod marker;

use std::{collections::BTreeSet, time::Duration};

use lapin::{
    Channel,
    options::{ExchangeDeclareOptions, QueueBindOptions, QueueDeclareOptions},
    types::{AMQPValue, FieldTable},
};

use crate::{
    admin::verify::{Finding, is_enough},
    amqp::{PASSIVE_QUEUE, long_string},
    connection::{
        Connection,
        address::Address,
        error::{ConnectError, Result, reply},
        probe_channel::{ProbeChannel, ProbeResult},
        unknown_kind,
    },
    locked::Locked,
    topology::{
        Argument, Binding, Exchange, Queue, QueuePurpose, Topology,
        names::{QueueName, former_names},
        precondition_failed::{ArgumentValue, PreconditionFailed},
    },
};

pub(crate) use marker::{MarkerState, check_marker};

/// Declares the topology. Returns the queues it created, except those that cannot lose relevant messages.
///
/// # Errors
/// Fails if an object exists with other arguments ([`ConnectErrorKind::Mismatch`]), is missing and the user may not create it
/// ([`Denial::Permission`]) or the broker cannot create it for now ([`ConnectErrorKind::Silent`]), or the connection is lost.
pub(crate) async fn declare(
    connection: &Connection,
    topology: &Topology,
    limit: Duration,
) -> Result<Vec<QueueName>> {
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
            "bindings or queues not verified, because this user may not or the broker does not respond; assuming that they exist"
        );
    }
    declarer.probe.close().await;
    log_created_once(connection.address(), &declarer.created);
    Ok(declarer.created)
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Rebound {
    All,
    /// The user may not bind, for this reason.
    Forbidden(String),
}

/// Restores bindings that may have been removed. An existing binding stays as it is, so in the usual case the broker stores nothing. A
/// missing exchange is declared again. Cancel-safe after every step.
///
/// # Errors
/// As [`declare`]; also fails if the broker does not respond.
pub(crate) async fn rebind(
    connection: &Connection,
    topology: &Topology,
    limit: Duration,
) -> Result<Rebound> {
    let mut declarer = Declarer::new(connection, limit);
    for binding in &topology.bindings {
        let mut result = declarer.try_bind(binding).await?;
        if let ProbeResult::Rejected(reply::NOT_FOUND, _) = result {
            let of_binding = |exchange: &&Exchange| exchange.name == binding.exchange;
            for exchange in topology.exchanges.iter().filter(of_binding) {
                declarer.exchange(exchange).await?;
            }
            result = declarer.try_bind(binding).await?;
        }
        let object = format!("binding of queue {}", binding.queue);
        match result {
            ProbeResult::Accepted(()) => {}
            ProbeResult::Rejected(reply::ACCESS_REFUSED, reason) => {
                return Ok(Rebound::Forbidden(reason));
            }
            ProbeResult::Rejected(code, text) => {
                return Err(declarer.probe.rejected(&object, code, &text));
            }
            ProbeResult::TimedOut => return Err(declarer.probe.timed_out(&object)),
        }
    }
    if declarer.creates {
        tracing::warn!(
            address = %connection.address(),
            "a missing exchange was declared again: publishes in the meantime were rejected"
        );
    }
    declarer.probe.close().await;
    Ok(Rebound::All)
}

/// Logs created queues, each once per process: if several connections declare at once, each reports the creation.
fn log_created_once(address: &Address, created: &[QueueName]) {
    /// More queues than any process declares. Beyond that, queues are logged again.
    const MAX_LOGGED: usize = 10_000;
    static LOGGED: Locked<BTreeSet<(String, QueueName)>> = Locked::new(BTreeSet::new());
    let mut logged = LOGGED.lock();
    if logged.len() > MAX_LOGGED {
        logged.clear();
    }
    let broker = address.to_string();
    let new: Vec<_> = created
        .iter()
        .filter(|queue| logged.insert((broker.clone(), QueueName::clone(queue))))
        .collect();
    if !new.is_empty() {
        tracing::info!(%address, queues = ?new, "queues created");
    }
}

struct Declarer<'a> {
    probe: ProbeChannel<'a>,
    verifying: Verifying,
    /// Created queues, without those that only show copies.
    created: Vec<QueueName>,
    /// True if anything was created.
    creates: bool,
    /// Bindings and hidden objects that could be neither created nor verified.
    not_verified: u32,
}

/// The amount of verification beyond the necessary checks.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Verifying {
    /// Arguments of existing objects, and bindings.
    Everything,
    /// The broker did not respond to a verification. Another one would also time out.
    Nothing,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Existence {
    Found,
    Created,
}

enum DeclareOutcome {
    Is(Existence),
    /// Rejected, with the broker's reply code and text.
    Rejected(u16, String),
}

impl<'a> Declarer<'a> {
    fn new(connection: &'a Connection, limit: Duration) -> Self {
        Self {
            probe: ProbeChannel::new(connection, limit),
            verifying: Verifying::Everything,
            created: Vec::new(),
            creates: false,
            not_verified: 0,
        }
    }

    async fn exchange(&mut self, exchange: &Exchange) -> Result<()> {
        let name = exchange.name.as_str();
        let object = format!("exchange {name}");
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
        match self
            // The declaration shows whether an exchange has an unknown type.
            .object(&object, |_| true, request(true), request(false))
            .await?
        {
            DeclareOutcome::Is(_) => Ok(()),
            DeclareOutcome::Rejected(reply::PRECONDITION_FAILED, text) => {
                let address = self.probe.connection().address();
                Err(unknown_kind(address, &text).unwrap_or_else(|| ConnectError::mismatch(format!(
                        "exchange {name} exists on {address} with other properties ({text}): stop all programs and delete it, or choose another namespace"
                    ))))
            }
            DeclareOutcome::Rejected(code, text) => Err(self.probe.rejected(&object, code, &text)),
        }
    }

    async fn queue(&mut self, queue: &Queue) -> Result<Existence> {
        let name = queue.name.as_str();
        let request = |passive, arguments| {
            let options = QueueDeclareOptions {
                passive,
                ..PASSIVE_QUEUE
            };
            async move |channel: Channel| {
                let declared = channel.queue_declare(name.into(), options, arguments);
                declared.await.map(drop)
            }
        };
        let object = format!("queue {name}");
        let is_missing = |code| code == reply::NOT_FOUND;
        let passive = request(true, FieldTable::default());
        match self
            .object(&object, is_missing, passive, request(false, table(queue)))
            .await?
        {
            DeclareOutcome::Is(existence) => Ok(existence),
            DeclareOutcome::Rejected(reply::PRECONDITION_FAILED | reply::RESOURCE_LOCKED, text) => {
                Err(self.mismatch(queue, &text))
            }
            // For a declaration, this code means that the queue exists on a cluster node that is down. Only classic queues depend on one
            // node. So requests to one role must wait for that node, and all else works.
            DeclareOutcome::Rejected(reply::NOT_FOUND, text)
                if queue.purpose == QueuePurpose::Rpc =>
            {
                tracing::warn!(queue = %queue.name, error = text, "request queue is on an unavailable node");
                self.not_verified += 1;
                Ok(Existence::Found)
            }
            DeclareOutcome::Rejected(code, text) => Err(self.probe.rejected(&object, code, &text)),
        }
    }

    /// Declares an exchange or queue, after a passive declaration that shows whether it exists.
    async fn object(
        &mut self,
        object: &str,
        is_missing: impl FnOnce(u16) -> bool,
        passive: impl AsyncFnOnce(Channel) -> lapin::Result<()>,
        active: impl AsyncFnOnce(Channel) -> lapin::Result<()>,
    ) -> Result<DeclareOutcome> {
        let (found, hidden) = match self.probe.try_method(passive).await? {
            ProbeResult::Accepted(()) => (true, false),
            ProbeResult::Rejected(reply::ACCESS_REFUSED, _) => (false, true),
            ProbeResult::Rejected(code, _) if is_missing(code) => (false, false),
            ProbeResult::Rejected(code, text) => {
                return Err(self.probe.rejected(object, code, &text));
            }
            ProbeResult::TimedOut => return Err(self.probe.timed_out(object)),
        };
        if found && self.verifying == Verifying::Nothing {
            return Ok(DeclareOutcome::Is(Existence::Found));
        }
        Ok(match self.probe.try_method(active).await? {
            ProbeResult::Accepted(()) if !found => {
                self.creates = true;
                DeclareOutcome::Is(Existence::Created)
            }
            ProbeResult::Accepted(()) => DeclareOutcome::Is(Existence::Found),
            ProbeResult::Rejected(reply::ACCESS_REFUSED, _)
                if found || self.assume_exists(hidden) =>
            {
                DeclareOutcome::Is(Existence::Found)
            }
            ProbeResult::Rejected(reply::ACCESS_REFUSED, text) => {
                return Err(self.forbidden(object, &text));
            }
            ProbeResult::Rejected(code, text) => DeclareOutcome::Rejected(code, text),
            ProbeResult::TimedOut if found => {
                self.verifying = Verifying::Nothing;
                DeclareOutcome::Is(Existence::Found)
            }
            ProbeResult::TimedOut => return Err(self.probe.timed_out(object)),
        })
    }

    /// Returns whether an object that the user may neither read nor create is assumed to exist. Newer brokers hide objects without any
    /// permission, as the queues from a producer. A user who has just created one part is meant to create the others too.
    fn assume_exists(&mut self, hidden: bool) -> bool {
        let assumed = hidden && !self.creates;
        self.not_verified += u32::from(assumed);
        assumed
    }

    async fn try_bind(&mut self, binding: &Binding) -> Result<ProbeResult<()>> {
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
        self.probe.try_method(request).await
    }

    async fn bind(&mut self, binding: &Binding) -> Result<()> {
        let result = match self.verifying {
            Verifying::Everything => self.try_bind(binding).await?,
            Verifying::Nothing => ProbeResult::TimedOut,
        };
        let object = format!("binding of queue {}", binding.queue);
        let reason = match result {
            ProbeResult::Accepted(()) => return Ok(()),
            // A queue just created has no bindings yet.
            ProbeResult::Rejected(reply::ACCESS_REFUSED, text)
                if self.created.contains(&binding.queue) =>
            {
                return Err(self.forbidden(&object, &text));
            }
            ProbeResult::Rejected(reply::ACCESS_REFUSED, text) => text,
            ProbeResult::Rejected(code, text) => {
                return Err(self.probe.rejected(&object, code, &text));
            }
            ProbeResult::TimedOut => {
                self.verifying = Verifying::Nothing;
                "no response".to_owned()
            }
        };
        // AMQP cannot list bindings. Exchange and queue exist, so their creator has most likely bound them. If not, `consumers topology
        // verify` reports it where it may use the management API.
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
        let mut former = "";
        let what = match PreconditionFailed::read(text) {
            Some(PreconditionFailed {
                argument,
                actual: there,
                expected: wanted,
            }) if !matches!(there, ArgumentValue::CutOff(_)) => {
                former = former_names(&argument, &there);
                format!("{argument} is {there}, expected {wanted}")
            }
            _ => text.to_owned(),
        };
        let address = self.probe.connection().address();
        ConnectError::mismatch(format!(
            "queue {name} exists on {address} with other arguments: {what}; drain it and delete it with rabbitmqctl delete_queue -p {} {name}, or choose another namespace (`consumers topology verify` lists all differences){former}",
            address.vhost(),
        ))
    }

    fn forbidden(&self, object: &str, text: &str) -> ConnectError {
        let address = self.probe.connection().address();
        let (user, vhost) = (address.user(), address.vhost());
        ConnectError::no_permission(format!(
            "{object} does not exist on {address} and user {user:?} may not create it ({text}): grant it with rabbitmqctl set_permissions -p {vhost} {user} '.*' '.*' '.*', or as `consumers topology permissions` prints",
        ))
    }
}

/// Converts a queue's arguments to lapin's type.
pub(crate) fn table(queue: &Queue) -> FieldTable {
    let mut table = FieldTable::default();
    for (name, value) in &queue.arguments {
        let value = match value {
            Argument::Text(text) => long_string(text.as_str()),
            Argument::Number(number) => AMQPValue::LongLongInt(*number),
            Argument::Flag(flag) => AMQPValue::Boolean(*flag),
        };
        table.insert((*name).into(), value);
    }
    table
}
