//! Tests of imports of logs, from the file to the events, without a broker.

use std::{fs, thread};

use doorstep_cli::ExitReason;
use doorstep_contracts::registry;
use doorstep_event::json;

use super::*;
use crate::import::tests::Folder;

fn line(path: &str) -> String {
    format!("203.0.113.77 - - [17/May/2015:10:05:03 +0000] \"GET {path} HTTP/1.1\" 200 5\n")
}

/// The result of an import: its events, and the list of refused lines.
struct Made {
    lines: u64,
    events: Vec<Event>,
    refused: String,
}

fn import(name: &str, content: &[u8]) -> Result<Made, CliError> {
    let folder = Folder::new();
    let input = Input::open(&folder.write(name, content))?;
    let survey = survey(&input)?;
    let lines = survey.lines;
    let refused = RejectFile::new(folder.path().join("refused.jsonl"));
    let (chunks, mut receiver) = BatchSender::channel();
    let reading = thread::spawn(move || second_pass(&input, &survey, refused, chunks));
    let mut events = Vec::new();
    while let Some(batch) = receiver.blocking_recv() {
        events.extend(batch.events.into_iter().map(|line| line.event));
    }
    let list = reading.join().unwrap()?.finish()?;
    for event in &events {
        registry::check(event).unwrap();
    }
    Ok(Made {
        lines,
        events,
        refused: list.map_or_else(String::new, |path| fs::read_to_string(path).unwrap()),
    })
}

fn endpoints(made: &Made) -> Vec<String> {
    let served = made
        .events
        .iter()
        .map(|event| RequestServed::read(event).unwrap());
    served.map(|served| served.endpoint()).collect()
}

#[test]
fn valid_lines_are_numbered_without_gaps() {
    let log = [
        line("/a"),
        "secret\n".to_owned(),
        "\n".to_owned(),
        line("/b"),
    ]
    .concat();
    let made = import("access.log", log.as_bytes()).unwrap();
    assert_eq!(made.lines, 3);
    let numbers: Vec<u64> = made
        .events
        .iter()
        .map(|e| e.sequence.unwrap().get())
        .collect();
    assert_eq!(numbers, [1, 2]);
    assert_eq!(endpoints(&made), ["GET /a", "GET /b"]);
    let refused = r#"{"line":2,"reason":"it has not a client, unlike the common format"}"#;
    assert_eq!(made.refused, format!("{refused}\n"));
}

#[test]
fn same_content_makes_same_events() {
    let written = |made: &Made| -> Vec<String> {
        made.events
            .iter()
            .map(|event| json::write(event).unwrap())
            .collect()
    };
    let first = import("access.log", line("/a").as_bytes()).unwrap();
    let again = import("other.log", line("/a").as_bytes()).unwrap();
    assert_eq!(written(&first), written(&again));
    let other = import("access.log", line("/b").as_bytes()).unwrap();
    assert_ne!(first.events[0].source, other.events[0].source);
    assert_ne!(first.events[0].subject, other.events[0].subject);
}

#[test]
fn paths_beyond_the_bound_count_as_other() {
    let log: String = (0..=MAX_ENDPOINTS)
        .map(|n| line(&format!("/{n}")))
        .collect();
    let log = [log, line("/0"), line("/unknown?q=1")].concat();
    let made = import("access.log", log.as_bytes()).unwrap();
    let endpoints = endpoints(&made);
    let distinct: HashSet<&String> = endpoints.iter().collect();
    assert_eq!(distinct.len(), MAX_ENDPOINTS + 1);
    assert_eq!(
        endpoints[MAX_ENDPOINTS - 1..],
        ["GET /999", "other", "GET /0", "other"]
    );
    let last = RequestServed::read(made.events.last().unwrap()).unwrap();
    assert_eq!(last.path.unwrap(), "/unknown");
}

#[test]
fn oversized_lines_and_hostile_bytes_stop_nothing() {
    let mut log = line("/a").into_bytes();
    log.extend(line(&"a".repeat(1024 * 1024)).bytes());
    log.extend([0, 0xff, 0x1b, b'"', b'\\', b'\n']);
    // A carriage return within a line ends none.
    log.extend(line("/b\rc").bytes());
    let made = import("access.log", &log).unwrap();
    assert_eq!(endpoints(&made), ["GET /a", "GET /b%0Dc"]);
    let refused: Vec<&str> = made.refused.lines().collect();
    assert!(
        refused[0].contains(r#""line":2,"reason":"it has more than 65536 bytes""#),
        "{refused:?}"
    );
    assert!(refused[1].contains(r#""line":3"#), "{refused:?}");
    assert_eq!(refused.len(), 2);
}

#[test]
fn file_of_another_kind_sends_nothing() {
    let refused = import("sales.csv", b"InvoiceNo,StockCode\n1,2\n")
        .err()
        .unwrap();
    assert_eq!(refused.reason, ExitReason::Data);
    let said = refused.to_string();
    assert!(
        said.contains("nothing was sent; line 1: it has not a client"),
        "{said}"
    );
    let empty = import("access.log", b"").unwrap();
    assert_eq!((empty.lines, empty.events.len()), (0, 0));
}
