//! Where events go: to the broker, or as JSON lines to standard output.

use std::io::{self, BufWriter, Write};

use doorstep_event::json;
use doorstep_program::{Failure, Reason, Stop};
use tokio::{sync::mpsc, task::spawn_blocking};

use crate::{
    chunk::{Chunk, LineEvent},
    progress::Progress,
    send::{BrokerSink, Sender},
    stop::nothing_sent,
    tally::Tally,
};

/// Where events are to go.
#[derive(Debug)]
pub(crate) enum Output {
    /// To the broker, every event confirmed.
    Broker(Box<BrokerSink>),
    /// To standard output, one CloudEvents object a line.
    Lines,
}

/// An output that is ready.
pub(crate) enum OpenOutput {
    /// Connected.
    Broker(Sender),
    /// Nothing to open.
    Lines,
}

/// Where the program talks to its user: not where the events are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Voice {
    /// Standard output.
    Out,
    /// Standard error.
    Err,
}

impl Voice {
    /// What has become of the events when all is done.
    pub(crate) fn arrived(self) -> &'static str {
        match self {
            Self::Out => "confirmed",
            Self::Err => "written",
        }
    }

    /// Says a line. Nobody listening is no reason to fail when the work is done.
    pub(crate) fn say(self, text: &str) {
        let _ = match self {
            Self::Out => writeln!(io::stdout(), "{text}"),
            Self::Err => writeln!(io::stderr(), "{text}"),
        };
    }
}

impl Output {
    /// Connects where that is needed, in bounded time.
    ///
    /// # Errors
    /// The broker cannot be reached or refuses us.
    pub(crate) async fn open(self) -> Result<OpenOutput, Failure> {
        match self {
            Self::Broker(sink) => Ok(OpenOutput::Broker(sink.connect().await?)),
            Self::Lines => Ok(OpenOutput::Lines),
        }
    }
}

impl OpenOutput {
    /// Takes all chunks. Returns, once every event of them has arrived, how many of each type did.
    ///
    /// # Errors
    /// The events do not get through, or the user wants to stop.
    pub(crate) async fn take(
        self,
        chunks: mpsc::Receiver<Chunk>,
        progress: &mut Progress,
        mut stop: Stop,
    ) -> Result<(Tally, Voice), Failure> {
        match self {
            Self::Broker(sender) => {
                let tally = sender.send_all(chunks, progress, stop).await?;
                Ok((tally, Voice::Out))
            }
            Self::Lines => {
                let writing = spawn_blocking(move || write_lines(chunks));
                let written = stop.unless_wanted(writing).await.ok_or_else(nothing_sent)?;
                let tally = written.map_err(|e| {
                    Failure::new(Reason::Failed, format!("writing broke off: {e}"))
                })??;
                Ok((tally, Voice::Err))
            }
        }
    }
}

fn write_lines(mut chunks: mpsc::Receiver<Chunk>) -> Result<Tally, Failure> {
    let failed = |e: io::Error| {
        Failure::new(
            Reason::Io,
            format!("cannot write events to standard output: {e}"),
        )
    };
    let mut out = BufWriter::new(io::stdout().lock());
    let mut tally = Tally::default();
    while let Some(chunk) = chunks.blocking_recv() {
        for LineEvent { event, .. } in &chunk.events {
            let line = json::write(event)
                .map_err(|e| Failure::new(Reason::Failed, format!("event {}: {e}", event.id)))?;
            writeln!(out, "{line}").map_err(failed)?;
            tally.add(event);
        }
        out.flush().map_err(failed)?;
    }
    Ok(tally)
}
