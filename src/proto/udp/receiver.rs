//! The receiver at a client, for all three ways.
//!
//! It holds the blocks and the statistics, says which bytes go where, and when a report is due.
//! It decides nothing about sockets or files: an XOR that lacks one block comes back as
//! [`Heard::Coded`], because the other blocks are on disk and only its caller can read them.

use std::collections::VecDeque;
use std::ops::Range;
use std::time::Duration;

use crate::proto::udp::blocks::Blocks;
use crate::proto::udp::control::Report;
use crate::proto::udp::group_sender::ROUNDS_MAX;
use crate::proto::udp::packet::{Body, Packet, PacketError};
use crate::proto::udp::sender::{ROUNDS, SLACK};
use crate::proto::udp::stats::{StreamFigures, StreamStats};
use crate::proto::udp::{REORDER, before};
use crate::units::Moment;

/// Takes in the datagrams of one file.
#[derive(Clone, Debug)]
pub struct BlockReceiver {
    stream: u32,
    bytes: u64,
    block_len: usize,
    mode: RepairMode,
    blocks: Blocks,
    stats: StreamStats,
    foreign: u64,
    corrupt: u64,
    ends: u64,
    /// The blocks below this were there before.
    first: u32,
    /// More datagrams than this are never numbered.
    limit: Option<u32>,
    /// What the last END said: the number of the next datagram, and the blocks sent by then. A later
    /// one makes good what a forged one said.
    end: Option<(u32, u32)>,
    /// How many were sent in all, once the sender has said so for the whole file.
    total: Option<u32>,
    /// The highest new blocks of the last datagrams, newest first: what lies below the oldest
    /// and is missing has been overtaken by [`REORDER`] others.
    recent: VecDeque<u32>,
    ripe: u32,
    report_every: u32,
    unreported: u32,
    reported_at: Moment,
    answer: Option<(Moment, u32)>,
    answered: u32,
}

/// What a receiver does about what is missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RepairMode {
    /// Nothing: it measures.
    Raw,
    /// It names it as soon as it has been overtaken.
    Unicast,
    /// It names it when it is asked, this long after: so that not all answer in one instant.
    Multicast(Duration),
}

/// What a datagram brought.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Delivery<'a> {
    /// A block that was missing; it goes to `offset` in the file.
    Block {
        /// Its place in the file, bytes.
        offset: u64,
        /// Its bytes.
        payload: &'a [u8],
    },
    /// A combination of blocks of which one is missing; [`Receiver::repaired`] takes it.
    Coded {
        /// The missing one.
        lacking: u32,
        /// The others, all held.
        others: Vec<u32>,
        /// The XOR of all.
        payload: &'a [u8],
    },
    /// Nothing new.
    Nothing,
}

/// What a receiver counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReceiverCounts {
    /// Its stream's figures.
    pub figures: StreamFigures,
    /// Datagrams from elsewhere, or of another stream.
    pub foreign: u64,
    /// Datagrams of the stream that cannot be true.
    pub corrupt: u64,
    /// ENDs, which are not numbered and count as nothing else.
    pub ends: u64,
    /// The number after the highest that it knows of: its figures are of those before.
    pub upto: u32,
}

/// How often a receiver reports progress at least while datagrams come.
const PROGRESS: Duration = Duration::from_millis(20);

/// The same where nothing hangs on it but the sender's consent.
const SIGN_OF_LIFE: Duration = Duration::from_millis(500);

/// Most lines of one list. The rest of a longer one comes with the next report.
const LINES_MAX: usize = 64;

impl BlockReceiver {
    /// A receiver of a file of `bytes` bytes in blocks of `block_len`, of which everything below
    /// `held` is there already. It reports at the latest after `report_every` datagrams.
    pub fn new(
        stream: u32,
        bytes: u64,
        block_len: usize,
        held: u64,
        how: RepairMode,
        report_every: u32,
        now: Moment,
    ) -> Self {
        let count = block_count(bytes, block_len);
        let mut blocks = Blocks::new(count);
        let whole = match held == bytes {
            true => count,
            false => u32::try_from(held / block_len as u64).unwrap_or(u32::MAX),
        };
        let first = whole.min(count);
        let mut stats = StreamStats::default();
        if how == RepairMode::Raw {
            stats.trust_numbers();
        }
        (0..first).for_each(|block| {
            blocks.insert(block);
        });
        Self {
            stream,
            bytes,
            block_len,
            mode: how,
            blocks,
            stats,
            foreign: 0,
            corrupt: 0,
            ends: 0,
            first,
            limit: match how {
                RepairMode::Raw => Some(count - first),
                RepairMode::Unicast | RepairMode::Multicast(_) => numbers_max(count),
            },
            end: None,
            total: None,
            recent: VecDeque::with_capacity(REORDER as usize),
            ripe: 0,
            report_every,
            unreported: 0,
            reported_at: now,
            answer: None,
            answered: 0,
        }
    }

    /// True when every block is held.
    pub fn is_whole(&self) -> bool {
        self.blocks.is_whole()
    }

    /// True when the sender has said that it sent everything.
    pub fn is_ended(&self) -> bool {
        self.total.is_some()
    }

    /// The blocks.
    pub fn blocks(&self) -> &Blocks {
        &self.blocks
    }

    /// Where a block stands in the file, and how long it is.
    pub fn place(&self, block: u32) -> (u64, usize) {
        place(self.bytes, self.block_len, block)
    }

    /// From now on the stream is this client's alone: what is missing is named at once.
    pub fn leave_group(&mut self) {
        if let RepairMode::Multicast(_) = self.mode {
            self.mode = RepairMode::Unicast;
        }
    }

    /// Datagrams so far that were none of this stream, or cannot be.
    pub fn strange(&self) -> u64 {
        self.foreign + self.corrupt
    }

    /// A datagram that came from somebody else.
    pub fn handle_foreign(&mut self) {
        self.foreign += 1;
    }

    /// Takes a datagram in.
    pub fn handle<'a>(&mut self, datagram: &'a [u8], now: Moment) -> Delivery<'a> {
        let packet = match Packet::decode(datagram) {
            Ok(packet) if packet.stream == self.stream => packet,
            Ok(_) | Err(PacketError::Foreign) => {
                self.foreign += 1;
                return Delivery::Nothing;
            }
            Err(PacketError::Damaged(_)) => {
                self.corrupt += 1;
                return Delivery::Nothing;
            }
        };
        if !self.is_possible(packet.pkt, &packet.body) {
            self.corrupt += 1;
            return Delivery::Nothing;
        }
        if let Body::End { upto, round } = packet.body {
            self.handle_end(packet.pkt, upto, round, now);
            return Delivery::Nothing;
        }
        if !self.stats.record(packet.pkt, packet.sent_us, now) {
            self.corrupt += 1;
            return Delivery::Nothing;
        }
        self.unreported += 1;
        match packet.body {
            Body::Data {
                block,
                again,
                payload,
            } => {
                if !again {
                    self.ripen(block);
                }
                match self.blocks.insert(block) {
                    true => Delivery::Block {
                        offset: self.place(block).0,
                        payload,
                    },
                    false => Delivery::Nothing,
                }
            }
            Body::Xor { blocks, payload } => self.handle_xor(blocks, payload),
            Body::End { .. } => unreachable!("handled before"),
        }
    }

    fn is_possible(&self, pkt: u32, body: &Body<'_>) -> bool {
        if self.limit.is_some_and(|limit| pkt > limit) {
            return false;
        }
        match body {
            Body::Data {
                block,
                again,
                payload,
            } => {
                // A block that was not sent before comes under a number of its own; in raw each does.
                let most = self.first.saturating_add(pkt);
                let new = match self.mode {
                    RepairMode::Raw => *block == most,
                    _ => *again || self.limit.is_none() || *block <= most,
                };
                *block < self.blocks.len() && payload.len() == self.place(*block).1 && new
            }
            Body::Xor { blocks, payload } => {
                let last = blocks.last().expect("two at least");
                *last < self.blocks.len() && payload.len() == self.block_len
            }
            Body::End { upto, .. }
                if self.mode == RepairMode::Raw && *upto == self.blocks.len() =>
            {
                pkt == self.blocks.len() - self.first
            }
            Body::End { upto, .. } => *upto <= self.blocks.len(),
        }
    }

    fn handle_end(&mut self, pkts: u32, upto: u32, round: u32, now: Moment) {
        self.ends += 1;
        self.end = Some((pkts, upto));
        self.total = (upto == self.blocks.len()).then_some(pkts);
        if round == self.answered || self.answer.is_some_and(|(_, due)| due == round) {
            return;
        }
        let spread = match self.mode {
            RepairMode::Multicast(spread) => spread,
            RepairMode::Raw | RepairMode::Unicast => Duration::ZERO,
        };
        self.answer = Some((now.after(spread), round));
    }

    fn handle_xor<'a>(&mut self, mut blocks: Vec<u32>, payload: &'a [u8]) -> Delivery<'a> {
        let mut lacking = (0..blocks.len()).filter(|&at| !self.blocks.contains(blocks[at]));
        let (Some(at), None) = (lacking.next(), lacking.next()) else {
            return Delivery::Nothing;
        };
        let lacking = blocks.remove(at);
        Delivery::Coded {
            lacking,
            others: blocks,
            payload,
        }
    }

    /// The block that [`Heard::Coded`] lacked has been recovered and written.
    pub fn repaired(&mut self, block: u32) {
        self.blocks.insert(block);
    }

    /// The number after the highest that was seen or, last, told of.
    fn seen(&self) -> u32 {
        let next = self.stats.next();
        let told = self.end.map(|(pkts, _)| pkts);
        told.filter(|told| before(next, *told)).unwrap_or(next)
    }

    fn ripen(&mut self, block: u32) {
        let highest = self.recent.front().copied().unwrap_or(0).max(block);
        if self.recent.len() == REORDER as usize {
            let oldest = self.recent.pop_back().expect("REORDER is not zero");
            self.ripe = self.ripe.max(oldest);
        }
        self.recent.push_front(highest);
    }

    /// What is to be said now: usually nothing.
    pub fn poll_reports(&mut self, now: Moment) -> Vec<Report> {
        let asked = self
            .answer
            .filter(|(at, _)| now >= *at)
            .map(|(_, round)| round);
        let due = now >= self.next_report();
        if asked.is_none() && !due && self.unreported < self.report_every {
            return Vec::new();
        }
        if let Some(round) = asked {
            self.answer = None;
            self.answered = round;
        }
        self.unreported = 0;
        self.reported_at = now;
        let names = match self.mode {
            RepairMode::Raw => false,
            RepairMode::Unicast => true,
            RepairMode::Multicast(_) => asked.is_some(),
        };
        let mut reports = vec![Report {
            seen: self.seen(),
            received: self.stats.unique() as u32,
            round: asked.unwrap_or(0),
            cum: self.blocks.first_hole(),
            more: false,
            missing: Vec::new(),
        }];
        if names {
            let ripe = self.end.map_or(self.ripe, |(_, upto)| self.ripe.max(upto));
            let list = self.blocks.missing(ripe, LINES_MAX * 400);
            self.spread(&mut reports, list);
        }
        reports
    }

    /// Spreads a list over as many reports as it needs.
    fn spread(&self, reports: &mut Vec<Report>, mut list: Vec<Range<u32>>) {
        while reports.len() <= LINES_MAX {
            let last = reports.last_mut().expect("one at least");
            last.missing = list;
            let (_, count) = last.encode();
            if count == last.missing.len() {
                return;
            }
            list = last.missing.split_off(count);
            last.more = true;
            let rest = Report {
                more: false,
                missing: Vec::new(),
                ..last.clone()
            };
            reports.push(rest);
        }
        // The list ends here and begins anew with the next report.
        reports.pop();
        if let Some(last) = reports.last_mut() {
            last.more = false;
        }
    }

    fn next_report(&self) -> Moment {
        let every = match self.mode {
            _ if self.unreported == 0 => SIGN_OF_LIFE,
            RepairMode::Raw => SIGN_OF_LIFE,
            RepairMode::Unicast | RepairMode::Multicast(_) => PROGRESS,
        };
        self.reported_at.after(every)
    }

    /// When a report is due, unless a datagram comes before.
    pub fn poll_timeout(&self) -> Moment {
        let asked = self.answer.map_or(Moment(u64::MAX), |(at, _)| at);
        asked.min(self.next_report())
    }

    /// What was counted, at the end.
    pub fn counts(self) -> ReceiverCounts {
        let seen = self.seen();
        let upto = self
            .total
            .filter(|told| before(seen, *told))
            .unwrap_or(seen);
        ReceiverCounts {
            corrupt: self.corrupt - self.stats.confirmed(),
            figures: self.stats.finish(upto),
            foreign: self.foreign,
            ends: self.ends,
            upto,
        }
    }
}

/// The most datagrams that one stream numbers for a file of `blocks` blocks: a group's first pass
/// and its rounds, and what one client is sent after them. `None` is more than numbers hold.
fn numbers_max(blocks: u32) -> Option<u32> {
    let passes = u64::from(ROUNDS_MAX) + 1 + ROUNDS;
    u32::try_from(u64::from(blocks) * passes + SLACK).ok()
}

/// How many blocks a file of `bytes` has; at most what a `u32` counts.
pub fn block_count(bytes: u64, block_len: usize) -> u32 {
    u32::try_from(bytes.div_ceil(block_len as u64)).unwrap_or(u32::MAX)
}

/// Where a block stands in a file of `bytes`, and how long it is.
pub fn place(bytes: u64, block_len: usize, block: u32) -> (u64, usize) {
    let offset = u64::from(block) * block_len as u64;
    let left = bytes.saturating_sub(offset).min(block_len as u64);
    (offset, left as usize)
}

#[cfg(test)]
#[allow(
    clippy::single_range_in_vec_init,
    reason = "a list of one range is meant"
)]
mod tests;
