//! The operator named in a record of the store.

use std::{env, fs, os::unix::fs::MetadataExt};

use clap::Args;
use doorstep_event::Timestamp;
use doorstep_runtime::operate::{Attribution, Operator};

use crate::{SettingsErrors, checked};

/// The operator to record.
#[derive(Debug, Args)]
#[command(next_help_heading = "Record")]
pub struct OperatorArgs {
    /// Your name, for the record [default: user@host].
    #[arg(long, env = "DOORSTEP_OPERATOR", value_name = "NAME", value_parser = checked(Operator::new, "x"))]
    operator: Option<Operator>,
}

impl OperatorArgs {
    /// Validates the name and, if there is one, the reason.
    pub fn by(&self, reason: Option<&str>, wrong: &mut SettingsErrors) -> Option<Attribution> {
        let mut known = || {
            wrong.check(
                "--operator (DOORSTEP_OPERATOR)",
                Operator::new(&user_at_host()),
            )
        };
        let operator = self.operator.clone().or_else(&mut known);
        let now = Timestamp::now();
        let known = operator.map(|operator| Attribution::new(operator, now));
        let Some(reason) = reason else {
            return known;
        };
        // Validated in any case, so that all errors are reported at once.
        let is_known = known.is_some();
        let by = known.unwrap_or_else(|| Attribution::from(now));
        wrong
            .check("--reason", by.with_reason(reason))
            .filter(|_| is_known)
    }
}

/// The operator, and the reason for a change.
#[derive(Debug, Args)]
#[group(skip)]
pub struct ReasonArgs {
    /// The reason, for the record.
    #[arg(long, value_name = "TEXT")]
    reason: String,

    #[command(flatten)]
    who: OperatorArgs,
}

impl ReasonArgs {
    /// Validates the operator and the reason.
    pub fn by(&self, wrong: &mut SettingsErrors) -> Option<Attribution> {
        self.who.by(Some(&self.reason), wrong)
    }
}

/// Returns the name of the user at the keyboard, as far as the system knows it.
fn user_at_host() -> String {
    let variable = |name| env::var(name).ok().filter(|value| !value.is_empty());
    let uid = || fs::metadata("/proc/self").map(|of| format!("uid {}", of.uid()));
    let user = variable("USER")
        .or_else(|| variable("LOGNAME"))
        .or_else(|| uid().ok());
    let file = |path| fs::read_to_string(path).ok();
    let host = file("/proc/sys/kernel/hostname")
        .or_else(|| file("/etc/hostname"))
        .or_else(|| variable("HOSTNAME"));
    let known = |name: Option<String>| name.unwrap_or_else(|| "unknown".to_owned());
    format!("{}@{}", known(user), known(host).trim())
}
