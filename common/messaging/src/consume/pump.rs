//! Takes deliveries from the client, decodes them and puts them into the inbox, in chunks: what is there already shares a wake-up.

use std::sync::Arc;

use futures_util::{FutureExt, StreamExt};
use lapin::Consumer;

use super::{Delivery, Generation, channels::OpenChannel, decode::decode, inbox::Inbox};
use crate::names::QueueName;

/// The most deliveries that are decoded before the engine hears of them.
const CHUNK: usize = 128;

/// One queue's way into the inbox.
pub(super) struct Pump {
    pub(super) consumer: Consumer,
    pub(super) channel: Generation,
    pub(super) open: Arc<OpenChannel>,
    pub(super) queue: QueueName,
    pub(super) inbox: Arc<Inbox>,
}

impl Pump {
    /// Runs until the consumer ends, which it never should, and says why it did.
    pub(super) async fn run(mut self) -> String {
        let mut chunk: Vec<Delivery> = Vec::with_capacity(CHUNK);
        loop {
            let mut next = self.consumer.next().await;
            let mut last_tag = 0;
            let end = loop {
                match next {
                    Some(Ok(received)) => {
                        last_tag = received.delivery_tag;
                        chunk.push(decode(received));
                    }
                    Some(Err(error)) => break Some(crate::connection::words(&error)),
                    // The broker's cancel looks like this: the queue was deleted, lost its leader, or we were too slow.
                    None => {
                        let queue = &self.queue;
                        break Some(format!("the broker ended the consumption of {queue}"));
                    }
                }
                if chunk.len() == CHUNK {
                    break None;
                }
                match self.consumer.next().now_or_never() {
                    Some(more) => next = more,
                    None => break None,
                }
            };
            if !chunk.is_empty() {
                self.open.received(last_tag);
                self.inbox.add(self.channel, &mut chunk);
            }
            if let Some(reason) = end {
                return reason;
            }
        }
    }
}
