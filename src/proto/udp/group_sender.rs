//! The sender to a group: one stream for all, then rounds of repair.
//!
//! The first pass sends every block in order. Then END asks; each client names what it lacks;
//! losses of different clients are combined ([`xor`]) and sent; END asks again, until nobody
//! lacks anything. A client that lags (it does not answer, lacks more than a quarter where others
//! do not, or holds half of all or more up for [`HOLD_MAX`]) is set aside: the others are finished
//! first, and then it is [left](Cast::poll_aside) to a stream of its own, so that those who are
//! done hear nothing of it; several that lack much are passed over together instead. One that still lacks something after [`ROUNDS_MAX`] rounds, or has
//! asked for more than four times the file, is dropped.
//!
//! With more than [`xor::LACKERS_MAX`] clients blocks are repeated as they are.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Range;
use std::time::Duration;

use crate::proto::udp::control::Report;
use crate::proto::udp::sender::{Fault, ROUNDS, SLACK};
use crate::proto::udp::stall_detector::StallDetector;
use crate::proto::udp::{CONSENT, DOUBT, Transmit, before, xor};
use crate::units::Moment;

/// Sends the blocks of one file to a group.
#[derive(Clone, Debug)]
pub struct GroupSender {
    blocks: u32,
    next_new: u32,
    pkt: u32,
    /// Datagrams that were sent, questions included.
    sent: u64,
    members: BTreeMap<u16, GroupMember>,
    /// What this round still sends of the blocks below `planned`.
    repair: VecDeque<Vec<u32>>,
    /// What is lacked from here on is not in `repair` yet.
    planned: u32,
    round: u32,
    /// The number that the last END said.
    asked_pkt: u32,
    /// When this round's first END was sent; `None` while there is something to send.
    asked: Option<Moment>,
    ask_at: Moment,
    pause: Duration,
    faults: Vec<(u16, Fault)>,
    stragglers: Vec<Straggler>,
    /// When it was last asked for something to send.
    polled_at: Moment,
}

/// A client that the group has left behind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Straggler {
    /// The client.
    pub client: u16,
    /// The group's datagrams so far.
    pub pkt: u32,
    /// What it said last that it lacks.
    pub missing: Vec<Range<u32>>,
}

#[derive(Clone, Debug)]
struct GroupMember {
    window: u32,
    /// How long it has kept half of all or more from being sent to, less how long it was kept.
    held: Duration,
    seen: u32,
    heard_at: Moment,
    /// The round to which `missing` is the whole answer.
    answered: u32,
    missing: Vec<Range<u32>>,
    /// The part of an answer that has come, and its round.
    coming: Vec<Range<u32>>,
    coming_for: u32,
    aside: bool,
    /// It was set aside because it does not keep up, and not because it lacks much.
    slow: bool,
    rounds: u32,
    budget: u64,
    stall_detector: StallDetector,
    /// Since when it has said nothing but what cannot be true.
    doubted: Option<Moment>,
}

/// Rounds of repair after which a client is dropped.
pub const ROUNDS_MAX: u32 = 40;

/// A client that says nothing for this long does not hold the others.
pub const LAG: Duration = Duration::from_millis(300);

/// A client that has held half of all or more up for this long in all does so no more.
pub const HOLD_MAX: Duration = Duration::from_secs(1);

/// Blocks of the file whose repair is planned at once: a line of a few bytes may say that a whole
/// file is lacked, and a plan takes some 100 bytes a block.
const SECTION: u32 = 1 << 17;

/// Ranges of one client's answer that are kept: more than a receiver of ours says.
const RANGES_MAX: usize = 1 << 16;

/// Pauses between ENDs: few and short first, because one may be lost.
const PAUSE: Range<Duration> = Duration::from_millis(6)..Duration::from_millis(100);

impl GroupSender {
    /// A sender of `blocks` blocks.
    pub fn new(blocks: u32, now: Moment) -> Self {
        Self {
            blocks,
            next_new: 0,
            pkt: 0,
            sent: 0,
            members: BTreeMap::new(),
            repair: VecDeque::new(),
            planned: blocks,
            round: 0,
            asked_pkt: 0,
            asked: None,
            ask_at: now,
            pause: PAUSE.start,
            faults: Vec::new(),
            stragglers: Vec::new(),
            polled_at: now,
        }
    }

    /// Adds a client that takes at most `window` datagrams under way.
    pub fn join(&mut self, client: u16, window: u32, now: Moment) {
        let member = GroupMember {
            window,
            held: Duration::ZERO,
            seen: self.pkt,
            heard_at: now,
            answered: 0,
            missing: Vec::new(),
            coming: Vec::new(),
            coming_for: 0,
            aside: false,
            slow: false,
            rounds: 0,
            budget: u64::from(self.blocks) * ROUNDS + SLACK,
            stall_detector: StallDetector::new(self.sent, now),
            doubted: None,
        };
        self.members.insert(client, member);
    }

    /// A client is done, or gone.
    pub fn leave(&mut self, client: u16) {
        self.members.remove(&client);
    }

    /// True when nobody is left.
    pub fn is_over(&self) -> bool {
        self.members.is_empty()
    }

    /// Datagrams numbered so far, wrapping.
    pub fn numbered(&self) -> u32 {
        self.pkt
    }

    /// A client that is set aside now that the others are done: it has left the group and needs
    /// a sender of its own.
    pub fn poll_straggler(&mut self) -> Option<Straggler> {
        self.stragglers.pop()
    }

    /// A client that is not sent to any more, and why.
    pub fn poll_fault(&mut self) -> Option<(u16, Fault)> {
        self.faults.pop()
    }

    /// Takes what a client says; one that is not of the group is not heard.
    pub fn handle_report(&mut self, client: u16, report: &Report, now: Moment) {
        let (pkt, next_new, blocks) = (self.pkt, self.next_new, self.blocks);
        let Some(member) = self.members.get_mut(&client) else {
            return;
        };
        member.heard_at = now;
        let ahead = before(pkt, report.seen);
        let beyond = report
            .missing
            .last()
            .is_some_and(|range| range.end > next_new);
        let answers = report.round != 0 && report.round == self.round;
        if ahead && !answers || report.cum > blocks || beyond {
            // One such word may be an honest client's, to whom somebody forged a datagram.
            let since = *member.doubted.get_or_insert(now);
            if now >= since.after(DOUBT) {
                self.members.remove(&client);
                self.faults.push((client, Fault::Impossible));
            }
            return;
        }
        member.doubted = None;
        member.stall_detector.record(report, pkt, self.sent, now);
        // Who answers has at least seen what asked.
        let seen = if ahead { self.asked_pkt } else { report.seen };
        if before(member.seen, seen) {
            member.seen = seen;
            self.pause = PAUSE.start;
        }
        // One answer is enough: questions that come late or twice are answered again.
        let old = member.answered == report.round;
        if report.round == 0 || report.round != self.round || old {
            return;
        }
        if member.coming_for != report.round {
            member.coming.clear();
            member.coming_for = report.round;
        }
        // More ranges than blocks cannot be: the lines of one list rise.
        let rising = member.coming.last().map_or(0, |range| range.end);
        if report
            .missing
            .first()
            .is_some_and(|range| range.start < rising)
        {
            self.members.remove(&client);
            return self.faults.push((client, Fault::Impossible));
        }
        // What does not fit is said in the next round.
        let room = RANGES_MAX - member.coming.len();
        let missing = report.missing.iter().take(room).cloned();
        member.coming.extend(missing);
        if !report.more {
            member.answered = report.round;
            member.missing = std::mem::take(&mut member.coming);
        }
    }

    /// What to send now, if anything.
    pub fn poll_transmit(&mut self, now: Moment) -> Option<Transmit> {
        self.remove_unresponsive(now);
        self.release_stragglers();
        if self.members.is_empty() {
            return None;
        }
        self.plan_next();
        if self.is_sent() {
            self.collect(now);
        }
        if !self.is_open(now) {
            return self.ask(now);
        }
        let transmit = if self.next_new < self.blocks {
            self.next_new += 1;
            Transmit::Data {
                pkt: self.pkt,
                block: self.next_new - 1,
                again: false,
            }
        } else if let Some(mut blocks) = self.repair.pop_front() {
            match blocks.len() {
                1 => Transmit::Data {
                    pkt: self.pkt,
                    block: blocks.pop().expect("one"),
                    again: true,
                },
                _ => Transmit::Xor {
                    pkt: self.pkt,
                    blocks,
                },
            }
        } else {
            return self.ask(now);
        };
        self.pkt = self.pkt.wrapping_add(1);
        self.sent += 1;
        self.asked = None;
        self.plan_next();
        let done = self.is_sent();
        self.pause = PAUSE.start;
        self.ask_at = if done { now } else { now.after(self.pause * 4) };
        Some(transmit)
    }

    /// True when the pass or the round is over.
    fn is_sent(&self) -> bool {
        self.next_new == self.blocks && self.repair.is_empty() && self.planned == self.blocks
    }

    fn remove_unresponsive(&mut self, now: Moment) {
        let (faults, sent) = (&mut self.faults, self.sent);
        self.members.retain(|&client, member| {
            let fault = match () {
                () if now >= member.heard_at.after(CONSENT) => Fault::Silent,
                () if member.stall_detector.is_stuck(sent, now) => Fault::Stuck,
                () => return true,
            };
            faults.push((client, fault));
            false
        });
    }

    /// Once nobody is left but those set aside, leaves them to streams of their own; several that
    /// lack much are a group again, which is passed over for all of them at once.
    fn release_stragglers(&mut self) {
        let all_aside = self.members.values().all(|m| m.aside);
        if !self.is_sent() || self.members.is_empty() || !all_aside {
            return;
        }
        let mut able: Vec<_> = self.members.values_mut().filter(|m| !m.slow).collect();
        if able.len() > 1 {
            able.iter_mut().for_each(|member| member.aside = false);
            return;
        }
        for (client, member) in std::mem::take(&mut self.members) {
            self.stragglers.push(Straggler {
                client,
                pkt: self.pkt,
                missing: member.missing,
            });
        }
    }

    /// True while everybody that keeps up can hold one datagram more.
    fn is_open(&mut self, now: Moment) -> bool {
        let pkt = self.pkt;
        let keeps_up = |member: &GroupMember| !member.aside && now < member.heard_at.after(LAG);
        let under_way = |member: &GroupMember| pkt.wrapping_sub(member.seen);
        let is_full = |member: &GroupMember| under_way(member) >= member.window;
        let span = now.since(self.polled_at).min(PAUSE.end);
        self.polled_at = now;
        let active = || self.members.values().filter(|m| keeps_up(m));
        let (count, full) = (active().count(), active().filter(|m| is_full(m)).count());
        if count == 0 {
            // If all lag they are waited for, until they answer or are given up.
            return self.members.values().any(|member| !is_full(member));
        }
        let is_ready = |m: &GroupMember| under_way(m) < m.window / 2;
        let ready = active().filter(|m| is_ready(m)).count();
        if full > 0 && ready * 2 >= count {
            for member in self.members.values_mut().filter(|m| keeps_up(m)) {
                if is_full(member) {
                    member.held += span;
                    member.slow = member.held >= HOLD_MAX;
                    member.aside = member.slow;
                } else if is_ready(member) {
                    // Clients that are equally fast wait for each other in turn.
                    member.held = member.held.saturating_sub(span);
                }
            }
        }
        full == 0
    }

    /// Once everybody that keeps up has answered, makes the next round's repair.
    fn collect(&mut self, now: Moment) {
        let Some(asked) = self.asked else {
            return;
        };
        let round = self.round;
        let answered = |member: &GroupMember| member.answered == round;
        let waiting = self.members.values().any(|m| !m.aside && !answered(m));
        if waiting && now < asked.after(LAG) || !self.members.values().any(answered) {
            return;
        }
        for member in self.members.values_mut().filter(|m| m.answered != round) {
            (member.aside, member.slow) = (true, true);
        }
        self.set_aside();
        let (faults, blocks) = (&mut self.faults, self.blocks);
        self.members.retain(|&client, member| {
            if member.aside {
                return true;
            }
            member.rounds += 1;
            let lacks = lacks(member).min(u64::from(blocks));
            let left = member.budget.checked_sub(lacks);
            member.budget = left.unwrap_or(0);
            let greedy = left.is_none() || member.rounds > ROUNDS_MAX;
            if greedy {
                faults.push((client, Fault::Greedy));
            }
            !greedy
        });
        self.planned = 0;
        self.plan_next();
        // Nobody lacks anything: those that are whole are about to say so.
        if self.repair.is_empty() {
            self.asked = Some(now);
        }
    }

    /// Sets aside who lacks much where others do not.
    fn set_aside(&mut self) {
        let round = self.round;
        let least = self
            .members
            .values()
            .filter(|member| member.answered == round)
            .map(lacks)
            .min()
            .unwrap_or(0);
        let much = (u64::from(self.blocks) / 4).max(4 * least);
        for member in self.members.values_mut().filter(|m| m.answered == round) {
            member.aside = lacks(member) > much;
        }
    }

    /// Goes on to the next section in which somebody lacks something, once the last is sent.
    fn plan_next(&mut self) {
        while self.repair.is_empty() && self.planned < self.blocks {
            let end = self.planned.saturating_add(SECTION).min(self.blocks);
            self.repair = self.plan(self.planned..end).into();
            self.planned = end;
        }
    }

    /// What to send so that everybody who is not aside gets what it lacks of a section.
    fn plan(&self, section: Range<u32>) -> Vec<Vec<u32>> {
        let active = || self.members.values().filter(|member| !member.aside);
        let mut lacked: BTreeMap<u32, u128> = BTreeMap::new();
        for (place, member) in active().enumerate() {
            let first = member.missing.partition_point(|r| r.end <= section.start);
            let ranges = member.missing[first..].iter();
            for range in ranges.take_while(|range| range.start < section.end) {
                for block in range.start.max(section.start)..range.end.min(section.end) {
                    *lacked.entry(block).or_default() |= 1 << (place % xor::LACKERS_MAX);
                }
            }
        }
        match active().count() <= xor::LACKERS_MAX {
            true => xor::group(lacked.into_iter().collect()),
            false => lacked.into_keys().map(|block| vec![block]).collect(),
        }
    }

    fn ask(&mut self, now: Moment) -> Option<Transmit> {
        if now < self.ask_at {
            return None;
        }
        let pass_over = self.is_sent();
        let answered = self.members.values().all(|m| m.answered == self.round);
        // The same question again while somebody owes the answer; the next one otherwise.
        if self.asked.is_none() || !pass_over || answered {
            self.round = self.round.wrapping_add(1).max(1);
            self.asked_pkt = self.pkt;
            self.asked = pass_over.then_some(now);
        }
        self.ask_at = now.after(self.pause);
        self.pause = (self.pause * 3 / 2).min(PAUSE.end);
        self.sent += 1;
        Some(Transmit::End {
            pkts: self.pkt,
            upto: self.next_new,
            round: self.round,
        })
    }

    /// When [`Cast::poll_transmit`] has something again, unless a report comes before.
    pub fn poll_timeout(&self) -> Moment {
        // Once it is over it was looked at, and those who are silent are asked again.
        let lag = self.asked.map(|asked| asked.after(LAG));
        let lag = lag.filter(|lag| *lag > self.polled_at);
        lag.map_or(self.ask_at, |lag| self.ask_at.min(lag))
    }
}

/// How many blocks a client lacks.
fn lacks(member: &GroupMember) -> u64 {
    let ranges = member.missing.iter();
    ranges.map(|range| u64::from(range.end - range.start)).sum()
}

#[cfg(test)]
#[allow(
    clippy::single_range_in_vec_init,
    reason = "a list of one range is meant"
)]
mod tests;
