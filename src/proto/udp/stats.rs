//! What became of a stream's datagrams, as its receiver sees it.
//!
//! Every number is a bit in a window of [`WINDOW`], so a duplicate is never taken for progress
//! and never lowers the loss. What slides out of the window unseen is lost for good; should it
//! come after all it is late. Loss at the end shows too, because the sender tells how many there
//! were ([`Stats::finish`]).

use std::time::Duration;

use crate::proto::histogram::Histogram;
use crate::proto::jitter::JitterEstimate;
use crate::units::Moment;

/// Counts the datagrams of one stream.
#[derive(Clone, Debug)]
pub struct Stats {
    window: Vec<u64>,
    /// The lowest number that the window holds.
    base: u64,
    /// The number after the highest one seen.
    next: u64,
    unique: u64,
    duplicate: u64,
    reordered: u64,
    reorder_extent: u64,
    late: u64,
    lost: u64,
    burst: u64,
    burst_max: u64,
    /// The number that would confirm a leap; how many were, and whether none needs to be.
    leap: Option<u64>,
    confirmed: u64,
    believes: bool,
    transit: Option<i32>,
    transit_min: i32,
    transit_max: i32,
    transit_sum: i64,
    jitter: JitterEstimate,
    differences: Histogram,
}

/// The figures of a stream.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Figures {
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

impl Default for Stats {
    fn default() -> Self {
        Self::starting_at(0)
    }
}

impl Stats {
    /// A stream whose first datagram has the number `first`.
    pub fn starting_at(first: u32) -> Self {
        Self {
            window: vec![0; WORDS],
            base: u64::from(first),
            next: u64::from(first),
            unique: 0,
            duplicate: 0,
            reordered: 0,
            reorder_extent: 0,
            late: 0,
            lost: 0,
            burst: 0,
            burst_max: 0,
            leap: None,
            confirmed: 0,
            believes: false,
            transit: None,
            transit_min: 0,
            transit_max: 0,
            transit_sum: 0,
            jitter: JitterEstimate::default(),
            differences: Histogram::default(),
        }
    }

    /// Takes the datagram `pkt` into account, sent at `sent_us` by its sender's clock and
    /// received now. False when the number is too far ahead to be true, until the next confirms it.
    pub fn take(&mut self, pkt: u32, sent_us: u32, now: Moment) -> bool {
        let Some(number) = self.unwrap(pkt) else {
            self.late += 1;
            return true;
        };
        if number >= self.next + LEAP && !self.believes {
            if self.leap.replace(number + 1) != Some(number) {
                return false;
            }
            // So the one before was true too.
            self.hold(number - 1);
            self.confirmed += 1;
        }
        self.time(sent_us, now);
        if number < self.base {
            self.late += 1;
            return true;
        }
        self.hold(number);
        true
    }

    /// Takes the number of one that came, which is not below the window.
    fn hold(&mut self, number: u64) {
        while number >= self.base + WINDOW {
            self.slide();
        }
        let (word, bit) = place(number);
        if self.window[word] & bit != 0 {
            self.duplicate += 1;
            return;
        }
        self.window[word] |= bit;
        self.unique += 1;
        if number < self.next {
            self.reordered += 1;
            self.reorder_extent = self.reorder_extent.max(self.next - 1 - number);
        }
        self.next = self.next.max(number + 1);
    }

    /// Believes leaps without a second number: for a stream whose numbers are held against what
    /// they carry.
    pub fn believe(&mut self) {
        self.believes = true;
    }

    /// How many of those that were refused were true after all, as the next showed.
    pub fn confirmed(&self) -> u64 {
        self.confirmed
    }

    /// Different datagrams so far, cut to 32 bits as reports have it.
    pub fn unique(&self) -> u64 {
        self.unique
    }

    /// The number after the highest one seen, as it stands in datagrams.
    pub fn next(&self) -> u32 {
        self.next as u32
    }

    /// The figures, of a stream of which the numbers below `end` were sent; one below what was
    /// seen counts as what was seen.
    pub fn finish(mut self, end: u32) -> Figures {
        let end = self.unwrap(end).unwrap_or(self.next).max(self.next);
        while self.base < end {
            self.slide();
        }
        self.burst_max = self.burst_max.max(self.burst);
        let timed = self.unique + self.duplicate;
        let us = |us: i64| Duration::from_micros(u64::try_from(us).unwrap_or(0));
        let mean = i64::try_from(timed)
            .ok()
            .filter(|&count| count > 0)
            .map(|count| self.transit_sum / count - i64::from(self.transit_min));
        let per_mille = |n| self.differences.per_mille(n).map(Duration::from_micros);
        Figures {
            unique: self.unique,
            duplicate: self.duplicate,
            reordered: self.reordered,
            reorder_extent: self.reorder_extent,
            late: self.late,
            lost: self.lost,
            burst: self.burst_max,
            jitter: self
                .jitter
                .us()
                .map(|us| Duration::from_nanos((us * 1000.0) as u64)),
            jitter_p50: per_mille(500),
            jitter_p95: per_mille(950),
            jitter_p99: per_mille(990),
            delay: mean.map(us),
            delay_max: mean.map(|_| us(i64::from(self.transit_max) - i64::from(self.transit_min))),
        }
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
            self.lost += 1;
            self.burst += 1;
        } else {
            self.window[word] &= !bit;
            self.burst_max = self.burst_max.max(self.burst);
            self.burst = 0;
        }
        self.base += 1;
        self.next = self.next.max(self.base);
    }

    /// The transit time of RFC 3550, appendix A.8, in microseconds; for datagrams in the order of their arrival.
    fn time(&mut self, sent_us: u32, now: Moment) {
        let raw = (now.0 as u32).wrapping_sub(sent_us) as i32;
        let Some(last) = self.transit.replace(raw) else {
            (self.transit_min, self.transit_max) = (raw, raw);
            self.transit_sum = i64::from(raw);
            return;
        };
        let difference = raw.wrapping_sub(last).unsigned_abs();
        self.jitter.add(f64::from(difference));
        self.differences.add(difference.into());
        self.transit_min = self.transit_min.min(raw);
        self.transit_max = self.transit_max.max(raw);
        self.transit_sum += i64::from(raw);
    }
}

fn place(number: u64) -> (usize, u64) {
    ((number / 64 % WORDS as u64) as usize, 1 << (number % 64))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn figures(first: u32, arrivals: &[u32], end: u32) -> Figures {
        let mut stats = Stats::starting_at(first);
        for &pkt in arrivals {
            assert!(stats.take(pkt, 0, Moment(0)), "{pkt}");
        }
        stats.finish(end)
    }

    #[test]
    fn loss_is_counted_at_the_start_in_the_middle_and_at_the_end() {
        let found = figures(0, &[2, 3, 6], 10);
        assert_eq!((found.unique, found.lost, found.burst), (3, 7, 3));
        let found = figures(0, &[], 4);
        assert_eq!((found.unique, found.lost, found.burst), (0, 4, 4));
        assert_eq!(found.jitter, None);
    }

    #[test]
    fn duplicates_never_lower_the_loss_and_order_is_told() {
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
    fn what_slid_out_of_the_window_is_late_and_a_leap_is_believed_of_two() {
        let mut stats = Stats::default();
        assert!(stats.take(0, 0, Moment(0)));
        assert!(stats.take(LEAP as u32, 0, Moment(0)), "as far as a window");
        let leap = WINDOW as u32 + 500;
        assert!(!stats.take(leap, 0, Moment(0)), "one alone");
        assert!(!stats.take(leap + 7, 0, Moment(0)), "and another");
        assert_eq!(stats.next(), LEAP as u32 + 1);
        assert!(stats.take(leap + 8, 0, Moment(0)), "two in a row");
        assert_eq!(stats.confirmed(), 1, "the one before was true");
        assert!(stats.take(0, 0, Moment(0)));
        let found = stats.finish(0);
        assert_eq!((found.unique, found.late), (4, 1));
        assert_eq!(found.lost, u64::from(leap) + 9 - 4);
    }

    #[test]
    fn jitter_is_that_of_rfc_3550() {
        let mut stats = Stats::default();
        let mut wanted = 0.0;
        let mut last = 0_i64;
        for (pkt, transit) in [500_i64, 700, 650, 650, 900].into_iter().enumerate() {
            let sent = 1000 * pkt as u32;
            stats.take(pkt as u32, sent, Moment((i64::from(sent) + transit) as u64));
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
        fn the_sums_hold_whatever_comes(first: u32, offsets in prop::collection::vec(0_u32..3000, 0..400), more in 0_u32..50) {
            let arrivals: Vec<u32> = offsets.iter().map(|o| first.wrapping_add(*o)).collect();
            let end = offsets.iter().max().map_or(0, |m| m + 1) + more;
            let found = figures(first, &arrivals, first.wrapping_add(end));
            prop_assert_eq!(found.unique + found.lost, u64::from(end));
            prop_assert_eq!(found.unique + found.duplicate + found.late, offsets.len() as u64);
            prop_assert!(found.burst <= found.lost);
        }
    }
}
