//! A live stream as it comes in datagrams, and the relay's control connection.

use gatecast::internals::{
    proto::{
        mpegts::{PACKET, SYNC, tables::PROGRAMS_MAX},
        relay::{
            COMMANDS_MAX, CommandRate, CommandReader, ControlCommand, ControlReply, PORT_MIN,
            ViewerState,
            reports::{ReceiverReport, SenderReport},
        },
        rtp::RtpHeader,
        stream::StreamMonitor,
    },
    units::Moment,
};
use std::time::Duration;

use crate::{
    heap::{at_most, bounded},
    input::{Input, lines, pieces},
};

/// What a monitor may hold: a counter for each PID, and the packets of 65 tables.
const MONITOR: usize = 1 << 20;

/// Every packet is given out once and counted; what is missing is never more than numbers allow; a
/// viewer that joins is given whole packets.
pub fn live_stream(data: &[u8]) {
    if let Some(header) = RtpHeader::decode(data) {
        assert!(data.get(header.payload.clone()).is_some());
        let plain = RtpHeader::decode(&header.encode_before(0)).expect("our own");
        assert_eq!(
            (plain.sequence, plain.timestamp, plain.ssrc),
            (header.sequence, header.timestamp, header.ssrc)
        );
    }
    at_most(MONITOR + 64 * data.len(), || {
        let mut input = Input(data);
        let mut monitor = StreamMonitor::default();
        let (mut now, mut begun) = (Moment(0), Vec::new());
        let (mut datagrams, mut bytes, mut packets) = (0, 0, 0);
        while !input.is_empty() && datagrams < 1000 {
            input.wait(&mut now);
            let datagram = match input.u8() % 8 {
                0 => monitor.rejoin_or_forget(input.flag()),
                1 => input.bytes(255).to_vec(),
                2 => table(&mut input).to_vec(),
                3 => in_rtp(&mut input),
                // What the last one left over goes on.
                4 => std::mem::take(&mut begun),
                _ => {
                    let mut whole = stream(&mut input);
                    begun = whole.split_off(whole.len().min(usize::from(input.u16())));
                    whole
                }
            };
            monitor.handle_packets(now, &datagram, |packet| {
                assert_eq!(packet[0], SYNC);
                packets += 1;
            });
            (datagrams, bytes) = (datagrams + 1, bytes + datagram.len() as u64);
            let counts = monitor.counts();
            assert_eq!((counts.datagrams, counts.bytes), (datagrams, bytes));
            let ts = counts.ts;
            assert!(ts.packets == packets && packets * PACKET as u64 <= bytes);
            assert!(ts.errors + ts.repeats + ts.damaged <= packets);
            assert!((ts.errors..=15 * ts.errors).contains(&ts.lost), "{ts:?}");
            assert!(counts.not_ts <= datagrams);
            assert!(counts.rtp.is_none_or(|rtp| rtp.lost <= 3000 * datagrams));
            assert!(counts.jitter_us.is_none_or(|us| (0.0..=10e6).contains(&us)));
            let tables = monitor.tables_before(&datagram);
            let most = (16 * (1 + PROGRAMS_MAX)).div_ceil(7);
            assert!(tables.len() <= most, "{} datagrams", tables.len());
            assert!(tables.iter().all(|table| table.len() <= 12 + 7 * PACKET));
            assert!(tables.iter().all(|table| matches!(table.len() % PACKET, 0 | 12)));
        }
    });
}

trait RejoinOrForget {
    fn rejoin_or_forget(&mut self, rejoin: bool) -> Vec<u8>;
}

impl RejoinOrForget for StreamMonitor {
    /// Says so, and gives an empty datagram.
    fn rejoin_or_forget(&mut self, rejoin: bool) -> Vec<u8> {
        if rejoin {
            self.rejoin()
        } else {
            self.forget_tables()
        }
        Vec::new()
    }
}

/// Packets whose first bytes are the input's.
fn stream(input: &mut Input<'_>) -> Vec<u8> {
    let count = usize::from(input.u8() % 8) + 1;
    let mut bytes = Vec::new();
    for _ in 0..count {
        let mut packet = [0xff; PACKET];
        packet[0] = SYNC;
        let head = input.bytes(11);
        packet[1..=head.len()].copy_from_slice(head);
        // Few PIDs, or no two packets would have the same.
        packet[1] &= 0xe0;
        packet[2] &= 0x03;
        bytes.extend(packet);
    }
    bytes
}

fn in_rtp(input: &mut Input<'_>) -> Vec<u8> {
    let header = RtpHeader {
        sequence: input.u16() % 512,
        timestamp: input.number32(),
        ssrc: u32::from(input.u8() / 100),
        payload: 0..0,
    };
    [&header.encode_before(0)[..], &stream(input)].concat()
}

/// A packet with a sound section of a table.
fn table(input: &mut Input<'_>) -> [u8; PACKET] {
    let mut packet = [0xff; PACKET];
    let pid = u16::from(input.u8() % 4);
    packet[0] = SYNC;
    packet[1..3].copy_from_slice(&pid.to_be_bytes());
    packet[1] |= 0x40;
    packet[3] = 0x10 | input.u8() & 0x0f;
    packet[4] = 0; // The pointer.
    let body = input.bytes(usize::from(input.0.first().copied().unwrap_or(0) % 170));
    let length = (body.len() + 4) as u16;
    let mut section = vec![if pid == 0 { 0 } else { 2 }];
    section.extend((length | 0xb000).to_be_bytes());
    section.extend(body);
    let sum = section.iter().fold(u32::MAX, |crc, &byte| {
        (0..8).fold(crc ^ u32::from(byte) << 24, |crc, _| {
            (crc << 1) ^ if crc >> 31 == 1 { 0x04c1_1db7 } else { 0 }
        })
    });
    section.extend(sum.to_be_bytes());
    packet[5..5 + section.len()].copy_from_slice(&section);
    packet
}

pub fn live_stream_seeds() -> Vec<Vec<u8>> {
    // An association that names PIDs 1 and 2, their maps, and a stream.
    let association = b"\x05\x01\x02\0\x0d\0\x01\xc1\0\0\0\x01\xe0\x01\0\x02\xe0\x02";
    let map = b"\x05\x01\x02\x01\x09\0\x01\xc1\0\0\xe0\x01";
    let mut some = [&association[..], map].concat();
    for counter in 0..20 {
        some.extend([9, 9, 5, 1, 0x40, 2, 0x30 | counter, 7, 0x10, 0, 0, 0, 0, 0, 0, 9, 9]);
        some.extend([9, 9, 3, counter, 0, 0, 9, 0, 0, 0, 2, 0x10 | counter]);
    }
    let mut all = crate::input::noise();
    all.push(some);
    all
}

/// Commands come out the same however the stream is cut and are read again as they are written;
/// a viewer runs only between its words; any two reports have a loss or none.
pub fn control(data: &[u8]) {
    let (stream, parts) = pieces(data);
    let whole = bounded(2 * stream.len(), || commands([stream].into_iter()));
    assert_eq!(commands(parts), whole);
    let (mut state, mut connected) = (ViewerState::default(), false);
    let mut last = ReceiverReport::default();
    for command in whole.iter().flatten() {
        let bytes = command.encode();
        assert_eq!(commands([&bytes[..]].into_iter()), [Some(command.clone())]);
        if let Ok(next) = state.after(command) {
            match command {
                ControlCommand::Connect(port) => {
                    assert!(*port >= PORT_MIN && !connected);
                    connected = true;
                }
                ControlCommand::Disconnect => connected = false,
                ControlCommand::Alive(report) => last = *report,
                ControlCommand::Interrupt | ControlCommand::Continue => assert!(connected),
                ControlCommand::Group => {}
            }
            state = next;
        }
        assert_eq!(state != ViewerState::Unconnected, connected);
    }
    for line in lines(stream) {
        let Ok(reply) = bounded(2 * line.len(), || ControlReply::decode(line)) else {
            continue;
        };
        let bytes = reply.encode();
        let text = std::str::from_utf8(&bytes).expect("text");
        let text = text.strip_suffix('\n').expect("a line ends");
        assert!(!text.chars().any(char::is_control), "{text:?}");
        if line.len() < 20 || !matches!(reply, ControlReply::Error(_)) {
            assert_eq!(ControlReply::decode(text), Ok(reply.clone()));
        }
        if let ControlReply::Report(sent) = reply {
            reports(&sent, &last);
        }
    }
    rate(stream);
}

fn reports(sent: &SenderReport, received: &ReceiverReport) {
    let lost = sent.network_lost(Some(received));
    assert!(lost.is_none_or(|lost| lost <= sent.sent));
    let _ = sent.allows(received);
}

/// No second lets more than its commands through.
fn rate(data: &[u8]) {
    let (mut input, mut now) = (Input(data), Moment(0));
    let mut rate = CommandRate::new(now);
    let mut allowed: Vec<Moment> = Vec::new();
    while !input.is_empty() {
        input.wait(&mut now);
        if rate.allow(now) {
            allowed.push(now);
        }
    }
    let most = COMMANDS_MAX as usize;
    let second = Duration::from_secs(1);
    // Two intervals of counting may touch one second.
    assert!(allowed.windows(2 * most + 1).all(|some| some[2 * most].since(some[0]) >= second));
}

/// All commands; `None` stands for a line that is none.
fn commands<'a>(parts: impl Iterator<Item = &'a [u8]>) -> Vec<Option<ControlCommand>> {
    let (mut reader, mut all) = (CommandReader::default(), Vec::new());
    for part in parts {
        reader.push(part);
        while let Some(command) = reader.next() {
            all.push(command.ok());
        }
    }
    all
}

pub fn control_seeds() -> Vec<Vec<u8>> {
    let received = ReceiverReport { datagrams: 570, bytes: 750_120, ..ReceiverReport::default() };
    let sent = SenderReport { sent: 600, bytes: 789_600, ..SenderReport::default() };
    let talk = "\x09CONECTAR <5000>\r\nINTERRUMPIR\nCONTINUE\nCONNECT 5001\nDISCONNECT\n";
    let alive = ControlCommand::Alive(received).encode();
    let report = ControlReply::Report(sent).encode();
    let long = format!("\x40{}\nCONECTAR 5000\n", "x".repeat(600));
    vec![
        talk.as_bytes().to_vec(),
        [&[9][..], &alive, &report].concat(),
        b"\x01OK\nERROR connected already\nERROR \\u{1b}\n".to_vec(),
        long.into_bytes(),
    ]
}
