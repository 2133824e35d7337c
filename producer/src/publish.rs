//! `publish`: CloudEvents, one JSON object a line, from a file or standard input to the broker.
//!
//! Every line is checked before anything of it is sent: form, attributes, contract. A line that is wrong is told by its number and
//! left out, the others go on. Input that comes slowly flows: what is there is sent, without waiting for more.

use std::{
    fs::File,
    io::{self, BufReader, Read},
    path::{Path, PathBuf},
    thread,
};

use doorstep_contracts::registry;
use doorstep_event::{Event, MAX_DATA_BYTES, json};
use tokio::sync::oneshot;

use crate::{
    chunk::Chunks,
    failure::{Failure, Reason},
    import::plain,
    lines::{Buffered, Line, Lines},
    output::Output,
    progress::{Progress, Unit},
    stop::Stop,
    tally::per_second,
};

/// The most bytes of a line: an event's data, and ample room for its attributes.
const MAX_LINE_BYTES: usize = MAX_DATA_BYTES + 64 * 1024;
const BUFFER_BYTES: usize = 64 * 1024;

/// What became of the lines that were read.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
struct Counts {
    read: u64,
    refused: u64,
}

/// Publishes all lines of the file, or of standard input. Returns once every event is confirmed.
///
/// # Errors
/// At least one line was refused; the input cannot be read; the events do not get through; the user wants to stop.
pub(crate) async fn run(
    file: Option<PathBuf>,
    output: Output,
    mut stop: Stop,
) -> Result<(), Failure> {
    let name = file
        .as_deref()
        .map_or_else(|| "standard input".to_owned(), |f| f.display().to_string());
    let input: Box<dyn Read + Send> = match &file {
        Some(file) => Box::new(open(file)?),
        None => Box::new(io::stdin()),
    };
    let output = stop.unless_wanted(output.open()).await??;

    let (mut chunks, receiver) = Chunks::channel();
    let (end, ended) = oneshot::channel();
    // A thread of its own, that nobody waits for at the end: it may be waiting for a line that never comes.
    thread::spawn(move || {
        let mut lines = Lines::new(
            BufReader::with_capacity(BUFFER_BYTES, input),
            MAX_LINE_BYTES,
        );
        let counts = check_all(&mut lines, &mut chunks, |number, reason| {
            eprintln!("line {number}: {reason}");
        });
        drop(chunks);
        // Nobody listens only when sending has failed, and then that is what the user hears.
        let _ = end.send(counts);
    });
    let mut progress = Progress::new("publishing", Unit::Lines, None);
    let tally = output.take(receiver, &mut progress, stop).await;
    let elapsed = progress.finish();
    let (tally, voice) = tally?;
    let counts = ended
        .await
        .map_err(|_| Failure::new(Reason::Failed, "reading broke off"))?;
    let Counts { read, refused } = counts
        .map_err(|e| Failure::new(Reason::Io, format!("cannot read {name}: {}", plain(&e))))?;

    let published = tally.total();
    voice.say(&format!(
        "{read} read = {published} published + {refused} refused"
    ));
    if published > 0 {
        voice.say(&format!(
            "{published} events {} in {:.1} s ({}/s): {tally}",
            voice.arrived(),
            elapsed.as_secs_f64(),
            per_second(published, elapsed)
        ));
    }
    if read != published + refused {
        return Err(Failure::new(
            Reason::Failed,
            "the sum above does not add up: this is a mistake in Doorstep, please report it",
        ));
    }
    if refused > 0 {
        return Err(Failure::new(
            Reason::Data,
            format!("{refused} lines of {name} were refused, see above; nothing of them was sent"),
        ));
    }
    Ok(())
}

fn open(path: &Path) -> Result<File, Failure> {
    let missing = |text: &str| {
        Failure::new(
            Reason::Missing,
            format!("cannot open {}: {text}", path.display()),
        )
    };
    let file = File::open(path).map_err(|e| missing(&plain(&e)))?;
    if file.metadata().is_ok_and(|m| m.is_dir()) {
        return Err(missing("it is a folder"));
    }
    Ok(file)
}

/// Checks every line and hands over the events, what there is whenever the input makes us wait.
fn check_all<R: io::BufRead + Buffered>(
    lines: &mut Lines<R>,
    chunks: &mut Chunks,
    mut refuse: impl FnMut(u64, &str),
) -> io::Result<Counts> {
    let mut counts = Counts::default();
    let mut events = Vec::new();
    while let Some((number, line)) = lines.next()? {
        match check(&line) {
            Ok(None) => {}
            Ok(Some(event)) => {
                counts.read += 1;
                events.push(event);
                if chunks.add(&mut events).is_err() {
                    return Ok(counts);
                }
            }
            Err(reason) => {
                refuse(number, &reason);
                counts.read += 1;
                counts.refused += 1;
            }
        }
        if lines.may_wait() && chunks.hand_over().is_err() {
            return Ok(counts);
        }
    }
    // If nobody takes them any more, that end says why.
    let _ = chunks.hand_over();
    Ok(counts)
}

/// The event on a line; `None` where there is nothing on it.
fn check(line: &Line<'_>) -> Result<Option<Event>, String> {
    let Line::Whole(bytes) = line else {
        return Err(format!(
            "the line is above {MAX_LINE_BYTES} bytes; an event's data may have 1 MiB at most, larger things travel by reference"
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
