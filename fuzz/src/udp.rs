//! Datagrams and what is said of them on the control connection.

use gatecast::internals::proto::{
    line::LINE_MAX,
    udp::{
        control::{Listen, Report, Terms, WINDOW_MAX, window},
        packet::{Body, DATA_HEADER, DATAGRAM_MIN, HEADER, Packet, XOR_MAX, xor_ids},
        ranges::{self, LIST_MAX},
    },
};
use std::ops::Range;

use crate::{
    heap::bounded,
    input::{Input, lines, reread},
};

/// How many blocks the file has of which reports tell.
const BLOCKS: [u32; 4] = [1, 300, 100_000, u32::MAX];

/// What is accepted is read again as it is written, in a line; missing blocks rise, do not touch,
/// and are below the last.
pub fn control(data: &[u8]) {
    for line in lines(data) {
        if let Some((terms, bytes)) = reread(line, Terms::decode, Terms::encode) {
            assert!(terms.datagram >= DATAGRAM_MIN && bytes.len() <= LINE_MAX);
        }
        if let Some((listen, bytes)) = reread(line, Listen::decode, Listen::encode) {
            assert!(listen.port >= 1024 && bytes.len() <= LINE_MAX);
            assert!((2..=WINDOW_MAX).contains(&window(listen.buffer, DATAGRAM_MIN)));
        }
        for blocks in BLOCKS {
            let decode = |line: &str| Report::decode(line, blocks);
            let Some((report, bytes)) = reread(line, decode, |report| report.encode().0) else {
                continue;
            };
            assert!(Report::is_one(line) && bytes.len() <= LINE_MAX);
            assert_eq!(report.encode().1, report.missing.len(), "the whole list fits again");
            assert_eq!(decode(line.trim_end()), Ok(report.clone()));
            below(report.cum, blocks, &report.missing);
        }
    }
    list(data);
}

fn list(data: &[u8]) {
    let mut input = Input(data);
    let (base, limit) = (input.number32(), input.number32());
    if let Ok(ranges) = bounded(input.0.len(), || ranges::decode(base, limit, input.0)) {
        assert_eq!(ranges::encode(base, &ranges), (input.0.to_vec(), ranges.len()));
        below(base, limit, &ranges);
    }
    // Any rising ranges: as many as fit come back.
    let (mut end, mut ranges) = (base, Vec::new());
    while !input.is_empty() {
        let mut after = |at: u32| at.checked_add(1)?.checked_add(input.number32());
        let Some(start) = after(end) else { break };
        let Some(stop) = after(start) else { break };
        ranges.push(start..stop);
        end = stop;
    }
    let (list, count) = ranges::encode(base, &ranges);
    assert!(list.len() <= LIST_MAX && (count > 0 || ranges.is_empty()));
    assert_eq!(ranges::decode(base, u32::MAX, &list), Ok(ranges[..count].to_vec()));
}

fn below(base: u32, limit: u32, ranges: &[Range<u32>]) {
    let mut end = base;
    for (place, range) in ranges.iter().enumerate() {
        assert!(range.start < range.end && range.end <= limit, "{range:?} of {limit}");
        assert!(range.start > end || place == 0 && range.start == end);
        end = range.end;
    }
}

pub fn control_seeds() -> Vec<Vec<u8>> {
    let report = Report {
        seen: 500,
        received: 400,
        round: 1,
        cum: 20,
        more: true,
        missing: vec![20..22, 40..41, 100..300],
    };
    let group = "239.1.2.3:5000".parse().ok();
    let terms = Terms { datagram: 1472, group, from: None, port: Some(40_000) };
    let alone = Terms { datagram: 1472, group: None, from: "10.0.0.1".parse().ok(), port: None };
    vec![
        report.encode().0,
        terms.encode(),
        alone.encode(),
        Listen { port: 5000, buffer: 212_992 }.encode(),
        vec![10, 200, 100, 0, 0, 9, 2],
    ]
}

/// What is decoded encodes to the same bytes; an XOR has rising blocks, as many as it may have.
pub fn packet(data: &[u8]) {
    // The input may be without the three bytes that every datagram begins with.
    for bytes in [data, &[&[0x0c, 0x47, 1], data].concat()] {
        let Ok(packet) = bounded(bytes.len(), || Packet::decode(bytes)) else {
            continue;
        };
        let mut again = Vec::new();
        packet.encode(&mut again);
        assert_eq!(again, bytes);
        let carried = match &packet.body {
            Body::Data { payload, .. } => payload.len() + DATA_HEADER,
            Body::Xor { blocks, payload } => {
                assert!((2..=XOR_MAX).contains(&blocks.len()));
                assert!(blocks.windows(2).all(|pair| pair[0] < pair[1]));
                payload.len() + DATA_HEADER + xor_ids(blocks)
            }
            Body::End { .. } => HEADER + 8,
        };
        assert_eq!(carried, bytes.len());
    }
}

pub fn packet_seeds() -> Vec<Vec<u8>> {
    let bodies = [
        Body::Data { block: 5, again: true, payload: b"hi" },
        Body::Xor { blocks: vec![1, 2, 200], payload: b"x" },
        Body::End { upto: 9, round: 2 },
    ];
    let encoded = bodies.map(|body| {
        let mut bytes = Vec::new();
        Packet { stream: 7, pkt: 3, sent_us: 9, body }.encode(&mut bytes);
        bytes
    });
    encoded.iter().cloned().chain(encoded.iter().map(|bytes| bytes[3..].to_vec())).collect()
}
