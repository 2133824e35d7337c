//! The role's messages to itself: results of its tasks and timers. None of them is ever published.

use doorstep_contracts::{CustomerId, Money, ReportId};
use doorstep_event::{Contract, RequestContract, RequestKind};
use serde::{Deserialize, Serialize};

/// `reports.rendered.v1`: the result of rendering a report. Its files are in the folder.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RenderedReport {
    pub(super) report: ReportId,
    pub(super) requested_by: CustomerId,
    pub(super) files: ReportFiles,
    /// Orders, or assigned deliveries.
    pub(super) orders: u64,
    /// Net amount of the sales.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) total: Option<Money>,
    /// The reports whose files were removed to make room.
    pub(super) evicted: Vec<ReportId>,
}

/// The files of a report.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ReportFiles {
    pub(super) page: FileDigest,
    pub(super) csv: FileDigest,
}

/// The length and the digest of a file, by which an operator can check a copy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct FileDigest {
    pub(super) bytes: u64,
    pub(super) sha256: String,
}

impl RequestContract for RenderedReport {
    const TYPE: &'static str = "reports.rendered.v1";
    const ACT: RequestKind = RequestKind::Command;
    type Reply = ();
}

/// `reports.removed.v1`: the result of removing the files of a report.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RemovedReport {
    pub(super) report: ReportId,
}

impl RequestContract for RemovedReport {
    const TYPE: &'static str = "reports.removed.v1";
    const ACT: RequestKind = RequestKind::Command;
    type Reply = ();
}

/// `report.expiry_due.v1`, on `report/ID`: the report was kept long enough, its files had to make room, or its requester
/// has later ones.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ExpiryDue {
    pub(super) requested_by: CustomerId,
}

impl Contract for ExpiryDue {
    const TYPE: &'static str = "report.expiry_due.v1";
    const REQUIRES_SEQUENCE: bool = false;
}
