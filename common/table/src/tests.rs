//! Tables with realistic content, at common terminal widths.

use super::*;

const WIDTHS: [usize; 3] = [80, 120, 200];

fn kinds() -> Table {
    let mut table = Table::new([
        Column::text("ROLE"),
        Column::text("GROUP"),
        Column::number("COUNT"),
        Column::number("OPEN"),
        Column::text("REASON"),
        Column::text("TYPE").optional(),
        Column::text("EXAMPLE").optional(),
        Column::text("LAST").optional(),
        Column::prose("DETAIL").optional(),
    ]);
    for (role, count, reason) in [
        ("inventory", "25904", "breaks a rule"),
        ("tracking", "1234567890", "numbering conflict"),
    ] {
        table.add_row([
            role,
            "9c0e51b7d8463f2a",
            count,
            count,
            reason,
            "delivery.position_reported.v1",
            "9c0e51b7d8463f2a-4925",
            "2026-11-23T09:00:01Z",
            "the position 51.507351,-0.127758 is dated 25904 s ahead of the clock of this machine, which allows for 600 s",
        ]);
    }
    table
}

fn status() -> Table {
    let names = [
        "READY",
        "NET",
        "CONSUMERS",
        "ASKED",
        "LAG",
        "HELD",
        "BLOCKED",
        "MISSING",
        "SCHEDULED",
        "OUTBOX",
        "DEAD",
        "ENTITIES",
        "APPLIED",
        "DUPLICATES",
    ];
    let numbers = names.map(Column::number);
    let mut table = Table::new(std::iter::once(Column::text("ROLE")).chain(numbers));
    for role in ["orders", "inventory", "tracking", "restaurant", "payments"] {
        let mut row = vec![role.to_owned()];
        row.extend((0..names.len()).map(|n| (25_904 + n).to_string()));
        row[6] = "25904 (3 min)".to_owned();
        table.add_row(row);
    }
    table
}

fn permissions() -> Table {
    let mut table = Table::new([
        Column::text("USER"),
        Column::text("RIGHT"),
        Column::text("ON"),
    ]);
    let on = format!("^doorstep\\.({})$", "orders\\.0|".repeat(40));
    table.add_row(["doorstep-gateway", "configure", &on]);
    table
}

/// Asserts that every word of the text is a word of the table, and no line is wider than necessary.
#[track_caller]
fn fitted_unbroken(table: &Table, width: usize) -> String {
    let text = table.fitted(Some(width));
    let cells: Vec<&str> = table
        .columns
        .iter()
        .map(|column| column.name)
        .chain(table.rows.iter().flatten().map(String::as_str))
        .flat_map(str::split_whitespace)
        .collect();
    let table_lines = text.split("\nNot shown").next().unwrap();
    for word in table_lines.split_whitespace() {
        let name = word.strip_suffix(':').unwrap_or(word);
        assert!(
            word == "…" || cells.contains(&word) || cells.contains(&name),
            "{word:?} is broken at {width}:\n{text}"
        );
    }
    for line in text.lines() {
        let is_one_word = line.split_whitespace().nth(2).is_none();
        assert!(
            line.width() <= width || is_one_word,
            "too wide for {width}: {line}"
        );
    }
    text
}

#[test]
fn no_word_is_broken_at_any_width() {
    for table in [kinds(), status(), permissions()] {
        for width in WIDTHS.into_iter().chain(1..200) {
            fitted_unbroken(&table, width);
        }
    }
}

#[test]
fn prose_is_cut_and_optional_columns_are_omitted() {
    let wide = fitted_unbroken(&kinds(), 200);
    assert!(wide.contains("LAST") && wide.contains("…"), "{wide}");
    assert!(!wide.contains("Not shown"), "{wide}");

    let medium = fitted_unbroken(&kinds(), 120);
    let words = medium.lines().nth(1).unwrap();
    assert!(
        words.ends_with("the position 51.507351,-0.127758 is dated …"),
        "{medium}"
    );
    let note = "Not shown for lack of width: ";
    assert!(medium.contains(note), "{medium}");

    let narrow = fitted_unbroken(&kinds(), 80);
    for whole in [
        "9c0e51b7d8463f2a",
        "25904",
        "1234567890",
        "numbering conflict",
    ] {
        assert!(narrow.contains(whole), "{whole} in {narrow}");
    }
    assert!(narrow.lines().nth(3).unwrap().starts_with(note), "{narrow}");
}

#[test]
fn few_rows_are_transposed_before_listing() {
    let text = fitted_unbroken(&status(), 100);
    let lines: Vec<Vec<&str>> = text
        .lines()
        .map(|line| line.split_whitespace().collect())
        .collect();
    assert_eq!(
        lines[0],
        [
            "ROLE",
            "orders",
            "inventory",
            "tracking",
            "restaurant",
            "payments"
        ]
    );
    assert_eq!(lines[1][..2], ["READY", "25904"]);
    assert_eq!(lines.len(), 15);

    let list = fitted_unbroken(&status(), 60);
    assert_eq!(list.split("\n\n").count(), 5, "{list}");
    assert!(list.contains("ROLE:       orders\n"), "{list}");
    assert!(list.contains("HELD:       25904 (3 min)\n"), "{list}");
}

#[test]
fn an_overlong_word_stays_whole() {
    let text = fitted_unbroken(&permissions(), 80);
    let on = &permissions().rows[0][2];
    assert!(text.contains(on.as_str()), "{text}");
}

#[test]
fn without_a_terminal_each_row_is_one_line() {
    let text = kinds().fitted(None);
    assert_eq!(text.lines().count(), 3, "{text}");
    assert!(text.contains("which allows for 600 s"), "{text}");
    assert!(!text.contains('…'), "{text}");
}

#[test]
fn cells_with_lines_stay_under_their_column() {
    let mut table = Table::new([Column::text("QUEUE"), Column::text("ARGUMENTS")]);
    table.add_row([
        "doorstep.orders.0",
        "x-queue-type=quorum\nx-delivery-limit=100",
    ]);
    assert_eq!(
        table.fitted(Some(80)),
        "QUEUE              ARGUMENTS\n\
         doorstep.orders.0  x-queue-type=quorum\n                   x-delivery-limit=100"
    );
    assert_eq!(
        table.fitted(Some(20)),
        "QUEUE:     doorstep.orders.0\nARGUMENTS: x-queue-type=quorum\n           x-delivery-limit=100"
    );
}

#[test]
fn wide_characters_count_as_two() {
    let mut table = Table::new([Column::text("NAME"), Column::number("COUNT")]);
    table.add_row(["東京", "1"]);
    table.add_row(["ab", "22"]);
    assert_eq!(
        table.fitted(Some(80)),
        "NAME  COUNT\n東京      1\nab       22"
    );
}

#[test]
fn wrapping_keeps_numbers_with_their_units() {
    let text = "it took 85\u{a0}ms of 25904 rows, and then no more; ".repeat(9);
    let lines = wrapped(text.trim(), Some(40), "  ");
    assert!(lines.lines().all(|line| line.width() <= 40), "{lines}");
    assert!(lines.lines().skip(1).all(|line| line.starts_with("  ")));
    assert_eq!(lines.matches("85 ms").count(), 9, "{lines}");
    assert_eq!(lines.split_whitespace().count(), 9 * 11);
}

#[test]
fn field_names_have_their_own_column() {
    let list = fields(
        &[("id", "3f2a-1"), ("detail", "was not assigned yet")],
        Some(20),
    );
    assert_eq!(list, "id     3f2a-1\ndetail was not\n       assigned yet\n");
    let whole = fields(&[("detail", "was not assigned yet")], None);
    assert_eq!(whole, "detail was not assigned yet\n");
}
