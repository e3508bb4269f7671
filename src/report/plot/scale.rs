//! From values to pixels: the range of an axis, its ticks, and which of their labels fit.

use crate::report::plot::marks::{FONT, text_width};

/// An axis of a chart.
#[derive(Clone, Debug, Default)]
pub struct Axis {
    /// What is counted, and its unit.
    pub label: String,
    /// Distances stand for ratios. Values that are not above zero are not drawn.
    pub logarithmic: bool,
    /// The axis begins at zero (when it is not logarithmic).
    pub from_zero: bool,
    /// Where ticks belong, for instance the values that were measured; empty: round numbers.
    /// On the horizontal axis those that would run into each other have no label; the first and
    /// last have one before all others.
    pub ticks: Vec<f64>,
}

impl Axis {
    /// An axis that begins at zero, with round numbers.
    pub fn from_zero(label: impl Into<String>) -> Self {
        Self { label: label.into(), from_zero: true, ..Self::default() }
    }

    /// An axis with ticks at these values, which may come in any order and more than once.
    pub fn with_ticks(label: impl Into<String>, ticks: impl IntoIterator<Item = f64>) -> Self {
        let mut ticks: Vec<f64> = ticks.into_iter().collect();
        ticks.sort_by(f64::total_cmp);
        ticks.dedup();
        Self { label: label.into(), ticks, ..Self::default() }
    }
}

/// An axis with its range fixed: from values to pixels.
pub(super) struct Scale {
    pub(super) low: f64,
    pub(super) high: f64,
    pub(super) logarithmic: bool,
    /// Pixel of `low`.
    pub(super) start: f64,
    /// Pixel of `high`.
    pub(super) end: f64,
}

impl Scale {
    /// A range that holds all `values`, with room for one value alone.
    pub(super) fn new(
        axis: &Axis,
        values: impl Iterator<Item = f64>,
        start: f64,
        end: f64,
    ) -> Self {
        let usable = |&value: &f64| is_drawable(value) && (!axis.logarithmic || value > 0.0);
        let range = values.filter(usable).fold(None, |range, value| {
            let (low, high): (f64, f64) = range.unwrap_or((value, value));
            Some((low.min(value), high.max(value)))
        });
        let (mut low, mut high) = range.unwrap_or((1.0, 1.0));
        if axis.logarithmic {
            let room = if low == high { 2.0 } else { 1.08 };
            (low, high) = (low / room, high * room);
        } else {
            if axis.from_zero {
                low = low.min(0.0);
            }
            if low == high {
                let room = if low == 0.0 { 1.0 } else { low.abs() / 2.0 };
                (low, high) = (low - room, high + room);
            }
            // A marker on the frame is half a marker.
            let room = (high - low) * 0.05;
            high += room;
            if !axis.from_zero {
                low -= room;
            }
        }
        Self { low, high, logarithmic: axis.logarithmic, start, end }
    }

    pub(super) fn pixel(&self, value: f64) -> f64 {
        let part = if self.logarithmic {
            (value / self.low).ln() / (self.high / self.low).ln()
        } else {
            (value - self.low) / (self.high - self.low)
        };
        self.start + part * (self.end - self.start)
    }

    pub(super) fn holds(&self, value: f64) -> bool {
        value.is_finite() && value >= self.low && value <= self.high
    }

    /// Round numbers in the range: 1, 2 and 5 times powers of ten, about `wanted` of them.
    pub(super) fn round_ticks(&self, wanted: f64) -> Vec<f64> {
        if self.logarithmic {
            let decades = (self.high / self.low).log10();
            let steps: &[f64] = if decades < 4.0 { &[1.0, 2.0, 5.0] } else { &[1.0] };
            let ticks = powers(self.low, self.high)
                .flat_map(|power| steps.iter().map(move |step| step * power))
                .filter(|&tick| self.holds(tick));
            let ticks: Vec<f64> = ticks.collect();
            // Less than a factor of two or so: the steps of a linear axis serve better.
            if ticks.len() >= 3 {
                return ticks;
            }
        }
        let rough = (self.high - self.low) / wanted;
        let power = 10_f64.powf(rough.log10().floor());
        let step = [1.0, 2.0, 5.0, 10.0]
            .map(|step| step * power)
            .into_iter()
            .find(|&step| step >= rough)
            .unwrap_or(rough);
        // Counted, not added up: sums of 0.1 are not round.
        (0..64)
            .map(|count| ((self.low / step).ceil() + f64::from(count)) * step)
            .take_while(|&tick| tick <= self.high)
            .filter(|tick| tick.is_finite())
            .collect()
    }
}

/// True for a value that has a place on an axis: further out the arithmetic of ranges overflows,
/// and nothing that is measured lies there.
pub(super) fn is_drawable(value: f64) -> bool {
    value.abs() <= 1e15 && (value == 0.0 || value.abs() >= 1e-15)
}

/// Powers of ten from below `low` to `high`.
fn powers(low: f64, high: f64) -> impl Iterator<Item = f64> {
    let first = low.log10().floor();
    // Drawable values span 30 decades.
    (0..=32)
        .map(move |count| 10_f64.powf(first + f64::from(count)))
        .take_while(move |&power| power <= high)
}

/// The ticks as plain decimals. On an axis of ratios each has the digits that it needs, on any
/// other all have as many as the finest.
pub(super) fn labels(ticks: &[f64], logarithmic: bool) -> Vec<String> {
    let needed = |ticks: &[f64]| {
        let exact = |&decimals: &usize| {
            let same = |&tick: &f64| {
                let read: f64 = format!("{tick:.decimals$}").parse().unwrap_or(f64::NAN);
                (read - tick).abs() <= tick.abs() * 1e-9
            };
            ticks.iter().all(same)
        };
        (0..=DECIMALS_MAX).find(exact).unwrap_or(DECIMALS_MAX)
    };
    let all = needed(ticks);
    let label = |tick: f64| {
        let own = logarithmic || tick == 0.0;
        let decimals = if own { needed(&[tick]) } else { all };
        let plain = format!("{tick:.decimals$}");
        if plain.len() <= PLAIN_MAX {
            return plain;
        }
        // Through six digits and back, which takes the dust of the arithmetic off.
        let rounded: f64 = format!("{tick:.5e}").parse().unwrap_or(tick);
        format!("{rounded:e}")
    };
    ticks.iter().copied().map(label).collect()
}

/// Longest plain label, characters: what the margin beside the vertical axis holds.
const PLAIN_MAX: usize = 7;

/// Most decimals of a label: nanoseconds of an axis in seconds.
const DECIMALS_MAX: usize = 9;

/// Which labels are shown so that none touches another: the first, the last, and from the left
/// all that fit.
pub(super) fn without_collisions(ticks: &[f64], labels: &[String], scale: &Scale) -> Vec<bool> {
    let reach = |place: usize| {
        let half = text_width(&labels[place], FONT) / 2.0 + 4.0;
        let at = scale.pixel(ticks[place]);
        (at - half, at + half)
    };
    let mut shown = vec![false; ticks.len()];
    let Some(last) = ticks.len().checked_sub(1) else {
        return shown;
    };
    let end = reach(last).0;
    let mut free = f64::NEG_INFINITY;
    for (place, shown) in shown.iter_mut().enumerate().take(last) {
        let (left, right) = reach(place);
        *shown = left >= free && (place == 0 || right <= end);
        if *shown {
            free = right;
        }
    }
    shown[last] = end >= free;
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scale(low: f64, high: f64, logarithmic: bool) -> Scale {
        let axis = Axis { logarithmic, ..Axis::default() };
        Scale::new(&axis, [low, high].into_iter(), 0.0, 100.0)
    }

    #[test]
    fn ticks_are_round_numbers_in_the_range() {
        assert_eq!(scale(0.0, 10.0, false).round_ticks(6.0), [0.0, 2.0, 4.0, 6.0, 8.0, 10.0]);
        assert_eq!(
            labels(&scale(0.1, 0.7, false).round_ticks(6.0), false)[..3],
            ["0.2", "0.4", "0.6"]
        );
        let decades = scale(1.0, 1000.0, true).round_ticks(6.0);
        assert_eq!(decades, [1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1000.0]);
        assert_eq!(labels(&[0.01, 0.1, 1.0], true), ["0.01", "0.1", "1"]);
        assert_eq!(labels(&[0.0, 0.5, 1.0], false), ["0", "0.5", "1.0"]);
        assert_eq!(labels(&[0.000_001, 0.001, 1.0], true), ["1e-6", "0.001", "1"]);
        assert_eq!(labels(&[5e6, 1.5e8], false), ["5000000", "1.5e8"]);
    }

    #[test]
    fn pixels_follow_the_scale() {
        let linear = Scale { low: 0.0, high: 10.0, logarithmic: false, start: 0.0, end: 100.0 };
        assert!((linear.pixel(2.5) - 25.0).abs() < 1e-9);
        let upwards = Scale { start: 100.0, end: 0.0, ..linear };
        assert!((upwards.pixel(2.5) - 75.0).abs() < 1e-9);
        let ratios = Scale { low: 1.0, high: 100.0, logarithmic: true, start: 0.0, end: 100.0 };
        assert!((ratios.pixel(10.0) - 50.0).abs() < 1e-9);
    }

    #[test]
    fn labels_do_not_touch_and_the_ends_are_labelled() {
        let ticks: Vec<f64> = (1..=1000).map(f64::from).collect();
        let labels = labels(&ticks, false);
        let scale = scale(1.0, 1000.0, false);
        let scale = Scale { end: 640.0, ..scale };
        let shown = without_collisions(&ticks, &labels, &scale);
        assert!(shown[0] && shown[999]);
        let count = shown.iter().filter(|&&shown| shown).count();
        assert!((8..=25).contains(&count), "{count}");
    }
}
