//! The median of repeats, with an interval that assumes nothing about how they are spread.
//!
//! The interval reaches from one of the sorted values to another (order statistics): a value
//! falls below the true median with chance one half, so the ranks follow from the binomial
//! distribution. Nine repeats give ranks 2 to 8 and 96.1 %; fewer than six never reach 95 %, and
//! then the interval is all there is, with the coverage that it has.

use serde::Deserialize;
use serde::Serialize;

/// A median and its interval, in the unit of the values.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Middle {
    /// The middle value; half way between the middle two of an even number.
    pub median: f64,
    /// The lower end of the interval.
    pub low: f64,
    /// The upper end of the interval.
    pub high: f64,
    /// The chance that such an interval holds the true median, 0 to 1.
    pub coverage: f64,
}

/// The coverage that an interval should have.
const WANTED: f64 = 0.95;

impl Middle {
    /// Of `values`, those that are not finite left out; `None` of nothing.
    pub fn of(values: impl IntoIterator<Item = f64>) -> Option<Self> {
        let mut values: Vec<f64> = values.into_iter().filter(|v| v.is_finite()).collect();
        values.sort_by(f64::total_cmp);
        let count = values.len();
        let middle = count / 2;
        let median = match count % 2 {
            _ if count == 0 => return None,
            0 => f64::midpoint(values[middle - 1], values[middle]),
            _ => values[middle],
        };
        let (rank, coverage) = interval(count);
        Some(Self {
            median,
            low: values[rank - 1],
            high: values[count - rank],
            coverage,
        })
    }
}

/// The rank, from 1, at which the interval of `count` values begins (it ends as many before the
/// last), and its coverage.
#[allow(clippy::cast_precision_loss)] // Some hundred thousand at most.
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
    fn the_intervals_that_tables_give() {
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
            assert!(
                (coverage * 100.0 - percent).abs() < 0.06,
                "{count}: {coverage}"
            );
        }
        let (rank, coverage) = interval(5000);
        assert!(
            rank > 2400 && (0.95..0.96).contains(&coverage),
            "{rank} {coverage}"
        );
    }

    #[test]
    fn the_median_and_its_ends() {
        let nine = [9.0, 1.0, 8.0, 2.0, 7.0, 3.0, 6.0, 4.0, 5.0];
        let middle = Middle::of(nine).expect("values");
        assert_eq!((middle.median, middle.low, middle.high), (5.0, 2.0, 8.0));
        let three = Middle::of([3.0, 1.0, 2.0, f64::NAN]).expect("values");
        assert_eq!((three.median, three.low, three.high), (2.0, 1.0, 3.0));
        assert!((three.coverage - 0.75).abs() < 1e-9);
        let two = Middle::of([1.0, 2.0]).expect("values");
        assert_eq!((two.median, two.low, two.high), (1.5, 1.0, 2.0));
        assert_eq!(Middle::of([]), None);
    }
}
