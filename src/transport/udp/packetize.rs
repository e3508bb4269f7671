//! Makes a burst's datagrams of the file's blocks, and sends them.

use std::{sync::atomic::Ordering, thread, time::Duration};

use crate::{
    net::clock,
    proto::udp::{
        Transmit,
        packet::{Body, Packet},
        xor,
    },
    server::transport::TransferFailure,
    session::SeatId,
    transport::udp::send_loop::{Destination, SendLoop},
    units::Moment,
};

/// The datagrams that wait in the buffer.
#[derive(Default)]
struct QueuedDatagrams {
    segment: usize,
    /// The last one is shorter than the others, so nothing may follow it.
    closed: bool,
    payload: u64,
    again: u64,
    numbered: u64,
}

impl SendLoop {
    /// Makes the datagrams and sends them, in as few calls as their lengths allow: to the client of
    /// `seat`, or to the group.
    pub(super) fn packetize(
        &mut self,
        seat: Option<SeatId>,
        transmits: &[Transmit],
    ) -> Result<(), TransferFailure> {
        let mut queued = QueuedDatagrams::default();
        self.buffer.clear();
        // They leave together, so one reading of the clock is right for all.
        let now = clock::now();
        for transmit in transmits {
            let begin = self.buffer.len();
            let (payload, again) = self.append(transmit, now)?;
            let len = self.buffer.len() - begin;
            if queued.segment != 0 && len > queued.segment || queued.closed {
                self.flush(seat, &mut queued, begin);
            }
            if queued.segment == 0 {
                queued.segment = len;
            }
            queued.closed = len < queued.segment;
            queued.payload += payload;
            queued.again += if again { payload } else { 0 };
            queued.numbered += u64::from(!matches!(transmit, Transmit::End { .. }));
        }
        let end = self.buffer.len();
        self.flush(seat, &mut queued, end);
        Ok(())
    }

    /// Sends the bytes of the buffer before `end`, and removes them.
    fn flush(&mut self, seat: Option<SeatId>, queued: &mut QueuedDatagrams, end: usize) {
        if queued.segment == 0 {
            return;
        }
        if let Some(pacer) = &self.pacer {
            let asked = clock::now();
            pacer.charge(end as u64);
            self.paced += clock::now().since(asked);
        }
        if let Some(rate_controller) = &mut self.rate_controller {
            rate_controller.sent(end as u64);
        }
        // To a group once from each socket that has clients.
        for (outlet, socket) in self.spec.sockets.iter().enumerate() {
            let addressed = || {
                let seats = self.seats.values().filter(move |s| s.outlet == outlet);
                seats.filter(move |s| seat.is_none_or(|seat| seat == s.seat))
            };
            let Some(first) = addressed().next() else {
                continue;
            };
            let to = self.spec.group.filter(|_| seat.is_none()).unwrap_or(first.to);
            let at = clock::now().0.max(1);
            // Counted before it is sent, because a client may answer before the send returns.
            for Destination { counters, .. } in addressed() {
                let first = &counters.first_us;
                let _ = first.compare_exchange(0, at, Ordering::Relaxed, Ordering::Relaxed);
                counters.payload.fetch_add(queued.payload, Ordering::Relaxed);
                counters.again.fetch_add(queued.again, Ordering::Relaxed);
                counters.offered.fetch_add(queued.numbered, Ordering::Relaxed);
            }
            let bytes = &self.buffer[..end];
            let refused = socket.send(bytes, queued.segment, to);
            if refused > 0 {
                let count = refused.min(queued.numbered);
                addressed().for_each(|destination| {
                    destination.counters.refused.fetch_add(count, Ordering::Relaxed);
                });
                // The local queue is full: give it time to send what it has.
                thread::sleep(Duration::from_millis(1));
            }
        }
        self.buffer.drain(..end);
        *queued = QueuedDatagrams::default();
    }

    /// Appends one datagram to the buffer; returns the length of its payload, and whether that was
    /// sent before.
    fn append(&mut self, transmit: &Transmit, now: Moment) -> Result<(u64, bool), TransferFailure> {
        let mut sum;
        let (pkt, body, payload, again) = match transmit {
            &Transmit::Data { pkt, block, again } => {
                let payload = self.blocks.block(block, again, now)?;
                let body = Body::Data { block, again, payload };
                (pkt, body, payload.len(), again)
            }
            Transmit::Xor { pkt, blocks } => {
                sum = vec![0; self.spec.layout.block_len];
                for &block in blocks {
                    xor::add(&mut sum, self.blocks.block(block, true, now)?);
                }
                let body = Body::Xor { blocks: blocks.clone(), payload: &sum };
                (*pkt, body, sum.len(), true)
            }
            &Transmit::End { pkts, upto, round } => (pkts, Body::End { upto, round }, 0, false),
        };
        Packet { stream: self.spec.stream, pkt, sent_us: now.0 as u32, body }
            .encode(&mut self.buffer);
        Ok((payload as u64, again))
    }
}
