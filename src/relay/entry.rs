//! How a viewer comes from another input to this one: what it is sent first, so that nothing seems
//! lost to it, and where in the batch it begins.

use std::collections::BTreeMap;

use crate::{
    net::datagrams::DatagramBatch,
    proto::{
        mpegts::{PACKET, TsPacket, jump},
        stream::StreamMonitor,
    },
};

/// How a viewer comes to an input with the present batch.
#[derive(Debug, Default)]
pub(super) struct InputEntry {
    /// It begins with a picture that needs no earlier one.
    pub(super) is_whole: bool,
    /// Where that is in the batch's packets.
    pub(super) start: usize,
    /// What comes before: every jump of a counter, announced, and the tables.
    pub(super) opening: Vec<u8>,
    /// The same in datagrams, with the rest of that in which the picture begins.
    pub(super) datagrams: Vec<Vec<u8>>,
    /// The batch's next datagram.
    pub(super) next: usize,
}

/// Most counters whose jump is announced: a satellite multiplex has half as many.
const JUMPS_MAX: usize = 256;

impl InputEntry {
    /// The entry with `batch`, of whose `packets` `ends` says where those of each datagram end: at the
    /// picture that needs no other, where there is one, by these `tables`.
    pub(super) fn new(
        monitor: &StreamMonitor,
        batch: &DatagramBatch,
        (packets, ends): (&[u8], &[usize]),
        key_frame: Option<usize>,
        mut tables: Vec<u8>,
    ) -> Self {
        let start = key_frame.unwrap_or(0);
        // The counters as they stand before it.
        let mut counters: BTreeMap<u16, u8> = monitor.counters().collect();
        let (left, _) = packets[start..].as_chunks();
        for packet in left.iter().map(TsPacket::new).rev().filter(|p| !p.transport_error()) {
            if let Some(counter) = counters.get_mut(&packet.pid()) {
                *counter = packet.counter().wrapping_sub(u8::from(packet.has_payload()));
            }
        }
        // The tables are counted so that the next ones of the source follow them.
        for packet in tables.as_chunks_mut::<PACKET>().0.iter_mut().rev() {
            let counter = counters.entry(TsPacket::new(packet).pid()).or_default();
            packet[3] = packet[3] & 0xF0 | *counter & 0x0F;
            *counter = counter.wrapping_sub(1);
        }
        let jumps =
            counters.into_iter().take(JUMPS_MAX).flat_map(|(pid, counter)| jump(pid, counter));
        let opening: Vec<u8> = jumps.chain(tables).collect();
        let is_whole = key_frame.is_some();
        let at = ends.iter().position(|end| *end > start).filter(|_| is_whole);
        let rest = at.map_or(&[][..], |at| &packets[start..ends[at]]);
        let first = batch.iter().nth(at.unwrap_or(0)).map_or(&[][..], |datagram| datagram.bytes);
        let before = [&opening, rest].concat();
        let datagrams = monitor.datagrams_before(first, &before, usize::from(is_whole));
        Self { is_whole, start, opening, datagrams, next: at.map_or(0, |at| at + 1) }
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, SocketAddr};

    use super::*;
    use crate::{
        proto::{mpegts::sample, rtp::RtpHeader},
        relay::chunk::StreamChunk,
        units::Moment,
    };

    const FROM: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 1);

    /// Eight datagrams of an input, in RTP or not, whose counters begin at `first` and whose pictures
    /// are marked with it. The tables come with the second and the fifth, and in the middle of the fifth
    /// a picture that needs no other.
    fn datagrams(in_rtp: bool, first: u8) -> Vec<Vec<u8>> {
        let mut counters = BTreeMap::new();
        let mut packet = |n: u16, at: usize| {
            let pid: u16 = match (n, at) {
                (1 | 4, 0) => 0,
                (1 | 4, 1) => 0x1000,
                (1 | 4, 6) => 0x11,
                _ => 0x100,
            };
            let counter = counters.entry(pid).or_insert_with(|| first + pid.to_le_bytes()[1]);
            *counter = (*counter + 1) & 0x0F;
            let mut packet = match pid {
                0 => sample::pat(*counter, 0x1000),
                0x1000 => sample::pmt(*counter, 0x1000),
                _ if (n, at) == (4, 3) => sample::adapted(pid, *counter, 0x40, 0, true),
                _ => sample::packet(pid, *counter, first),
            };
            packet[1] |= if (n, at) == (4, 3) { 0x40 } else { 0 };
            packet
        };
        let datagram = |n: u16| {
            let packets: Vec<_> = (0..7).map(|at| packet(n, at)).collect();
            let header = RtpHeader { sequence: n, timestamp: 9, ssrc: first.into(), payload: 0..0 };
            let header = header.encode_before(0);
            [if in_rtp { &header[..] } else { &[] }, packets.as_flattened()].concat()
        };
        (0..8).map(datagram).collect()
    }

    #[test]
    fn change_is_no_loss_and_begins_with_tables_and_picture() {
        // In a batch of its own, and in the middle of one; as it comes, too.
        for (in_rtp, batch_of) in
            [(false, 3..6), (false, 4..5), (true, 3..6), (true, 2..8), (true, 5..8)]
        {
            let mut viewer = StreamMonitor::default();
            let at = Moment(1);
            datagrams(in_rtp, 1).iter().for_each(|datagram| viewer.handle(at, datagram));
            let (mut monitor, all) = (StreamMonitor::default(), datagrams(in_rtp, 6));
            all[..batch_of.start].iter().for_each(|datagram| monitor.handle(at, datagram));
            let (mut batch, mut chunk) = (DatagramBatch::new(8), StreamChunk::default());
            let mut ends = Vec::new();
            for datagram in &all[batch_of.clone()] {
                batch.push(&[], datagram, at, FROM);
                let see = |packet: &[u8; PACKET]| chunk.packets.extend_from_slice(packet);
                monitor.handle_packets(at, datagram, see);
                ends.push(chunk.packets.len());
            }
            chunk.tables = monitor.tables_before(&[]).concat();
            chunk.find_key_frame(monitor.video());
            chunk.add_entry(&monitor, &batch, &ends);
            let entry = chunk.entry.as_ref().expect("added");
            assert_eq!(entry.is_whole, batch_of.contains(&4));
            let mut came = Vec::new();
            let rest = batch.iter().skip(entry.next).map(|datagram| datagram.bytes);
            for datagram in entry.datagrams.iter().map(Vec::as_slice).chain(rest) {
                let see = |packet: &[u8; PACKET]| came.push(*packet);
                viewer.handle_packets(at, datagram, see);
            }
            all[batch_of.end..].iter().for_each(|datagram| viewer.handle(at, datagram));
            let counts = viewer.counts();
            assert_eq!((counts.ts.errors, counts.not_ts), (0, 0), "{in_rtp} {batch_of:?}");
            assert_eq!(counts.rtp.map(|rtp| rtp.lost), in_rtp.then_some(0), "{batch_of:?}");
            let pids: Vec<u16> = came.iter().map(|packet| TsPacket::new(packet).pid()).collect();
            assert_eq!(pids[..7], [0, 0x11, 0x100, 0x1000, 0, 0x1000, 0x100], "{batch_of:?}");
            assert_eq!(TsPacket::new(&came[6]).random_access(), entry.is_whole);
            // Over HTTP the same.
            let packets = [&entry.opening, &chunk.packets[entry.start..]].concat();
            assert_eq!(packets, came.as_flattened());
        }
    }

    #[test]
    fn source_of_many_pids_announces_as_many_as_allowed() {
        let mut monitor = StreamMonitor::default();
        for pid in 0x20..0x1000 {
            monitor.handle(Moment(1), &sample::packet(pid, 1, 1));
        }
        let mut chunk = StreamChunk::default();
        chunk.add_entry(&monitor, &DatagramBatch::new(1), &[]);
        let entry = chunk.entry.expect("added");
        assert_eq!(entry.opening.len(), JUMPS_MAX * PACKET);
        assert_eq!((entry.datagrams.len(), entry.next), (JUMPS_MAX.div_ceil(7), 0));
    }
}
