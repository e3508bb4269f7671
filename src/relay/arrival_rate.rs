//! How fast the stream comes, and so how long a batch waits to be worth its sends.

use std::time::Duration;

use crate::units::Moment;

/// How fast datagrams come, to tell how long to wait for enough of them.
#[derive(Debug, Default)]
pub(super) struct ArrivalRate {
    last: Option<Moment>,
    /// Between two datagrams, smoothed, microseconds.
    apart_us: Option<f64>,
}

/// Datagrams that are worth waiting for: what a segmented send costs beside its datagrams is then
/// under a tenth of it. More of them cost the same and wait longer; and where sending takes longer
/// than that, batches grow by themselves.
pub(super) const ENOUGH: f64 = 24.0;

impl ArrivalRate {
    /// A batch of `count` datagrams, the first of which came at `at`, has been taken.
    pub(super) fn record(&mut self, at: Moment, count: usize) {
        let Some(last) = self.last.replace(at) else {
            return;
        };
        // From one batch's first to the next one's: pauses between frames are part of the rate.
        let count = u32::try_from(count.max(1)).unwrap_or(u32::MAX);
        let apart = at.since(last).as_secs_f64() * 1e6 / f64::from(count);
        let before = self.apart_us.unwrap_or(apart);
        self.apart_us = Some(before + (apart - before) / 8.0);
    }

    /// How long `count` datagrams take to come, at most `limit`; that, where it is unknown.
    pub(super) fn time_for(&self, count: f64, limit: Duration) -> Duration {
        let Some(apart) = self.apart_us else {
            return limit;
        };
        Duration::try_from_secs_f64(apart * count / 1e6).map_or(limit, |time| time.min(limit))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batch_waits_for_enough_within_its_limit() {
        let limit = Duration::from_millis(3);
        let mut rate = ArrivalRate::default();
        assert_eq!(rate.time_for(ENOUGH, limit), limit, "nothing is known");
        // 50 us apart: 24 take 1.2 ms.
        (0..100).for_each(|n| rate.record(Moment(n * 1_600), 32));
        assert_eq!(rate.time_for(ENOUGH, limit), Duration::from_micros(1_200));
        // A slow stream is not waited for beyond the limit, nor one that stopped for a while.
        (0..100).for_each(|n| rate.record(Moment(1_000_000 + n * 1_300), 1));
        assert_eq!(rate.time_for(ENOUGH, limit), limit);
        rate.record(Moment(u64::MAX), 1);
        assert_eq!(rate.time_for(ENOUGH, limit), limit);
        assert_eq!(rate.time_for(ENOUGH, Duration::ZERO), Duration::ZERO);
    }
}
