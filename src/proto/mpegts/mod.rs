//! MPEG transport stream (ISO/IEC 13818-1): packets as they lie in datagrams, their continuity,
//! and the two tables that a player needs to begin.
//!
//! Reads headers only, never decodes a picture. A datagram is a stream's when packets can be seen in
//! it by their sync bytes; how many, and whether the last one ends in the next datagram (ffmpeg's
//! own choice of size cuts them so), is the source's affair: [`framing`] puts them together.
//!
//! ```text
//! offset  bits  field
//! 0       8     sync byte, 0x47
//! 1       1     transport error indicator
//! 1       1     payload unit start indicator
//! 1       1     transport priority
//! 1       13    PID
//! 3       2     scrambling control
//! 3       2     adaptation field control: bit 1 a field, bit 0 a payload
//! 3       4     continuity counter
//! 4       8     adaptation field length, where there is a field
//! 5       8     its flags: bit 7 discontinuity, bit 6 random access, bit 4 a PCR follows
//! ```

pub mod continuity;
pub mod framing;
pub mod tables;

/// One packet.
#[derive(Clone, Copy, Debug)]
pub struct TsPacket<'a>(&'a [u8; PACKET]);

/// Length of a packet, bytes.
pub const PACKET: usize = 188;

/// First byte of every packet.
pub const SYNC: u8 = 0x47;

/// PID of stuffing, which means nothing.
pub const PID_NULL: u16 = 0x1FFF;

/// How many PIDs there can be.
pub const PIDS: usize = 0x2000;

/// Ticks of the program clock reference in a second.
pub const PCR_HZ: u64 = 27_000_000;

/// At this many ticks the program clock reference begins again: 33 bits of 90 kHz, times 300.
pub const PCR_WRAP: u64 = (1 << 33) * 300;

/// The packets of `datagram`, or `None` when it is not a piece of a transport stream.
pub fn packets(datagram: &[u8]) -> Option<impl Iterator<Item = TsPacket<'_>>> {
    let (packets, rest) = datagram.as_chunks::<PACKET>();
    let whole = !packets.is_empty() && rest.is_empty();
    (whole && packets.iter().all(|packet| packet[0] == SYNC)).then(|| packets.iter().map(TsPacket))
}

/// References of one PID that are farther apart are no running clock, ticks: the standard has one
/// every 100 ms (2.7.2).
const PCR_STEP_MAX: u64 = 2 * PCR_HZ;

/// How far a clock has run from one reference to the next, ticks; `None` where it jumped.
pub fn pcr_step(last: u64, next: u64) -> Option<u64> {
    let ticks = (next % PCR_WRAP + PCR_WRAP - last % PCR_WRAP) % PCR_WRAP;
    (ticks <= PCR_STEP_MAX).then_some(ticks)
}

/// A packet without payload that announces a jump (2.4.3.5) of the counter of `pid` to `counter`, and
/// of its clock.
pub fn jump(pid: u16, counter: u8) -> [u8; PACKET] {
    let mut packet = [0xFF; PACKET];
    let [high, low] = pid.to_be_bytes();
    packet[..6].copy_from_slice(&[SYNC, high, low, 0x20 | counter & 0x0F, 183, 0x80]);
    packet
}

impl<'a> TsPacket<'a> {
    /// The packet of these bytes; the first is its sync byte.
    pub fn new(bytes: &'a [u8; PACKET]) -> Self {
        Self(bytes)
    }

    /// Which of the multiplexed streams it belongs to.
    pub fn pid(self) -> u16 {
        u16::from_be_bytes([self.0[1], self.0[2]]) & PID_NULL
    }

    /// It was received damaged before it came here; nothing else in it can be trusted.
    pub fn transport_error(self) -> bool {
        self.0[1] & 0x80 != 0
    }

    /// A section or an elementary packet begins in it.
    pub fn starts_unit(self) -> bool {
        self.0[1] & 0x40 != 0
    }

    /// It carries payload; only then its counter moves (2.4.3.3).
    pub fn has_payload(self) -> bool {
        self.0[3] & 0x10 != 0
    }

    /// Its continuity counter, 0 to 15.
    pub fn counter(self) -> u8 {
        self.0[3] & 0x0F
    }

    /// The source says that its counter jumps here on purpose.
    pub fn discontinuity(self) -> bool {
        self.flags().is_some_and(|flags| flags & 0x80 != 0)
    }

    /// A decoder can begin with this packet (2.4.3.5), as the source says.
    pub fn random_access(self) -> bool {
        self.flags().is_some_and(|flags| flags & 0x40 != 0)
    }

    /// The program clock reference, ticks of [`PCR_HZ`], where there is one.
    pub fn pcr(self) -> Option<u64> {
        let &[b0, b1, b2, b3, b4, b5] = self.0[6..].first_chunk()?;
        // Its six bytes must be inside the field: flags and PCR are seven.
        if self.flags()? & 0x10 == 0 || self.0[4] < 7 {
            return None;
        }
        let base = u64::from(u32::from_be_bytes([b0, b1, b2, b3])) << 1 | u64::from(b4 >> 7);
        let extension = u64::from(b4 & 1) << 8 | u64::from(b5);
        Some(base * 300 + extension)
    }

    /// The payload; empty where there is none, or the adaptation field claims more than there is.
    pub fn payload(self) -> &'a [u8] {
        let start = match (self.has_payload(), self.0[3] & 0x20 != 0) {
            (false, _) => PACKET,
            (true, false) => 4,
            (true, true) => 5 + usize::from(self.0[4]),
        };
        self.0.get(start..).unwrap_or_default()
    }

    /// The adaptation field's flags, where there are any.
    fn flags(self) -> Option<u8> {
        (self.0[3] & 0x20 != 0 && self.0[4] > 0).then(|| self.0[5])
    }
}

#[cfg(test)]
pub(crate) mod sample {
    //! Packets made by hand, for tests here and of the feed.

    use super::*;

    /// A packet of `pid` with payload `fill`.
    pub(crate) fn packet(pid: u16, counter: u8, fill: u8) -> [u8; PACKET] {
        let mut bytes = [fill; PACKET];
        bytes[0] = SYNC;
        bytes[1..3].copy_from_slice(&pid.to_be_bytes());
        bytes[3] = 0x10 | counter & 0x0F;
        bytes
    }

    /// A packet of `pid` with an adaptation field of `flags` and `pcr`, and payload or none.
    pub(crate) fn adapted(
        pid: u16,
        counter: u8,
        flags: u8,
        pcr: u64,
        payload: bool,
    ) -> [u8; PACKET] {
        let mut bytes = packet(pid, counter, 0xAB);
        bytes[3] = if payload { 0x30 } else { 0x20 } | counter & 0x0F;
        bytes[4] = if payload { 7 } else { 183 };
        bytes[5] = flags;
        let (base, extension) = (pcr / 300, pcr % 300);
        bytes[6..10].copy_from_slice(&u32::try_from(base >> 1).expect("33 bits").to_be_bytes());
        bytes[10] = u8::try_from((base & 1) << 7 | extension >> 8).expect("a byte") | 0x7E;
        bytes[11] = u8::try_from(extension & 0xFF).expect("a byte");
        bytes
    }

    /// A packet of `pid` that carries the whole of `section`, with its CRC put right.
    pub(crate) fn section(pid: u16, counter: u8, section: &[u8]) -> [u8; PACKET] {
        let mut bytes = packet(pid, counter, 0xFF);
        bytes[1] |= 0x40;
        bytes[4] = 0;
        let end = 5 + section.len();
        bytes[5..end].copy_from_slice(section);
        bytes[end..end + 4].copy_from_slice(&tables::crc(section).to_be_bytes());
        bytes
    }

    /// A program association of program 1 at `pmt`.
    pub(crate) fn pat(counter: u8, pmt: u16) -> [u8; PACKET] {
        let [high, low] = (0xE000 | pmt).to_be_bytes();
        let head = [0, 0xB0, 13, 0, 1, 0xC1, 0, 0, 0, 1, high, low];
        section(0, counter, &head)
    }

    /// A program map on `pid` whose only stream is video on 0x100.
    pub(crate) fn pmt(counter: u8, pid: u16) -> [u8; PACKET] {
        let head = [2, 0xB0, 18, 0, 1, 0xC1, 0, 0, 0xE1, 0, 0xF0, 0, 2, 0xE1, 0, 0xF0, 0];
        section(pid, counter, &head)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn datagram_is_a_stream_when_packets_are_whole() {
        let one = sample::packet(0x100, 3, 0);
        for many in [1, 3, 7, 40] {
            let datagram = one.repeat(many);
            assert_eq!(packets(&datagram).map(Iterator::count), Some(many));
            assert!(packets(&datagram[1..]).is_none(), "cut");
            let mut damaged = datagram.clone();
            damaged[(many - 1) * PACKET] = 0x46;
            assert!(packets(&damaged).is_none(), "no sync");
        }
        assert!(packets(&[]).is_none());
        assert!(packets(&[SYNC; 187]).is_none());
    }

    #[test]
    fn clock_jumps_where_it_goes_back_or_far() {
        assert_eq!(pcr_step(0, PCR_STEP_MAX), Some(PCR_STEP_MAX));
        assert_eq!((pcr_step(0, PCR_STEP_MAX + 1), pcr_step(6, 5)), (None, None));
        assert_eq!(pcr_step(PCR_WRAP - 1, 4), Some(5));
        // The largest that a packet holds is above the wrap.
        assert_eq!(pcr_step(u64::MAX >> 16, (u64::MAX >> 16) + 1), Some(1));
    }

    #[test]
    fn fields_are_read_where_they_stand() {
        let bytes = sample::adapted(0x1ABC, 9, 0x90, PCR_WRAP - 1, true);
        let packet = packets(&bytes).and_then(|mut packets| packets.next()).expect("one");
        assert_eq!(packet.pid(), 0x1ABC);
        assert_eq!(packet.counter(), 9);
        assert!(packet.has_payload() && packet.discontinuity());
        assert!(!packet.starts_unit() && !packet.transport_error());
        assert_eq!(packet.pcr(), Some(PCR_WRAP - 1));
        assert_eq!(packet.payload().len(), PACKET - 12);
    }

    #[test]
    fn false_adaptation_field_has_no_payload_and_no_clock() {
        for length in [0, 6, 183, 184, 255] {
            let mut bytes = sample::adapted(0x100, 0, 0x10, 1, true);
            bytes[4] = length;
            let packet = TsPacket(&bytes);
            let payload = usize::from(length) + 5;
            assert_eq!(packet.payload().len(), PACKET.saturating_sub(payload));
            assert_eq!(packet.pcr().is_some(), length >= 7, "{length}");
        }
    }
}
