//! The sender to a group: one stream for all, then rounds of repair.
//!
//! The first pass sends every block in order. Every 2048 datagrams an END asks, each client
//! reports what it lacks, and losses of different clients are combined ([`xor`]) and sent before the
//! pass goes on. After it an END asks again after each round of repair, until no client lacks
//! anything.
//!
//! A client is set aside when it does not answer, when it lacks more than a quarter of the file
//! while others do not, or when it has stalled half the group for [`HOLD_MAX`]. The others are
//! finished first. Then it is [handed over](GroupSender::poll_straggler) to a stream of its own, so
//! that the clients that are done receive nothing of it. Several clients that lack much are a group
//! again instead, and get another pass together. A client is dropped if it still lacks something
//! after [`ROUNDS_MAX`] rounds, or for any other [`Fault`].
//!
//! With more than [`xor::LACKERS_MAX`] clients blocks are repeated as they are.

use std::{
    collections::{BTreeMap, VecDeque},
    ops::Range,
    time::Duration,
};

use crate::{
    proto::udp::{
        Transmit, before,
        control::Report,
        end_timer::EndTimer,
        group_member::GroupMember,
        liveness::{Fault, Liveness},
        xor,
    },
    units::Moment,
};

/// Sends the blocks of one file to a group.
#[derive(Clone, Debug, Default)]
pub struct GroupSender {
    blocks: u32,
    next_new: u32,
    /// The number of the next datagram.
    pub pkt: u32,
    /// Datagrams that were sent, ENDs included.
    sent: u64,
    members: BTreeMap<u16, GroupMember>,
    /// What this round still sends of the blocks below `planned`.
    repair: VecDeque<Vec<u32>>,
    /// What is lacked from here on is not in `repair` yet.
    planned: u32,
    ends: EndTimer,
    /// When this round's first END was sent; `None` while no answer is waited for.
    asked: Option<Moment>,
    /// The blocks that waited in `repair` when this round began, in order: who lacks one has not
    /// been sent it yet.
    queued: Vec<u32>,
    faults: Vec<(u16, Fault)>,
    stragglers: Vec<Straggler>,
    /// When something to send was asked for last.
    polled_at: Moment,
    /// When the last new block was sent.
    pub passed_at: Option<Moment>,
}

/// A client that the group has left behind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Straggler {
    /// The client.
    pub client: u16,
    /// The group's datagrams so far.
    pub pkt: u32,
    /// What it lacks, by its last report.
    pub missing: Vec<Range<u32>>,
    /// For how long a datagram waited for room in its buffer.
    pub full: Duration,
}

/// Rounds of repair after which a client is dropped.
pub const ROUNDS_MAX: u32 = 40;

/// A client that sends no report for this long does not hold the others.
pub const LAG: Duration = Duration::from_millis(300);

/// After stalling half the group for this long in total, a client is no longer waited for.
pub const HOLD_MAX: Duration = Duration::from_secs(1);

/// Blocks of the file whose repair is planned at once: a line of a few bytes may say that a whole
/// file is lacked, and a plan takes some 100 bytes a block.
const SECTION: u32 = 1 << 17;

/// In the pass a round begins after so many datagrams. To recover a block a client reads up to
/// nineteen others, which would all fall into the end.
const EARLY: u32 = 2048;

/// So many datagrams before the end of the pass or of a long round the next round begins, so that
/// its repair is planned when they have been sent.
const AHEAD: u32 = 256;

/// Datagrams between two ENDs of one round, as one may be lost.
const AGAIN: u32 = 64;

/// First and longest pause between two ENDs: short at first, because one may be lost.
const PAUSE: Range<Duration> = Duration::from_millis(6)..Duration::from_millis(100);

impl GroupSender {
    /// A sender of `blocks` blocks.
    pub fn new(blocks: u32, now: Moment) -> Self {
        Self {
            blocks,
            planned: blocks,
            ends: EndTimer::new(PAUSE, now),
            polled_at: now,
            ..Self::default()
        }
    }

    /// Adds a client that takes at most `window` datagrams under way.
    pub fn join(&mut self, client: u16, window: u32, now: Moment) {
        let liveness = Liveness::new(self.blocks, self.sent, now);
        let member = GroupMember::new(window, self.pkt, liveness);
        self.members.insert(client, member);
    }

    /// A client is done, or gone.
    pub fn leave(&mut self, client: u16) {
        self.members.remove(&client);
    }

    /// True when no client is left.
    pub fn is_over(&self) -> bool {
        self.members.is_empty()
    }

    /// A client that was set aside, now that the others are done: it has left the group and needs
    /// a sender of its own.
    pub fn poll_straggler(&mut self) -> Option<Straggler> {
        self.stragglers.pop()
    }

    /// For how long a datagram waited for room in the client's buffer.
    pub fn full(&self, client: u16) -> Option<Duration> {
        self.members.get(&client).map(|member| member.full)
    }

    /// A client that was given up, and why.
    pub fn poll_fault(&mut self) -> Option<(u16, Fault)> {
        self.faults.pop()
    }

    /// Takes a client's report; of one that is not in the group it is ignored.
    pub fn handle_report(&mut self, client: u16, report: &Report, now: Moment) {
        let Some(member) = self.members.get_mut(&client) else {
            return;
        };
        member.liveness.reported_at = now;
        let ahead = before(self.pkt, report.seen);
        let last = report.missing.last();
        let beyond = last.is_some_and(|range| range.end > self.next_new);
        let answers = report.round != 0 && report.round == self.ends.round;
        if ahead && !answers || report.cum > self.blocks || beyond {
            if let Err(fault) = member.liveness.doubt(now) {
                self.remove_faulty(client, fault);
            }
            return;
        }
        member.liveness.trust();
        member.liveness.stall.record(report, self.pkt, self.sent, now);
        // Whoever answers an END has seen at least what came before it.
        let seen = if ahead { self.ends.pkt } else { report.seen };
        if before(member.seen, seen) {
            member.seen = seen;
            self.ends.reset_pause();
        }
        // ENDs that come late or twice are answered again; the first answer counts.
        if !answers || member.answered == report.round {
            return;
        }
        if let Err(fault) = member.add_answer(report) {
            self.remove_faulty(client, fault);
        }
    }

    fn remove_faulty(&mut self, client: u16, fault: Fault) {
        self.members.remove(&client);
        self.faults.push((client, fault));
    }

    /// What to send now, if anything.
    pub fn poll_transmit(&mut self, now: Moment) -> Option<Transmit> {
        self.remove_unresponsive(now);
        self.release_stragglers();
        if self.members.is_empty() {
            return None;
        }
        self.plan_next();
        self.collect(now);
        if self.is_question_due() {
            self.ends.due = now;
            return self.ask(now);
        }
        if !self.is_open(now) {
            // In the pass each END is a new question: an answer tells what has been seen.
            self.asked = self.asked.filter(|_| self.next_new == self.blocks || now < self.ends.due);
            return self.ask(now);
        }
        let transmit = if let Some(mut blocks) = self.repair.pop_front() {
            if blocks.len() == 1 {
                Transmit::Data { pkt: self.pkt, block: blocks.pop().expect("one"), again: true }
            } else {
                Transmit::Xor { pkt: self.pkt, blocks }
            }
        } else if self.next_new < self.blocks {
            self.next_new += 1;
            if self.next_new == self.blocks {
                self.passed_at = Some(now);
                // From now on who does not answer is waited for.
                self.asked = self.asked.map(|_| now);
            }
            Transmit::Data { pkt: self.pkt, block: self.next_new - 1, again: false }
        } else {
            return self.ask(now);
        };
        self.pkt = self.pkt.wrapping_add(1);
        self.sent += 1;
        self.plan_next();
        if self.asked.is_none() {
            self.ends.reset_pause();
            let pause = if self.is_sent() { Duration::ZERO } else { self.ends.pause * 4 };
            self.ends.due = now.after(pause);
        }
        Some(transmit)
    }

    /// Datagrams until the end of the pass or the round; `None` while a part of it is not planned.
    fn left(&self) -> Option<usize> {
        let new = (self.blocks - self.next_new) as usize;
        (self.planned == self.blocks).then(|| new + self.repair.len())
    }

    /// True when an END is to be sent although there are datagrams to send.
    fn is_question_due(&self) -> bool {
        let since = self.pkt.wrapping_sub(self.ends.asked_pkt);
        match self.left() {
            None | Some(0) => false,
            Some(_) if self.asked.is_some() => since >= AGAIN,
            Some(left) if left <= AHEAD as usize => since >= AHEAD,
            Some(_) => since >= EARLY && self.next_new < self.blocks,
        }
    }

    /// True when the pass or the round is over.
    fn is_sent(&self) -> bool {
        self.left() == Some(0)
    }

    fn remove_unresponsive(&mut self, now: Moment) {
        let (faults, sent) = (&mut self.faults, self.sent);
        self.members.retain(|&client, member| {
            let fault = if member.liveness.is_silent(now) {
                Fault::Silent
            } else if member.liveness.stall.is_stuck(sent, now) {
                member.liveness.stuck()
            } else {
                return true;
            };
            faults.push((client, fault));
            false
        });
    }

    /// Once only clients that were set aside are left, hands them over to streams of their own.
    /// Several that lack much become a group again instead, because one pass serves them all.
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
            let GroupMember { missing, full, .. } = member;
            self.stragglers.push(Straggler { client, pkt: self.pkt, missing, full });
        }
    }

    /// True while every client that keeps up has room for one more datagram.
    fn is_open(&mut self, now: Moment) -> bool {
        let pkt = self.pkt;
        let keeps_up =
            |member: &GroupMember| !member.aside && now < member.liveness.reported_at.after(LAG);
        let under_way = |member: &GroupMember| pkt.wrapping_sub(member.seen);
        let is_full = |member: &GroupMember| under_way(member) >= member.window;
        let span = now.since(self.polled_at).min(PAUSE.end);
        self.polled_at = now;
        let sends = !self.is_sent();
        for member in self.members.values_mut() {
            member.full += if member.waited { span } else { Duration::ZERO };
            member.waited = sends && keeps_up(member) && is_full(member);
        }
        let active = || self.members.values().filter(|m| keeps_up(m));
        let (count, full) = (active().count(), active().filter(|m| is_full(m)).count());
        if count == 0 {
            // If all clients lag, they are waited for until they answer or are given up.
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

    /// Once every client that keeps up has answered, plans the next round's repair.
    fn collect(&mut self, now: Moment) {
        let Some(asked) = self.asked else {
            return;
        };
        let round = self.ends.round;
        let answered = |member: &GroupMember| member.answered == round;
        let passed = self.next_new == self.blocks;
        // In the pass the sending goes on, so that an answer may take its time.
        let is_late =
            |m: &GroupMember| now >= if passed { asked } else { m.liveness.reported_at }.after(LAG);
        let awaited = |m: &GroupMember| !m.aside && !answered(m) && !is_late(m);
        if self.members.values().any(awaited) || !self.members.values().any(answered) {
            return;
        }
        if passed {
            for member in self.members.values_mut().filter(|m| m.answered != round) {
                (member.aside, member.slow) = (true, true);
            }
        }
        self.set_aside();
        let (faults, blocks, queued) = (&mut self.faults, self.blocks, &self.queued);
        self.members.retain(|&client, member| {
            if member.aside {
                return true;
            }
            let lacked = member.lacked(queued).min(u64::from(blocks));
            member.rounds += u32::from(lacked > 0 && passed);
            let greedy = member.liveness.spend(lacked).is_err() || member.rounds > ROUNDS_MAX;
            if greedy {
                faults.push((client, Fault::Greedy));
            }
            !greedy
        });
        self.asked = None;
        self.planned = 0;
        self.plan_next();
        if self.is_sent() && self.ends.asked_pkt != self.pkt {
            self.ends.due = now;
        }
    }

    /// Sets aside the clients that lack much while others do not.
    fn set_aside(&mut self) {
        let round = self.ends.round;
        let answered = self.members.values().filter(|m| m.answered == round);
        let least = answered.map(|m| m.lacked(&self.queued)).min().unwrap_or(0);
        // In the pass a round is about some EARLY blocks.
        let asked = if self.next_new < self.blocks { EARLY.min(self.blocks) } else { self.blocks };
        let much = (u64::from(asked) / 4).max(4 * least);
        for member in self.members.values_mut().filter(|m| m.answered == round) {
            member.aside = member.lacked(&self.queued) > much;
        }
    }

    /// Once a section is sent, plans the next one in which a client lacks something.
    fn plan_next(&mut self) {
        while self.repair.is_empty() && self.planned < self.blocks {
            let end = self.planned.saturating_add(SECTION).min(self.blocks);
            self.repair = self.plan(self.planned..end).into();
            self.planned = end;
        }
    }

    /// What to send so that every client that is not aside gets what it lacks of a section.
    fn plan(&self, section: Range<u32>) -> Vec<Vec<u32>> {
        let active = || self.members.values().filter(|member| !member.aside);
        let mut lacked: BTreeMap<u32, u128> = BTreeMap::new();
        for (place, member) in active().enumerate() {
            let first = member.missing.partition_point(|r| r.end <= section.start);
            let ranges = member.missing[first..].iter();
            for range in ranges.take_while(|range| range.start < section.end) {
                for block in range.start.max(section.start)..range.end.min(section.end) {
                    if self.queued.binary_search(&block).is_err() {
                        *lacked.entry(block).or_default() |= 1 << (place % xor::LACKERS_MAX);
                    }
                }
            }
        }
        if active().count() > xor::LACKERS_MAX {
            return lacked.into_keys().map(|block| vec![block]).collect();
        }
        let losses: usize = lacked.values().map(|lackers| lackers.count_ones() as usize).sum();
        let mut groups = xor::group(lacked.into_iter().collect());
        if self.next_new < self.blocks {
            // The last ones are of the clients that lost most. With the next round's losses they
            // can be combined better.
            groups.truncate(losses.div_ceil(active().count().max(1)));
        }
        groups
    }

    fn ask(&mut self, now: Moment) -> Option<Transmit> {
        if now < self.ends.due {
            return None;
        }
        // The same question again while an answer is missing; otherwise the next one.
        if self.asked.is_none() {
            self.ends.next_round(self.pkt);
            self.asked = Some(now);
            self.queued = self.repair.iter().flatten().copied().collect();
            self.queued.sort_unstable();
        }
        self.sent += 1;
        Some(self.ends.transmit(self.pkt, self.next_new, now))
    }

    /// When [`GroupSender::poll_transmit`] has something again, unless a report comes before.
    pub fn poll_timeout(&self) -> Moment {
        // After the lag was handled, only clients that did not answer are asked again.
        let lag = self.asked.map(|asked| asked.after(LAG));
        let lag = lag.filter(|lag| *lag > self.polled_at);
        lag.map_or(self.ends.due, |lag| self.ends.due.min(lag))
    }
}

#[cfg(test)]
#[allow(clippy::single_range_in_vec_init, reason = "a list of one range is meant")]
mod tests;
