//! The sending machines under whatever clients may say in whatever order: any sequence of joins,
//! reports, silences, polls and departures keeps what must hold.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Range,
    time::Duration,
};

use proptest::prelude::*;

use crate::{
    proto::udp::{
        CONSENT, Transmit, before,
        control::Report,
        group_sender::{GroupSender, ROUNDS_MAX},
        liveness::{ROUNDS, SLACK},
        packet::XOR_MAX,
        sender::BlockSender,
    },
    units::Moment,
};

const NOW: Moment = Moment(1_000_000);

/// What happens next.
#[derive(Clone, Debug)]
enum Step {
    Join(u16, u32),
    Leave(u16),
    Say(u16, Said),
    Wait(u32),
    Poll(u16),
}

/// A report whose numbers lie about what was sent, or anywhere.
#[derive(Clone, Debug)]
struct Said {
    /// How far behind what was numbered; below zero it is ahead.
    behind: i64,
    received: u32,
    /// How far behind the round that was asked.
    round: u32,
    cum: u32,
    more: bool,
    missing: Vec<(u32, u32)>,
}

impl Said {
    fn report(&self, blocks: u32, numbered: u32, round: u32) -> Report {
        let cum = self.cum % (blocks + 1);
        let mut end = cum;
        let mut missing = Vec::new();
        for &(gap, len) in &self.missing {
            let start = end.saturating_add(gap);
            let stop = start.saturating_add(len).saturating_add(1);
            // As lines are read: rising, not touching, below the last.
            if stop > blocks || start == end && !missing.is_empty() {
                break;
            }
            missing.push(start..stop);
            end = stop;
        }
        Report {
            seen: (i64::from(numbered) - self.behind) as u32,
            received: self.received,
            round: round.wrapping_sub(self.round),
            cum,
            more: self.more,
            missing,
        }
    }
}

fn said() -> impl Strategy<Value = Said> {
    let behind = prop_oneof![
        5 => Just(0),
        5 => 0_i64..100,
        1 => -3_i64..0,
        1 => any::<i32>().prop_map(i64::from),
    ];
    let round = prop_oneof![4 => Just(0_u32), 1 => 0_u32..4, 1 => any::<u32>()];
    let range = prop_oneof![8 => (0_u32..20, 0_u32..20), 1 => (0_u32..9, any::<u32>())];
    let missing = prop::collection::vec(range, 0..12);
    let received = prop_oneof![0_u32..500, any::<u32>()];
    (behind, received, round, 0_u32..400, any::<bool>(), missing).prop_map(
        |(behind, received, round, cum, more, missing)| Said {
            behind,
            received,
            round,
            cum: if cum < 200 { 0 } else { cum },
            more,
            missing,
        },
    )
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        1 => (0_u16..5, 2_u32..60).prop_map(|(who, window)| Step::Join(who, window)),
        1 => (0_u16..5).prop_map(Step::Leave),
        12 => (0_u16..5, said()).prop_map(|(who, said)| Step::Say(who, said)),
        4 => prop_oneof![9 => 0_u32..20, 1 => 0_u32..6000].prop_map(Step::Wait),
        12 => (1_u16..80).prop_map(Step::Poll),
    ]
}

/// What one sending machine has sent, and whether that is right.
#[derive(Default)]
struct Wire {
    numbered: u32,
    round: u32,
    /// The number that the last END said.
    asked: u32,
    next_new: u32,
    data: u64,
    named: BTreeSet<u32>,
}

impl Wire {
    fn name(&mut self, missing: &[Range<u32>]) {
        self.named.extend(missing.iter().flat_map(Range::clone));
    }

    fn check(&mut self, transmit: &Transmit) -> Result<(), TestCaseError> {
        match transmit {
            Transmit::End { pkts, upto, round } => {
                prop_assert_eq!((*pkts, *upto), (self.numbered, self.next_new));
                prop_assert!(*round > 0 && *round - self.round <= 1, "{} {}", round, self.round);
                (self.round, self.asked) = (*round, *pkts);
                return Ok(());
            }
            Transmit::Data { pkt, block, again } => {
                prop_assert_eq!(*pkt, self.numbered, "no number twice");
                if *again {
                    prop_assert!(*block < self.next_new, "sent before");
                    prop_assert!(self.named.contains(block), "and lacked by somebody");
                } else {
                    prop_assert_eq!(*block, self.next_new, "in order");
                    self.next_new += 1;
                }
            }
            Transmit::Xor { pkt, blocks } => {
                prop_assert_eq!(*pkt, self.numbered, "no number twice");
                prop_assert!((2..=XOR_MAX).contains(&blocks.len()));
                prop_assert!(blocks.windows(2).all(|pair| pair[0] < pair[1]));
                prop_assert!(blocks.iter().all(|block| self.named.contains(block)));
            }
        }
        self.numbered += 1;
        self.data += 1;
        Ok(())
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(150))]

    #[test]
    fn sender_survives_any_reports(
        blocks in 1_u32..300,
        window in 2_u32..60,
        raw: bool,
        steps in prop::collection::vec(step(), 0..200),
    ) {
        let mut sender = if raw { BlockSender::raw(0..blocks, NOW) } else { BlockSender::reliable(0..blocks, window, NOW) };
        let (mut wire, mut now, mut heard, mut seen) = (Wire::default(), NOW, NOW, 0);
        for step in steps {
            match step {
                Step::Wait(ms) => now = now.after(Duration::from_millis(u64::from(ms))),
                Step::Say(_, said) => {
                    let report = said.report(blocks, wire.numbered, wire.round);
                    // What it knows at most, of what may be believed.
                    let possible = if before(wire.numbered, report.seen) { wire.asked } else { report.seen };
                    if before(seen, possible) {
                        seen = possible;
                    }
                    wire.name(&report.missing);
                    if sender.handle_report(&report, now).is_err() {
                        return Ok(());
                    }
                    heard = now;
                }
                Step::Poll(count) => for _ in 0..count {
                    let Ok(transmit) = sender.poll_transmit(now) else {
                        return Ok(());
                    };
                    prop_assert!(now < heard.after(CONSENT), "nothing is sent to the silent");
                    let Some(transmit) = transmit else {
                        prop_assert!(sender.poll_timeout() > now, "it waits for something");
                        break;
                    };
                    if !raw && matches!(transmit, Transmit::Data { .. }) {
                        prop_assert!(wire.numbered.wrapping_sub(seen) < window, "{}", seen);
                    }
                    wire.check(&transmit)?;
                    let budget = if raw { u64::from(blocks) } else { u64::from(blocks) * ROUNDS + SLACK };
                    prop_assert!(wire.data <= budget);
                },
                Step::Join(..) | Step::Leave(_) => {}
            }
            prop_assert_eq!(sender.pkt, wire.numbered);
        }
        // From here on it is honest and everything arrives: it gets the whole file.
        let mut lacked: BTreeSet<u32> = (0..blocks).collect();
        for _ in 0..u64::from(blocks) * 50 {
            now = now.after(Duration::from_millis(1));
            match sender.poll_transmit(now) {
                Ok(Some(transmit)) => {
                    if let Transmit::Data { block, .. } = transmit {
                        lacked.remove(&block);
                    }
                    wire.check(&transmit)?;
                }
                Ok(None) => {}
                // What it said before was too much.
                Err(_) => return Ok(()),
            }
            if lacked.is_empty() || raw && wire.next_new == blocks {
                return Ok(());
            }
            let sent = lacked.range(..wire.next_new);
            let missing: Vec<_> = sent.map(|&block| block..block + 1).collect();
            wire.name(&missing);
            let cum = lacked.first().copied().unwrap_or(blocks).min(wire.next_new);
            let (seen, received, round) = (wire.numbered, wire.numbered, wire.round);
            let more = false;
            let report = Report { seen, received, round, cum, more, missing };
            if sender.handle_report(&report, now).is_err() {
                return Ok(());
            }
        }
        prop_assert!(false, "{} blocks never came", lacked.len());
    }

    #[test]
    fn group_sender_survives_any_reports(
        blocks in 1_u32..300,
        steps in prop::collection::vec(step(), 0..250),
    ) {
        let mut cast = GroupSender::new(blocks, NOW);
        let (mut wire, mut now) = (Wire::default(), NOW);
        // Who is in the group, and when it was last heard.
        let mut members: BTreeMap<u16, Moment> = BTreeMap::new();
        // A repeated join would be another client in the same seat.
        let mut joined: BTreeSet<u16> = BTreeSet::new();
        for step in steps {
            match step {
                Step::Join(who, window) => if joined.insert(who) {
                    cast.join(who, window, now);
                    members.insert(who, now);
                },
                Step::Leave(who) => {
                    cast.leave(who);
                    members.remove(&who);
                }
                Step::Wait(ms) => now = now.after(Duration::from_millis(u64::from(ms))),
                Step::Say(who, said) => {
                    let report = said.report(blocks, wire.numbered, wire.round);
                    cast.handle_report(who, &report, now);
                    if let Some(heard) = members.get_mut(&who) {
                        *heard = now;
                        wire.name(&report.missing);
                    }
                }
                Step::Poll(count) => for _ in 0..count {
                    let Some(transmit) = cast.poll_transmit(now) else {
                        let waits = cast.is_over() || cast.poll_timeout() > now;
                        prop_assert!(waits, "it waits for something");
                        break;
                    };
                    wire.check(&transmit)?;
                    let heard = members.values().any(|&heard| now < heard.after(CONSENT));
                    prop_assert!(heard, "nothing is sent to the silent");
                    let most = u64::from(blocks) * u64::from(ROUNDS_MAX + 1);
                    prop_assert!(wire.data <= most, "{} of {}", wire.data, most);
                },
            }
            while let Some((who, _)) = cast.poll_fault() {
                prop_assert!(members.remove(&who).is_some(), "once each");
            }
            while let Some(aside) = cast.poll_straggler() {
                prop_assert!(members.remove(&aside.client).is_some(), "once each");
                prop_assert_eq!(aside.pkt, wire.numbered);
                prop_assert!(aside.missing.iter().all(|range| range.end <= blocks));
            }
            prop_assert_eq!(cast.is_over(), members.is_empty());
            prop_assert_eq!(cast.pkt, wire.numbered);
        }
    }
}
