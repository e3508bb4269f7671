//! How much of the payload a client had at which time.

/// Most samples of one transfer.
const SAMPLES_MAX: usize = 32;

/// Microseconds since the release by the server's clock, and the bytes that the client had by then;
/// neither falls.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Samples(Vec<(u64, u64)>);

impl Samples {
    /// Adds a later one. Where there are [`SAMPLES_MAX`], every second one makes room.
    pub fn push(&mut self, us: u64, bytes: u64) {
        let (last, had) = self.0.last().copied().unwrap_or_default();
        if us <= last || bytes < had {
            return;
        }
        if self.0.len() == SAMPLES_MAX {
            let mut keeps = false;
            self.0.retain(|_| {
                keeps = !keeps;
                !keeps
            });
        }
        self.0.push((us, bytes));
    }

    /// The samples, in order.
    pub fn as_slice(&self) -> &[(u64, u64)] {
        &self.0
    }

    /// `10000:65536 20000:131072`, unless there is none.
    pub fn text(&self) -> Option<String> {
        let each: Vec<_> = self.0.iter().map(|(us, bytes)| format!("{us}:{bytes}")).collect();
        (!each.is_empty()).then(|| each.join(" "))
    }

    /// Reads what [`Samples::text`] writes. Of another text the samples are another's, or none.
    pub fn read(text: &str) -> Option<Self> {
        let mut samples = Self::default();
        for sample in text.split(' ') {
            let (us, bytes) = sample.split_once(':')?;
            samples.push(us.parse().ok()?, bytes.parse().ok()?);
        }
        Some(samples)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_are_bounded_and_span_the_whole_transfer() {
        let mut samples = Samples::default();
        for at in 1..=10_000 {
            samples.push(at * 1000, at * 7);
            let kept = samples.as_slice();
            assert!(kept.len() <= SAMPLES_MAX, "{kept:?}");
            assert_eq!(kept.last(), Some(&(at * 1000, at * 7)));
            assert!(kept.iter().all(|&(us, bytes)| bytes == us / 1000 * 7), "{kept:?}");
        }
        assert!(samples.as_slice().len() > SAMPLES_MAX / 2);
    }

    #[test]
    fn sample_that_is_not_later_is_left_out() {
        let mut samples = Samples::default();
        for (us, bytes) in [(0, 1), (10, 5), (10, 6), (9, 7), (11, 4), (12, 5)] {
            samples.push(us, bytes);
        }
        assert_eq!(samples.as_slice(), [(10, 5), (12, 5)]);
    }

    #[test]
    fn most_and_largest_samples_come_back_and_more_do_not() {
        let mut samples = Samples::default();
        let last = u64::MAX - SAMPLES_MAX as u64;
        (1..=SAMPLES_MAX as u64).for_each(|at| samples.push(last + at, last + at));
        let text = samples.text().expect("some");
        assert_eq!(Samples::read(&text), Some(samples));
        assert_eq!(text.len(), SAMPLES_MAX * 42 - 1);
        let comes_back = |text: &str| {
            let read = Samples::read(text).expect("numbers");
            read.text().as_deref() == Some(text)
        };
        assert!(comes_back(&text) && !comes_back(&format!("1:1 {text}")));
        for wrong in ["", "1", "1:", "x:1", "1:1  2:2", "1:1 ", "18446744073709551616:1"] {
            assert_eq!(Samples::read(wrong), None, "{wrong}");
        }
        for other in ["2:1 1:2", "01:1", "0:1", "1:2 2:1", "+1:1"] {
            assert!(!comes_back(other), "{other}");
        }
    }
}
