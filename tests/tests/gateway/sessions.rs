//! Login and logout, and malformed requests, which are rejected before they reach a handler.

use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::gateway::{Gateway, NO_BROKER, PASSWORD, ROOT};

#[tokio::test(flavor = "multi_thread")]
async fn login_and_logout_need_no_broker() {
    let mut gateway = Gateway::start("sessions", NO_BROKER).await;
    let nobody = gateway.nobody().clone();
    let _ = nobody.get("/livez").await.expect(200);

    let ada = gateway.user("ada", "customer").await;
    let anything = json!({"name": "eve", "role": "operator", "password": PASSWORD});
    ada.post("/v1/users", &anything)
        .await
        .is_problem(403, "forbidden");
    nobody
        .post("/v1/users", &anything)
        .await
        .is_problem(401, "unauthorized");
    let root = gateway.log_in(ROOT).await;
    let again = json!({"name": "ada", "role": "courier", "password": PASSWORD});
    root.post("/v1/users", &again)
        .await
        .is_problem(409, "user_exists");
    let without_restaurant = json!({"name": "mario", "role": "restaurant", "password": PASSWORD});
    root.post("/v1/users", &without_restaurant)
        .await
        .is_problem(422, "invalid");

    // The same answer for a wrong name and a wrong password.
    for name in ["ada", "adam"] {
        let wrong = json!({"name": name, "password": "incorrect horse"});
        let response = nobody.post("/v1/sessions", &wrong).await;
        response.is_problem(401, "unauthorized");
        assert_eq!(response.header("www-authenticate"), Some("Bearer"));
    }

    // A logout ends every session of the user, and of no other; also after a restart.
    let elsewhere = gateway.log_in("ada").await;
    let out = ada.request("DELETE", "/v1/sessions", &[], None).await;
    let _ = out.expect(204);
    for client in [&ada, &elsewhere] {
        let response = client.request("DELETE", "/v1/sessions", &[], None).await;
        response.is_problem(401, "unauthorized");
    }
    root.post("/v1/users", &again)
        .await
        .is_problem(409, "user_exists");
    // The log has neither credentials nor hints to them, even with all levels enabled.
    let login = json!({"name": "ada", "password": PASSWORD});
    let session = nobody.post("/v1/sessions", &login).await.expect(201);
    let token = session["token"].as_str().unwrap();
    let _ = nobody.with_token(token).get("/v1/orders/1").await;
    let hash = gateway.password_hash("ada").await;
    assert!(hash.starts_with("$argon2"), "{hash}");
    let log = gateway.stop().await;
    assert!(log.contains("/v1/sessions"), "nothing is in the log");
    let signature = token.rsplit('.').next().unwrap();
    let hashed = hash.rsplit('$').next().unwrap();
    for (what, secret) in [
        ("a password", PASSWORD),
        ("a token", token),
        ("a token's signature", signature),
        ("a password's hash", hash.as_str()),
        ("a password's hash without its head", hashed),
    ] {
        assert!(!log.contains(secret), "{what} is in the log");
    }
    assert!(!log.contains("$argon2"), "a password's hash is in the log");
    gateway.start_again().await;
    let _ = gateway.log_in("ada").await;
    gateway.kill();
    gateway.start_again().await;
    let _ = gateway.log_in("ada").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn malformed_requests_get_problem_documents() {
    let gateway = Gateway::start("improper", NO_BROKER).await;
    let nobody = gateway.nobody();
    nobody.get("/nowhere").await.is_problem(404, "not_found");
    let response = nobody.request("PUT", "/v1/sessions", &[], None).await;
    response.is_problem(405, "method_not_allowed");
    assert_eq!(response.header("allow"), Some("POST,DELETE"));

    let json = [("Content-Type", "application/json")];
    let post = async |headers: &[(&str, &str)], body: &[u8]| {
        nobody.raw("POST", "/v1/sessions", headers, body).await
    };
    post(&[], b"{}")
        .await
        .is_problem(415, "unsupported_media_type");
    post(&json, b"{\"name\":")
        .await
        .is_problem(400, "malformed");
    post(&json, b"").await.is_problem(400, "malformed");
    for wrong in [
        "[]",
        "{}",
        r#"{"name":"ada","password":"x"}"#,
        r#"{"name":"A a","password":"12345678"}"#,
    ] {
        post(&json, wrong.as_bytes())
            .await
            .is_problem(422, "invalid");
    }
    // A hundred megabytes with a declared length, and as many without.
    let huge = nobody
        .open(
            "POST",
            "/v1/sessions",
            &[("Content-Length", "100000000"), json[0]],
        )
        .await;
    assert!(first_line(huge, false).await.contains(" 413 "));
    let endless = nobody
        .open(
            "POST",
            "/v1/sessions",
            &[("Transfer-Encoding", "chunked"), json[0]],
        )
        .await;
    assert!(first_line(endless, true).await.contains(" 413 "));

    // A request id is generated, or taken from a valid header.
    let response = nobody
        .request("GET", "/livez", &[("X-Request-Id", "mine-1")], None)
        .await;
    assert_eq!(response.header("x-request-id"), Some("mine-1"));
    let response = nobody
        .request("GET", "/livez", &[("X-Request-Id", "no id")], None)
        .await;
    assert_eq!(response.header("x-request-id").unwrap().len(), 32);
}

/// Returns the first line of the answer, while chunks are sent without end or not at all.
async fn first_line(mut stream: tokio::net::TcpStream, sends: bool) -> String {
    if sends {
        let chunk = format!("10000\r\n{}\r\n", " ".repeat(0x10000));
        for _ in 0..10 {
            // The server may have answered and closed already.
            if stream.write_all(chunk.as_bytes()).await.is_err() {
                break;
            }
        }
    }
    let mut bytes = [0; 64];
    let count = stream.read(&mut bytes).await.unwrap();
    String::from_utf8_lossy(&bytes[..count]).into_owned()
}
