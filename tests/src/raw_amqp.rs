//! Hand-written AMQP: frames with arbitrary octets, which no client library writes.

use std::time::Duration;

use doorstep_broker::AmqpAddress;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

const LIMIT: Duration = Duration::from_secs(60);
const METHOD: u8 = 1;
const HEADER: u8 = 2;
const BODY: u8 = 3;
const FRAME_END: u8 = 0xce;
/// The frame size negotiated with the broker, the usual one.
const FRAME_MAX: u32 = 131_072;

/// The text properties, with their bits among the flags.
const TEXTS: [(&str, u16); 10] = [
    ("content_type", 15),
    ("content_encoding", 14),
    ("correlation_id", 10),
    ("reply_to", 9),
    ("expiration", 8),
    ("message_id", 7),
    ("type", 5),
    ("user_id", 4),
    ("app_id", 3),
    ("cluster_id", 2),
];
const HEADERS: u16 = 13;
const DELIVERY_MODE: u16 = 12;

/// The properties of a message as octets.
#[derive(Debug, Clone, Default)]
pub struct RawProperties {
    texts: Vec<(u16, Vec<u8>)>,
    fields: Vec<u8>,
}

impl RawProperties {
    /// Adds a text property with arbitrary octets.
    ///
    /// # Panics
    /// If there is no property of this name.
    #[must_use]
    pub fn text(mut self, name: &str, text: &[u8]) -> Self {
        let (_, bit) = TEXTS.iter().find(|(known, _)| *known == name).unwrap();
        self.texts.push((*bit, text.to_vec()));
        self
    }

    /// Adds a header with arbitrary octets as its name; the value includes its type octet.
    #[must_use]
    pub fn header(mut self, name: &[u8], value: &[u8]) -> Self {
        self.fields.extend(field(name, value));
        self
    }

    #[must_use]
    pub fn header_text(self, name: &str, text: &str) -> Self {
        self.header(name.as_bytes(), &with_length(b'S', text.as_bytes()))
    }

    fn written(&self) -> Vec<u8> {
        let mut flags = 1 << DELIVERY_MODE;
        let mut values = Vec::new();
        for bit in (0..=15).rev() {
            if bit == HEADERS && !self.fields.is_empty() {
                flags |= 1 << HEADERS;
                values.extend((self.fields.len() as u32).to_be_bytes());
                values.extend(&self.fields);
            } else if bit == DELIVERY_MODE {
                values.push(2);
            } else if let Some((_, text)) = self.texts.iter().find(|(at, _)| *at == bit) {
                flags |= 1 << bit;
                short_string(&mut values, text);
            }
        }
        let mut written = u16::to_be_bytes(flags).to_vec();
        written.extend(values);
        written
    }
}

fn field(name: &[u8], value: &[u8]) -> Vec<u8> {
    let mut field = Vec::new();
    short_string(&mut field, name);
    field.extend(value);
    field
}

fn short_string(into: &mut Vec<u8>, text: &[u8]) {
    into.push(u8::try_from(text.len()).unwrap());
    into.extend(text);
}

/// Encodes a value of a type that begins with its length.
fn with_length(kind: u8, octets: &[u8]) -> Vec<u8> {
    let mut value = vec![kind];
    value.extend((octets.len() as u32).to_be_bytes());
    value.extend(octets);
    value
}

/// Encodes a header value of this many nested tables.
#[must_use]
pub fn nested_tables(levels: usize) -> Vec<u8> {
    let mut value = vec![b'V'];
    for _ in 0..levels {
        value = with_length(b'F', &field(b"t", &value));
    }
    value
}

/// Encodes a header value of this many nested arrays.
#[must_use]
pub fn nested_arrays(levels: usize) -> Vec<u8> {
    let mut value = vec![b'V'];
    for _ in 0..levels {
        value = with_length(b'A', &value);
    }
    value
}

/// A connection with one channel in confirm mode.
pub struct RawAmqp {
    stream: TcpStream,
    published: u64,
    confirmed: u64,
}

impl RawAmqp {
    /// Connects.
    ///
    /// # Panics
    /// If the broker rejects the connection.
    pub async fn open(amqp_url: &str) -> Self {
        let address = AmqpAddress::parse(amqp_url).unwrap();
        let place = (address.host.as_str(), address.port);
        let mut raw = Self {
            stream: TcpStream::connect(place).await.unwrap(),
            published: 0,
            confirmed: 0,
        };
        raw.stream.write_all(b"AMQP\0\0\x09\x01").await.unwrap();
        raw.expect(0, 10, 10).await;
        let login = format!("\0{}\0{}", address.user, address.password);
        let mut start_ok = 0_u32.to_be_bytes().to_vec();
        short_string(&mut start_ok, b"PLAIN");
        start_ok.extend((login.len() as u32).to_be_bytes());
        start_ok.extend(login.as_bytes());
        short_string(&mut start_ok, b"en_US");
        raw.method(0, 10, 11, &start_ok).await;
        raw.expect(0, 10, 30).await;
        let mut tune_ok = 1_u16.to_be_bytes().to_vec();
        tune_ok.extend(FRAME_MAX.to_be_bytes());
        tune_ok.extend(0_u16.to_be_bytes());
        raw.method(0, 10, 31, &tune_ok).await;
        let mut open = Vec::new();
        short_string(&mut open, address.vhost.as_bytes());
        open.extend([0, 0]);
        raw.method(0, 10, 40, &open).await;
        raw.expect(0, 10, 41).await;
        raw.method(1, 20, 10, &[0]).await;
        raw.expect(1, 20, 11).await;
        raw.method(1, 85, 10, &[0]).await;
        raw.expect(1, 85, 11).await;
        raw
    }

    /// Publishes a message without waiting for its confirm.
    ///
    /// # Panics
    /// If the connection is closed.
    pub async fn publish(
        &mut self,
        exchange: &str,
        routing_key: &[u8],
        properties: &RawProperties,
        body: &[u8],
    ) {
        let mut publish = vec![0, 0];
        short_string(&mut publish, exchange.as_bytes());
        short_string(&mut publish, routing_key);
        publish.push(0);
        let mut header = vec![0, 60, 0, 0];
        header.extend((body.len() as u64).to_be_bytes());
        header.extend(properties.written());
        let mut frames = method_frame(1, 60, 40, &publish);
        frames.extend(frame(HEADER, 1, &header));
        if !body.is_empty() {
            frames.extend(frame(BODY, 1, body));
        }
        self.stream.write_all(&frames).await.unwrap();
        self.published += 1;
    }

    /// Waits until the broker has confirmed all published messages.
    ///
    /// # Panics
    /// If it sends any other method.
    pub async fn confirmed(&mut self) {
        while self.confirmed < self.published {
            let arguments = self.expect(1, 60, 80).await;
            let tag = u64::from_be_bytes(arguments[..8].try_into().unwrap());
            self.confirmed = self.confirmed.max(tag);
        }
    }

    async fn method(&mut self, channel: u16, class: u16, method: u16, arguments: &[u8]) {
        let frame = method_frame(channel, class, method, arguments);
        self.stream.write_all(&frame).await.unwrap();
    }

    /// Reads the next method, which must be this one, and returns its arguments.
    async fn expect(&mut self, channel: u16, class: u16, method: u16) -> Vec<u8> {
        let (on, payload) = timeout(LIMIT, self.read_frame())
            .await
            .expect("the broker sends nothing");
        let wanted = [class.to_be_bytes(), method.to_be_bytes()].concat();
        assert!(
            on == channel && payload.starts_with(&wanted),
            "not {class}.{method}: {}",
            String::from_utf8_lossy(&payload)
        );
        payload[4..].to_vec()
    }

    async fn read_frame(&mut self) -> (u16, Vec<u8>) {
        loop {
            let mut header = [0; 7];
            self.stream.read_exact(&mut header).await.unwrap();
            let [kind, c1, c0, l3, l2, l1, l0] = header;
            let mut payload = vec![0; u32::from_be_bytes([l3, l2, l1, l0]) as usize + 1];
            self.stream.read_exact(&mut payload).await.unwrap();
            assert_eq!(payload.pop(), Some(FRAME_END));
            if kind == METHOD {
                return (u16::from_be_bytes([c1, c0]), payload);
            }
        }
    }
}

fn method_frame(channel: u16, class: u16, method: u16, arguments: &[u8]) -> Vec<u8> {
    let mut payload = class.to_be_bytes().to_vec();
    payload.extend(method.to_be_bytes());
    payload.extend(arguments);
    frame(METHOD, channel, &payload)
}

fn frame(kind: u8, channel: u16, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![kind];
    frame.extend(channel.to_be_bytes());
    frame.extend((payload.len() as u32).to_be_bytes());
    frame.extend(payload);
    frame.push(FRAME_END);
    frame
}
