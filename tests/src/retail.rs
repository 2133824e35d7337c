//! Sales in the form of the real file, generated from a seed with all the defects of the real ones. The expected
//! results are computed from the generated rows, independently of the product's code.

use std::{
    collections::{BTreeMap, HashSet},
    fmt::Write as _,
    fs::File,
    io::Write as _,
    path::Path,
};

use flate2::{Compression, write::GzEncoder};
use rand::{RngExt, SeedableRng, rngs::StdRng, seq::IndexedRandom};
use serde_json::Value;

/// Sales, row by row.
#[derive(Debug)]
pub struct Sales(Vec<Row>);

/// A row. Prices are in thousandths, the precision of real ones.
#[derive(Debug, Clone)]
struct Row {
    invoice: String,
    code: String,
    description: &'static str,
    quantity: i64,
    at: String,
    price: i64,
    customer: Option<u32>,
    country: &'static str,
}

/// The expected stock of one stock code.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Stock {
    pub on_hand: i64,
    /// The number of rows that changed it.
    pub movements: i64,
    /// Pieces sold, returned, and written off.
    pub pieces: [i64; 3],
}

/// The expected state of an invoice.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Invoice {
    pub line_count: i64,
    /// Its total in the exported form.
    pub total: String,
    /// The time of its first row.
    pub at: String,
    /// Its customer, empty if unknown.
    pub customer: String,
    pub country: String,
}

const COUNTRIES: [&str; 4] = ["United Kingdom", "France", "EIRE", "Channel Islands"];
/// Texts that are difficult for CSV readers.
const DESCRIPTIONS: [&str; 8] = [
    "WHITE HANGING HEART T-LIGHT HOLDER",
    "LANTERN, \"CREAM\"",
    "",
    "CAFÉ CUP AND SAUCER",
    "SPANNING\nTWO LINES",
    " wrongly marked. 23343 in box",
    "?",
    "CREAM SWEETHEART MINI CHEST",
];
/// Codes of every form; some differ only in case.
const ODD_CODES: [&str; 8] = [
    "POST",
    "D",
    "85123A",
    "85123a",
    "DOT",
    "gift_0001_20",
    "84029E",
    "84029e",
];
/// The last two rows, whose price is negative.
const REFUSED_ROWS: usize = 2;

impl Sales {
    /// Generates about this many rows from this seed.
    #[must_use]
    pub fn generate(seed: u64, about: usize) -> Self {
        let mut dice = StdRng::seed_from_u64(seed);
        let mut rows: Vec<Row> = Vec::new();
        let mut number = 536_365;
        let mut minute = 0;
        while rows.len() < about {
            number += 1;
            minute += dice.random_range(0..30);
            let cancelled = dice.random_bool(0.15);
            let written_off = !cancelled && dice.random_bool(0.05);
            let first = Row {
                invoice: format!("{}{number}", if cancelled { "C" } else { "" }),
                code: String::new(),
                description: "",
                quantity: 0,
                at: time(minute),
                price: 0,
                customer: dice
                    .random_bool(0.75)
                    .then(|| dice.random_range(12_346..18_287)),
                country: COUNTRIES.choose(&mut dice).unwrap(),
            };
            for _ in 0..dice.random_range(1..40) {
                let mut row = first.clone();
                row.code = code(&mut dice);
                row.description = DESCRIPTIONS.choose(&mut dice).unwrap();
                row.quantity = dice.random_range(1..200);
                if cancelled || written_off {
                    row.quantity = -row.quantity;
                }
                row.price = price(&mut dice, written_off);
                // Some invoices have two different times.
                if number % 50 == 0 {
                    row.at = time(minute + dice.random_range(0..2));
                }
                rows.push(row);
                // Exact duplicates are real rows.
                if dice.random_bool(0.01) {
                    rows.push(rows[rows.len() - 1].clone());
                }
            }
        }
        // One invoice with rows that are not contiguous; the first one determines its time.
        let late = rows.remove(1);
        rows.insert(rows.len() / 2, late);
        // One invoice with a rejected row, and one whose only row is rejected.
        let mut rejected = rows[rows.len() - 1].clone();
        rejected.price = -11_062_060;
        rows.push(rejected.clone());
        rejected.invoice = "A563186".to_owned();
        rows.push(rejected);
        Self(rows)
    }

    /// Returns the number of rows.
    #[must_use]
    pub fn rows(&self) -> usize {
        self.0.len()
    }

    /// Returns the number of rows that violate a rule.
    #[must_use]
    pub fn rejected(&self) -> usize {
        REFUSED_ROWS
    }

    /// Writes the rows as gzipped CSV.
    ///
    /// # Panics
    /// If the file cannot be written.
    pub fn write(&self, path: &Path) {
        let mut csv =
            "InvoiceNo,StockCode,Description,Quantity,InvoiceDate,UnitPrice,CustomerID,Country\n"
                .to_owned();
        for row in &self.0 {
            let customer = row.customer.map_or(String::new(), |id| format!("{id}.0"));
            let fields = [
                row.invoice.as_str(),
                &row.code,
                row.description,
                &row.quantity.to_string(),
                &row.at,
                &decimal(row.price, 1),
                &customer,
                row.country,
            ];
            let fields: Vec<_> = fields.into_iter().map(quoted).collect();
            writeln!(csv, "{}", fields.join(",")).unwrap();
        }
        let mut file = GzEncoder::new(File::create(path).unwrap(), Compression::fast());
        file.write_all(csv.as_bytes()).unwrap();
        file.finish().unwrap().sync_all().unwrap();
    }

    /// Returns the expected state of every stock code, by key.
    #[must_use]
    pub fn stock(&self) -> BTreeMap<String, Stock> {
        let mut all: BTreeMap<String, Stock> = BTreeMap::new();
        for row in self.good() {
            let stock = all.entry(format!("stock/{}", row.code)).or_default();
            stock.movements += 1;
            match (row.invoice.starts_with('C'), row.quantity) {
                (true, quantity) => {
                    stock.on_hand -= quantity;
                    stock.pieces[1] -= quantity;
                }
                (false, quantity @ ..0) => {
                    stock.on_hand += quantity;
                    stock.pieces[2] -= quantity;
                }
                (false, quantity) => {
                    stock.on_hand -= quantity;
                    stock.pieces[0] += quantity;
                }
            }
        }
        all
    }

    /// Returns the expected state of every invoice, by key.
    #[must_use]
    pub fn invoices(&self) -> BTreeMap<String, Invoice> {
        let mut all: BTreeMap<String, (Invoice, i64)> = BTreeMap::new();
        for row in self.good() {
            let kind = if row.invoice.starts_with('C') {
                "return"
            } else {
                "order"
            };
            let (invoice, total) =
                all.entry(format!("{kind}/{}", row.invoice))
                    .or_insert_with(|| {
                        let invoice = Invoice {
                            line_count: 0,
                            total: String::new(),
                            at: row.at.replace(' ', "T") + "Z",
                            customer: row.customer.map_or(String::new(), |id| id.to_string()),
                            country: row.country.to_owned(),
                        };
                        (invoice, 0)
                    });
            invoice.line_count += 1;
            *total += row.quantity * row.price;
            invoice.total = decimal(*total, 2);
        }
        all.into_iter()
            .map(|(key, (invoice, _))| (key, invoice))
            .collect()
    }

    fn good(&self) -> impl Iterator<Item = &Row> {
        self.0.iter().filter(|row| row.price >= 0)
    }
}

impl Stock {
    /// Parses an export of the role `inventory`.
    ///
    /// # Panics
    /// If a line has another form, or a key occurs twice.
    #[must_use]
    pub fn read_all(export: &str) -> BTreeMap<String, Self> {
        read_lines(export, |state| Self {
            on_hand: number(&state["on_hand"]),
            movements: number(&state["movements"]),
            pieces: ["sold", "returned", "written_off"].map(|name| number(&state[name])),
        })
    }
}

impl Invoice {
    /// Parses an export of the role `orders`.
    ///
    /// # Panics
    /// If a line has another form, or a key occurs twice.
    #[must_use]
    pub fn read_all(export: &str) -> BTreeMap<String, Self> {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        read_lines(export, |state| Self {
            line_count: number(&state["line_count"]),
            total: text(&state["total"]),
            at: text(&state["placed_at"]) + &text(&state["recorded_at"]),
            customer: text(&state["customer"]),
            country: text(&state["country"]),
        })
    }
}

fn read_lines<T>(export: &str, read: impl Fn(&Value) -> T) -> BTreeMap<String, T> {
    let mut keys = HashSet::new();
    let all = export.lines().map(|line| {
        let json: Value = serde_json::from_str(line).unwrap();
        let key = json["key"].as_str().unwrap().to_owned();
        assert!(keys.insert(key.clone()), "{key} occurs twice");
        (key, read(&json["state"]))
    });
    all.collect()
}

fn number(value: &Value) -> i64 {
    value
        .as_i64()
        .unwrap_or_else(|| panic!("{value} is not a number"))
}

fn time(minute: u32) -> String {
    let (day, hour, minute) = (minute / 1_440, minute / 60 % 24, minute % 60);
    format!(
        "20{}-{:02}-{:02} {hour:02}:{minute:02}:00",
        10 + day / 336,
        1 + day / 28 % 12,
        1 + day % 28
    )
}

fn code(dice: &mut StdRng) -> String {
    if dice.random_bool(0.1) {
        return (*ODD_CODES.choose(dice).unwrap()).to_owned();
    }
    // Some codes are in every other invoice, most are rare.
    let rank = dice.random_range(1.0_f64..300.0).powf(0.7);
    format!("2{:04}", rank as u32)
}

fn price(dice: &mut StdRng, written_off: bool) -> i64 {
    match dice.random_range(0..100) {
        _ if written_off => 0,
        0 => 0,
        1..3 => dice.random_range(1..10),
        _ => dice.random_range(1..2_000) * 10,
    }
}

/// Formats an amount in thousandths with at least this many decimals and no further trailing zeros.
fn decimal(thousandths: i64, at_least: usize) -> String {
    let sign = if thousandths < 0 { "-" } else { "" };
    let size = thousandths.unsigned_abs();
    let mut decimals = format!("{:03}", size % 1_000);
    while decimals.len() > at_least && decimals.ends_with('0') {
        decimals.pop();
    }
    format!("{sign}{}.{decimals}", size / 1_000)
}

fn quoted(field: &str) -> String {
    if field.contains(['"', ',', '\n']) {
        format!("\"{}\"", field.replace('"', "\"\""))
    } else {
        field.to_owned()
    }
}
