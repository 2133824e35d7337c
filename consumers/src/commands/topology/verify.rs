//! `consumers topology verify`: how the broker differs from what is declared here.

use std::fmt::Write;

use doorstep_messaging::{BrokerSettings, Finding, QueuesOf, Topology, Verified, verify as look};
use doorstep_program::{
    Failure, Reason,
    output::{print, print_json},
};
use serde::Serialize;

use crate::{
    roles::{self, RoleEntry},
    settings::Form,
};

/// Lists all differences that concern these roles.
///
/// # Errors
/// Something differs, the broker cannot be asked, or standard output cannot be written.
pub(crate) async fn verify(
    chosen: &[RoleEntry],
    broker: &BrokerSettings,
    form: Form,
) -> Result<(), Failure> {
    let mut queues = roles::queues();
    queues.retain(|queues| chosen.iter().any(|role| role.name == queues.role));
    let topology = Topology::of(&broker.namespace, &queues);
    let verified = look(broker, &topology)
        .await
        .map_err(|e| Failure::new(Reason::Broker, e.to_string()))?;
    match form {
        Form::Json => print_json(&Report::of(&verified))?,
        Form::Text => print(|out| out.write_all(text(&verified).as_bytes()))?,
    }
    match verified.findings.len() {
        0 => Ok(()),
        1 => Err(Failure::new(Reason::Differs, "the broker differs")),
        many => Err(Failure::new(
            Reason::Differs,
            format!("the broker differs in {many} ways"),
        )),
    }
}

/// A report for programs: each finding in its parts and in words.
#[derive(Serialize)]
struct Report<'a> {
    address: &'a str,
    broker: Option<Broker<'a>>,
    findings: Vec<Row<'a>>,
    owners: &'a [QueuesOf],
    notes: Vec<&'static str>,
}

#[derive(Serialize)]
struct Broker<'a> {
    product: &'a str,
    version: &'a str,
}

#[derive(Serialize)]
struct Row<'a> {
    #[serde(flatten)]
    finding: &'a Finding,
    text: String,
}

impl<'a> Report<'a> {
    fn of(verified: &'a Verified) -> Self {
        Self {
            address: &verified.address,
            broker: verified.broker.as_ref().map(|greeting| Broker {
                product: &greeting.product,
                version: &greeting.version,
            }),
            findings: verified
                .findings
                .iter()
                .map(|finding| Row {
                    finding,
                    text: finding.to_string(),
                })
                .collect(),
            owners: &verified.owners,
            notes: verified.notes(),
        }
    }
}

fn text(verified: &Verified) -> String {
    let mut text = String::new();
    let broker = match &verified.broker {
        Some(greeting) => greeting.to_string(),
        None => "a broker that does not tell its version".to_owned(),
    };
    let _ = writeln!(text, "{broker} at {}", verified.address);
    for finding in &verified.findings {
        let _ = writeln!(text, "- {finding}");
    }
    if verified.findings.is_empty() {
        text.push_str("All exchanges, queues, arguments and rights are as they should be.\n");
    }
    for QueuesOf { role, owner } in &verified.owners {
        let owner = owner.as_ref().map_or_else(
            || "to no store yet, or to one that is not recorded".to_owned(),
            ToString::to_string,
        );
        let _ = writeln!(text, "The queues of {role} belong {owner}.");
    }
    for note in verified.notes() {
        let _ = writeln!(text, "{note}.");
    }
    text.push_str(
        "Bindings cannot be looked at over AMQP: what no binding takes is reported as unroutable when it is published.\n",
    );
    text
}

#[cfg(test)]
mod tests {
    use doorstep_messaging::Greeting;

    use super::*;

    #[test]
    fn a_broker_of_unknown_version_is_said_to_be_so() {
        let verified = Verified {
            address: "amqps://shop".to_owned(),
            broker: None,
            findings: Vec::new(),
            owners: Vec::new(),
        };
        let text = text(&verified);
        assert!(text.contains("does not tell its version"), "{text}");
        assert!(text.contains("Bindings cannot be looked at"), "{text}");
        assert!(!text.contains("stream_queue"), "{text}");
    }

    #[test]
    fn what_cannot_be_looked_at_is_said_where_it_matters() {
        let verified = |version: &str| Verified {
            address: "amqp://shop".to_owned(),
            broker: Some(Greeting {
                product: "RabbitMQ".to_owned(),
                version: version.to_owned(),
            }),
            findings: Vec::new(),
            owners: Vec::new(),
        };
        for (version, is_said) in [
            ("3.9.27", false),
            ("3.10.0", true),
            ("3.13.7", true),
            ("4.0.1", false),
        ] {
            let verified = verified(version);
            let text = text(&verified);
            let remedy = "rabbitmqctl enable_feature_flag stream_queue";
            assert_eq!(text.contains(remedy), is_said, "{text}");
            assert_eq!(Report::of(&verified).notes.len(), usize::from(is_said));
        }
    }
}
