//! Where events go: to the broker, or as JSON lines to standard output.

use std::io::{self, BufWriter, Write};

use doorstep_cli::{CliError, ExitReason, ShutdownSignal};
use doorstep_event::json;
use tokio::{sync::mpsc, task::spawn_blocking};

use crate::{
    chunk::{EventBatch, LineEvent},
    progress::Progress,
    publish_pipeline::{BrokerTarget, EventSender},
    stop::nothing_sent,
    tally::EventCounts,
};

/// Where events are to go.
#[derive(Debug)]
pub(crate) enum Target {
    /// To the broker, every event confirmed.
    Broker(Box<BrokerTarget>),
    /// To standard output, one CloudEvents object a line.
    Lines,
}

/// An output that is ready.
pub(crate) enum OpenTarget {
    /// Connected.
    Broker(EventSender),
    /// Nothing to open.
    Lines,
}

/// Where the program talks to its user: not where the events are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Console {
    /// Standard output.
    Out,
    /// Standard error.
    Err,
}

impl Console {
    /// What has become of the events when all is done.
    pub(crate) fn arrived(self) -> &'static str {
        match self {
            Self::Out => "confirmed",
            Self::Err => "written",
        }
    }

    /// Says a line. Nobody listening is no reason to fail when the work is done.
    pub(crate) fn println(self, text: &str) {
        let _ = match self {
            Self::Out => writeln!(io::stdout(), "{text}"),
            Self::Err => writeln!(io::stderr(), "{text}"),
        };
    }
}

impl Target {
    /// Connects where that is needed, in bounded time.
    ///
    /// # Errors
    /// The broker cannot be reached or refuses us.
    pub(crate) async fn open(self) -> Result<OpenTarget, CliError> {
        match self {
            Self::Broker(sink) => Ok(OpenTarget::Broker(sink.connect().await?)),
            Self::Lines => Ok(OpenTarget::Lines),
        }
    }
}

impl OpenTarget {
    /// Takes all chunks. Returns, once every event of them has arrived, how many of each type did.
    ///
    /// # Errors
    /// The events do not get through, or the user wants to stop.
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
                let tally = written.map_err(|e| {
                    CliError::new(ExitReason::Failed, format!("writing broke off: {e}"))
                })??;
                Ok((tally, Console::Err))
            }
        }
    }
}

fn write_lines(mut chunks: mpsc::Receiver<EventBatch>) -> Result<EventCounts, CliError> {
    let failed = |e: io::Error| {
        CliError::new(
            ExitReason::Io,
            format!("cannot write events to standard output: {e}"),
        )
    };
    let mut out = BufWriter::new(io::stdout().lock());
    let mut tally = EventCounts::default();
    while let Some(chunk) = chunks.blocking_recv() {
        for LineEvent { event, .. } in &chunk.events {
            let line = json::write(event).map_err(|e| {
                CliError::new(ExitReason::Failed, format!("event {}: {e}", event.id))
            })?;
            writeln!(out, "{line}").map_err(failed)?;
            tally.add(event);
        }
        out.flush().map_err(failed)?;
    }
    Ok(tally)
}
