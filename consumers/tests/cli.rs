//! The program as it is typed, without a broker: settings, exit codes, and what is said of stores that are not there.
#![expect(clippy::unwrap_used, reason = "a helper that fails fails its test")]

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
};

/// A folder that is removed with the test.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path =
            Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}-{}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// An address where nobody answers: port 1 is never listened on.
const NOBODY: &str = "amqp://127.0.0.1:1";

fn consumers(words: &[&str], variables: &[(&str, &str)]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_consumers"))
        .args(words)
        .env_clear()
        .envs(variables.iter().copied())
        .output()
        .unwrap()
}

fn said(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

#[track_caller]
fn rejected(words: &[&str], variables: &[(&str, &str)], code: i32) -> String {
    let output = consumers(words, variables);
    let error = said(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{error}");
    error
}

#[test]
fn completions_are_scripts_that_bash_reads() {
    let folder = Folder::new("completions");
    let script = folder.0.join("consumers.bash");
    for shell in ["bash", "zsh", "fish"] {
        let output = consumers(&["completions", shell], &[]);
        assert!(output.status.success(), "{shell}");
        assert!(said(&output.stdout).contains("permissions"), "{shell}");
        if shell == "bash" {
            fs::write(&script, &output.stdout).unwrap();
        }
    }
    let read = Command::new("bash")
        .arg("-n")
        .arg(&script)
        .output()
        .unwrap();
    assert!(read.status.success(), "{}", said(&read.stderr));
    let completed = Command::new("bash")
        .arg("-c")
        .arg(format!(
            "source {}; COMP_WORDS=(consumers topo); COMP_CWORD=1; _consumers consumers topo consumers; echo ${{COMPREPLY[@]}}",
            script.display()
        ))
        .output()
        .unwrap();
    assert_eq!(said(&completed.stdout), "topology\n");
}

#[test]
fn every_wrong_variable_is_named_at_once() {
    let wrong = [
        ("DOORSTEP_AMQP_URL", "http://user:secret@host"),
        ("DOORSTEP_NAMESPACE", "Not A Name"),
        ("DOORSTEP_PREFETCH", "2001"),
        ("DOORSTEP_BATCH_SIZE", "none"),
        ("DOORSTEP_LOG", "a=b=c"),
        ("DOORSTEP_LOG_FORMAT", "xml"),
    ];
    let error = rejected(&["run"], &wrong, 64);
    assert!(error.starts_with("error: 6 settings are wrong"), "{error}");
    for (name, _) in wrong {
        assert!(error.contains(name), "{name} in {error}");
    }
    assert!(!error.contains("secret"), "{error}");
}

#[test]
fn all_unusable_tls_and_password_files_are_named() {
    let folder = Folder::new("tls");
    let file = |name: &str, text: &str| {
        let path = folder.0.join(name);
        fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let damaged = "-----BEGIN CERTIFICATE-----\n%%%%\n-----END CERTIFICATE-----\n";
    let certificate = file("certificate.pem", damaged);
    let key = file("key.pem", "no key");
    let password = file("password", "secret\nof two lines\n");
    let missing = folder.0.join("missing.pem");
    let wrong = [
        ("DOORSTEP_TLS_CA_FILE", missing.to_str().unwrap()),
        ("DOORSTEP_TLS_CERT_FILE", &certificate),
        ("DOORSTEP_TLS_KEY_FILE", &key),
        ("DOORSTEP_AMQP_PASSWORD_FILE", &password),
        ("DOORSTEP_OTLP_ENDPOINT", "https://localhost"),
    ];
    let error = rejected(&["topology", "verify"], &wrong, 64);
    assert!(error.starts_with("error: 4 settings are wrong"), "{error}");
    for (_, file) in &wrong[..4] {
        assert!(error.contains(file), "{file} in {error}");
    }
    assert!(!error.contains("secret"), "{error}");

    let alone = [("DOORSTEP_TLS_CERT_FILE", certificate.as_str())];
    let error = rejected(&["topology", "verify"], &alone, 64);
    assert!(error.contains("DOORSTEP_TLS_KEY_FILE"), "{error}");
    let external = [("DOORSTEP_AMQP_URL", "amqps://h?auth_mechanism=external")];
    let error = rejected(&["topology", "verify"], &external, 64);
    assert!(error.contains("--tls-cert-file"), "{error}");
    let password = file("password", "from file\n");
    let two = [
        ("DOORSTEP_AMQP_URL", "amqps://u:secret@h"),
        ("DOORSTEP_AMQP_PASSWORD_FILE", password.as_str()),
    ];
    let error = rejected(&["topology", "verify"], &two, 64);
    assert!(error.contains("leave it out"), "{error}");
    assert!(!error.contains("secret"), "{error}");
}

#[test]
fn commands_ignore_variables_they_do_not_need() {
    let wrong = [
        ("DOORSTEP_AMQP_URL", "nowhere"),
        ("DOORSTEP_BATCH_SIZE", "none"),
    ];
    let output = consumers(&["topology", "show"], &wrong);
    assert!(output.status.success(), "{}", said(&output.stderr));
}

#[test]
fn unknown_variable_warns_with_nearest_name() {
    let slip = concat!("DOORSTEP", "_AMPQ_URL");
    let variables = [
        (slip, "amqp://user:secret@host"),
        // Of the other program, of compose, and of a test.
        ("DOORSTEP_LISTEN", "127.0.0.1:1"),
        ("DOORSTEP_ORDERS_PASSWORD", "x"),
        ("DOORSTEP_TEST_IMAGE", "x"),
    ];
    let output = consumers(&["topology", "show"], &variables);
    let error = said(&output.stderr);
    assert!(output.status.success(), "{error}");
    assert_eq!(error.lines().count(), 1, "{error}");
    assert!(error.contains(slip), "{error}");
    assert!(error.contains("did you mean DOORSTEP_AMQP_URL?"), "{error}");
    assert!(!error.contains("secret"), "{error}");
}

#[test]
fn an_invalid_argument_is_a_usage_error() {
    let error = rejected(&["run", "nobody"], &[], 64);
    assert!(
        error.contains("orders, inventory, tracking, restaurant, payments"),
        "{error}"
    );
    rejected(
        &[
            "streams", "skip-gap", "orders", "order/1", "1..2", "--reason", "x",
        ],
        &[],
        64,
    );
    for words in [
        &["dead-letters", "skip", "orders", "1-1"][..],
        &["dead-letters", "replay", "orders"],
        &["dead-letters", "replay", "orders", "1-1", "--all"],
        &["dead-letters", "replay", "orders", "--all", "--rate", "0"],
        &["dead-letters", "edit", "orders", "--fingerprint", "77"],
        &["dead-letters", "skip", "orders", "1-1", "--reason", " "],
    ] {
        rejected(words, &[], 64);
    }
    rejected(&[], &[], 64);
    assert!(consumers(&["--help"], &[]).status.success());
}

#[test]
fn missing_store_is_named_with_remedy() {
    let folder = Folder::new("no-store");
    let store = folder.0.to_str().unwrap();
    let variables = [("DOORSTEP_DATA_DIR", store)];
    for words in [
        &["show", "orders", "order/1"][..],
        &["export", "orders"],
        &["dead-letters", "show", "orders", "1-1"],
        &["dead-letters", "replay", "orders", "1-1"],
        &[
            "dead-letters",
            "skip",
            "orders",
            "1-1",
            "--reason",
            "a test",
        ],
        &["dead-letters", "edit", "orders", "1-1"],
        &["dead-letters", "export", "orders"],
        &["dead-letters", "audit", "orders"],
    ] {
        let error = rejected(words, &variables, 66);
        assert!(
            error.contains(store) && error.contains("`consumers run orders` creates it"),
            "{error}"
        );
    }
    for words in [
        &["dead-letters", "list"][..],
        &["dead-letters", "list", "orders", "--json"],
    ] {
        let output = consumers(words, &variables);
        let error = said(&output.stderr);
        assert_eq!(output.status.code(), Some(66), "{error}");
        assert_eq!(said(&output.stdout), "");
        assert!(
            error.contains("no store here")
                && error.contains(store)
                && error.contains("--data-dir"),
            "{error}"
        );
    }
    assert_eq!(
        fs::read_dir(&folder.0).unwrap().count(),
        0,
        "a look has created something"
    );
}

#[test]
fn foreign_file_is_rejected_and_untouched() {
    let folder = Folder::new("garbage");
    let file = folder.0.join("orders.sqlite3");
    let garbage =
        "this is not a database, but it is long enough to be looked at as one. ".repeat(20);
    fs::write(&file, &garbage).unwrap();
    let store = folder.0.to_str().unwrap();
    for words in [
        &["export", "orders"][..],
        &["run", "orders", "--amqp-url", NOBODY],
    ] {
        let error = rejected(words, &[("DOORSTEP_DATA_DIR", store)], 73);
        assert!(
            error.contains("orders.sqlite3") && error.contains("move that file away"),
            "{error}"
        );
    }
    assert_eq!(fs::read_to_string(&file).unwrap(), garbage);
}

#[test]
fn a_folder_that_cannot_be_made_is_named() {
    let folder = Folder::new("no-folder");
    let file = folder.0.join("file");
    fs::write(&file, "").unwrap();
    let store = file.join("below");
    let words = [
        "run",
        "--amqp-url",
        NOBODY,
        "--data-dir",
        store.to_str().unwrap(),
    ];
    let error = rejected(&words, &[], 73);
    assert!(error.contains(store.to_str().unwrap()), "{error}");
}

#[test]
fn without_a_broker_status_still_shows_the_stores() {
    let folder = Folder::new("no-broker");
    let store = folder.0.to_str().unwrap();
    let words = ["status", "--amqp-url", NOBODY, "--data-dir", store];
    let output = consumers(&words, &[]);
    let (shown, error) = (said(&output.stdout), said(&output.stderr));
    assert_eq!(output.status.code(), Some(69), "{error}");
    assert!(error.contains("127.0.0.1:1"), "{error}");
    for role in [
        "orders",
        "inventory",
        "tracking",
        "restaurant",
        "payments",
        "access_log",
        "reports",
        "notifications",
    ] {
        assert!(shown.contains(role), "{shown}");
    }
    let json = consumers(
        &[
            "status",
            "--json",
            "--amqp-url",
            NOBODY,
            "--data-dir",
            store,
        ],
        &[],
    );
    let report: serde_json::Value = serde_json::from_slice(&json.stdout).unwrap();
    assert_eq!(report["broker"]["reachable"], false);
    assert_eq!(report["roles"][2]["role"], "tracking");
}

#[test]
fn entity_without_a_key_is_asked_for() {
    let error = rejected(&["show", "inventory"], &[], 64);
    assert!(error.contains("stock/..."), "{error}");
    // The access log has a report, and here no store to read it from.
    rejected(&["show", "access_log"], &[], 66);
}

#[test]
fn reports_without_figures_are_explained() {
    let folder = Folder::new("report");
    let report = |more: &[&str], code| {
        let store = ["report", "sales", "--data-dir", folder.0.to_str().unwrap()];
        rejected(&[&store, more].concat(), &[], code)
    };
    let error = report(
        &["--from", "2010-12-02", "--to", "2010-12-01", "--json"],
        64,
    );
    assert!(error.contains("before it begins at 2010-12-02"), "{error}");
    let error = report(
        &["--from", "2000-01-01", "--to", "2011-12-31", "--json"],
        64,
    );
    assert!(error.contains("at most 3660"), "{error}");
    let error = report(&["--from", "1.12.2010", "--to", "2010-12-32", "--json"], 64);
    assert!(error.contains("2 settings are wrong"), "{error}");
    assert!(
        error.contains("is not a date such as 2010-12-31"),
        "{error}"
    );
    let day = ["--from", "2010-12-01", "--to", "2010-12-01"];
    report(&day, 64);
    report(&[&day[..], &["--json", "--csv", "x"]].concat(), 64);
    let error = report(&[&day[..], &["--json"]].concat(), 66);
    assert!(error.contains("no store of reports"), "{error}");
    assert!(error.contains("consumers run reports"), "{error}");
}

#[test]
fn the_topology_is_shown_to_people_and_programs() {
    let variables = [("DOORSTEP_NAMESPACE", "shop")];
    let text = said(&consumers(&["topology", "show"], &variables).stdout);
    for part in [
        "shop.events",
        "shop.tracking.0",
        "x-delivery-limit=100",
        "x-delivery-limit=2147483647",
        "return.#",
    ] {
        assert!(text.contains(part), "{part} in {text}");
    }
    let json = consumers(&["topology", "show", "--json"], &variables).stdout;
    let topology: serde_json::Value = serde_json::from_slice(&json).unwrap();
    assert_eq!(topology["queues"].as_array().unwrap().len(), 30);
    assert_eq!(topology["bindings"].as_array().unwrap().len(), 15);
}

#[test]
fn without_a_broker_nothing_is_verified() {
    let error = rejected(&["topology", "verify", "--amqp-url", NOBODY], &[], 69);
    assert!(error.contains("127.0.0.1:1"), "{error}");
}

#[test]
fn definitions_and_permissions_need_no_broker() {
    let variables = [
        ("DOORSTEP_NAMESPACE", "shop"),
        ("DOORSTEP_AMQP_URL", NOBODY),
    ];
    let words = ["topology", "show", "--definitions", "--vhost", "eu"];
    let json = consumers(&words, &variables).stdout;
    let definitions: serde_json::Value = serde_json::from_slice(&json).unwrap();
    assert_eq!(definitions["queues"][0]["vhost"], "eu");
    assert_eq!(definitions["exchanges"][0]["name"], "shop.events");

    let text = said(&consumers(&["topology", "permissions"], &variables).stdout);
    let line = r"rabbitmqctl set_permissions -p / shop-status '^$' '^$' '^shop\.(";
    assert!(text.contains(line), "{text}");
    let words = [
        "topology",
        "permissions",
        "--declared",
        "--json",
        "--user",
        "x",
    ];
    let json = consumers(&words, &variables).stdout;
    let permissions: serde_json::Value = serde_json::from_slice(&json).unwrap();
    let users = permissions["users"].as_array().unwrap();
    let producer = users.iter().find(|user| user["user"] == "x-producer");
    let producer = producer.expect("no user for producer publish");
    assert_eq!(producer["write"], r"^shop\.events$");
    assert_eq!(
        producer["topics"]["write"],
        r"^(delivery|order|payment|report|request|return|stock|user)\."
    );
    rejected(&["topology", "show", "--vhost", "eu"], &variables, 64);
    rejected(
        &["topology", "show", "--definitions", "--json"],
        &variables,
        64,
    );
}

#[test]
fn compose_imports_what_the_command_prints() {
    let words = ["topology", "show", "--definitions", "--users"];
    let printed = said(&consumers(&words, &[]).stdout);
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/rabbitmq-definitions.json");
    let file = fs::read_to_string(path).unwrap();
    assert_eq!(
        file, printed,
        "write it anew with consumers topology show --definitions --users"
    );
}

#[test]
fn help_shows_actual_default_batch_size() {
    let help = said(&consumers(&["run", "--help"], &[]).stdout);
    let batch = help.split("--batch-size").nth(1).unwrap();
    let default = batch.split("[default: ").nth(1).unwrap();
    assert!(default.starts_with("500]"), "{help}");
}
