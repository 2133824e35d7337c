//! The results of the demo: its own counts beside those of the roles' stores.

use std::fmt;
use std::fs;

use anyhow::{Context, Result};
use doorstep_table::{Column, Table};
use serde_json::Value;

use crate::sandbox::Sandbox;

/// The roles that record the demo's events, each kind of event in one of them. Other roles receive some of them, too,
/// and would count them twice.
const KEEPERS: [&str; 4] = ["orders", "inventory", "tracking", "access_log"];

/// The demo's counts and the stores' side by side.
pub(crate) struct Summary {
    rows: Vec<Row>,
}

struct Row {
    sent: String,
    became: String,
    /// The demo's count and the stores' count.
    expected: u64,
    found: u64,
    judged: Judged,
}

/// The required relation of the found number to the sent one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Judged {
    /// The two are equal.
    Equal,
    /// At least as many are found: a late confirm causes another publish, which is one more duplicate.
    AtLeast,
    /// It is shown without a judgement.
    Not,
}

impl Row {
    fn adds_up(&self) -> bool {
        match self.judged {
            Judged::Equal => self.found == self.expected,
            Judged::AtLeast => self.found >= self.expected,
            Judged::Not => true,
        }
    }
}

impl Summary {
    /// Reads the demo's counts and the stores' counts.
    pub(crate) fn read(stage: &Sandbox) -> Result<Self> {
        let sent = fs::read(stage.report()).context("the demo has left no report")?;
        let sent: Value = serde_json::from_slice(&sent).context("the demo's report")?;
        let status: Value = serde_json::from_str(&stage.output(&["status", "--json"])?)
            .context("consumers status")?;
        let dead = stage.output(&["dead-letters", "list", "--json"])?;
        let dead: Vec<Value> = dead
            .lines()
            .map(serde_json::from_str)
            .collect::<Result<_, _>>()
            .context("consumers dead-letters list")?;

        let requests = stage.output(&["show", "access_log", "--json"])?;
        let requests = requests.lines().last().unwrap_or_default();
        let requests: Value =
            serde_json::from_str(requests).context("consumers show access_log")?;

        let tally = |name: &str| sum(&status, &["store", "tally", name]);
        let mut rows = vec![
            Row {
                sent: "different events".to_owned(),
                became: "applied, each once and in its stream's order".to_owned(),
                expected: number(&sent, &["events"])?,
                found: tally("applied")?,
                judged: Judged::Equal,
            },
            Row {
                sent: "requests, of the events above".to_owned(),
                became: "counted by the access log".to_owned(),
                expected: number(&sent, &["requests"])?,
                found: number(&requests, &["requests"])?,
                judged: Judged::Equal,
            },
            Row {
                sent: "sent a second time".to_owned(),
                became: "dropped as duplicates, resends included".to_owned(),
                expected: number(&sent, &["duplicates"])?,
                found: tally("duplicates")?,
                judged: Judged::AtLeast,
            },
            Row {
                sent: "behind a bad message of their stream".to_owned(),
                became: "deferred until that is replayed or skipped".to_owned(),
                expected: number(&sent, &["held_behind"])?,
                found: sum(&status, &["store", "usage", "deferred", "rows"])?,
                judged: Judged::Equal,
            },
        ];
        for bad in sent["bad"].as_array().into_iter().flatten() {
            let is_it =
                |dead: &&Value| dead["role"] == bad["role"] && dead["reason"] == bad["reason"];
            let same_kind =
                |other: &&Value| other["role"] == bad["role"] && other["reason"] == bad["reason"];
            let all = sent["bad"]
                .as_array()
                .map_or(0, |all| all.iter().filter(same_kind).count());
            let found = dead.iter().filter(is_it).count();
            rows.push(Row {
                sent: format!("bad: {}", text(&bad["what"])),
                became: format!(
                    "dead letter of {}: {}",
                    text(&bad["role"]),
                    text(&bad["reason"])
                ),
                expected: 1,
                // Several invalid messages may share role and reason: all of them are found, or none of them counts as
                // found.
                found: u64::from(found == all),
                judged: Judged::Equal,
            });
        }
        rows.extend(mail_rows(stage, &sent)?);
        rows.extend(sales_rows(stage, &sent)?);
        // The number of deferred events depends on the broker's delivery order and on the batches.
        rows.push(Row {
            sent: "before their turn, of the events above".to_owned(),
            became: "deferred until their predecessor came, then applied".to_owned(),
            expected: number(&sent, &["early"])?,
            found: tally("deferred")?.saturating_sub(number(&sent, &["held_behind"])?),
            judged: Judged::Not,
        });
        Ok(Self { rows })
    }

    /// Returns true if every row satisfies its relation.
    pub(crate) fn adds_up(&self) -> bool {
        self.rows.iter().all(Row::adds_up)
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut table = Table::new([
            Column::number("SENT"),
            Column::number("FOUND"),
            Column::text("WHAT"),
            Column::text("RESULT"),
        ]);
        for row in &self.rows {
            table.add_row([
                row.expected.to_string(),
                row.found.to_string(),
                row.sent.clone(),
                row.became.clone(),
            ]);
        }
        writeln!(f, "{table}")
    }
}

/// Compares the facts that may cause a mail with the decisions on them, and the mails with their files.
fn mail_rows(stage: &Sandbox, sent: &Value) -> Result<Vec<Row>> {
    let mails = stage.output(&["export", "notifications"])?;
    let mails: Vec<Value> = mails
        .lines()
        .map(serde_json::from_str)
        .collect::<Result<_, _>>()
        .context("consumers export notifications")?;
    let mails: Vec<&Value> = mails
        .iter()
        .map(|row| &row["state"]["mail"])
        .filter(|mail| !mail.is_null())
        .collect();
    let of = |status: &str| mails.iter().filter(|mail| mail["status"] == status).count() as u64;
    let about_orders =
        |mail: &&&Value| mail["status"] == "sent" && mail["kind"] != "confirm_address";
    let files = fs::read_dir(stage.mails()).context("the folder of mails")?;
    let files = files.filter(|file| {
        let path = file.as_ref().map(std::fs::DirEntry::path);
        path.is_ok_and(|path| path.extension().is_some_and(|end| end == "eml"))
    });
    Ok(vec![
        Row {
            sent: "facts that a customer may get a mail about".to_owned(),
            became: "a mail sent, or the reason why there is none".to_owned(),
            expected: number(sent, &["mails", "all"])?,
            found: of("sent") + of("skipped"),
            judged: Judged::Equal,
        },
        Row {
            sent: "about orders of customers with a confirmed address".to_owned(),
            became: "sent, one mail each".to_owned(),
            expected: number(sent, &["mails", "to_send"])?,
            found: mails.iter().filter(about_orders).count() as u64,
            judged: Judged::Equal,
        },
        Row {
            sent: "mails sent, those that confirm an address included".to_owned(),
            became: "files in the folder of mails".to_owned(),
            expected: of("sent"),
            found: files.count() as u64,
            judged: Judged::Equal,
        },
    ])
}

/// Writes the page of the sales, and compares its figures with the orders that were not refused.
fn sales_rows(stage: &Sandbox, sent: &Value) -> Result<Vec<Row>> {
    let sales = &sent["sales"];
    let period = ["--from", text(&sales["from"]), "--to", text(&sales["to"])];
    let page = stage.page().display().to_string();
    let write = ["report", "sales", "--html", &page];
    stage.output(&[&write[..], &period].concat())?;
    let figures = stage.output(&[&["report", "sales", "--json"][..], &period].concat())?;
    let figures: Value = serde_json::from_str(&figures).context("consumers report sales")?;
    let cents = |money: &Value| -> Result<u64> {
        let amount: Result<f64, _> = text(money).parse();
        let amount = amount.with_context(|| format!("{money} is no amount"))?;
        Ok((amount * 100.0).round() as u64)
    };
    Ok(vec![Row {
        sent: "cents of the orders that were not refused".to_owned(),
        became: "net sales in the report".to_owned(),
        expected: cents(&sales["net"])?,
        found: cents(&figures["total"]["amounts"]["net"])?,
        judged: Judged::Equal,
    }])
}

/// Returns a member. A missing one is an error: as 0 it would look like a loss, or hide one.
fn number(value: &Value, path: &[&str]) -> Result<u64> {
    path.iter()
        .fold(value, |value, name| &value[*name])
        .as_u64()
        .with_context(|| format!("{} is missing or no number in {value}", path.join(".")))
}

fn sum(status: &Value, path: &[&str]) -> Result<u64> {
    let roles = status["roles"]
        .as_array()
        .context("a status without roles")?;
    roles
        .iter()
        .filter(|role| KEEPERS.contains(&text(&role["role"])))
        .map(|role| number(role, path))
        .sum()
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or("?")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn missing_members_are_errors() {
        let role = |tally| json!({"roles": [{"role": "orders", "store": {"tally": tally}}]});
        let sum = |tally| sum(&role(tally), &["store", "tally", "applied"]);
        assert_eq!(sum(json!({"applied": 3})).unwrap(), 3);
        let error = sum(json!({"used": 3})).unwrap_err().to_string();
        assert!(error.contains("store.tally.applied"), "{error}");
    }

    #[test]
    fn extra_duplicates_add_up_and_missing_ones_fail() {
        let row = |judged, expected, found| Row {
            sent: String::new(),
            became: String::new(),
            expected,
            found,
            judged,
        };
        for (judged, fewer, more) in [
            (Judged::Equal, false, false),
            (Judged::AtLeast, false, true),
            (Judged::Not, true, true),
        ] {
            assert!(row(judged, 5, 5).adds_up(), "{judged:?}");
            assert_eq!(row(judged, 5, 4).adds_up(), fewer, "{judged:?}");
            assert_eq!(row(judged, 5, 6).adds_up(), more, "{judged:?}");
        }
    }
}
