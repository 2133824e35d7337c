//! Comparing an exchange or queue that is there, in everything that it was declared with.
//!
//! The broker tells one difference a time. So what is there is declared again with that one difference taken over, until the broker
//! agrees: a declaration of what exists changes nothing. Each is preceded by a look whether it still exists, for a declaration of
//! what does not would create it.

use lapin::{
    Channel,
    options::{ExchangeDeclareOptions, QueueDeclareOptions},
    types::{AMQPValue, FieldTable, LongString},
};

use super::{finding::Finding, finding::Permission, verifier::Verifier};
use crate::{
    declare::table,
    error::{ConnectError, reply},
    message::short_string,
    precondition_failed::{ArgumentValue, PreconditionFailed},
    probe_channel::ProbeResult,
    topology::{Exchange, Queue},
};

/// The most differences of one exchange or queue: far more than there are arguments.
const MAX_DIFFERENCES: usize = 64;

/// What is declared again.
#[derive(Clone)]
struct Declared {
    kind: String,
    durable: bool,
    auto_delete: bool,
    internal: bool,
    arguments: FieldTable,
}

/// What came of declaring it again.
enum Redeclare {
    Equal,
    Gone,
    Forbidden,
    Differs(PreconditionFailed),
    Other(String),
}

/// Whether an exchange is there, after noting how it differs.
pub(super) async fn exchange(
    look: &mut Verifier<'_>,
    exchange: &Exchange,
) -> Result<Presence, ConnectError> {
    let mut declared = Declared::new(exchange.kind.as_str(), FieldTable::default());
    let name = exchange.name.as_str();
    let mut noted = Vec::new();
    let presence = compare(look, "exchange", name, &mut declared, &mut noted).await?;
    look.findings
        .extend(noted.into_iter().map(|d| Finding::ExchangeDiffers {
            exchange: name.to_owned(),
            property: d.argument,
            there: d.there.to_string(),
            wanted: d.wanted.to_string(),
            vhost: look.vhost.clone(),
        }));
    if presence == Presence::Missing {
        look.findings.push(Finding::ExchangeMissing {
            exchange: name.to_owned(),
        });
    }
    Ok(presence)
}

/// Whether a queue is there, after noting how it differs.
pub(super) async fn queue(
    look: &mut Verifier<'_>,
    queue: &Queue,
) -> Result<Presence, ConnectError> {
    let mut declared = Declared::new("", table(queue));
    let name = queue.name.as_str();
    let mut noted = Vec::new();
    let presence = compare(look, "queue", name, &mut declared, &mut noted).await?;
    look.findings
        .extend(noted.into_iter().map(|d| Finding::QueueDiffers {
            queue: queue.name.clone(),
            argument: d.argument,
            there: d.there.to_string(),
            wanted: d.wanted.to_string(),
            vhost: look.vhost.clone(),
        }));
    if presence == Presence::Missing {
        look.findings.push(Finding::QueueMissing {
            queue: queue.name.clone(),
            purpose: queue.purpose,
        });
    }
    Ok(presence)
}

/// Whether something is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Presence {
    There,
    Missing,
}

async fn compare(
    look: &mut Verifier<'_>,
    what: &'static str,
    name: &str,
    declared: &mut Declared,
    noted: &mut Vec<PreconditionFailed>,
) -> Result<Presence, ConnectError> {
    // What to show as wanted, of an argument that was left out to make room in the broker's answer.
    let mut left_out: Option<ArgumentValue> = None;
    for _ in 0..MAX_DIFFERENCES {
        let answer = match declared.redeclare(look, what, name).await? {
            Redeclare::Equal => return Ok(Presence::There),
            // Deleted after a first look, which is a finding as well.
            Redeclare::Gone => return Ok(Presence::Missing),
            Redeclare::Forbidden => {
                look.forbidden(Permission::Configure, what, name);
                return Ok(Presence::There);
            }
            Redeclare::Other(answer) => answer,
            Redeclare::Differs(mut difference) => {
                let argument = difference.argument.clone();
                if let Some(wanted) = left_out.take() {
                    difference.wanted = wanted;
                } else if matches!(difference.there, ArgumentValue::CutOff(_))
                    && let Some(wanted) = declared.drop_argument(&argument)
                {
                    left_out = Some(wanted);
                    continue;
                }
                let again = noted.iter().any(|n| n.argument == argument);
                let taken_over = !again && declared.adopt_argument(&argument, &difference.there);
                if !again {
                    noted.push(difference);
                }
                if taken_over {
                    continue;
                }
                format!("its {argument} is something that cannot be declared again")
            }
        };
        look.findings.push(Finding::NotCompared {
            what,
            name: name.to_owned(),
            answer,
        });
        break;
    }
    Ok(Presence::There)
}

impl Declared {
    fn new(kind: &str, arguments: FieldTable) -> Self {
        Self {
            kind: kind.to_owned(),
            durable: true,
            auto_delete: false,
            internal: false,
            arguments,
        }
    }

    /// Declares it once more, if it is there.
    async fn redeclare(
        &self,
        look: &mut Verifier<'_>,
        what: &'static str,
        name: &str,
    ) -> Result<Redeclare, ConnectError> {
        let declared = self.clone();
        let look_for = async move |channel: Channel| declared.send(channel, what, name, true).await;
        match look.ask(what, name, look_for).await? {
            ProbeResult::Yes(()) => {}
            ProbeResult::No(reply::NOT_FOUND, _) => return Ok(Redeclare::Gone),
            ProbeResult::No(reply::ACCESS_REFUSED, _) => return Ok(Redeclare::Forbidden),
            ProbeResult::No(code, text) => return Ok(Redeclare::Other(format!("{text} ({code})"))),
            ProbeResult::Silence => return Err(look.silence(what, name)),
        }
        let declared = self.clone();
        let declare = async move |channel: Channel| declared.send(channel, what, name, false).await;
        Ok(match look.ask(what, name, declare).await? {
            ProbeResult::Yes(()) => Redeclare::Equal,
            ProbeResult::No(reply::ACCESS_REFUSED, _) => Redeclare::Forbidden,
            ProbeResult::No(code, text) => match PreconditionFailed::read(&text) {
                Some(difference) => Redeclare::Differs(difference),
                None => Redeclare::Other(format!("{text} ({code})")),
            },
            ProbeResult::Silence => return Err(look.silence(what, name)),
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

    /// Leaves an argument out, so that the broker's answer has more room for the value that is there. Returns what it was.
    fn drop_argument(&mut self, argument: &str) -> Option<ArgumentValue> {
        let mut wanted = None;
        let rest = self.arguments.inner().iter().filter_map(|(name, value)| {
            if name.as_str() == argument {
                wanted = Some(told(value));
                return None;
            }
            Some((name.clone(), value.clone()))
        });
        self.arguments = rest.collect::<std::collections::BTreeMap<_, _>>().into();
        wanted
    }

    /// Declares this argument as it is there from now on; false if it cannot be.
    fn adopt_argument(&mut self, argument: &str, there: &ArgumentValue) -> bool {
        let (text, kind) = match there {
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

/// A value of the type that the broker names, or, where it names none, of the type of ours. The types are exact, for the broker does
/// not take every width of a number for equal.
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

/// A value of ours as the broker would write it.
fn told(value: &AMQPValue) -> ArgumentValue {
    let text = match value {
        AMQPValue::LongString(text) => text.to_string(),
        AMQPValue::LongLongInt(number) => number.to_string(),
        AMQPValue::Boolean(flag) => flag.to_string(),
        other => format!("{other:?}"),
    };
    ArgumentValue::Value { text, kind: None }
}
