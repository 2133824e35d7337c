//! Tests of the verdict on invented figures.

use std::collections::BTreeMap;

use super::*;
use crate::{
    scenario::{OperationFailure, Scenario},
    stats::{Figures, Percentiles},
};

const OFFERED: u64 = 1000;

fn spread(p50_ms: f64, p99_ms: f64) -> Option<Percentiles> {
    Some(Percentiles {
        p50_ms,
        p99_ms,
        max_ms: p99_ms,
    })
}

/// Returns figures in which this many users waited for nothing.
fn figures(response: (f64, f64), done_after: (f64, f64), failures: u64) -> Figures {
    let failed = BTreeMap::from([(OperationFailure::TimedOut, failures)]);
    let all_failed = failures == OFFERED;
    Figures {
        offered: OFFERED,
        answered: OFFERED - failures,
        applied: OFFERED - failures,
        not_done: failures,
        failed: if failures == 0 {
            BTreeMap::new()
        } else {
            failed
        },
        response: spread(response.0, response.1),
        done_after: (!all_failed)
            .then(|| spread(done_after.0, done_after.1))
            .flatten(),
        ..Figures::default()
    }
}

fn cell(scenario: Scenario, way: Mode, all: Figures) -> Sample {
    Sample {
        scenario,
        way,
        drained: true,
        all,
        checkouts: Figures::default(),
        updates: Figures::default(),
    }
}

/// The usual result of a comparison.
fn usual() -> Vec<Sample> {
    use Scenario::{Down, Healthy, Overloaded, Slow};
    let sync = |scenario, response, failures| {
        cell(scenario, Mode::Sync, figures(response, response, failures))
    };
    let asynchronous =
        |scenario, done_after| cell(scenario, Mode::Async, figures((4.0, 20.0), done_after, 0));
    vec![
        sync(Healthy, (3.0, 12.0), 0),
        sync(Slow, (25.0, 80.0), 0),
        sync(Overloaded, (1900.0, 2000.0), 600),
        sync(Down, (2000.0, 2001.0), OFFERED),
        asynchronous(Healthy, (6.0, 30.0)),
        asynchronous(Slow, (26.0, 90.0)),
        asynchronous(Overloaded, (8000.0, 16_000.0)),
        asynchronous(Down, (5000.0, 9000.0)),
    ]
}

#[track_caller]
fn shown(cells: &[Sample], claim: &str) -> Shown {
    let verdict = Verdict::from_samples(cells).unwrap();
    let finding = verdict.findings.iter().find(|f| f.claim.contains(claim));
    finding
        .unwrap_or_else(|| panic!("{claim} is no claim"))
        .shown
}

fn with(scenario: Scenario, way: Mode, change: impl FnOnce(&mut Figures)) -> Vec<Sample> {
    let mut cells = usual();
    let cell = cells
        .iter_mut()
        .find(|cell| cell.scenario == scenario && cell.way == way);
    change(&mut cell.unwrap().all);
    cells
}

#[test]
fn usual_figures_support_every_claim() {
    let verdict = Verdict::from_samples(&usual()).unwrap();
    for finding in &verdict.findings {
        let wanted = match finding.claim {
            "it is simpler" => Shown::NotMeasured,
            _ => Shown::Yes,
        };
        assert_eq!(
            finding.shown, wanted,
            "{}: {}",
            finding.claim, finding.because
        );
    }
    let advice = verdict.advice;
    for part in ["60%", "100%", "All 4000 were done", "no quicker", "16.0 s"] {
        assert!(advice.contains(part), "{part} is not in: {advice}");
    }
}

#[test]
fn without_all_cells_there_is_no_verdict() {
    assert_eq!(Verdict::from_samples(&usual()[1..]), None);
}

#[test]
fn successes_without_completion_are_lost() {
    let cells = with(Scenario::Down, Mode::Async, |figures| {
        figures.applied -= 3;
        figures.lost = 3;
    });
    assert_eq!(shown(&cells, "nothing is lost"), Shown::No);
    let advice = Verdict::from_samples(&cells).unwrap().advice;
    assert!(advice.contains("not kept its promise"), "{advice}");
    assert!(
        advice.contains("3 were answered well for nothing"),
        "{advice}"
    );
    // The claim also fails if items are lost in another scenario.
    let cells = with(Scenario::Slow, Mode::Async, |figures| figures.lost = 1);
    assert_eq!(shown(&cells, "nothing is lost"), Shown::No);
    let cells = with(Scenario::Healthy, Mode::Async, |figures| figures.twice = 1);
    assert_eq!(shown(&cells, "nothing is lost"), Shown::No);
}

#[test]
fn a_slow_response_is_not_called_immediate() {
    let cells = with(Scenario::Healthy, Mode::Sync, |f| {
        f.response = spread(90.0, 1400.0);
    });
    assert_eq!(shown(&cells, "it is the result"), Shown::No);
    let advice = Verdict::from_samples(&cells).unwrap().advice;
    assert!(advice.contains("has not shown"), "{advice}");
    let cells = with(Scenario::Slow, Mode::Async, |f| {
        f.response = spread(90.0, 1400.0);
    });
    assert_eq!(shown(&cells, "however the consumers are"), Shown::No);
}

#[test]
fn unaffected_sync_run_leaves_claim_unshown() {
    for (scenario, figures) in [
        (
            Scenario::Down,
            figures((3.0, 12.0), (3.0, 12.0), OFFERED - 1),
        ),
        (Scenario::Overloaded, figures((3.0, 12.0), (3.0, 12.0), 0)),
        (Scenario::Slow, figures((3.0, 12.0), (3.0, 12.0), 0)),
    ] {
        let cells = with(scenario, Mode::Sync, |f| *f = figures);
        assert_eq!(shown(&cells, "fails with its servers"), Shown::No);
    }
    // A peak that slows no user is not levelled.
    let cells = with(Scenario::Overloaded, Mode::Sync, |f| {
        *f = figures((3.0, 12.0), (3.0, 12.0), 0);
    });
    assert_eq!(shown(&cells, "levelled"), Shown::No);
}

#[test]
fn falsely_reported_failures_are_counted() {
    let cells = with(Scenario::Overloaded, Mode::Sync, |f| f.unsure = 7);
    let advice = Verdict::from_samples(&cells).unwrap().advice;
    assert!(advice.contains("7 of those errors"), "{advice}");
}

#[test]
fn times_have_three_digits_or_fewer() {
    let texts = [0.04, 3.1, 9.96, 120.4, 1234.0, 250_000.0].map(time);
    assert_eq!(
        texts,
        ["0.0 ms", "3.1 ms", "10 ms", "120 ms", "1.2 s", "250 s"]
    );
}
