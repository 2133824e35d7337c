//! Environment variables that no part of Doorstep reads. A misspelt name would otherwise silently have no effect.

use std::{collections::BTreeSet, env};

use clap::Command;

/// The prefix of Doorstep's variables.
const PREFIX: &str = "DOORSTEP_";

/// The minimum similarity, from 0 to 1, of a name that is suggested.
const LIKE: f64 = 0.8;

/// All variables that a part of Doorstep reads: its programs, docker-compose.yml, the tests and `cargo xtask`. A test
/// compares them with the sources, and each program has one that compares them with its arguments.
const KNOWN: &str = "\
DOORSTEP_ACCESS_LOG DOORSTEP_ACCESS_LOG_HOURS DOORSTEP_ACCESS_LOG_IMPORT_PASSWORD DOORSTEP_ACCESS_LOG_MINUTES DOORSTEP_ACCESS_LOG_PASSWORD
DOORSTEP_ACK_TIMEOUT DOORSTEP_AMQP_PASSWORD_FILE DOORSTEP_AMQP_PORT DOORSTEP_AMQP_URL
DOORSTEP_ORDER_TIMEOUT DOORSTEP_BATCH_SIZE DOORSTEP_CONSUMERS_PASSWORD
DOORSTEP_DEAD_LETTER_COPY_TTL DOORSTEP_GATEWAY_PASSWORD DOORSTEP_GATEWAY_PORT
DOORSTEP_PUBLISH_TIMEOUT DOORSTEP_HEALTH_ADDR DOORSTEP_INVENTORY_PASSWORD DOORSTEP_LISTEN
DOORSTEP_LOG DOORSTEP_LOG_FORMAT DOORSTEP_MAIL_CA_FILE DOORSTEP_MAIL_CONCURRENCY
DOORSTEP_MAIL_FROM DOORSTEP_MAIL_ON_UNKNOWN DOORSTEP_MAIL_PASSWORD_FILE DOORSTEP_MAIL_RETRY
DOORSTEP_MAIL_TIMEOUT DOORSTEP_MAIL_URL DOORSTEP_PUBLIC_URL DOORSTEP_MANAGEMENT_PASSWORD DOORSTEP_MANAGEMENT_PASSWORD_FILE
DOORSTEP_MANAGEMENT_PORT DOORSTEP_MANAGEMENT_URL DOORSTEP_MAX_DEFERRED DOORSTEP_MAX_RUNNING_TASKS
DOORSTEP_NAMESPACE DOORSTEP_NOTIFICATIONS_PASSWORD
DOORSTEP_OPERATOR DOORSTEP_OPERATOR_PASSWORD DOORSTEP_ORDERS_PASSWORD DOORSTEP_OTLP_ENDPOINT
DOORSTEP_PASSWORD DOORSTEP_PAYMENTS_PASSWORD DOORSTEP_PICKUPS_PASSWORD DOORSTEP_PREFETCH
DOORSTEP_PRODUCER_PASSWORD DOORSTEP_TRUSTED_PROXY DOORSTEP_RATE_LIMIT
DOORSTEP_MAX_CONCURRENT_REQUESTS DOORSTEP_REPORTS_DIR DOORSTEP_REPORTS_MAX_BYTES
DOORSTEP_REPORTS_PASSWORD DOORSTEP_REPORT_LINK_TTL DOORSTEP_REPORT_PACE DOORSTEP_REPORT_RETENTION DOORSTEP_REPORT_TIMEOUT DOORSTEP_RESTAURANT_PASSWORD
DOORSTEP_RETAIL_PASSWORD
DOORSTEP_RPC_CALLERS DOORSTEP_SESSION_TTL DOORSTEP_SIMULATION_SCHEDULES DOORSTEP_SIMULATION_SEED
DOORSTEP_STATUS_PASSWORD DOORSTEP_TASK_LEASE DOORSTEP_DATA_DIR DOORSTEP_LIVENESS_TIMEOUT DOORSTEP_TEST_AMQP_URL
DOORSTEP_TEST_COMMIT_UNTIL_KILLED DOORSTEP_TEST_IMAGE DOORSTEP_TEST_MAILS DOORSTEP_TEST_MAIL_SERVER DOORSTEP_TEST_MANAGEMENT_URL
DOORSTEP_TLS_CA_FILE DOORSTEP_TLS_CERT_FILE DOORSTEP_TLS_KEY_FILE DOORSTEP_TRACKING_PASSWORD
DOORSTEP_MAX_CRASHES DOORSTEP_USER_ID DOORSTEP_USER_PASSWORD DOORSTEP_UTC_OFFSET
DOORSTEP_VERIFY_PASSWORD DOORSTEP_WITHOUT_OWNER_RECORD DOORSTEP_WRITE_DOCS DOORSTEP_YEAR";

fn known() -> impl Iterator<Item = &'static str> {
    KNOWN.split_whitespace()
}

/// Warns of each variable with Doorstep's prefix that no part reads, with the most similar known name. Values are not
/// shown. The log has to be started before.
pub(crate) fn warn_of_unread() {
    let variables = env::vars_os().filter_map(|(name, value)| {
        let value = value.into_string().unwrap_or_default();
        Some((name.into_string().ok()?, value))
    });
    for (variable, nearest) in unread(variables) {
        match nearest {
            Some(nearest) => {
                tracing::warn!(
                    variable,
                    "nothing reads this variable: did you mean {nearest}?"
                );
            }
            None => tracing::warn!(
                variable,
                "nothing reads this variable: --help of a command names those that it reads"
            ),
        }
    }
}

/// Returns the unread variables in order, each with the known name that is most similar.
fn unread(
    variables: impl Iterator<Item = (String, String)>,
) -> Vec<(String, Option<&'static str>)> {
    let mut unread: Vec<_> = variables
        .filter(|(name, value)| {
            name.starts_with(PREFIX)
                && !known().any(|known| known == *name)
                && !is_of_kubernetes(name, value)
        })
        .map(|(name, _)| {
            let nearest = nearest(&name);
            (name, nearest)
        })
        .collect();
    unread.sort();
    unread
}

fn nearest(name: &str) -> Option<&'static str> {
    let bare = |name: &'static str| name.strip_prefix(PREFIX).unwrap_or(name);
    let typed = name.strip_prefix(PREFIX)?;
    known()
        .map(|known| (strsim::jaro_winkler(typed, bare(known)), known))
        .filter(|(likeness, _)| *likeness >= LIKE)
        .max_by(|(a, _), (b, _)| a.total_cmp(b))
        .map(|(_, known)| known)
}

/// Returns whether Kubernetes sets such a variable in each container, for a service with a name such as
/// doorstep-gateway.
fn is_of_kubernetes(name: &str, value: &str) -> bool {
    let is_address = ["tcp://", "udp://", "sctp://"]
        .iter()
        .any(|scheme| value.starts_with(scheme));
    let part_of_address = |rest: &str| rest.starts_with(|c: char| c.is_ascii_digit());
    name.ends_with("_SERVICE_HOST")
        || name.contains("_SERVICE_PORT")
        || (name.ends_with("_PORT") && is_address)
        || name
            .split_once("_PORT_")
            .is_some_and(|(_, rest)| part_of_address(rest))
}

/// Returns the variables that a program's arguments name and that are not known, for the test of that program.
#[must_use]
pub fn unknown_to_warnings(command: &Command) -> BTreeSet<String> {
    let own = command.get_arguments().filter_map(|arg| arg.get_env());
    let own = own.map(|name| name.to_string_lossy().into_owned());
    let mut unknown: BTreeSet<_> = own
        .filter(|name| name.starts_with(PREFIX) && !known().any(|known| known == *name))
        .collect();
    for command in command.get_subcommands() {
        unknown.extend(unknown_to_warnings(command));
    }
    unknown
}

#[cfg(test)]
mod tests {
    use std::{
        fs,
        path::{Path, PathBuf},
    };

    use super::*;

    fn warned(variables: &[(&str, &str)]) -> Vec<(String, Option<&'static str>)> {
        let owned = |(name, value): &(&str, &str)| (format!("{PREFIX}{name}"), value.to_string());
        unread(variables.iter().map(owned))
    }

    #[test]
    fn misspelt_name_is_reported_with_nearest_one() {
        for (slip, meant) in [
            ("AMPQ_URL", Some("DOORSTEP_AMQP_URL")),
            ("DATADIR", Some("DOORSTEP_DATA_DIR")),
            ("PREFECTH", Some("DOORSTEP_PREFETCH")),
            ("TLS_CAFILE", Some("DOORSTEP_TLS_CA_FILE")),
            ("ZZZ", None),
        ] {
            assert_eq!(warned(&[(slip, "x")]), [(format!("{PREFIX}{slip}"), meant)]);
        }
    }

    #[test]
    fn fields_of_others_are_not_reported() {
        let others = [
            ("YEAR", "2022"),
            ("ORDERS_PASSWORD", "x"),
            ("TEST_IMAGE", "rabbitmq"),
            ("GATEWAY_SERVICE_HOST", "10.0.0.1"),
            ("GATEWAY_SERVICE_PORT_HTTP", "8080"),
            ("WEB_PORT", "tcp://10.0.0.1:8080"),
            ("GATEWAY_PORT_8080_TCP_ADDR", "10.0.0.1"),
        ];
        assert_eq!(warned(&others), []);
        let other_prefix = [("OTHER_URL".to_owned(), String::new())];
        assert_eq!(unread(other_prefix.into_iter()), []);
    }

    /// Collects the files in which variables are named.
    fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(folder).unwrap() {
            let entry = entry.unwrap();
            let (path, name) = (entry.path(), entry.file_name());
            let name = name.to_string_lossy();
            if entry.file_type().unwrap().is_dir() {
                // The checks of the vocabulary name variables without reading them.
                if !name.starts_with('.') && name != "target" && name != "tidy" {
                    sources(&path, found);
                }
            } else if name != "variables.rs"
                && (name == "Dockerfile" || name.ends_with(".rs") || name.ends_with(".yml"))
            {
                found.push(path);
            }
        }
    }

    #[test]
    fn known_variables_are_exactly_those_read() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        let mut files = Vec::new();
        sources(&root, &mut files);
        let mut named = BTreeSet::new();
        for file in files {
            let text = fs::read_to_string(file).unwrap();
            for (at, _) in text.match_indices(PREFIX) {
                let is_part = |c: char| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_';
                let name = &text[at..];
                let end = name.find(|c| !is_part(c)).unwrap_or(name.len());
                // The common beginning of several names.
                if !name[..end].ends_with('_') {
                    named.insert(name[..end].to_owned());
                }
            }
        }
        let known: BTreeSet<String> = known().map(str::to_owned).collect();
        let missing: Vec<_> = named.difference(&known).collect();
        assert!(missing.is_empty(), "add to KNOWN: {missing:?}");
        let gone: Vec<_> = known.difference(&named).collect();
        assert!(gone.is_empty(), "remove from KNOWN: {gone:?}");
    }

    #[test]
    fn every_user_variable_is_on_the_page() {
        let page = crate::reference::page("settings.md");
        let is_of_compose = |name: &str| name.ends_with("_PORT") || name.ends_with("PASSWORD");
        let is_of_tests = |name: &str| {
            ["TEST_", "SIMULATION_", "WRITE_DOCS"]
                .iter()
                .any(|of| name[PREFIX.len()..].starts_with(of))
        };
        let missing: Vec<_> = known()
            .filter(|name| !is_of_compose(name) && !is_of_tests(name))
            .filter(|name| !page.contains(&format!("`{name}`")))
            .collect();
        assert!(
            missing.is_empty(),
            "add to docs/reference/settings.md: {missing:?}"
        );
    }
}
