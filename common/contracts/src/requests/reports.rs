//! Requests to the role `reports`: reports that are made in the background.

use doorstep_event::{RequestContract, RequestKind, Timestamp};
use jiff::civil::Date;
use serde::{Deserialize, Serialize};
use strum::IntoStaticStr;

use super::ErrorCode;
use crate::{CustomerId, Label, Money, ReportId, ReportKind, SignedLink};

/// `reports.request.v1`: has a report made. The same id again gets the state of that report.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RequestReport {
    /// The report's id, chosen by the caller.
    pub report: ReportId,
    pub requested_by: CustomerId,
    pub kind: ReportKind,
    /// The first day of the period.
    pub from: Date,
    /// The last day of the period; with `from` at most [`RequestReport::MAX_DAYS`] days.
    pub to: Date,
    /// Counts only the sales of this country, by its exact name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub country: Option<Label>,
    /// The link that the event about the report's end carries.
    pub link: SignedLink,
}

impl RequestReport {
    /// Maximum days of a period: ten years and a few days.
    pub const MAX_DAYS: i64 = 3_660;
    /// Maximum reports of a requester that are not made yet.
    pub const MAX_OPEN: usize = 3;
}

impl RequestContract for RequestReport {
    const TYPE: &'static str = "reports.request.v1";
    const ACT: RequestKind = RequestKind::Command;
    type Reply = ReportView;

    fn check(&self) -> Result<(), String> {
        match self.kind {
            ReportKind::Deliveries if self.country.is_some() => {
                Err("deliveries are not counted by country: leave the country out".to_owned())
            }
            _ => Ok(()),
        }
    }
}

/// `reports.cancel.v1`: stops the making of a report. A report whose end is near may still become ready.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CancelReport {
    pub report: ReportId,
    pub requested_by: CustomerId,
}

impl RequestContract for CancelReport {
    const TYPE: &'static str = "reports.cancel.v1";
    const ACT: RequestKind = RequestKind::Command;
    type Reply = ReportView;
}

/// `reports.report.v1`: reads the state of a report.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReadReport {
    pub report: ReportId,
    /// The requester; without, anyone's report is read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub requested_by: Option<CustomerId>,
}

impl RequestContract for ReadReport {
    const TYPE: &'static str = "reports.report.v1";
    const ACT: RequestKind = RequestKind::Query;
    type Reply = ReportView;
}

/// `reports.list.v1`: reads the latest reports of a requester.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ListReports {
    pub requested_by: CustomerId,
}

impl ListReports {
    /// Maximum reports that are listed. Older ones can still be read by their ids.
    pub const MAX_LISTED: usize = 20;
}

impl RequestContract for ListReports {
    const TYPE: &'static str = "reports.list.v1";
    const ACT: RequestKind = RequestKind::Query;
    type Reply = ReportList;
}

/// The latest reports of a requester, the last requested first. A running one is listed as queued.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReportList {
    pub reports: Vec<ReportView>,
}

/// The state of a report.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReportView {
    pub report: ReportId,
    pub requested_by: CustomerId,
    pub kind: ReportKind,
    pub from: Date,
    pub to: Date,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub country: Option<Label>,
    pub status: ReportStatus,
    /// Days that have been read. Only `reports.report.v1` tells the progress of a running report.
    pub done: u64,
    /// Days of the period.
    pub total: u64,
    pub requested_at: Timestamp,
    /// Time when it became ready, failed, or was cancelled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended_at: Option<Timestamp>,
    /// The reason of a failure.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<Label>,
    /// Orders of the period, or assigned deliveries.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub orders: Option<u64>,
    /// Net amount of the sales.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub total_amount: Option<Money>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, IntoStaticStr)]
#[serde(rename_all = "snake_case")]
#[strum(serialize_all = "snake_case")]
pub enum ReportStatus {
    /// It waits for its turn.
    Queued,
    Running,
    /// A cancellation was requested, and the making has not stopped yet.
    Cancelling,
    /// Its files can be fetched.
    Ready,
    Failed,
    Cancelled,
    /// Its files were removed, by age or for want of room.
    Expired,
}

impl ReportStatus {
    /// Returns the value on the wire.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        self.into()
    }

    /// Returns whether the report is still to be made.
    #[must_use]
    pub fn is_open(self) -> bool {
        matches!(self, Self::Queued | Self::Running | Self::Cancelling)
    }
}

pub(super) const REQUEST: &[ErrorCode] = &[
    ErrorCode::new(
        "too_many_reports",
        "the requester has three reports that are not made yet",
    ),
    ErrorCode::new("period_too_long", "the period has more than 3660 days"),
    ErrorCode::new("period_reversed", "the period ends before it begins"),
    ErrorCode::new(
        "report_id_reused",
        "the id belongs to a report of other figures or of another requester",
    ),
];

pub(super) const CANCEL: &[ErrorCode] = &[
    ErrorCode::new("unknown_report", "the requester has no report of this id"),
    ErrorCode::new(
        "report_ended",
        "the report is ready, has failed, was cancelled or has expired",
    ),
];

pub(super) const READ: &[ErrorCode] = &[ErrorCode::new(
    "unknown_report",
    "the requester has no report of this id",
)];
