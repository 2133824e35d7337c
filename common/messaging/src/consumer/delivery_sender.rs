//! The sender of a delivery: its exchange, and the user id that the broker has validated.

use std::sync::Arc;

use doorstep_event::{BrokerUser, Sender};
use lapin::message::Delivery as Received;

use super::value::text;
use crate::{settings::Namespace, topology::names::QueueName};

/// Determines the senders of a queue's deliveries. Consecutive deliveries of one user share an allocation.
pub(super) struct Senders {
    events_exchange: String,
    /// For a quarantine queue: the name prefix of its role's queues.
    quarantine_of: Option<String>,
    last: Option<BrokerUser>,
}

impl Senders {
    pub(super) fn new(namespace: &Namespace, queue: &QueueName) -> Self {
        Self {
            events_exchange: namespace.events_exchange(),
            quarantine_of: queue.quarantined_prefix().map(str::to_owned),
            last: None,
        }
    }

    /// Returns the sender of a delivery.
    pub(super) fn read(&mut self, received: &Received) -> Sender {
        let exchange = received.exchange.as_str();
        if exchange != self.events_exchange && !self.was_dead_lettered(received) {
            return Sender::Bypass(describe_exchange(exchange));
        }
        let Some(user) = received.properties.user_id() else {
            return Sender::Anonymous;
        };
        let user = user.as_str();
        Sender::User(match &self.last {
            Some(last) if last.as_str() == user => last.clone(),
            _ => self.last.insert(BrokerUser::new(user)).clone(),
        })
    }

    /// Returns whether the broker moved the message to the quarantine queue from its role's queue, where it had arrived through the events
    /// exchange. The broker writes these headers. A client can forge them only in a message that it publishes to the quarantine queue
    /// itself.
    fn was_dead_lettered(&self, received: &Received) -> bool {
        let (Some(net_of), "") = (&self.quarantine_of, received.exchange.as_str()) else {
            return false;
        };
        let headers = received.properties.headers().as_ref();
        let header = |name| text(headers?.inner().get(name)?);
        header("x-first-death-exchange").as_deref() == Some(&*self.events_exchange)
            && header("x-first-death-queue").is_some_and(|queue| queue.starts_with(net_of))
    }
}

fn describe_exchange(exchange: &str) -> Arc<str> {
    if exchange.is_empty() {
        "the default exchange".into()
    } else {
        format!("exchange {exchange:?}").into()
    }
}

#[cfg(test)]
mod tests {
    use lapin::types::{AMQPValue, FieldTable, LongString};

    use super::*;

    fn received(exchange: &str, headers: &[(&str, &str)], user: Option<&str>) -> Received {
        let mut table = FieldTable::default();
        for (name, value) in headers {
            let value = AMQPValue::LongString(LongString::from(*value));
            table.insert((*name).into(), value);
        }
        let mut received = Received::mock(1, exchange.into(), "q".into(), false, Vec::new());
        received.properties = received.properties.with_headers(table);
        if let Some(user) = user {
            received.properties = received.properties.with_user_id(user.into());
        }
        received
    }

    fn senders(queue: &str) -> Senders {
        Senders::new(&"shop".parse().unwrap(), &QueueName::new(queue))
    }

    #[test]
    fn only_the_events_exchange_gives_a_sender() {
        let mut senders = senders("shop.orders.0");
        let user = |name| Sender::User(BrokerUser::new(name));
        let mut read = |exchange, user| senders.read(&received(exchange, &[], user));
        assert_eq!(read("shop.events", None), Sender::Anonymous);
        assert_eq!(read("shop.events", Some("a")), user("a"));
        assert_eq!(read("shop.events", Some("b")), user("b"));
        assert_eq!(read("shop.events", Some("b")), user("b"));
        for exchange in ["", "amq.topic", "shop.events.2"] {
            let sender = read(exchange, Some("a"));
            assert_eq!(sender, Sender::Bypass(describe_exchange(exchange)));
        }
    }

    #[test]
    fn dead_lettering_to_quarantine_keeps_the_sender() {
        let headers = [
            ("x-first-death-exchange", "shop.events"),
            ("x-first-death-queue", "shop.orders.0"),
        ];
        let moved = received("", &headers, Some("a"));
        let user = Sender::User(BrokerUser::new("a"));
        assert_eq!(senders("shop.orders.quarantine").read(&moved), user);
        let bypass = Sender::Bypass("the default exchange".into());
        for queue in ["shop.orders.0", "shop.stock.quarantine"] {
            assert_eq!(senders(queue).read(&moved), bypass, "{queue}");
        }
        for (header, value) in [
            ("x-first-death-exchange", ""),
            ("x-first-death-queue", "shop.stock.0"),
        ] {
            let other = headers.map(|(name, own)| (name, if name == header { value } else { own }));
            let other = received("", &other, Some("a"));
            assert_eq!(
                senders("shop.orders.quarantine").read(&other),
                bypass,
                "{header}"
            );
        }
    }
}
