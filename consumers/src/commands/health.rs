//! `consumers health`: queries the health of running roles, for people and for supervisors.

use std::time::Duration;

use doorstep_cli::{
    CliError,
    output::{print, print_line},
};
use doorstep_telemetry::health::{HealthCheck, HealthStatus, Liveness, Readiness, get};
use serde::de::DeserializeOwned;
use tokio::task::spawn_blocking;

use crate::{cli::HealthArgs, format::sanitize};

/// The time limit of the response.
const LIMIT: Duration = Duration::from_secs(5);

/// Queries the endpoint and shows its response.
///
/// # Errors
/// The endpoint does not respond, or reports a failure.
pub(crate) async fn health(args: HealthArgs) -> Result<(), CliError> {
    let question = if args.live {
        HealthCheck::Alive
    } else {
        HealthCheck::Ready
    };
    let asked = spawn_blocking(move || get(args.health_addr, question, LIMIT)).await;
    let (is_good, answer) = asked
        .map_err(|e| CliError::internal(format!("broke off: {e}")))?
        .map_err(|e| CliError::missing(e.to_string()))?;
    if args.json {
        print_line(answer.trim_end())?;
    } else {
        let lines = match question {
            HealthCheck::Alive => alive(&read(&answer)?),
            HealthCheck::Ready => ready(&read(&answer)?),
        };
        print(|out| lines.iter().try_for_each(|line| writeln!(out, "{line}")))?;
    }
    if is_good {
        return Ok(());
    }
    Err(CliError::trouble(match question {
        HealthCheck::Alive => "something is stuck: restart the process",
        HealthCheck::Ready => "not every role does its work",
    }))
}

fn read<T: DeserializeOwned>(answer: &str) -> Result<T, CliError> {
    serde_json::from_str(answer).map_err(|e| {
        CliError::data(format!(
            "the process at this address is not one of Doorstep's: {e}"
        ))
    })
}

fn alive(liveness: &Liveness) -> Vec<String> {
    if liveness.alive {
        return vec!["alive".to_owned()];
    }
    liveness.stuck.iter().map(|line| sanitize(line)).collect()
}

fn ready(readiness: &Readiness) -> Vec<String> {
    let mut lines = Vec::new();
    for role in &readiness.roles {
        let status = match role.status {
            HealthStatus::Ready => "ready",
            HealthStatus::Degraded => "degraded",
            HealthStatus::Unready => "not ready",
        };
        lines.push(format!(
            "{}: {status}, {}",
            sanitize(&role.role),
            sanitize(&role.phase)
        ));
        let reasons = role.reasons.iter();
        lines.extend(reasons.map(|reason| {
            let (name, message) = (sanitize(&reason.name), sanitize(&reason.message));
            format!("  {name}: {message}")
        }));
    }
    lines
}
