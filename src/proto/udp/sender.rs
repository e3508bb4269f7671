//! The sender to one client, reliable or raw.
//!
//! Reliable: a block that the client misses is sent again at once, before any new block. Numbers
//! of datagrams are never used twice. So a block that was sent again counts as lost again only
//! when the client has seen numbers after its last one; no timer guesses. The datagrams under way
//! fit the buffer that the client announced. When nothing may or need be sent, an END asks what is
//! missing.
//!
//! Raw: every block once, in order, and nothing is repaired.
//!
//! [`Fault`] says when a client is given up.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Range,
    time::Duration,
};

use crate::{
    proto::udp::{
        CONSENT, REORDER, Transmit, before,
        control::Report,
        end_timer::EndTimer,
        liveness::{Fault, Liveness},
    },
    units::Moment,
};

/// Sends the blocks of one file to one client.
#[derive(Clone, Debug, Default)]
pub struct BlockSender {
    end: u32,
    next_new: u32,
    /// The number of the next datagram.
    pub pkt: u32,
    /// Datagrams that were sent, ENDs included.
    sent: u64,
    /// The number after the highest that the client has seen.
    seen: u32,
    /// The blocks to send again.
    repair: BTreeSet<u32>,
    /// The last number under which a block was sent again.
    again: BTreeMap<u32, u32>,
    window: u32,
    raw: bool,
    ends: EndTimer,
    /// The list that was read last.
    list: ReportedList,
    client: Liveness,
    /// For how long a datagram waited for room in the client's buffer.
    pub full: Duration,
    /// When something to send was asked for last, and whether it waited for room then.
    polled_at: Moment,
    waited: bool,
}

/// First and longest pause between two ENDs.
const PAUSE: Range<Duration> = Duration::from_millis(10)..Duration::from_millis(100);

impl BlockSender {
    /// A sender of `blocks` with at most `window` datagrams under way, to a client that reported
    /// just now.
    pub fn reliable(blocks: Range<u32>, window: u32, now: Moment) -> Self {
        Self {
            end: blocks.end,
            next_new: blocks.start,
            window,
            ends: EndTimer::new(PAUSE, now),
            client: Liveness::new(blocks.end - blocks.start, 0, now),
            polled_at: now,
            ..Self::default()
        }
    }

    /// A sender that continues where another stream to the client ended: `pkt` datagrams were
    /// numbered, and every block was sent once. The client lacks `missing`, or what it reports
    /// when it is asked.
    pub fn repairing(
        blocks: u32,
        missing: &[Range<u32>],
        pkt: u32,
        window: u32,
        now: Moment,
    ) -> Self {
        let lacked = missing.iter().flat_map(Range::clone);
        Self {
            next_new: blocks,
            pkt,
            seen: pkt,
            // The rest of a longer list comes with its reports.
            repair: lacked.take(window as usize).collect(),
            ..Self::reliable(0..blocks, window, now)
        }
    }

    /// A sender that repairs nothing.
    pub fn raw(blocks: Range<u32>, now: Moment) -> Self {
        Self { raw: true, window: u32::MAX, ..Self::reliable(blocks, 0, now) }
    }

    /// Takes a report of the client.
    ///
    /// # Errors
    /// Its reports have been impossible for too long.
    pub fn handle_report(&mut self, report: &Report, now: Moment) -> Result<(), Fault> {
        let answers = report.round != 0 && report.round == self.ends.round;
        self.client.reported_at = now;
        let seen = if !before(self.pkt, report.seen) {
            report.seen
        } else if self.raw {
            self.seen
        } else if answers {
            // Whoever answers an END has seen at least what came before it.
            self.ends.pkt
        } else {
            return self.client.doubt(now);
        };
        self.client.stall.record(report, self.pkt, self.sent, now);
        if before(self.seen, seen) {
            self.seen = seen;
            self.ends.reset_pause();
            self.ends.due = now.after(self.ends.pause);
        }
        if self.raw {
            return Ok(());
        }
        let missing = &report.missing;
        if missing.last().is_some_and(|last| last.end > self.next_new) {
            return self.client.doubt(now);
        }
        self.client.trust();
        self.again = self.again.split_off(&report.cum);
        let room = self.list.room(report, seen, answers, self.window, now);
        // An END came after all that it asks for, so nothing can still be on its way.
        let reorder = if report.round > 0 { 0 } else { REORDER };
        for block in missing.iter().flat_map(Range::clone).take(room as usize) {
            self.list.left -= 1;
            let under_way = self
                .again
                .get(&block)
                .is_some_and(|&last| !before(last.wrapping_add(reorder), seen));
            if !under_way {
                self.repair.insert(block);
            }
        }
        Ok(())
    }

    /// What to send now, if anything.
    ///
    /// # Errors
    /// The client is given up.
    pub fn poll_transmit(&mut self, now: Moment) -> Result<Option<Transmit>, Fault> {
        if self.client.is_silent(now) {
            return Err(Fault::Silent);
        }
        // Raw sends all blocks whatever arrives; only its ENDs could go on for ever.
        let measures = self.raw && self.next_new < self.end;
        if self.client.stall.is_stuck(self.sent, now) && !measures {
            return Err(self.client.stuck());
        }
        let open = self.pkt.wrapping_sub(self.seen) < self.window;
        let span = now.since(std::mem::replace(&mut self.polled_at, now));
        self.full += if self.waited { span } else { Duration::ZERO };
        self.waited = !open && (self.next_new < self.end || !self.repair.is_empty());
        let again = open.then(|| self.repair.pop_first()).flatten();
        let block = match again {
            Some(block) => block,
            None if open && self.next_new < self.end => {
                self.next_new += 1;
                self.next_new - 1
            }
            None => return Ok(self.ask(now)),
        };
        self.client.spend(1)?;
        self.sent += 1;
        let pkt = self.pkt;
        self.pkt = pkt.wrapping_add(1);
        if again.is_some() {
            self.again.insert(block, pkt);
        }
        // The first END follows the last block at once, and a closed window after a pause.
        let done = self.next_new == self.end && self.repair.is_empty();
        self.ends.due = if done { now } else { now.after(self.ends.pause) };
        Ok(Some(Transmit::Data { pkt, block, again: again.is_some() }))
    }

    fn ask(&mut self, now: Moment) -> Option<Transmit> {
        if now < self.ends.due {
            return None;
        }
        self.sent += 1;
        self.ends.next_round(self.pkt);
        Some(self.ends.transmit(self.pkt, self.next_new, now))
    }

    /// When [`BlockSender::poll_transmit`] has something again, unless a report comes before.
    pub fn poll_timeout(&self) -> Moment {
        self.ends.due.min(self.client.reported_at.after(CONSENT))
    }
}

/// The list of missing blocks that a client sent last. To go through a list costs far more than to
/// send one. So a list is read only when it brings news, and of each no more blocks than can be
/// sent before the next.
#[derive(Clone, Copy, Debug, Default)]
struct ReportedList {
    at: Option<Moment>,
    seen: u32,
    round: u32,
    /// The end of what was read; the rest of the same list lies above it.
    upto: u32,
    /// How many more of its blocks may be read.
    left: u32,
}

/// A list that brings no news is read this long after another.
const LIST_EVERY: Duration = Duration::from_millis(10);

impl ReportedList {
    /// How many blocks of this list are read.
    fn room(&mut self, report: &Report, seen: u32, answers: bool, window: u32, now: Moment) -> u32 {
        let (Some(first), Some(last)) = (report.missing.first(), report.missing.last()) else {
            return 0;
        };
        // A client reports after a quarter of its window at the latest.
        let news = seen.wrapping_sub(self.seen) as i32 >= (window / 16).max(1) as i32;
        let asked = answers && report.round != self.round;
        let late = self.at.is_none_or(|at| now >= at.after(LIST_EVERY));
        if news || asked || late {
            *self = Self {
                at: Some(now),
                seen,
                round: if answers { report.round } else { self.round },
                upto: last.end,
                // As many may be under way again as wait.
                left: window.saturating_mul(2),
            };
        } else if first.start >= self.upto && seen == self.seen {
            self.upto = last.end;
        } else {
            return 0;
        }
        self.left
    }
}

#[cfg(test)]
#[allow(clippy::single_range_in_vec_init, reason = "a list of one range is meant")]
mod tests {
    use super::*;
    use crate::proto::udp::{
        DOUBT,
        liveness::{ROUNDS, SLACK},
        stall_detector::STUCK,
    };

    const NOW: Moment = Moment(1_000_000);

    fn report(seen: u32, cum: u32, missing: Vec<Range<u32>>) -> Report {
        Report { seen, received: seen, round: 0, cum, more: false, missing }
    }

    fn data(sender: &mut BlockSender) -> Option<(u32, u32, bool)> {
        match sender.poll_transmit(NOW).expect("heard just now") {
            Some(Transmit::Data { pkt, block, again }) => Some((pkt, block, again)),
            _ => None,
        }
    }

    #[test]
    fn missing_block_is_sent_before_new_ones_once_per_loss() {
        let mut sender = BlockSender::reliable(0..100, 50, NOW);
        for block in 0..10 {
            assert_eq!(data(&mut sender), Some((block, block, false)));
        }
        let lost = report(10, 4, vec![4..5, 6..7]);
        sender.handle_report(&lost, NOW).expect("true");
        assert_eq!(data(&mut sender), Some((10, 4, true)));
        sender.handle_report(&lost, NOW).expect("true");
        assert_eq!(data(&mut sender), Some((11, 6, true)));
        assert_eq!(data(&mut sender), Some((12, 10, false)), "both are under way");
        for _ in 0..3 {
            data(&mut sender);
        }
        sender.handle_report(&report(15, 4, vec![4..5]), NOW).expect("true");
        assert_eq!(data(&mut sender), Some((16, 4, true)), "lost again");
    }

    #[test]
    fn sender_asks_when_the_clients_buffer_is_full() {
        let mut sender = BlockSender::reliable(0..100, 5, NOW);
        (0..5).for_each(|_| assert!(data(&mut sender).is_some()));
        assert_eq!(sender.poll_transmit(NOW), Ok(None));
        let later = sender.poll_timeout();
        assert!(later > NOW && later < NOW.after(CONSENT));
        let end = Transmit::End { pkts: 5, upto: 5, round: 1 };
        assert_eq!(sender.poll_transmit(later), Ok(Some(end)));
        sender.handle_report(&report(2, 2, vec![]), NOW).expect("true");
        (0..2).for_each(|_| assert!(data(&mut sender).is_some()));
        assert_eq!(data(&mut sender), None);
    }

    #[test]
    fn lying_flooding_or_silent_client_is_given_up() {
        let mut sender = BlockSender::reliable(0..10, 100, NOW);
        (0..5).for_each(|_| assert!(data(&mut sender).is_some()));
        // One such word may be an honest client's, to whom somebody forged a datagram.
        for lie in [report(6, 0, vec![]), report(5, 0, vec![5..6])] {
            let mut sender = sender.clone();
            assert_eq!(sender.handle_report(&lie, NOW), Ok(()));
            let later = NOW.after(DOUBT);
            let mut honest = sender.clone();
            assert_eq!(honest.handle_report(&report(5, 0, vec![]), NOW), Ok(()));
            assert_eq!(honest.handle_report(&lie, later), Ok(()), "a first one");
            let end = sender.handle_report(&lie, later);
            assert_eq!(end, Err(Fault::Impossible), "nothing else for so long");
        }
        assert_eq!(sender.poll_transmit(NOW.after(CONSENT)), Err(Fault::Silent));

        let mut sent = 0_u64;
        let fault = loop {
            match sender.poll_transmit(NOW) {
                Ok(Some(Transmit::Data { .. })) => sent += 1,
                Ok(_) => {
                    let everything = report(sender.pkt, 0, vec![0..10]);
                    sender.handle_report(&everything, NOW).expect("possible");
                }
                Err(fault) => break fault,
            }
        };
        assert_eq!(fault, Fault::Greedy);
        assert_eq!(sent + 5, 10 * ROUNDS + SLACK);
    }

    #[test]
    fn sender_reads_a_storm_of_lists_only_when_there_is_news() {
        let mut sender = BlockSender::reliable(0..40_000, 16_000, NOW);
        while data(&mut sender).is_some() {}
        let everything = report(sender.pkt, 0, vec![0..16_000]);
        sender.handle_report(&everything, NOW).expect("possible");
        let left = sender.list.left;
        assert_eq!(left, 16_000, "as much again may be looked at");
        // The same again, and with a datagram's difference, and as the rest of a list.
        let (first, _, _) = data(&mut sender).expect("open");
        let more = [
            everything.clone(),
            report(first + 1, 0, vec![0..16_000]),
            report(first, 0, vec![8000..16_000]),
        ];
        for n in 0..3000 {
            let soon = NOW.after(Duration::from_micros(n * 3));
            sender.handle_report(&more[n as usize % 3], soon).expect("possible");
        }
        assert_eq!(sender.list.left, left, "none was looked at");
        // After a while it is, and so is the rest of the same list.
        let later = NOW.after(LIST_EVERY);
        for part in [vec![0..8000], vec![8000..9000]] {
            let part = report(first, 0, part);
            sender.handle_report(&part, later).expect("possible");
        }
        assert_eq!(sender.list.left, 32_000 - 9000);
    }

    #[test]
    fn million_requests_cost_what_one_client_may_cost() {
        let mut sender = BlockSender::reliable(0..100, 50, NOW);
        let mut sent = 0_u64;
        for n in 0..1_000_000_u32 {
            let now = NOW.after(Duration::from_micros(u64::from(n) * 5));
            let everything = report(sender.pkt, 0, vec![0..sender.next_new]);
            let mut everything = Report { round: n % 7, ..everything };
            if sender.next_new == 0 {
                everything.missing.clear();
            }
            if sender.handle_report(&everything, now).is_err() {
                break;
            }
            match sender.poll_transmit(now) {
                Ok(Some(Transmit::Data { .. })) => sent += 1,
                Ok(_) => {}
                Err(fault) => {
                    assert_eq!(fault, Fault::Greedy);
                    break;
                }
            }
        }
        assert!(sent <= 100 * ROUNDS + SLACK, "{sent}");
    }

    #[test]
    fn client_that_reports_without_progress_is_given_up() {
        let mut sender = BlockSender::reliable(0..100, 5, NOW);
        (0..5).for_each(|_| assert!(data(&mut sender).is_some()));
        let mut now = NOW;
        while now < NOW.after(STUCK * 2) {
            // The questions are what is sent.
            now = now.after(Duration::from_millis(100));
            sender.handle_report(&report(0, 0, vec![]), now).expect("possible");
            if sender.poll_transmit(now) == Err(Fault::Unreached) {
                return assert!(now >= NOW.after(STUCK));
            }
        }
        panic!("it talks on");
    }

    #[test]
    fn sender_numbers_wrap_in_the_middle_of_a_file() {
        let first = u32::MAX - 9;
        let mut sender = BlockSender::reliable(0..100, 50, NOW);
        (sender.pkt, sender.seen) = (first, first);
        for block in 0..20 {
            let pkt = first.wrapping_add(block);
            assert_eq!(data(&mut sender), Some((pkt, block, false)));
        }
        let seen = first.wrapping_add(20);
        let lost = report(seen, 5, vec![5..6, 12..13]);
        sender.handle_report(&lost, NOW).expect("true");
        assert_eq!(data(&mut sender), Some((seen, 5, true)));
        assert_eq!(data(&mut sender), Some((seen.wrapping_add(1), 12, true)));
        sender.handle_report(&lost, NOW).expect("true");
        assert_eq!(data(&mut sender), Some((seen.wrapping_add(2), 20, false)));
    }

    #[test]
    fn raw_sends_each_block_once_whatever_is_reported() {
        let mut sender = BlockSender::raw(3..6, NOW);
        assert_eq!(data(&mut sender), Some((0, 3, false)));
        sender.handle_report(&report(1, 0, vec![0..6]), NOW).expect("heard");
        assert_eq!(data(&mut sender), Some((1, 4, false)));
        assert_eq!(data(&mut sender), Some((2, 5, false)));
        let end = Transmit::End { pkts: 3, upto: 6, round: 1 };
        assert_eq!(sender.poll_transmit(NOW), Ok(Some(end)));
    }
}
