//! Many at once: clients that are slow on purpose, and callers who ask too often.

use std::time::Duration;

use doorstep_tests::wait_for;
use serde_json::json;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

use crate::{
    SOON,
    gateway::{Gateway, NOWHERE, PASSWORD},
};

/// Within what a process may have open by default.
const CROWD: usize = 600;

#[tokio::test(flavor = "multi_thread")]
async fn hundreds_of_slow_clients_are_sent_away_and_keep_nobody_from_being_answered() {
    let gateway = Gateway::start("slow", NOWHERE).await;
    let nobody = gateway.nobody();
    let mut slow = Vec::new();
    for n in 0..CROWD {
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
        stream
            .write_all(if n % 2 == 0 {
                b"GET / HTTP/1.1\r\nX: "
            } else {
                b"{\"name\":"
            })
            .await
            .unwrap();
        slow.push(stream);
    }
    let _ = nobody.get("/livez").await.expect(200);
    let _ = gateway.user("ada", "customer").await;
    let mut told = 0;
    for (n, stream) in slow.iter_mut().enumerate() {
        let said = rest(stream).await;
        if n % 2 == 1 {
            assert!(
                said.contains(" 408 ") && said.contains("body_too_slow"),
                "{said}"
            );
            told += 1;
        }
    }
    assert_eq!(told, CROWD / 2);
    let _ = nobody.get("/readyz").await.expect(200);
}

/// What comes until the server closes.
async fn rest(stream: &mut TcpStream) -> String {
    let mut bytes = Vec::new();
    let ended = timeout(SOON, stream.read_to_end(&mut bytes)).await;
    // It may also end by a reset, since what was sent was not read.
    let _ = ended.expect("the server keeps a slow client");
    String::from_utf8_lossy(&bytes).into_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn who_asks_too_often_is_told_when_to_come_again() {
    let gateway = Gateway::start_with("often", NOWHERE, &["--rate", "1"]).await;
    let nobody = gateway.nobody();
    let wrong = json!({"name": "root", "password": "incorrect horse"});
    wait_for("tries to log in are limited", SOON, async || {
        let answer = nobody.post("/v1/sessions", &wrong).await;
        if answer.status == 429 {
            Ok(answer)
        } else {
            Err(answer)
        }
    })
    .await
    .is_problem(429, "too_many_requests");
    let root = wait_for("the next try is let through", SOON, async || {
        let right = json!({"name": "root", "password": PASSWORD});
        let answer = nobody.post("/v1/sessions", &right).await;
        if answer.status == 201 {
            Ok(answer.json())
        } else {
            Err(answer)
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
