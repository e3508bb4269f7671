//! A histogram that one thread fills and others read, without a lock.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use crate::{
    proto::histogram::{BUCKETS, Histogram, bucket},
    units::micros,
};

/// Times, as the one thread that adds them leaves them; the last number is the longest.
#[derive(Debug)]
pub(super) struct AtomicHistogram(Box<[AtomicU64; BUCKETS + 1]>);

impl Default for AtomicHistogram {
    fn default() -> Self {
        Self(Box::new([const { AtomicU64::new(0) }; BUCKETS + 1]))
    }
}

impl AtomicHistogram {
    /// Counts `time`; by one thread only.
    pub(super) fn add(&self, time: Duration) {
        let us = micros(time);
        bump(&self.0[bucket(us)], 1);
        if us > self.0[BUCKETS].load(Ordering::Relaxed) {
            self.0[BUCKETS].store(us, Ordering::Relaxed);
        }
    }

    /// What was counted so far.
    pub(super) fn histogram(&self) -> Histogram {
        let counts = self.0.iter().take(BUCKETS);
        Histogram::of(counts.map(|count| count.load(Ordering::Relaxed)))
    }

    /// The longest time, microseconds; 0 of nothing.
    pub(super) fn longest_us(&self) -> u64 {
        self.0[BUCKETS].load(Ordering::Relaxed)
    }
}

/// Adds to a number that only one thread changes: a plain addition, no locked one.
pub(super) fn bump(number: &AtomicU64, by: u64) {
    number.store(number.load(Ordering::Relaxed).wrapping_add(by), Ordering::Relaxed);
}
