//! Imports of small files with all the dirt of real ones, from the file to the events, without a broker.

use std::{
    fs,
    io::Write as _,
    path::PathBuf,
    sync::atomic::{AtomicU32, Ordering},
    thread,
};

use doorstep_contracts::registry;
use doorstep_event::json;
use doorstep_program::{Failure, Reason};
use flate2::{Compression, write::GzEncoder};
use jiff::tz::Offset;

use super::*;

const RETAIL: &str = include_str!("fixtures/retail.csv");
const PICKUPS: &str = include_str!("fixtures/pickups.csv");
const RETAIL_HEADER: &str =
    "InvoiceNo,StockCode,Description,Quantity,InvoiceDate,UnitPrice,CustomerID,Country";

/// A folder that is gone afterwards.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Self {
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

    fn write(&self, name: &str, content: &[u8]) -> PathBuf {
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

/// What an import made.
#[derive(Debug, PartialEq, Eq)]
struct Made {
    rows: u64,
    events: Vec<String>,
    refused: String,
}

impl Made {
    /// What the list of refused rows says, line by line.
    fn refusals(&self) -> Vec<(u64, String)> {
        let row = |line: &str| {
            let row: serde_json::Value = serde_json::from_str(line).unwrap();
            let reason = row["reason"].as_str().unwrap().to_owned();
            (row["line"].as_u64().unwrap(), reason)
        };
        self.refused.lines().map(row).collect()
    }
}

fn import_as<M: Mapping>(
    mut mapping: M,
    name: &str,
    content: &[u8],
    dataset: Option<&str>,
) -> Result<Made, Failure> {
    let folder = Folder::new();
    let input = Input::open(&folder.write(name, content))?;
    let survey = look_ahead(&mut mapping, &input)?;
    let rows = survey.rows;
    let source = source::of(&mapping, dataset, survey.fingerprint).unwrap();
    let refused = RefusedRows::new(folder.0.join("refused.jsonl"));
    let (chunks, mut receiver) = Chunks::channel();
    let reading =
        thread::spawn(move || make_events(mapping, &input, &survey, &source, refused, chunks));
    let mut events = Vec::new();
    while let Some(chunk) = receiver.blocking_recv() {
        for event in &chunk.events {
            registry::check(event).unwrap();
            events.push(json::write(event).unwrap());
        }
    }
    let refused = reading.join().unwrap()?;
    let refused = match refused.finish()? {
        Some(path) => fs::read_to_string(path).unwrap(),
        None => String::new(),
    };
    Ok(Made {
        rows,
        events,
        refused,
    })
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
fn refusal<M: Mapping>(mapping: M, name: &str, content: &[u8]) -> String {
    let failure = import_as(mapping, name, content, None).unwrap_err();
    assert_eq!(failure.reason, Reason::Data, "{failure}");
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
    assert_eq!(made.refused, include_str!("fixtures/retail-refused.jsonl"));
    let adjustments = made
        .events
        .iter()
        .filter(|e| e.contains(Retail::ONE_PER_ROW));
    let refused = made.refusals().len();
    assert_eq!(made.rows as usize, adjustments.count() + refused);
}

#[test]
fn pickups_become_these_events() {
    let made = import_as(pickups_of(2022), "x.csv", PICKUPS.as_bytes(), None).unwrap();
    let golden = include_str!("fixtures/pickups-events.jsonl");
    assert_eq!(made.events, golden.lines().collect::<Vec<_>>());
    assert_eq!(made.refused, include_str!("fixtures/pickups-refused.jsonl"));
    assert_eq!(made.rows, 10);
}

#[test]
fn a_file_imported_twice_makes_the_same_events() {
    let import = || import_as(Retail::default(), "x.csv", RETAIL.as_bytes(), None).unwrap();
    assert_eq!(import(), import());
}

#[test]
fn packing_line_ends_and_a_byte_order_mark_change_no_event() {
    let plain = import_retail(RETAIL);
    let (first, rest) = RETAIL.split_at(RETAIL.len() / 2);
    let members = [gzip(first.as_bytes()), gzip(rest.as_bytes())].concat();
    for (name, packed) in [("x.csv.gz", &members), ("x.csv", &members)] {
        let made = import_as(Retail::default(), name, packed, Some("test")).unwrap();
        assert_eq!(made, plain);
    }
    assert_eq!(import_retail(&format!("\u{feff}{RETAIL}")), plain);
    assert_eq!(import_retail(RETAIL.trim_end()), plain);

    // Inside of a quoted field a line end is part of the text.
    let crlf = import_retail(&RETAIL.replace('\n', "\r\n"));
    let text: String = crlf
        .events
        .join("\n")
        .replace(r"SPAN\r\nNING", r"SPAN\nNING");
    assert_eq!(text, plain.events.join("\n"));
    assert_eq!(crlf.refusals(), plain.refusals());
}

#[test]
fn the_source_follows_from_the_unpacked_content_and_the_options() {
    let source = |made: &Made| -> String {
        let event: serde_json::Value = serde_json::from_str(&made.events[0]).unwrap();
        event["source"].as_str().unwrap().to_owned()
    };
    let retail =
        |name, content: &[u8]| source(&import_as(Retail::default(), name, content, None).unwrap());
    let plain = retail("x.csv", RETAIL.as_bytes());
    assert!(plain.starts_with("import/retail/") && plain.len() == "import/retail/".len() + 64);
    assert_eq!(plain, retail("y.csv.gz", &gzip(RETAIL.as_bytes())));
    assert_ne!(
        plain,
        retail("x.csv", RETAIL.replace("2.55", "2.56").as_bytes())
    );
    assert_eq!(source(&import_retail(RETAIL)), "import/retail/dataset/test");

    let pickups =
        |year| source(&import_as(pickups_of(year), "x.csv", PICKUPS.as_bytes(), None).unwrap());
    assert_ne!(pickups(2022), pickups(2023));
}

#[test]
fn lines_are_counted_as_an_editor_counts_them() {
    let content = format!(
        "{RETAIL_HEADER}\n\n1,A,\"two\nlines\",bad,2010-12-01 08:26:00,1.00,,UK\n\n\n2,A,,bad,2010-12-01 08:26:00,1.00,,UK\n"
    );
    let lines = |content: &str| -> Vec<u64> {
        import_retail(content)
            .refusals()
            .iter()
            .map(|r| r.0)
            .collect()
    };
    assert_eq!(lines(&content), [3, 7]);
    assert_eq!(lines(&content.replace('\n', "\r\n")), [3, 7]);
}

#[test]
fn an_invoice_is_told_once_its_last_row_is_there_wherever_that_is() {
    let row = |no: u32, code: u32| format!("{no},{code},,1,2010-12-01 08:26:00,1.00,,UK\n");
    let mut content = format!("{RETAIL_HEADER}\n{}", row(1, 1));
    // More rows than a chunk has events.
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
fn a_row_that_cannot_be_read_as_text_is_refused_and_the_rest_goes_on() {
    let mut content = RETAIL_HEADER.as_bytes().to_vec();
    content.extend(
        b"\n1,A,caf\xe9,1,2010-12-01 08:26:00,1.00,,UK\n1,B,,2,2010-12-01 08:26:00,1.00,,UK\n",
    );
    let made = import_as(Retail::default(), "x.csv", &content, Some("test")).unwrap();
    assert_eq!(
        made.refusals(),
        [(2, "Description is not UTF-8".to_owned())]
    );
    assert_eq!(made.events.len(), 2);
}

#[test]
fn amounts_that_cannot_be_kept_exactly_are_refused() {
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
    let lines: Vec<u64> = made.refusals().iter().map(|r| r.0).collect();
    assert_eq!(lines, [3, 4, 6, 7, 8], "{:?}", made.refusals());
}

#[test]
fn an_invoice_that_would_not_fit_an_event_loses_the_rows_that_do_not_fit() {
    let description = "x".repeat(100_000);
    let mut content = format!("{RETAIL_HEADER}\n");
    for _ in 0..12 {
        content += &format!("1,A,{description},1,2010-12-01 08:26:00,1.00,,UK\n");
    }
    let made = import_retail(&content);
    let refusals = made.refusals();
    let lines: Vec<u64> = refusals.iter().map(|r| r.0).collect();
    assert_eq!(lines, [12, 13]);
    assert!(refusals[0].1.contains("above 1 MiB"), "{}", refusals[0].1);
    assert_eq!(made.events.len(), 10 + 1);
}

#[test]
fn a_row_above_the_bound_is_refused_and_the_next_is_read() {
    let content = format!(
        "{RETAIL_HEADER}\n1,A,\"{}\",1,2010-12-01 08:26:00,1.00,,UK\n1,B,,2,2010-12-01 08:26:00,1.00,,UK\n",
        "long \n".repeat(400_000)
    );
    let made = import_retail(&content);
    let refusals = made.refusals();
    assert_eq!(refusals.len(), 1);
    assert_eq!(refusals[0].0, 2);
    assert!(refusals[0].1.contains("above 1 MiB"), "{}", refusals[0].1);
    assert_eq!(made.events.len(), 2);
}

#[test]
fn what_is_no_such_file_is_told_before_anything_is_sent() {
    let retail = |name, content: &[u8]| refusal(Retail::default(), name, content);
    assert!(retail("x.csv", b"").contains("x.csv is empty"));
    assert!(
        retail("x.csv", PICKUPS.as_bytes()).contains("has other columns: expected \"InvoiceNo,")
    );
    assert!(retail("x.csv", b"\x89PNG\r\n\x1a\n\0\0").contains("has other columns"));
    assert!(retail("x.csv.gz", RETAIL.as_bytes()).contains("is not gzip"));
    let said = refusal(pickups_of(2022), "x.csv", RETAIL.as_bytes());
    assert!(said.contains("expected \"order_id,"), "{said}");
}

#[test]
fn a_file_that_ends_too_early_is_told_wherever_it_ends() {
    let retail = |name, content: &[u8]| refusal(Retail::default(), name, content);
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
fn a_file_that_changes_between_its_two_readings_is_noticed() {
    let folder = Folder::new();
    let path = folder.write("x.csv", RETAIL.as_bytes());
    let input = Input::open(&path).unwrap();
    let mut mapping = Retail::default();
    let survey = look_ahead(&mut mapping, &input).unwrap();
    let source = source::of(&mapping, None, survey.fingerprint).unwrap();
    fs::write(&path, RETAIL.replace("2.55", "2.56")).unwrap();
    let refused = RefusedRows::new(folder.0.join("refused.jsonl"));
    let (chunks, receiver) = Chunks::channel();
    let failure = make_events(mapping, &input, &survey, &source, refused, chunks)
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
fn a_missing_file_a_folder_and_an_old_list_are_handled() {
    let folder = Folder::new();
    for path in [folder.0.join("none.csv"), folder.0.clone()] {
        let failure = Input::open(&path).map(drop).unwrap_err();
        assert_eq!(failure.reason, Reason::Missing, "{failure}");
        assert!(failure.to_string().contains(&path.display().to_string()));
    }
    // A run that refuses nothing leaves no list of an earlier run behind.
    let list = folder.write("refused.jsonl", b"old");
    assert_eq!(RefusedRows::new(list.clone()).finish().unwrap(), None);
    assert!(!list.exists());
}
