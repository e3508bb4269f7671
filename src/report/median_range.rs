//! The median of repeats, with a range or an interval around it.
//!
//! The interval assumes nothing about how the values are spread. It reaches from one of the sorted
//! values to another (order statistics): a value falls below the true median with chance one half,
//! so the ranks follow from the binomial distribution. Nine repeats give ranks 2 to 8 and 96.1 %;
//! fewer than six never reach 95 %, and then the interval is the whole range, with its coverage.

/// A median and what is around it, in the unit of the values.
#[derive(Clone, Copy, Debug, PartialEq)]
#[cfg_attr(feature = "cli", derive(serde::Serialize, serde::Deserialize))]
pub struct MedianRange {
    /// The middle value; half way between the middle two of an even number.
    pub median: f64,
    /// The lower end of the range or interval.
    pub low: f64,
    /// The upper end.
    pub high: f64,
    /// The chance that low to high holds the true median, 0 to 1.
    pub coverage: f64,
}

/// The coverage that an interval should have.
const WANTED: f64 = 0.95;

impl MedianRange {
    /// The median of `values` and their whole range. Values that are not finite are left out;
    /// `None` where there are no others.
    pub fn of(values: impl IntoIterator<Item = f64>) -> Option<Self> {
        Self::at_rank(values, |count| (1, coverage_of_range(count)))
    }

    /// The median of `values` and the narrowest interval that holds the true median with 95 %,
    /// else their whole range. Values that are not finite are left out; `None` where there are no
    /// others.
    pub fn with_interval(values: impl IntoIterator<Item = f64>) -> Option<Self> {
        Self::at_rank(values, interval)
    }

    /// `rank` takes the number of values to the rank, from 1, at which low stands, and to the
    /// coverage. High stands as many before the last.
    fn at_rank(
        values: impl IntoIterator<Item = f64>,
        rank: fn(usize) -> (usize, f64),
    ) -> Option<Self> {
        let mut values: Vec<f64> = values.into_iter().filter(|v| v.is_finite()).collect();
        values.sort_by(f64::total_cmp);
        let count = values.len();
        let upper = *values.get(count / 2)?;
        let lower = values[(count - 1) / 2];
        let (rank, coverage) = rank(count);
        Some(Self {
            median: f64::midpoint(lower, upper),
            low: values[rank - 1],
            high: values[count - rank],
            coverage,
        })
    }
}

/// The mean of `values`; `None` without any.
pub fn mean(values: impl Iterator<Item = f64>) -> Option<f64> {
    let (sum, count) = values.fold((0.0, 0.0), |(sum, count), value| (sum + value, count + 1.0));
    (count > 0.0).then(|| sum / count)
}

fn coverage_of_range(count: usize) -> f64 {
    1.0 - 0.5_f64.powi(i32::try_from(count).unwrap_or(i32::MAX) - 1)
}

/// The rank, from 1, at which the interval of `count` values begins (it ends as many before the
/// last), and its coverage.
fn interval(count: usize) -> (usize, f64) {
    let n = count as f64;
    // The chance that exactly k of n tosses of a coin are heads, as a logarithm: for thousands of
    // tosses it is too small for a number. Here of none.
    let mut chance_ln = -n * std::f64::consts::LN_2;
    let mut below = 0.0; // P(fewer than `rank` fall below the median).
    let mut best = None;
    for rank in 1..=count.div_ceil(2) {
        below += chance_ln.exp();
        let coverage = (1.0 - 2.0 * below).max(0.0);
        if best.is_some() && coverage < WANTED {
            break;
        }
        best = Some((rank, coverage));
        if coverage < WANTED {
            break;
        }
        let k = rank as f64;
        chance_ln += ((n - k + 1.0) / k).ln();
    }
    best.unwrap_or((1, 0.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn interval_has_the_ranks_of_published_tables() {
        for (count, rank, percent) in [
            (1, 1, 0.0),
            (3, 1, 75.0),
            (5, 1, 93.75),
            (6, 1, 96.9),
            (9, 2, 96.1),
            (11, 2, 98.8),
            (15, 4, 96.5),
        ] {
            let (got, coverage) = interval(count);
            assert_eq!(got, rank, "{count}");
            assert!((coverage * 100.0 - percent).abs() < 0.06, "{count}: {coverage}");
        }
        let (rank, coverage) = interval(5000);
        assert!(rank > 2400 && (0.95..0.96).contains(&coverage), "{rank} {coverage}");
    }

    #[test]
    fn median_and_ends_are_order_statistics() {
        let nine = [9.0, 1.0, 8.0, 2.0, 7.0, 3.0, 6.0, 4.0, 5.0];
        let middle = MedianRange::with_interval(nine).expect("values");
        assert_eq!((middle.median, middle.low, middle.high), (5.0, 2.0, 8.0));
        let three = MedianRange::with_interval([3.0, 1.0, 2.0, f64::NAN]).expect("values");
        assert_eq!((three.median, three.low, three.high), (2.0, 1.0, 3.0));
        assert!((three.coverage - 0.75).abs() < 1e-9);
        let two = MedianRange::with_interval([1.0, 2.0]).expect("values");
        assert_eq!((two.median, two.low, two.high), (1.5, 1.0, 2.0));
        assert_eq!(MedianRange::with_interval([]), None);
    }

    #[test]
    fn range_reaches_from_least_to_largest() {
        let range = |median, low, high, coverage| {
            let range = MedianRange { median, low, high, coverage };
            Some(range)
        };
        assert_eq!(MedianRange::of([]), None);
        assert_eq!(MedianRange::of([f64::NAN]), None);
        assert_eq!(MedianRange::of([3.0, 1.0, 2.0]), range(2.0, 1.0, 3.0, 0.75));
        let four = MedianRange::of([4.0, 1.0, 2.0, 3.0]);
        assert_eq!(four, range(2.5, 1.0, 4.0, 0.875));
    }
}
