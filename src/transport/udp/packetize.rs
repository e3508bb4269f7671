//! A burst's datagrams, made of the file's blocks and sent.

use std::sync::atomic::Ordering;
use std::time::Duration;

use crate::net::{clock, copy};
use crate::proto::udp::packet::{Body, Packet};
use crate::proto::udp::receiver::place;
use crate::proto::udp::{Transmit, xor};
use crate::server::transport::TransferFailure;
use crate::session::SeatId;
use crate::transfer::Outcome;
use crate::transport::udp::send_loop::{Destination, SendLoop};
use crate::units::Moment;

/// How often the source is looked at while parts of it are read again.
const CHECK_EVERY: Duration = Duration::from_millis(100);

/// Blocks read from the file at once, and how many such stretches are kept: clients that move
/// at one pace read each once.
const STRETCH: u32 = 64;
const STRETCHES: usize = 16;

/// Datagrams that wait in the buffer.
#[derive(Default)]
struct QueuedDatagrams {
    segment: usize,
    /// A shorter one stands at the end, and nothing may follow it.
    closed: bool,
    payload: u64,
    again: u64,
    numbered: u64,
}

impl SendLoop {
    /// Makes the datagrams and sends them, as few calls as their lengths allow.
    pub(super) fn send(
        &mut self,
        seat: Option<SeatId>,
        transmits: &[Transmit],
    ) -> Result<(), TransferFailure> {
        let mut pending = QueuedDatagrams::default();
        self.buffer.clear();
        // They leave together, so one look at the clock is true of all.
        let now = clock::now();
        for transmit in transmits {
            let begin = self.buffer.len();
            let (payload, again) = self.append(transmit, now)?;
            let len = self.buffer.len() - begin;
            if pending.segment != 0 && len > pending.segment || pending.closed {
                self.flush(seat, &mut pending, begin);
            }
            if pending.segment == 0 {
                pending.segment = len;
            }
            pending.closed = len < pending.segment;
            pending.payload += payload;
            pending.again += again;
            pending.numbered += u64::from(!matches!(transmit, Transmit::End { .. }));
        }
        let end = self.buffer.len();
        self.flush(seat, &mut pending, end);
        Ok(())
    }

    /// Sends what stands in the buffer up to `end` and takes it out.
    fn flush(&mut self, seat: Option<SeatId>, pending: &mut QueuedDatagrams, end: usize) {
        if pending.segment == 0 {
            return;
        }
        if let Some(pacer) = &self.pacer {
            pacer.charge(end as u64);
        }
        if let Some(watch) = &mut self.rate_controller {
            watch.sent(end as u64);
        }
        let to = match seat {
            Some(seat) => self.seats.get(&seat).map(|joined| joined.to),
            None => self.spec.group,
        };
        if let Some(to) = to {
            let at = clock::now().0.max(1);
            let bytes = &self.buffer[..end];
            let tallies = || {
                let joined = self.seats.values();
                joined.filter(move |joined| seat.is_none_or(|seat| seat == joined.seat))
            };
            // Counted before it is sent, because a client may answer before the send returns.
            for Destination {
                counters: tally, ..
            } in tallies()
            {
                let _ =
                    tally
                        .first_us
                        .compare_exchange(0, at, Ordering::Relaxed, Ordering::Relaxed);
                tally.payload.fetch_add(pending.payload, Ordering::Relaxed);
                tally.again.fetch_add(pending.again, Ordering::Relaxed);
                tally.offered.fetch_add(pending.numbered, Ordering::Relaxed);
            }
            let refused = self.spec.socket.send(bytes, pending.segment, to);
            if refused > 0 {
                for Destination {
                    counters: tally, ..
                } in tallies()
                {
                    let count = refused.min(pending.numbered);
                    tally.refused.fetch_add(count, Ordering::Relaxed);
                }
            }
            if refused > 0 {
                // The local queue is full: give it time to send what it has.
                std::thread::sleep(Duration::from_millis(1));
            }
        }
        self.buffer.drain(..end);
        *pending = QueuedDatagrams::default();
    }

    /// Appends one datagram to the buffer; returns its payload, and how much of it is repeated.
    fn append(&mut self, transmit: &Transmit, now: Moment) -> Result<(u64, u64), TransferFailure> {
        let (stream, sent_us) = (self.spec.stream, now.0 as u32);
        let mut buffer = std::mem::take(&mut self.buffer);
        let mut sum;
        let (pkt, body, repeated) = match transmit {
            Transmit::Data { pkt, block, again } => {
                let payload = self.block(*block, *again, now)?;
                let body = Body::Data {
                    block: *block,
                    again: *again,
                    payload,
                };
                (*pkt, body, *again)
            }
            Transmit::Xor { pkt, blocks } => {
                sum = vec![0; self.spec.block_len];
                for &block in blocks {
                    xor::add(&mut sum, self.block(block, true, now)?);
                }
                let body = Body::Xor {
                    blocks: blocks.clone(),
                    payload: &sum,
                };
                (*pkt, body, true)
            }
            Transmit::End { pkts, upto, round } => {
                let body = Body::End {
                    upto: *upto,
                    round: *round,
                };
                (*pkts, body, false)
            }
        };
        let payload = match &body {
            Body::Data { payload, .. } | Body::Xor { payload, .. } => payload.len() as u64,
            Body::End { .. } => 0,
        };
        Packet {
            stream,
            pkt,
            sent_us,
            body,
        }
        .encode(&mut buffer);
        self.buffer = buffer;
        Ok((payload, if repeated { payload } else { 0 }))
    }

    /// One block's bytes. What is read a second time is the file that was offered: it is looked
    /// at, because a repair from a changed file would put new bytes into an old copy.
    fn block(&mut self, block: u32, again: bool, now: Moment) -> Result<&[u8], TransferFailure> {
        if again && now >= self.checked_at.after(CHECK_EVERY) {
            self.checked_at = now;
            self.spec
                .source
                .unchanged()
                .map_err(|error| changed(&error.to_string()))?;
        }
        let first = block / STRETCH * STRETCH;
        let at = match self.cache.iter().position(|(start, _)| *start == first) {
            Some(at) => at,
            None => {
                let oldest = (self.cache.len() == STRETCHES).then(|| self.cache.remove(0).1);
                let bytes = self.read(first, oldest.unwrap_or_default())?;
                self.cache.push((first, bytes));
                self.cache.len() - 1
            }
        };
        let (offset, len) = place(self.spec.source.info.bytes, self.spec.block_len, block);
        let base = u64::from(first) * self.spec.block_len as u64;
        let from = (offset - base) as usize;
        Ok(&self.cache[at].1[from..from + len])
    }

    /// Reads a stretch into `bytes`, whatever they were.
    fn read(&self, first: u32, mut bytes: Vec<u8>) -> Result<Vec<u8>, TransferFailure> {
        let base = u64::from(first) * self.spec.block_len as u64;
        let left = self.spec.source.info.bytes.saturating_sub(base);
        let want = left.min(u64::from(STRETCH) * self.spec.block_len as u64);
        bytes.resize(want as usize, 0);
        let mut done = 0;
        while done < bytes.len() {
            let at = base + done as u64;
            match copy::read_at(&self.spec.source.file, &mut bytes[done..], at) {
                Ok(read) => done += read,
                Err(copy::Stop::Disk(error)) => {
                    return Err(changed(&format!("the source cannot be read: {error}")));
                }
                Err(_) => {
                    let reason = match self.spec.source.unchanged() {
                        Err(error) => error.to_string(),
                        Ok(()) => format!("the source ended at byte {at}"),
                    };
                    return Err(changed(&reason));
                }
            }
        }
        Ok(bytes)
    }
}

fn changed(reason: &str) -> TransferFailure {
    TransferFailure {
        outcome: Outcome::Cut,
        reason: reason.to_owned(),
        source_changed: true,
    }
}
