//! The queue: deliveries to several owners at once, with a prefetch and channels that close.

use std::collections::VecDeque;

use doorstep_runtime::InboundMessage;

/// A message in the queue.
#[derive(Debug, Clone)]
pub struct Message {
    pub incoming: InboundMessage,
    pub redelivered: bool,
}

/// The id of one channel of one owner, never used again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Generation(u64);

/// The place to which unacked deliveries of a closed channel return: brokers have done both.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Return {
    ToFront,
    ToBack,
}

/// An ack on its way to the broker, for all deliveries up to a tag.
#[derive(Debug, Clone, Copy)]
struct SentAck {
    owner: usize,
    generation: Generation,
    tag: u64,
}

struct Channel {
    generation: Generation,
    unsettled: VecDeque<(u64, Message)>,
    /// The number of unacked deliveries that the owner has taken out of its buffer.
    taken: usize,
}

pub struct Queue {
    ready: VecDeque<Message>,
    channels: Vec<Channel>,
    wire: VecDeque<SentAck>,
    generations: u64,
    tags: u64,
    prefetch: usize,
}

impl Queue {
    pub fn new(owners: usize, prefetch: usize) -> Self {
        let mut queue = Self {
            ready: VecDeque::new(),
            channels: Vec::new(),
            wire: VecDeque::new(),
            generations: 0,
            tags: 0,
            prefetch,
        };
        queue.channels = (0..owners).map(|_| queue.channel()).collect();
        queue
    }

    fn channel(&mut self) -> Channel {
        self.generations += 1;
        Channel {
            generation: Generation(self.generations),
            unsettled: VecDeque::new(),
            taken: 0,
        }
    }

    pub fn publish(&mut self, incoming: InboundMessage) {
        self.ready.push_back(Message {
            incoming,
            redelivered: false,
        });
    }

    /// Fills an owner's buffer.
    pub fn push(&mut self, owner: usize) {
        while self.channels[owner].unsettled.len() < self.prefetch {
            let Some(message) = self.ready.pop_front() else {
                return;
            };
            self.tags += 1;
            self.channels[owner]
                .unsettled
                .push_back((self.tags, message));
        }
    }

    /// Takes deliveries out of the owner's buffer, never of two channels.
    pub fn take(&mut self, owner: usize, most: usize) -> Option<(Generation, u64, Vec<Message>)> {
        self.push(owner);
        let channel = &mut self.channels[owner];
        let batch: Vec<_> = channel
            .unsettled
            .iter()
            .skip(channel.taken)
            .take(most)
            .cloned()
            .collect();
        channel.taken += batch.len();
        let (last, _) = batch.last()?;
        Some((
            channel.generation,
            *last,
            batch.into_iter().map(|(_, message)| message).collect(),
        ))
    }

    /// Sends an ack. It arrives with [`Queue::arrive`].
    pub fn send_ack(&mut self, owner: usize, generation: Generation, tag: u64) {
        self.wire.push_back(SentAck {
            owner,
            generation,
            tag,
        });
    }

    /// Lets the oldest ack arrive; it is discarded if its channel is no longer open. Returns whether there was one.
    pub fn arrive(&mut self) -> bool {
        let Some(settlement) = self.wire.pop_front() else {
            return false;
        };
        let channel = &mut self.channels[settlement.owner];
        if channel.generation != settlement.generation {
            return true;
        }
        while channel
            .unsettled
            .front()
            .is_some_and(|(tag, _)| *tag <= settlement.tag)
        {
            channel.unsettled.pop_front();
            channel.taken -= 1;
        }
        true
    }

    /// Closes an owner's channel and opens another one.
    pub fn cut(&mut self, owner: usize, to: Return) {
        let fresh = self.channel();
        let dead = std::mem::replace(&mut self.channels[owner], fresh);
        let back = dead.unsettled.into_iter().map(|(_, mut message)| {
            message.redelivered = true;
            message
        });
        match to {
            Return::ToBack => self.ready.extend(back),
            Return::ToFront => {
                for message in back.rev() {
                    self.ready.push_front(message);
                }
            }
        }
    }

    /// Returns whether no message is ready or unacked, and no ack on its way.
    pub fn is_empty(&self) -> bool {
        self.ready.is_empty()
            && self.wire.is_empty()
            && self.channels.iter().all(|c| c.unsettled.is_empty())
    }
}
