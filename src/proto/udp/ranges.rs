//! Lists of missing blocks in few bytes: ranges, each as its distance and length.
//!
//! A list is pairs of LEB128 numbers: the gap from the end of the range before (or from the
//! list's base) and the length minus one. Ranges rise and never touch, so each set of blocks has
//! exactly one list.

use std::ops::Range;

use crate::proto::udp::packet::{leb_put, leb_take};

/// Most bytes of one list: as hexadecimal digits it must leave room in a line.
pub const LIST_MAX: usize = 800;

/// Appends as many of `ranges` as fit to a list of at most [`LIST_MAX`] bytes above `base`;
/// returns the list and how many ranges it holds.
///
/// # Panics
/// Ranges that do not rise; the caller's set yields them in order.
pub fn encode(base: u32, ranges: &[Range<u32>]) -> (Vec<u8>, usize) {
    let mut list = Vec::new();
    let mut end = base;
    for (count, range) in ranges.iter().enumerate() {
        let kept = list.len();
        leb_put(range.start.checked_sub(end).expect("rising"), &mut list);
        leb_put(range.end - range.start - 1, &mut list);
        if list.len() > LIST_MAX {
            list.truncate(kept);
            return (list, count);
        }
        end = range.end;
    }
    (list, ranges.len())
}

/// Reads a list above `base` whose blocks must be below `limit`.
///
/// # Errors
/// A list that is too long, cut, not rising, or names a block beyond the limit.
pub fn decode(base: u32, limit: u32, mut list: &[u8]) -> Result<Vec<Range<u32>>, &'static str> {
    if list.len() > LIST_MAX {
        return Err("a list of missing blocks that is too long");
    }
    let mut ranges: Vec<Range<u32>> = Vec::with_capacity(list.len() / 2);
    let mut end = base;
    while !list.is_empty() {
        let cut = "a list of missing blocks that is cut";
        let gap = leb_take(&mut list).ok_or(cut)?;
        let more = leb_take(&mut list).ok_or(cut)?;
        if gap == 0 && !ranges.is_empty() {
            return Err("ranges of missing blocks that touch");
        }
        let start = end.checked_add(gap);
        let stop = start.and_then(|start| start.checked_add(more)?.checked_add(1));
        let (Some(start), Some(stop)) = (start, stop) else {
            return Err("a missing block beyond all numbers");
        };
        if stop > limit {
            return Err("a missing block beyond the last one");
        }
        ranges.push(start..stop);
        end = stop;
    }
    Ok(ranges)
}

#[cfg(test)]
#[allow(clippy::single_range_in_vec_init, reason = "a list of one range is meant")]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn lists_are_short_and_malformed_ones_are_refused() {
        let (list, count) = encode(10, &[10..11, 20..23]);
        assert_eq!((&list[..], count), (&[0, 0, 9, 2][..], 2));
        assert_eq!(decode(10, 23, &list), Ok(vec![10..11, 20..23]));
        assert!(decode(10, 22, &list).is_err(), "beyond the last block");
        assert!(decode(10, 23, &list[..3]).is_err(), "cut");
        assert!(decode(0, 9, &[0, 0, 0, 0]).is_err(), "touching");
        assert!(decode(u32::MAX, u32::MAX, &[5, 5]).is_err(), "beyond all");
        assert!(decode(0, u32::MAX, &vec![1; LIST_MAX + 1]).is_err(), "too long");
        let many: Vec<_> = (0..5000).map(|n| n * 3..n * 3 + 1).collect();
        let (list, count) = encode(0, &many);
        assert!(list.len() <= LIST_MAX && count > 300, "{count}");
        assert_eq!(decode(0, u32::MAX, &list), Ok(many[..count].to_vec()));
    }

    proptest! {
        #[test]
        fn list_is_read_back_as_it_was_written(
            base in 0_u32..1000,
            steps in prop::collection::vec((1_u32..1_000_000, 1_u32..1000), 0..200),
        ) {
            let mut end = base;
            let ranges: Vec<_> = steps.into_iter().map(|(gap, len)| {
                let start = end + gap;
                end = start + len;
                start..end
            }).collect();
            let (list, count) = encode(base, &ranges);
            prop_assert_eq!(decode(base, end, &list), Ok(ranges[..count].to_vec()));
        }

        #[test]
        fn list_decoder_accepts_only_what_is_encoded(bytes in prop::collection::vec(any::<u8>(), 0..900), base: u32, limit: u32) {
            if let Ok(ranges) = decode(base, limit, &bytes) {
                prop_assert_eq!(encode(base, &ranges).0, bytes);
            }
        }
    }
}
