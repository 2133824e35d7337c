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

fn harness() -> RoleHarness<AccessLog> {
    RoleHarness::new(AccessLog {
        lines: None,
        retention: Retention {
            minutes: Duration::from_hours(720),
            hours: Duration::from_hours(9_600),
        },
    })
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

fn keys(harness: &RoleHarness<AccessLog>) -> Vec<&str> {
    harness.states().map(|(key, _)| key.as_str()).collect()
}

#[test]
fn requests_are_counted_by_endpoint_and_minute() {
    let mut harness = harness();
    let events = [
        served("10:05:03", "/orders/{order}", 200, Some(1_850)),
        served("10:05:59.9", "/orders/{order}", 404, Some(1_850)),
        served("10:06:00", "/orders/{order}", 503, None),
        served("10:05:30", "/login", 302, Some(20)),
    ];
    for (sequence, fact) in (1..).zip(&events) {
        harness.give(&event("request/a", sequence, fact)).unwrap();
    }
    let keys = keys(&harness);
    assert_eq!(
        keys,
        ["requests/2026-11-30T10:05", "requests/2026-11-30T10:06"]
    );
    assert_eq!(
        exported(harness.state(keys[0]).unwrap()),
        r#"{"endpoints":{"GET /login":{"requests":1,"client_errors":0,"server_errors":0,"bytes":100,"durations":[[20,1]]},"GET /orders/{order}":{"requests":2,"client_errors":1,"server_errors":0,"bytes":200,"durations":[[1848,2]]}},"dropped":0}"#
    );
    assert_eq!(
        exported(harness.state(keys[1]).unwrap()),
        r#"{"endpoints":{"GET /orders/{order}":{"requests":1,"client_errors":0,"server_errors":1,"bytes":100}},"dropped":0}"#
    );
}

#[test]
fn drops_of_all_instances_are_added() {
    let mut harness = harness();
    for (subject, sequence, count) in [
        ("request/a", 1, 3),
        ("request/a", 2, 4),
        ("request/b", 1, 5),
    ] {
        harness
            .give(&event(subject, sequence, &dropped("10:05:03", count)))
            .unwrap();
    }
    assert_eq!(
        exported(harness.state("requests/2026-11-30T10:05").unwrap()),
        r#"{"endpoints":{},"dropped":12}"#
    );
    assert_eq!(report(&harness).1.dropped(), 12);
}

#[test]
fn expired_minutes_merge_into_hours_that_expire() {
    let mut harness = harness();
    let start = harness.now;
    let events = [
        served("10:05:00", "/menu", 200, Some(1_000)),
        served("10:59:00", "/menu", 404, Some(3_000)),
        served("11:00:00", "/login", 200, None),
    ];
    for (sequence, fact) in (1..).zip(&events) {
        harness.give(&event("request/a", sequence, fact)).unwrap();
    }
    harness
        .give(&event("request/b", 1, &dropped("11:00:00", 7)))
        .unwrap();
    // One expiry a minute, whatever its requests.
    assert_eq!(harness.scheduled.len(), 3);
    let before = report(&harness).0;
    for _ in 0..3 {
        let next = harness.scheduled.remove(0);
        assert_eq!(next.due(), start + Duration::from_hours(720));
        harness.now = next.due();
        harness.fire(&next);
    }
    assert_eq!(
        keys(&harness),
        ["requests/2026-11-30T10", "requests/2026-11-30T11"]
    );
    let (after, sums) = report(&harness);
    assert_eq!(after, before);
    assert_eq!((sums.requests(), sums.dropped()), (3, 7));
    // A late request of a merged minute is added to its hour.
    harness
        .give(&event(
            "request/a",
            4,
            &served("10:05:00", "/menu", 200, None),
        ))
        .unwrap();
    assert_eq!(report(&harness).0[0].requests, 3);
    harness.run_all_timers();
    assert_eq!(keys(&harness), Vec::<&str>::new());
}

#[test]
fn endpoints_of_a_period_are_bounded() {
    let mut counts = PeriodCounts::default();
    for number in 0..=MAX_ENDPOINTS {
        counts.endpoint(&format!("GET /{number}")).requests += 1;
    }
    counts.endpoint("GET /0").requests += 1;
    let mut hour = PeriodCounts::default();
    hour.endpoint("GET /new").requests += 1;
    hour.merge(&counts);
    for counts in [&counts, &hour] {
        assert_eq!(counts.endpoints.len(), MAX_ENDPOINTS + 1);
        assert_eq!(counts.endpoints["GET /0"].requests, 2);
    }
    let others = [&counts, &hour].map(|counts| counts.endpoints[OTHER_ENDPOINT].requests);
    assert_eq!(others, [1, 2]);
}

#[test]
fn report_sums_minutes_to_hours() {
    let mut harness = harness();
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
    for (key, state) in [
        ("requests/x", &b"{}"[..]),
        ("other/x", br#"{"endpoints":{},"dropped":0}"#),
    ] {
        let said = report.add(key, state).unwrap_err().to_string();
        assert!(said.contains(key), "{said}");
    }
}
