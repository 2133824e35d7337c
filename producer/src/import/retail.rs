//! Real sales, one row a line of an invoice.
//!
//! - Each row is a `stock.adjusted` on `stock/<StockCode>`. A sale takes its quantity from the stock. A cancellation
//!   (an invoice that begins with `C`) adds it. A negative quantity on any other invoice is a write-off and reduces the
//!   stock.
//! - Each invoice is one `order.placed` on `order/<InvoiceNo>` or, for a cancellation, one `return.recorded` on
//!   `return/<InvoiceNo>`. It has all lines, and is due with its last row. Its rows need not be adjacent, so the first
//!   pass counts them; only the invoices that have begun and not ended are in memory. Time, customer and country are
//!   those of its first row.
//! - Times have no zone in the file; they are taken as UTC. A customer `17850.0` is customer `17850`.
//! - Columns may stand in any order and have other names, and numbers and dates come in the forms that `format` reads.

use std::{collections::HashMap, fmt};

use doorstep_contracts::{
    CustomerId, InvoiceNo, Label, Money, OrderLine, OrderPlaced, ReturnRecorded, Sku,
    StockAdjusted, StockReason,
};
use doorstep_event::{Contract, Event, MAX_DATA_BYTES, Sequence, Source, Subject, Timestamp};

use super::{
    format::Format,
    mapping::RowMapper,
    table::{Column, Row},
};

/// The bytes that an invoice's event needs besides its lines.
const HEAD_BYTES: usize = 4096;

/// The state of an import of sales.
#[derive(Default)]
pub(crate) struct Retail {
    reading: Reading,
    /// Invoices with rows to come. Names are bytes, compared as such.
    invoices: HashMap<Box<[u8]>, Invoice>,
    /// The streams of stock codes, and their next numbers.
    stock: HashMap<Sku, (Subject, Sequence)>,
}

/// The options for reading a row.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Reading {
    /// The forms of numbers and dates.
    pub(crate) format: Format,
    /// The country of a row that names none.
    pub(crate) country: Option<Label>,
}

/// The columns by name.
mod column {
    pub(super) const INVOICE: usize = 0;
    pub(super) const SKU: usize = 1;
    pub(super) const DESCRIPTION: usize = 2;
    pub(super) const QUANTITY: usize = 3;
    pub(super) const DATE: usize = 4;
    pub(super) const PRICE: usize = 5;
    pub(super) const CUSTOMER: usize = 6;
    pub(super) const COUNTRY: usize = 7;
}

#[derive(Default)]
struct Invoice {
    rows_to_come: u64,
    open: Option<Box<OpenInvoice>>,
}

/// An invoice of which at least one row was imported.
struct OpenInvoice {
    no: InvoiceNo,
    at: Timestamp,
    customer: Option<CustomerId>,
    country: Label,
    lines: Vec<OrderLine>,
    total: Money,
    bytes: usize,
}

/// A row of which every field is valid.
struct Sale {
    no: InvoiceNo,
    at: Timestamp,
    customer: Option<CustomerId>,
    country: Label,
    line: OrderLine,
}

impl RowMapper for Retail {
    const NAME: &'static str = "retail";
    const UNIT: &'static str = "invoice";
    const COLUMNS: &'static [Column] = &[
        Column::required("invoice", "InvoiceNo"),
        Column::required("sku", "StockCode"),
        Column::optional("description", "Description"),
        Column::required("quantity", "Quantity"),
        Column::required("date", "InvoiceDate"),
        Column::required("price", "UnitPrice"),
        Column::optional("customer", "CustomerID"),
        Column::optional("country", "Country"),
    ];
    const ROW_EVENT: &'static str = StockAdjusted::TYPE;

    fn unit<'r>(&self, row: &'r Row<'_>) -> Result<&'r [u8], String> {
        match row.bytes(column::INVOICE)? {
            [] => Err("invoice number is empty".to_owned()),
            no => Ok(no),
        }
    }

    fn normalise(&self, row: &Row<'_>, form: &mut Vec<u8>) -> Result<(), String> {
        let sale = self.reading.sale(row)?;
        // A positive quantity on a cancellation is no sale either.
        adjustment(&sale.no, sale.line.quantity)?;
        let line = serde_json::to_string(&sale.line).map_err(|e| e.to_string())?;
        let customer = sale.customer.as_ref().map_or("", CustomerId::as_str);
        // Line ends within a quoted field differ between systems.
        let line = line.replace(r"\r\n", r"\n");
        form.extend_from_slice(
            format!("{}|{}|{customer}|{}|{line}", sale.no, sale.at, sale.country).as_bytes(),
        );
        Ok(())
    }

    fn begin(&self, units: HashMap<Box<[u8]>, u64>) -> Self {
        let invoices = units.into_iter().map(|(no, rows_to_come)| {
            let invoice = Invoice {
                rows_to_come,
                open: None,
            };
            (no, invoice)
        });
        Self {
            reading: self.reading.clone(),
            invoices: invoices.collect(),
            stock: HashMap::new(),
        }
    }

    fn events(
        &mut self,
        source: &Source,
        row: &Row<'_>,
        events: &mut Vec<Event>,
    ) -> Result<(), String> {
        let no = self.unit(row)?;
        let sale = self.reading.sale(row);
        let imported = sale.and_then(|sale| self.take(source, sale, events));
        // The row counts as read, also if it was rejected.
        let closed = self.row_has_come(no);
        if let Some(invoice) = closed {
            events.push(invoice.into_event(source)?);
        }
        imported
    }

    fn pending(&self) -> usize {
        self.invoices.len()
    }
}

impl Retail {
    /// Creates an import that reads rows with these options.
    pub(crate) fn new(reading: Reading) -> Self {
        Self {
            reading,
            ..Self::default()
        }
    }

    /// Adds a sale to its invoice and adjusts the stock: both or nothing.
    fn take(&mut self, source: &Source, sale: Sale, events: &mut Vec<Event>) -> Result<(), String> {
        let Sale {
            no,
            at,
            customer,
            country,
            line,
        } = sale;
        let invoice = self
            .invoices
            .get_mut(no.as_str().as_bytes())
            .ok_or("its invoice was not in the file in the first pass")?;

        let line_bytes = serde_json::to_vec(&line).map_err(|e| e.to_string())?.len() + 1;
        let (total, bytes) = match &invoice.open {
            Some(open) => (open.total, open.bytes),
            None => (Money::ZERO, HEAD_BYTES),
        };
        let total = total.checked_add(line.amount).map_err(|e| e.to_string())?;
        let bytes = bytes + line_bytes;
        if bytes > MAX_DATA_BYTES {
            return Err(format!("invoice {no} with this row would be above 1 MiB"));
        }

        let adjusted = adjustment(&no, line.quantity)?;
        let (subject, sequence) = self
            .stock
            .entry(line.sku.clone())
            .or_insert_with(|| (line.sku.subject(), Sequence::FIRST));
        let event = Event::from_contract(source, subject, *sequence, at, &adjusted)
            .map_err(|e| e.to_string())?;

        // Nothing can fail from here on.
        *sequence = next(*sequence);
        events.push(event);
        let open = invoice.open.get_or_insert_with(|| {
            Box::new(OpenInvoice {
                no,
                at,
                customer,
                country,
                lines: Vec::new(),
                total,
                bytes,
            })
        });
        open.lines.push(line);
        (open.total, open.bytes) = (total, bytes);
        Ok(())
    }

    /// Counts a row of that invoice as read, and returns the invoice if it was the last.
    fn row_has_come(&mut self, no: &[u8]) -> Option<Box<OpenInvoice>> {
        let invoice = self.invoices.get_mut(no)?;
        invoice.rows_to_come = invoice.rows_to_come.saturating_sub(1);
        if invoice.rows_to_come > 0 {
            return None;
        }
        self.invoices.remove(no)?.open
    }
}

impl OpenInvoice {
    fn into_event(self, source: &Source) -> Result<Event, String> {
        let Self {
            no,
            at,
            customer,
            country,
            lines,
            total,
            bytes: _,
        } = self;
        // An import makes only one event of an invoice.
        let sequence = Sequence::FIRST;
        let event = if no.is_cancellation() {
            let fact = ReturnRecorded {
                recorded_at: at,
                customer,
                country,
                lines,
                total,
            };
            Event::from_contract(source, &no.return_subject(), sequence, at, &fact)
        } else {
            let fact = OrderPlaced {
                placed_at: at,
                customer,
                country,
                lines,
                total,
            };
            Event::from_contract(source, &no.order_subject(), sequence, at, &fact)
        };
        event.map_err(|e| e.to_string())
    }
}

/// Returns the adjustment of the stock for a row.
fn adjustment(no: &InvoiceNo, quantity: i64) -> Result<StockAdjusted, String> {
    let gone = || {
        quantity
            .checked_neg()
            .ok_or_else(|| format!("Quantity {quantity} is too large"))
    };
    let (delta, reason) = match (no.is_cancellation(), quantity) {
        (true, 1..) => {
            return Err(format!(
                "Quantity {quantity} is positive on cancellation {no}"
            ));
        }
        (true, _) => (gone()?, StockReason::Return),
        (false, ..0) => (quantity, StockReason::WriteOff),
        (false, _) => (gone()?, StockReason::Sale),
    };
    let reference = if no.is_cancellation() {
        no.return_subject()
    } else {
        no.order_subject()
    };
    Ok(StockAdjusted {
        delta,
        reason,
        reference,
    })
}

impl Reading {
    /// Reads a row.
    ///
    /// # Errors
    /// Names the field that cannot be read.
    fn sale(&self, row: &Row<'_>) -> Result<Sale, String> {
        let named = |i: usize, e: &dyn fmt::Display| format!("{}: {e}", Retail::COLUMNS[i].name);
        let optional = |i: usize| row.field(i).map(|text| (!text.is_empty()).then_some(text));
        let quantity = self.format.whole_number(row.field(column::QUANTITY)?);
        let quantity = quantity.map_err(|e| named(column::QUANTITY, &e))?;
        let price = self.format.number(row.field(column::PRICE)?);
        let price = price.map_err(|e| named(column::PRICE, &e))?;
        let line = OrderLine::new(
            Sku::new(row.field(column::SKU)?).map_err(|e| e.to_string())?,
            optional(column::DESCRIPTION)?.map(str::to_owned),
            quantity,
            price.parse().map_err(|e| named(column::PRICE, &e))?,
        )
        .map_err(|e| e.to_string())?;
        line.check()?;
        let customer = optional(column::CUSTOMER)?
            .map(|text| CustomerId::new(text.strip_suffix(".0").unwrap_or(text)))
            .transpose()
            .map_err(|e| named(column::CUSTOMER, &e))?;
        let at = self.format.time(row.field(column::DATE)?);
        let country = match (optional(column::COUNTRY)?, &self.country) {
            (None, Some(country)) => country.clone(),
            (text, _) => {
                Label::new(text.unwrap_or_default()).map_err(|e| named(column::COUNTRY, &e))?
            }
        };
        Ok(Sale {
            no: InvoiceNo::new(row.field(column::INVOICE)?).map_err(|e| e.to_string())?,
            at: at.map_err(|e| named(column::DATE, &e))?,
            customer,
            country,
            line,
        })
    }
}

/// Returns the number after this one. Files with 2^63 rows do not exist.
pub(super) fn next(sequence: Sequence) -> Sequence {
    Sequence::new(sequence.get() + 1).unwrap_or(sequence)
}
