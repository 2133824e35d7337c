//! A fake broker with just enough protocol for a publisher: it returns and confirms like RabbitMQ, in random order.

use std::collections::BTreeSet;

use rand::{RngExt, SeedableRng, rngs::StdRng};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

/// A queue that does not exist.
pub(crate) const UNBOUND_QUEUE: &str = "nowhere";

/// A broker for one connection that publishes on one channel.
pub(crate) struct FakeBroker {
    /// Number of messages to receive before it returns or confirms any.
    window: usize,
    socket: TcpStream,
    rng: StdRng,
    /// Published, unconfirmed messages, by tag from `first_tag`.
    published: Vec<Published>,
    first_tag: u64,
}

#[derive(Default)]
struct Published {
    routing_key: String,
    header: Vec<u8>,
    body: Vec<u8>,
}

struct Frame {
    kind: u8,
    channel: u16,
    payload: Vec<u8>,
}

const METHOD: u8 = 1;
const HEADER: u8 = 2;
const BODY: u8 = 3;

impl FakeBroker {
    pub(crate) fn new(socket: TcpStream, window: usize) -> Self {
        Self {
            window,
            socket,
            rng: StdRng::seed_from_u64(11),
            published: Vec::new(),
            first_tag: 1,
        }
    }

    pub(crate) async fn run(mut self) {
        let mut greeting = [0; 8];
        self.socket
            .read_exact(&mut greeting)
            .await
            .expect("the client sends its protocol header");
        // connection.start: version 0-9, no properties, PLAIN, en_US.
        let start = [
            &[0, 9, 0, 0, 0, 0][..],
            &[0, 0, 0, 5],
            b"PLAIN",
            &[0, 0, 0, 5],
            b"en_US",
        ];
        self.send(METHOD, 0, &method(10, 10, &start.concat())).await;
        while let Some(frame) = self.receive().await {
            match frame.kind {
                METHOD if !self.reply(frame.channel, &frame.payload).await => return,
                HEADER => self.last().header = frame.payload,
                BODY => {
                    self.last().body = frame.payload;
                    if self.published.len() == self.window {
                        self.confirm(frame.channel).await;
                    }
                }
                _ => {}
            }
        }
    }

    fn last(&mut self) -> &mut Published {
        self.published.last_mut().expect("a method comes first")
    }

    /// Replies to a method. Returns false when the connection is to end.
    async fn reply(&mut self, channel: u16, payload: &[u8]) -> bool {
        let number = |at: usize| u16::from_be_bytes([payload[at], payload[at + 1]]);
        let reply = match (number(0), number(2)) {
            // start-ok: tune, with no channel limit, frames of 128 KiB and no heartbeat.
            (10, 11) => method(10, 30, &[0, 0, 0, 2, 0, 0, 0, 0]),
            (10, 31) => return true,
            (10, 40) => method(10, 41, &[0]),
            (10, 50) => method(10, 51, &[]),
            (20, 10) => method(20, 11, &[0, 0, 0, 0]),
            (20, 40) => method(20, 41, &[]),
            (60, 10) => method(60, 11, &[]),
            (85, 10) => method(85, 11, &[]),
            (60, 40) => {
                let exchange = usize::from(payload[6]);
                let key = &payload[7 + exchange..];
                let routing_key = &key[1..=usize::from(key[0])];
                self.published.push(Published {
                    routing_key: String::from_utf8_lossy(routing_key).into_owned(),
                    ..Published::default()
                });
                return true;
            }
            other => panic!("method {other:?} is not implemented"),
        };
        let end = (number(0), number(2)) == (10, 50);
        self.send(METHOD, channel, &reply).await;
        !end
    }

    /// Returns and confirms all published messages.
    async fn confirm(&mut self, channel: u16) {
        let published = std::mem::take(&mut self.published);
        let count = published.len() as u64;
        let mut ready = BTreeSet::new();
        let mut written = BTreeSet::new();
        let mut confirmed = BTreeSet::new();
        let mut out = Vec::new();
        let mut processed = 0;
        while (confirmed.len() as u64) < count {
            // The channel processes some of the messages; the queue writes some of those, in order.
            let until = (processed + self.rng.random_range(1..=count)).min(count);
            for tag in processed..until {
                let message = &published[tag as usize];
                if message.routing_key == UNBOUND_QUEUE {
                    returned(&mut out, channel, message);
                    ready.insert(tag);
                } else {
                    written.insert(tag);
                }
            }
            processed = until;
            let some = self.rng.random_range(0..=written.len());
            for _ in 0..some {
                ready.extend(written.pop_first());
            }
            let first_unready = (0..count)
                .find(|tag| !ready.contains(tag) && !confirmed.contains(tag))
                .unwrap_or(count);
            let single = ready.split_off(&first_unready);
            if let Some(last) = ready.last() {
                acknowledge(&mut out, channel, self.first_tag + last, true);
            }
            for tag in &single {
                acknowledge(&mut out, channel, self.first_tag + tag, false);
            }
            confirmed.append(&mut ready);
            confirmed.extend(single);
        }
        self.first_tag += count;
        self.socket
            .write_all(&out)
            .await
            .expect("the client listens");
    }

    async fn receive(&mut self) -> Option<Frame> {
        let mut head = [0; 7];
        self.socket.read_exact(&mut head).await.ok()?;
        let size = u32::from_be_bytes([head[3], head[4], head[5], head[6]]);
        let mut payload = vec![0; size as usize + 1];
        self.socket.read_exact(&mut payload).await.ok()?;
        assert_eq!(payload.pop(), Some(0xce), "invalid frame end");
        Some(Frame {
            kind: head[0],
            channel: u16::from_be_bytes([head[1], head[2]]),
            payload,
        })
    }

    async fn send(&mut self, kind: u8, channel: u16, payload: &[u8]) {
        let mut out = Vec::new();
        frame(&mut out, kind, channel, payload);
        self.socket
            .write_all(&out)
            .await
            .expect("the client listens");
    }
}

fn method(class: u16, method: u16, arguments: &[u8]) -> Vec<u8> {
    [&class.to_be_bytes(), &method.to_be_bytes(), arguments].concat()
}

fn frame(out: &mut Vec<u8>, kind: u8, channel: u16, payload: &[u8]) {
    out.push(kind);
    out.extend(channel.to_be_bytes());
    out.extend((payload.len() as u32).to_be_bytes());
    out.extend(payload);
    out.push(0xce);
}

fn returned(out: &mut Vec<u8>, channel: u16, message: &Published) {
    // Code 312 with its text, the default exchange, the routing key.
    let key = message.routing_key.as_bytes();
    let arguments = [
        &312_u16.to_be_bytes()[..],
        &[8],
        b"NO_ROUTE",
        &[0],
        &[key.len() as u8],
        key,
    ];
    frame(out, METHOD, channel, &method(60, 50, &arguments.concat()));
    frame(out, HEADER, channel, &message.header);
    frame(out, BODY, channel, &message.body);
}

fn acknowledge(out: &mut Vec<u8>, channel: u16, tag: u64, multiple: bool) {
    let arguments = [&tag.to_be_bytes()[..], &[u8::from(multiple)]].concat();
    frame(out, METHOD, channel, &method(60, 80, &arguments));
}
