//! How fast bytes come on a connection, and so how long a reader may sleep until the message that
//! it is reading is complete.
//!
//! A reader that blocks in the kernel is woken by each packet: a dozen times for a block, a hundred
//! thousand times a second in a swarm of fourteen peers on one machine. A reader that sleeps is
//! woken once. Half a block is of no use, so sleeping delays only what follows the block, by the
//! error of the estimate.

use std::time::Duration;

use crate::units::Moment;

/// The rate of one connection.
#[derive(Debug, Default)]
pub struct ReceiveRate {
    /// When bytes came last, if no pause followed.
    last: Option<Moment>,
    bytes: f64,
    seconds: f64,
}

/// Longest sleep. After the block a message may follow that somebody waits for.
const SLEEP_MAX: Duration = Duration::from_millis(20);

/// Bytes beyond the block that are slept for, so that an estimate that is a little short does not
/// end in the middle of the block.
const BEYOND: usize = 2 << 10;

/// Shortest sleep that is worth its two system calls.
const SLEEP_MIN: Duration = Duration::from_millis(1);

/// Time that must have been measured before there is a rate, seconds.
const MEASURED_MIN: f64 = 0.002;

/// Time after which older measurements count half, seconds.
const HALF_LIFE: f64 = 0.05;

impl ReceiveRate {
    /// No message is incomplete: the time until the next bytes says nothing about the rate.
    pub fn pause(&mut self) {
        self.last = None;
    }

    /// `len` bytes have come.
    pub fn received(&mut self, len: usize, now: Moment) {
        if let Some(last) = self.last {
            self.bytes += len as f64;
            self.seconds += now.since(last).as_secs_f64();
            if self.seconds > HALF_LIFE {
                self.bytes /= 2.0;
                self.seconds /= 2.0;
            }
        }
        self.last = Some(now);
    }

    /// How long to sleep until `left` bytes have come; `None` when a sleep is not worth it.
    pub fn sleep_time(&self, left: usize) -> Option<Duration> {
        if self.seconds <= MEASURED_MIN || self.bytes <= 0.0 {
            return None;
        }
        let seconds = (left + BEYOND) as f64 * self.seconds / self.bytes;
        let time = Duration::from_secs_f64(seconds.min(SLEEP_MAX.as_secs_f64()));
        (time >= SLEEP_MIN).then_some(time)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A rate of so many bytes a second, measured by reads of 1448 bytes.
    fn measured(bytes_per_second: u64) -> ReceiveRate {
        let mut rate = ReceiveRate::default();
        for read in 0..100 {
            let now = Moment(1 + read * 1448 * 1_000_000 / bytes_per_second);
            rate.received(1448, now);
        }
        rate
    }

    #[test]
    fn sleep_lasts_until_the_rest_of_a_block() {
        let time = measured(2_000_000).sleep_time(10_000 - BEYOND).expect("five milliseconds");
        assert!((4900..5100).contains(&time.as_micros()), "{time:?}");
        assert_eq!(measured(100_000).sleep_time(16_000), Some(SLEEP_MAX));
    }

    #[test]
    fn fast_or_unknown_rates_need_no_sleep() {
        assert_eq!(measured(500_000_000).sleep_time(16_000), None);
        assert_eq!(ReceiveRate::default().sleep_time(16_000), None);
    }

    #[test]
    fn pause_does_not_lower_the_rate() {
        let mut paused = measured(2_000_000);
        let before = paused.sleep_time(10_000);
        paused.pause();
        paused.received(1448, Moment(60_000_000));
        assert_eq!(paused.sleep_time(10_000), before);
    }
}
