//! The tasks of reports: rendering the files of a report, and removing them.
//!
//! Page, CSV and sums come from one reading of the entities, so they agree with each other. Another attempt over equal
//! entities writes equal bytes, however often its process is killed.

use std::{mem, time::Duration};

use doorstep_contracts::{CustomerId, Label, ReportId, ReportKind};
use doorstep_runtime::task::{OnUnknown, Task, TaskContext, TaskError, TaskPolicy};
use jiff::civil::Date;
use serde::{Deserialize, Serialize};
use tokio::{task, time::sleep};

use super::{
    Record,
    contracts::{RemovedReport, RenderedReport, ReportFiles},
    figures::{DeliveryReport, SalesReport},
    files::{FolderError, ReportFolder},
    period::{Period, Scope},
    report::{CsvError, DayEntity, Report},
};

/// The number of entities read at a time: a busy day of a large country has some 100 KiB.
const PAGE: usize = 100;
/// The bytes of lines that are written at a time.
const CHUNK: usize = 256 * 1024;

/// The resources of the tasks.
#[derive(Debug, Clone)]
pub(crate) struct ReportResources {
    pub(super) folder: ReportFolder,
    /// The pause after each day.
    pub(super) pace: Duration,
}

/// `reports.render.v1`: reads the days of a report and writes its files.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RenderReport {
    pub(super) report: ReportId,
    pub(super) requested_by: CustomerId,
    pub(super) kind: ReportKind,
    pub(super) from: Date,
    pub(super) to: Date,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) country: Option<Label>,
}

/// `reports.remove.v1`: removes the files of a report.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RemoveReport {
    pub(super) report: ReportId,
}

/// The checkpoint of a rendering that is about to make room: the reports that it removes.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Evicted {
    evicted: Vec<ReportId>,
}

impl Task for RenderReport {
    const TYPE: &'static str = "reports.render.v1";
    const POLICY: TaskPolicy = TaskPolicy {
        timeout: Duration::from_mins(30),
        max_running: 1,
        max_attempts: Some(5),
        // A full disk gets some minutes.
        initial_backoff: Duration::from_secs(10),
        // Files of a cancelled report do no harm, and another attempt replaces them.
        on_unknown: OnUnknown::Retry,
        ..TaskPolicy::DEFAULT
    };
    type Resources = ReportResources;
    type Output = RenderedReport;

    fn check(&self) -> Result<(), String> {
        let period = Period::new(self.from, self.to);
        period.map(drop).map_err(|e| e.to_string())
    }

    async fn run(
        self,
        context: TaskContext,
        resources: ReportResources,
    ) -> Result<RenderedReport, TaskError> {
        match self.kind {
            ReportKind::Sales => render::<SalesReport>(&self, &context, &resources).await,
            ReportKind::Deliveries => render::<DeliveryReport>(&self, &context, &resources).await,
        }
    }
}

impl Task for RemoveReport {
    const TYPE: &'static str = "reports.remove.v1";
    type Resources = ReportResources;
    type Output = RemovedReport;

    async fn run(
        self,
        _context: TaskContext,
        resources: ReportResources,
    ) -> Result<RemovedReport, TaskError> {
        let report = self.report;
        resources.folder.remove(vec![report]).await?;
        Ok(RemovedReport { report })
    }
}

impl From<FolderError> for TaskError {
    fn from(error: FolderError) -> Self {
        match error {
            FolderError::Io { .. } => Self::Retry(error.to_string()),
            FolderError::TooLarge(_) => Self::Fail(error.to_string()),
        }
    }
}

async fn render<R: Report>(
    task: &RenderReport,
    context: &TaskContext,
    resources: &ReportResources,
) -> Result<RenderedReport, TaskError> {
    let period = Period::new(task.from, task.to).map_err(|e| TaskError::Fail(e.to_string()))?;
    let scope = Scope {
        period,
        country: task.country.clone(),
    };
    let folder = &resources.folder;
    folder.remove_drafts(task.report).await?;
    let mut csv = folder.draft(&task.report, ReportFolder::CSV).await?;
    let mut lines = Lines::new::<R>()?;
    let mut report = R::new(scope.clone());
    let mut days = DayReader::new::<R>(context, period);
    let mut done = 0;
    for day in period.days() {
        context.proceed()?;
        while let Some(entity) = days.next_of(day).await? {
            if entity.is_in(&scope) {
                report.add(&entity).map_err(failed)?;
                lines.add::<R>(&entity)?;
            }
        }
        if lines.is_long() {
            csv.write(&lines.take()?).await?;
        }
        done += 1;
        context.progress(done, period.count());
        pause(context, resources.pace).await?;
    }
    csv.write(&lines.take()?).await?;
    let csv = csv.complete().await?;
    let (page, totals) = task::spawn_blocking(move || {
        let figures = report.finish().map_err(failed)?;
        let page = R::page(&figures).map_err(failed)?;
        Ok::<_, TaskError>((page, R::totals(&figures)))
    })
    .await
    .map_err(failed)??;
    let mut file = folder.draft(&task.report, ReportFolder::PAGE).await?;
    file.write(page.as_bytes()).await?;
    let page = file.complete().await?;
    let bytes = page.digest.bytes + csv.digest.bytes;
    let evicted = make_room(task, context, folder, bytes).await?;
    context.proceed()?;
    let files = ReportFiles {
        page: page.digest.clone(),
        csv: csv.digest.clone(),
    };
    folder.publish(vec![csv, page]).await?;
    let (orders, total) = totals;
    Ok(RenderedReport {
        report: task.report,
        requested_by: task.requested_by.clone(),
        files,
        orders,
        total,
        evicted,
    })
}

/// Removes the oldest reports beyond the folder's bound. It tells of them in a checkpoint first: an attempt after a
/// crash does not find them any more.
async fn make_room(
    task: &RenderReport,
    context: &TaskContext,
    folder: &ReportFolder,
    bytes: u64,
) -> Result<Vec<ReportId>, TaskError> {
    let before: Option<Evicted> = context.checkpoint()?;
    let mut evicted = before.unwrap_or_default();
    let oldest = folder.to_evict(task.report, bytes).await?;
    let further: Vec<ReportId> = oldest
        .iter()
        .filter(|id| !evicted.evicted.contains(id))
        .copied()
        .collect();
    if !further.is_empty() {
        evicted.evicted.extend(further);
        context.save_checkpoint(&evicted).await?;
    }
    folder.remove(oldest).await?;
    Ok(evicted.evicted)
}

async fn pause(context: &TaskContext, pace: Duration) -> Result<(), TaskError> {
    if pace.is_zero() {
        return Ok(());
    }
    tokio::select! {
        () = sleep(pace) => Ok(()),
        _ = context.stopped() => Err(TaskError::Stopped),
    }
}

fn failed(error: impl ToString) -> TaskError {
    TaskError::Fail(error.to_string())
}

/// Reads the entities of a report's days, page by page. Each is of some moment of the reading.
struct DayReader<'a> {
    context: &'a TaskContext,
    kind: &'static str,
    /// The key after which the next page begins; `None` once there is none.
    after: Option<String>,
    /// Read entities, in reverse order.
    read: Vec<DayEntity>,
}

impl<'a> DayReader<'a> {
    fn new<R: Report>(context: &'a TaskContext, period: Period) -> Self {
        Self {
            context,
            kind: R::ENTITIES,
            after: Some(DayEntity::key_before(R::ENTITIES, period)),
            read: Vec::new(),
        }
    }

    /// Returns the next entity of a day. Days have to be asked for in their order.
    async fn next_of(&mut self, day: Date) -> Result<Option<DayEntity>, TaskError> {
        loop {
            match self.read.pop() {
                Some(entity) if entity.day < day => {}
                Some(entity) if entity.day == day => return Ok(Some(entity)),
                Some(later) => {
                    self.read.push(later);
                    return Ok(None);
                }
                None if self.after.is_none() => return Ok(None),
                None => self.read_page().await?,
            }
        }
    }

    async fn read_page(&mut self) -> Result<(), TaskError> {
        let Some(after) = self.after.take() else {
            return Ok(());
        };
        let page: Vec<(_, Record)> = self.context.entities(Some(after.into()), PAGE).await?;
        self.after = page.last().map(|(key, _)| key.as_str().to_owned());
        for (key, record) in page {
            match DayEntity::new(key.as_str(), self.kind, record) {
                Some(Some(entity)) => self.read.push(entity),
                // Keys are sorted: what follows is of another kind.
                Some(None) => self.after = None,
                None => return Err(failed(format!("entity {key} is damaged"))),
            }
        }
        self.read.reverse();
        Ok(())
    }
}

/// The lines of a report that are not written yet.
struct Lines {
    writer: csv::Writer<Vec<u8>>,
    is_long: bool,
}

impl Lines {
    fn new<R: Report>() -> Result<Self, TaskError> {
        let mut lines = Self {
            writer: csv::Writer::from_writer(Vec::new()),
            is_long: false,
        };
        lines.writer.write_record(R::csv_head()).map_err(failed)?;
        Ok(lines)
    }

    fn add<R: Report>(&mut self, entity: &DayEntity) -> Result<(), TaskError> {
        R::write_csv(&mut self.writer, entity).map_err(|e: CsvError| failed(e))?;
        self.is_long = self.writer.get_ref().len() >= CHUNK;
        Ok(())
    }

    fn is_long(&self) -> bool {
        self.is_long
    }

    fn take(&mut self) -> Result<Vec<u8>, TaskError> {
        let next = csv::Writer::from_writer(Vec::new());
        self.is_long = false;
        let written = mem::replace(&mut self.writer, next).into_inner();
        written.map_err(|e| failed(e.error()))
    }
}
