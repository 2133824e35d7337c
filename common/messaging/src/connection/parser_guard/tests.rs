//! Compares the guard with lapin's own parser.

use std::{io, task::Poll};

use amq_protocol::{
    frame::{AMQPContentHeader, AMQPFrame, gen_frame, parse_frame},
    protocol::{
        AMQPClass, basic, channel,
        connection::{AMQPMethod, Tune},
    },
    types::{AMQPValue, ByteArray, DecimalValue, FieldArray, FieldTable, LongString},
};
use lapin::BasicProperties;
use proptest::{collection::vec, option, prelude::*, sample::Index};

use super::{
    CONTENT_HEADER, FRAME_END, FRAME_HEADER, Guard, GuardedReader, Inspection, Undecodable, check,
    check::{Levels, MAX_DEPTH},
    defect::Defect,
};

fn written(frame: &AMQPFrame) -> Vec<u8> {
    let bytes = gen_frame(frame)(Vec::new().into()).unwrap();
    bytes.into_inner().0
}

fn header_frame(payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![CONTENT_HEADER, 0, 1];
    frame.extend((payload.len() as u32).to_be_bytes());
    frame.extend(payload);
    frame.push(FRAME_END);
    frame
}

fn payload_of(properties: BasicProperties) -> Vec<u8> {
    let frame = written(&AMQPFrame::Header(
        1,
        AMQPContentHeader {
            class_id: 60,
            body_size: 7,
            properties,
        },
    ));
    frame[FRAME_HEADER..frame.len() - 1].to_vec()
}

/// Returns a content header with only headers, whose fields are these bytes.
fn with_fields(fields: &[u8]) -> Vec<u8> {
    let mut payload = vec![0, 60, 0, 0, 0, 0, 0, 0, 0, 0, 0, 7, 0x20, 0];
    payload.extend((fields.len() as u32).to_be_bytes());
    payload.extend(fields);
    payload
}

/// Returns a field of nested tables or arrays.
fn nested(levels: usize, kind: u8) -> Vec<u8> {
    let mut inner = Vec::new();
    for _ in 0..levels {
        let mut outer: Vec<u8> = match kind {
            b'F' => vec![1, b't', kind],
            _ => vec![kind],
        };
        outer.extend((inner.len() as u32).to_be_bytes());
        outer.extend(inner);
        inner = outer;
    }
    if kind != b'F' {
        inner.splice(0..0, [1, b't']);
    }
    inner
}

fn checked(payload: &[u8]) -> Result<(), Defect> {
    check::content_header(payload, &mut Levels::default())
}

fn client_reads(payload: &[u8]) -> bool {
    parse_frame(header_frame(payload).as_slice()).is_ok()
}

fn value() -> impl Strategy<Value = AMQPValue> {
    let leaf = prop_oneof![
        any::<bool>().prop_map(AMQPValue::Boolean),
        any::<i8>().prop_map(AMQPValue::ShortShortInt),
        any::<u8>().prop_map(AMQPValue::ShortShortUInt),
        any::<i16>().prop_map(AMQPValue::ShortInt),
        any::<u16>().prop_map(AMQPValue::ShortUInt),
        any::<i32>().prop_map(AMQPValue::LongInt),
        any::<u32>().prop_map(AMQPValue::LongUInt),
        any::<i64>().prop_map(AMQPValue::LongLongInt),
        any::<f32>().prop_map(AMQPValue::Float),
        any::<f64>().prop_map(AMQPValue::Double),
        (any::<u8>(), any::<u32>())
            .prop_map(|(scale, value)| AMQPValue::DecimalValue(DecimalValue { scale, value })),
        vec(any::<u8>(), 0..20).prop_map(|text| AMQPValue::LongString(LongString::from(text))),
        any::<u64>().prop_map(AMQPValue::Timestamp),
        vec(any::<u8>(), 0..20).prop_map(|bytes| AMQPValue::ByteArray(ByteArray::from(bytes))),
        Just(AMQPValue::Void),
    ];
    leaf.prop_recursive(6, 40, 5, |inner| {
        prop_oneof![
            vec(inner.clone(), 0..5)
                .prop_map(|values| AMQPValue::FieldArray(FieldArray::from(values))),
            vec((".{0,8}", inner), 0..5).prop_map(|fields| AMQPValue::FieldTable(table(fields))),
        ]
    })
}

fn table(fields: Vec<(String, AMQPValue)>) -> FieldTable {
    let mut table = FieldTable::default();
    for (name, value) in fields {
        table.insert(name.as_str().into(), value);
    }
    table
}

fn payload() -> impl Strategy<Value = Vec<u8>> {
    let short = || option::of(".{0,12}");
    let texts = (short(), short(), short(), short(), short(), short());
    let headers = option::of(vec((".{0,8}", value()), 0..6));
    (
        texts,
        headers,
        option::of(any::<u8>()),
        option::of(any::<u64>()),
    )
        .prop_map(|(texts, headers, octet, timestamp)| {
            let mut properties = BasicProperties::default();
            let (content_type, correlation, id, kind, app, cluster) = texts;
            if let Some(text) = content_type {
                properties = properties.with_content_type(text.as_str().into());
            }
            if let Some(text) = correlation {
                properties = properties.with_correlation_id(text.as_str().into());
            }
            if let Some(text) = id {
                properties = properties.with_message_id(text.as_str().into());
            }
            if let Some(text) = kind {
                properties = properties.with_type(text.as_str().into());
            }
            if let Some(text) = app {
                properties = properties.with_app_id(text.as_str().into());
            }
            if let Some(text) = cluster {
                properties = properties.with_cluster_id(text.as_str().into());
            }
            if let Some(headers) = headers {
                properties = properties.with_headers(table(headers));
            }
            if let Some(octet) = octet {
                properties = properties.with_delivery_mode(octet).with_priority(octet);
            }
            if let Some(timestamp) = timestamp {
                properties = properties.with_timestamp(timestamp);
            }
            payload_of(properties)
        })
}

/// A change at one position of a payload.
#[derive(Debug, Clone)]
enum Mutation {
    Set(Index, u8),
    Insert(Index, Vec<u8>),
    Remove(Index),
    Truncate(Index),
    /// Overwrites four bytes, which may be a length.
    Length(Index, u32),
}

fn mutation() -> impl Strategy<Value = Mutation> {
    let at = any::<Index>;
    // Existing types, relevant lengths, and any byte.
    let octet = || {
        prop_oneof![
            prop::sample::select(b"tbBsUuIiLlfdDSATFxV\0\x01\xe9\xff".to_vec()),
            any::<u8>()
        ]
    };
    prop_oneof![
        (at(), octet()).prop_map(|(at, octet)| Mutation::Set(at, octet)),
        (at(), vec(octet(), 1..8)).prop_map(|(at, octets)| Mutation::Insert(at, octets)),
        at().prop_map(Mutation::Remove),
        at().prop_map(Mutation::Truncate),
        (at(), prop_oneof![0_u32..40, any::<u32>()])
            .prop_map(|(at, length)| Mutation::Length(at, length)),
    ]
}

fn mutate(payload: &mut Vec<u8>, mutation: &Mutation) {
    if payload.is_empty() {
        return;
    }
    match mutation {
        Mutation::Set(at, octet) => {
            let at = at.index(payload.len());
            payload[at] = *octet;
        }
        Mutation::Insert(at, octets) => {
            let at = at.index(payload.len());
            payload.splice(at..at, octets.iter().copied());
        }
        Mutation::Remove(at) => {
            payload.remove(at.index(payload.len()));
        }
        Mutation::Truncate(at) => payload.truncate(at.index(payload.len())),
        Mutation::Length(at, length) => {
            let at = at.index(payload.len());
            for (octet, new) in payload[at..].iter_mut().zip(length.to_be_bytes()) {
                *octet = new;
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn valid_headers_pass(payload in payload()) {
        prop_assert!(client_reads(&payload));
        prop_assert_eq!(checked(&payload), Ok(()));
    }

    #[test]
    fn headers_pass_if_lapin_parses_them(
        payload in payload(),
        mutations in vec(mutation(), 1..5),
    ) {
        let mut payload = payload;
        for mutation in &mutations {
            mutate(&mut payload, mutation);
        }
        let checked = checked(&payload);
        if checked != Err(Defect::TooDeep) {
            prop_assert_eq!(checked.is_ok(), client_reads(&payload), "{:?}", checked);
        }
    }

    #[test]
    fn lapin_parses_every_replacement(
        payload in payload(),
        mutations in vec(mutation(), 1..5),
        chunks in vec(1_usize..400, 1..20),
        rooms in vec(1_usize..400, 1..20),
    ) {
        let mut payload = payload;
        for mutation in &mutations {
            mutate(&mut payload, mutation);
        }
        // No broker sends a header without the body's size.
        prop_assume!(payload.len() >= check::BEFORE_PROPERTIES);
        let sent = delivery("q", &header_frame(&payload), b"ABC");
        let sent = [valid(), sent, valid()].concat();
        let read = frames(&read_by(&sent, &chunks, &rooms).unwrap());
        prop_assert_eq!(read.len(), 9);
        prop_assert_eq!(&read[..3], &frames(&valid())[..]);
        prop_assert_eq!(&read[6..], &frames(&valid())[..]);
        let AMQPFrame::Header(_, header) = &read[4] else { panic!("{:?}", read[4]) };
        let marked = Undecodable::from_properties(&header.properties);
        prop_assert_eq!(marked.is_some(), checked(&payload).is_err());
        prop_assert_eq!(&header.body_size.to_be_bytes(), &payload[4..12]);
        if let Some(marked) = marked {
            let json: serde_json::Value = serde_json::from_str(&marked.to_json("", "q")).unwrap();
            prop_assert!(json["wire_hex"].is_string());
            let _ = marked.correlation_id();
        }
    }
}

fn deliver(routing_key: &str) -> Vec<u8> {
    written(&AMQPFrame::Method(
        1,
        AMQPClass::Basic(basic::AMQPMethod::Deliver(basic::Deliver {
            consumer_tag: "tag".into(),
            delivery_tag: 3,
            redelivered: false,
            exchange: "events".into(),
            routing_key: routing_key.into(),
        })),
    ))
}

fn delivery(routing_key: &str, header: &[u8], body: &[u8]) -> Vec<u8> {
    let body = written(&AMQPFrame::Body(1, body.to_vec()));
    [deliver(routing_key), header.to_vec(), body].concat()
}

fn valid() -> Vec<u8> {
    let properties = BasicProperties::default().with_message_id("valid".into());
    delivery(
        "stock.adjusted.v1",
        &header_frame(&payload_of(properties)),
        b"valid",
    )
}

fn frames(mut bytes: &[u8]) -> Vec<AMQPFrame> {
    let mut frames = Vec::new();
    while !bytes.is_empty() {
        let (left, frame) = parse_frame(bytes).unwrap();
        frames.push(frame);
        bytes = left;
    }
    frames
}

/// Reads bytes that arrive in chunks of these sizes into buffers of these sizes, both repeated cyclically.
fn read_by(sent: &[u8], chunks: &[usize], rooms: &[usize]) -> io::Result<Vec<u8>> {
    let mut reader = GuardedReader::default();
    let (mut chunks, mut rooms) = (chunks.iter().cycle(), rooms.iter().cycle());
    let mut left = sent;
    let mut is_ready = false;
    let mut read = Vec::new();
    loop {
        let mut room = vec![0; *rooms.next().unwrap()];
        let polled = reader.poll_read(&mut room, |buffer| {
            is_ready = !is_ready;
            if !is_ready {
                return Poll::Pending;
            }
            let count = left.len().min(buffer.len()).min(*chunks.next().unwrap());
            buffer[..count].copy_from_slice(&left[..count]);
            left = &left[count..];
            Poll::Ready(Ok(count))
        })?;
        match polled {
            Poll::Pending => {}
            Poll::Ready(0) => return Ok(read),
            Poll::Ready(count) => read.extend(&room[..count]),
        }
    }
}

fn read(sent: &[u8]) -> Vec<AMQPFrame> {
    frames(&read_by(sent, &[usize::MAX], &[1 << 20]).unwrap())
}

fn mark_of(frame: &AMQPFrame) -> Undecodable {
    let AMQPFrame::Header(_, header) = frame else {
        panic!("{frame:?}")
    };
    Undecodable::from_properties(&header.properties).unwrap()
}

#[test]
fn nesting_passes_up_to_the_maximum_depth() {
    for kind in [b'F', b'A'] {
        let deepest = with_fields(&nested(MAX_DEPTH - 1, kind));
        assert_eq!(checked(&deepest), Ok(()));
        assert!(client_reads(&deepest));
        assert_eq!(
            checked(&with_fields(&nested(MAX_DEPTH, kind))),
            Err(Defect::TooDeep)
        );
        // As deep as a frame allows, which would crash lapin.
        let hostile = with_fields(&nested(131_000 / 7, kind));
        assert_eq!(checked(&hostile), Err(Defect::TooDeep));
        let sent = [
            valid(),
            delivery("q", &header_frame(&hostile), b"x"),
            valid(),
        ]
        .concat();
        let read = read(&sent);
        assert_eq!(read.len(), 9);
        let mark = mark_of(&read[4]);
        assert!(mark.reason.contains("64 levels"), "{}", mark.reason);
        assert!(mark.to_json("", "q").contains("nested deeper"));
    }
}

#[test]
fn each_hostile_message_of_a_read_is_replaced() {
    let hostile = delivery("q", &header_frame(&with_fields(&nested(2000, b'F'))), b"x");
    let sent = [valid(), hostile].concat().repeat(500);
    let read = read(&sent);
    assert_eq!(read.len(), 3000);
    for three in read.chunks(6) {
        mark_of(&three[4]);
    }
}

#[test]
fn invalid_utf8_in_a_method_is_repaired() {
    let mut hostile = delivery(
        "caf@",
        &header_frame(&payload_of(BasicProperties::default())),
        b"x",
    );
    let at = hostile.iter().position(|byte| *byte == b'@').unwrap();
    hostile[at] = 0xe9;
    let read = read(&[hostile, valid()].concat());
    let AMQPFrame::Method(_, AMQPClass::Basic(basic::AMQPMethod::Deliver(deliver))) = &read[0]
    else {
        panic!("{:?}", read[0])
    };
    assert_eq!(
        (deliver.routing_key.as_str(), deliver.delivery_tag),
        ("caf?", 3)
    );
    let mark = mark_of(&read[1]);
    assert_eq!(mark.reason, "routing_key is not UTF-8");
    assert!(
        mark.to_json("", "caf?")
            .contains(r#""routing_hex":"636166e9""#)
    );
    let AMQPFrame::Header(_, header) = &read[4] else {
        panic!("{:?}", read[4])
    };
    assert_eq!(Undecodable::from_properties(&header.properties), None);

    let close = AMQPFrame::Method(
        1,
        AMQPClass::Channel(channel::AMQPMethod::Close(channel::Close {
            reply_code: 406,
            reply_text: "caf@".into(),
            class_id: 0,
            method_id: 0,
        })),
    );
    let mut close = written(&close);
    let at = close.iter().position(|byte| *byte == b'@').unwrap();
    close[at] = 0xe9;
    frames(&read_by(&close, &[3], &[500]).unwrap());
}

#[test]
fn a_replacement_respects_the_negotiated_frame_size() {
    let tune = written(&AMQPFrame::Method(
        0,
        AMQPClass::Connection(AMQPMethod::Tune(Tune {
            channel_max: 10,
            frame_max: 4096,
            heartbeat: 1,
        })),
    ));
    let properties = BasicProperties::default()
        .with_correlation_id("c-1".into())
        .with_headers(table(vec![(
            "x".to_owned(),
            AMQPValue::LongString(LongString::from(vec![b'x'; 4000])),
        )]));
    let mut payload = payload_of(properties);
    let last = payload.len() - 1;
    payload[last] = 0xe9;
    let sent = [tune.clone(), header_frame(&payload)].concat();
    let mut guard = Guard::default();
    let mut bytes = sent;
    assert_eq!(guard.inspect(&mut bytes), Ok(Inspection::Pass(tune.len())));
    let Ok(Inspection::Replace(_, frame)) = guard.inspect(&mut bytes[tune.len()..]) else {
        panic!("the frame passed")
    };
    assert!(frame.len() <= 4096, "{}", frame.len());
    let mark = mark_of(&frames(&frame)[0]);
    let json = mark.to_json("", "");
    assert!(
        json.contains("wire_sha256") && json.contains("wire_length"),
        "{json}"
    );

    let long = header_frame(&vec![0; 4096]);
    assert!(read_by(&[tune, long].concat(), &[100], &[5000]).is_err());
}

#[test]
fn identity_is_stable_across_redeliveries() {
    let payload_after = |count: Option<i64>| {
        let mut fields = vec![("caf@".to_owned(), AMQPValue::Boolean(true))];
        if let Some(count) = count {
            fields.push(("x-delivery-count".to_owned(), AMQPValue::LongLongInt(count)));
        }
        let mut payload = payload_of(BasicProperties::default().with_headers(table(fields)));
        let at = payload.iter().position(|byte| *byte == b'@').unwrap();
        payload[at] = 0xe9;
        mark_of(&read(&header_frame(&payload))[0]).to_json("", "")
    };
    assert_eq!(payload_after(None), payload_after(Some(3)));
}

/// A broker that adds a header sorts all headers by name, and adds the table if there was none.
#[test]
fn identity_ignores_header_order() {
    let header = |name: &str| [&[1][..], name.as_bytes(), b"V"].concat();
    let count = b"\x10x-delivery-countl\0\0\0\0\0\0\0\x01".to_vec();
    let identity_of = |fields: Option<Vec<u8>>| {
        let mut payload = vec![0, 60, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        let headers = u16::from(fields.is_some()) << 13;
        payload.extend((headers | 1 << 7).to_be_bytes());
        if let Some(fields) = fields {
            payload.extend((fields.len() as u32).to_be_bytes());
            payload.extend(fields);
        }
        payload.extend(b"\x01\xe9");
        let mark = mark_of(&read(&header_frame(&payload))[0]);
        mark.identity().concat()
    };
    let (a, b) = (header("a"), header("b"));
    let first = identity_of(Some([b.clone(), a.clone()].concat()));
    let redelivered = identity_of(Some([a.clone(), b, count.clone()].concat()));
    assert_eq!(first, redelivered);
    assert_ne!(first, identity_of(Some(a)));
    assert_eq!(identity_of(None), identity_of(Some(count)));
}

#[test]
fn a_publisher_cannot_forge_a_replacement() {
    let forged = [
        "doorstep-undecodable",
        "doorstep-undecodable-00000000000000000000000000000000",
    ];
    for name in forged {
        let headers = table(vec![(
            name.to_owned(),
            AMQPValue::FieldTable(FieldTable::default()),
        )]);
        let properties = BasicProperties::default().with_headers(headers);
        assert_eq!(Undecodable::from_properties(&properties), None);
    }
}
