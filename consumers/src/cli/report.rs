//! The arguments of `consumers report`.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use doorstep_cli::{SettingsErrors, args::StoreArgs, checked, parse::from_str};
use doorstep_contracts::Label;
use jiff::civil::Date;

use crate::roles::reports::period::{Period, Scope};

/// The subject of a report.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum ReportKind {
    /// Orders and returns, by day, country and stock code.
    Sales,
    /// Deliveries, by day and city.
    Deliveries,
}

#[derive(Debug, Args)]
pub(crate) struct ReportArgs {
    /// The subject of the report.
    #[arg(value_enum, value_name = "KIND")]
    pub(crate) kind: ReportKind,

    /// The first day, in UTC.
    #[arg(long, value_name = "DATE", value_parser = checked(date, "2010-12-01"))]
    from: Date,

    /// The last day, in UTC. A period has at most 3660 days.
    #[arg(long, value_name = "DATE", value_parser = checked(date, "2010-12-01"))]
    to: Date,

    /// Count only the sales of this country, by its exact name.
    #[arg(long, value_name = "COUNTRY", value_parser = from_str::<Label>("France"))]
    country: Option<Label>,

    #[command(flatten)]
    pub(crate) form: ReportForm,

    #[command(flatten)]
    pub(crate) store: StoreArgs,
}

/// The form of a report.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
pub(crate) struct ReportForm {
    /// Write a page for browsers and printers into this file.
    #[arg(long, value_name = "FILE")]
    pub(crate) html: Option<PathBuf>,

    /// Write the lines that the figures are summed from into this file.
    #[arg(long, value_name = "FILE")]
    pub(crate) csv: Option<PathBuf>,

    /// Print the figures as one JSON object.
    #[arg(long)]
    pub(crate) json: bool,
}

impl ReportArgs {
    /// Returns the scope, or records the reason why there is none.
    pub(crate) fn scope(&self, wrong: &mut SettingsErrors) -> Option<Scope> {
        if !wrong.is_empty() {
            return None;
        }
        let country = match (&self.country, self.kind) {
            (Some(_), ReportKind::Deliveries) => Err("deliveries are not counted by country"),
            (country, _) => Ok(country.clone()),
        };
        let country = wrong.check("--country", country);
        let period = wrong.check("--from and --to", Period::new(self.from, self.to));
        Some(Scope {
            period: period?,
            country: country?,
        })
    }
}

fn date(text: &str) -> Result<Date, String> {
    Date::strptime("%Y-%m-%d", text)
        .map_err(|_| format!("{text:?} is not a date such as 2010-12-31"))
}
