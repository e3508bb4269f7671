//! How fast bytes come on a connection, and so how long a reader may sleep until the message that
//! it is in has come.
//!
//! A reader that waits in the kernel is woken by each packet: a dozen times for a block, a hundred
//! thousand times a second in a swarm of fourteen on one machine. One that sleeps meanwhile is woken
//! once, and as nothing can be done with half a block, nothing is late but what follows it, by the
//! little that the guess was wrong.

use std::time::Duration;

use crate::units::Moment;

/// The flow of one connection.
#[derive(Debug, Default)]
pub struct ReceiveRate {
    /// When bytes came last, with no pause since.
    since: Option<Moment>,
    bytes: f64,
    seconds: f64,
}

/// Longest sleep. What follows the block may be a word that somebody waits for.
const NAP_MAX: Duration = Duration::from_millis(20);

/// Bytes that are slept for beyond the block, so that a guess that is a little short does not
/// end in the middle of it.
const BEYOND: usize = 2 << 10;

/// Shortest sleep worth its two system calls.
const NAP_MIN: Duration = Duration::from_millis(1);

/// Time that must be known before a rate is one, seconds.
const KNOWN_MIN: f64 = 0.002;

/// Time after which what is known counts half, seconds.
const HALF: f64 = 0.05;

impl ReceiveRate {
    /// Nothing is under way; the time until something comes says nothing of its rate.
    pub fn pause(&mut self) {
        self.since = None;
    }

    /// `len` bytes have come.
    #[allow(clippy::cast_precision_loss, reason = "the bytes of one read")]
    pub fn received(&mut self, len: usize, now: Moment) {
        if let Some(since) = self.since {
            self.bytes += len as f64;
            self.seconds += now.since(since).as_secs_f64();
            if self.seconds > HALF {
                self.bytes /= 2.0;
                self.seconds /= 2.0;
            }
        }
        self.since = Some(now);
    }

    /// How long to sleep until `left` bytes have come; `None` when it is not worth it.
    #[allow(clippy::cast_precision_loss, reason = "at most a message")]
    pub fn sleep_time(&self, left: usize) -> Option<Duration> {
        let known = self.seconds > KNOWN_MIN && self.bytes > 0.0;
        let seconds = known.then(|| (left + BEYOND) as f64 * self.seconds / self.bytes)?;
        let nap = Duration::from_secs_f64(seconds.min(NAP_MAX.as_secs_f64()));
        (nap >= NAP_MIN).then_some(nap)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A flow of `rate` bytes a second, as seen by reads of 1448 bytes.
    fn flow(rate: u64) -> ReceiveRate {
        let mut flow = ReceiveRate::default();
        for read in 0..100 {
            flow.received(1448, Moment(1 + read * 1448 * 1_000_000 / rate));
        }
        flow
    }

    #[test]
    fn the_rest_of_a_block_is_slept_for_at_the_rate_that_is_seen() {
        let nap = flow(2_000_000)
            .sleep_time(10_000 - BEYOND)
            .expect("five milliseconds");
        assert!((4900..5100).contains(&nap.as_micros()), "{nap:?}");
        assert_eq!(flow(100_000).sleep_time(16_000), Some(NAP_MAX));
    }

    #[test]
    fn nobody_sleeps_for_a_fast_flow_or_an_unknown_one() {
        assert_eq!(flow(500_000_000).sleep_time(16_000), None);
        assert_eq!(ReceiveRate::default().sleep_time(16_000), None);
    }

    #[test]
    fn a_pause_is_no_slowness() {
        let mut paused = flow(2_000_000);
        let before = paused.sleep_time(10_000);
        paused.pause();
        paused.received(1448, Moment(60_000_000));
        assert_eq!(paused.sleep_time(10_000), before);
    }
}
