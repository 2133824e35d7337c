//! `publish`: publishes CloudEvents, one JSON object a line, from a file or standard input.
//!
//! Every line is checked before it is published: form, attributes, contract. An invalid line is reported by its number
//! and skipped. Of many lines with one defect, a few are reported, and their count. Slow input is published as it
//! arrives, without waiting for more.

use std::{
    fs::File,
    io::{self, BufReader, Read},
    path::{Path, PathBuf},
    thread,
};

use doorstep_cli::{CliError, ExitReason, MessageLimiter, ShutdownSignal};
use doorstep_contracts::registry;
use doorstep_event::{Event, MAX_DATA_BYTES, json};
use tokio::sync::oneshot;

use crate::{
    chunk::BatchSender,
    import::{open_packed, plain},
    lines::{Buffered, InputLine, LineReader},
    output::Target,
    progress::{Progress, Unit},
    stop::nothing_sent,
};

/// The limit of a line in bytes: an event's data, and ample room for its attributes.
const MAX_LINE_BYTES: usize = MAX_DATA_BYTES + 64 * 1024;
const BUFFER_BYTES: usize = 64 * 1024;

/// The numbers of lines by result.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
struct Counts {
    read: u64,
    rejected: u64,
}

/// Publishes all lines of the file, or of standard input. Returns once every event is confirmed.
///
/// # Errors
/// At least one line was rejected, here or by the broker; the input cannot be read; the events cannot be published; the
/// user stops the program.
pub(crate) async fn run(
    file: Option<PathBuf>,
    output: Target,
    mut stop: ShutdownSignal,
) -> Result<(), CliError> {
    // As in other programs, a dash stands for standard input.
    let file = file.filter(|file| file.as_os_str() != "-");
    let name = file
        .as_deref()
        .map_or_else(|| "standard input".to_owned(), |f| f.display().to_string());
    let input: Box<dyn Read + Send> = match &file {
        Some(file) => Box::new(open(file)?),
        None => Box::new(io::stdin()),
    };
    let output = stop
        .or_cancelled(output.open())
        .await
        .ok_or_else(nothing_sent)??;

    let (mut chunks, receiver) = BatchSender::channel();
    let (end, ended) = oneshot::channel();
    // A thread of its own, which is never joined: it may be blocked on a line that never comes.
    thread::spawn(move || {
        let input = match open_packed(input) {
            Ok(input) => input,
            Err(e) => {
                let _ = end.send(Err(e));
                return;
            }
        };
        let mut lines = LineReader::new(
            BufReader::with_capacity(BUFFER_BYTES, input),
            MAX_LINE_BYTES,
        );
        let mut repeats = MessageLimiter::default();
        let counts = check_all(&mut lines, &mut chunks, |number, reason| {
            if let Some(line) = repeats.add(format!("line {number}: {reason}")) {
                eprintln!("{line}");
            }
        });
        for line in repeats.rest() {
            eprintln!("{line}");
        }
        drop(chunks);
        // The receiver is only gone if publishing has failed, and then the user gets that error.
        let _ = end.send(counts);
    });
    let mut progress = Progress::new("publishing", Unit::Lines, None);
    let tally = output.take(receiver, &mut progress, stop).await;
    let elapsed = progress.finish();
    let (tally, voice) = tally?;
    let counts = ended
        .await
        .map_err(|_| CliError::failed("reading failed"))?;
    let Counts { read, rejected } = counts.map_err(|e| {
        let reason = match e.kind() {
            // Invalid input: of another kind, damaged, or cut off.
            io::ErrorKind::InvalidData
            | io::ErrorKind::InvalidInput
            | io::ErrorKind::UnexpectedEof => ExitReason::Data,
            _ => ExitReason::Io,
        };
        CliError::new(reason, format!("cannot read {name}: {}", plain(&e)))
    })?;

    let published = tally.arrived.total();
    let rejected = rejected + tally.rejected.total();
    voice.println(&format!(
        "{read} read = {published} published + {rejected} refused"
    ));
    voice.print_arrived(&tally, elapsed);
    if read != published + rejected {
        return Err(CliError::failed(
            "the sum above does not add up: this is a bug in Doorstep, please report it",
        ));
    }
    if rejected > 0 {
        return Err(CliError::data(format!(
            "{rejected} lines of {name} were refused, see above; none of their events was published"
        )));
    }
    Ok(())
}

fn open(path: &Path) -> Result<File, CliError> {
    let missing = |text: &str| CliError::missing(format!("cannot open {}: {text}", path.display()));
    let file = File::open(path).map_err(|e| missing(&plain(&e)))?;
    if file.metadata().is_ok_and(|m| m.is_dir()) {
        return Err(missing("it is a folder"));
    }
    Ok(file)
}

/// Checks every line and sends the events on, a partial batch whenever the input would block.
fn check_all<R: io::BufRead + Buffered>(
    lines: &mut LineReader<R>,
    chunks: &mut BatchSender,
    mut reject: impl FnMut(u64, &str),
) -> io::Result<Counts> {
    let mut counts = Counts::default();
    let mut events = Vec::new();
    while let Some((number, line)) = lines.next()? {
        match check(&line) {
            Ok(None) => {}
            Ok(Some(event)) => {
                counts.read += 1;
                events.push(event);
                if chunks.add(number, &mut events).is_err() {
                    return Ok(counts);
                }
            }
            Err(reason) => {
                reject(number, &reason);
                counts.read += 1;
                counts.rejected += 1;
            }
        }
        if lines.would_block() && chunks.flush().is_err() {
            return Ok(counts);
        }
    }
    // If the receiver is gone, that end reports the reason.
    let _ = chunks.flush();
    Ok(counts)
}

/// Returns the event on a line; `None` if the line is empty.
fn check(line: &InputLine<'_>) -> Result<Option<Event>, String> {
    let InputLine::Whole(bytes) = line else {
        return Err(format!(
            "the line is above {MAX_LINE_BYTES} bytes; an event's data may have 1 MiB at most, so pass larger data by reference"
        ));
    };
    if bytes.trim_ascii().is_empty() {
        return Ok(None);
    }
    let text = std::str::from_utf8(bytes).map_err(|e| format!("not UTF-8: {e}"))?;
    let event = json::read(text).map_err(|e| e.to_string())?;
    registry::check(&event).map_err(|e| e.to_string())?;
    Ok(Some(event))
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    fn line(sequence: u64, delta: i64) -> String {
        format!(
            r#"{{"specversion":"1.0","id":"{sequence}","source":"shop/1","type":"stock.adjusted.v1","subject":"stock/1","sequence":{sequence},"data":{{"delta":{delta},"reason":"sale","reference":"order/1"}}}}"#
        )
    }

    #[test]
    fn invalid_lines_are_named_and_others_sent() {
        let input = [
            line(1, -6),
            String::new(),
            "{".to_owned(),
            line(2, 6),
            line(3, -6).replace("v1", "v9"),
            "x".repeat(MAX_LINE_BYTES + 1),
            line(2, -1),
        ]
        .join("\n");
        let (mut chunks, mut receiver) = BatchSender::channel();
        let mut lines = LineReader::new(BufReader::new(input.as_bytes()), MAX_LINE_BYTES);
        let mut rejections = Vec::new();
        let counts = check_all(&mut lines, &mut chunks, |number, reason| {
            rejections.push((number, reason.to_owned()));
        });
        drop(chunks);
        assert_eq!(
            counts.unwrap(),
            Counts {
                read: 6,
                rejected: 4
            }
        );
        let numbers: Vec<u64> = rejections.iter().map(|(number, _)| *number).collect();
        assert_eq!(numbers, [3, 4, 5, 6]);
        for ((_, reason), says) in rejections.iter().zip([
            "not a CloudEvents object",
            "a sale cannot add 6",
            "stock.adjusted.v9 is in no contract",
            "the line is above",
        ]) {
            assert!(reason.contains(says), "{reason}");
        }
        let mut sent = Vec::new();
        while let Some(chunk) = receiver.blocking_recv() {
            sent.extend(chunk.events.iter().map(|e| e.event.id.to_string()));
        }
        assert_eq!(sent, ["1", "2"]);
    }

    /// An input that arrives in pieces with pauses, as a pipe does.
    struct Pipe(mpsc::Receiver<String>);

    impl Read for Pipe {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let Ok(text) = self.0.recv() else {
                return Ok(0);
            };
            buffer[..text.len()].copy_from_slice(text.as_bytes());
            Ok(text.len())
        }
    }

    #[test]
    fn input_is_sent_without_waiting_for_more() {
        let (pipe, end) = mpsc::channel();
        let (mut chunks, mut receiver) = BatchSender::channel();
        let reading = thread::spawn(move || {
            let mut lines = LineReader::new(BufReader::new(Pipe(end)), MAX_LINE_BYTES);
            check_all(&mut lines, &mut chunks, |_, _| {})
        });
        // The next line has begun and stays incomplete; the first must not wait for it.
        pipe.send(format!("{}\n\n{{", line(1, -6))).unwrap();
        let chunk = receiver.blocking_recv().unwrap();
        assert_eq!(chunk.events.len(), 1);
        pipe.send(format!("{}\n", &line(2, -6)[1..])).unwrap();
        let chunk = receiver.blocking_recv().unwrap();
        assert_eq!(chunk.events[0].event.id.as_str(), "2");
        drop(pipe);
        let counts = reading.join().unwrap().unwrap();
        assert_eq!(
            counts,
            Counts {
                read: 2,
                rejected: 0
            }
        );
    }
}
