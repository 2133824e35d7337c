//! Events on their way from whoever makes them to whoever sends them: in chunks, through a channel that holds a few.
//!
//! Chunks, because handing over one event at a time costs more than making it. They are bounded in number and in bytes, and so is all
//! that is between the two.

use doorstep_event::Event;
use tokio::sync::mpsc;

/// The most events of a chunk.
const MAX_EVENTS: usize = 500;
/// A chunk that has reached so many bytes is full.
const FULL_BYTES: usize = 1024 * 1024;
/// The most chunks that wait to be sent.
const WAITING_CHUNKS: usize = 4;

/// An event with its place in the input.
#[derive(Debug, Clone)]
pub(crate) struct LineEvent {
    /// The number of its line, from 1.
    pub(crate) line: u64,
    /// The event.
    pub(crate) event: Event,
}

/// Some events in order, and how much of the input they complete.
#[derive(Debug, Default)]
pub(crate) struct EventBatch {
    /// The events.
    pub(crate) events: Vec<LineEvent>,
    /// How many rows or lines of the input were read for this chunk.
    pub(crate) rows: u64,
}

/// Fills chunks and hands them over.
pub(crate) struct BatchSender {
    sender: mpsc::Sender<EventBatch>,
    chunk: EventBatch,
    bytes: usize,
}

/// Nobody takes chunks any more: the other end has failed or was stopped, and says itself why.
#[derive(Debug)]
pub(crate) struct ReceiverGone;

impl BatchSender {
    /// The two ends of a channel of chunks.
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
    /// Nobody takes chunks any more.
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

    /// Hands over what there is, be it little. Blocks while the channel is full.
    ///
    /// # Errors
    /// Nobody takes chunks any more.
    pub(crate) fn flush(&mut self) -> Result<(), ReceiverGone> {
        self.bytes = 0;
        let chunk = std::mem::take(&mut self.chunk);
        if chunk.events.is_empty() && chunk.rows == 0 {
            return Ok(());
        }
        self.sender.blocking_send(chunk).map_err(|_| ReceiverGone)
    }
}
