//! How much of the payload a client had at which time: pairs of the microseconds since the release, by
//! the server's clock, and the bytes that the client had by then. Both rise.

/// Most samples of one transfer.
const MAX: usize = 32;

/// Adds a later sample, if more has come. Where there are as many as there may be, every second one
/// makes room.
pub fn push(samples: &mut Vec<(u64, u64)>, us: u64, bytes: u64) {
    let (last, had) = samples.last().copied().unwrap_or_default();
    if us <= last || bytes <= had {
        return;
    }
    if samples.len() == MAX {
        *samples = samples.iter().copied().skip(1).step_by(2).collect();
    }
    samples.push((us, bytes));
}

/// `10000:65536 20000:131072`, unless there is none.
pub fn text(samples: &[(u64, u64)]) -> Option<String> {
    let each: Vec<_> = samples.iter().map(|(us, bytes)| format!("{us}:{bytes}")).collect();
    (!each.is_empty()).then(|| each.join(" "))
}

/// Reads what [`text`] writes. Of another text the samples are another's, or none.
pub fn read(text: &str) -> Option<Vec<(u64, u64)>> {
    let mut samples = Vec::new();
    for sample in text.split(' ') {
        let (us, bytes) = sample.split_once(':')?;
        push(&mut samples, us.parse().ok()?, bytes.parse().ok()?);
    }
    Some(samples)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_are_bounded_and_span_the_whole_transfer() {
        let (mut samples, mut us) = (Vec::new(), 0);
        // As the session's thread looks: at first each 10 ms, then each 32nd of the time.
        while us < 3_600_000_000 {
            us += (us / 32).max(10_000);
            push(&mut samples, us, us * 7);
            assert!(samples.len() <= MAX, "{samples:?}");
            assert_eq!(samples.last(), Some(&(us, us * 7)));
            let gap = samples.windows(2).map(|pair| pair[1].0 - pair[0].0).max();
            assert!(gap.unwrap_or(samples[0].0) <= (us / 7).max(10_000), "{samples:?}");
        }
        assert!(samples.len() > MAX / 2);
    }

    #[test]
    fn sample_without_more_bytes_is_left_out() {
        let mut samples = Vec::new();
        for (us, bytes) in [(0, 1), (10, 5), (10, 6), (9, 7), (11, 4), (12, 5), (13, 6)] {
            push(&mut samples, us, bytes);
        }
        assert_eq!(samples, [(10, 5), (13, 6)]);
    }

    #[test]
    fn most_and_largest_samples_come_back_and_more_do_not() {
        let mut samples = Vec::new();
        let last = u64::MAX - MAX as u64;
        (1..=MAX as u64).for_each(|at| push(&mut samples, last + at, last + at));
        let most = text(&samples).expect("some");
        assert_eq!(read(&most), Some(samples));
        assert_eq!(most.len(), MAX * 42 - 1);
        let comes_back = |words: &str| {
            let read = read(words).expect("numbers");
            text(&read).as_deref() == Some(words)
        };
        assert!(comes_back(&most) && !comes_back(&format!("1:1 {most}")));
        for wrong in ["", "1", "1:", "x:1", "1:1  2:2", "1:1 ", "18446744073709551616:1"] {
            assert_eq!(read(wrong), None, "{wrong}");
        }
        for other in ["2:1 1:2", "01:1", "0:1", "1:2 2:1", "+1:1", "1:1 2:1"] {
            assert!(!comes_back(other), "{other}");
        }
    }
}
