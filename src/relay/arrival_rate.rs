//! How fast the stream comes, and so how long a batch waits to be worth its sends.

use std::time::Duration;

use crate::units::Moment;

/// How fast datagrams come, to tell how long to wait for enough of them.
#[derive(Debug, Default)]
pub(super) struct ArrivalRate {
    last: Option<Moment>,
    /// Between two datagrams, smoothed, microseconds.
    apart_us: Option<f64>,
    /// How many more came in a wait, smoothed.
    gained: f64,
    /// Batches since the last wait.
    unwaited: u32,
}

/// Datagrams that are worth waiting for: what a segmented send costs beside its datagrams is then
/// under a tenth of it. More of them cost the same and wait longer; and where sending takes longer
/// than that, batches grow by themselves.
const ENOUGH: f64 = 24.0;

/// A wait costs what so many sends do: it must gain more, over all viewers.
const WAIT_SENDS: f64 = 8.0;

/// Where a wait gains too little, only every so manieth batch waits, to learn whether it still does.
const TRY_EVERY: u32 = 16;

impl ArrivalRate {
    /// How long the next batch may wait for others, at most `limit`: not at all where that gains so
    /// little, as where a source sends its datagrams in bursts, that it would not save the sends to
    /// `viewers` that it costs.
    pub(super) fn wait(&mut self, viewers: usize, limit: Duration) -> Duration {
        self.unwaited += 1;
        if self.gained * (viewers as f64) < WAIT_SENDS && self.unwaited < TRY_EVERY {
            return Duration::ZERO;
        }
        self.time_for(ENOUGH, limit)
    }

    /// In a wait `count` more have come.
    pub(super) fn record_gain(&mut self, count: usize) {
        self.gained += (count as f64 - self.gained) / 8.0;
        self.unwaited = 0;
    }

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
    fn time_for(&self, count: f64, limit: Duration) -> Duration {
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

    #[test]
    fn batch_waits_only_where_others_come_meanwhile() {
        let limit = Duration::from_micros(400);
        let waits = |rate: &mut ArrivalRate, viewers, gain| {
            let waits = |_: &u32| {
                let waits = rate.wait(viewers, limit) > Duration::ZERO;
                if waits {
                    rate.record_gain(gain);
                }
                waits
            };
            (0..1600).filter(waits).count()
        };
        let mut rate = ArrivalRate::default();
        // One more each time: it saves 25 sends, then one, which is less than a wait costs.
        assert!(waits(&mut rate, 25, 1) > 1500, "found within a few tries");
        assert_eq!(waits(&mut rate, 1, 1), 100);
        assert!(waits(&mut rate, 1, 17) > 1500);
        // A source that sends in bursts: all of a burst is there already.
        assert!((100..150).contains(&waits(&mut rate, 25, 0)));
        assert!(waits(&mut rate, 25, 1) > 1500);
    }
}
