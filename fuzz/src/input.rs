//! Values out of the fuzzer's bytes, and bytes to begin with.

use gatecast::internals::{
    proto::{bt::random::Random, line::DecodeError},
    units::Moment,
};
use std::{fmt::Debug, time::Duration};

/// Takes values off the front; when nothing is left, all are zero.
#[derive(Debug)]
pub struct Input<'a>(pub &'a [u8]);

impl<'a> Input<'a> {
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn array<const N: usize>(&mut self) -> [u8; N] {
        let mut array = [0; N];
        let taken = self.bytes(N);
        array[..taken.len()].copy_from_slice(taken);
        array
    }

    pub fn u8(&mut self) -> u8 {
        self.array::<1>()[0]
    }

    pub fn u16(&mut self) -> u16 {
        u16::from_le_bytes(self.array())
    }

    pub fn u32(&mut self) -> u32 {
        u32::from_le_bytes(self.array())
    }

    pub fn u64(&mut self) -> u64 {
        u64::from_le_bytes(self.array())
    }

    /// A number of which small ones, powers of two and the ends of the range are likely.
    pub fn number(&mut self) -> u64 {
        match self.u8() {
            0..=127 => u64::from(self.u8()),
            128..=159 => u64::from(self.u16()),
            160..=191 => u64::from(self.u32()),
            192..=207 => self.u64(),
            208..=239 => (1_u64 << (self.u8() % 64)).wrapping_sub(u64::from(self.u8() % 3)),
            240..=247 => u64::MAX - u64::from(self.u8()),
            248..=255 => u64::from(u32::MAX - u32::from(self.u8())),
        }
    }

    /// The same below 2^32.
    pub fn number32(&mut self) -> u32 {
        self.number() as u32
    }

    pub fn flag(&mut self) -> bool {
        self.u8() & 1 == 1
    }

    /// A value half of the time.
    pub fn maybe<T>(&mut self, of: impl FnOnce(&mut Self) -> T) -> Option<T> {
        self.flag().then(|| of(self))
    }

    /// One of `all`.
    pub fn pick<T: Copy>(&mut self, all: &[T]) -> T {
        all[usize::from(self.u8()) % all.len()]
    }

    /// The next `count` bytes, or what is left.
    pub fn bytes(&mut self, count: usize) -> &'a [u8] {
        let (taken, rest) = self.0.split_at(count.min(self.0.len()));
        self.0 = rest;
        taken
    }

    /// Text of at most 255 bytes; bytes that are not UTF-8 are replaced.
    pub fn text(&mut self) -> String {
        let len = usize::from(self.u8());
        String::from_utf8_lossy(self.bytes(len)).into_owned()
    }

    /// Lets time pass: mostly a little, sometimes seconds.
    pub fn wait(&mut self, now: &mut Moment) {
        let us = match self.u8() {
            0..=99 => u64::from(self.u8()),
            100..=179 => u64::from(self.u16()),
            180..=239 => 1_000 * u64::from(self.u8()),
            240..=255 => 1_000 * u64::from(self.u16() % 12_000),
        };
        *now = now.after(Duration::from_micros(us));
    }
}

/// Inputs for state machines: any bytes are a sequence of steps.
pub fn noise() -> Vec<Vec<u8>> {
    let mut random = Random::new(25);
    let mut some = |len: usize| (0..len).map(|_| random.next_u64() as u8).collect();
    [16, 64, 256, 256, 1024, 1024].into_iter().map(&mut some).collect()
}

/// Reads `line` with `decode`. What it accepts is written by `encode` as one line of plain ASCII,
/// which is read as the same message. Returns the message and its line.
pub fn reread<T: Debug + PartialEq>(
    line: &str,
    decode: impl Fn(&str) -> Result<T, DecodeError>,
    encode: impl Fn(&T) -> Vec<u8>,
) -> Option<(T, Vec<u8>)> {
    let message = crate::heap::bounded(line.len(), || decode(line)).ok()?;
    let bytes = encode(&message);
    let text = bytes.strip_suffix(b"\n").expect("a line ends");
    assert!(text.iter().all(|byte| (0x20..0x7f).contains(byte)), "{text:?}");
    let again = decode(std::str::from_utf8(text).expect("ASCII")).expect("our own line is read");
    assert_eq!(encode(&again), bytes);
    // Only a reason over its limit is cut.
    if line.len() <= gatecast::internals::proto::native::REASON_MAX {
        assert_eq!(again, message);
    }
    Some((message, bytes))
}

/// The lines of `data`, and `data` as one line: what a parser of lines is given.
pub fn lines(data: &[u8]) -> impl Iterator<Item = &str> {
    data.split(|&byte| byte == b'\n').filter_map(|line| std::str::from_utf8(line).ok())
}

/// Cuts `data` in pieces whose lengths its first byte says.
pub fn pieces(data: &[u8]) -> (&[u8], impl Iterator<Item = &[u8]>) {
    let (&by, rest) = data.split_first().unwrap_or((&0, data));
    (rest, rest.chunks(usize::from(by) + 1))
}
