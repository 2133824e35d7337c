//! A report, from the entities of a period to its forms.

use std::io::Write;

use doorstep_contracts::Money;
use doorstep_store::EntityRow;
use jiff::civil::Date;
use serde::Serialize;

use super::{
    Record, csv as csv_form,
    figures::{DeliveryFigures, DeliveryReport, SalesFigures, SalesReport, Uncountable},
    page,
    period::{Period, Scope},
};

/// The reason why an entity cannot be added to a report.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ReportError {
    #[error(transparent)]
    Uncountable(#[from] Uncountable),
    /// The role has not written an entity of this form under this kind of key.
    #[error("an entity has another form")]
    WrongKind,
}

/// The reason why the lines of an entity cannot be written.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CsvError {
    #[error(transparent)]
    Entity(#[from] ReportError),
    #[error(transparent)]
    Output(#[from] csv::Error),
}

/// An entity of a day.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct DayEntity {
    pub(crate) key: String,
    pub(crate) day: Date,
    pub(crate) record: Record,
}

impl DayEntity {
    /// Reads an entity whose key begins with this segment and a day. The inner value is `None` if its key begins with
    /// another segment, the outer one if the role cannot have written it.
    pub(crate) fn read(row: &EntityRow, kind: &str) -> Option<Option<Self>> {
        let record = serde_json::from_slice(row.state.as_deref()?).ok()?;
        Self::new(row.key.as_str(), kind, record)
    }

    /// Returns an entity from its parts, see [`DayEntity::read`].
    pub(crate) fn new(key: &str, kind: &str, record: Record) -> Option<Option<Self>> {
        let Some(day) = key
            .strip_prefix(kind)
            .and_then(|rest| rest.strip_prefix('/'))
        else {
            return Some(None);
        };
        let (day, _) = day.split_once('/').unwrap_or((day, ""));
        Some(Some(Self {
            key: key.to_owned(),
            day: day.parse().ok()?,
            record,
        }))
    }

    /// Returns a key before all those of a period, and after those of earlier days but for the strangest names.
    pub(crate) fn key_before(kind: &str, period: Period) -> String {
        match period.from().yesterday() {
            Ok(before) => format!("{kind}/{before}/{}", char::MAX),
            Err(_) => format!("{kind}/"),
        }
    }

    /// Returns whether it counts.
    pub(crate) fn is_in(&self, scope: &Scope) -> bool {
        let country = scope.country.as_ref();
        scope.period.contains(self.day) && country.is_none_or(|c| c.as_str() == self.name())
    }

    /// Returns the rest of its key, after segment and day: the country of sales.
    fn name(&self) -> &str {
        self.key.splitn(3, '/').nth(2).unwrap_or_default()
    }
}

/// A report in progress: it sums entities one by one.
pub(crate) trait Report: Sized + Send + 'static {
    /// The first segment of the entities' keys.
    const ENTITIES: &'static str;
    type Figures: Serialize;

    fn new(scope: Scope) -> Self;

    /// Adds an entity.
    ///
    /// # Errors
    /// See [`ReportError`].
    fn add(&mut self, entity: &DayEntity) -> Result<(), ReportError>;

    /// Returns the figures.
    ///
    /// # Errors
    /// A sum exceeds its bound.
    fn finish(self) -> Result<Self::Figures, Uncountable>;

    /// Returns the number of orders, or of assigned deliveries, and the net amount of the sales.
    fn totals(figures: &Self::Figures) -> (u64, Option<Money>);

    /// Returns the head of the CSV form.
    fn csv_head() -> Vec<String>;

    /// Writes the lines of an entity in the CSV form.
    ///
    /// # Errors
    /// The output cannot be written, or see [`ReportError`].
    fn write_csv<W: Write>(writer: &mut csv::Writer<W>, entity: &DayEntity)
    -> Result<(), CsvError>;

    /// Renders the page.
    ///
    /// # Errors
    /// A bug in the template.
    fn page(figures: &Self::Figures) -> askama::Result<String>;
}

impl Report for SalesReport {
    const ENTITIES: &'static str = "sales";
    type Figures = SalesFigures;

    fn new(scope: Scope) -> Self {
        Self::new(scope)
    }

    fn add(&mut self, entity: &DayEntity) -> Result<(), ReportError> {
        let Record::Sales(sales) = &entity.record else {
            return Err(ReportError::WrongKind);
        };
        let added = self.add(entity.day, entity.name(), sales);
        Ok(added.ok_or(Uncountable)?)
    }

    fn finish(self) -> Result<SalesFigures, Uncountable> {
        self.finish()
    }

    fn totals(figures: &SalesFigures) -> (u64, Option<Money>) {
        (figures.total.orders, figures.total.turnover.net())
    }

    fn csv_head() -> Vec<String> {
        csv_form::sales_head()
    }

    fn write_csv<W: Write>(
        writer: &mut csv::Writer<W>,
        entity: &DayEntity,
    ) -> Result<(), CsvError> {
        let Record::Sales(sales) = &entity.record else {
            return Err(ReportError::WrongKind.into());
        };
        csv_form::write_sales(writer, entity.day, entity.name(), sales)?;
        Ok(())
    }

    fn page(figures: &SalesFigures) -> askama::Result<String> {
        page::sales_page(figures)
    }
}

impl Report for DeliveryReport {
    const ENTITIES: &'static str = "deliveries";
    type Figures = DeliveryFigures;

    fn new(scope: Scope) -> Self {
        Self::new(scope.period)
    }

    fn add(&mut self, entity: &DayEntity) -> Result<(), ReportError> {
        let Record::Deliveries(deliveries) = &entity.record else {
            return Err(ReportError::WrongKind);
        };
        Ok(self.add(entity.day, deliveries).ok_or(Uncountable)?)
    }

    fn finish(self) -> Result<DeliveryFigures, Uncountable> {
        self.finish()
    }

    fn totals(figures: &DeliveryFigures) -> (u64, Option<Money>) {
        (figures.total.assigned, None)
    }

    fn csv_head() -> Vec<String> {
        csv_form::deliveries_head()
    }

    fn write_csv<W: Write>(
        writer: &mut csv::Writer<W>,
        entity: &DayEntity,
    ) -> Result<(), CsvError> {
        let Record::Deliveries(deliveries) = &entity.record else {
            return Err(ReportError::WrongKind.into());
        };
        csv_form::write_deliveries(writer, entity.day, deliveries)?;
        Ok(())
    }

    fn page(figures: &DeliveryFigures) -> askama::Result<String> {
        page::deliveries_page(figures)
    }
}
