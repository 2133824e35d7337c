//! Declaring a topology: quick, repeatable, and with an answer that says what had to be made.
//!
//! Every queue is looked for before it is declared. That tells whether it had to be created, which for a role that already has a
//! past means possible loss; and what is there already is enough for a user who may not declare.

use std::time::Duration;

use lapin::{
    Channel,
    options::{ExchangeDeclareOptions, QueueBindOptions, QueueDeclareOptions},
    types::{AMQPValue, FieldTable, LongString},
};
use tokio::time::timeout;

use crate::{
    connection::Connection,
    error::{ConnectError, ConnectErrorKind, Refusal, broker_reply, reply},
    names::QueueName,
    topology::{Argument, ExchangeKind, Queue, QueuePurpose, Topology},
};

/// Declares everything and returns the queues that had to be created, without those that only show copies.
///
/// # Errors
/// Something exists with other arguments ([`ConnectErrorKind::Mismatch`]), is not there and may not be made
/// ([`Refusal::Permission`]), or the broker does not answer within the limit for one declaration.
pub(crate) async fn declare(
    connection: &Connection,
    topology: &Topology,
    limit: Duration,
) -> Result<Vec<QueueName>, ConnectError> {
    let mut declarer = Declarer {
        connection,
        channel: None,
        limit,
    };
    let mut created = Vec::new();
    for exchange in &topology.exchanges {
        declarer.exchange(&exchange.name, exchange.kind).await?;
    }
    for queue in &topology.queues {
        if declarer.queue(queue).await? && queue.purpose != QueuePurpose::Dead {
            created.push(queue.name.clone());
        }
    }
    for binding in &topology.bindings {
        declarer
            .bind(&binding.queue, &binding.exchange, &binding.routing_key)
            .await?;
    }
    declarer.finish().await;
    Ok(created)
}

/// A channel that is opened again after each refusal, since the broker closes it then.
struct Declarer<'a> {
    connection: &'a Connection,
    channel: Option<Channel>,
    limit: Duration,
}

/// How one request went.
enum Answer<T> {
    Yes(T),
    Refused(u16, String),
}

impl Declarer<'_> {
    async fn exchange(&mut self, name: &str, kind: ExchangeKind) -> Result<(), ConnectError> {
        let kind = match kind {
            ExchangeKind::Topic => lapin::ExchangeKind::Topic,
        };
        let declare = |passive| {
            let kind = kind.clone();
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
        match self.ask(declare(false)).await? {
            Answer::Yes(()) => Ok(()),
            Answer::Refused(reply::ACCESS_REFUSED, text) => {
                match self.ask(declare(true)).await? {
                    // Somebody else has made it, and that is all we need.
                    Answer::Yes(()) => Ok(()),
                    Answer::Refused(..) => Err(self.forbidden("exchange", name, &text)),
                }
            }
            Answer::Refused(reply::PRECONDITION_FAILED, text) => Err(ConnectError::new(
                ConnectErrorKind::Mismatch,
                format!(
                    "exchange {name} exists on {} with other properties ({text}): delete it while nothing runs, or choose another namespace",
                    self.connection.address()
                ),
            )),
            Answer::Refused(code, text) => Err(self.other("exchange", name, code, &text)),
        }
    }

    /// Returns whether it had to be created.
    async fn queue(&mut self, queue: &Queue) -> Result<bool, ConnectError> {
        let name = queue.name.as_str();
        let passive = QueueDeclareOptions {
            passive: true,
            durable: true,
            ..QueueDeclareOptions::default()
        };
        let look = async move |channel: Channel| {
            channel
                .queue_declare(name.into(), passive, FieldTable::default())
                .await
        };
        let exists = match self.ask(look).await? {
            Answer::Yes(_) => true,
            Answer::Refused(reply::NOT_FOUND, _) => false,
            // May neither look nor, perhaps, declare: the declaration says which.
            Answer::Refused(reply::ACCESS_REFUSED, _) => false,
            Answer::Refused(code, text) => return Err(self.other("queue", name, code, &text)),
        };
        let arguments = table(queue);
        let declare = async move |channel: Channel| {
            let options = QueueDeclareOptions {
                durable: true,
                ..QueueDeclareOptions::default()
            };
            channel.queue_declare(name.into(), options, arguments).await
        };
        match self.ask(declare).await? {
            Answer::Yes(_) => Ok(!exists),
            Answer::Refused(reply::PRECONDITION_FAILED | reply::RESOURCE_LOCKED, text) => {
                Err(self.mismatch(queue, &text))
            }
            Answer::Refused(reply::ACCESS_REFUSED, _) if exists => Ok(false),
            Answer::Refused(reply::ACCESS_REFUSED, text) => {
                Err(self.forbidden("queue", name, &text))
            }
            Answer::Refused(code, text) => Err(self.other("queue", name, code, &text)),
        }
    }

    async fn bind(
        &mut self,
        queue: &QueueName,
        exchange: &str,
        key: &str,
    ) -> Result<(), ConnectError> {
        let bind = async move |channel: Channel| {
            channel
                .queue_bind(
                    queue.as_str().into(),
                    exchange.into(),
                    key.into(),
                    QueueBindOptions::default(),
                    FieldTable::default(),
                )
                .await
        };
        match self.ask(bind).await? {
            Answer::Yes(()) => Ok(()),
            // Bindings cannot be looked at from here. Exchange and queue are there, so whoever made them has most likely bound them,
            // and if not, publishing says so: everything is published mandatory.
            Answer::Refused(reply::ACCESS_REFUSED, text) => {
                tracing::warn!(%queue, exchange, key, reason = text, "binding could not be verified");
                Ok(())
            }
            Answer::Refused(code, text) => {
                Err(self.other("binding of queue", queue.as_str(), code, &text))
            }
        }
    }

    /// Asks on the open channel, or on a new one.
    async fn ask<T>(
        &mut self,
        request: impl AsyncFnOnce(Channel) -> lapin::Result<T>,
    ) -> Result<Answer<T>, ConnectError> {
        let channel = match self.channel.take() {
            Some(channel) => channel,
            None => self.connection.channel(self.limit).await?,
        };
        match timeout(self.limit, request(channel.clone())).await {
            Ok(Ok(answer)) => {
                self.channel = Some(channel);
                Ok(Answer::Yes(answer))
            }
            Ok(Err(error)) => match broker_reply(&error) {
                // The channel is closed now, and the next question opens another.
                Some((code, text)) if error.is_amqp_soft_error() => {
                    Ok(Answer::Refused(code, text.to_owned()))
                }
                _ => Err(self.connection.failure(&error)),
            },
            Err(_) => Err(ConnectError::new(
                ConnectErrorKind::Silent,
                format!(
                    "{} has not answered a declaration for {:?}: has its cluster lost its majority?",
                    self.connection.address(),
                    self.limit
                ),
            )),
        }
    }

    async fn finish(mut self) {
        if let Some(channel) = self.channel.take() {
            let _ = timeout(self.limit, channel.close(200, "OK".into())).await;
        }
    }

    fn mismatch(&self, queue: &Queue, text: &str) -> ConnectError {
        let difference = Difference::read(text);
        let name = &queue.name;
        let what = match &difference {
            Some(Difference {
                argument,
                there,
                wanted,
            }) => format!("{argument} is {there} there and {wanted} is wanted"),
            None => text.to_owned(),
        };
        ConnectError::new(
            ConnectErrorKind::Mismatch,
            format!(
                "queue {name} exists on {} with other arguments: {what}; let it run empty and delete it with rabbitmqctl delete_queue -p {} {name}, or choose another namespace",
                self.connection.address(),
                self.connection.address().vhost(),
            ),
        )
    }

    fn forbidden(&self, what: &str, name: &str, text: &str) -> ConnectError {
        let address = self.connection.address();
        ConnectError::new(
            ConnectErrorKind::Refused(Refusal::Permission),
            format!(
                "{what} {name} does not exist on {address} and user {:?} may not create it ({text}): grant it with rabbitmqctl set_permissions -p {} {} '.*' '.*' '.*'",
                address.user(),
                address.vhost(),
                address.user(),
            ),
        )
    }

    fn other(&self, what: &str, name: &str, code: u16, text: &str) -> ConnectError {
        ConnectError::new(
            ConnectErrorKind::Protocol,
            format!(
                "{} answers to the declaration of {what} {name}: {text} ({code})",
                self.connection.address()
            ),
        )
    }
}

fn table(queue: &Queue) -> FieldTable {
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

/// What the broker tells about an argument that differs.
#[derive(Debug, PartialEq, Eq)]
struct Difference {
    argument: String,
    there: String,
    wanted: String,
}

impl Difference {
    /// Reads `inequivalent arg 'x-max-length' for queue 'q' in vhost '/': received '5' but current is '7'`.
    fn read(text: &str) -> Option<Self> {
        let (_, rest) = text.split_once("inequivalent arg '")?;
        let (argument, rest) = rest.split_once('\'')?;
        let (_, rest) = rest.split_once("received ")?;
        let (received, current) = rest.split_once(" but current is ")?;
        // `none`, `the value 'quorum' of type 'longstr'`, or only `'quorum'`.
        let plain = |text: &str| match text.split_once('\'') {
            None => text.trim().replace("none", "not set"),
            Some((_, rest)) => match rest.split_once('\'').map_or(rest, |(value, _)| value) {
                "" => "empty".to_owned(),
                value => value.to_owned(),
            },
        };
        Some(Self {
            argument: argument.to_owned(),
            there: plain(current),
            wanted: plain(received),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_difference_is_read_from_the_brokers_words() {
        let text = "PRECONDITION_FAILED - inequivalent arg 'x-max-length' for queue 'q' in vhost '/': received the value '5' of type 'long' but current is none";
        let difference = Difference::read(text).unwrap();
        assert_eq!(difference.argument, "x-max-length");
        assert_eq!(difference.wanted, "5");
        assert_eq!(difference.there, "not set");
        let text = "inequivalent arg 'x-dead-letter-exchange' for queue 'q' in vhost '/': received the value '' of type 'longstr' but current is the value 'x' of type 'longstr'";
        let difference = Difference::read(text).unwrap();
        assert_eq!((&*difference.wanted, &*difference.there), ("empty", "x"));
        assert_eq!(Difference::read("something else"), None);
    }
}
