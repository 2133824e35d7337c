//! Messages of other publishers, valid and invalid, and the expected result of each.

use std::time::Duration;

use doorstep_event::{Event, EventId, EventType, Sequence, Source, Subject, Timestamp};
use doorstep_messaging::{Message, PublishOutcome, Publisher};

use crate::{RawAmqp, RawProperties, nested_tables};

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Case {
    /// Five undecodable events with equal bodies.
    SameBodies,
    /// A message id that is not UTF-8.
    LatinId,
    /// An app id that is not UTF-8.
    LatinApp,
    /// A header of 30 nested tables, which can be decoded.
    Deep30,
    /// A header of 2,000 nested tables, which overflows the stack of a recursive parser.
    Deep2000,
    /// Almost as many as fit into a frame.
    Deep12000,
    /// A position twenty years ahead, among positions of today.
    Future,
    TwoSubjects,
    /// CloudEvents' structured mode.
    Structured,
    /// A time with twelve decimals.
    FineTime,
    /// A sequence of the type double.
    FloatSequence,
    /// A family of events that the user may not publish.
    ForgedFamily,
    /// An event under another user's source.
    ForgedSource,
}

impl Case {
    pub(super) const ALL: [Self; 13] = [
        Self::SameBodies,
        Self::LatinId,
        Self::LatinApp,
        Self::Deep30,
        Self::Deep2000,
        Self::Deep12000,
        Self::Future,
        Self::TwoSubjects,
        Self::Structured,
        Self::FineTime,
        Self::FloatSequence,
        Self::ForgedFamily,
        Self::ForgedSource,
    ];

    /// Returns the name, which is part of every body of this case.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::SameBodies => "same-bodies",
            Self::LatinId => "latin-id",
            Self::LatinApp => "latin-app",
            Self::Deep30 => "deep-30",
            Self::Deep2000 => "deep-2000",
            Self::Deep12000 => "deep-12000",
            Self::Future => "future",
            Self::TwoSubjects => "two-subjects",
            Self::Structured => "structured",
            Self::FineTime => "fine-time",
            Self::FloatSequence => "float-sequence",
            Self::ForgedFamily => "forged-family",
            Self::ForgedSource => "forged-source",
        }
    }

    /// Returns the number of dead letters of all its messages together, however often they are sent, and their reason.
    pub(super) fn dead_letters(self) -> (usize, &'static str) {
        match self {
            Self::SameBodies => (5, "unreadable"),
            Self::LatinId
            | Self::LatinApp
            | Self::Deep2000
            | Self::Deep12000
            | Self::TwoSubjects
            | Self::FloatSequence => (1, "unreadable"),
            Self::ForgedSource => (1, "foreign source"),
            Self::Deep30
            | Self::Future
            | Self::Structured
            | Self::FineTime
            | Self::ForgedFamily => (0, ""),
        }
    }

    /// Returns the stock code of which it sells one piece, once, if it is valid.
    pub(super) fn sells(self) -> Option<String> {
        let is_sale = matches!(self, Self::Deep30 | Self::Structured | Self::FineTime);
        is_sale.then(|| self.code())
    }

    fn code(self) -> String {
        self.name().to_uppercase()
    }

    /// Returns the body of its sales.
    fn sale(self) -> Vec<u8> {
        sale(self.name())
    }
}

/// Returns a sale of one piece, for an order of this number.
pub(super) fn sale(order: &str) -> Vec<u8> {
    format!(r#"{{"delta":-1,"reason":"sale","reference":"order/{order}"}}"#).into_bytes()
}

/// The delivery of [`Case::Future`].
pub(super) const DELIVERY: &str = "delivery/late";
/// The number of its events.
pub(super) const DELIVERY_EVENTS: u64 = 5;
/// The year of the position that is far ahead.
pub(super) const FAR_AHEAD: &str = "2046";
const SALES: &str = "stock.adjusted.v1";

/// The connections of the other publishers.
pub(super) struct Others {
    /// Raw AMQP, for frames that no client library writes, and without a user id.
    pub(super) raw: RawAmqp,
    /// A user of its own, which may publish only the family of stock.
    pub(super) stranger: Publisher,
    pub(super) exchange: String,
    /// The source of the valid events, which belongs to another user.
    pub(super) source: Source,
    /// The time of all of them, so that a repeated message is the same.
    pub(super) now: Timestamp,
}

impl Others {
    /// Sends the messages of this case and waits for the broker's confirms. Returns any deviation from the expected
    /// ones.
    pub(super) async fn send(&mut self, case: Case) -> Option<String> {
        let outcome = match case {
            Case::ForgedFamily => {
                let body = br#"{"by":"customer","reason":"forged"}"#;
                self.forge("order.cancelled.v1", "order/forged", body, case)
                    .await
            }
            Case::ForgedSource => self.forge(SALES, "stock/S0", &case.sale(), case).await,
            _ => {
                self.send_raw(case).await;
                return None;
            }
        };
        let right = match case {
            Case::ForgedFamily => PublishOutcome::Unpublishable,
            _ => PublishOutcome::Confirmed,
        };
        (outcome != right).then(|| format!("{}: the broker returned {outcome:?}", case.name()))
    }

    async fn send_raw(&mut self, case: Case) {
        let code = case.code();
        let sound = attributes(case.name(), &format!("stock/{code}"), SALES)
            .header_text("cloudEvents:sequence", "1");
        let nested = |tables| sound.clone().header(b"x-deep", &nested_tables(tables));
        let latin = b"caf\xe9";
        let one = match case {
            Case::SameBodies => {
                for n in 1..=5 {
                    let properties =
                        attributes(&format!("same-{n}"), &format!("stock/A{n}"), SALES)
                            .header_text("cloudEvents:sequence", "1.0");
                    self.publish(SALES, &properties, &case.sale()).await;
                }
                return self.raw.confirmed().await;
            }
            Case::Future => return self.send_delivery().await,
            Case::LatinId => sound.text("message_id", latin),
            Case::LatinApp => sound.text("app_id", latin),
            Case::Deep30 => nested(30),
            Case::Deep2000 => nested(2_000),
            Case::Deep12000 => nested(12_000),
            Case::TwoSubjects => sound.header_text("cloudEvents_subject", "stock/OTHER"),
            Case::FineTime => {
                let time = self.now.strftime("%Y-%m-%dT%H:%M:%S.123456789012Z");
                sound.header_text("cloudEvents:time", &time.to_string())
            }
            Case::FloatSequence => {
                let mut double = vec![b'd'];
                double.extend(1.0_f64.to_be_bytes());
                attributes(case.name(), &format!("stock/{code}"), SALES)
                    .header(b"cloudEvents:sequence", &double)
            }
            Case::Structured => {
                let data = String::from_utf8_lossy(&case.sale()).into_owned();
                let body = format!(
                    r#"{{"specversion":"1.0","id":"s-1","source":"till/structured","type":"{SALES}","subject":"stock/{code}","sequence":"1","data":{data}}}"#
                );
                let properties = RawProperties::default().text(
                    "content_type",
                    b"application/cloudevents+json; charset=utf-8",
                );
                self.publish(SALES, &properties, body.as_bytes()).await;
                return self.raw.confirmed().await;
            }
            Case::ForgedFamily | Case::ForgedSource => return,
        };
        self.publish(SALES, &one, &case.sale()).await;
        self.raw.confirmed().await;
    }

    async fn send_delivery(&mut self) {
        let ago = |minutes| {
            let time = self.now.checked_sub(Duration::from_mins(minutes));
            time.unwrap().to_string()
        };
        let accepted = format!(r#"{{"courier":"c-1","accepted_at":"{}"}}"#, ago(9));
        let mut facts = vec![("delivery.assigned.v1", accepted)];
        let times = [
            format!("{FAR_AHEAD}-07-16T00:00:00Z"),
            ago(3),
            ago(2),
            ago(1),
        ];
        facts.extend(times.into_iter().map(|at| {
            let position = r#"{"longitude":12.5,"latitude":41.9}"#;
            let fact = format!(r#"{{"position":{position},"recorded_at":"{at}"}}"#);
            ("delivery.position_recorded.v1", fact)
        }));
        for (n, (kind, fact)) in (1..).zip(facts) {
            let properties = attributes_of("courier/app", &format!("late-{n}"), DELIVERY, kind)
                .header_text("cloudEvents:sequence", &n.to_string());
            self.publish(kind, &properties, fact.as_bytes()).await;
        }
        self.raw.confirmed().await;
    }

    async fn publish(&mut self, kind: &str, properties: &RawProperties, body: &[u8]) {
        let exchange = self.exchange.clone();
        self.raw
            .publish(&exchange, kind.as_bytes(), properties, body)
            .await;
    }

    /// Publishes as the restricted user, under the source of the valid events.
    async fn forge(&self, kind: &str, subject: &str, body: &[u8], case: Case) -> PublishOutcome {
        let event = Event {
            id: EventId::new(case.name()).unwrap(),
            source: self.source.clone(),
            event_type: EventType::new(kind).unwrap(),
            subject: Subject::new(subject).unwrap(),
            time: Some(self.now),
            sequence: Sequence::new(1),
            epoch: None,
            traceparent: None,
            data: body.to_vec().into(),
        };
        self.stranger.publish(Message::event(&event)).await
    }
}

/// Returns the attributes of another publisher's event, except for its sequence.
fn attributes(id: &str, subject: &str, kind: &str) -> RawProperties {
    attributes_of(&format!("till/{id}"), id, subject, kind)
}

fn attributes_of(source: &str, id: &str, subject: &str, kind: &str) -> RawProperties {
    RawProperties::default()
        .header_text("cloudEvents:specversion", "1.0")
        .header_text("cloudEvents:id", id)
        .header_text("cloudEvents:source", source)
        .header_text("cloudEvents:type", kind)
        .header_text("cloudEvents:subject", subject)
}
