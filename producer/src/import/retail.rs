//! Real sales, one row a line of an invoice.
//!
//! - Each row is a `stock.adjusted` on `stock/<StockCode>`: the quantity sold goes, what a cancellation (an invoice that begins with
//!   `C`) brings back comes, and a negative quantity on any other invoice is a write-off and goes.
//! - Each invoice is one `order.placed` on `order/<InvoiceNo>` or, for a cancellation, one `return.recorded` on `return/<InvoiceNo>`,
//!   with all its lines, once its last row has been read. Rows of an invoice need not be together, so the first reading counts them; what
//!   is held in memory are the invoices that have begun and not ended. Its time, customer and country are its first row's.
//! - Times have no zone in the file; they are taken as UTC. A customer `17850.0` is customer `17850`.

use std::collections::HashMap;

use doorstep_contracts::{
    CustomerId, InvoiceNo, Label, Line, Money, OrderPlaced, ReturnRecorded, Sku, StockAdjusted,
    StockReason,
};
use doorstep_event::{Contract, Event, MAX_DATA_BYTES, Sequence, Source, Subject, Timestamp};
use jiff::{civil::DateTime, tz::Offset};

use super::{mapping::Mapping, table::Row};

/// The room that an invoice's event needs besides its lines.
const HEAD_BYTES: usize = 4096;

/// The state of an import of sales.
#[derive(Default)]
pub(crate) struct Retail {
    /// Invoices with rows to come. Names are bytes, compared as such.
    invoices: HashMap<Box<[u8]>, Invoice>,
    /// The streams of stock codes, and their next numbers.
    stock: HashMap<Sku, (Subject, Sequence)>,
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
    lines: Vec<Line>,
    total: Money,
    bytes: usize,
}

/// A row whose every field could be read.
struct Sale {
    no: InvoiceNo,
    at: Timestamp,
    customer: Option<CustomerId>,
    country: Label,
    line: Line,
}

impl Mapping for Retail {
    const NAME: &'static str = "retail";
    const COLUMNS: &'static [&'static str] = &[
        "InvoiceNo",
        "StockCode",
        "Description",
        "Quantity",
        "InvoiceDate",
        "UnitPrice",
        "CustomerID",
        "Country",
    ];
    const ONE_PER_ROW: &'static str = StockAdjusted::TYPE;

    fn options(&self) -> String {
        String::new()
    }

    fn look_ahead(&mut self, row: &Row<'_>) {
        let Ok(no) = row.bytes(0) else { return };
        match self.invoices.get_mut(no) {
            Some(invoice) => invoice.rows_to_come += 1,
            None => {
                let invoice = Invoice {
                    rows_to_come: 1,
                    open: None,
                };
                self.invoices.insert(no.into(), invoice);
            }
        }
    }

    fn events(
        &mut self,
        source: &Source,
        row: &Row<'_>,
        events: &mut Vec<Event>,
    ) -> Result<(), String> {
        // A row that has no invoice number was not counted, so it ends no invoice either.
        let no = row.bytes(0)?;
        let imported = read_sale(row).and_then(|sale| self.take(source, sale, events));
        // Refused or not, the row is no longer to come.
        let closed = self.row_has_come(no);
        if let Some(invoice) = closed {
            events.push(invoice.into_event(source)?);
        }
        imported
    }

    fn waiting(&self) -> usize {
        self.invoices.len()
    }
}

impl Retail {
    /// Takes a sale into its invoice and moves the stock: both or nothing.
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
            .ok_or("its invoice was not there in the first reading")?;

        let line_bytes = serde_json::to_vec(&line).map_err(|e| e.to_string())?.len() + 1;
        let (total, bytes) = match &invoice.open {
            Some(open) => (open.total, open.bytes),
            None => (Money::ZERO, HEAD_BYTES),
        };
        let total = total.plus(line.amount).map_err(|e| e.to_string())?;
        let bytes = bytes + line_bytes;
        if bytes > MAX_DATA_BYTES {
            return Err(format!("invoice {no} with this row would be above 1 MiB"));
        }

        let adjusted = adjustment(&no, line.quantity)?;
        let (subject, sequence) = self
            .stock
            .entry(line.sku.clone())
            .or_insert_with(|| (line.sku.subject(), Sequence::FIRST));
        let event =
            Event::of(source, subject, *sequence, at, &adjusted).map_err(|e| e.to_string())?;

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

    /// Counts a row of that invoice as come, and gives out the invoice if it was the last.
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
        // One event is all that an import ever tells about an invoice.
        let sequence = Sequence::FIRST;
        let event = if no.is_cancellation() {
            let fact = ReturnRecorded {
                recorded_at: at,
                customer,
                country,
                lines,
                total,
            };
            Event::of(source, &no.return_subject(), sequence, at, &fact)
        } else {
            let fact = OrderPlaced {
                placed_at: at,
                customer,
                country,
                lines,
                total,
            };
            Event::of(source, &no.order_subject(), sequence, at, &fact)
        };
        event.map_err(|e| e.to_string())
    }
}

/// How a row moves the stock.
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

fn read_sale(row: &Row<'_>) -> Result<Sale, String> {
    let column = |i: usize| Retail::COLUMNS[i];
    let optional = |i: usize| row.field(i).map(|text| (!text.is_empty()).then_some(text));
    let quantity = row.field(3)?;
    let line = Line::new(
        Sku::new(row.field(1)?).map_err(|e| e.to_string())?,
        optional(2)?.map(str::to_owned),
        quantity
            .parse()
            .map_err(|_| format!("Quantity {quantity:?} is not a whole number"))?,
        row.field(5)?
            .parse()
            .map_err(|e| format!("{}: {e}", column(5)))?,
    )
    .map_err(|e| e.to_string())?;
    line.check()?;
    let customer = optional(6)?
        .map(|text| CustomerId::new(text.strip_suffix(".0").unwrap_or(text)))
        .transpose()
        .map_err(|e| format!("{}: {e}", column(6)))?;
    Ok(Sale {
        no: InvoiceNo::new(row.field(0)?).map_err(|e| e.to_string())?,
        at: read_time(row.field(4)?)?,
        customer,
        country: Label::new(row.field(7)?).map_err(|e| format!("{}: {e}", column(7)))?,
        line,
    })
}

/// Reads `2010-12-01 08:26:00`, in UTC.
fn read_time(text: &str) -> Result<Timestamp, String> {
    let wrong = || format!("InvoiceDate {text:?} is not of the form 2010-12-01 08:26:00");
    if text.len() != "2010-12-01 08:26:00".len() {
        return Err(wrong());
    }
    let time: DateTime = text.parse().map_err(|_| wrong())?;
    Offset::UTC.to_timestamp(time).map_err(|_| wrong())
}

/// The number after this one. Files with 2^63 rows do not exist.
fn next(sequence: Sequence) -> Sequence {
    Sequence::new(sequence.get() + 1).unwrap_or(sequence)
}
