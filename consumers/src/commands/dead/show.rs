//! `consumers dead show`.

use doorstep_event::Sequence;
use doorstep_store::{DeadFilter, DeadId, DeadRow, Store};

use super::{
    list::state,
    view::{DeadInFull, body},
};
use crate::{
    failure::{Failure, Reason},
    output::{print, print_json},
    settings::{Form, Place},
    stores,
    text::{clean, indented},
};

/// Shows a dead letter in full.
///
/// # Errors
/// There is no store or no such dead letter, or the store cannot be read.
pub(crate) async fn show(place: &Place, id: DeadId, form: Form) -> Result<(), Failure> {
    let store = stores::look_at(place)?;
    let role = place.role.name;
    let found = store
        .dead(DeadFilter::Id(id.clone()), None, 1)
        .await
        .map_err(|e| stores::failed(&e))?;
    let Some(row) = found.first() else {
        return Err(Failure::new(
            Reason::Missing,
            format!(
                "{role} has no dead letter {:?}: it was settled, or never was; see `consumers dead list {role}`",
                id.0
            ),
        ));
    };
    match form {
        Form::Json => print_json(&DeadInFull::of(role, row)),
        Form::Text => print(|out| {
            for (name, value) in members(role, row) {
                writeln!(out, "{name:<12} {}", clean(&value))?;
            }
            writeln!(out, "\n{}", readable(body(row)))
        }),
    }
}

fn members(role: &str, row: &DeadRow) -> Vec<(&'static str, String)> {
    let mut members = vec![
        ("role", role.to_owned()),
        ("id", row.id.0.clone()),
        ("state", state(row).to_owned()),
        ("reason", row.reason.clone()),
        ("detail", row.detail.clone()),
        ("attempts", row.attempts.to_string()),
        ("since", row.since.to_string()),
        ("fingerprint", row.fingerprint.clone()),
    ];
    if let Some(event) = &row.event {
        let dash = || "-".to_owned();
        members.extend([
            ("type", event.kind.to_string()),
            ("subject", event.subject.to_string()),
            ("source", event.source.to_string()),
            (
                "sequence",
                event
                    .sequence
                    .map(Sequence::get)
                    .map_or_else(dash, |n| n.to_string()),
            ),
            ("event id", event.id.to_string()),
            ("time", event.time.map_or_else(dash, |t| t.to_string())),
        ]);
    }
    members
}

/// A body for people: JSON indented, anything else as the text that it may be.
fn readable(body: &[u8]) -> String {
    let text = String::from_utf8_lossy(body);
    if body.is_empty() {
        return "(no data)".to_owned();
    }
    match serde_json::from_slice::<serde::de::IgnoredAny>(body) {
        Ok(_) => indented(&text)
            .lines()
            .map(clean)
            .collect::<Vec<_>>()
            .join("\n"),
        Err(_) => clean(&text),
    }
}
