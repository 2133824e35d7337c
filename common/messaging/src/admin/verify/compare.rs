//! Compares an existing exchange or queue with every property it was declared with.
//!
//! The broker reports one difference at a time. So the object is declared again with that difference adopted, until the broker agrees:
//! declaring an existing object changes nothing. Before each declaration a passive one checks that the object still exists, because
//! declaring a missing object would create it.

use lapin::{
    Channel,
    options::{ExchangeDeclareOptions, QueueDeclareOptions},
    types::{AMQPValue, FieldTable, LongString},
};

use super::{finding::Finding, finding::Permission, verifier::Verifier};
use crate::{
    amqp::short_string,
    connection::{
        error::{Result, reply},
        probe_channel::ProbeResult,
    },
    topology::{
        Exchange, Queue,
        declare::table,
        precondition_failed::{ArgumentValue, PreconditionFailed},
    },
};

/// Bound of differences per object, far more than there are arguments.
const MAX_DIFFERENCES: usize = 64;

#[derive(Clone)]
struct Declaration {
    kind: String,
    durable: bool,
    auto_delete: bool,
    internal: bool,
    arguments: FieldTable,
}

enum Redeclare {
    Equal,
    Gone,
    Forbidden,
    Differs(PreconditionFailed),
    Other(String),
}

/// Compares an exchange, records its differences, and returns whether it exists.
pub(super) async fn exchange(verifier: &mut Verifier<'_>, exchange: &Exchange) -> Result<Presence> {
    let mut declared = Declaration::new(exchange.kind.as_str(), FieldTable::default());
    let name = exchange.name.as_str();
    let mut differences = Vec::new();
    let presence = compare(verifier, "exchange", name, &mut declared, &mut differences).await?;
    verifier
        .findings
        .extend(differences.into_iter().map(|d| Finding::ExchangeDiffers {
            exchange: name.to_owned(),
            property: d.argument,
            there: d.actual.to_string(),
            wanted: d.expected.to_string(),
            vhost: verifier.vhost.clone(),
        }));
    if presence == Presence::Missing {
        verifier.findings.push(Finding::ExchangeMissing {
            exchange: name.to_owned(),
        });
    }
    Ok(presence)
}

/// Compares a queue, records its differences, and returns whether it exists.
pub(super) async fn queue(verifier: &mut Verifier<'_>, queue: &Queue) -> Result<Presence> {
    let mut declared = Declaration::new("", table(queue));
    let name = queue.name.as_str();
    let mut differences = Vec::new();
    let presence = compare(verifier, "queue", name, &mut declared, &mut differences).await?;
    verifier
        .findings
        .extend(differences.into_iter().map(|d| Finding::QueueDiffers {
            queue: queue.name.clone(),
            argument: d.argument,
            there: d.actual.to_string(),
            wanted: d.expected.to_string(),
            vhost: verifier.vhost.clone(),
        }));
    if presence == Presence::Missing {
        verifier.findings.push(Finding::QueueMissing {
            queue: queue.name.clone(),
            purpose: queue.purpose,
        });
    }
    Ok(presence)
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Presence {
    There,
    Missing,
}

async fn compare(
    verifier: &mut Verifier<'_>,
    what: &'static str,
    name: &str,
    declared: &mut Declaration,
    differences: &mut Vec<PreconditionFailed>,
) -> Result<Presence> {
    // The expected value of an argument that was dropped to make room in the broker's error text.
    let mut dropped: Option<ArgumentValue> = None;
    for _ in 0..MAX_DIFFERENCES {
        let reply = match declared.redeclare(verifier, what, name).await? {
            Redeclare::Equal => return Ok(Presence::There),
            // Deleted since the first check, which is a finding as well.
            Redeclare::Gone => return Ok(Presence::Missing),
            Redeclare::Forbidden => {
                verifier.forbidden(Permission::Configure, what, name);
                return Ok(Presence::There);
            }
            Redeclare::Other(reply) => reply,
            Redeclare::Differs(mut difference) => {
                let argument = difference.argument.clone();
                if let Some(expected) = dropped.take() {
                    difference.expected = expected;
                } else if matches!(difference.actual, ArgumentValue::CutOff(_))
                    && let Some(expected) = declared.drop_argument(&argument)
                {
                    dropped = Some(expected);
                    continue;
                }
                let is_repeated = differences.iter().any(|n| n.argument == argument);
                let adopted =
                    !is_repeated && declared.adopt_argument(&argument, &difference.actual);
                if !is_repeated {
                    differences.push(difference);
                }
                if adopted {
                    continue;
                }
                format!("its {argument} has a value that cannot be declared")
            }
        };
        verifier.findings.push(Finding::NotCompared {
            what,
            name: name.to_owned(),
            answer: reply,
        });
        break;
    }
    Ok(Presence::There)
}

impl Declaration {
    fn new(kind: &str, arguments: FieldTable) -> Self {
        Self {
            kind: kind.to_owned(),
            durable: true,
            auto_delete: false,
            internal: false,
            arguments,
        }
    }

    /// Declares the object again if it exists.
    async fn redeclare(
        &self,
        verifier: &mut Verifier<'_>,
        what: &'static str,
        name: &str,
    ) -> Result<Redeclare> {
        let declared = self.clone();
        let check = async move |channel: Channel| declared.send(channel, what, name, true).await;
        match verifier.try_method(what, name, check).await? {
            ProbeResult::Accepted(()) => {}
            ProbeResult::Rejected(reply::NOT_FOUND, _) => return Ok(Redeclare::Gone),
            ProbeResult::Rejected(reply::ACCESS_REFUSED, _) => return Ok(Redeclare::Forbidden),
            ProbeResult::Rejected(code, text) => {
                return Ok(Redeclare::Other(format!("{text} ({code})")));
            }
            ProbeResult::TimedOut => return Err(verifier.timed_out(what, name)),
        }
        let declared = self.clone();
        let declare = async move |channel: Channel| declared.send(channel, what, name, false).await;
        Ok(match verifier.try_method(what, name, declare).await? {
            ProbeResult::Accepted(()) => Redeclare::Equal,
            ProbeResult::Rejected(reply::ACCESS_REFUSED, _) => Redeclare::Forbidden,
            ProbeResult::Rejected(code, text) => match PreconditionFailed::read(&text) {
                Some(difference) => Redeclare::Differs(difference),
                None => Redeclare::Other(format!("{text} ({code})")),
            },
            ProbeResult::TimedOut => return Err(verifier.timed_out(what, name)),
        })
    }

    async fn send(
        self,
        channel: Channel,
        what: &'static str,
        name: &str,
        passive: bool,
    ) -> lapin::Result<()> {
        if what == "exchange" {
            let options = ExchangeDeclareOptions {
                passive,
                durable: self.durable,
                auto_delete: self.auto_delete,
                internal: self.internal,
                nowait: false,
            };
            let kind = lapin::ExchangeKind::Custom(self.kind);
            return channel
                .exchange_declare(short_string(name), kind, options, self.arguments)
                .await;
        }
        let options = QueueDeclareOptions {
            passive,
            durable: self.durable,
            auto_delete: self.auto_delete,
            exclusive: false,
            nowait: false,
        };
        let declared = channel.queue_declare(short_string(name), options, self.arguments);
        declared.await.map(drop)
    }

    /// Drops an argument, so that the broker's error text has more room for the present value. Returns the dropped value.
    fn drop_argument(&mut self, argument: &str) -> Option<ArgumentValue> {
        let mut dropped = None;
        let rest = self.arguments.inner().iter().filter_map(|(name, value)| {
            if name.as_str() == argument {
                dropped = Some(as_reported(value));
                return None;
            }
            Some((name.clone(), value.clone()))
        });
        self.arguments = rest.collect::<std::collections::BTreeMap<_, _>>().into();
        dropped
    }

    /// Adopts the present value for further declarations. Returns false if it cannot be declared.
    fn adopt_argument(&mut self, argument: &str, actual: &ArgumentValue) -> bool {
        let (text, kind) = match actual {
            ArgumentValue::NotSet => return self.drop_argument(argument).is_some(),
            ArgumentValue::CutOff(_) => return false,
            ArgumentValue::Value { text, kind } => (text.as_str(), kind.as_deref()),
        };
        let flag = text == "true";
        match argument {
            "type" => self.kind = text.to_owned(),
            "durable" => self.durable = flag,
            "auto_delete" => self.auto_delete = flag,
            "internal" => self.internal = flag,
            _ => {
                let ours = self.arguments.inner().get(argument);
                let Some(value) = value(text, kind, ours) else {
                    return false;
                };
                self.arguments.insert(argument.into(), value);
            }
        }
        true
    }
}

/// Returns a value of the type that the broker names; if it names none, of our value's type. The type must be exact, because the broker
/// distinguishes some integer widths.
fn value(text: &str, kind: Option<&str>, ours: Option<&AMQPValue>) -> Option<AMQPValue> {
    let kind = kind.or(match ours {
        Some(AMQPValue::LongLongInt(_)) => Some("long"),
        Some(AMQPValue::Boolean(_)) => Some("bool"),
        _ => None,
    });
    Some(match kind {
        None | Some("longstr") => AMQPValue::LongString(LongString::from(text)),
        Some("bool") => AMQPValue::Boolean(text == "true"),
        Some("byte") => AMQPValue::ShortShortInt(text.parse().ok()?),
        Some("unsignedbyte") => AMQPValue::ShortShortUInt(text.parse().ok()?),
        Some("short") => AMQPValue::ShortInt(text.parse().ok()?),
        Some("unsignedshort") => AMQPValue::ShortUInt(text.parse().ok()?),
        Some("signedint") => AMQPValue::LongInt(text.parse().ok()?),
        Some("unsignedint") => AMQPValue::LongUInt(text.parse().ok()?),
        Some("long") => AMQPValue::LongLongInt(text.parse().ok()?),
        Some("timestamp") => AMQPValue::Timestamp(text.parse().ok()?),
        Some("float") => AMQPValue::Float(text.parse().ok()?),
        Some("double") => AMQPValue::Double(text.parse().ok()?),
        Some(_) => return None,
    })
}

/// Formats one of our values as the broker would.
fn as_reported(value: &AMQPValue) -> ArgumentValue {
    let text = match value {
        AMQPValue::LongString(text) => text.to_string(),
        AMQPValue::LongLongInt(number) => number.to_string(),
        AMQPValue::Boolean(flag) => flag.to_string(),
        other => format!("{other:?}"),
    };
    ArgumentValue::Value { text, kind: None }
}
