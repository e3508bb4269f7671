//! Percentiles of times without keeping them: counts in buckets that grow with the value.
//!
//! Sixteen buckets to each doubling, so a percentile is at most one sixteenth too high and never
//! too low; up to 16 us each value has its own. What is longer than the last bucket counts there.

/// Counts of times, in microseconds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Histogram {
    counts: Vec<u64>,
}

/// Percentiles of a delay, microseconds; `None` of nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Delay {
    /// Half took no longer.
    pub p50_us: Option<u64>,
    /// 99 of 100 took no longer.
    pub p99_us: Option<u64>,
    /// None took longer.
    pub worst_us: Option<u64>,
}

/// How many buckets there are: to 2^32 us, over an hour.
pub const BUCKETS: usize = (32 - SHIFT as usize + 1) * STEPS;

const SHIFT: u32 = 4;
const STEPS: usize = 1 << SHIFT;

impl Default for Histogram {
    fn default() -> Self {
        Self { counts: vec![0; BUCKETS] }
    }
}

impl Histogram {
    /// A histogram whose buckets have these `counts`, in their order.
    pub fn of(counts: impl IntoIterator<Item = u64>) -> Self {
        let mut of = Self::default();
        for (bucket, count) in of.counts.iter_mut().zip(counts) {
            *bucket = count;
        }
        of
    }

    /// Counts a time of `us` microseconds.
    pub fn add(&mut self, us: u64) {
        self.counts[bucket(us)] += 1;
    }

    /// Counts all that `other` counted.
    pub fn merge(&mut self, other: &Self) {
        for (own, other) in self.counts.iter_mut().zip(&other.counts) {
            *own += other;
        }
    }

    /// How many times were counted.
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// The time, microseconds, that `per_mille` of 1000 do not exceed; `None` of nothing.
    pub fn per_mille(&self, per_mille: u64) -> Option<u64> {
        let rank = (u128::from(self.count()) * u128::from(per_mille)).div_ceil(1000);
        let mut passed = 0;
        let bucket = self.counts.iter().position(|&count| {
            passed += u128::from(count);
            passed >= rank.max(1)
        });
        bucket.map(ceiling)
    }

    /// The percentiles of times of which the longest took `longest_us`: a bucket's upper end is
    /// not said to be longer than that.
    pub fn delay(&self, longest_us: u64) -> Delay {
        let per_mille = |n| self.per_mille(n).map(|us| us.min(longest_us));
        Delay {
            p50_us: per_mille(500),
            p99_us: per_mille(990),
            worst_us: per_mille(1000).map(|_| longest_us),
        }
    }
}

/// The bucket that counts a time of `us` microseconds.
pub fn bucket(us: u64) -> usize {
    // The highest bits below the leading one choose the step.
    let exponent = (us | 1).ilog2().saturating_sub(SHIFT);
    let step = usize::try_from(us >> exponent).unwrap_or(usize::MAX);
    (exponent as usize * STEPS).saturating_add(step).min(BUCKETS - 1)
}

/// The longest time that `bucket` counts, microseconds.
fn ceiling(bucket: usize) -> u64 {
    let exponent = (bucket / STEPS).saturating_sub(1);
    let step = (bucket - exponent * STEPS) as u64;
    ((step + 1) << exponent) - 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_time_is_in_the_bucket_that_ends_just_above_it() {
        let mut last = 0;
        let powers = (17..32).flat_map(|n| (1 << n) - 3..(1 << n) + 3);
        for us in (0..100_000).chain(powers).chain([u64::from(u32::MAX)]) {
            let found = bucket(us);
            let top = ceiling(found);
            assert!(top >= us && top - us <= us / 16, "{us}: {top}");
            assert!(found >= last || us < 1 << 17, "{us}");
            last = found;
        }
        assert_eq!(bucket(u64::MAX), BUCKETS - 1);
    }

    #[test]
    fn percentiles_are_the_ranks_of_the_sorted_times() {
        let mut histogram = Histogram::default();
        assert_eq!(histogram.per_mille(500), None);
        for us in 1..=1000 {
            histogram.add(us);
        }
        for (per_mille, exact) in [(0, 1), (1, 1), (500, 500), (990, 990), (1000, 1000)] {
            let found = histogram.per_mille(per_mille).expect("some");
            assert!((exact..=exact + exact / 16).contains(&found), "{per_mille}: {found}");
        }
        let mut both = Histogram::of([7]);
        both.merge(&histogram);
        assert_eq!(both.count(), 1007);
        assert_eq!(both.per_mille(5), Some(0));
    }

    #[test]
    fn no_percentile_is_longer_than_the_longest() {
        let mut times = Histogram::default();
        assert_eq!(times.delay(0), Delay::default());
        // Its bucket ends at 1,023.
        times.add(1_000);
        let one = times.delay(1_000);
        assert_eq!([one.p50_us, one.p99_us, one.worst_us], [Some(1_000); 3]);
        times.add(5_000);
        let two = times.delay(5_000);
        assert_eq!(two.p50_us, times.per_mille(500));
        assert_eq!([two.p99_us, two.worst_us], [Some(5_000); 2]);
    }
}
