//! Policies on Doorstep's queues: `topology verify` and a running role report those that can lose messages.

use std::time::Duration;

use doorstep_broker::percent_encoded;
use doorstep_telemetry::health::HealthStatus;
use doorstep_tests::wait_for;
use tokio::task::block_in_place;

use crate::{SOON, bindings::findings, operator::Office};

/// The statistics that show policies are some seconds old, and roles poll every half minute.
const LATER: Duration = Duration::from_secs(180);

impl Office {
    /// Sets a policy, or with `operator-policies` an operator policy; without a definition it is removed.
    fn policy(&self, kind: &str, name: &str, definition: Option<&str>) {
        let vhost = percent_encoded(&self.env.broker().address().vhost);
        let path = format!("/api/{kind}/{vhost}/{name}");
        let management = self.env.broker().management().unwrap();
        block_in_place(|| match definition {
            Some(definition) => {
                let json = format!(
                    r#"{{"pattern":"^doorstep\\.inventory\\.","apply-to":"queues","definition":{definition}}}"#
                );
                management.put(&path, &json).unwrap();
            }
            None => management.delete(&path).unwrap(),
        });
    }

    /// Waits until verify reports exactly these policy keys, each with its queue.
    async fn policies_are(&self, expected: &[(&str, &str)]) -> Vec<String> {
        let management = self.management_url();
        wait_for(format!("found: {expected:?}"), LATER, async || {
            let ended = self.verified(&management, &["--json"]).await;
            let report: serde_json::Value = serde_json::from_str(&ended.stdout)
                .map_err(|e| format!("{e}: {}", ended.stderr))?;
            let not_compared = report["not_compared"].as_array().unwrap();
            if let Some(line) = not_compared.iter().find(|l| l["what"] == "policies") {
                let reason = line["reason"].as_str().unwrap();
                assert!(reason.contains("has no statistics"), "{reason}");
                return Err(reason.to_owned());
            }
            let found = findings(&ended);
            let text = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
            let keys: Vec<_> = found
                .iter()
                .map(|f| (text(&f["queue"]), text(&f["key"])))
                .collect();
            let is_so = keys
                .iter()
                .map(|(queue, key)| (queue.as_str(), key.as_str()))
                .eq(expected.iter().copied());
            if !is_so {
                return Err(format!("{keys:?}"));
            }
            assert_eq!(ended.code, Some(if keys.is_empty() { 0 } else { 2 }));
            Ok(found.iter().map(|f| text(&f["text"])).collect())
        })
        .await
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lossy_policies_are_reported() {
    let office = Office::new("policies").await;
    let management = office.management_url();
    let url = office.env.amqp_url();
    office.policies_are(&[]).await;
    let (role_queue, net) = ("doorstep.inventory.0", "doorstep.inventory.quarantine");
    // A bound above the queue's own is harmless, and so is a dead-letter exchange if an argument names one.
    let sweep = r#"{"message-ttl":86400000,"overflow":"drop-head","delivery-limit":7,"dead-letter-exchange":"dlx","max-length":9000000}"#;
    office.policy("policies", "sweep", Some(sweep));
    let texts = office
        .policies_are(&[
            (net, "dead-letter-exchange"),
            (net, "delivery-limit"),
            (net, "message-ttl"),
            (net, "overflow"),
            (role_queue, "delivery-limit"),
            (role_queue, "message-ttl"),
            (role_queue, "overflow"),
        ])
        .await;
    let output = "policy sweep sets message-ttl = 86400000 on queue doorstep.inventory.0";
    assert!(texts[5].contains(output), "{texts:#?}");

    // Without the API policies are unknown, which is no problem.
    let unknowing = office.answering(&url, &[]).await;
    let ready = unknowing.is_ready().await;
    assert_eq!(ready.status, HealthStatus::Ready, "{ready:?}");
    unknowing.running.terminate();
    assert_eq!(unknowing.running.ended(SOON).await.code, Some(0));

    let knowing = office
        .answering(&url, &["--management-url", &management])
        .await;
    wait_for("the role names the policy", LATER, async || {
        let (is_good, readiness) = knowing.readiness();
        let role = &readiness.roles[0];
        let is_named = role
            .reasons
            .iter()
            .any(|reason| reason.message.contains(output));
        if is_good && is_named && role.status == HealthStatus::Degraded {
            Ok(())
        } else {
            Err(readiness)
        }
    })
    .await;

    office.policy("policies", "sweep", None);
    office.policy("operator-policies", "cap", Some(r#"{"expires":86400000}"#));
    let texts = office
        .policies_are(&[(net, "expires"), (role_queue, "expires")])
        .await;
    assert!(
        texts[1].starts_with("operator policy cap sets expires = 86400000"),
        "{texts:#?}"
    );
    office.policy("operator-policies", "cap", None);
    wait_for("the role is ready again", LATER, async || {
        let (_, readiness) = knowing.readiness();
        if readiness.status == HealthStatus::Ready {
            Ok(())
        } else {
            Err(readiness)
        }
    })
    .await;
    knowing.running.terminate();
    assert_eq!(knowing.running.ended(SOON).await.code, Some(0));
}
