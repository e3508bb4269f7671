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
