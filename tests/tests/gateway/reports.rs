//! Reports over HTTP: requested, followed, fetched and cancelled, with a role that is killed meanwhile.

use std::fs;

use doorstep_tests::{Client, HttpResponse, Program, TempDir, TestEnv, wait_for};
use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::{
    SOON,
    gateway::{Gateway, ROOT},
};

const SALES: &str = "\
InvoiceNo,StockCode,Description,Quantity,InvoiceDate,UnitPrice,CustomerID,Country
1,A,LANTERN,6,2010-12-01 08:26:00,2.55,17850.0,United Kingdom
2,=B,HEART,1,2010-12-12 23:59:00,2.95,,<i>France</i>
C3,A,LANTERN,-2,2010-12-24 10:00:00,2.55,17850.0,United Kingdom
";

/// A gateway, and a role with the figures of a file.
struct Office {
    gateway: Gateway,
    root: Client,
    role: Program,
    scratch: TempDir,
    _env: TestEnv,
}

impl Office {
    /// Opens an office whose role pauses so long after each day.
    async fn open(hint: &str, pace: &str) -> Self {
        let env = TestEnv::new(hint, &[]).await;
        let scratch = TempDir::new(hint);
        let (sales, files) = (scratch.join("sales.csv"), scratch.join("files"));
        fs::write(&sales, SALES).unwrap();
        let import = Program::producer(&["import", "retail"])
            .arg(&sales)
            .broker(&env.amqp_url());
        let ended = import.run(&scratch, SOON).await;
        assert_eq!(ended.code, Some(0), "{}", ended.stderr);
        let consumers = |arguments: &[&str]| {
            Program::consumers(arguments)
                .broker(&env.amqp_url())
                .store(&scratch.join("stores"))
                .variable("DOORSTEP_REPORTS_DIR", &files)
                .variable("DOORSTEP_REPORT_PACE", pace)
        };
        let counted = consumers(&["run", "reports", "--exit-when-idle", "1s"]);
        let ended = counted.run(&scratch, SOON).await;
        assert_eq!(ended.code, Some(0), "{}", ended.stderr);
        let folder = files.to_string_lossy();
        let arguments = ["--reports-dir", &folder];
        let gateway = Gateway::start_with(hint, &env.amqp_url(), &arguments).await;
        Self {
            root: gateway.log_in(ROOT).await,
            role: consumers(&["run", "reports"]),
            gateway,
            scratch,
            _env: env,
        }
    }

    /// Requests a report as soon as the role is serving.
    async fn request(&self, key: &str, body: &Value) -> HttpResponse {
        let headers = [("Idempotency-Key", key)];
        wait_for("the role answers", SOON, async || {
            let response = self
                .root
                .request("POST", "/v1/reports", &headers, Some(body))
                .await;
            match response.status {
                503 => Err(response.text),
                _ => Ok(response),
            }
        })
        .await
    }

    /// Requests a report, and returns its id.
    async fn requested(&self, key: &str, body: &Value) -> String {
        let response = self.request(key, body).await;
        let report = response.expect(202)["report"].as_str().unwrap().to_owned();
        let place = format!("/v1/reports/{report}");
        assert_eq!(response.header("location"), Some(place.as_str()));
        report
    }
}

fn period() -> Value {
    json!({"kind": "sales", "from": "2010-12-01", "to": "2010-12-24"})
}

#[tokio::test(flavor = "multi_thread")]
async fn invalid_requests_are_rejected() {
    let office = Office::open("report-bad", "1m").await;
    let ada = office.gateway.user("ada", "customer").await;
    let nobody = office.gateway.nobody();
    ada.post("/v1/reports", &period())
        .await
        .is_problem(403, "forbidden");
    nobody
        .get("/v1/reports")
        .await
        .is_problem(401, "unauthorized");
    let _role = office.role.start(&office.scratch);
    for (member, value, code) in [
        ("kind", "profits", "invalid"),
        ("from", "2010-12-25", "period_reversed"),
        ("from", "2000-12-16", "period_too_long"),
        ("from", "yesterday", "invalid"),
        ("to", "2010-12-32", "invalid"),
        ("country", "", "invalid"),
        ("country", "a\u{202e}b", "invalid"),
        ("country", &"x".repeat(51), "invalid"),
        ("color", "red", "invalid"),
    ] {
        let mut body = period();
        body[member] = json!(value);
        office.request("bad", &body).await.is_problem(422, code);
    }
    let mut by_country = period();
    (by_country["kind"], by_country["country"]) = (json!("deliveries"), json!("France"));
    office
        .request("bad", &by_country)
        .await
        .is_problem(422, "invalid");
    let unknown = "/v1/reports/0190f3a4-7c1e-7b5a-9d43-3f5c2a1b0e77";
    for (path, code) in [
        (unknown.to_owned(), "unknown_report"),
        (format!("{unknown}/page"), "unknown_report"),
        (format!("{unknown}/feed"), "unknown_report"),
        (
            "/v1/reports/..%2f..%2fetc%2fpasswd/page".to_owned(),
            "not_found",
        ),
        ("/r/..%2f..%2fetc%2fpasswd/1/2".to_owned(), "not_found"),
        ("/r/%ff/1/2".to_owned(), "not_found"),
    ] {
        office.root.get(&path).await.is_problem(404, code);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operator_has_three_open_reports() {
    let office = Office::open("report-many", "1m").await;
    let _role = office.role.start(&office.scratch);
    let first = office.requested("0", &period()).await;
    let mut requests = JoinSet::new();
    for part in 0..20 {
        let root = office.root.clone();
        requests.spawn(async move {
            let mut accepted = 0;
            for number in 1..=50 {
                let key = format!("{part}-{number}");
                let headers = [("Idempotency-Key", key.as_str())];
                let body = period();
                let response = root
                    .request("POST", "/v1/reports", &headers, Some(&body))
                    .await;
                match response.status {
                    202 => accepted += 1,
                    _ => response.is_problem(429, "too_many_reports"),
                }
            }
            accepted
        });
    }
    assert_eq!(requests.join_all().await.iter().sum::<u64>(), 2);
    assert_eq!(office.requested("0", &period()).await, first);
    let mut other = period();
    other["to"] = json!("2010-12-23");
    let rejected = office.request("0", &other).await;
    rejected.is_problem(409, "report_id_reused");
    let list = office.root.get("/v1/reports").await.expect(200);
    assert_eq!(list["reports"].as_array().unwrap().len(), 3);
    let page = office.root.get(&format!("/v1/reports/{first}/page")).await;
    page.is_problem(409, "report_not_ready");
}
