//! Requested reports: from the request over the task that renders them to their expiry.
//!
//! A report is open until its task ends. The files of a ready one are kept for the retention, and it has the only timer.
//! Other ends are known for as long as they are among the latest of their requester. So the number of reports is bounded
//! by the folder and by the number of requesters.

use std::time::Duration;

use doorstep_contracts::{
    CustomerId, Label, ReportFailed, ReportId, ReportReady, SignedLink, replace_invalid,
    requests::{CancelReport, ListReports, ReportList, ReportStatus, ReportView, RequestReport},
};
use doorstep_event::{ContractError, Rejection, Subject, Timestamp};
use doorstep_runtime::{
    CommandOutcome, Effects, HandlerError, States,
    task::{Task, TaskEnding, TaskOutcome},
};
use doorstep_store::{EntityKey, TaskId, TaskState};
use serde::{Deserialize, Serialize};

use super::{
    Record,
    contracts::{ExpiryDue, RemovedReport, RenderedReport, ReportFiles},
    period::{Period, PeriodError},
    tasks::{RemoveReport, RenderReport},
};

/// Maximum bytes of a reason.
const MAX_REASON_BYTES: usize = 200;

/// On `report/ID`: a requested report.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RequestedReport {
    view: ReportView,
    link: SignedLink,
    /// The files of a report that was ready once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    files: Option<ReportFiles>,
}

/// On `requester/NAME`: the latest reports of a requester, the last requested first. All open ones are among them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RequesterReports {
    reports: Vec<ReportView>,
}

impl RequesterReports {
    fn open(&self) -> usize {
        let is_open = |report: &&ReportView| report.status.is_open();
        self.reports.iter().filter(is_open).count()
    }

    /// Adds a report. Returns the oldest that has ended if there are more than are listed.
    fn add(&mut self, view: &ReportView) -> Option<ReportView> {
        self.reports.insert(0, view.clone());
        if self.reports.len() <= ListReports::MAX_LISTED {
            return None;
        }
        let oldest = self.reports.iter().rposition(|r| !r.status.is_open());
        oldest.map(|at| self.reports.remove(at))
    }

    fn lists(&self, report: &ReportId) -> bool {
        self.reports.iter().any(|r| r.report == *report)
    }
}

/// The command that tells of a rendering's end without a result.
pub(crate) struct RenderEnded {
    report: ReportId,
    requested_by: CustomerId,
    ending: TaskEnding,
    detail: String,
}

impl RenderEnded {
    /// Reads the end of a task; `None` if it rendered nothing.
    pub(super) fn read(outcome: TaskOutcome) -> Result<Option<Self>, ContractError> {
        if outcome.kind.as_str() != RenderReport::TYPE {
            return Ok(None);
        }
        let other = || ContractError::Rule(format!("task {} renders no report", outcome.task));
        let report = outcome.task.strip_prefix("report/").ok_or_else(other)?;
        let requester = outcome.subject.as_str().strip_prefix("requester/");
        Ok(Some(Self {
            report: report.parse().map_err(|_| other())?,
            requested_by: CustomerId::new(requester.ok_or_else(other)?).map_err(|_| other())?,
            ending: outcome.ending,
            detail: outcome.detail,
        }))
    }

    pub(super) fn keys(&self) -> Vec<EntityKey> {
        keys(&self.report, &self.requested_by)
    }
}

/// Returns the entities of a report and its requester.
pub(super) fn keys(report: &ReportId, requested_by: &CustomerId) -> Vec<EntityKey> {
    vec![report_key(report), requester_key(requested_by)]
}

pub(super) fn report_key(report: &ReportId) -> EntityKey {
    EntityKey::from(&report.subject())
}

pub(super) fn requester_key(name: &CustomerId) -> EntityKey {
    EntityKey::new(format!("requester/{name}"))
}

/// Returns the id of the task that renders a report.
pub(super) fn render_task(report: &ReportId) -> Option<TaskId> {
    TaskId::new(format!("report/{report}")).ok()
}

/// Starts a report, or returns the state of the one that has this id.
///
/// # Errors
/// A rejection of `reports.request.v1`.
pub(super) fn request(
    states: &mut States<Record>,
    asked: &RequestReport,
    now: Timestamp,
) -> Result<CommandOutcome, Rejection> {
    if let Some(known) = report(states, &asked.report) {
        let known = &known.view;
        let is_same = known.requested_by == asked.requested_by
            && (known.kind, known.from, known.to) == (asked.kind, asked.from, asked.to)
            && known.country == asked.country;
        return match is_same {
            true => CommandOutcome::new::<RequestReport>(known, Effects::none()),
            false => Err(Rejection::new(
                "report_id_reused",
                format!(
                    "report {} has another request: choose another id",
                    asked.report
                ),
            )),
        };
    }
    let period = Period::new(asked.from, asked.to).map_err(|e| {
        let code = match e {
            PeriodError::Reversed { .. } => "period_reversed",
            PeriodError::TooLong { .. } => "period_too_long",
        };
        Rejection::new(code, e.to_string())
    })?;
    let open = requester(states, &asked.requested_by).open();
    if open >= RequestReport::MAX_OPEN {
        return Err(Rejection::new(
            "too_many_reports",
            format!("{open} of your reports are not made yet: wait for one, or cancel one"),
        ));
    }
    let view = ReportView {
        report: asked.report,
        requested_by: asked.requested_by.clone(),
        kind: asked.kind,
        from: asked.from,
        to: asked.to,
        country: asked.country.clone(),
        status: ReportStatus::Queued,
        done: 0,
        total: period.count(),
        requested_at: now,
        ended_at: None,
        reason: None,
        orders: None,
        total_amount: None,
    };
    let mut effects = Effects::none();
    let task = RenderReport {
        report: asked.report,
        requested_by: asked.requested_by.clone(),
        kind: asked.kind,
        from: asked.from,
        to: asked.to,
        country: asked.country.clone(),
    };
    effects.start(
        render_task(&asked.report).ok_or_else(unnameable)?,
        &requester_subject(&asked.requested_by)?,
        &task,
    )?;
    let key = requester_key(&asked.requested_by);
    let mut requester = requester(states, &asked.requested_by);
    let unlisted = requester.add(&view);
    states.put(&key, Record::RequesterReports(requester));
    // The files of a ready one are kept until its timer.
    if let Some(old) = unlisted.filter(|old| old.status != ReportStatus::Ready) {
        let requested_by = old.requested_by;
        effects.schedule(now, &old.report.subject(), &ExpiryDue { requested_by })?;
    }
    let link = asked.link.clone();
    let reply = CommandOutcome::new::<RequestReport>(&view, effects);
    let files = None;
    set(states, RequestedReport { view, link, files });
    reply
}

/// Asks for the end of an open report.
///
/// # Errors
/// A rejection of `reports.cancel.v1`.
pub(super) fn cancel(
    states: &mut States<Record>,
    asked: &CancelReport,
) -> Result<CommandOutcome, Rejection> {
    let mut known = known(states, &asked.report, Some(&asked.requested_by))?.clone();
    let mut effects = Effects::none();
    if !known.view.status.is_open() {
        let status = known.view.status.as_str();
        let detail = format!("the report cannot be cancelled any more: it is {status}");
        return Err(Rejection::new("report_ended", detail));
    }
    effects.cancel(render_task(&asked.report).ok_or_else(unnameable)?);
    known.view.status = ReportStatus::Cancelling;
    let reply = CommandOutcome::new::<CancelReport>(&known.view, effects);
    set(states, known);
    reply
}

/// Stores that a report was rendered, and publishes it.
pub(super) fn rendered(
    states: &mut States<Record>,
    result: &RenderedReport,
    retention: Duration,
    now: Timestamp,
) -> Result<CommandOutcome, Rejection> {
    let mut effects = Effects::none();
    for evicted in &result.evicted {
        let Some(report) = report(states, evicted) else {
            continue;
        };
        let requested_by = report.view.requested_by.clone();
        effects.schedule(now, &evicted.subject(), &ExpiryDue { requested_by })?;
    }
    let known = report(states, &result.report).cloned();
    // A replayed dead letter may render a report that has failed, or one that is forgotten.
    let is_awaited =
        |r: &RequestedReport| r.view.status.is_open() || r.view.status == ReportStatus::Failed;
    let Some(mut report) = known.filter(is_awaited) else {
        remove_files(&mut effects, &result.report)?;
        return CommandOutcome::new::<RenderedReport>(&(), effects);
    };
    report.files = Some(result.files.clone());
    let view = &mut report.view;
    view.status = ReportStatus::Ready;
    view.done = view.total;
    view.ended_at = Some(now);
    view.reason = None;
    view.orders = Some(result.orders);
    view.total_amount = result.total;
    let ready = ReportReady {
        requested_by: view.requested_by.clone(),
        report: view.kind,
        from: view.from,
        to: view.to,
        country: view.country.clone(),
        link: report.link.clone(),
        orders: result.orders,
        total: result.total,
    };
    effects.publish(&result.report.subject(), &ready)?;
    let due = now.checked_add(retention).unwrap_or(Timestamp::MAX);
    let requested_by = report.view.requested_by.clone();
    effects.schedule(due, &result.report.subject(), &ExpiryDue { requested_by })?;
    set(states, report);
    CommandOutcome::new::<RenderedReport>(&(), effects)
}

/// Stores that a report will not be rendered. An operator may still have it rendered by a replay.
pub(super) fn render_ended(
    states: &mut States<Record>,
    ended: &RenderEnded,
    now: Timestamp,
) -> Result<CommandOutcome, Rejection> {
    let mut effects = Effects::none();
    let known = report(states, &ended.report).cloned();
    let is_open = |r: &RequestedReport| r.view.status.is_open();
    if let Some(mut report) = known.filter(is_open) {
        let reason = reason(&ended.detail);
        let view = &mut report.view;
        view.status = match ended.ending {
            // It has not ended: an operator decides.
            TaskEnding::Unknown => {
                view.reason = Some(reason);
                set(states, report);
                return CommandOutcome::new::<TaskOutcome>(&(), effects);
            }
            TaskEnding::Cancelled => ReportStatus::Cancelled,
            TaskEnding::Failed | TaskEnding::SettledDone | TaskEnding::SettledFailed => {
                ReportStatus::Failed
            }
        };
        view.ended_at = Some(now);
        view.reason = None;
        if view.status == ReportStatus::Failed {
            view.reason = Some(reason.clone());
            let failed = ReportFailed {
                requested_by: view.requested_by.clone(),
                report: view.kind,
                from: view.from,
                to: view.to,
                reason,
            };
            effects.publish(&ended.report.subject(), &failed)?;
        }
        set(states, report);
    }
    CommandOutcome::new::<TaskOutcome>(&(), effects)
}

/// Answers that the files of a report were removed.
pub(super) fn removed() -> Result<CommandOutcome, Rejection> {
    CommandOutcome::new::<RemovedReport>(&(), Effects::none())
}

/// Removes the files of a ready report, which was kept long enough or had to make room. Forgets a report that is no
/// longer among the latest of its requester.
pub(super) fn expiry_due(
    states: &mut States<Record>,
    key: &EntityKey,
    due: &ExpiryDue,
) -> Result<Effects, HandlerError> {
    let mut effects = Effects::none();
    let Some(Record::Report(report)) = states.get(key).cloned() else {
        return Ok(effects);
    };
    let mut report = *report;
    if report.view.status.is_open() {
        return Ok(effects);
    }
    if report.view.status == ReportStatus::Ready {
        remove_files(&mut effects, &report.view.report)?;
        report.view.status = ReportStatus::Expired;
    }
    match requester(states, &due.requested_by).lists(&report.view.report) {
        true => set(states, report),
        false => drop(states.remove(key)),
    }
    Ok(effects)
}

/// Returns the state of a report with the progress of its task.
///
/// # Errors
/// A rejection of `reports.report.v1`.
pub(super) fn view(
    states: &States<Record>,
    id: &ReportId,
    requested_by: Option<&CustomerId>,
) -> Result<ReportView, Rejection> {
    let mut view = known(states, id, requested_by)?.view.clone();
    let task = render_task(id).and_then(|task| states.task(&task));
    if let (true, Some(task)) = (view.status.is_open(), task) {
        if task.is_cancelling {
            view.status = ReportStatus::Cancelling;
        } else if task.state == TaskState::Running && view.status == ReportStatus::Queued {
            view.status = ReportStatus::Running;
        }
        view.done = task.done.min(view.total);
        view.reason = task.error.as_deref().map(reason).or(view.reason);
    }
    Ok(view)
}

/// Returns the latest reports of a requester.
pub(super) fn list(states: &States<Record>, asked: &ListReports) -> ReportList {
    ReportList {
        reports: requester(states, &asked.requested_by).reports,
    }
}

fn report<'a>(states: &'a States<Record>, id: &ReportId) -> Option<&'a RequestedReport> {
    match states.get(&report_key(id))? {
        Record::Report(report) => Some(report),
        _ => None,
    }
}

/// Returns a report of this requester, or of any.
fn known<'a>(
    states: &'a States<Record>,
    id: &ReportId,
    requested_by: Option<&CustomerId>,
) -> Result<&'a RequestedReport, Rejection> {
    let belongs = |report: &&RequestedReport| {
        requested_by.is_none_or(|name| *name == report.view.requested_by)
    };
    report(states, id)
        .filter(belongs)
        .ok_or_else(|| Rejection::new("unknown_report", format!("there is no report {id}")))
}

fn requester(states: &States<Record>, name: &CustomerId) -> RequesterReports {
    match states.get(&requester_key(name)) {
        Some(Record::RequesterReports(requester)) => requester.clone(),
        _ => RequesterReports::default(),
    }
}

/// Stores a report, also in the list of its requester if it is still there.
fn set(states: &mut States<Record>, report: RequestedReport) {
    let view = &report.view;
    let mut requester = requester(states, &view.requested_by);
    if let Some(listed) = requester
        .reports
        .iter_mut()
        .find(|r| r.report == view.report)
    {
        listed.clone_from(view);
        let key = requester_key(&view.requested_by);
        states.put(&key, Record::RequesterReports(requester));
    }
    let key = report_key(&view.report);
    states.put(&key, Record::Report(Box::new(report)));
}

fn remove_files(effects: &mut Effects, report: &ReportId) -> Result<(), HandlerError> {
    let task = TaskId::new(format!("report/{report}/remove"));
    let task = task.map_err(|e| HandlerError::reject(e.to_string()))?;
    effects.start(task, &report.subject(), &RemoveReport { report: *report })
}

fn requester_subject(name: &CustomerId) -> Result<Subject, Rejection> {
    Subject::new(format!("requester/{name}")).map_err(Rejection::from)
}

fn unnameable() -> Rejection {
    Rejection::new(Rejection::FAILED, "the report has no valid name")
}

/// Returns an error as a text that can be shown, of bounded length.
fn reason(detail: &str) -> Label {
    let text = replace_invalid(detail.trim());
    let end = text.floor_char_boundary(MAX_REASON_BYTES);
    let text = Label::new(text[..end].trim());
    #[expect(clippy::expect_used, reason = "a constant of the program")]
    text.unwrap_or_else(|_| Label::new("unknown").expect("a text"))
}
