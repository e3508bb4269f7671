//! A set of pieces, as a bitfield message has it (BEP 3): the first piece is the highest bit of
//! the first byte.

/// A set of the numbers below a fixed length.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Bitfield {
    words: Vec<u64>,
    len: u32,
    ones: u32,
}

impl Bitfield {
    /// The empty set of numbers below `len`.
    pub fn new(len: u32) -> Self {
        Self { words: vec![0; (len as usize).div_ceil(64)], len, ones: 0 }
    }

    /// The set of all numbers below `len`.
    pub fn full(len: u32) -> Self {
        let mut bits = Self::new(len);
        bits.words.fill(u64::MAX);
        if let Some(last) = bits.words.last_mut().filter(|_| !len.is_multiple_of(64)) {
            *last = (1 << (len % 64)) - 1;
        }
        bits.ones = len;
        bits
    }

    /// How many numbers could be in it.
    pub fn len(&self) -> u32 {
        self.len
    }

    /// True when it holds nothing.
    pub fn is_empty(&self) -> bool {
        self.ones == 0
    }

    /// How many numbers are in it.
    pub fn count(&self) -> u32 {
        self.ones
    }

    /// True when it holds every number.
    pub fn is_full(&self) -> bool {
        self.ones == self.len
    }

    /// Whether `index` is in it; never for one that is too large.
    pub fn has(&self, index: u32) -> bool {
        index < self.len && self.words[index as usize / 64] >> (index % 64) & 1 == 1
    }

    /// Puts `index` in; false when it was there or is too large.
    pub fn set(&mut self, index: u32) -> bool {
        if index >= self.len || self.has(index) {
            return false;
        }
        self.words[index as usize / 64] |= 1 << (index % 64);
        self.ones += 1;
        true
    }

    /// Takes `index` out; false when it was not there.
    pub fn clear(&mut self, index: u32) -> bool {
        if !self.has(index) {
            return false;
        }
        self.words[index as usize / 64] &= !(1 << (index % 64));
        self.ones -= 1;
        true
    }

    /// The numbers in it, rising.
    pub fn iter(&self) -> impl Iterator<Item = u32> + '_ {
        (0u32..).zip(&self.words).flat_map(|(at, &word)| {
            let mut rest = word;
            std::iter::from_fn(move || {
                (rest != 0).then(|| {
                    let bit = rest.trailing_zeros();
                    rest &= rest - 1;
                    at * 64 + bit
                })
            })
        })
    }

    /// The words themselves, 64 numbers each, the lowest bit first.
    pub fn words(&self) -> &[u64] {
        &self.words
    }

    /// The body of a bitfield message.
    pub fn encode(&self) -> Vec<u8> {
        let bytes = self.words.iter().flat_map(|word| word.to_le_bytes());
        let reversed = bytes.map(u8::reverse_bits);
        reversed.take((self.len as usize).div_ceil(8)).collect()
    }

    /// Reads the body of a bitfield message of `len` pieces; `None` when it is too long, too
    /// short, or has a bit set beyond the last piece.
    pub fn decode(len: u32, body: &[u8]) -> Option<Self> {
        if body.len() != (len as usize).div_ceil(8) {
            return None;
        }
        let mut bits = Self::new(len);
        for (word, bytes) in bits.words.iter_mut().zip(body.chunks(8)) {
            let mut eight = [0; 8];
            eight[..bytes.len()].copy_from_slice(bytes);
            *word = u64::from_le_bytes(eight.map(u8::reverse_bits));
        }
        let spare = bits.words.last().copied().unwrap_or(0);
        if !len.is_multiple_of(64) && spare >> (len % 64) != 0 {
            return None;
        }
        bits.ones = bits.words.iter().map(|word| word.count_ones()).sum();
        Some(bits)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bitfield_has_its_first_piece_in_the_highest_bit() {
        let mut bits = Bitfield::new(10);
        assert!(bits.set(0) && bits.set(9) && !bits.set(9) && !bits.set(10));
        assert_eq!(bits.encode(), [0x80, 0x40]);
        assert_eq!(Bitfield::decode(10, &[0x80, 0x40]), Some(bits.clone()));
        assert_eq!(bits.iter().collect::<Vec<_>>(), [0, 9]);
        assert!(bits.clear(0) && !bits.clear(0));
        assert_eq!(bits.count(), 1);
    }

    #[test]
    fn wrong_lengths_and_spare_bits_are_refused() {
        assert!(Bitfield::decode(10, &[0x80, 0x20]).is_none(), "a spare bit");
        assert!(Bitfield::decode(10, &[0x80]).is_none());
        assert!(Bitfield::decode(10, &[0x80, 0, 0]).is_none());
        assert!(Bitfield::decode(8, &[0xff]).is_some_and(|bits| bits.is_full()));
    }

    #[test]
    fn every_length_round_trips() {
        for len in 1..200 {
            let full = Bitfield::full(len);
            assert_eq!(full.iter().count() as u32, len);
            assert_eq!(Bitfield::decode(len, &full.encode()), Some(full));
            let mut some = Bitfield::new(len);
            (0..len).step_by(3).for_each(|index| assert!(some.set(index)));
            assert_eq!(Bitfield::decode(len, &some.encode()), Some(some));
        }
    }
}
