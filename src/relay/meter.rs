//! A histogram that one thread fills and others read, without a lock.

use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;
use std::time::Duration;

use crate::proto::histogram::BUCKETS;
use crate::proto::histogram::Histogram;
use crate::proto::histogram::bucket;
use crate::units::micros;

/// Times, as the one thread that adds them leaves them.
#[derive(Debug)]
pub(super) struct Meter {
    counts: Box<[AtomicU64]>,
    worst_us: AtomicU64,
}

impl Meter {
    pub(super) fn new() -> Self {
        Self {
            counts: (0..BUCKETS).map(|_| AtomicU64::new(0)).collect(),
            worst_us: AtomicU64::new(0),
        }
    }

    /// Counts `time`; by one thread only.
    pub(super) fn add(&self, time: Duration) {
        let us = micros(time);
        bump(&self.counts[bucket(us)], 1);
        if us > self.worst_us.load(Ordering::Relaxed) {
            self.worst_us.store(us, Ordering::Relaxed);
        }
    }

    /// What was counted so far.
    pub(super) fn histogram(&self) -> Histogram {
        Histogram::of(
            self.counts
                .iter()
                .map(|count| count.load(Ordering::Relaxed)),
        )
    }

    /// The longest time, microseconds; `None` of nothing.
    pub(super) fn worst_us(&self, of: &Histogram) -> Option<u64> {
        (of.count() > 0).then(|| self.worst_us.load(Ordering::Relaxed))
    }
}

/// Adds to a number that only one thread changes: a plain addition, no locked one.
pub(super) fn bump(number: &AtomicU64, by: u64) {
    number.store(
        number.load(Ordering::Relaxed).wrapping_add(by),
        Ordering::Relaxed,
    );
}
