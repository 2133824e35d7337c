//! The words of mails, as text and as HTML.

use askama::Template;
use doorstep_contracts::{CancelledBy, RefusedBy};
use doorstep_event::Timestamp;

use super::contracts::{OrderOutcome, OrderTopic, ReportOutcome, ReportTopic, Topic};

/// The words of a mail.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Letter {
    pub(super) subject: String,
    pub(super) lines: Vec<String>,
    pub(super) link: Option<LetterLink>,
}

/// A link of a mail.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct LetterLink {
    pub(super) label: &'static str,
    pub(super) url: String,
    pub(super) expires_at: String,
}

#[derive(Template)]
#[template(path = "mail.txt")]
struct TextForm<'a> {
    letter: &'a Letter,
}

#[derive(Template)]
#[template(path = "mail.html")]
struct HtmlForm<'a> {
    letter: &'a Letter,
}

impl Letter {
    /// Writes the words about a topic. `confirmation` is the link that confirms an address.
    pub(super) fn new(topic: &Topic, confirmation: Option<LetterLink>, public_url: &str) -> Self {
        match topic {
            Topic::Order(order) => Self::about_order(order),
            Topic::Report(report) => Self::about_report(report, public_url),
            Topic::Address { customer, .. } => Self {
                subject: "Confirm your mail address".to_owned(),
                lines: vec![
                    format!("The user {customer} has given this address for mails about orders."),
                    "Mails come to it only once you have confirmed it. If you are not that user, do nothing: you get no further mail."
                        .to_owned(),
                ],
                link: confirmation,
            },
        }
    }

    fn about_order(topic: &OrderTopic) -> Self {
        let OrderTopic {
            order,
            total,
            outcome,
        } = topic;
        let (subject, lines) = match outcome {
            OrderOutcome::Confirmed {
                restaurant,
                promised_at,
            } => (
                format!("Order {order} is confirmed"),
                vec![
                    format!("{restaurant} makes your order {order}."),
                    format!("It is promised for {}.", time(*promised_at)),
                    format!("The total is {total}."),
                ],
            ),
            OrderOutcome::Refused { by, reason } => {
                let by = match by {
                    RefusedBy::Payment => "The payment for your order",
                    RefusedBy::Restaurant => "Your order",
                };
                (
                    format!("Order {order} was refused"),
                    vec![
                        format!("{by} {order} was refused: {reason}."),
                        "Nothing is charged.".to_owned(),
                    ],
                )
            }
            OrderOutcome::Abandoned { reason } => (
                format!("Order {order} was not placed"),
                vec![
                    format!("Your order {order} got no answer in time: {reason}."),
                    "Nothing is charged. Place it again if you still want it.".to_owned(),
                ],
            ),
            OrderOutcome::Cancelled { by, reason } => {
                let by = match by {
                    CancelledBy::Customer => "at your request",
                    CancelledBy::Restaurant => "by the restaurant",
                    CancelledBy::Operator => "by the shop",
                };
                (
                    format!("Order {order} was cancelled"),
                    vec![
                        format!("Your order {order} was cancelled {by}: {reason}."),
                        format!("You do not pay the total of {total}."),
                    ],
                )
            }
            OrderOutcome::Delivered { delivered_at } => (
                format!("Order {order} was delivered"),
                vec![format!(
                    "Your order {order} was delivered on {}.",
                    time(*delivered_at)
                )],
            ),
        };
        Self {
            subject,
            lines,
            link: None,
        }
    }

    fn about_report(topic: &ReportTopic, public_url: &str) -> Self {
        match &topic.outcome {
            ReportOutcome::Ready(ready) => {
                let kind = ready.report.as_str();
                let country = ready.country.as_ref().map(|name| format!(" in {name}"));
                let country = country.unwrap_or_default();
                let total = ready.total.map(|total| format!(" and a total of {total}"));
                let total = total.unwrap_or_default();
                Self {
                    subject: format!("Your report of {kind} is ready"),
                    lines: vec![format!(
                        "The report of {kind}{country} from {} to {} counts {} orders{total}.",
                        ready.from, ready.to, ready.orders
                    )],
                    link: Some(LetterLink {
                        label: "Open the report",
                        url: format!("{public_url}{}", ready.link.path.as_str()),
                        expires_at: time(ready.link.expires_at),
                    }),
                }
            }
            ReportOutcome::Failed(failed) => {
                let kind = failed.report.as_str();
                Self {
                    subject: format!("Your report of {kind} could not be made"),
                    lines: vec![format!(
                        "The report of {kind} from {} to {} could not be made: {}.",
                        failed.from, failed.to, failed.reason
                    )],
                    link: None,
                }
            }
        }
    }

    /// Returns the mail as text.
    pub(super) fn text(&self) -> Result<String, askama::Error> {
        TextForm { letter: self }.render()
    }

    /// Returns the mail as HTML, with all values escaped.
    pub(super) fn html(&self) -> Result<String, askama::Error> {
        HtmlForm { letter: self }.render()
    }
}

/// Returns a time to the minute, as people write it.
pub(super) fn time(at: Timestamp) -> String {
    at.strftime("%Y-%m-%d %H:%M UTC").to_string()
}
