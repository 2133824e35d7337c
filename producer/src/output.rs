//! The target of events: the broker, or standard output as JSON lines.

use std::{
    io::{self, BufWriter, Write},
    time::Duration,
};

use doorstep_cli::{CliError, ShutdownSignal};
use doorstep_event::json;
use tokio::{sync::mpsc, task::spawn_blocking};

use crate::{
    chunk::{EventBatch, LineEvent},
    progress::Progress,
    publish_pipeline::{BrokerTarget, EventSender},
    stop::nothing_sent,
    tally::{EventCounts, per_second},
};

/// The target of events.
#[derive(Debug)]
pub(crate) enum Target {
    /// The broker, which confirms every event.
    Broker(Box<BrokerTarget>),
    /// Standard output, one CloudEvents object a line.
    Lines,
}

/// A target that is ready.
pub(crate) enum OpenTarget {
    Broker(EventSender),
    Lines,
}

/// The stream for messages to the user: the one without the events.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Console {
    Out,
    Err,
}

impl Console {
    /// Describes the final state of the events.
    fn arrived(self) -> &'static str {
        match self {
            Self::Out => "confirmed",
            Self::Err => "written",
        }
    }

    /// Prints the number of arrived events and their rate, if there are any.
    pub(crate) fn print_arrived(self, tally: &EventCounts, elapsed: Duration) {
        let total = tally.arrived.total();
        if total > 0 {
            self.println(&format!(
                "{total} events {} in {:.1} s ({}/s): {}",
                self.arrived(),
                elapsed.as_secs_f64(),
                per_second(total, elapsed),
                tally.arrived
            ));
        }
    }

    /// Prints a line. A closed stream is no error once the work is done.
    pub(crate) fn println(self, text: &str) {
        let _ = match self {
            Self::Out => writeln!(io::stdout(), "{text}"),
            Self::Err => writeln!(io::stderr(), "{text}"),
        };
    }
}

impl Target {
    /// Connects if the target is a broker, within a timeout.
    ///
    /// # Errors
    /// The broker is unreachable or denies access.
    pub(crate) async fn open(self) -> Result<OpenTarget, CliError> {
        match self {
            Self::Broker(sink) => Ok(OpenTarget::Broker(sink.connect().await?)),
            Self::Lines => Ok(OpenTarget::Lines),
        }
    }
}

impl OpenTarget {
    /// Writes all batches. Returns the number of events of each type once every event has arrived.
    ///
    /// # Errors
    /// The events cannot be published, or the user stops the program.
    pub(crate) async fn take(
        self,
        chunks: mpsc::Receiver<EventBatch>,
        progress: &mut Progress,
        mut stop: ShutdownSignal,
    ) -> Result<(EventCounts, Console), CliError> {
        match self {
            Self::Broker(sender) => {
                let tally = sender.send_all(chunks, progress, stop).await?;
                Ok((tally, Console::Out))
            }
            Self::Lines => {
                let writing = spawn_blocking(move || write_lines(chunks));
                let written = stop.or_cancelled(writing).await.ok_or_else(nothing_sent)?;
                let tally =
                    written.map_err(|e| CliError::failed(format!("writing failed: {e}")))??;
                Ok((tally, Console::Err))
            }
        }
    }
}

fn write_lines(mut chunks: mpsc::Receiver<EventBatch>) -> Result<EventCounts, CliError> {
    let failed =
        |e: io::Error| CliError::io(format!("cannot write events to standard output: {e}"));
    let mut out = BufWriter::new(io::stdout().lock());
    let mut tally = EventCounts::default();
    while let Some(chunk) = chunks.blocking_recv() {
        for LineEvent { event, .. } in &chunk.events {
            let line = json::write(event)
                .map_err(|e| CliError::failed(format!("event {}: {e}", event.id)))?;
            writeln!(out, "{line}").map_err(failed)?;
            tally.arrived.add(event);
        }
        out.flush().map_err(failed)?;
    }
    Ok(tally)
}
