//! The CSV and the page of a report, compared with its figures.

use roxmltree::{Document, Node, ParsingOptions};

use super::*;

/// A name that would be markup, a formula and a quoted cell.
const HOSTILE: &str = "=1+<script>alert(\"x\")</script>&amp;,'\u{202e}";

fn december() -> Period {
    period("2010-12-01", "2010-12-03")
}

fn events() -> Vec<Event> {
    vec![
        placed(
            1,
            "2010-12-01T08:26:00Z",
            "France",
            vec![
                line("A", 6, "2.55"),
                line("B", -3, "0.125"),
                line("A", 1_000, "12.5"),
            ],
        ),
        placed(
            2,
            "2010-12-02T09:00:00Z",
            "EIRE",
            vec![line("C,\"D\"", 1, "1.005")],
        ),
        placed(
            3,
            "2010-12-02T10:00:00Z",
            HOSTILE,
            vec![line(HOSTILE, 1, "4"), line("-A", 2, "1")],
        ),
        returned(
            4,
            "2010-12-03T11:00:00Z",
            "France",
            vec![line("A", -2, "2.55")],
        ),
        cancelled(2, 2),
    ]
}

fn as_csv<R: Report>(entities: &[DayEntity]) -> String {
    let mut writer = csv::Writer::from_writer(Vec::new());
    writer.write_record(R::csv_head()).unwrap();
    for entity in entities {
        R::write_csv(&mut writer, entity).unwrap();
    }
    String::from_utf8(writer.into_inner().unwrap()).unwrap()
}

#[test]
fn sales_as_csv() {
    let (entities, _) = summed::<SalesReport>(&rows(&events()), december());
    let hostile = "\"'=1+<script>alert(\"\"x\"\")</script>&amp;,'\u{202e}\"";
    assert_eq!(
        as_csv::<SalesReport>(&entities),
        format!(
            "day,country,sku,sold,returned,written_off,reversed,sales,returns,write_offs,reversals\n\
             2010-12-01,France,A,1006,0,0,0,12515.30,0.00,0.00,0.00\n\
             2010-12-01,France,B,0,0,3,0,0.00,0.00,0.375,0.00\n\
             2010-12-02,{hostile},'-A,2,0,0,0,2.00,0.00,0.00,0.00\n\
             2010-12-02,{hostile},{hostile},1,0,0,0,4.00,0.00,0.00,0.00\n\
             2010-12-02,EIRE,\"C,\"\"D\"\"\",1,0,0,1,1.005,0.00,0.00,1.005\n\
             2010-12-03,France,A,0,2,0,0,0.00,5.10,0.00,0.00\n"
        )
    );
}

#[test]
fn deliveries_as_csv() {
    let events = [
        assigned(
            1,
            "2022-05-01T10:00:00Z",
            Some("@Jilin"),
            Some("2022-05-01T10:10:00Z"),
        ),
        picked_up(1, "2022-05-01T10:15:00Z"),
        delivered(1, "2022-05-01T23:00:00Z"),
        assigned(2, "2022-05-02T10:00:00Z", None, None),
    ];
    let (entities, _) =
        summed::<DeliveryReport>(&rows(&events), period("2022-05-01", "2022-05-02"));
    assert_eq!(
        as_csv::<DeliveryReport>(&entities),
        "day,city,assigned,picked_up,picked_up_late,delivered,\
         picked_up_below_15_min,picked_up_below_30_min,picked_up_below_45_min,picked_up_below_60_min,\
         picked_up_below_90_min,picked_up_below_120_min,picked_up_below_240_min,picked_up_below_480_min,picked_up_later,\
         delivered_below_15_min,delivered_below_30_min,delivered_below_45_min,delivered_below_60_min,\
         delivered_below_90_min,delivered_below_120_min,delivered_below_240_min,delivered_below_480_min,delivered_later\n\
         2022-05-01,'@Jilin,1,1,1,1,0,1,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,1\n\
         2022-05-02,,1,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0\n"
    );
}

#[test]
fn figures_as_json() {
    let figures = sales(&events(), period("2010-12-01", "2010-12-01"));
    let json = serde_json::to_value(&figures).unwrap();
    assert_eq!(
        (&json["from"], &json["to"]),
        (&"2010-12-01".into(), &"2010-12-01".into())
    );
    assert_eq!(json["days"].as_array().unwrap().len(), 1);
    // The entities of other days were added, too: the reader of the store chooses them.
    assert_eq!(
        serde_json::to_string(&figures.total).unwrap(),
        r#"{"orders":3,"returns":1,"reversed_orders":1,"pieces":{"sold":1010,"returned":2,"written_off":3,"reversed":1},"amounts":{"sales":"12522.305","returns":"5.10","write_offs":"0.375","reversals":"1.005","net":"12515.825"}}"#
    );
    assert_eq!(json["skus"][0]["name"], "A");
    assert_eq!(json["skus"][0]["amounts"]["net"], "12510.20");
}

fn parsed(page: &str) -> Document<'_> {
    let options = ParsingOptions {
        allow_dtd: true,
        ..ParsingOptions::default()
    };
    Document::parse_with_options(page, options).unwrap()
}

fn text(node: Node<'_, '_>) -> String {
    node.descendants()
        .filter_map(|n| n.text().filter(|_| n.is_text()))
        .collect()
}

/// Returns the cells of a table's body, by the title above it.
fn table(page: &Document<'_>, title: &str) -> Vec<Vec<String>> {
    let named = |section: &Node<'_, '_>| {
        section.has_tag_name("section")
            && section
                .children()
                .any(|n| n.has_tag_name("h2") && text(n) == title)
    };
    let section = page.descendants().find(named).unwrap();
    let body = section
        .descendants()
        .find(|n| n.has_tag_name("tbody"))
        .unwrap();
    let rows = body.children().filter(|n| n.has_tag_name("tr"));
    rows.map(|row| row.children().filter(Node::is_element).map(text).collect())
        .collect()
}

#[test]
fn the_page_has_the_figures() {
    let figures = sales(&events(), december());
    let page = SalesReport::page(&figures).unwrap();
    let page = parsed(&page);
    assert_eq!(
        table(&page, "By day"),
        [
            [
                "2010-12-01",
                "1",
                "0",
                "0",
                "12,515.30",
                "0.00",
                "0.375",
                "0.00",
                "12,514.925"
            ],
            [
                "2010-12-02",
                "2",
                "0",
                "1",
                "7.005",
                "0.00",
                "0.00",
                "1.005",
                "6.00"
            ],
            [
                "2010-12-03",
                "0",
                "1",
                "0",
                "0.00",
                "5.10",
                "0.00",
                "0.00",
                "-5.10"
            ],
        ]
    );
    assert_eq!(
        table(&page, "By month"),
        [[
            "2010-12",
            "3",
            "1",
            "1",
            "12,522.305",
            "5.10",
            "0.375",
            "1.005",
            "12,515.825"
        ]]
    );
    let names = |title: &str| -> Vec<String> {
        table(&page, title)
            .into_iter()
            .map(|row| row[0].clone())
            .collect()
    };
    assert_eq!(names("By country"), ["France", HOSTILE, "EIRE"]);
    assert_eq!(names("By stock code"), ["A", HOSTILE, "-A", "C,\"D\"", "B"]);
    let charts: Vec<usize> = page
        .descendants()
        .filter(|n| n.has_tag_name(("http://www.w3.org/2000/svg", "svg")))
        .map(|svg| {
            svg.descendants()
                .filter(|n| n.tag_name().name() == "rect")
                .count()
        })
        .collect();
    assert_eq!(charts, [3, 3]);
}

#[test]
fn hostile_names_stay_text() {
    let page = SalesReport::page(&sales(&events(), december())).unwrap();
    assert!(page.matches("&#60;script&#62;").count() >= 3, "{page}");
    let document = parsed(&page);
    for node in document.descendants().filter(Node::is_element) {
        let name = node.tag_name().name();
        assert!(
            !["script", "link", "img", "iframe", "object", "form", "a"].contains(&name),
            "{name}"
        );
        for attribute in node.attributes() {
            let name = attribute.name();
            assert!(
                !name.starts_with("on") && !["src", "href", "style"].contains(&name),
                "{name}"
            );
        }
    }
    // The style sheet stands in the page, where nothing is escaped.
    let style = document
        .descendants()
        .find(|n| n.has_tag_name("style"))
        .unwrap();
    assert!(!text(style).contains("url(") && !text(style).contains("@import"));
}

#[test]
fn long_tables_end_with_the_rest() {
    let lines = (0..30)
        .map(|n| line(&format!("sku{n:02}"), n, "1"))
        .collect();
    let figures = sales(
        &[placed(1, "2010-12-01T08:00:00Z", "France", lines)],
        december(),
    );
    let page = SalesReport::page(&figures).unwrap();
    let codes = table(&parsed(&page), "By stock code");
    assert_eq!(codes.len(), 21);
    assert_eq!(
        (codes[0][0].as_str(), codes[0][1].as_str()),
        ("sku29", "29")
    );
    // 0 + 1 + ... + 9
    assert_eq!(
        (codes[20][0].as_str(), codes[20][1].as_str()),
        ("other codes", "45")
    );
}

#[test]
fn the_page_of_deliveries_has_the_figures() {
    let events = [
        assigned(
            1,
            "2022-05-01T10:00:00Z",
            Some(HOSTILE),
            Some("2022-05-01T10:10:00Z"),
        ),
        picked_up(1, "2022-05-01T10:15:00Z"),
        assigned(2, "2022-05-02T10:00:00Z", None, None),
    ];
    let figures = deliveries(&events, period("2022-05-01", "2022-05-02"));
    let page = DeliveryReport::page(&figures).unwrap();
    let page = parsed(&page);
    assert_eq!(
        table(&page, "By city"),
        [
            [HOSTILE, "1", "1", "1", "0"],
            ["no city", "1", "0", "0", "0"]
        ]
    );
    let durations = table(&page, "By duration");
    assert_eq!(durations[1], ["15 to 30", "1", "0"]);
    assert_eq!(durations[8][0], "480 or more");
}

#[test]
fn equal_figures_give_equal_pages() {
    let page = || SalesReport::page(&sales(&events(), december())).unwrap();
    assert_eq!(page(), page());
}
