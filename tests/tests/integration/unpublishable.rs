//! Events that the broker does not let this user publish: each is reported with its line, and the others arrive.

use std::{fs, io::Write, time::Duration};

use doorstep_broker::User;
use doorstep_event::json;
use doorstep_tests::Program;
use flate2::{Compression, write::GzEncoder};
use tokio::task::block_in_place;

use crate::{
    operator::{moved, placed},
    topology::{EmptyVhost, same},
};

const LIMIT: Duration = Duration::from_secs(120);

/// A user who may publish events of these topics only.
async fn user_of(place: &EmptyVhost, topics: &str) -> User {
    place.import().await;
    let permitted = place.permitted(&["--declared"]).await;
    let user = place.user(&permitted, "u-producer", same);
    permit(place, &user, topics);
    user
}

fn permit(place: &EmptyVhost, user: &User, topics: &str) {
    let set = || user.may_on_topics(&place.vhost, "doorstep.events", topics, ".*");
    block_in_place(set).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn unpublishable_events_are_reported_by_line() {
    const LINES: u64 = 1_500;
    let place = EmptyVhost::new("unpublishable");
    let user = user_of(&place, "^stock[.]").await;
    // At the beginning, adjacent, and at the end.
    let bad = [1, 700, 701, LINES];
    let mut text = String::new();
    let mut sequence = 0;
    for line in 1..=LINES {
        let event = if bad.contains(&line) {
            placed(&line.to_string(), 1)
        } else {
            sequence += 1;
            moved("A", sequence, -1)
        };
        text += &(json::write(&event).unwrap() + "\n");
    }
    let ended = Program::producer(&["publish"])
        .broker(user.amqp_url())
        .input(text)
        .run(&place.scratch, LIMIT)
        .await;
    assert_eq!(ended.code, Some(65), "{}", ended.stderr);
    let sum = "1500 read = 1496 published + 4 refused";
    assert!(ended.stdout.contains(sum), "{}", ended.stdout);
    let output: Vec<&str> = ended
        .stderr
        .lines()
        .filter(|line| line.contains("the broker refuses order.placed.v1"))
        .collect();
    assert_eq!(output.len(), bad.len(), "{}", ended.stderr);
    for (line, number) in output.iter().zip(bad) {
        let begin =
            format!("line {number}: the broker refuses order.placed.v1 of order/{number} (");
        assert!(line.starts_with(&begin), "{line}");
        assert!(line.contains("ACCESS_REFUSED"), "{line}");
    }
    let words = ["run", "inventory", "--exit-when-idle", "1s"];
    let ended = place.ran(None, &words).await;
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    let stock = place.output(None, &["show", "inventory", "stock/A"]).await;
    assert!(stock.contains("-1496"), "{stock}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_import_completes_a_partial_one() {
    let place = EmptyVhost::new("unpublishable-import");
    let user = user_of(&place, "^stock[.]").await;
    let file = place.scratch.join("sales.csv");
    let mut text =
        "InvoiceNo,StockCode,Description,Quantity,InvoiceDate,UnitPrice,CustomerID,Country\n"
            .to_owned();
    for invoice in 1..=3 {
        for _ in 0..4 {
            text +=
                &format!("{invoice},85123A,A LANTERN,1,2010-12-01 08:26:00,2.55,17850,France\n");
        }
    }
    fs::write(&file, text).unwrap();
    let import = async || {
        Program::producer(&["import", "retail"])
            .arg(&file)
            .broker(user.amqp_url())
            .store(&place.scratch.join("stores"))
            .run(&place.scratch, LIMIT)
            .await
    };
    let ended = import().await;
    assert_eq!(ended.code, Some(65), "{}", ended.stderr);
    let sum = "12 read = 12 imported + 0 refused";
    assert!(ended.stdout.contains(sum), "{}", ended.stdout);
    let end = "the broker refuses 3 events";
    assert!(ended.stderr.contains(end), "{}", ended.stderr);
    for line in [5, 9, 13] {
        let output = format!("line {line}: the broker refuses order.placed.v1 of order/");
        assert!(ended.stderr.contains(&output), "{output}: {}", ended.stderr);
    }

    permit(&place, &user, "^(order|stock)[.]");
    let ended = import().await;
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    let ended = place.ran(None, &["run", "--exit-when-idle", "1s"]).await;
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    let stock = place
        .output(None, &["show", "inventory", "stock/85123A"])
        .await;
    assert!(stock.contains("-12"), "{stock}");
    let orders = place.output(None, &["export", "orders"]).await;
    assert_eq!(orders.lines().count(), 3, "{orders}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_user_without_any_permission_fails_early() {
    let place = EmptyVhost::new("unpublishable-all");
    let user = user_of(&place, "^stock[.]").await;
    let lines = (1..=300).map(|line| json::write(&placed(&line.to_string(), 1)).unwrap() + "\n");
    let ended = Program::producer(&["publish"])
        .broker(user.amqp_url())
        .input(lines.collect::<String>())
        .run(&place.scratch, LIMIT)
        .await;
    assert_eq!(ended.code, Some(69), "{}", ended.stderr);
    let output = ended
        .stderr
        .matches(": the broker refuses order.placed.v1")
        .count();
    assert_eq!(output, 101, "{}", ended.stderr);
    let end = "the broker refuses these events, 101 of 101 so far, so the rest was not sent";
    assert!(ended.stderr.contains(end), "{}", ended.stderr);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn gzip_is_published_and_errors_are_counted() {
    let place = EmptyVhost::new("packed");
    let user = user_of(&place, ".*").await;
    let line = |code, n| json::write(&moved(code, n, -1)).unwrap();
    let events = (1..=3).map(|n| line("A", n));
    let bad = (1..=50).map(|n| line("B", n).replace(r#""delta":-1"#, r#""delta":1"#));
    let lines: Vec<String> = events.chain(bad).collect();
    let mut packed = GzEncoder::new(Vec::new(), Compression::fast());
    writeln!(packed, "\u{feff}{}", lines.join("\n")).unwrap();
    let ended = Program::producer(&["publish"])
        .broker(user.amqp_url())
        .input(packed.finish().unwrap())
        .run(&place.scratch, LIMIT)
        .await;
    assert_eq!(ended.code, Some(65), "{}", ended.stderr);
    let sum = "53 read = 3 published + 50 refused";
    assert!(ended.stdout.contains(sum), "{}", ended.stdout);
    let lines = ended.stderr.matches("a sale cannot add").count();
    assert_eq!(lines, 4, "{}", ended.stderr);
    let rest = "47 more of this kind, the last is line 53: ";
    assert!(ended.stderr.contains(rest), "{}", ended.stderr);
}
