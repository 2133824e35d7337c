//! From a web server's log to the report of the role, by the real binaries.

use std::{fs, time::Duration};

use doorstep_tests::{Program, TempDir, TestEnv};

const LIMIT: Duration = Duration::from_secs(120);

/// Returns a line of the combined format, in the given minute of an hour.
fn line(minute: u32, path: &str, status: u16) -> String {
    format!(
        "203.0.113.77 - - [17/May/2015:10:{minute:02}:03 +0000] \"GET {path} HTTP/1.1\" {status} 5 \"-\" \"curl/8.5\"\n"
    )
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn imported_log_is_counted_once() {
    let env = TestEnv::new("access-log", &[]).await;
    let scratch = TempDir::new("access-log");
    let file = scratch.join("access.log");
    let mut log: Vec<u8> = (0..50)
        .flat_map(|n| line(n, "/menu", 200).into_bytes())
        .collect();
    log.extend(line(50, "/menu?token=secret", 500).bytes());
    log.extend([0xff, 0x1b, b'"', b'\n']);
    log.extend(line(51, &"a".repeat(1024 * 1024), 200).bytes());
    log.extend(line(52, "/orders/1", 404).bytes());
    fs::write(&file, log).unwrap();
    let consumers = |arguments: &[&str]| {
        Program::consumers(arguments)
            .broker(&env.amqp_url())
            .store(&scratch.join("stores"))
    };

    // The second import changes nothing.
    for _ in 0..2 {
        let import = Program::producer(&["import", "access-log"])
            .arg(&file)
            .broker(&env.amqp_url());
        let ended = import.run(&scratch, LIMIT).await;
        assert_eq!(ended.code, Some(0), "{}", ended.stderr);
        let sum = "54 read = 52 imported + 2 refused";
        assert!(ended.stdout.contains(sum), "{}", ended.stdout);
        let refused = fs::read_to_string(scratch.join("access.log.refused.jsonl")).unwrap();
        assert!(
            refused.contains("\"line\":52") && refused.contains("\"line\":53"),
            "{refused}"
        );

        let run = consumers(&["run", "access_log", "--exit-when-idle", "1s"]);
        let ended = run.run(&scratch, LIMIT).await;
        assert_eq!(ended.code, Some(0), "{}", ended.stderr);
        let shown = consumers(&["show", "access_log", "--json"])
            .run(&scratch, LIMIT)
            .await;
        assert_eq!(shown.code, Some(0), "{}", shown.stderr);
        let expected = r#"{"hour":"2015-05-17T10:00Z","endpoint":"GET /menu","requests":51,"client_errors":0,"server_errors":1,"bytes":255,"p50_us":null,"p99_us":null}
{"hour":"2015-05-17T10:00Z","endpoint":"GET /orders/1","requests":1,"client_errors":1,"server_errors":0,"bytes":5,"p50_us":null,"p99_us":null}
{"requests":52,"dropped":0}
"#;
        assert_eq!(shown.stdout, expected);
    }
    // The file of lines has each request at least once, and nothing that the events do not have.
    let lines = fs::read_to_string(scratch.join("stores").join("access_log.lines")).unwrap();
    let first = "203.0.113.0 - - [17/May/2015:10:00:03 +0000] \"GET /menu HTTP/1.1\" 200 5 \"-\" \"curl/8.5\" -";
    assert_eq!(lines.lines().next(), Some(first));
    assert!(
        lines.lines().count() >= 52 && !lines.contains("secret"),
        "{lines}"
    );
    let text = consumers(&["show", "access_log"])
        .run(&scratch, LIMIT)
        .await;
    assert!(text.stdout.contains("52 requests"), "{}", text.stdout);
    let exported = consumers(&["export", "access_log"])
        .run(&scratch, LIMIT)
        .await;
    assert!(!exported.stdout.contains("secret"), "{}", exported.stdout);
}
