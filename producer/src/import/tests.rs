//! Tests of imports of small files with all the defects of real ones, from the file to the events, without a broker.

use std::{
    fs,
    io::Write as _,
    path::PathBuf,
    sync::atomic::{AtomicU32, Ordering},
    thread,
};

use doorstep_cli::{CliError, ExitReason};
use doorstep_contracts::registry;
use doorstep_event::json;
use flate2::{Compression, write::GzEncoder};
use jiff::tz::Offset;

use super::*;
use crate::chunk::LineEvent;

const RETAIL: &str = include_str!("fixtures/retail.csv");
const PICKUPS: &str = include_str!("fixtures/pickups.csv");
const RETAIL_HEADER: &str =
    "InvoiceNo,StockCode,Description,Quantity,InvoiceDate,UnitPrice,CustomerID,Country";

/// A folder that is removed after the test.
pub(super) struct Folder(PathBuf);

impl Folder {
    pub(super) fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!(
            "doorstep-import-{}-{}",
            std::process::id(),
            COUNT.fetch_add(1, Ordering::Relaxed)
        );
        let path = std::env::temp_dir().join(name);
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    pub(super) fn path(&self) -> &Path {
        &self.0
    }

    pub(super) fn write(&self, name: &str, content: &[u8]) -> PathBuf {
        let path = self.0.join(name);
        fs::write(&path, content).unwrap();
        path
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// The result of an import.
#[derive(Debug, PartialEq, Eq)]
struct Made {
    rows: u64,
    kept: u64,
    events: Vec<String>,
    rejected: String,
}

impl Made {
    /// Returns the list of rejected rows, line by line.
    fn rejections(&self) -> Vec<(u64, String)> {
        let row = |line: &str| {
            let row: serde_json::Value = serde_json::from_str(line).unwrap();
            let reason = row["reason"].as_str().unwrap().to_owned();
            (row["line"].as_u64().unwrap(), reason)
        };
        self.rejected.lines().map(row).collect()
    }
}

/// An import of a file, with a history if a folder is given.
struct TestImport<'a> {
    name: &'a str,
    content: &'a [u8],
    layout: Layout,
    dataset: Option<&'a str>,
    history: Option<&'a Folder>,
    max_refused_percent: f64,
}

impl<'a> TestImport<'a> {
    fn new(name: &'a str, content: &'a [u8]) -> Self {
        Self {
            name,
            content,
            layout: Layout::default(),
            dataset: None,
            history: None,
            max_refused_percent: 99.0,
        }
    }

    fn run<M: RowMapper>(self, mapping: M) -> Result<Made, CliError> {
        let folder = Folder::new();
        let input = Input::open(&folder.write(self.name, self.content))?;
        let layout = self.layout;
        let mut history = self
            .history
            .map(|folder| History::open::<M>(&folder.0, self.dataset))
            .transpose()?;
        let terms = Terms {
            dataset: self.dataset,
            max_refused_percent: self.max_refused_percent,
        };
        let first_pass = first_pass(&mapping, &input, &layout, history.as_mut(), &terms)?;
        let rows = first_pass.rows;
        let rejected = RejectFile::new(folder.0.join("refused.jsonl"));
        let (chunks, mut receiver) = BatchSender::channel();
        let reading =
            thread::spawn(move || second_pass(&input, &layout, first_pass, rejected, chunks));
        let mut events = Vec::new();
        while let Some(chunk) = receiver.blocking_recv() {
            for LineEvent { event, .. } in &chunk.events {
                registry::check(event).unwrap();
                events.push(json::write(event).unwrap());
            }
        }
        let (rejected, kept) = reading.join().unwrap()?;
        let rejected = match rejected.finish()? {
            Some(path) => fs::read_to_string(path).unwrap(),
            None => String::new(),
        };
        Ok(Made {
            rows,
            kept,
            events,
            rejected,
        })
    }
}

fn import_as<M: RowMapper>(
    mapping: M,
    name: &str,
    content: &[u8],
    dataset: Option<&str>,
) -> Result<Made, CliError> {
    let job = TestImport {
        dataset,
        ..TestImport::new(name, content)
    };
    job.run(mapping)
}

#[track_caller]
fn import_retail(content: &str) -> Made {
    import_as(Retail::default(), "x.csv", content.as_bytes(), Some("test")).unwrap()
}

fn pickups_of(year: i16) -> Pickups {
    Pickups::new(Calendar {
        year,
        offset: Offset::constant(8),
    })
}

#[track_caller]
fn rejection<M: RowMapper>(mapping: M, name: &str, content: &[u8]) -> String {
    let failure = import_as(mapping, name, content, None).unwrap_err();
    assert_eq!(failure.reason, ExitReason::Data, "{failure}");
    failure.to_string()
}

fn gzip(content: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(content).unwrap();
    encoder.finish().unwrap()
}

#[test]
fn sales_become_these_events() {
    let made = import_as(Retail::default(), "x.csv", RETAIL.as_bytes(), None).unwrap();
    let golden = include_str!("fixtures/retail-events.jsonl");
    assert_eq!(made.events, golden.lines().collect::<Vec<_>>());
    assert_eq!(made.rejected, include_str!("fixtures/retail-refused.jsonl"));
    let adjustments = made.events.iter().filter(|e| e.contains(Retail::ROW_EVENT));
    let rejected = made.rejections().len();
    assert_eq!(made.rows as usize, adjustments.count() + rejected);
}

#[test]
fn pickups_become_these_events() {
    let made = import_as(pickups_of(2022), "x.csv", PICKUPS.as_bytes(), None).unwrap();
    let golden = include_str!("fixtures/pickups-events.jsonl");
    assert_eq!(made.events, golden.lines().collect::<Vec<_>>());
    assert_eq!(
        made.rejected,
        include_str!("fixtures/pickups-refused.jsonl")
    );
    assert_eq!(made.rows, 10);
}

#[test]
fn a_file_imported_twice_makes_the_same_events() {
    let import = || import_as(Retail::default(), "x.csv", RETAIL.as_bytes(), None).unwrap();
    assert_eq!(import(), import());
}

#[test]
fn compression_newlines_and_bom_change_no_event() {
    let plain = import_retail(RETAIL);
    let (first, rest) = RETAIL.split_at(RETAIL.len() / 2);
    let members = [gzip(first.as_bytes()), gzip(rest.as_bytes())].concat();
    for (name, packed) in [("x.csv.gz", &members), ("x.csv", &members)] {
        let made = import_as(Retail::default(), name, packed, Some("test")).unwrap();
        assert_eq!(made, plain);
    }
    assert_eq!(import_retail(&format!("\u{feff}{RETAIL}")), plain);
    assert_eq!(import_retail(RETAIL.trim_end()), plain);

    // Within a quoted field a line end is part of the text.
    let crlf = import_retail(&RETAIL.replace('\n', "\r\n"));
    let text: String = crlf
        .events
        .join("\n")
        .replace(r"SPAN\r\nNING", r"SPAN\nNING");
    assert_eq!(text, plain.events.join("\n"));
    assert_eq!(crlf.rejections(), plain.rejections());
}

/// Returns the sources of events, each once.
fn sources(made: &Made) -> Vec<String> {
    let source = |event: &String| -> String {
        let event: serde_json::Value = serde_json::from_str(event).unwrap();
        event["source"].as_str().unwrap().to_owned()
    };
    let mut sources: Vec<_> = made.events.iter().map(source).collect();
    sources.sort();
    sources.dedup();
    sources
}

#[test]
fn source_depends_on_rows_not_bytes() {
    let retail = |name, content: &[u8]| {
        let made = import_as(Retail::default(), name, content, None).unwrap();
        sources(&made)
    };
    let plain = retail("x.csv", RETAIL.as_bytes());
    assert!(
        plain[0].starts_with("import/retail/") && plain[0].len() == "import/retail/".len() + 64
    );
    assert_eq!(plain.len(), 1);
    assert_eq!(plain, retail("y.csv.gz", &gzip(RETAIL.as_bytes())));
    let crlf = format!("\u{feff}{}", RETAIL.replace('\n', "\r\n"));
    assert_eq!(plain, retail("x.csv", crlf.as_bytes()));
    assert_ne!(
        plain,
        retail("x.csv", RETAIL.replace("2.55", "2.56").as_bytes())
    );
    assert_eq!(
        sources(&import_retail(RETAIL)),
        ["import/retail/dataset/test"]
    );

    let pickups = |year| {
        let made = import_as(pickups_of(year), "x.csv", PICKUPS.as_bytes(), None).unwrap();
        sources(&made)
    };
    assert_ne!(pickups(2022), pickups(2023));
}

/// Returns the rows of a day: invoices from `first` on, each with two rows.
fn day(first: u32, invoices: u32) -> String {
    (first..first + invoices)
        .flat_map(|no| {
            (1..=2).map(move |code| format!("{no},{code},,{no},2010-12-01 08:26:00,1.00,,UK\n"))
        })
        .collect()
}

fn remembered(history: &Folder, content: &str) -> Result<Made, CliError> {
    let job = TestImport {
        history: Some(history),
        ..TestImport::new("x.csv", content.as_bytes())
    };
    job.run(Retail::default())
}

/// Returns every event by source and id, which identify it for a consumer.
fn applied<'a>(
    made: impl IntoIterator<Item = &'a Made>,
) -> std::collections::BTreeMap<String, i64> {
    let mut seen = std::collections::BTreeSet::new();
    let mut stock = std::collections::BTreeMap::new();
    for event in made.into_iter().flat_map(|made| &made.events) {
        let event: serde_json::Value = serde_json::from_str(event).unwrap();
        let is_new = seen.insert(format!("{} {}", event["source"], event["id"]));
        if is_new && event["type"] == Retail::ROW_EVENT {
            let subject = event["subject"].as_str().unwrap().to_owned();
            *stock.entry(subject).or_default() += event["data"]["delta"].as_i64().unwrap();
        }
    }
    stock
}

#[test]
fn grown_file_adds_only_new_rows() {
    let one = format!("{RETAIL_HEADER}\n{}", day(1, 3));
    let two = format!("{one}{}", day(4, 2));
    let union = applied([&import_retail(&two)]);
    let history = Folder::new();
    let first = remembered(&history, &one).unwrap();
    let grown = remembered(&history, &two).unwrap();
    let crlf = remembered(&history, &format!("\u{feff}{}", two.replace('\n', "\r\n"))).unwrap();
    assert_eq!(applied([&first, &grown, &crlf]), union);
    assert_eq!(sources(&grown).len(), 2);
    assert_eq!(sources(&grown), sources(&crlf));
    assert_eq!((grown.kept, crlf.kept), (0, 0));

    // Before: the second day alone, and rows of two days in another order.
    let history = Folder::new();
    let second = format!("{RETAIL_HEADER}\n{}", day(4, 2));
    let turned = format!("{RETAIL_HEADER}\n{}{}", day(5, 1), day(1, 4));
    let made = [&second, &two, &turned].map(|file| remembered(&history, file).unwrap());
    assert_eq!(applied(&made), union);
    assert_eq!(
        made[2].kept, 4,
        "those of the second day, which are in another order"
    );
}

#[test]
fn killed_import_resumes_after_file_grew() {
    let one = format!("{RETAIL_HEADER}\n{}", day(1, 3));
    let two = format!("{one}{}", day(4, 2));
    let history = Folder::new();
    // It was begun, and none or some of its events were published.
    let begun = remembered(&history, &one).unwrap();
    let mut cut = begun.events.clone();
    cut.truncate(2);
    let some = Made {
        events: cut,
        ..begun
    };
    let grown = remembered(&history, &two).unwrap();
    assert_eq!(applied([&some, &grown]), applied([&import_retail(&two)]));
}

#[test]
fn contradicting_file_is_rejected_with_row() {
    let one = format!("{RETAIL_HEADER}\n{}", day(1, 3));
    let history = Folder::new();
    remembered(&history, &one).unwrap();
    let rejected = |content: &str| {
        let failure = remembered(&history, content).unwrap_err();
        assert_eq!(failure.reason, ExitReason::Data);
        failure.to_string()
    };
    // The price of the second row of invoice 2, on line 5.
    let changed = one.replace(
        "2,2,,2,2010-12-01 08:26:00,1.00",
        "2,2,,2,2010-12-01 08:26:00,1.01",
    );
    assert!(
        rejected(&changed).contains("line 5 differs"),
        "{}",
        rejected(&changed)
    );
    let longer = format!("{one}3,9,,1,2010-12-01 08:26:00,1.00,,UK\n");
    assert!(
        rejected(&longer).contains("line 8 differs"),
        "{}",
        rejected(&longer)
    );
    let shorter = one.replace("3,2,,3,2010-12-01 08:26:00,1.00,,UK\n", "");
    assert!(
        rejected(&shorter).contains("invoice 3 has 1 rows, and had 2"),
        "{}",
        rejected(&shorter)
    );
}

#[test]
fn a_data_set_grows_at_its_end_alone() {
    let history = Folder::new();
    let import = |content: &str| {
        let job = TestImport {
            history: Some(&history),
            dataset: Some("shop"),
            ..TestImport::new("x.csv", content.as_bytes())
        };
        job.run(Retail::default())
    };
    let one = format!("{RETAIL_HEADER}\n{}", day(2, 2));
    let two = format!("{one}{}", day(4, 1));
    let made = [&one, &two, &two].map(|file| import(file).unwrap());
    assert_eq!(applied(&made), applied([&import_retail(&two)]));
    assert_eq!(sources(&made[2]), ["import/retail/dataset/shop"]);
    let before = format!("{RETAIL_HEADER}\n{}{}", day(1, 1), day(2, 3));
    let said = import(&before).unwrap_err().to_string();
    assert!(
        said.contains("line 4") && said.contains("grow at its end"),
        "{said}"
    );
    let less = format!("{RETAIL_HEADER}\n{}", day(2, 2));
    let said = import(&less).unwrap_err().to_string();
    assert!(said.contains("not in it any more"), "{said}");
}

#[test]
fn import_ends_after_events_were_confirmed() {
    let folder = Folder::new();
    let source = doorstep_event::Source::new("import/retail/1").unwrap();
    let units = [(b"1".as_slice().into(), vec![7])].into();
    let open = || History::open::<Retail>(&folder.0, None).unwrap();
    let is_done =
        |history: &History| -> Vec<bool> { history.runs.iter().map(|run| run.is_done).collect() };
    let mut history = open();
    history.begin(&source, "x.csv".as_ref(), &units).unwrap();
    // The process that has begun it must find it, or it would never be done.
    assert_eq!(is_done(&history), [false]);
    drop(history);
    let mut history = open();
    assert_eq!(is_done(&history), [false]);
    history.done(&source).unwrap();
    assert_eq!(is_done(&history), [true]);
    drop(history);
    let path = folder.0.join("imports.retail.jsonl");
    let written = fs::read(&path).unwrap();
    let mut history = open();
    assert_eq!(is_done(&history), [true]);
    history.done(&source).unwrap();
    assert_eq!(fs::read(&path).unwrap(), written, "done twice");
}

#[test]
fn history_tolerates_only_a_truncated_line() {
    let one = format!("{RETAIL_HEADER}\n{}", day(1, 3));
    let history = Folder::new();
    remembered(&history, &one).unwrap();
    let path = history.0.join("imports.retail.jsonl");
    let whole = fs::read(&path).unwrap();
    fs::write(&path, [&whole[..], b"{\"begun\":{\"at\""].concat()).unwrap();
    remembered(&history, &one).unwrap();
    assert_eq!(fs::read(&path).unwrap(), whole, "nothing is recorded twice");
    fs::write(&path, [b"?\n", &whole[..]].concat()).unwrap();
    let failure = remembered(&history, &one).unwrap_err();
    assert_eq!(failure.reason, ExitReason::Io);
    assert!(failure.to_string().contains("line 1 of"), "{failure}");

    let held = History::open::<Retail>(&history.0, Some("other")).unwrap();
    let failure = History::open::<Retail>(&history.0, Some("other"))
        .map(drop)
        .unwrap_err();
    assert_eq!(failure.reason, ExitReason::Busy, "{failure}");
    drop(held);
}

#[test]
fn another_shops_export_needs_only_options() {
    let content = "Datum;Stück;Artikel;Bestellung;Kasse;Einzelpreis\n\
        12/1/2010 8:26;1.000;85123A;536365;1;2,55\n\
        12/1/2010 8:28 PM;-1,0;71053;C536366;2;1.003,39\n";
    let columns = [
        (0, "Bestellung"),
        (1, "Artikel"),
        (3, "Stück"),
        (4, "Datum"),
        (5, "Einzelpreis"),
    ];
    let layout = Layout {
        delimiter: None,
        names: columns
            .map(|(column, name)| (column, name.to_owned()))
            .into(),
    };
    let mapping = |decimal, dates| {
        Retail::new(Reading {
            format: Format { decimal, dates },
            country: Some(doorstep_contracts::Label::new("Italien").unwrap()),
        })
    };
    let job = || TestImport {
        layout: layout.clone(),
        ..TestImport::new("x.csv", content.as_bytes())
    };
    let failure = job()
        .run(mapping(Decimal::Comma, Dates::MonthFirst))
        .map(drop);
    assert!(failure.is_ok());
    let made = job()
        .run(mapping(Decimal::Comma, Dates::MonthFirst))
        .unwrap();
    // 1.000 may be a thousand or one: only a number with both separators is unambiguous.
    assert_eq!(made.rejections().len(), 1, "{:?}", made.rejections());
    assert!(made.rejections()[0].1.contains("--decimal point"));
    let text = made.events.join("\n");
    assert!(text.contains(r#""total":"-1003.39""#), "{text}");
    assert!(
        text.contains("2010-12-01T20:28:00Z") && text.contains("Italien"),
        "{text}"
    );

    let said = job()
        .run(mapping(Decimal::Comma, Dates::Unknown))
        .unwrap_err()
        .to_string();
    assert!(
        said.contains("2 of 2 rows would be refused, so nothing was sent"),
        "{said}"
    );
    let missing = rejection(Retail::default(), "x.csv", content.as_bytes());
    assert!(missing.contains("--columns invoice=NAME"), "{missing}");
}

#[test]
fn file_with_too_many_rejects_is_not_started() {
    let row = |price: &str| format!("1,A,,1,2010-12-01 08:26:00,{price},,UK\n");
    let content = [
        &format!("{RETAIL_HEADER}\n"),
        &row("1.00"),
        &row("x1"),
        &row("x2"),
    ]
    .map(String::as_str)
    .concat();
    let import = |max_refused_percent| {
        let job = TestImport {
            max_refused_percent,
            ..TestImport::new("x.csv", content.as_bytes())
        };
        job.run(Retail::default())
    };
    let said = import(50.0).unwrap_err().to_string();
    assert!(
        said.contains("2 of 3 rows")
            && said.contains("of 2 rows from line 3 on: UnitPrice: \"x1\""),
        "{said}"
    );
    assert_eq!(import(67.0).unwrap().rejections().len(), 2);
}

#[test]
fn lines_are_counted_as_an_editor_counts_them() {
    let content = format!(
        "{RETAIL_HEADER}\n\n1,A,\"two\nlines\",bad,2010-12-01 08:26:00,1.00,,UK\n\n\n2,A,,bad,2010-12-01 08:26:00,1.00,,UK\n3,A,,1,2010-12-01 08:26:00,1.00,,UK\n"
    );
    let lines = |content: &str| -> Vec<u64> {
        import_retail(content)
            .rejections()
            .iter()
            .map(|r| r.0)
            .collect()
    };
    assert_eq!(lines(&content), [3, 7]);
    assert_eq!(lines(&content.replace('\n', "\r\n")), [3, 7]);
}

#[test]
fn scattered_invoice_is_sent_after_last_row() {
    let row = |no: u32, code: u32| format!("{no},{code},,1,2010-12-01 08:26:00,1.00,,UK\n");
    let mut content = format!("{RETAIL_HEADER}\n{}", row(1, 1));
    // More rows than a batch has events.
    for no in 2..2000 {
        content += &row(no, no % 7);
    }
    content += &row(1, 2);
    let made = import_retail(&content);
    let first = made
        .events
        .iter()
        .position(|e| e.contains(r#""subject":"order/1","#))
        .unwrap();
    assert_eq!(first, made.events.len() - 1);
    assert!(
        made.events[first].contains(r#""total":"2.00""#),
        "{}",
        made.events[first]
    );
    assert_eq!(made.events.len(), 2000 + 1999);
}

#[test]
fn undecodable_row_is_rejected_alone() {
    let mut content = RETAIL_HEADER.as_bytes().to_vec();
    content.extend(
        b"\n1,A,caf\xe9,1,2010-12-01 08:26:00,1.00,,UK\n1,B,,2,2010-12-01 08:26:00,1.00,,UK\n",
    );
    let made = import_as(Retail::default(), "x.csv", &content, Some("test")).unwrap();
    assert_eq!(
        made.rejections(),
        [(2, "Description is not UTF-8".to_owned())]
    );
    assert_eq!(made.events.len(), 2);
}

#[test]
fn inexact_amounts_are_rejected() {
    let row =
        |quantity: &str, price: &str| format!("1,A,,{quantity},2010-12-01 08:26:00,{price},,UK\n");
    let content = [
        format!("{RETAIL_HEADER}\n"),
        row("1", "999999999999999.99"),
        row("1", "0.01"),
        row("9223372036854775807", "1000.00"),
        row("-9223372036854775808", "0.00"),
        "C1,A,,-9223372036854775808,2010-12-01 08:26:00,0.00,,UK\n".to_owned(),
        row("9223372036854775808", "0.00"),
        row("1", "0.0000000001"),
    ]
    .concat();
    let made = import_retail(&content);
    let lines: Vec<u64> = made.rejections().iter().map(|r| r.0).collect();
    assert_eq!(lines, [3, 4, 6, 7, 8], "{:?}", made.rejections());
}

#[test]
fn oversized_invoice_rejects_rows_that_do_not_fit() {
    let description = "x".repeat(100_000);
    let mut content = format!("{RETAIL_HEADER}\n");
    for _ in 0..12 {
        content += &format!("1,A,{description},1,2010-12-01 08:26:00,1.00,,UK\n");
    }
    let made = import_retail(&content);
    let rejections = made.rejections();
    let lines: Vec<u64> = rejections.iter().map(|r| r.0).collect();
    assert_eq!(lines, [12, 13]);
    assert!(
        rejections[0].1.contains("above 1 MiB"),
        "{}",
        rejections[0].1
    );
    assert_eq!(made.events.len(), 10 + 1);
}

#[test]
fn oversized_row_is_rejected_alone() {
    let content = format!(
        "{RETAIL_HEADER}\n1,A,\"{}\",1,2010-12-01 08:26:00,1.00,,UK\n1,B,,2,2010-12-01 08:26:00,1.00,,UK\n",
        "long \n".repeat(400_000)
    );
    let made = import_retail(&content);
    let rejections = made.rejections();
    assert_eq!(rejections.len(), 1);
    assert_eq!(rejections[0].0, 2);
    assert!(
        rejections[0].1.contains("above 1 MiB"),
        "{}",
        rejections[0].1
    );
    assert_eq!(made.events.len(), 2);
}

#[test]
fn wrong_file_is_rejected_before_sending() {
    let retail = |name, content: &[u8]| rejection(Retail::default(), name, content);
    assert!(retail("x.csv", b"").contains("x.csv is empty"));
    assert!(
        retail("x.csv", PICKUPS.as_bytes()).contains("has other columns: InvoiceNo, StockCode")
    );
    assert!(retail("x.csv", b"\x89PNG\r\n\x1a\n\0\0").contains("has other columns"));
    assert!(retail("x.csv.gz", RETAIL.as_bytes()).contains("is not gzip"));
    assert!(retail("x.csv", b"PK\x03\x04").contains("x.csv is a zip archive"));
    let said = rejection(pickups_of(2022), "x.csv", RETAIL.as_bytes());
    assert!(
        said.contains("other columns: order_id, region_id"),
        "{said}"
    );
}

#[test]
fn truncated_file_is_reported_at_any_point() {
    let retail = |name, content: &[u8]| rejection(Retail::default(), name, content);
    let packed = gzip(RETAIL.as_bytes());
    for end in [packed.len() - 1, packed.len() - 8, packed.len() / 2, 3] {
        let said = retail("x.csv.gz", &packed[..end]);
        assert!(said.contains("truncated"), "{end}: {said}");
    }
    let mut damaged = packed.clone();
    let middle = damaged.len() - 6;
    damaged[middle] ^= 0xff;
    assert!(retail("x.csv.gz", &damaged).contains("damaged"));
    let with_rubbish = [packed, b"more rubbish".to_vec()].concat();
    assert!(retail("x.csv.gz", &with_rubbish).contains("damaged"));

    let cut = &RETAIL[..RETAIL.len() - "00,,France\n".len()];
    assert!(retail("x.csv", cut.as_bytes()).contains("row that begins on line 21"));
    let open_quote =
        format!("{RETAIL_HEADER}\n1,A,\"never closed\n1,B,,2,2010-12-01 08:26:00,1.00,,UK\n");
    assert!(retail("x.csv", open_quote.as_bytes()).contains("row that begins on line 2"));
}

#[test]
fn file_changed_between_passes_is_detected() {
    let folder = Folder::new();
    let path = folder.write("x.csv", RETAIL.as_bytes());
    let input = Input::open(&path).unwrap();
    let terms = Terms {
        dataset: None,
        max_refused_percent: 99.0,
    };
    let layout = Layout::default();
    let first_pass = first_pass(&Retail::default(), &input, &layout, None, &terms).unwrap();
    fs::write(&path, RETAIL.replace("2.55", "2.56")).unwrap();
    let rejected = RejectFile::new(folder.0.join("refused.jsonl"));
    let (chunks, receiver) = BatchSender::channel();
    let failure = second_pass(&input, &layout, first_pass, rejected, chunks)
        .map(drop)
        .unwrap_err();
    assert!(
        failure.to_string().contains("changed while it was read"),
        "{failure}"
    );
    drop(receiver);
    assert!(!folder.0.join("refused.jsonl").exists());
    assert!(!folder.0.join("refused.jsonl.partial").exists());
}

#[test]
fn missing_file_folder_and_old_list_are_handled() {
    let folder = Folder::new();
    for path in [folder.0.join("none.csv"), folder.0.clone()] {
        let failure = Input::open(&path).map(drop).unwrap_err();
        assert_eq!(failure.reason, ExitReason::Missing, "{failure}");
        assert!(failure.to_string().contains(&path.display().to_string()));
    }
    // A run without rejected rows leaves no list of an earlier run.
    let list = folder.write("refused.jsonl", b"old");
    assert_eq!(RejectFile::new(list.clone()).finish().unwrap(), None);
    assert!(!list.exists());
}

#[cfg(unix)]
#[test]
fn a_list_takes_the_place_of_no_device() {
    let folder = Folder::new();
    let device = folder.0.join("device");
    let _socket = std::os::unix::net::UnixListener::bind(&device).unwrap();
    let failure = RejectFile::new(device.clone()).finish().unwrap_err();
    assert!(failure.to_string().contains("regular file"), "{failure}");
    assert!(device.exists());
}
