//! Requested reports: request, task, ends, expiry and the views of them.

use std::time::Duration;

use doorstep_contracts::{
    CustomerId, ReportKind, ReportReady, SignedLink,
    requests::{CancelReport, ListReports, ReadReport, ReportStatus, ReportView, RequestReport},
};
use doorstep_runtime::{
    TaskView,
    task::{Task, TaskEffect, TaskEnding, TaskOutcome},
};
use doorstep_store::TaskState;

use super::*;
use crate::roles::reports::{
    contracts::{FileDigest, RenderedReport, ReportFiles},
    tasks::{RemoveReport, RenderReport},
};

const RETENTION: Duration = Duration::from_hours(168);

fn desk() -> RoleHarness<Reports> {
    RoleHarness::new(Reports {
        retention: RETENTION,
    })
}

fn name(name: &str) -> CustomerId {
    CustomerId::new(name).unwrap()
}

fn asked(number: u128, by: &str) -> RequestReport {
    RequestReport {
        report: id(number),
        requested_by: name(by),
        kind: ReportKind::Sales,
        from: "2010-12-01".parse().unwrap(),
        to: "2010-12-31".parse().unwrap(),
        country: None,
        link: SignedLink {
            path: "/r/1/2/3".parse().unwrap(),
            expires_at: ten(),
        },
    }
}

fn rendered(number: u128, by: &str, evicted: &[u128]) -> RenderedReport {
    let file = FileDigest {
        bytes: 7,
        sha256: "ab".to_owned(),
    };
    RenderedReport {
        report: id(number),
        requested_by: name(by),
        files: ReportFiles {
            page: file.clone(),
            csv: file,
        },
        orders: 3,
        total: Some("12.50".parse().unwrap()),
        evicted: evicted.iter().map(|number| id(*number)).collect(),
    }
}

/// Returns the end of the task that a request has started.
fn ended(started: &TaskEffect, ending: TaskEnding, detail: &str) -> TaskOutcome {
    let TaskEffect::Start {
        id, kind, subject, ..
    } = started
    else {
        panic!("{started:?} starts nothing");
    };
    TaskOutcome {
        task: id.to_string(),
        kind: kind.clone(),
        subject: subject.clone(),
        ending,
        detail: detail.to_owned(),
    }
}

fn read(desk: &RoleHarness<Reports>, number: u128) -> ReportView {
    let report = id(number);
    let requested_by = None;
    desk.query(&ReadReport {
        report,
        requested_by,
    })
    .unwrap()
}

fn status(desk: &RoleHarness<Reports>, number: u128) -> ReportStatus {
    read(desk, number).status
}

fn listed(desk: &RoleHarness<Reports>, by: &str) -> Vec<(ReportId, ReportStatus)> {
    let requested_by = name(by);
    let list = desk.query(&ListReports { requested_by }).unwrap();
    list.reports.iter().map(|r| (r.report, r.status)).collect()
}

#[test]
fn repeated_requests_start_one_task() {
    let mut desk = desk();
    let view = desk.execute(&asked(1, "root")).unwrap();
    assert_eq!((view.status, view.total), (ReportStatus::Queued, 31));
    // A repeated request may carry another link.
    let mut again = asked(1, "root");
    again.link.path = "/r/1/9/9".parse().unwrap();
    assert_eq!(desk.execute(&again).unwrap(), view);
    let [
        TaskEffect::Start {
            id, kind, input, ..
        },
    ] = &*desk.tasks
    else {
        panic!("{:?}", desk.tasks);
    };
    assert_eq!(id.as_str(), format!("report/{}", self::id(1)));
    assert_eq!(kind.as_str(), RenderReport::TYPE);
    let task: RenderReport = serde_json::from_slice(input).unwrap();
    assert_eq!(task.check(), Ok(()));
    for other in [
        RequestReport {
            kind: ReportKind::Deliveries,
            ..asked(1, "root")
        },
        RequestReport {
            to: "2011-01-01".parse().unwrap(),
            ..asked(1, "root")
        },
        RequestReport {
            country: Some(Label::new("France").unwrap()),
            ..asked(1, "root")
        },
        asked(1, "eve"),
    ] {
        let rejected = desk.execute(&other).unwrap_err();
        assert_eq!(rejected.code, "report_id_reused", "{other:?}");
    }
    assert_eq!(desk.tasks.len(), 1);
}

#[test]
fn periods_are_bounded() {
    let mut desk = desk();
    for (from, to, code) in [
        ("2010-12-02", "2010-12-01", "period_reversed"),
        ("2010-01-01", "2020-01-09", "period_too_long"),
        ("-009999-01-01", "9999-12-31", "period_too_long"),
    ] {
        let request = RequestReport {
            from: from.parse().unwrap(),
            to: to.parse().unwrap(),
            ..asked(1, "root")
        };
        assert_eq!(desk.execute(&request).unwrap_err().code, code);
    }
    let country = Some(Label::new("France").unwrap());
    let by_country = RequestReport {
        kind: ReportKind::Deliveries,
        country,
        ..asked(1, "root")
    };
    let rejected = desk.execute(&by_country).unwrap_err();
    assert!(
        rejected.detail.contains("leave the country out"),
        "{rejected}"
    );
    assert_eq!((desk.states().count(), desk.tasks.len()), (0, 0));
}

#[test]
fn a_requester_has_three_open_reports() {
    let mut desk = desk();
    for number in 1..=3 {
        desk.execute(&asked(number, "root")).unwrap();
    }
    for number in 4..1_000 {
        let rejected = desk.execute(&asked(number, "root")).unwrap_err();
        assert_eq!(rejected.code, "too_many_reports");
    }
    desk.execute(&asked(4, "ada")).unwrap();
    desk.execute(&rendered(2, "root", &[])).unwrap();
    desk.execute(&asked(5, "root")).unwrap();
    assert!(desk.execute(&asked(6, "root")).is_err());
    assert_eq!(desk.tasks.len(), 5);
}

#[test]
fn a_rendered_report_is_ready_once() {
    let mut desk = desk();
    desk.execute(&asked(1, "root")).unwrap();
    desk.execute(&rendered(1, "root", &[])).unwrap();
    let view = read(&desk, 1);
    assert_eq!((view.status, view.done), (ReportStatus::Ready, 31));
    assert_eq!(view.orders, Some(3));
    assert_eq!(listed(&desk, "root"), [(id(1), ReportStatus::Ready)]);
    let ready: ReportReady = serde_json::from_slice(desk.emitted[0].data()).unwrap();
    assert_eq!(ready.link, asked(1, "root").link);
    assert_eq!(desk.emitted[0].subject(), &id(1).subject());
    // Its files are those of the first result: a second one is removed.
    desk.execute(&rendered(1, "root", &[])).unwrap();
    assert_eq!(desk.emitted.len(), 1);
}

#[test]
fn progress_comes_from_the_task() {
    let mut desk = desk();
    desk.execute(&asked(1, "root")).unwrap();
    let TaskEffect::Start { id: task, .. } = desk.tasks[0].clone() else {
        panic!("{:?}", desk.tasks);
    };
    let mut live = TaskView {
        id: task,
        state: TaskState::Ready,
        is_cancelling: false,
        done: 0,
        total: 0,
        note: None,
        attempts: 0,
        error: None,
    };
    desk.live = vec![live.clone()];
    assert_eq!(status(&desk, 1), ReportStatus::Queued);
    live.state = TaskState::Running;
    (live.done, live.total) = (8, 31);
    live.error = Some("disk\nfull".to_owned());
    desk.live = vec![live.clone()];
    let view = read(&desk, 1);
    assert_eq!((view.status, view.done), (ReportStatus::Running, 8));
    assert_eq!(view.reason, Some(Label::new("disk?full").unwrap()));
    live.is_cancelling = true;
    desk.live = vec![live];
    assert_eq!(status(&desk, 1), ReportStatus::Cancelling);
    // The last progress of a task that has ended meanwhile does not hide its end.
    desk.execute(&rendered(1, "root", &[])).unwrap();
    let view = read(&desk, 1);
    assert_eq!((view.status, view.done), (ReportStatus::Ready, 31));
}

#[test]
fn a_cancelled_report_ends_once() {
    let mut desk = desk();
    for number in 1..=2 {
        desk.execute(&asked(number, "root")).unwrap();
    }
    let cancel = |number, by| CancelReport {
        report: id(number),
        requested_by: name(by),
    };
    for unknown in [cancel(3, "root"), cancel(1, "eve")] {
        assert_eq!(desk.execute(&unknown).unwrap_err().code, "unknown_report");
    }
    for number in [1, 1, 2] {
        let view = desk.execute(&cancel(number, "root")).unwrap();
        assert_eq!(view.status, ReportStatus::Cancelling);
    }
    let cancelled = |task: &&TaskEffect| matches!(task, TaskEffect::Cancel(_));
    assert_eq!(desk.tasks.iter().filter(cancelled).count(), 3);
    let end = ended(&desk.tasks[0], TaskEnding::Cancelled, "");
    desk.execute(&end).unwrap();
    // The result of the second one was first.
    desk.execute(&rendered(2, "root", &[])).unwrap();
    let ends = [
        (id(2), ReportStatus::Ready),
        (id(1), ReportStatus::Cancelled),
    ];
    assert_eq!(listed(&desk, "root"), ends);
    for number in 1..=2 {
        let rejected = desk.execute(&cancel(number, "root")).unwrap_err();
        assert_eq!(rejected.code, "report_ended");
    }
    assert_eq!(desk.emitted(), ["report.ready.v1"]);
}

#[test]
fn a_replay_renders_a_failed_report() {
    let mut desk = desk();
    desk.execute(&asked(1, "root")).unwrap();
    let long = format!("{}\u{202e}", "é\n".repeat(300));
    let failed = ended(&desk.tasks[0], TaskEnding::Failed, &long);
    desk.execute(&failed).unwrap();
    desk.execute(&failed).unwrap();
    let view = read(&desk, 1);
    assert_eq!(view.status, ReportStatus::Failed);
    assert!(view.reason.unwrap().as_str().starts_with("é?é"));
    desk.execute(&rendered(1, "root", &[])).unwrap();
    assert_eq!(status(&desk, 1), ReportStatus::Ready);
    assert_eq!(desk.emitted(), ["report.failed.v1", "report.ready.v1"]);
}

#[test]
fn an_operator_settles_an_unknown_end() {
    let mut desk = desk();
    desk.execute(&asked(1, "root")).unwrap();
    let unknown = ended(
        &desk.tasks[0],
        TaskEnding::Unknown,
        "restored from a backup",
    );
    desk.execute(&unknown).unwrap();
    let view = read(&desk, 1);
    assert!(view.status.is_open() && view.reason.is_some(), "{view:?}");
    let settled = ended(&desk.tasks[0], TaskEnding::SettledFailed, "");
    desk.execute(&settled).unwrap();
    let view = read(&desk, 1);
    assert_eq!(view.reason, Some(Label::new("unknown").unwrap()));
    assert_eq!(view.status, ReportStatus::Failed);
}

#[test]
fn reports_expire_after_the_retention() {
    let mut desk = desk();
    for number in 1..=2 {
        desk.execute(&asked(number, "root")).unwrap();
    }
    desk.execute(&rendered(1, "root", &[])).unwrap();
    desk.tasks.clear();
    desk.now += RETENTION - Duration::from_secs(1);
    desk.run_due_timers();
    assert_eq!(status(&desk, 1), ReportStatus::Ready);
    desk.now += Duration::from_secs(1);
    desk.run_due_timers();
    let left = [
        (id(2), ReportStatus::Queued),
        (id(1), ReportStatus::Expired),
    ];
    assert_eq!(listed(&desk, "root"), left);
    let [TaskEffect::Start { kind, input, .. }] = &*desk.tasks else {
        panic!("{:?}", desk.tasks);
    };
    assert_eq!(kind.as_str(), RemoveReport::TYPE);
    let task: RemoveReport = serde_json::from_slice(input).unwrap();
    assert_eq!(task, RemoveReport { report: id(1) });
    // A dead letter that is replayed now leaves no files behind.
    desk.tasks.clear();
    desk.execute(&rendered(1, "root", &[])).unwrap();
    assert_eq!(status(&desk, 1), ReportStatus::Expired);
    assert_eq!(desk.tasks.len(), 1);
}

#[test]
fn reports_that_make_room_expire() {
    let mut desk = desk();
    desk.execute(&asked(1, "ada")).unwrap();
    desk.execute(&rendered(1, "ada", &[])).unwrap();
    desk.now += Duration::from_hours(1);
    desk.execute(&asked(2, "root")).unwrap();
    // One of them is not known any more.
    desk.execute(&rendered(2, "root", &[1, 9])).unwrap();
    desk.run_due_timers();
    assert_eq!(listed(&desk, "ada"), [(id(1), ReportStatus::Expired)]);
    assert_eq!(status(&desk, 2), ReportStatus::Ready);
    desk.run_all_timers();
    assert_eq!(status(&desk, 2), ReportStatus::Expired);
}

#[test]
fn cancelled_reports_do_not_pile_up() {
    let mut desk = desk();
    desk.execute(&asked(1, "root")).unwrap();
    desk.execute(&rendered(1, "root", &[])).unwrap();
    for number in 2..=100 {
        desk.tasks.clear();
        desk.execute(&asked(number, "root")).unwrap();
        let cancelled = ended(&desk.tasks[0], TaskEnding::Cancelled, "");
        desk.execute(&cancelled).unwrap();
        desk.run_due_timers();
    }
    // The ready one is no longer listed, and its files stay for their time.
    assert_eq!(status(&desk, 1), ReportStatus::Ready);
    assert_eq!(desk.states().count(), ListReports::MAX_LISTED + 2);
    assert_eq!(desk.scheduled.len(), 1);
    desk.run_all_timers();
    assert_eq!(desk.states().count(), ListReports::MAX_LISTED + 1);
}

#[test]
fn a_list_has_all_open_reports() {
    let mut desk = desk();
    desk.execute(&asked(1, "root")).unwrap();
    for number in 2..=40 {
        desk.execute(&asked(number, "root")).unwrap();
        desk.execute(&rendered(number, "root", &[])).unwrap();
    }
    let listed = listed(&desk, "root");
    assert_eq!(listed.len(), ListReports::MAX_LISTED);
    assert_eq!(listed[0].0, id(40));
    assert_eq!(listed[19], (id(1), ReportStatus::Queued));
    assert_eq!(status(&desk, 2), ReportStatus::Ready);
    let nobody = desk.query(&ListReports {
        requested_by: name("eve"),
    });
    assert!(nobody.unwrap().reports.is_empty());
}
