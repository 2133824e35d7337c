//! Password guesses from many addresses while the user logs in, and their log messages.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use doorstep_tests::{Client, HttpResponse, wait_for};
use serde_json::{Value, json};

use crate::{
    SOON,
    gateway::{Gateway, NO_BROKER, PASSWORD, ROOT},
};

/// The number of guessing addresses, and the pause of each between two guesses.
const ADDRESSES: u8 = 40;
const BETWEEN: Duration = Duration::from_millis(500);
/// The maximum wait of a new address: a second for each guessing address, and some for rejected attempts of the user.
const LONGEST: u64 = 90;
const WRONG: &str = "incorrect horse";

async fn log_in(nobody: &Client, from: &str, name: &str, password: &str) -> HttpResponse {
    let login = json!({"name": name, "password": password});
    let headers = [("X-Forwarded-For", from)];
    nobody
        .request("POST", "/v1/sessions", &headers, Some(&login))
        .await
}

#[tokio::test(flavor = "multi_thread")]
async fn guessing_addresses_do_not_lock_the_account() {
    let gateway =
        Gateway::start_with("guesses", NO_BROKER, &["--trusted-proxy", "127.0.0.1"]).await;
    let nobody = gateway.nobody().clone();
    let home = "203.0.113.1:40001";
    let _ = log_in(&nobody, home, ROOT, PASSWORD).await.expect(201);
    let stop = Arc::new(AtomicBool::new(false));
    let guessing: Vec<_> = (0..ADDRESSES)
        .map(|n| {
            let (nobody, stop) = (nobody.clone(), Arc::clone(&stop));
            tokio::spawn(async move {
                let from = format!("198.51.100.{n}");
                while !stop.load(Ordering::Relaxed) {
                    let response = log_in(&nobody, &from, ROOT, WRONG).await;
                    assert!(matches!(response.status, 401 | 429 | 503), "{response:?}");
                    tokio::time::sleep(BETWEEN).await;
                }
            })
        })
        .collect();
    // The user comes from a new address, each time from another one until it has to wait.
    let mut last = 0;
    let (away, wait) = wait_for("new addresses have to wait", SOON * 2, async || {
        last += 1;
        let away = format!("[2001:db8:{last:x}::1]:443");
        let response = log_in(&nobody, &away, ROOT, WRONG).await;
        match response.header("retry-after") {
            Some(after) if response.status == 429 => Ok((away, after.parse::<u64>().unwrap())),
            _ => Err(response),
        }
    })
    .await;
    assert!((1..=LONGEST).contains(&wait), "{wait}");
    // The user's known address is not affected.
    for _ in 0..5 {
        let _ = log_in(&nobody, home, ROOT, PASSWORD).await.expect(201);
    }
    // From another address the login succeeds after the announced wait.
    tokio::time::sleep(Duration::from_secs(wait)).await;
    wait_for("it is the user's turn", SOON * 2, async || {
        let response = log_in(&nobody, &away, ROOT, PASSWORD).await;
        if response.status == 201 {
            return Ok(());
        }
        let after = response.header("retry-after").unwrap().parse().unwrap();
        assert!(after <= LONGEST, "{response:?}");
        tokio::time::sleep(Duration::from_secs(after)).await;
        Err(response)
    })
    .await;
    // That address is known from now on.
    let _ = log_in(&nobody, &away, ROOT, PASSWORD).await.expect(201);
    stop.store(true, Ordering::Relaxed);
    for guesses in guessing {
        guesses.await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn logs_name_the_address_and_no_secret() {
    // All levels are logged, and the AMQP client's targets are enabled by name.
    let broker = "amqp://shop:s3cret-of-the-broker@127.0.0.1:1/%2f";
    let arguments = [
        "--trusted-proxy",
        "127.0.0.1",
        "--log",
        "trace,lapin=trace",
        "--health-addr",
        "127.0.0.1:0",
    ];
    let mut gateway = Gateway::start_with("told", broker, &arguments).await;
    let operator = Client::new(gateway.health_address().await);
    let nobody = gateway.nobody().clone();
    let root = gateway.log_in(ROOT).await;
    let ada = gateway.user("ada", "customer").await;

    requests_are_rejected(&root, &ada, &nobody).await;
    let password = json!({"password": "a third password", "old_password": PASSWORD});
    let changed = ada
        .request("PUT", "/v1/users/ada/password", &[], Some(&password))
        .await;
    let _ = changed.expect(204);
    let session = nobody
        .post(
            "/v1/sessions",
            &json!({"name": "ada", "password": "a third password"}),
        )
        .await
        .expect(201);
    let token = session["token"].as_str().unwrap().to_owned();
    let _ = nobody
        .with_token(&token)
        .get("/v1/users/ada")
        .await
        .expect(200);
    gateway
        .says("an outage has begun reason=\"the broker is away\"")
        .await;

    outcomes_are_counted(&operator).await;
    let hash = gateway.password_hash("ada").await;
    let key = std::fs::read_to_string(gateway.scratch.join("store").join("gateway.key")).unwrap();
    let log = gateway.stop().await;
    rejections_are_logged_once(&log);
    let hashed = hash.rsplit('$').next().unwrap();
    let signature = token.rsplit('.').next().unwrap();
    for (what, secret) in [
        ("a password", PASSWORD),
        ("a new password", "a third password"),
        ("a wrong password", WRONG),
        ("a token", token.as_str()),
        ("a token's signature", signature),
        ("a password's hash", hashed),
        ("the key", key.trim()),
        ("the broker's password", "s3cret-of-the-broker"),
    ] {
        assert!(
            !secret.is_empty() && !log.contains(secret),
            "{what} is in the log"
        );
    }
    assert!(log.contains("TRACE"), "not all is logged");
}

async fn requests_are_rejected(root: &Client, ada: &Client, nobody: &Client) {
    let from = "198.51.100.7:1234";
    for _ in 0..15 {
        let response = log_in(nobody, from, "ada", WRONG).await;
        assert!(matches!(response.status, 401 | 429), "{response:?}");
    }
    ada.get("/v1/users").await.is_problem(403, "forbidden");
    let garbled = nobody.with_token("ada.1.2.3");
    let spoofed = [("X-Forwarded-For", "8.8.8.8\u{9b}31m, unknown")];
    garbled
        .request("GET", "/v1/users", &spoofed, None)
        .await
        .is_problem(401, "unauthorized");
    let restaurant: Value = json!({
        "name": "Da Luigi", "time_zone": "UTC", "opening_hours": [], "capacity": 1,
        "minutes_to_prepare": 1, "menu": [],
    });
    let configured = root
        .request("PUT", "/v1/restaurants/luigi", &[], Some(&restaurant))
        .await;
    configured.is_problem(503, "broker_unavailable");
}

async fn outcomes_are_counted(operator: &Client) {
    let metrics = operator.get("/metrics").await.text;
    let counted = |line: &str| {
        let found = metrics
            .lines()
            .find_map(|l| l.strip_prefix(line)?.trim().parse::<f64>().ok());
        found.unwrap_or_else(|| panic!("{line} is not in {metrics}"))
    };
    assert!(counted(r#"doorstep_logins_total{outcome="wrong"}"#) >= 1.0);
    assert!(counted(r#"doorstep_logins_total{outcome="right"}"#) >= 2.0);
    assert!(
        counted(r#"doorstep_http_requests_rejected_total{status="401",code="unauthorized"}"#)
            >= 2.0
    );
    assert!(
        counted(r#"doorstep_http_requests_rejected_total{status="403",code="forbidden"}"#) >= 1.0
    );
    assert!(
        counted(r#"doorstep_http_requests_rejected_total{status="503",code="broker_unavailable"}"#)
            >= 1.0
    );
    assert!(counted(r#"doorstep_backend_outages_total{reason="the broker is away"}"#) >= 1.0);
}

fn rejections_are_logged_once(log: &str) {
    let lines = |parts: &[&str]| {
        let refusals = log.lines().filter(|line| line.contains("refused code="));
        refusals
            .filter(|line| parts.iter().all(|part| line.contains(part)))
            .count()
    };
    // A repeated message is logged once, and later with its count.
    assert_eq!(
        lines(&[
            "code=unauthorized",
            r#"name="ada""#,
            "address=198.51.100.7 "
        ]),
        1,
        "{log}"
    );
    assert_eq!(
        lines(&["code=forbidden", r#"name="ada""#, "address=127.0.0.1 "]),
        1
    );
    assert_eq!(lines(&["code=broker_unavailable", r#"name="root""#]), 1);
    assert_eq!(
        lines(&[
            "code=unauthorized",
            r#"name="unknown""#,
            "address=127.0.0.1 "
        ]),
        1
    );
    assert!(
        !log.contains("8.8.8.8"),
        "what the client says is in the log"
    );
}
