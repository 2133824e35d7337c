//! `import access-log`: publishes the lines of a web server's log as served requests.
//!
//! The file is read twice, as by every import: the first pass checks it and hashes its content, which names the source;
//! the second makes the events. The same content makes the same events, so it may be imported again and changes
//! nothing. A log that has grown is another source, so a log is imported once it is rotated.

mod line;

use std::{collections::HashSet, path::PathBuf};

use doorstep_cli::{CliError, ShutdownSignal};
use doorstep_contracts::{OTHER_ENDPOINT, RequestServed};
use doorstep_event::{AttributeError, Contract, Event, Sequence, Source, Subject};
use tokio::task::spawn_blocking;

use super::{
    broken, changed, events_rejected,
    input::{Fingerprint, Input, failed},
    rejects::RejectFile,
    retail::next,
};
use crate::{
    chunk::BatchSender,
    lines::{InputLine, LineReader},
    output::Target,
    progress::{Progress, Unit},
    stop::nothing_sent,
};

/// The limit of a line in bytes; servers limit a request's head to less.
const MAX_LINE_BYTES: usize = 64 * 1024;
/// The limit of endpoints of a file. Requests for further paths count as the other endpoint, since anyone may request
/// any path.
const MAX_ENDPOINTS: usize = 1_000;

/// The settings of an import of a log.
#[derive(Debug)]
pub(crate) struct AccessLogSettings {
    pub(crate) file: PathBuf,
    /// The path of the list of rejected lines.
    pub(crate) rejected: PathBuf,
}

/// The result of the first pass.
struct LogSurvey {
    lines: u64,
    /// The hash of the content, which shows a change before the second pass.
    fingerprint: Fingerprint,
}

/// Imports a log: returns once every event has arrived, and prints a summary on standard output.
///
/// # Errors
/// The file cannot be read, has no valid line, or changes while it is read; the events cannot be published; the list
/// cannot be written; the user stops the program. The import can be run again after each of them.
pub(crate) async fn run(
    settings: AccessLogSettings,
    output: Target,
    mut stop: ShutdownSignal,
) -> Result<(), CliError> {
    let AccessLogSettings { file, rejected } = settings;
    let reading = spawn_blocking(move || {
        let input = Input::open(&file)?;
        let survey = survey(&input)?;
        Ok::<_, CliError>((input, survey))
    });
    let (input, survey) = stop
        .or_cancelled(reading)
        .await
        .ok_or_else(nothing_sent)?
        .map_err(broken)??;
    let lines = survey.lines;
    let output = stop
        .or_cancelled(output.open())
        .await
        .ok_or_else(nothing_sent)??;
    let (chunks, receiver) = BatchSender::channel();
    let rejected = RejectFile::new(rejected);
    let reading = spawn_blocking(move || second_pass(&input, &survey, rejected, chunks));
    let mut progress = Progress::new("importing", Unit::Rows, Some(lines));
    let tally = output.take(receiver, &mut progress, stop).await;
    let elapsed = progress.finish();
    let (tally, voice) = tally?;
    let rejected = reading.await.map_err(broken)??;

    let imported = tally.arrived.count_of(RequestServed::TYPE);
    let unpublished = tally.rejected.total();
    let refused = rejected.count + unpublished;
    let list = rejected.finish()?;
    voice.println(&format!(
        "{lines} read = {imported} imported + {refused} refused"
    ));
    voice.print_arrived(&tally, elapsed);
    if let Some(list) = list {
        voice.println(&format!("refused lines are listed in {}", list.display()));
    }
    if unpublished > 0 {
        return Err(events_rejected(unpublished));
    }
    Ok(())
}

/// Reads the file once.
fn survey(input: &Input) -> Result<LogSurvey, CliError> {
    let (mut lines, mut rejected, mut first_reason) = (0, 0, None);
    let fingerprint = each_line(input, |number, line| {
        lines += 1;
        if let Err(reason) = parsed(line) {
            rejected += 1;
            first_reason.get_or_insert_with(|| format!("line {number}: {reason}"));
        }
        Ok(Flow::Next)
    })?;
    let fingerprint = fingerprint.unwrap_or_default();
    match first_reason {
        Some(reason) if rejected == lines => Err(CliError::data(format!(
            "{} has no line in the common or the combined format, so nothing was sent; {reason}",
            input.path.display()
        ))),
        _ => Ok(LogSurvey { lines, fingerprint }),
    }
}

/// Publishes the lines. Returns the list of rejected ones once every event has been sent to the publisher.
fn second_pass(
    input: &Input,
    survey: &LogSurvey,
    mut rejected: RejectFile,
    mut chunks: BatchSender,
) -> Result<RejectFile, CliError> {
    let mut log = LogEvents::new(&survey.fingerprint)?;
    let mut events = Vec::new();
    let fingerprint = each_line(input, |number, line| {
        match parsed(line).and_then(|served| log.event(served)) {
            Ok(event) => events.push(event),
            Err(reason) => rejected.add_line(number, &reason)?,
        }
        match chunks.add(number, &mut events) {
            Ok(()) => Ok(Flow::Next),
            Err(_) => Ok(Flow::Stop),
        }
    })?;
    if fingerprint.is_some_and(|fingerprint| fingerprint != survey.fingerprint) {
        return Err(changed(&input.path));
    }
    // The last batch is only left if the other end has failed, which reports the reason.
    let _ = chunks.flush();
    Ok(rejected)
}

/// The choice to go on with the next line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Flow {
    Next,
    Stop,
}

/// Gives each line that is not empty, with its number. Returns the hash of the content; `None` if it was stopped.
///
/// # Errors
/// The file cannot be read, or the error of `take`.
fn each_line(
    input: &Input,
    mut take: impl FnMut(u64, InputLine<'_>) -> Result<Flow, CliError>,
) -> Result<Option<Fingerprint>, CliError> {
    let bytes = input.read()?;
    let is_gzip = bytes.is_gzip;
    let mut lines = LineReader::new(bytes, MAX_LINE_BYTES);
    while let Some((number, line)) = lines.next().map_err(|e| failed(&input.path, is_gzip, &e))? {
        if line != InputLine::Whole(b"") && take(number, line)? == Flow::Stop {
            return Ok(None);
        }
    }
    Ok(Some(lines.into_inner().fingerprint()))
}

fn parsed(line: InputLine<'_>) -> Result<RequestServed, String> {
    match line {
        InputLine::Whole(line) => line::parse(line),
        InputLine::TooLong => Err(format!("it has more than {MAX_LINE_BYTES} bytes")),
    }
}

/// The events of a log, numbered in the order of its valid lines.
struct LogEvents {
    source: Source,
    subject: Subject,
    sequence: Sequence,
    endpoints: HashSet<String>,
}

impl LogEvents {
    fn new(fingerprint: &Fingerprint) -> Result<Self, CliError> {
        let hash = hex::encode(fingerprint);
        let named = || {
            let source = Source::new(format!("import/access-log/{hash}"))?;
            let subject = Subject::new(format!("request/import-{}", &hash[..16]))?;
            Ok::<_, AttributeError>((source, subject))
        };
        let (source, subject) = named().map_err(|e| CliError::failed(e.to_string()))?;
        Ok(Self {
            source,
            subject,
            sequence: Sequence::FIRST,
            endpoints: HashSet::new(),
        })
    }

    /// Returns the next event.
    ///
    /// # Errors
    /// The reason why the line is rejected. It has used up no number.
    fn event(&mut self, mut served: RequestServed) -> Result<Event, String> {
        let endpoint = served.endpoint();
        if !self.endpoints.contains(&endpoint) {
            if self.endpoints.len() < MAX_ENDPOINTS {
                self.endpoints.insert(endpoint);
            } else if served.route != OTHER_ENDPOINT {
                let path = std::mem::replace(&mut served.route, OTHER_ENDPOINT.to_owned());
                served.path = Some(path);
            }
        }
        let (source, subject, at) = (&self.source, &self.subject, served.served_at);
        let event = Event::from_contract(source, subject, self.sequence, at, &served);
        let event = event.map_err(|e| e.to_string())?;
        self.sequence = next(self.sequence);
        Ok(event)
    }
}

#[cfg(test)]
mod tests;
