//! The sender to a group under whatever its clients say in whatever order.

use gatecast::internals::{
    proto::udp::{
        CONSENT, Transmit,
        group_sender::{GroupSender, ROUNDS_MAX},
    },
    units::Moment,
};
use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use crate::{
    input::Input,
    udp_machines::{NOW, Wire},
};

/// Numbers are used once, every repeat was lacked by somebody, nothing is sent to the silent; each
/// client leaves once; then those that fall silent or say the same for ever are given up, and
/// those that become honest get the file.
pub fn group_sender(data: &[u8]) {
    let mut input = Input(data);
    let blocks = 1 + u32::from(input.u16() % 120);
    let kind = input.u8();
    let mut group = Group {
        sender: GroupSender::new(blocks, NOW),
        blocks,
        now: NOW,
        wire: Wire::default(),
        members: BTreeMap::new(),
        joined: BTreeSet::new(),
    };
    while !input.is_empty() {
        group.step(&mut input);
    }
    match kind % 16 {
        0 => group.falls_silent(),
        1 => group.repeats(&mut Input(data)),
        2 => group.becomes_honest(),
        _ => {}
    }
}

struct Group {
    sender: GroupSender,
    blocks: u32,
    now: Moment,
    wire: Wire,
    /// Who is in the group, and when it was last heard.
    members: BTreeMap<u16, Moment>,
    /// A repeated join would be another client in the same seat.
    joined: BTreeSet<u16>,
}

impl Group {
    fn step(&mut self, input: &mut Input<'_>) {
        let who = u16::from(input.u8() % 6);
        match input.u8() % 12 {
            0 | 1 => {
                let window = 2 + u32::from(input.u8() % 58);
                if self.joined.insert(who) {
                    self.sender.join(who, window, self.now);
                    self.members.insert(who, self.now);
                }
            }
            2 => {
                if input.u8() < 64 {
                    self.sender.leave(who);
                    self.members.remove(&who);
                }
            }
            3 => input.wait(&mut self.now),
            4..=7 => {
                let report = self.wire.report(input, self.blocks);
                self.say(who, &report);
            }
            _ => {
                for _ in 0..input.u8() % 80 {
                    if self.poll().is_none() {
                        break;
                    }
                }
            }
        }
        self.settle();
    }

    fn say(&mut self, who: u16, report: &gatecast::internals::proto::udp::control::Report) {
        self.sender.handle_report(who, report, self.now);
        if let Some(heard) = self.members.get_mut(&who) {
            *heard = self.now;
            self.wire.name(&report.missing);
        }
    }

    fn poll(&mut self) -> Option<Transmit> {
        let Some(transmit) = self.sender.poll_transmit(self.now) else {
            let waits = self.sender.is_over() || self.sender.poll_timeout() > self.now;
            assert!(waits, "it waits for something");
            return None;
        };
        self.wire.check(&transmit);
        let heard = self.members.values().any(|&heard| self.now < heard.after(CONSENT));
        assert!(heard, "nothing is sent to the silent");
        let most = u64::from(self.blocks) * u64::from(ROUNDS_MAX + 1);
        assert!(self.wire.data <= most, "{} of {most}", self.wire.data);
        Some(transmit)
    }

    /// Who has left the group left it once.
    fn settle(&mut self) {
        while let Some((who, _)) = self.sender.poll_fault() {
            assert!(self.members.remove(&who).is_some(), "once each");
        }
        while let Some(aside) = self.sender.poll_straggler() {
            assert!(self.members.remove(&aside.client).is_some(), "once each");
            assert_eq!(aside.pkt, self.wire.numbered);
            assert!(aside.missing.iter().all(|range| range.end <= self.blocks));
        }
        assert_eq!(self.sender.is_over(), self.members.is_empty());
        assert_eq!(self.sender.pkt, self.wire.numbered);
    }

    fn falls_silent(mut self) {
        self.now = self.now.after(CONSENT);
        assert_eq!(self.poll(), None);
        self.settle();
        assert!(self.sender.is_over(), "a seat always ends");
    }

    /// Each client says one thing for ever.
    fn repeats(mut self, input: &mut Input<'_>) {
        let reports: Vec<_> = (0..6).map(|_| self.wire.report(input, self.blocks)).collect();
        let until = self.now.after(Duration::from_secs(60));
        reports.iter().for_each(|report| self.wire.name(&report.missing));
        while self.now < until && !self.members.is_empty() {
            for (who, report) in (0..).zip(&reports) {
                self.sender.handle_report(who, report, self.now);
                self.members.entry(who).and_modify(|heard| *heard = self.now);
            }
            for _ in 0..1000 {
                if self.poll().is_none() {
                    break;
                }
            }
            self.settle();
            self.now = self.now.after(Duration::from_millis(50));
        }
        assert!(self.members.is_empty(), "a seat always ends: {:?} {reports:?}", self.members);
    }

    fn becomes_honest(mut self) {
        let whole: BTreeSet<u32> = (0..self.blocks).collect();
        let mut lacked: BTreeMap<u16, BTreeSet<u32>> =
            self.members.keys().map(|&who| (who, whole.clone())).collect();
        for _ in 0..self.blocks * 100 + 2000 {
            self.now = self.now.after(Duration::from_millis(1));
            match self.poll() {
                Some(Transmit::Data { block, .. }) => {
                    lacked.values_mut().for_each(|lacked| _ = lacked.remove(&block));
                }
                Some(Transmit::Xor { blocks, .. }) => {
                    for lacked in lacked.values_mut() {
                        let mut missing = blocks.iter().filter(|block| lacked.contains(block));
                        if let (Some(&block), None) = (missing.next(), missing.next()) {
                            lacked.remove(&block);
                        }
                    }
                }
                Some(Transmit::End { .. }) | None => {}
            }
            self.settle();
            let done = lacked.iter().filter(|(_, lacked)| lacked.is_empty());
            for who in done.map(|(&who, _)| who).collect::<Vec<_>>() {
                self.sender.leave(who);
                self.members.remove(&who);
            }
            lacked.retain(|who, _| self.members.contains_key(who));
            if lacked.is_empty() {
                return;
            }
            for (&who, lacked) in &lacked {
                let report = self.wire.honest(lacked, self.blocks);
                self.sender.handle_report(who, &report, self.now);
                self.members.insert(who, self.now);
            }
            self.settle();
            lacked.retain(|who, _| self.members.contains_key(who));
        }
        panic!("not all have the file: {lacked:?}");
    }
}
