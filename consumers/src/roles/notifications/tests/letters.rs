//! The words of mails.

use doorstep_contracts::Money;

use super::*;
use crate::roles::notifications::letter::{Letter, LetterLink};

fn letter(order: &str, outcome: OrderOutcome) -> Letter {
    let topic = Topic::Order(OrderTopic {
        order: InvoiceNo::new(order).unwrap(),
        total: "12.50".parse::<Money>().unwrap(),
        outcome,
    });
    Letter::new(&topic, None, "https://shop.example.com")
}

#[test]
fn mails_say_what_happened() {
    let letter = letter(
        "7",
        OrderOutcome::Confirmed {
            restaurant: RestaurantId::new("luigi").unwrap(),
            promised_at: ten(),
        },
    );
    assert_eq!(letter.subject, "Order 7 is confirmed");
    assert_eq!(
        letter.text().unwrap(),
        "luigi makes your order 7.\n\nIt is promised for 2026-11-23 10:00 UTC.\n\nThe total is 12.50.\n\nDoorstep"
    );
}

#[test]
fn report_is_linked_at_the_public_url() {
    let golden = include_str!("../../../../../common/contracts/golden/report.ready.v1.json");
    let ready: ReportReady = serde_json::from_str(golden).unwrap();
    let url = format!("https://shop.example.com{}", ready.link.path.as_str());
    let topic = Topic::Report(ReportTopic {
        report: "7".to_owned(),
        outcome: ReportOutcome::Ready(ready.into()),
    });
    let letter = Letter::new(&topic, None, "https://shop.example.com");
    assert!(letter.text().unwrap().contains(&format!("\n{url}\n")));
    assert!(
        letter
            .html()
            .unwrap()
            .contains(&format!("<a href=\"{url}\">"))
    );
}

#[test]
fn hostile_names_are_escaped() {
    let hostile = "<script>alert('x')</script>\"&amp;";
    let outcome = OrderOutcome::Cancelled {
        by: doorstep_contracts::CancelledBy::Restaurant,
        reason: Label::new(hostile).unwrap(),
    };
    let mut letter = letter(hostile, outcome);
    letter.link = Some(LetterLink {
        label: "Open",
        url: "https://shop.example.com/\"onclick=\"x".to_owned(),
        expires_at: String::new(),
    });
    let html = letter.html().unwrap();
    assert!(
        !html.contains("<script") && !html.contains("\"onclick"),
        "{html}"
    );
    let page = html.strip_prefix("<!DOCTYPE html>").unwrap();
    let page = roxmltree::Document::parse(page).unwrap();
    let title = page.descendants().find(|node| node.has_tag_name("h1"));
    let title = title.and_then(|node| node.text()).unwrap();
    assert_eq!(title, format!("Order {hostile} was cancelled"));
    // A text has nothing to escape.
    assert!(letter.text().unwrap().contains(hostile));
}
