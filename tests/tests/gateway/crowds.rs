//! Many clients at once: deliberately slow ones, and users who exceed their rate.

use std::time::{Duration, Instant};

use doorstep_tests::wait_for;
use serde_json::json;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

use crate::{
    SOON,
    gateway::{Gateway, NO_BROKER, PASSWORD, ROOT},
};

/// The number of concurrent clients, and the number if a process may have only few files open.
const CROWD: usize = 1000;
const SMALL_CROWD: usize = 600;
/// The number of files that each process needs for the whole crowd and everything else.
const FILES: usize = 2048;
/// The maximum number of concurrent requests: fewer than the slow clients.
const REQUESTS: usize = 40;
/// The maximum for one user.
const OF_ONE: usize = 8;
/// The maximum for clients without a login, and the time in seconds that each of these may keep its permit.
const OF_STRANGERS: u64 = 10;
const BODY_TIME: u64 = 10;

#[tokio::test(flavor = "multi_thread")]
async fn slow_strangers_block_neither_users_nor_monitoring() {
    // As if all came through a proxy: a single address has fewer connections.
    let requests = REQUESTS.to_string();
    let arguments = [
        "--max-concurrent-requests",
        requests.as_str(),
        "--trusted-proxy",
        "127.0.0.1",
    ];
    let gateway = Gateway::start_with("slow", NO_BROKER, &arguments).await;
    let nobody = gateway.nobody();
    let root = gateway.log_in(ROOT).await;
    let mut users = vec![root.clone()];
    for n in 1..REQUESTS / OF_ONE {
        let name = format!("user-{n}");
        let user = json!({"name": name, "role": "customer", "password": PASSWORD});
        let _ = root.post("/v1/users", &user).await.expect(201);
        users.push(gateway.log_in(&name).await);
    }
    let mut slow = Vec::new();
    let began = Instant::now();
    for n in 0..crowd() {
        // Half of them never end their head, the others never send their body.
        let mut stream = if n % 2 == 0 {
            nobody.connect().await
        } else {
            let headers = [
                ("Content-Type", "application/json"),
                ("Content-Length", "100"),
            ];
            nobody.open("POST", "/v1/sessions", &headers).await
        };
        let begun: &[u8] = if n % 2 == 0 {
            b"GET / HTTP/1.1\r\nX: "
        } else {
            b"{\"name\":"
        };
        // A rejected client may have its answer already.
        let _ = stream.write_all(begun).await;
        slow.push(stream);
    }
    let _ = nobody.get("/livez").await.expect(200);
    let _ = nobody.get("/readyz").await.expect(200);
    // All have connected by now. If that took longer than the timeout of a body, the first ones have lost their permits
    // to others.
    let rounds = 1 + began.elapsed().as_secs() / BODY_TIME;
    let ada = json!({"name": "ada", "role": "customer", "password": PASSWORD});
    let _ = root.post("/v1/users", &ada).await.expect(201);
    // Even users who take all permits together do not block monitoring.
    let headers = [
        ("Content-Type", "application/json"),
        ("Content-Length", "100"),
    ];
    let mut held = Vec::new();
    // Each where its role has permission: without it, the body would not be awaited.
    let order = [("Idempotency-Key", "k"), headers[0], headers[1]];
    let hold = async |n: usize| match n % users.len() {
        0 => users[0].open("POST", "/v1/users", &headers).await,
        n => users[n].open("POST", "/v1/orders", &order).await,
    };
    for n in 0..users.len() * OF_ONE {
        held.push(hold(n).await);
    }
    wait_for("every place is taken", SOON, async || {
        let response = nobody.get("/nowhere").await;
        if response.status == 503 {
            return Ok(());
        }
        // A request takes a permit for a moment, so that one of the others may have found none.
        held.push(hold(held.len()).await);
        Err(response)
    })
    .await;
    let _ = nobody.get("/livez").await.expect(200);
    let _ = nobody.get("/readyz").await.expect(200);
    drop(held);
    let mut waited_for = 0_u64;
    for (n, stream) in slow.iter_mut().enumerate() {
        let said = rest(stream).await;
        if n % 2 == 1 && said.contains("body_too_slow") {
            waited_for += 1;
        }
    }
    // Some had, and then the next ones are not awaited.
    let most = rounds * OF_STRANGERS;
    assert!((1..=most).contains(&waited_for), "{waited_for} of {most}");
    wait_for("users may log in again", SOON, async || {
        let login = json!({"name": "ada", "password": PASSWORD});
        let response = nobody.post("/v1/sessions", &login).await;
        match response.status {
            201 => Ok(()),
            _ => Err(response),
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_of_slow_bodies_blocks_no_others() {
    let gateway = Gateway::start_with(
        "trickle",
        NO_BROKER,
        &["--max-concurrent-requests", &REQUESTS.to_string()],
    )
    .await;
    let ada = gateway.user("ada", "customer").await;
    let root = gateway.log_in(ROOT).await;
    let headers = [
        ("Content-Type", "application/json"),
        ("Content-Length", "100"),
    ];
    let mut held = Vec::new();
    for _ in 0..OF_ONE {
        held.push(root.open("POST", "/v1/users", &headers).await);
    }
    let rejected = wait_for("all that one user has is taken", SOON, async || {
        let response = root.get("/v1/orders/1").await;
        if response.status == 429 {
            return Ok(response);
        }
        // This request counts for a moment, too, so one of the others may have been rejected.
        held.push(root.open("POST", "/v1/users", &headers).await);
        Err(response)
    })
    .await;
    rejected.is_problem(429, "too_many_requests");
    assert!(rejected.text.contains("under way"), "{}", rejected.text);
    assert!(rejected.header("retry-after").is_some());
    // One more body is not awaited, and other users are served.
    let mut more = root.open("POST", "/v1/users", &headers).await;
    assert!(rest(&mut more).await.starts_with("HTTP/1.1 429 "));
    let forbidden = ada.post("/v1/users", &json!({})).await;
    assert_ne!(forbidden.status, 429, "{forbidden:?}");
    drop(held);
    wait_for("the user is served again", SOON, async || {
        let bob = json!({"name": "bob", "role": "customer", "password": PASSWORD});
        let response = root.post("/v1/users", &bob).await;
        match response.status {
            201 => Ok(()),
            _ => Err(response),
        }
    })
    .await;
}

/// Returns the size of the crowd: the programs have the limits of the tests.
fn crowd() -> usize {
    let limits = std::fs::read_to_string("/proc/self/limits").unwrap_or_default();
    let files = limits.lines().find_map(|line| {
        let soft = line.strip_prefix("Max open files")?;
        soft.split_whitespace().next()?.parse::<usize>().ok()
    });
    match files {
        Some(files) if files < FILES => SMALL_CROWD,
        _ => CROWD,
    }
}

/// Reads until the server closes.
async fn rest(stream: &mut TcpStream) -> String {
    let mut bytes = Vec::new();
    let ended = timeout(SOON, stream.read_to_end(&mut bytes)).await;
    // It may also end by a reset, since the sent bytes were not read.
    let _ = ended.expect("the server keeps a slow client");
    String::from_utf8_lossy(&bytes).into_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rate_limited_user_gets_retry_after() {
    let gateway = Gateway::start_with("often", NO_BROKER, &["--rate-limit", "1"]).await;
    let nobody = gateway.nobody();
    let wrong = json!({"name": "root", "password": "incorrect horse"});
    wait_for("tries to log in are limited", SOON, async || {
        let response = nobody.post("/v1/sessions", &wrong).await;
        if response.status == 429 {
            Ok(response)
        } else {
            Err(response)
        }
    })
    .await
    .is_problem(429, "too_many_requests");
    let root = wait_for("the next try is let through", SOON, async || {
        let right = json!({"name": "root", "password": PASSWORD});
        let response = nobody.post("/v1/sessions", &right).await;
        if response.status == 201 {
            Ok(response.json())
        } else {
            Err(response)
        }
    })
    .await;
    let root = nobody.with_token(root["token"].as_str().unwrap());
    let mut last = root.get("/v1/restaurants/luigi").await;
    for _ in 0..20 {
        if last.status == 429 {
            break;
        }
        last = root.post("/v1/users", &json!({})).await;
    }
    last.is_problem(429, "too_many_requests");
    let after: u64 = last.header("retry-after").unwrap().parse().unwrap();
    assert!(Duration::from_secs(after) <= SOON);
}

#[tokio::test(flavor = "multi_thread")]
async fn failed_logins_are_limited_by_name_and_address() {
    let gateway = Gateway::start_with("names", NO_BROKER, &["--trusted-proxy", "127.0.0.1"]).await;
    let nobody = gateway.nobody();
    let log_in = async |address: u8, name: &str, password: &str| {
        let from = format!("203.0.113.9, 198.51.100.{address}");
        let login = json!({"name": name, "password": password});
        let headers = [("X-Forwarded-For", from.as_str())];
        let path = "/v1/sessions";
        nobody.request("POST", path, &headers, Some(&login)).await
    };
    // The existence of the user makes no difference.
    for (address, name) in [(1, ROOT), (2, "eve")] {
        let rejected = wait_for("the name is closed to one address", SOON, async || {
            let response = log_in(address, name, "incorrect horse").await;
            match response.status {
                429 if response.text.contains("this name") => Ok(response),
                _ => Err(response),
            }
        })
        .await;
        rejected.is_problem(429, "too_many_requests");
    }
    let _ = log_in(3, ROOT, PASSWORD).await.expect(201);
    log_in(3, "eve", "incorrect horse")
        .await
        .is_problem(401, "unauthorized");
}
