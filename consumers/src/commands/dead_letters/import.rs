//! `consumers dead-letters import`: takes the data of exported lines back.

use std::{
    fs::File,
    io::{self, BufRead, BufReader, Read},
    path::Path,
};

use doorstep_cli::{CliError, ExitReason, MessageLimiter};
use doorstep_event::{Event, Sequence};
use doorstep_runtime::operate::{Attribution, Edit};
use doorstep_store::{DeadLetter, DeadLetterId, DeadLetterStatus};
use serde::Deserialize;
use serde_json::value::RawValue;

use super::{
    edit::{EditError, EditSession, EditSummary, Edited},
    patch,
    selection::one,
};
use crate::{cli::dead_letters::ImportArgs, format::sanitize};

/// The maximum length of a line: several times the maximum of an event's data, with all other fields.
const MAX_BYTES: u64 = 64 * 1024 * 1024;

/// The part of a line that is read.
#[derive(Debug, Deserialize)]
struct ImportedEdit<'a> {
    role: String,
    id: DeadLetterId,
    event: Option<Attributes>,
    #[serde(borrow, default)]
    data: Option<&'a RawValue>,
}

/// The attributes that must be as they were exported.
#[derive(Debug, Deserialize, PartialEq, Eq)]
struct Attributes {
    id: String,
    source: String,
    #[serde(rename = "type")]
    kind: String,
    subject: String,
    sequence: Option<u64>,
}

impl Attributes {
    fn from_event(event: &Event) -> Self {
        Self {
            id: event.id.to_string(),
            source: event.source.to_string(),
            kind: event.event_type.to_string(),
            subject: event.subject.to_string(),
            sequence: event.sequence.map(Sequence::get),
        }
    }
}

/// Takes lines back, each by itself.
///
/// # Errors
/// Some lines were rejected, and the others taken; or the file or the store cannot be read.
pub(crate) async fn import(by: Attribution, args: ImportArgs) -> Result<(), CliError> {
    let (file, dry_run) = (&args.file, args.change.dry_run);
    let session = EditSession::open(&args.place, &by, dry_run, Edit::Import)?;
    let failed = |e: io::Error| CliError::io(format!("cannot read {}: {e}", file.display()));
    let mut input: Box<dyn BufRead + Send> = if file == Path::new("-") {
        Box::new(BufReader::new(io::stdin()))
    } else {
        Box::new(BufReader::new(File::open(file).map_err(failed)?))
    };
    let mut tally = EditSummary::default();
    let mut repeats = MessageLimiter::default();
    for number in 1_u64.. {
        let mut line = String::new();
        let read = (&mut input).take(MAX_BYTES).read_line(&mut line);
        if read.map_err(failed)? == 0 {
            break;
        }
        if line.trim().is_empty() {
            continue;
        }
        match take(&session, &line).await {
            Ok(edited) => tally.add(&edited),
            Err(EditError::Failed(failure))
                if !matches!(failure.reason, ExitReason::Settled | ExitReason::Missing) =>
            {
                return Err(failure);
            }
            Err(rejected) => {
                let (reason, why) = match rejected {
                    EditError::Refused(why) => (ExitReason::Data, why),
                    EditError::Failed(failure) => (failure.reason, failure.to_string()),
                };
                let line = format!("line {number} is refused: {}", sanitize(&why));
                if let Some(line) = repeats.add(line) {
                    eprintln!("{line}");
                }
                tally.rejected(CliError::new(reason, why));
            }
        }
    }
    for line in repeats.rest() {
        eprintln!("{line}");
    }
    tally.sum_up(dry_run)
}

async fn take(session: &EditSession<'_>, line: &str) -> Result<Edited, EditError> {
    let line: ImportedEdit<'_> = serde_json::from_str(line)
        .map_err(|e| EditError::Refused(format!("it is no line of an export: {e}")))?;
    let role = session.role.name;
    if line.role != role {
        let why = format!("it belongs to the role {:?}, not to {role}", line.role);
        return Err(EditError::Refused(why));
    }
    let dead = one(&session.store, role, &line.id).await?;
    same_identity(&line, &dead).map_err(EditError::Refused)?;
    let (Some(event), Some(data)) = (&dead.event, line.data) else {
        return Ok(Edited::Same);
    };
    let changed = patch::to_json(&event.data, data.get()).map_err(EditError::Refused)?;
    if changed.is_change() && dead.status != DeadLetterStatus::Open {
        let why = format!("{} is being replayed", dead.id);
        return Err(EditError::Refused(why));
    }
    session.store(&dead, &changed).await
}

/// Checks the source, subject, sequence, id and type, which cannot be changed.
fn same_identity(line: &ImportedEdit<'_>, dead: &DeadLetter) -> Result<(), String> {
    let expected = dead.event.as_ref().map(Attributes::from_event);
    let (Some(found), Some(expected)) = (&line.event, &expected) else {
        return match (&line.event, &expected) {
            (None, None) => Ok(()),
            _ => Err(format!("{} has another event than the line", dead.id)),
        };
    };
    let sequence = |a: &Attributes| a.sequence.map_or("none".to_owned(), |n| n.to_string());
    let members = [
        ("id", found.id.clone(), expected.id.clone()),
        ("source", found.source.clone(), expected.source.clone()),
        ("type", found.kind.clone(), expected.kind.clone()),
        ("subject", found.subject.clone(), expected.subject.clone()),
        ("sequence", sequence(found), sequence(expected)),
    ];
    match members
        .iter()
        .find(|(_, found, expected)| found != expected)
    {
        None => Ok(()),
        Some((name, found, expected)) => Err(format!(
            "the {name} of an event cannot be changed, {expected:?} is {found:?} in the line"
        )),
    }
}

#[cfg(test)]
mod tests {
    use doorstep_contracts::{StockAdjusted, StockReason};

    use super::*;
    use crate::roles::testing::event;

    fn dead() -> DeadLetter {
        let fact = StockAdjusted {
            delta: -1,
            reason: StockReason::Sale,
            reference: "order/1".parse().unwrap(),
        };
        let event = event("stock/A", 3, &fact);
        DeadLetter {
            id: DeadLetterId("ab-1".into()),
            body: event.data.clone(),
            event: Some(event),
            blocks: true,
            reason: "breaks a rule".into(),
            detail: "it is too much".into(),
            fingerprint: "77".into(),
            attempts: 1,
            since: "2026-11-23T09:00:00Z".parse().unwrap(),
            status: DeadLetterStatus::Open,
            defect: None,
            task: None,
        }
    }

    const LINE: &str = r#"{"role":"inventory","id":"ab-1","event":{"id":"stock/A#3","source":"test","type":"stock.adjusted.v1","subject":"stock/A","sequence":3,"time":null},"data":{"delta":2}}"#;

    #[test]
    fn whose_event_it_is_cannot_be_changed() {
        let rejected = |from: &str, to: &str| {
            let text = LINE.replacen(from, to, 1);
            let line = serde_json::from_str(&text).unwrap();
            same_identity(&line, &dead()).err().unwrap_or_default()
        };
        assert_eq!(rejected("", ""), "");
        for (from, to, name) in [
            ("stock/A#3", "stock/A#4", "id"),
            ("\"test\"", "\"tast\"", "source"),
            ("adjusted.v1", "adjusted.v2", "type"),
            ("\"stock/A\"", "\"stock/B\"", "subject"),
            ("\"sequence\":3", "\"sequence\":4", "sequence"),
            ("\"sequence\":3", "\"sequence\":null", "sequence"),
        ] {
            let why = rejected(from, to);
            assert!(why.contains(&format!("the {name} of")), "{why}");
        }
    }
}
