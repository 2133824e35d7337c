//! User management over HTTP and from the command line, and the permissions of each role, which are checked before a
//! body is read.

use doorstep_tests::{Client, Ended, Program, wait_for};
use serde_json::{Value, json};

use crate::{
    SOON,
    gateway::{Gateway, NO_BROKER, PASSWORD, ROOT},
};

const ANOTHER: &str = "another horse battery staple";

async fn log_in(gateway: &Gateway, name: &str, password: &str) -> u16 {
    let login = json!({"name": name, "password": password});
    gateway.nobody().post("/v1/sessions", &login).await.status
}

async fn is_out(client: &Client) {
    let response = client.get("/v1/users/whoever").await;
    response.is_problem(401, "unauthorized");
}

async fn change(client: &Client, name: &str, disabled: bool) -> doorstep_tests::HttpResponse {
    let path = format!("/v1/users/{name}");
    let body = json!({"disabled": disabled});
    client.request("PATCH", &path, &[], Some(&body)).await
}

async fn delete(client: &Client, name: &str) -> doorstep_tests::HttpResponse {
    let path = format!("/v1/users/{name}");
    client.request("DELETE", &path, &[], None).await
}

async fn names(root: &Client, query: &str) -> (Vec<Value>, Value) {
    let page = root.get(&format!("/v1/users{query}")).await.expect(200);
    let users = page["users"].as_array().unwrap().iter();
    (
        users.map(|u| u["name"].clone()).collect(),
        page["next"].clone(),
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn operators_list_disable_enable_and_delete_users() {
    let gateway = Gateway::start("users", NO_BROKER).await;
    let ada = gateway.user("ada", "customer").await;
    let mario = gateway.user("mario", "restaurant").await;
    let root = gateway.log_in(ROOT).await;

    // In pages, without any credentials.
    assert_eq!(
        names(&root, "?limit=2").await,
        (vec![json!("ada"), json!("mario")], json!("mario"))
    );
    assert_eq!(
        names(&root, "?after=mario").await,
        (vec![json!("root")], Value::Null)
    );
    let all = root.get("/v1/users").await;
    assert!(
        !all.text.contains("argon2") && !all.text.contains("hash"),
        "{all:?}"
    );
    let user = root.get("/v1/users/mario").await.expect(200);
    assert_eq!(
        (&user["role"], &user["restaurant"], &user["status"]),
        (&json!("restaurant"), &json!("luigi"), &json!("active"))
    );
    for wrong in [
        "?limit=0",
        "?limit=501",
        "?limit=x",
        "?after=A%20a",
        "?page=2",
    ] {
        root.get(&format!("/v1/users{wrong}"))
            .await
            .is_problem(400, "malformed");
    }

    // Users see themselves and cannot change anything; they learn nothing about others.
    let _ = ada.get("/v1/users/ada").await.expect(200);
    ada.get("/v1/users").await.is_problem(403, "forbidden");
    change(&ada, "ada", true).await.is_problem(403, "forbidden");
    delete(&ada, "ada").await.is_problem(403, "forbidden");
    for name in ["root", "mario", "nobody"] {
        ada.get(&format!("/v1/users/{name}"))
            .await
            .is_problem(404, "not_found");
        change(&ada, name, true).await.is_problem(404, "not_found");
        delete(&ada, name).await.is_problem(404, "not_found");
    }

    // Disabling ends sessions and prevents logins; enabling revives no old session.
    assert_eq!(
        change(&root, "ada", true).await.expect(200)["status"],
        "disabled"
    );
    is_out(&ada).await;
    assert_eq!(log_in(&gateway, "ada", PASSWORD).await, 401);
    assert_eq!(
        change(&root, "ada", false).await.expect(200)["status"],
        "active"
    );
    is_out(&ada).await;
    let ada = gateway.log_in("ada").await;

    // Deletion is final, and the name is never reused.
    for _ in 0..2 {
        let _ = delete(&root, "ada").await.expect(204);
    }
    is_out(&ada).await;
    assert_eq!(log_in(&gateway, "ada", PASSWORD).await, 401);
    let again = json!({"name": "ada", "role": "customer", "password": PASSWORD});
    root.post("/v1/users", &again)
        .await
        .is_problem(409, "name_retired");
    change(&root, "ada", false)
        .await
        .is_problem(409, "user_deleted");
    assert_eq!(
        root.get("/v1/users/ada").await.expect(200)["status"],
        "deleted"
    );
    assert_eq!(gateway.password_hash("ada").await, "");
    change(&root, "nobody", true)
        .await
        .is_problem(404, "unknown_user");
    let _ = mario.get("/v1/users/mario").await.expect(200);

    // The last operator cannot be removed in any way.
    change(&root, ROOT, true)
        .await
        .is_problem(409, "last_operator");
    delete(&root, ROOT).await.is_problem(409, "last_operator");
    let ben = gateway.user("ben", "operator").await;
    let _ = delete(&root, ROOT).await.expect(204);
    is_out(&root).await;
    change(&ben, "ben", true)
        .await
        .is_problem(409, "last_operator");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_password_ends_all_sessions() {
    let gateway = Gateway::start("passwords", NO_BROKER).await;
    let ada = gateway.user("ada", "customer").await;
    let root = gateway.log_in(ROOT).await;
    let set = async |client: &Client, name: &str, body: Value| {
        let path = format!("/v1/users/{name}/password");
        client.request("PUT", &path, &[], Some(&body)).await
    };
    set(&ada, ROOT, json!({"password": ANOTHER}))
        .await
        .is_problem(404, "not_found");
    set(&ada, "ada", json!({"password": ANOTHER}))
        .await
        .is_problem(422, "old_password_missing");
    // Operators need their old password, too: an open session must not be enough to take over the account.
    set(&root, ROOT, json!({"password": ANOTHER}))
        .await
        .is_problem(422, "old_password_missing");
    let _ = set(
        &ada,
        "ada",
        json!({"password": ANOTHER, "old_password": PASSWORD}),
    )
    .await
    .expect(204);
    is_out(&ada).await;
    assert_eq!(log_in(&gateway, "ada", PASSWORD).await, 401);
    assert_eq!(log_in(&gateway, "ada", ANOTHER).await, 201);
    let _ = set(&root, "ada", json!({"password": PASSWORD}))
        .await
        .expect(204);
    let ada = gateway.log_in("ada").await;
    // A session cannot guess the old password.
    let wrong = json!({"password": ANOTHER, "old_password": "incorrect horse"});
    set(&ada, "ada", wrong.clone())
        .await
        .is_problem(403, "wrong_password");
    let rejected = wait_for("guesses are limited", SOON, async || {
        let response = set(&ada, "ada", wrong.clone()).await;
        if response.status == 429 {
            Ok(response)
        } else {
            Err(response)
        }
    })
    .await;
    assert!(rejected.text.contains("old passwords"), "{rejected:?}");
    set(&root, "nobody", json!({"password": PASSWORD}))
        .await
        .is_problem(404, "unknown_user");
}

#[tokio::test(flavor = "multi_thread")]
async fn commands_manage_users_beside_a_running_gateway() {
    let gateway = Gateway::start("user-commands", NO_BROKER).await;
    let ada = gateway.user("ada", "customer").await;
    let run = async |words: &[&str]| -> Ended {
        let program = Program::gateway(&[&["user"], words].concat());
        let program = program.store(&gateway.scratch.join("store"));
        program
            .input(format!("{ANOTHER}\n"))
            .run(&gateway.scratch, SOON)
            .await
    };
    let listed = run(&["list"]).await;
    assert_eq!(listed.code, Some(0), "{}", listed.stderr);
    let lines: Vec<Vec<&str>> = listed
        .stdout
        .lines()
        .map(|l| l.split_whitespace().collect())
        .collect();
    assert_eq!(lines.len(), 3, "{}", listed.stdout);
    assert_eq!(lines[0][..3], ["NAME", "ROLE", "STATUS"]);
    assert_eq!(lines[1][..3], ["ada", "customer", "active"]);
    assert_eq!(lines[2][..3], ["root", "operator", "active"]);

    assert_eq!(run(&["password", "ada"]).await.code, Some(0));
    wait_for("the running gateway applies it", SOON, async || {
        let response = ada.get("/v1/users/ada").await;
        if response.status == 401 {
            Ok(())
        } else {
            Err(response)
        }
    })
    .await;
    // The new password works immediately, and the old one no longer does.
    assert_eq!(log_in(&gateway, "ada", ANOTHER).await, 201);
    assert_eq!(log_in(&gateway, "ada", PASSWORD).await, 401);
    assert_eq!(run(&["disable", "ada"]).await.code, Some(0));
    assert_eq!(log_in(&gateway, "ada", ANOTHER).await, 401);
    assert_eq!(run(&["enable", "ada"]).await.code, Some(0));
    assert_eq!(log_in(&gateway, "ada", ANOTHER).await, 201);
    assert_eq!(run(&["delete", "ada"]).await.code, Some(0));
    assert_eq!(log_in(&gateway, "ada", ANOTHER).await, 401);
    let listed = run(&["list", "--json"]).await;
    let first: Value = serde_json::from_str(listed.stdout.lines().next().unwrap()).unwrap();
    assert_eq!(
        (&first["name"], &first["status"]),
        (&json!("ada"), &json!("deleted"))
    );

    for (words, said) in [
        (["add", "ada", "--role=customer"], "was deleted"),
        (["disable", "root", "--data-dir=store"], "only operator"),
        (["delete", "root", "--data-dir=store"], "only operator"),
        (
            ["enable", "nobody", "--data-dir=store"],
            "user nobody does not exist",
        ),
    ] {
        let rejected = run(&words).await;
        assert_eq!(rejected.code, Some(3), "{words:?}: {}", rejected.stderr);
        assert!(
            rejected.stderr.contains(said),
            "{words:?}: {}",
            rejected.stderr
        );
    }
    // Without a store, listing creates none.
    let missing_store = run(&["list", "--data-dir=elsewhere"]).await;
    assert_eq!(missing_store.code, Some(66), "{}", missing_store.stderr);
    assert!(!gateway.scratch.join("elsewhere").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn permissions_are_checked_before_the_body() {
    let gateway = Gateway::start("roles-first", NO_BROKER).await;
    let ada = gateway.user("ada", "customer").await;
    let bea = gateway.user("bea", "courier").await;
    let mario = gateway.user("mario", "restaurant").await;
    let root = gateway.log_in(ROOT).await;
    // A body that is not JSON, one without that content type, and one that never arrives.
    let broken =
        async |client: &Client, method: &str, path: &str| client.raw(method, path, &[], b"{").await;
    for (client, method, path) in [
        (&ada, "PUT", "/v1/restaurants/luigi"),
        (&bea, "PUT", "/v1/restaurants/luigi"),
        (&mario, "PUT", "/v1/restaurants/gino"),
        (&ada, "POST", "/v1/users"),
        (&mario, "POST", "/v1/users"),
        (&ada, "PATCH", "/v1/users/ada"),
        (&bea, "POST", "/v1/orders"),
        (&root, "POST", "/v1/orders"),
        (&ada, "POST", "/v1/positions"),
        (&root, "POST", "/v1/positions"),
    ] {
        broken(client, method, path)
            .await
            .is_problem(403, "forbidden");
    }
    // Resources that they may not see are reported as missing.
    for (client, method, path) in [
        (&ada, "PATCH", "/v1/users/root"),
        (&ada, "PUT", "/v1/users/bea/password"),
        (&ada, "POST", "/v1/deliveries/unheard-of/assignment"),
        (&mario, "POST", "/v1/deliveries/unheard-of/assignment"),
        (&bea, "POST", "/v1/orders/unheard-of/cancellation"),
    ] {
        broken(client, method, path)
            .await
            .is_problem(404, "not_found");
    }
    broken(&root, "POST", "/v1/users")
        .await
        .is_problem(415, "unsupported_media_type");
    let json = [("Content-Type", "application/json")];
    root.raw("POST", "/v1/users", &json, b"{")
        .await
        .is_problem(400, "malformed");
}

#[tokio::test(flavor = "multi_thread")]
async fn confusable_names_are_rejected() {
    let gateway = Gateway::start("names-seen", NO_BROKER).await;
    let ada = gateway.user("ada", "customer").await;
    let root = gateway.log_in(ROOT).await;
    let restaurant = |name: &str, sku: &str, dish: &str| {
        json!({
            "name": name, "time_zone": "UTC", "opening_hours": [], "capacity": 1, "minutes_to_prepare": 1,
            "menu": [{"sku": sku, "name": dish, "price": "1"}],
        })
    };
    let put = async |path: &str, body: Value| root.request("PUT", path, &[], Some(&body)).await;
    for bad in [
        "Da\u{200b}Luigi",
        "\u{202e}igiuL aD",
        "Da Luigi ",
        "Da Luigi\u{2069}",
        "Caffe\u{301}",
        "a\u{e000}",
        "\u{3164}",
    ] {
        for body in [
            restaurant(bad, "S", "D"),
            restaurant("N", bad, "D"),
            restaurant("N", "S", bad),
        ] {
            let rejected = put("/v1/restaurants/luigi", body).await;
            rejected.is_problem(422, "invalid");
            assert!(rejected.text.is_ascii(), "{rejected:?}");
        }
        let user =
            json!({"name": "mario", "role": "restaurant", "restaurant": bad, "password": PASSWORD});
        root.post("/v1/users", &user)
            .await
            .is_problem(422, "invalid");
        let order = json!({"restaurant": "luigi", "method": "card/visa", "country": bad, "lines": [{"sku": "S", "quantity": 1}]});
        let key = [("Idempotency-Key", "k")];
        ada.request("POST", "/v1/orders", &key, Some(&order))
            .await
            .is_problem(422, "invalid");
    }
    let hidden = put("/v1/restaurants/lu%E2%80%8Bigi", restaurant("N", "S", "D")).await;
    hidden.is_problem(422, "invalid");
    assert!(hidden.text.contains("U+200B"), "{hidden:?}");
    let accepted = put(
        "/v1/restaurants/luigi",
        restaurant(
            "Caff\u{e9} \u{1f336}\u{fe0f}",
            "S",
            "\u{5e9}\u{5dc}\u{5d5}\u{5dd}",
        ),
    )
    .await;
    // The form is valid, but no role is there to serve it.
    assert_eq!(accepted.status, 503, "{accepted:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn responses_forbid_caching_and_sniffing() {
    let gateway = Gateway::start("headers", NO_BROKER).await;
    let root = gateway.log_in(ROOT).await;
    let login = json!({"name": ROOT, "password": PASSWORD});
    let nobody = gateway.nobody();
    for response in [
        nobody.post("/v1/sessions", &login).await,
        root.get("/v1/users").await,
        root.get("/v1/orders/1").await,
        nobody.get("/v1/users").await,
        nobody.get("/nowhere").await,
        nobody.get("/livez").await,
        nobody.request("PUT", "/v1/sessions", &[], None).await,
    ] {
        assert_eq!(
            response.header("cache-control"),
            Some("no-store"),
            "{response:?}"
        );
        assert_eq!(
            response.header("x-content-type-options"),
            Some("nosniff"),
            "{response:?}"
        );
    }
    let described = nobody.get("/openapi.json").await;
    assert_eq!(described.header("cache-control"), None);
    assert_eq!(described.header("x-content-type-options"), Some("nosniff"));
}
