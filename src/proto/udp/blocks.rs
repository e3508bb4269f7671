//! How a file is cut into blocks, and which of them are held: one bit each.

use std::ops::Range;

use crate::proto::bt::bitfield::Bitfield;

/// Most blocks of a file: numbers that wrap compare within half of their range, and a larger map
/// of them would cost a client 256 MiB before its first byte.
pub const BLOCKS_MAX: u32 = (1 << 31) - 1;

/// How a file is cut into blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlockLayout {
    /// Bytes of the file.
    pub bytes: u64,
    /// Bytes of every block but the last, which may be shorter.
    pub block_len: usize,
}

impl BlockLayout {
    /// How many blocks there are; at most what a `u32` counts.
    pub fn count(self) -> u32 {
        u32::try_from(self.bytes.div_ceil(self.block_len as u64)).unwrap_or(u32::MAX)
    }

    /// Where a block stands in the file, and how long it is.
    pub fn place(self, block: u32) -> (u64, usize) {
        let offset = u64::from(block) * self.block_len as u64;
        let left = self.bytes.saturating_sub(offset);
        (offset, left.min(self.block_len as u64) as usize)
    }
}

/// A set of the blocks `0..len`.
#[derive(Clone, Debug)]
pub struct Blocks {
    held: Bitfield,
    /// All blocks below are held.
    first_hole: u32,
}

impl Blocks {
    /// None of `len` blocks.
    pub fn new(len: u32) -> Self {
        Self { held: Bitfield::new(len), first_hole: 0 }
    }

    /// Those that are held.
    pub fn held(&self) -> &Bitfield {
        &self.held
    }

    /// The first block that is not held; `len` when all are.
    pub fn first_hole(&self) -> u32 {
        self.first_hole
    }

    /// Adds a block; false when it is held already, or none of these.
    pub fn insert(&mut self, block: u32) -> bool {
        let is_new = self.held.set(block);
        if is_new && block == self.first_hole {
            self.first_hole = self.next_hole(block + 1);
        }
        is_new
    }

    fn next_hole(&self, from: u32) -> u32 {
        let mut block = from;
        while block < self.held.len() {
            let word = self.held.words()[(block / 64) as usize] >> (block % 64);
            let run = word.trailing_ones();
            block += run;
            if run < 64 - (block - run) % 64 {
                break;
            }
        }
        block.min(self.held.len())
    }

    fn next_held(&self, from: u32) -> u32 {
        let mut block = from;
        while block < self.held.len() {
            let word = self.held.words()[(block / 64) as usize] >> (block % 64);
            if word != 0 {
                return (block + word.trailing_zeros()).min(self.held.len());
            }
            block = (block | 63).saturating_add(1);
        }
        self.held.len()
    }

    /// The missing ranges below `upto`, at most `max` of them.
    pub fn missing(&self, upto: u32, max: usize) -> Vec<Range<u32>> {
        let upto = upto.min(self.held.len());
        let mut ranges = Vec::new();
        let mut at = self.first_hole;
        while ranges.len() < max {
            let start = self.next_hole(at);
            if start >= upto {
                break;
            }
            let end = self.next_held(start).min(upto);
            ranges.push(start..end);
            at = end;
        }
        ranges
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn largest_block_map_has_no_overflow_at_its_end() {
        for len in [BLOCKS_MAX, u32::MAX - 1, u32::MAX] {
            let mut blocks = Blocks::new(len);
            assert_eq!(blocks.next_held(len - 1), len);
            assert_eq!(blocks.next_held(len - 70), len);
            assert!(blocks.insert(len - 1) && !blocks.insert(len));
            assert_eq!(blocks.next_held(len - 70), len - 1);
            assert_eq!(blocks.next_hole(len - 1), len);
        }
    }

    #[test]
    fn file_of_too_many_blocks_is_told_by_its_count() {
        let count = |bytes: u64, block_len: usize| BlockLayout { bytes, block_len }.count();
        let most = u64::from(BLOCKS_MAX);
        assert_eq!(count(most * 1000, 1000), BLOCKS_MAX);
        assert!(count(most * 1000 + 1, 1000) > BLOCKS_MAX);
        assert!(count(u64::MAX, 1) > BLOCKS_MAX);
    }

    proptest! {
        #[test]
        fn block_set_agrees_with_a_plain_list(len in 0_u32..300, puts in prop::collection::vec(0_u32..320, 0..600), upto in 0_u32..400) {
            let mut blocks = Blocks::new(len);
            let mut plain = vec![false; len as usize];
            for put in puts {
                let new = plain.get_mut(put as usize).is_some_and(|held| !std::mem::replace(held, true));
                prop_assert_eq!(blocks.insert(put), new);
                let hole = plain.iter().position(|held| !held).unwrap_or(plain.len());
                prop_assert_eq!(blocks.first_hole() as usize, hole);
            }
            prop_assert_eq!(blocks.held().count() as usize, plain.iter().filter(|held| **held).count());
            prop_assert_eq!(blocks.held().is_full(), plain.iter().all(|held| *held));
            let missing: Vec<u32> = blocks.missing(upto, usize::MAX).into_iter().flatten().collect();
            let wanted: Vec<u32> = (0..upto.min(len)).filter(|&b| !plain[b as usize]).collect();
            prop_assert_eq!(missing, wanted);
            prop_assert_eq!(blocks.missing(upto, 1).len() <= 1, true);
        }
    }
}
