//! From a shop's file to the report of a period, by the real binaries.

use std::{fs, time::Duration};

use doorstep_tests::{Program, TempDir, TestEnv};

const LIMIT: Duration = Duration::from_secs(120);

const FILE: &str = "\
InvoiceNo,StockCode,Description,Quantity,InvoiceDate,UnitPrice,CustomerID,Country
1,A,LANTERN,6,2010-12-01 08:26:00,2.55,17850.0,United Kingdom
1,B,HEART,8,2010-12-01 08:26:00,0.125,17850.0,United Kingdom
2,A,LANTERN,1,2010-12-01 23:59:00,2.95,,France
1,A,LANTERN,1,2010-12-01 08:26:00,2.55,17850.0,United Kingdom
3,B,broken,-3,2010-12-02 09:00:00,0,,United Kingdom
C4,A,LANTERN,-2,2010-12-03 10:00:00,2.55,17850.0,United Kingdom
";

const CSV: &str = "\
day,country,sku,sold,returned,written_off,reversed,sales,returns,write_offs,reversals
2010-12-01,France,A,1,0,0,0,2.95,0.00,0.00,0.00
2010-12-01,United Kingdom,A,7,0,0,0,17.85,0.00,0.00,0.00
2010-12-01,United Kingdom,B,8,0,0,0,1.00,0.00,0.00,0.00
2010-12-02,United Kingdom,B,0,0,3,0,0.00,0.00,0.00,0.00
2010-12-03,United Kingdom,A,0,2,0,0,0.00,5.10,0.00,0.00
";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn imported_sales_are_reported_once() {
    let env = TestEnv::new("reports", &[]).await;
    let scratch = TempDir::new("reports");
    let file = scratch.join("sales.csv");
    fs::write(&file, FILE).unwrap();
    let consumers = |arguments: &[&str]| {
        Program::consumers(arguments)
            .broker(&env.amqp_url())
            .store(&scratch.join("stores"))
    };
    let report = |to: &'static str| ["report", "sales", "--from", "2010-12-01", "--to", to];

    // The second import changes nothing.
    for _ in 0..2 {
        let import = Program::producer(&["import", "retail"])
            .arg(&file)
            .broker(&env.amqp_url());
        let ended = import.run(&scratch, LIMIT).await;
        assert_eq!(ended.code, Some(0), "{}", ended.stderr);
        let run = consumers(&["run", "reports", "--exit-when-idle", "1s"]);
        let ended = run.run(&scratch, LIMIT).await;
        assert_eq!(ended.code, Some(0), "{}", ended.stderr);

        // The role may run meanwhile: the report only reads its store.
        let running = consumers(&["run", "reports"]).start(&scratch);
        let csv = scratch.join("year.csv");
        let written = consumers(&report("2011-11-30")).arg("--csv").arg(&csv);
        let ended = written.run(&scratch, LIMIT).await;
        assert_eq!(ended.code, Some(0), "{}", ended.stderr);
        assert_eq!(fs::read_to_string(&csv).unwrap(), CSV);
        running.kill();
    }

    let ended = consumers(&report("2010-12-01"))
        .arg("--json")
        .run(&scratch, LIMIT)
        .await;
    let figures: serde_json::Value = serde_json::from_str(&ended.stdout).unwrap();
    assert_eq!(figures["total"]["amounts"]["net"], "21.80");
    assert_eq!(figures["countries"][0]["name"], "United Kingdom");

    let page = scratch.join("day.html");
    let written = consumers(&report("2010-12-01")).arg("--html").arg(&page);
    assert_eq!(written.run(&scratch, LIMIT).await.code, Some(0));
    let page = fs::read_to_string(&page).unwrap();
    assert!(page.contains("<dd>21.80</dd>"), "{page}");

    let earlier = [
        "report",
        "sales",
        "--from",
        "2009-01-01",
        "--to",
        "2009-12-31",
    ];
    let page = scratch.join("empty.html");
    let ended = consumers(&earlier)
        .arg("--html")
        .arg(&page)
        .run(&scratch, LIMIT)
        .await;
    assert_eq!(ended.code, Some(66), "{}", ended.stderr);
    assert!(
        ended
            .stderr
            .contains("the first day with any is 2010-12-01"),
        "{}",
        ended.stderr
    );
    assert!(!page.exists());
}
