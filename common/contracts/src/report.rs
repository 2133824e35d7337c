//! The end of a requested report, on `report/ID`.

use doorstep_event::Contract;
use jiff::civil::Date;
use serde::{Deserialize, Serialize};
use strum::IntoStaticStr;

use crate::{CustomerId, Label, Money, SignedLink};

/// The figures that a report has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, IntoStaticStr)]
#[serde(rename_all = "snake_case")]
#[strum(serialize_all = "snake_case")]
pub enum ReportKind {
    /// Sales by day, country and stock code.
    Sales,
    /// Deliveries by day and city.
    Deliveries,
}

impl ReportKind {
    /// Returns the value on the wire.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        self.into()
    }
}

/// `report.ready.v1`: the files of a report can be fetched.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReportReady {
    pub requested_by: CustomerId,
    pub report: ReportKind,
    /// The first day of the period.
    pub from: Date,
    /// The last day of the period.
    pub to: Date,
    /// The only country that the report counts; absent if it counts all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub country: Option<Label>,
    pub link: SignedLink,
    /// Orders of the period. Of deliveries, those that were assigned.
    pub orders: u64,
    /// Net amount of the sales; absent for deliveries.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub total: Option<Money>,
}

impl Contract for ReportReady {
    const TYPE: &'static str = "report.ready.v1";
}

/// `report.failed.v1`: a report could not be made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReportFailed {
    pub requested_by: CustomerId,
    pub report: ReportKind,
    /// The first day of the period.
    pub from: Date,
    /// The last day of the period.
    pub to: Date,
    pub reason: Label,
}

impl Contract for ReportFailed {
    const TYPE: &'static str = "report.failed.v1";
}
