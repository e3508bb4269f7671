//! What became of a stream's datagrams, as its receiver sees it.
//!
//! Every number is a bit in a window of [`WINDOW`], so a duplicate is never taken for progress
//! and never lowers the loss. What slides out of the window unseen is lost for good; should it
//! come after all it is late. Loss at the end shows too, because the sender tells how many there
//! were ([`StreamStats::finish`]).

use std::time::Duration;

use crate::{
    proto::{histogram::Histogram, jitter::JitterEstimate},
    units::Moment,
};

/// Counts the datagrams of one stream.
#[derive(Clone, Debug, Default)]
pub struct StreamStats {
    window: Vec<u64>,
    /// The lowest number that the window holds.
    base: u64,
    /// The number after the highest one seen.
    next: u64,
    /// What is known so far; the spans are added at the end.
    figures: StreamFigures,
    /// The numbers lost in a row just now.
    burst: u64,
    /// The number that would confirm a leap, and how many leaps were confirmed.
    leap: Option<u64>,
    /// How many datagrams that were refused turned out to be true, as the next one showed.
    pub confirmed: u64,
    /// No leap needs to be confirmed.
    pub trusted: bool,
    transit: TransitTimes,
}

/// How long datagrams were under way: only differences count, for the clocks are not the same.
#[derive(Clone, Debug, Default)]
struct TransitTimes {
    last: Option<i32>,
    min: i32,
    max: i32,
    sum: i64,
    jitter: JitterEstimate,
    differences: Histogram,
}

/// The figures of a stream.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StreamFigures {
    /// Different datagrams that came in time.
    pub unique: u64,
    /// Datagrams that came again.
    pub duplicate: u64,
    /// Datagrams with a lower number than one before them (RFC 4737, section 3.3).
    pub reordered: u64,
    /// The most numbers that a reordered one came behind.
    pub reorder_extent: u64,
    /// Datagrams that came after they had been given up.
    pub late: u64,
    /// Numbers that never came in time.
    pub lost: u64,
    /// The most numbers lost in a row.
    pub burst: u64,
    /// Interarrival jitter (RFC 3550, section 6.4.1); `None` with fewer than two datagrams.
    pub jitter: Option<Duration>,
    /// Half of the differences of which the jitter is a running mean are at most this.
    pub jitter_p50: Option<Duration>,
    /// 95 of 100 of them.
    pub jitter_p95: Option<Duration>,
    /// 99 of 100 of them.
    pub jitter_p99: Option<Duration>,
    /// Mean delay above the least one: what queues added. Needs no common clock.
    pub delay: Option<Duration>,
    /// The largest delay above the least one.
    pub delay_max: Option<Duration>,
}

/// Numbers within which order is judged; 128 KiB of bits.
pub const WINDOW: u64 = 1 << 20;

const WORDS: usize = (WINDOW / 64) as usize;

/// Numbers by which one datagram may be ahead of all before it: the largest window. One further
/// ahead is believed once the number after it came too (RFC 3550, appendix A.1): alone it is a
/// damaged or a forged one.
pub const LEAP: u64 = crate::proto::udp::control::WINDOW_MAX as u64;

impl StreamStats {
    /// A stream whose first datagram has the number `first`.
    pub fn starting_at(first: u32) -> Self {
        let first = u64::from(first);
        Self { window: vec![0; WORDS], base: first, next: first, ..Self::default() }
    }

    /// Counts the datagram `pkt`, sent at `sent_us` by its sender's clock and received now. False
    /// when the number is too far ahead to be true, until the next one confirms it.
    pub fn record(&mut self, pkt: u32, sent_us: u32, now: Moment) -> bool {
        let Some(number) = self.unwrap(pkt) else {
            self.figures.late += 1;
            return true;
        };
        if number >= self.next + LEAP && !self.trusted {
            if self.leap.replace(number + 1) != Some(number) {
                return false;
            }
            // So the one before was true too.
            self.mark(number - 1);
            self.confirmed += 1;
        }
        self.transit.record(sent_us, now);
        if number < self.base {
            self.figures.late += 1;
            return true;
        }
        self.mark(number);
        true
    }

    /// Marks a number that came, which is not below the window.
    fn mark(&mut self, number: u64) {
        while number >= self.base + WINDOW {
            self.slide();
        }
        let (word, bit) = place(number);
        let figures = &mut self.figures;
        if self.window[word] & bit != 0 {
            figures.duplicate += 1;
            return;
        }
        self.window[word] |= bit;
        figures.unique += 1;
        if number < self.next {
            figures.reordered += 1;
            figures.reorder_extent = figures.reorder_extent.max(self.next - 1 - number);
        }
        self.next = self.next.max(number + 1);
    }

    /// Different datagrams so far.
    pub fn unique(&self) -> u64 {
        self.figures.unique
    }

    /// The number after the highest one seen, as it stands in datagrams.
    pub fn next(&self) -> u32 {
        self.next as u32
    }

    /// The figures of a stream of which the numbers below `end` were sent. An `end` below what was
    /// seen counts as what was seen.
    pub fn finish(mut self, end: u32) -> StreamFigures {
        let end = self.unwrap(end).unwrap_or(self.next).max(self.next);
        while self.base < end {
            self.slide();
        }
        let figures = &mut self.figures;
        figures.burst = figures.burst.max(self.burst);
        let timed = figures.unique + figures.duplicate;
        self.transit.finish(timed, figures);
        self.figures
    }

    /// The number that `pkt` stands for: the one nearest to the highest seen. `None` before 0.
    fn unwrap(&self, pkt: u32) -> Option<u64> {
        let step = i64::from(pkt.wrapping_sub(self.next as u32) as i32);
        self.next.checked_add_signed(step)
    }

    /// Lets the lowest number out of the window.
    fn slide(&mut self) {
        let (word, bit) = place(self.base);
        if self.window[word] & bit == 0 {
            self.figures.lost += 1;
            self.burst += 1;
        } else {
            self.window[word] &= !bit;
            self.figures.burst = self.figures.burst.max(self.burst);
            self.burst = 0;
        }
        self.base += 1;
        self.next = self.next.max(self.base);
    }
}

impl TransitTimes {
    /// The transit time of RFC 3550, appendix A.8, in microseconds; datagrams come in the order of
    /// their arrival.
    fn record(&mut self, sent_us: u32, now: Moment) {
        let raw = (now.0 as u32).wrapping_sub(sent_us) as i32;
        let Some(last) = self.last.replace(raw) else {
            (self.min, self.max, self.sum) = (raw, raw, i64::from(raw));
            return;
        };
        let difference = raw.wrapping_sub(last).unsigned_abs();
        self.jitter.add(f64::from(difference));
        self.differences.add(difference.into());
        self.min = self.min.min(raw);
        self.max = self.max.max(raw);
        self.sum += i64::from(raw);
    }

    /// Adds the spans to the figures of a stream with `count` datagrams.
    fn finish(&self, count: u64, figures: &mut StreamFigures) {
        let us = |us: i64| Duration::from_micros(u64::try_from(us).unwrap_or(0));
        let jitter_ns = |us: f64| Duration::from_nanos((us * 1000.0) as u64);
        let per_mille = |n| self.differences.per_mille(n).map(Duration::from_micros);
        figures.jitter = self.jitter.us().map(jitter_ns);
        figures.jitter_p50 = per_mille(500);
        figures.jitter_p95 = per_mille(950);
        figures.jitter_p99 = per_mille(990);
        let least = i64::from(self.min);
        let mean = |count: i64| us(self.sum / count - least);
        figures.delay = i64::try_from(count).ok().filter(|&n| n > 0).map(mean);
        figures.delay_max = figures.delay.map(|_| us(i64::from(self.max) - least));
    }
}

fn place(number: u64) -> (usize, u64) {
    ((number / 64 % WORDS as u64) as usize, 1 << (number % 64))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn figures(first: u32, arrivals: &[u32], end: u32) -> StreamFigures {
        let mut stats = StreamStats::starting_at(first);
        for &pkt in arrivals {
            assert!(stats.record(pkt, 0, Moment(0)), "{pkt}");
        }
        stats.finish(end)
    }

    #[test]
    fn loss_is_counted_at_start_middle_and_end() {
        let found = figures(0, &[2, 3, 6], 10);
        assert_eq!((found.unique, found.lost, found.burst), (3, 7, 3));
        let found = figures(0, &[], 4);
        assert_eq!((found.unique, found.lost, found.burst), (0, 4, 4));
        assert_eq!(found.jitter, None);
    }

    #[test]
    fn duplicates_do_not_lower_the_loss() {
        let found = figures(0, &[0, 5, 5, 1, 1, 1, 5], 6);
        assert_eq!((found.unique, found.duplicate, found.lost), (3, 4, 3));
        assert_eq!((found.reordered, found.reorder_extent), (1, 4));
    }

    #[test]
    fn numbers_wrap() {
        let first = u32::MAX - 9;
        let arrivals: Vec<u32> = (0..20).map(|n| first.wrapping_add(n)).collect();
        let found = figures(first, &arrivals, first.wrapping_add(21));
        assert_eq!((found.unique, found.lost, found.reordered), (20, 1, 0));
    }

    #[test]
    fn block_outside_window_is_late_and_a_leap_needs_two() {
        let mut stats = StreamStats::starting_at(0);
        assert!(stats.record(0, 0, Moment(0)));
        assert!(stats.record(LEAP as u32, 0, Moment(0)), "as far as a window");
        let leap = WINDOW as u32 + 500;
        assert!(!stats.record(leap, 0, Moment(0)), "one alone");
        assert!(!stats.record(leap + 7, 0, Moment(0)), "and another");
        assert_eq!(stats.next(), LEAP as u32 + 1);
        assert!(stats.record(leap + 8, 0, Moment(0)), "two in a row");
        assert_eq!(stats.confirmed, 1, "the one before was true");
        assert!(stats.record(0, 0, Moment(0)));
        let found = stats.finish(0);
        assert_eq!((found.unique, found.late), (4, 1));
        assert_eq!(found.lost, u64::from(leap) + 9 - 4);
    }

    #[test]
    fn jitter_follows_rfc_3550() {
        let mut stats = StreamStats::starting_at(0);
        let mut wanted = 0.0;
        let mut last = 0_i64;
        for (pkt, transit) in [500_i64, 700, 650, 650, 900].into_iter().enumerate() {
            let sent = 1000 * pkt as u32;
            stats.record(pkt as u32, sent, Moment((i64::from(sent) + transit) as u64));
            if pkt > 0 {
                wanted += ((transit - last).abs() as f64 - wanted) / 16.0;
            }
            last = transit;
        }
        let found = stats.finish(5);
        let jitter = found.jitter.expect("five").as_nanos() as f64 / 1000.0;
        assert!((jitter - wanted).abs() < 0.002, "{jitter} {wanted}");
        assert_eq!(found.delay_max, Some(Duration::from_micros(400)));
        assert_eq!(found.delay, Some(Duration::from_micros(180)));
        // The differences are 200, 50, 0, 250; a class is told by its upper end.
        assert_eq!(found.jitter_p50, Some(Duration::from_micros(51)));
        assert_eq!(found.jitter_p99, Some(Duration::from_micros(255)));
    }

    proptest! {
        #[test]
        fn stream_sums_hold_for_any_arrivals(first: u32, offsets in prop::collection::vec(0_u32..3000, 0..400), more in 0_u32..50) {
            let arrivals: Vec<u32> = offsets.iter().map(|o| first.wrapping_add(*o)).collect();
            let end = offsets.iter().max().map_or(0, |m| m + 1) + more;
            let found = figures(first, &arrivals, first.wrapping_add(end));
            prop_assert_eq!(found.unique + found.lost, u64::from(end));
            prop_assert_eq!(found.unique + found.duplicate + found.late, offsets.len() as u64);
            prop_assert!(found.burst <= found.lost);
        }
    }
}
