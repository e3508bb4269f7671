//! RTP (RFC 3550): the header around a transport stream (RFC 2250, section 2), and exact loss by
//! sequence numbers.
//!
//! ```text
//! offset  bits  field
//! 0       2     version, 2
//! 0       1     padding: the last byte counts the bytes of it
//! 0       1     extension: a header of 4 + 4 x length bytes follows the sources
//! 0       4     CC, contributing sources of 4 bytes each after the fixed header
//! 1       1     marker
//! 1       7     payload type; 33 is a transport stream, but only the payload is looked at
//! 2       16    sequence number
//! 4       32    timestamp, 90 kHz
//! 8       32    SSRC
//! ```

use std::ops::Range;

/// What a datagram's RTP header says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RtpHeader {
    /// Counts the source's datagrams.
    pub sequence: u16,
    /// The source's clock, ticks of [`CLOCK_HZ`].
    pub timestamp: u32,
    /// Which source it is.
    pub ssrc: u32,
    /// Where in the datagram the payload lies.
    pub payload: Range<usize>,
}

/// Length of the fixed header, bytes.
pub const HEADER: usize = 12;

/// Ticks of the timestamp in a second, for a transport stream.
pub const CLOCK_HZ: u32 = 90_000;

impl RtpHeader {
    /// Reads the header of `datagram`; `None` when it has none.
    pub fn decode(datagram: &[u8]) -> Option<Self> {
        let (fixed, _) = datagram.split_first_chunk::<HEADER>()?;
        let &[flags, _, s0, s1, t0, t1, t2, t3, i0, i1, i2, i3] = fixed;
        if flags >> 6 != 2 {
            return None;
        }
        let mut start = HEADER + 4 * usize::from(flags & 0x0F);
        if flags & 0x10 != 0 {
            let &[high, low] = datagram.get(start + 2..)?.first_chunk()?;
            start += 4 + 4 * usize::from(u16::from_be_bytes([high, low]));
        }
        let mut end = datagram.len();
        if flags & 0x20 != 0 {
            // The count includes itself, so 0 is a lie.
            let padding = usize::from(*datagram.last()?);
            end = end.checked_sub(padding).filter(|_| padding > 0)?;
        }
        (start <= end).then_some(Self {
            sequence: u16::from_be_bytes([s0, s1]),
            timestamp: u32::from_be_bytes([t0, t1, t2, t3]),
            ssrc: u32::from_be_bytes([i0, i1, i2, i3]),
            payload: start..end,
        })
    }

    /// Whether `next` can be of the datagram that the same source sent after this one, or soon after.
    pub fn is_followed_by(&self, next: &Self) -> bool {
        let ahead = next.sequence.wrapping_sub(self.sequence);
        self.ssrc == next.ssrc && (1..=WINDOW).contains(&ahead)
    }

    /// A plain header for a transport stream: what comes `back` before `self` in its source's
    /// count.
    pub fn encode_before(&self, back: u16) -> [u8; HEADER] {
        let [s0, s1] = self.sequence.wrapping_sub(back).to_be_bytes();
        let [t0, t1, t2, t3] = self.timestamp.to_be_bytes();
        let [i0, i1, i2, i3] = self.ssrc.to_be_bytes();
        [0x80, 33, s0, s1, t0, t1, t2, t3, i0, i1, i2, i3]
    }
}

/// Counts what a source sent and what came of it, by sequence numbers.
///
/// Each number is counted once (a duplicate never hides a loss), in a window of [`WINDOW`]; a
/// datagram later than that is a late one and stays lost.
#[derive(Clone, Debug, Default)]
pub struct SequenceTracker {
    run: Option<SequenceRun>,
    /// What is lost is of runs that are over.
    counts: SequenceCounts,
}

/// What was counted of a sequence.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SequenceCounts {
    /// Sequence numbers that never came.
    pub lost: u64,
    /// Datagrams whose number had come already.
    pub duplicate: u64,
    /// Datagrams that came after one with a higher number (RFC 4737).
    pub reordered: u64,
}

/// Sequence numbers of one source without a restart.
#[derive(Clone, Debug, Default)]
struct SequenceRun {
    ssrc: u32,
    /// Numbers from the first to the highest, both included.
    expected: u64,
    unique: u64,
    highest: u16,
    /// Which of the last numbers came, the highest at bit 0 of the first word.
    seen: [u64; WORDS],
    /// The number that would confirm a restart (RFC 3550, A.1: `bad_seq`).
    suspect: Option<u16>,
}

/// How far back a late datagram still fills its gap.
pub const WINDOW: u16 = 512;

const WORDS: usize = WINDOW as usize / 64;

/// A jump ahead by more is a restart if the next number confirms it (RFC 3550, A.1).
const DROPOUT_MAX: u16 = 3000;

impl SequenceTracker {
    /// Counts one datagram.
    pub fn handle(&mut self, header: &RtpHeader) {
        let follows = match &mut self.run {
            Some(run) if run.ssrc == header.ssrc => run.record(header.sequence, &mut self.counts),
            _ => false,
        };
        if !follows {
            self.rejoin();
            self.run = Some(SequenceRun::begin(header));
        }
    }

    /// The next datagram does not follow the last one, and nothing is missing for it.
    pub fn rejoin(&mut self) {
        self.counts = self.counts();
        self.run = None;
    }

    /// What was counted so far.
    pub fn counts(&self) -> SequenceCounts {
        let lost = self.run.as_ref().map_or(0, |run| run.expected - run.unique);
        SequenceCounts { lost: self.counts.lost + lost, ..self.counts }
    }
}

impl SequenceRun {
    fn begin(header: &RtpHeader) -> Self {
        let mut run =
            Self { ssrc: header.ssrc, highest: header.sequence.wrapping_sub(1), ..Self::default() };
        run.advance(1);
        run
    }

    /// Counts `sequence`; `false` when the source has begun anew with it.
    fn record(&mut self, sequence: u16, counts: &mut SequenceCounts) -> bool {
        let ahead = sequence.wrapping_sub(self.highest);
        let behind = self.highest.wrapping_sub(sequence);
        let suspected = self.suspect.take() == Some(sequence);
        if (1..=DROPOUT_MAX).contains(&ahead) {
            self.advance(ahead);
        } else if behind < WINDOW {
            let (word, bit) = (usize::from(behind / 64), behind % 64);
            if self.seen[word] >> bit & 1 == 1 {
                counts.duplicate += 1;
            } else {
                // What was sent before the first one received was never expected.
                counts.reordered += 1;
                if u64::from(behind) < self.expected {
                    self.seen[word] |= 1 << bit;
                    self.unique += 1;
                }
            }
        } else if suspected {
            return false;
        } else {
            self.suspect = Some(sequence.wrapping_add(1));
        }
        true
    }

    fn advance(&mut self, by: u16) {
        let (words, bits) = (usize::from(by / 64), u32::from(by % 64));
        for at in (0..WORDS).rev() {
            let from = |back: usize| {
                at.checked_sub(words + back)
                    .and_then(|from| self.seen.get(from).copied())
                    .unwrap_or(0)
            };
            let low = from(0) << bits;
            let high = from(1).checked_shr(64 - bits).unwrap_or(0);
            self.seen[at] = low | high;
        }
        self.seen[0] |= 1;
        self.highest = self.highest.wrapping_add(by);
        self.expected += u64::from(by);
        self.unique += 1;
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn header(sequence: u16) -> RtpHeader {
        RtpHeader { sequence, timestamp: 0, ssrc: 7, payload: 0..0 }
    }

    fn counted(sequences: impl IntoIterator<Item = u16>) -> SequenceCounts {
        let mut counts = SequenceTracker::default();
        for sequence in sequences {
            counts.handle(&header(sequence));
        }
        counts.counts()
    }

    #[test]
    fn payload_starts_after_extension_and_ends_before_padding() {
        let plain =
            RtpHeader { sequence: 0x1235, timestamp: 9, ssrc: 8, payload: 0..0 }.encode_before(1);
        let mut datagram = plain.to_vec();
        datagram.extend([0x47; 188]);
        let read = RtpHeader::decode(&datagram).expect("plain");
        assert_eq!((read.sequence, read.timestamp, read.ssrc), (0x1234, 9, 8));
        assert_eq!(read.payload, 12..200);

        datagram[0] |= 0x32; // Two sources, an extension, padding.
        datagram.splice(12..12, [1, 1, 1, 1, 2, 2, 2, 2, 0, 0, 0, 1, 3, 3, 3, 3]);
        datagram.extend([0, 0, 3]);
        assert_eq!(RtpHeader::decode(&datagram).map(|header| header.payload), Some(28..216));
        for end in 0..28 {
            assert_eq!(RtpHeader::decode(&datagram[..end]), None, "cut at {end}");
        }
        *datagram.last_mut().expect("padding") = 0;
        assert_eq!(RtpHeader::decode(&datagram), None, "padding of nothing");
        *datagram.last_mut().expect("padding") = 255;
        assert_eq!(RtpHeader::decode(&datagram), None, "padding of everything");
        datagram[0] ^= 0xC0;
        assert_eq!(RtpHeader::decode(&datagram), None, "another version");
    }

    #[test]
    fn losses_are_exact_with_duplicates_and_late_datagrams() {
        let none = SequenceCounts::default();
        assert_eq!(counted((0..2000).map(|n| 65_000_u16.wrapping_add(n))), none);
        assert_eq!(counted([1, 2, 5, 6]).lost, 2);
        let doubled = counted([1, 1, 2, 5, 5, 5, 6]);
        assert_eq!((doubled.lost, doubled.duplicate), (2, 3));
        let late = counted([1, 2, 5, 3, 6, 4]);
        assert_eq!((late.lost, late.reordered), (0, 2));
        assert_eq!(counted([10, 9, 11]).lost, 0, "older than the first");
        assert_eq!(counted([0, 3000, 0]).lost, 2999, "late beyond the window");
    }

    #[test]
    fn restart_is_no_loss_and_a_stray_number_no_restart() {
        assert_eq!(counted([1, 2, 40_000, 40_001, 40_002]).lost, 0);
        assert_eq!(counted([1, 2, 40_000, 3, 4]).lost, 0);
        let mut counts = SequenceTracker::default();
        counts.handle(&header(1));
        counts.handle(&header(3));
        counts.handle(&RtpHeader { ssrc: 8, ..header(500) });
        counts.rejoin();
        counts.handle(&header(900));
        assert_eq!(counts.counts().lost, 1);
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_header_or_none(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            if let Some(header) = RtpHeader::decode(&bytes) {
                prop_assert!(bytes.get(header.payload).is_some());
            }
        }

        #[test]
        fn losses_equal_those_of_a_set(
            start: u16,
            steps in proptest::collection::vec(-3_i64..6, 1..300),
        ) {
            let (mut counts, mut at) = (SequenceTracker::default(), 100_i64);
            let mut seen = BTreeSet::new();
            counts.handle(&header(start.wrapping_add(100)));
            seen.insert(at);
            for step in steps {
                at = (at + step).max(100);
                seen.insert(at);
                let low = u16::try_from(at).expect("at most 1600");
                counts.handle(&header(start.wrapping_add(low)));
            }
            let span = seen.last().expect("one") - seen.first().expect("one") + 1;
            prop_assert_eq!(counts.counts().lost, span as u64 - seen.len() as u64);
        }
    }
}
