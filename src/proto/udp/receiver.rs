//! The receiver at a client, for all three transports.
//!
//! It holds the set of blocks and the statistics, and says which bytes go where and when a report
//! is due. It knows no sockets or files. An XOR from which one block can be recovered comes back as
//! [`Delivery::Coded`], because the other blocks are on disk and only the caller can read them.

use std::collections::VecDeque;

use crate::{
    proto::udp::{
        REORDER, before,
        blocks::{BlockLayout, Blocks},
        control::Report,
        group_sender::ROUNDS_MAX,
        liveness::{ROUNDS, SLACK},
        packet::{Body, Packet, PacketError},
        reports::{self, LINES_MAX, RepairMode, ReportTimer},
        stats::{StreamFigures, StreamStats},
    },
    units::Moment,
};

/// Receives the datagrams of one file.
#[derive(Clone, Debug)]
pub struct BlockReceiver {
    stream: u32,
    /// How the file is cut into blocks.
    pub layout: BlockLayout,
    mode: RepairMode,
    /// The blocks.
    pub blocks: Blocks,
    stats: StreamStats,
    counts: ReceiverCounts,
    /// The blocks below this were there before.
    first: u32,
    /// More datagrams than this are never numbered.
    limit: Option<u32>,
    /// By the last END, the number of the next datagram and the blocks sent so far. A later END
    /// corrects a forged one.
    end: Option<(u32, u32)>,
    /// How many datagrams were sent in all, once an END has said so for the whole file.
    total: Option<u32>,
    overtaken: Overtaken,
    timer: ReportTimer,
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
    /// The XOR of several blocks, one of them missing. Once the caller has recovered it,
    /// [`BlockReceiver::repaired`] is called.
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
    /// Its stream's figures; empty until the end.
    pub figures: StreamFigures,
    /// Datagrams from elsewhere, or of another stream.
    pub foreign: u64,
    /// Datagrams of the stream that are damaged or impossible.
    pub corrupt: u64,
    /// ENDs, which are not numbered and are counted nowhere else.
    pub ends: u64,
}

/// Which blocks have been overtaken by [`REORDER`] others.
#[derive(Clone, Debug, Default)]
struct Overtaken {
    /// The highest new blocks of the last datagrams, newest first.
    recent: VecDeque<u32>,
    /// What lies below and is missing has been overtaken.
    below: u32,
}

impl BlockReceiver {
    /// A receiver of a file cut by `layout`, whose first `held` bytes are there already. It reports
    /// after `report_every` datagrams at the latest.
    pub fn new(
        stream: u32,
        layout: BlockLayout,
        held: u64,
        mode: RepairMode,
        report_every: u32,
        now: Moment,
    ) -> Self {
        let count = layout.count();
        let mut blocks = Blocks::new(count);
        let first = if held == layout.bytes {
            count
        } else {
            u32::try_from(held / layout.block_len as u64).map_or(count, |whole| whole.min(count))
        };
        (0..first).for_each(|block| {
            blocks.insert(block);
        });
        let mut stats = StreamStats::starting_at(0);
        let mut limit = numbers_max(count);
        if mode == RepairMode::Raw {
            stats.trusted = true;
            limit = Some(count - first);
        }
        Self {
            stream,
            layout,
            mode,
            blocks,
            stats,
            counts: ReceiverCounts::default(),
            first,
            limit,
            end: None,
            total: None,
            overtaken: Overtaken::default(),
            timer: ReportTimer::new(report_every, now),
        }
    }

    /// True when every block is held.
    pub fn is_whole(&self) -> bool {
        self.blocks.held().is_full()
    }

    /// True when an END has said that everything was sent.
    pub fn is_ended(&self) -> bool {
        self.total.is_some()
    }

    /// From now on the stream is for this client alone: missing blocks are reported at once.
    pub fn leave_group(&mut self) {
        if let RepairMode::Multicast(_) = self.mode {
            self.mode = RepairMode::Unicast;
        }
    }

    /// How many datagrams so far were foreign or corrupt.
    pub fn strange(&self) -> u64 {
        self.counts.foreign + self.counts.corrupt
    }

    /// Counts a datagram from another sender.
    pub fn handle_foreign(&mut self) {
        self.counts.foreign += 1;
    }

    /// Takes a datagram in.
    pub fn handle<'a>(&mut self, datagram: &'a [u8], now: Moment) -> Delivery<'a> {
        let packet = match Packet::decode(datagram) {
            Ok(packet) if packet.stream == self.stream => packet,
            Ok(_) | Err(PacketError::Foreign) => {
                self.counts.foreign += 1;
                return Delivery::Nothing;
            }
            Err(PacketError::Damaged(_)) => {
                self.counts.corrupt += 1;
                return Delivery::Nothing;
            }
        };
        let is_end = matches!(packet.body, Body::End { .. });
        if !self.is_possible(packet.pkt, &packet.body)
            || !is_end && !self.stats.record(packet.pkt, packet.sent_us, now)
        {
            self.counts.corrupt += 1;
            return Delivery::Nothing;
        }
        if !is_end {
            self.timer.unreported += 1;
        }
        match packet.body {
            Body::Data { block, again, payload } => {
                if !again {
                    self.overtaken.record(block);
                }
                if !self.blocks.insert(block) {
                    return Delivery::Nothing;
                }
                let (offset, _) = self.layout.place(block);
                Delivery::Block { offset, payload }
            }
            Body::Xor { blocks, payload } => self.handle_xor(blocks, payload),
            Body::End { upto, round } => {
                self.handle_end(packet.pkt, upto, round, now);
                Delivery::Nothing
            }
        }
    }

    fn is_possible(&self, pkt: u32, body: &Body<'_>) -> bool {
        if self.limit.is_some_and(|limit| pkt > limit) {
            return false;
        }
        let (count, raw) = (self.blocks.held().len(), self.mode == RepairMode::Raw);
        match body {
            Body::Data { block, again, payload } => {
                // A block that is sent for the first time comes under a number of its own; in raw
                // every block does.
                let most = self.first.saturating_add(pkt);
                let new = if raw {
                    *block == most
                } else {
                    *again || self.limit.is_none() || *block <= most
                };
                new && *block < count && payload.len() == self.layout.place(*block).1
            }
            Body::Xor { blocks, payload } => {
                let last = blocks.last().expect("two at least");
                *last < count && payload.len() == self.layout.block_len
            }
            Body::End { upto, .. } if raw && *upto == count => pkt == count - self.first,
            Body::End { upto, .. } => *upto <= count,
        }
    }

    fn handle_end(&mut self, pkts: u32, upto: u32, round: u32, now: Moment) {
        self.counts.ends += 1;
        self.end = Some((pkts, upto));
        self.total = (upto == self.blocks.held().len()).then_some(pkts);
        let at = match self.mode {
            RepairMode::Multicast(spread) => now.after(spread),
            RepairMode::Raw | RepairMode::Unicast => now,
        };
        self.timer.handle_end(round, at);
    }

    fn handle_xor<'a>(&mut self, mut blocks: Vec<u32>, payload: &'a [u8]) -> Delivery<'a> {
        let mut lacking = (0..blocks.len()).filter(|&at| !self.blocks.held().has(blocks[at]));
        let (Some(at), None) = (lacking.next(), lacking.next()) else {
            return Delivery::Nothing;
        };
        let lacking = blocks.remove(at);
        Delivery::Coded { lacking, others: blocks, payload }
    }

    /// The block that [`Delivery::Coded`] lacked has been recovered and written.
    pub fn repaired(&mut self, block: u32) {
        self.blocks.insert(block);
    }

    /// The number after the highest datagram that was seen, or that the last END names.
    fn seen(&self) -> u32 {
        let next = self.stats.next();
        let told = self.end.map(|(pkts, _)| pkts);
        told.filter(|told| before(next, *told)).unwrap_or(next)
    }

    /// The reports that are due now: usually none.
    pub fn poll_reports(&mut self, now: Moment) -> Vec<Report> {
        let Some(round) = self.timer.poll(self.mode, now) else {
            return Vec::new();
        };
        let report = Report {
            seen: self.seen(),
            received: self.stats.unique() as u32,
            round,
            cum: self.blocks.first_hole(),
            more: false,
            missing: Vec::new(),
        };
        match self.mode {
            RepairMode::Raw => vec![report],
            RepairMode::Multicast(_) if round == 0 => vec![report],
            RepairMode::Unicast | RepairMode::Multicast(_) => {
                let sent = self.end.map_or(0, |(_, upto)| upto);
                let upto = self.overtaken.below.max(sent);
                reports::split(report, self.blocks.missing(upto, LINES_MAX * 400))
            }
        }
    }

    /// When a report is due, unless a datagram comes before.
    pub fn poll_timeout(&self) -> Moment {
        self.timer.poll_timeout(self.mode)
    }

    /// What was counted, at the end.
    pub fn finish(self) -> ReceiverCounts {
        let seen = self.seen();
        let upto = self.total.filter(|total| before(seen, *total));
        ReceiverCounts {
            corrupt: self.counts.corrupt - self.stats.confirmed,
            figures: self.stats.finish(upto.unwrap_or(seen)),
            ..self.counts
        }
    }
}

impl Overtaken {
    fn record(&mut self, block: u32) {
        let highest = self.recent.front().copied().unwrap_or(0).max(block);
        if self.recent.len() == REORDER as usize {
            let oldest = self.recent.pop_back().expect("REORDER is not zero");
            self.below = self.below.max(oldest);
        }
        self.recent.push_front(highest);
    }
}

/// The most datagrams that one stream numbers for a file of `blocks` blocks: a group's first pass
/// and its rounds, and what one client is sent after them. `None` is more than numbers hold.
fn numbers_max(blocks: u32) -> Option<u32> {
    let passes = u64::from(ROUNDS_MAX) + 1 + ROUNDS;
    u32::try_from(u64::from(blocks) * passes + SLACK).ok()
}

#[cfg(test)]
#[allow(clippy::single_range_in_vec_init, reason = "a list of one range is meant")]
mod tests;
