//! `consumers topology verify`: the differences between the broker and the declared topology.

use std::fmt::Write;

use doorstep_cli::{
    CliError,
    output::{print, print_json},
    role_queues,
};
use doorstep_messaging::{Finding, RoleOwner, Topology, Verified, verify as look};
use serde::Serialize;

use super::{
    VerifyJob,
    managed::{self, Managed, NotCompared},
};

/// Lists all differences that concern these roles.
///
/// # Errors
/// Something differs, the broker cannot be reached, or standard output cannot be written.
pub(crate) async fn verify(job: VerifyJob) -> Result<(), CliError> {
    let mut queues = role_queues();
    queues.retain(|queues| job.roles.iter().any(|role| role.name == queues.role));
    let topology = Topology::for_roles(&job.broker.namespace, &queues);
    let mut verified = look(&job.broker, &topology)
        .await
        .map_err(|e| CliError::broker(e.to_string()))?;
    let Managed {
        findings,
        compared,
        not_compared,
    } = managed::compare(&job, &topology).await;
    verified.findings.extend(findings);
    let report = Report::new(&verified, &not_compared);
    if job.json {
        print_json(&report)?;
    } else {
        print(|out| out.write_all(text(&verified, &compared, &report).as_bytes()))?;
    }
    match verified.findings.len() {
        0 => Ok(()),
        1 => Err(CliError::differs("the broker differs")),
        many => Err(CliError::differs(format!(
            "the broker differs in {many} ways"
        ))),
    }
}

/// A report for programs: each finding in its parts and in words.
#[derive(Serialize)]
struct Report<'a> {
    address: &'a str,
    broker: Option<Broker<'a>>,
    findings: Vec<Row<'a>>,
    owners: &'a [RoleOwner],
    not_compared: &'a [NotCompared],
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
    fn new(verified: &'a Verified, not_compared: &'a [NotCompared]) -> Self {
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
            not_compared,
            notes: verified.notes(),
        }
    }
}

fn text(verified: &Verified, compared: &[&str], report: &Report<'_>) -> String {
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
        let mut all = vec!["exchanges", "queues", "arguments", "rights"];
        all.extend(compared);
        let last = all.pop().unwrap_or_default();
        let all = all.join(", ");
        let _ = writeln!(text, "All {all} and {last} are as they should be.");
    }
    for RoleOwner { role, owner } in &verified.owners {
        let owner = owner.as_ref().map_or_else(
            || "to no store yet, or to one that is not recorded".to_owned(),
            ToString::to_string,
        );
        let _ = writeln!(text, "The queues of {role} belong {owner}.");
    }
    for note in &report.notes {
        let _ = writeln!(text, "{note}.");
    }
    for NotCompared { what, reason } in report.not_compared {
        let _ = writeln!(text, "{what} not compared: {reason}.");
    }
    text
}

#[cfg(test)]
mod tests {
    use doorstep_messaging::ServerProperties;

    use super::*;

    fn report_text(verified: &Verified) -> String {
        text(verified, &[], &Report::new(verified, &[]))
    }

    #[test]
    fn unknown_broker_version_is_reported() {
        let verified = Verified {
            address: "amqps://shop".to_owned(),
            broker: None,
            findings: Vec::new(),
            owners: Vec::new(),
        };
        let text = report_text(&verified);
        assert!(text.contains("does not tell its version"), "{text}");
        assert!(!text.contains("stream_queue"), "{text}");
        let all = "All exchanges, queues, arguments and rights are as they should be.";
        assert!(text.contains(all), "{text}");
    }

    #[test]
    fn areas_not_compared_are_listed_with_reasons() {
        let verified = Verified {
            address: "amqps://shop".to_owned(),
            broker: None,
            findings: Vec::new(),
            owners: Vec::new(),
        };
        let not_compared = [NotCompared {
            what: "bindings",
            reason: "away".to_owned(),
        }];
        let report = Report::new(&verified, &not_compared);
        let text = text(&verified, &["policies"], &report);
        assert!(text.contains("bindings not compared: away."), "{text}");
        assert!(text.contains("rights and policies are as"), "{text}");
    }

    #[test]
    fn unverifiable_findings_are_listed_where_relevant() {
        let verified = |version: &str| Verified {
            address: "amqp://shop".to_owned(),
            broker: Some(ServerProperties {
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
            let text = report_text(&verified);
            let remedy = "rabbitmqctl enable_feature_flag stream_queue";
            assert_eq!(text.contains(remedy), is_said, "{text}");
            let notes = Report::new(&verified, &[]).notes;
            assert_eq!(notes.len(), usize::from(is_said));
        }
    }
}
