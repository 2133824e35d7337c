//! Tests of the role and of its report.

use super::*;
use crate::roles::testing::{RoleHarness, event, exported};

fn served(at: &str, route: &str, status: u16, duration_us: Option<u64>) -> RequestServed {
    RequestServed {
        served_at: format!("2026-11-30T{at}Z").parse().unwrap(),
        method: Some("GET".to_owned()),
        route: route.to_owned(),
        path: None,
        status,
        bytes: Some(100),
        duration_us,
        client: None,
        referrer: None,
        user_agent: None,
    }
}

fn dropped(at: &str, count: u64) -> RequestsDropped {
    let at: Timestamp = format!("2026-11-30T{at}Z").parse().unwrap();
    RequestsDropped {
        count,
        first_at: at,
        last_at: at,
    }
}

fn report(harness: &RoleHarness<AccessLog>) -> (Vec<EndpointHour>, HourlyReport) {
    let mut report = HourlyReport::default();
    let mut rows = Vec::new();
    for (key, state) in harness.states() {
        rows.extend(
            report
                .add(key.as_str(), exported(state).as_bytes())
                .unwrap(),
        );
    }
    rows.extend(report.finish_hour());
    (rows, report)
}

#[test]
fn requests_are_counted_by_endpoint_and_minute() {
    let mut harness = RoleHarness::new(AccessLog::default());
    let events = [
        served("10:05:03", "/orders/{order}", 200, Some(1_850)),
        served("10:05:59.9", "/orders/{order}", 404, Some(1_850)),
        served("10:06:00", "/orders/{order}", 503, None),
        served("10:05:30", "/login", 302, Some(20)),
    ];
    for (sequence, fact) in (1..).zip(&events) {
        harness.give(&event("request/a", sequence, fact)).unwrap();
    }
    let keys: Vec<&str> = harness.states().map(|(key, _)| key.as_str()).collect();
    assert_eq!(
        keys,
        [
            "endpoint/2026-11-30T10:05Z/GET /login",
            "endpoint/2026-11-30T10:05Z/GET /orders/{order}",
            "endpoint/2026-11-30T10:06Z/GET /orders/{order}",
        ]
    );
    assert_eq!(
        exported(harness.state(keys[1]).unwrap()),
        r#"{"endpoint":{"requests":2,"client_errors":1,"server_errors":0,"bytes":200,"durations":[[1848,2]]}}"#
    );
    assert_eq!(
        exported(harness.state(keys[2]).unwrap()),
        r#"{"endpoint":{"requests":1,"client_errors":0,"server_errors":1,"bytes":100}}"#
    );
}

#[test]
fn drops_are_counted_by_instance() {
    let mut harness = RoleHarness::new(AccessLog::default());
    for (subject, sequence, count) in [
        ("request/a", 1, 3),
        ("request/a", 2, 4),
        ("request/b", 1, 5),
    ] {
        harness
            .give(&event(subject, sequence, &dropped("10:05:03", count)))
            .unwrap();
    }
    let state = |key| harness.state(key).map(exported);
    assert_eq!(
        state("dropped/2026-11-30T10:05Z/a").unwrap(),
        r#"{"dropped":{"requests":7}}"#
    );
    assert_eq!(
        state("dropped/2026-11-30T10:05Z/b").unwrap(),
        r#"{"dropped":{"requests":5}}"#
    );
    assert_eq!(report(&harness).1.dropped(), 12);
}

#[test]
fn report_sums_minutes_to_hours() {
    let mut harness = RoleHarness::new(AccessLog::default());
    let events = [
        served("10:59:00", "/menu", 200, Some(1_000)),
        served("10:01:00", "/menu", 200, Some(3_000)),
        served("10:30:00", "/menu", 500, Some(3_000)),
        served("11:00:00", "/menu", 200, None),
        served("10:30:00", "/login", 401, Some(10)),
    ];
    for (sequence, fact) in (1..).zip(&events) {
        harness.give(&event("request/a", sequence, fact)).unwrap();
    }
    let (rows, report) = report(&harness);
    let row = |row: &EndpointHour| {
        let EndpointHour {
            hour,
            endpoint,
            requests,
            client_errors,
            server_errors,
            p50_us,
            ..
        } = row.clone();
        (
            hour,
            endpoint,
            requests,
            client_errors,
            server_errors,
            p50_us,
        )
    };
    let hour = |hour: &str| format!("2026-11-30T{hour}:00Z");
    assert_eq!(
        rows.iter().map(row).collect::<Vec<_>>(),
        [
            (hour("10"), "GET /menu".to_owned(), 3, 0, 1, Some(3_007)),
            (hour("10"), "GET /login".to_owned(), 1, 1, 0, Some(10)),
            (hour("11"), "GET /menu".to_owned(), 1, 0, 0, None),
        ]
    );
    assert_eq!((report.requests(), report.dropped()), (5, 0));
}

#[test]
fn damaged_entities_are_named() {
    let mut report = HourlyReport::default();
    let endpoint = br#"{"endpoint":{"requests":1,"client_errors":0,"server_errors":0,"bytes":0}}"#;
    for (key, state) in [
        ("endpoint/x/y", &b"{}"[..]),
        ("endpoint/x", endpoint),
        ("other/x/y", endpoint),
    ] {
        let said = report.add(key, state).unwrap_err().to_string();
        assert!(said.contains(key), "{said}");
    }
}
