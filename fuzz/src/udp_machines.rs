//! The machines of the UDP family under whatever is said to them in whatever order.

use gatecast::internals::{
    proto::udp::{
        CONSENT, Transmit, before,
        blocks::BlockLayout,
        control::Report,
        liveness::{ROUNDS, SLACK},
        packet::{Body, Packet, XOR_MAX},
        probe::INTERVAL,
        rate_controller::RateController,
        receiver::{BlockReceiver, Delivery},
        reports::RepairMode,
        sender::BlockSender,
    },
    session::SeatId,
    units::{Moment, Rate},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Range,
    time::Duration,
};

use crate::{heap::at_most, input::Input};

pub const NOW: Moment = Moment(1_000_000);

/// What one sending machine has sent, and whether that is right.
#[derive(Debug, Default)]
pub struct Wire {
    pub numbered: u32,
    pub round: u32,
    /// The number that the last END said.
    pub asked: u32,
    pub next_new: u32,
    pub data: u64,
    named: BTreeSet<u32>,
}

impl Wire {
    pub fn name(&mut self, missing: &[Range<u32>]) {
        self.named.extend(missing.iter().flat_map(Range::clone));
    }

    pub fn check(&mut self, transmit: &Transmit) {
        match transmit {
            Transmit::End { pkts, upto, round } => {
                assert_eq!((*pkts, *upto), (self.numbered, self.next_new));
                assert!(*round > 0 && *round - self.round <= 1, "{round} {}", self.round);
                (self.round, self.asked) = (*round, *pkts);
                return;
            }
            Transmit::Data { pkt, block, again } => {
                assert_eq!(*pkt, self.numbered, "no number twice");
                if *again {
                    assert!(*block < self.next_new, "sent before");
                    assert!(self.named.contains(block), "and lacked by somebody");
                } else {
                    assert_eq!(*block, self.next_new, "in order");
                    self.next_new += 1;
                }
            }
            Transmit::Xor { pkt, blocks } => {
                assert_eq!(*pkt, self.numbered, "no number twice");
                assert!((2..=XOR_MAX).contains(&blocks.len()));
                assert!(blocks.windows(2).all(|pair| pair[0] < pair[1]));
                assert!(blocks.iter().all(|block| self.named.contains(block)));
            }
        }
        self.numbered += 1;
        self.data += 1;
    }

    /// A report as a line brings it, whose numbers lie about what was sent, or anywhere.
    pub fn report(&self, input: &mut Input<'_>, blocks: u32) -> Report {
        let near = |input: &mut Input<'_>, of: u32| match input.u8() {
            0..=99 => of,
            100..=199 => of.wrapping_sub(u32::from(input.u8())),
            200..=219 => of.wrapping_add(u32::from(input.u8())),
            220..=255 => input.number32(),
        };
        let cum = if input.flag() { 0 } else { u32::from(input.u16()) % (blocks + 1) };
        let (mut end, mut missing) = (cum, Vec::new());
        for _ in 0..input.u8() % 12 {
            let start = end.saturating_add(u32::from(input.u8() % 20));
            let stop = start.saturating_add(1 + input.number32() % blocks);
            // As lines are read: rising, not touching, not beyond the last.
            if stop > blocks || start == end && !missing.is_empty() {
                break;
            }
            missing.push(start..stop);
            end = stop;
        }
        Report {
            seen: near(input, self.numbered),
            received: near(input, self.numbered),
            round: near(input, self.round),
            cum,
            more: input.u8() < 64,
            missing,
        }
    }

    /// What a client says that has all but `lacked`, and to which everything came.
    pub fn honest(&mut self, lacked: &BTreeSet<u32>, blocks: u32) -> Report {
        let sent = lacked.range(..self.next_new);
        let missing: Vec<_> = sent.map(|&block| block..block + 1).collect();
        self.name(&missing);
        let cum = lacked.first().copied().unwrap_or(blocks).min(self.next_new);
        let (seen, received, round) = (self.numbered, self.numbered, self.round);
        Report { seen, received, round, cum, more: false, missing }
    }
}

/// The sender to one client: nothing is sent to the silent or beyond the window and the budget;
/// then a client that falls silent or says the same for ever is given up, and one that becomes
/// honest gets its file.
pub fn sender(data: &[u8]) {
    let mut input = Input(data);
    let blocks = 1 + u32::from(input.u16() % 300);
    let (window, kind) = (2 + u32::from(input.u8() % 58), input.u8());
    let raw = kind & 1 == 1;
    let sender = if raw {
        BlockSender::raw(0..blocks, NOW)
    } else {
        BlockSender::reliable(0..blocks, window, NOW)
    };
    let mut talk = SeatConversation {
        sender,
        blocks,
        window,
        raw,
        now: NOW,
        heard: NOW,
        seen: 0,
        wire: Wire::default(),
    };
    while !input.is_empty() {
        match input.u8() % 4 {
            0 => input.wait(&mut talk.now),
            1 => {
                let report = talk.wire.report(&mut input, blocks);
                if !talk.say(&report) {
                    return;
                }
            }
            _ => {
                for _ in 0..input.u8() % 80 {
                    match talk.poll() {
                        None => return,
                        Some(None) => break,
                        Some(Some(_)) => {}
                    }
                }
            }
        }
        assert_eq!(talk.sender.pkt, talk.wire.numbered);
    }
    // The ends take longest, so that most inputs have none.
    match kind / 2 % 16 {
        0 => talk.falls_silent(),
        1 => {
            let report = talk.wire.report(&mut Input(data), blocks);
            talk.repeats(&report);
        }
        2 => talk.becomes_honest(),
        _ => {}
    }
}

/// A sender, its client's last words, and what went over the wire.
struct SeatConversation {
    sender: BlockSender,
    blocks: u32,
    window: u32,
    raw: bool,
    now: Moment,
    heard: Moment,
    seen: u32,
    wire: Wire,
}

impl SeatConversation {
    /// False when the client was given up.
    fn say(&mut self, report: &Report) -> bool {
        self.wire.name(&report.missing);
        self.say_again(report)
    }

    /// The same of a report that was said before.
    fn say_again(&mut self, report: &Report) -> bool {
        // What it knows at most, of what may be believed.
        let ahead = before(self.wire.numbered, report.seen);
        let possible = if ahead { self.wire.asked } else { report.seen };
        if before(self.seen, possible) {
            self.seen = possible;
        }
        self.heard = self.now;
        self.sender.handle_report(report, self.now).is_ok()
    }

    /// What was sent, if anything; the outer `None` when the client was given up.
    fn poll(&mut self) -> Option<Option<Transmit>> {
        let transmit = self.sender.poll_transmit(self.now).ok()?;
        assert!(self.now < self.heard.after(CONSENT), "nothing is sent to the silent");
        let Some(transmit) = transmit else {
            assert!(self.sender.poll_timeout() > self.now, "it waits for something");
            return Some(None);
        };
        if !self.raw && matches!(transmit, Transmit::Data { .. }) {
            let under_way = self.wire.numbered.wrapping_sub(self.seen);
            assert!(under_way < self.window, "{under_way} of {}", self.window);
        }
        self.wire.check(&transmit);
        let once = u64::from(self.blocks);
        let budget = if self.raw { once } else { once * ROUNDS + SLACK };
        assert!(self.wire.data <= budget, "{} of {budget}", self.wire.data);
        Some(Some(transmit))
    }

    fn falls_silent(mut self) {
        self.now = self.heard.after(CONSENT).max(self.now);
        assert!(self.poll().is_none(), "a seat always ends");
    }

    /// What is said again and again brings nothing new: the client is stuck, or too greedy.
    fn repeats(mut self, report: &Report) {
        let until = self.now.after(Duration::from_secs(60));
        if !self.say(report) {
            return;
        }
        while self.now < until {
            if !self.say_again(report) {
                return;
            }
            for _ in 0..1000 {
                match self.poll() {
                    None => return,
                    Some(None) => break,
                    Some(Some(_)) => {}
                }
            }
            self.now = self.now.after(Duration::from_millis(50));
        }
        panic!("a seat always ends: {report:?}");
    }

    fn becomes_honest(mut self) {
        let mut lacked: BTreeSet<u32> = (0..self.blocks).collect();
        for _ in 0..self.blocks * 50 {
            self.now = self.now.after(Duration::from_millis(1));
            match self.poll() {
                // What it said before was too much.
                None => return,
                Some(Some(Transmit::Data { block, .. })) => _ = lacked.remove(&block),
                Some(_) => {}
            }
            if lacked.is_empty() || self.raw && self.wire.next_new == self.blocks {
                return;
            }
            let report = self.wire.honest(&lacked, self.blocks);
            if !self.say(&report) {
                return;
            }
        }
        panic!("{} blocks never came", lacked.len());
    }
}

/// The receiver: a block is given out once, at its place and with its length; a report is one that
/// is read as it was written; the sums hold; an honest sender still fills it.
pub fn receiver(data: &[u8]) {
    let mut input = Input(data);
    let block_len = 1 + usize::from(input.u8() % 32);
    let bytes = u64::from(input.u16() % 600);
    let layout = BlockLayout { bytes, block_len };
    let mode = match input.u8() % 3 {
        0 => RepairMode::Raw,
        1 => RepairMode::Unicast,
        _ => RepairMode::Multicast(Duration::from_micros(u64::from(input.u16()))),
    };
    let held = u64::from(input.u16()) % (bytes + 1);
    let every = 1 + u32::from(input.u8());
    let limit = (1 << 19) + 4096 * data.len();
    at_most(limit, || {
        let receiver = BlockReceiver::new(7, layout, held, mode, every, NOW);
        let mut end = Reception::new(receiver, layout);
        while !input.is_empty() {
            end.step(&mut input, mode);
        }
        end.finish(mode);
    });
}

struct Reception {
    receiver: BlockReceiver,
    layout: BlockLayout,
    now: Moment,
    have: BTreeSet<u32>,
    handled: u64,
}

impl Reception {
    fn new(receiver: BlockReceiver, layout: BlockLayout) -> Self {
        let have = (0..layout.count()).filter(|&block| receiver.blocks.held().has(block)).collect();
        Self { receiver, layout, now: NOW, have, handled: 0 }
    }

    fn step(&mut self, input: &mut Input<'_>, mode: RepairMode) {
        input.wait(&mut self.now);
        match input.u8() {
            0..=9 => self.receiver.leave_group(),
            10..=19 => self.receiver.handle_foreign(),
            20..=49 => self.report(),
            50..=69 => self.handle(input.bytes(60)),
            _ => {
                let datagram = datagram(input, self.layout, mode == RepairMode::Raw);
                self.handle(&datagram);
            }
        }
        let blocks = &self.receiver.blocks;
        assert_eq!(blocks.held().count() as usize, self.have.len());
        assert_eq!(self.receiver.is_whole(), self.have.len() == self.layout.count() as usize);
        let in_order = (0..).zip(&self.have).take_while(|(at, block)| at == *block);
        assert_eq!(blocks.first_hole() as usize, in_order.count());
    }

    fn handle(&mut self, datagram: &[u8]) {
        self.handled += 1;
        match self.receiver.handle(datagram, self.now) {
            Delivery::Nothing => {}
            Delivery::Block { offset, payload } => {
                let block = u32::try_from(offset / self.layout.block_len as u64).expect("few");
                assert_eq!((offset, payload.len()), self.layout.place(block));
                assert!(self.have.insert(block), "each block once");
            }
            Delivery::Coded { lacking, others, payload } => {
                assert_eq!(payload.len(), self.layout.block_len);
                assert!(others.iter().all(|block| self.have.contains(block)));
                assert!(lacking < self.layout.count() && self.have.insert(lacking));
                self.receiver.repaired(lacking);
            }
        }
    }

    fn report(&mut self) {
        let count = self.layout.count();
        for report in self.receiver.poll_reports(self.now) {
            let (line, listed) = report.encode();
            assert_eq!(listed, report.missing.len(), "one line holds it");
            let line = String::from_utf8(line).expect("ASCII");
            assert_eq!(Report::decode(line.trim_end(), count).as_ref(), Ok(&report));
            let mut missing = report.missing.iter().flat_map(Range::clone);
            assert!(missing.all(|block| !self.have.contains(&block)));
            assert!(u64::from(report.received) <= self.handled);
        }
        assert!(self.receiver.poll_timeout() > self.now);
    }

    fn finish(mut self, mode: RepairMode) {
        if mode != RepairMode::Raw {
            for block in 0..self.layout.count() {
                let payload = vec![0; self.layout.place(block).1];
                let body = Body::Data { block, again: true, payload: &payload };
                self.handle(&encoded(0, body));
            }
            assert!(self.receiver.is_whole());
        }
        let strange = self.receiver.strange();
        let counts = self.receiver.finish();
        assert!(counts.corrupt + counts.foreign <= strange);
        let figures = counts.figures;
        let told = figures.unique + figures.duplicate + counts.ends;
        assert!(told <= self.handled, "{told} of {}", self.handled);
        assert!(figures.burst <= figures.lost && figures.reordered <= figures.unique);
        assert!(figures.delay <= figures.delay_max);
    }
}

fn encoded(pkt: u32, body: Body<'_>) -> Vec<u8> {
    let mut bytes = Vec::new();
    Packet { stream: 7, pkt, sent_us: pkt, body }.encode(&mut bytes);
    bytes
}

/// A datagram of this stream that is nearly possible.
fn datagram(input: &mut Input<'_>, layout: BlockLayout, raw: bool) -> Vec<u8> {
    let count = layout.count();
    let block =
        if input.u8() < 250 { u32::from(input.u16()) % count.max(1) } else { input.number32() };
    let pkt = if raw || input.flag() { block } else { input.number32() };
    let mut payload = vec![1; layout.place(block).1];
    if input.u8() > 250 {
        payload.push(0);
    }
    let mut bytes = match input.u8() {
        0..=179 => encoded(pkt, Body::Data { block, again: input.flag(), payload: &payload }),
        180..=229 => {
            let some = (0..2 + input.u8() % 6).map(|_| u32::from(input.u16()) % count.max(2));
            let mut blocks: Vec<u32> = some.collect::<BTreeSet<u32>>().into_iter().collect();
            if blocks.len() < 2 {
                blocks = vec![0, 1];
            }
            let payload = vec![1; layout.block_len];
            encoded(pkt, Body::Xor { blocks, payload: &payload })
        }
        230..=255 => {
            let upto = if input.flag() { count } else { input.number32() };
            encoded(pkt, Body::End { upto, round: u32::from(input.u8()) })
        }
    };
    // The sender's clock.
    bytes[12..16].copy_from_slice(&input.number32().to_be_bytes());
    bytes
}

/// The rate: whatever clients say, it is none or at least the least one, is judged once in an
/// interval, and grows by little at a time.
pub fn rate_controller(data: &[u8]) {
    let mut input = Input(data);
    let datagram = 548 + u64::from(input.u16() % 1000);
    let (group, mut now) = (input.flag(), NOW);
    let mut controller = RateController::new(datagram, now);
    let mut said: BTreeMap<SeatId, (u32, u32)> = BTreeMap::new();
    let mut judged = now;
    while !input.is_empty() {
        match input.u8() % 8 {
            0 => input.wait(&mut now),
            1 => now = now.after(INTERVAL),
            2 => controller.sent(u64::from(input.number32())),
            3 => {
                let rate = controller.rate();
                let numbered = u32::from(input.u16());
                if controller.update(group, now, |seat| (seat.0 % 3 > 0).then_some(numbered)) {
                    assert!(now >= judged.after(INTERVAL), "once in an interval");
                    judged = now;
                    held(rate, controller.rate());
                } else {
                    assert_eq!(controller.rate(), rate);
                }
            }
            _ => {
                let seat = SeatId(u16::from(input.u8() % 25));
                let (seen, received) = said.entry(seat).or_default();
                // Any number is a step of less than half the circle, so that many are believed.
                *seen = seen.wrapping_add(input.number32() >> 1);
                *received =
                    if input.flag() { *seen } else { received.wrapping_add(input.number32() >> 1) };
                let (seen, received) = (*seen, *received);
                let report =
                    Report { seen, received, round: 0, cum: 0, more: false, missing: vec![] };
                let numbered = if input.u8() < 200 { seen } else { input.number32() };
                controller.handle_report(seat, &report, numbered, now);
            }
        }
    }
}

fn held(before: Option<Rate>, after: Option<Rate>) {
    let Some(Rate(after)) = after else {
        return assert_eq!(before, None, "once there is a rate there is one");
    };
    assert!(after >= 2_000_000, "{after}");
}
