//! Batches of events between the reader and the publisher, through a channel that holds a few.
//!
//! Sending one event at a time through the channel costs more than making it. Batches are limited in events and in
//! bytes, so the channel's memory is, too.

use doorstep_event::Event;
use tokio::sync::mpsc;

/// The limit of events in a batch.
const MAX_EVENTS: usize = 500;
/// The size in bytes at which a batch is full.
const FULL_BYTES: usize = 1024 * 1024;
/// The limit of batches that wait in the channel.
const WAITING_CHUNKS: usize = 4;

/// An event with its place in the input.
#[derive(Debug, Clone)]
pub(crate) struct LineEvent {
    /// The number of its line, from 1.
    pub(crate) line: u64,
    pub(crate) event: Event,
}

/// Events in order, and the number of input rows that they complete.
#[derive(Debug, Default)]
pub(crate) struct EventBatch {
    pub(crate) events: Vec<LineEvent>,
    /// The number of rows or lines that were read for this batch.
    pub(crate) rows: u64,
}

/// Fills batches and sends them.
pub(crate) struct BatchSender {
    sender: mpsc::Sender<EventBatch>,
    chunk: EventBatch,
    bytes: usize,
}

/// The receiver is gone: it has failed or was stopped, and reports the reason itself.
#[derive(Debug)]
pub(crate) struct ReceiverGone;

impl BatchSender {
    /// Creates the two ends of a channel of batches.
    pub(crate) fn channel() -> (Self, mpsc::Receiver<EventBatch>) {
        let (sender, receiver) = mpsc::channel(WAITING_CHUNKS);
        let chunks = Self {
            sender,
            chunk: EventBatch::default(),
            bytes: 0,
        };
        (chunks, receiver)
    }

    /// Adds the events of the row at this line; empties `events`. Blocks while the channel is full.
    ///
    /// # Errors
    /// The receiver is gone.
    pub(crate) fn add(&mut self, line: u64, events: &mut Vec<Event>) -> Result<(), ReceiverGone> {
        self.bytes += events.iter().map(Event::size).sum::<usize>();
        let events = events.drain(..).map(|event| LineEvent { line, event });
        self.chunk.events.extend(events);
        self.chunk.rows += 1;
        if self.chunk.events.len() >= MAX_EVENTS || self.bytes >= FULL_BYTES {
            self.flush()?;
        }
        Ok(())
    }

    /// Sends the present batch, however small. Blocks while the channel is full.
    ///
    /// # Errors
    /// The receiver is gone.
    pub(crate) fn flush(&mut self) -> Result<(), ReceiverGone> {
        self.bytes = 0;
        let chunk = std::mem::take(&mut self.chunk);
        if chunk.events.is_empty() && chunk.rows == 0 {
            return Ok(());
        }
        self.sender.blocking_send(chunk).map_err(|_| ReceiverGone)
    }
}
