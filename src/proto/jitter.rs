//! Inter-arrival jitter (RFC 3550, section 6.4.1 and appendix A.8).
//!
//! How much the spacing of datagrams at their arrival differs from the spacing that their source
//! gave them, smoothed with a gain of 1/16. Needs no synchronised clocks: only differences count.

use crate::units::Moment;

/// Measures the jitter of one source.
#[derive(Clone, Debug, Default)]
pub struct Jitter {
    last: Option<(Moment, u64)>,
    estimate: JitterEstimate,
}

/// The estimate alone, where the differences in transit time are known.
#[derive(Clone, Copy, Debug, Default)]
pub struct JitterEstimate(Option<f64>);

/// A source's clock: how fast it ticks and where it begins again.
#[derive(Clone, Copy, Debug)]
pub struct MediaClock {
    /// Ticks in a second.
    pub hz: u64,
    /// The value that is never reached.
    pub wrap: u64,
}

/// A spacing that differs by more is a source that set its clock, not jitter; seconds.
const JUMP_MAX: f64 = 10.0;

impl Jitter {
    /// A datagram that its source stamped `stamp` by `clock` came at `at`.
    pub fn handle(&mut self, at: Moment, stamp: u64, clock: MediaClock) {
        let Some((last_at, last_stamp)) = self.last.replace((at, stamp)) else {
            return;
        };
        let ahead = (stamp + clock.wrap - last_stamp % clock.wrap) % clock.wrap;
        // Stamps may go back a little where datagrams overtake each other.
        let sent = if ahead > clock.wrap / 2 {
            -seconds(clock.wrap - ahead, clock.hz)
        } else {
            seconds(ahead, clock.hz)
        };
        let came = at.since(last_at).as_secs_f64() - last_at.since(at).as_secs_f64();
        let difference = (came - sent).abs();
        if difference > JUMP_MAX {
            return;
        }
        self.estimate.add(difference * 1e6);
    }

    /// The next datagram does not follow the last one.
    pub fn rejoin(&mut self) {
        self.last = None;
    }

    /// The jitter, microseconds; `None` until two stamped datagrams came.
    pub fn us(&self) -> Option<f64> {
        self.estimate.us()
    }
}

impl JitterEstimate {
    /// One datagram was `difference_us` longer or shorter on its way than the one before it.
    pub fn add(&mut self, difference_us: f64) {
        let us = self.0.unwrap_or(0.0);
        self.0 = Some(us + (difference_us - us) / 16.0);
    }

    /// The jitter, microseconds; `None` without a difference.
    pub fn us(self) -> Option<f64> {
        self.0
    }
}

// Stamps are under 2^42 and rates under 2^25: both are exact.
fn seconds(ticks: u64, hz: u64) -> f64 {
    ticks as f64 / hz as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    const RTP: MediaClock = MediaClock { hz: 90_000, wrap: 1 << 32 };

    fn after(stamps: impl IntoIterator<Item = (u64, u64)>) -> Option<f64> {
        let mut jitter = Jitter::default();
        for (at, stamp) in stamps {
            jitter.handle(Moment(at), stamp, RTP);
        }
        jitter.us()
    }

    #[test]
    fn even_stream_has_no_jitter_when_its_clock_wraps() {
        let stamps = (0..100).map(|n| (1_000 * n, ((1 << 32) - 900 + 90 * n) % (1 << 32)));
        let jitter = after(stamps).expect("many");
        assert!(jitter < 0.001, "{jitter}");
        assert_eq!(after([(5, 5)]), None, "one datagram has no spacing");
    }

    #[test]
    fn jitter_follows_the_recurrence_of_the_rfc() {
        // Spacings of 1 ms arrive 160 us late, early, late: J = 10, 10 + 150 / 16, ...
        let one = after([(0, 0), (1_160, 90)]).expect("two");
        assert!((one - 10.0).abs() < 1e-6, "{one}");
        let two = after([(0, 0), (1_160, 90), (2_000, 180)]).expect("three");
        assert!((two - (10.0 + (160.0 - 10.0) / 16.0)).abs() < 1e-6, "{two}");
        // Alternating, it comes to |D| itself.
        let many = after((0..500).map(|n| (1_000 * n + 160 * (n % 2), 90 * n))).expect("many");
        assert!((many - 160.0).abs() < 0.01, "{many}");
    }

    #[test]
    fn pause_and_new_clock_are_not_jitter() {
        let mut jitter = Jitter::default();
        jitter.handle(Moment(0), 0, RTP);
        jitter.handle(Moment(1_000), 90, RTP);
        jitter.rejoin();
        jitter.handle(Moment(9_000_000), 180, RTP);
        jitter.handle(Moment(9_001_000), 270, RTP);
        jitter.handle(Moment(9_002_000), 1 << 31, RTP);
        assert!(jitter.us().is_some_and(|us| us < 0.001), "{jitter:?}");
    }
}
