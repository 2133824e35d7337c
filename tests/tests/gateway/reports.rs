//! Reports over HTTP: requested, followed, fetched and cancelled, with a role that is killed meanwhile.

use std::{fs, path::PathBuf};

use doorstep_tests::{Client, HttpResponse, Program, TempDir, TestEnv, wait_for};
use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::{
    SOON,
    feed::Feed,
    gateway::{Gateway, ROOT},
};

const SALES: &str = "\
InvoiceNo,StockCode,Description,Quantity,InvoiceDate,UnitPrice,CustomerID,Country
1,A,LANTERN,6,2010-12-01 08:26:00,2.55,17850.0,United Kingdom
2,=B,HEART,1,2010-12-12 23:59:00,2.95,,<i>France</i>
C3,A,LANTERN,-2,2010-12-24 10:00:00,2.55,17850.0,United Kingdom
";

const CSV: &str = "\
day,country,sku,sold,returned,written_off,reversed,sales,returns,write_offs,reversals
2010-12-01,United Kingdom,A,6,0,0,0,15.30,0.00,0.00,0.00
2010-12-12,<i>France</i>,'=B,1,0,0,0,2.95,0.00,0.00,0.00
2010-12-24,United Kingdom,A,0,2,0,0,0.00,5.10,0.00,0.00
";

/// The days of [`period`].
const DAYS: u64 = 24;

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

    /// Returns the file of a report in the folder.
    fn file(&self, report: &str, form: &str) -> PathBuf {
        self.scratch.join(&format!("files/{report}.{form}"))
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

    /// Waits until a report is in a state.
    async fn until(&self, report: &str, what: impl Fn(&Value) -> bool) -> Value {
        let path = format!("/v1/reports/{report}");
        wait_for(format!("report {report} gets there"), SOON, async || {
            let seen = self.root.get(&path).await;
            match seen.status {
                200 if what(&seen.json()) => Ok(seen.json()),
                _ => Err(seen.text),
            }
        })
        .await
    }

    async fn until_status(&self, report: &str, status: &str) -> Value {
        self.until(report, |seen| seen["status"] == status).await
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

#[tokio::test(flavor = "multi_thread")]
async fn a_report_is_followed_and_fetched() {
    let office = Office::open("report-made", "20ms").await;
    let _role = office.role.start(&office.scratch);
    let report = office.requested("1", &period()).await;
    let path = format!("/v1/reports/{report}");
    let mut feed = Feed::open_at(&office.root, &format!("{path}/feed"), &[]).await;
    let mut event = feed.next().await;
    while event.name == "progress" {
        assert_eq!(event.data["total"], DAYS);
        event = feed.next().await;
    }
    assert_eq!(event.name, "ready");
    feed.ends().await;
    let ready = office.until_status(&report, "ready").await;
    assert_eq!(
        (&ready["done"], &ready["orders"]),
        (&json!(DAYS), &json!(2))
    );
    assert_eq!(ready["total_amount"], "13.15");
    // The same key is the same report, made once.
    assert_eq!(office.requested("1", &period()).await, report);

    let link = ready["link"]["path"].as_str().unwrap().to_owned();
    let nobody = office.gateway.nobody();
    let page = office.root.get(&format!("{path}/page")).await;
    let lines = office.root.get(&format!("{path}/csv")).await;
    assert_eq!((page.status, lines.status), (200, 200));
    assert_eq!(lines.text, CSV);
    assert!(page.text.contains("&#60;i&#62;France"), "{}", page.text);
    for (linked, given, form) in [
        (nobody.get(&link).await, &page, "text/html; charset=utf-8"),
        (
            nobody.get(&format!("{link}.csv")).await,
            &lines,
            "text/csv; charset=utf-8",
        ),
    ] {
        assert_eq!((linked.status, &linked.text), (200, &given.text));
        assert_eq!(linked.header("content-type"), Some(form));
        let policy = linked.header("content-security-policy").unwrap();
        assert!(policy.starts_with("default-src 'none'"), "{policy}");
        for (name, value) in [
            ("referrer-policy", "no-referrer"),
            ("x-content-type-options", "nosniff"),
            ("cache-control", "no-store"),
        ] {
            assert_eq!(linked.header(name), Some(value));
        }
    }
    let said = nobody.get("/r/1/2/3").await;
    said.is_problem(404, "not_found");
    for at in [3, 10, link.len() - 80, link.len() - 1] {
        let mut changed = link.clone().into_bytes();
        changed[at] = if changed[at] == b'0' { b'1' } else { b'0' };
        let changed = String::from_utf8(changed).unwrap();
        let refused = nobody.get(&changed).await;
        refused.is_problem(404, "not_found");
        assert_eq!(refused.json()["detail"], said.json()["detail"]);
    }

    for form in ["html", "csv"] {
        fs::remove_file(office.file(&report, form)).unwrap();
    }
    nobody.get(&link).await.is_problem(410, "report_expired");
    let page = office.root.get(&format!("{path}/page")).await;
    page.is_problem(410, "report_expired");
    let cancelled = office
        .root
        .post(&format!("{path}/cancel"), &json!({}))
        .await;
    cancelled.is_problem(409, "report_ended");

    let nothing = json!({"kind": "deliveries", "from": "1999-01-01", "to": "1999-01-02"});
    let empty = office.requested("2", &nothing).await;
    let ready = office.until_status(&empty, "ready").await;
    assert_eq!(ready["orders"], 0);
    let lines = office.root.get(&format!("/v1/reports/{empty}/csv")).await;
    assert_eq!(lines.text.lines().count(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn running_and_queued_reports_are_cancelled() {
    let office = Office::open("report-cancel", "1m").await;
    let _role = office.role.start(&office.scratch);
    let running = office.requested("1", &period()).await;
    office.until_status(&running, "running").await;
    let queued = office.requested("2", &period()).await;
    for report in [&queued, &running] {
        let cancel = format!("/v1/reports/{report}/cancel");
        let cancelling = office.root.post(&cancel, &json!({})).await.expect(202);
        assert_eq!(cancelling["status"], "cancelling");
        let cancelled = office.until_status(report, "cancelled").await;
        assert!(cancelled["ended_at"].is_string() && cancelled["link"].is_null());
        assert!(!office.file(report, "html").exists());
    }
    // Their places are free again.
    for key in ["3", "4", "5"] {
        office.requested(key, &period()).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_role_makes_equal_files() {
    let office = Office::open("report-kills", "500ms").await;
    let role = office.role.clone().variable("DOORSTEP_TASK_LEASE", "2s");
    let killed = {
        let mut running = role.start(&office.scratch);
        let killed = office.requested("1", &period()).await;
        for quarter in 1..=3 {
            // On a very slow machine the report may be ready before it is seen: then fewer kills have to do.
            let far_enough = |seen: &Value| {
                seen["status"] == "ready" || seen["done"].as_u64() >= Some(quarter * DAYS / 4)
            };
            office.until(&killed, far_enough).await;
            assert!(running.kill());
            running = role.start(&office.scratch);
        }
        killed
    };
    let unpaced = role.variable("DOORSTEP_REPORT_PACE", "0s");
    let _running = unpaced.start(&office.scratch);
    let ready = office.until_status(&killed, "ready").await;
    let whole = office.requested("2", &period()).await;
    office.until_status(&whole, "ready").await;
    for form in ["html", "csv"] {
        let [killed, whole] = [&killed, &whole].map(|report| fs::read(office.file(report, form)));
        assert!(killed.unwrap() == whole.unwrap(), "{form} differs");
    }
    assert_eq!(ready["total_amount"], "13.15");
    let files = fs::read_dir(office.scratch.join("files")).unwrap();
    assert_eq!(files.count(), 4, "drafts are left");
}
