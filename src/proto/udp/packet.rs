//! Datagrams to values and back.
//!
//! Every datagram begins with [`HEADER`] bytes, big-endian:
//!
//! | bytes | what |
//! |---|---|
//! | 0..2 | magic, `0x0c47` |
//! | 2 | version, 1 |
//! | 3 | kind: 1 DATA, 2 XOR, 3 END |
//! | 4..8 | stream: the lower half of the session's number |
//! | 8..12 | number of the datagram in this stream, repeats included, never used twice; wraps |
//! | 12..16 | sender's monotonic clock, microseconds, wraps |
//!
//! DATA: block `u32`, flags `u16` (1: sent before), length `u16`, then that many bytes.
//! XOR: count `u8` (2 to [`XOR_MAX`]), zero `u8`, length `u16`, first block `u32`, then for each
//! further block its distance minus one as LEB128, then the bytes: the XOR of the blocks, the
//! last block of a file filled up with zeros.
//! END: blocks sent so far `u32`, round `u32`; its number is that of the next datagram.
//!
//! The magic's first byte is none with which a datagram begins of MPEG-TS (`0x47`), STUN, DTLS,
//! TURN, RTP or QUIC (RFC 9443, section 3) or TFTP (0), so that a stray one is told at once.
//! There is no checksum beyond UDP's own: the digest over the file is the judge.

/// One datagram's meaning; payload borrows from it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Packet<'a> {
    /// The stream that it belongs to.
    pub stream: u32,
    /// Its number in the stream.
    pub pkt: u32,
    /// The sender's clock when it was sent, microseconds, wraps.
    pub sent_us: u32,
    /// What it carries.
    pub body: Body<'a>,
}

/// What a datagram carries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Body<'a> {
    /// One block.
    Data {
        /// The block's number.
        block: u32,
        /// It was sent before.
        again: bool,
        /// Its bytes.
        payload: &'a [u8],
    },
    /// Several blocks, XORed.
    Xor {
        /// Their numbers, rising.
        blocks: Vec<u32>,
        /// The XOR of their bytes.
        payload: &'a [u8],
    },
    /// Everything so far has been sent.
    End {
        /// Blocks below this have been sent.
        upto: u32,
        /// Which asking this is.
        round: u32,
    },
}

/// Why a datagram is foreign or damaged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PacketError {
    /// It does not begin as ours do, or is of another version.
    Foreign,
    /// It begins as one of ours and is not whole or not possible; the text names the field.
    Damaged(&'static str),
}

/// The first two bytes.
pub const MAGIC: u16 = 0x0c47;

/// The format's version.
pub const VERSION: u8 = 1;

/// Bytes before the body.
pub const HEADER: usize = 16;

/// Bytes before a DATA's payload.
pub const DATA_HEADER: usize = HEADER + 8;

/// Most blocks in one XOR.
pub const XOR_MAX: usize = 20;

/// Bytes of a datagram that a block leaves free where XOR is used: they hold the numbers of the
/// blocks that are combined.
pub const XOR_ROOM: usize = 40;

/// The largest payload that UDP over IPv4 carries.
pub const DATAGRAM_MAX: u16 = 65_507;

/// The smallest datagram that is worth sending: what every IPv4 host must take (RFC 791).
pub const DATAGRAM_MIN: u16 = 548;

/// What fills an Ethernet frame over IPv4.
pub const DATAGRAM: u16 = 1_472;

const DATA: u8 = 1;
const XOR: u8 = 2;
const END: u8 = 3;

/// How long a block is in datagrams of `datagram` bytes.
pub fn block_len(datagram: u16, xor: bool) -> usize {
    usize::from(datagram) - DATA_HEADER - if xor { XOR_ROOM } else { 0 }
}

/// How many bytes an XOR of `blocks` needs for their numbers beyond what DATA has.
pub fn xor_ids(blocks: &[u32]) -> usize {
    let deltas = blocks.windows(2).map(|pair| leb_len(pair[1] - pair[0] - 1));
    deltas.sum::<usize>()
}

fn leb_len(value: u32) -> usize {
    (32 - value.leading_zeros() as usize).div_ceil(7).max(1)
}

impl<'a> Packet<'a> {
    /// Appends the datagram to `out`.
    ///
    /// # Panics
    /// A payload that does not fit a datagram, or blocks of an XOR that do not rise: the sender
    /// makes both.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.extend(MAGIC.to_be_bytes());
        let kind = match self.body {
            Body::Data { .. } => DATA,
            Body::Xor { .. } => XOR,
            Body::End { .. } => END,
        };
        out.extend([VERSION, kind]);
        out.extend(self.stream.to_be_bytes());
        out.extend(self.pkt.to_be_bytes());
        out.extend(self.sent_us.to_be_bytes());
        let length = |payload: &[u8]| {
            u16::try_from(payload.len()).expect("a payload fits a datagram").to_be_bytes()
        };
        match &self.body {
            Body::Data { block, again, payload } => {
                out.extend(block.to_be_bytes());
                out.extend(u16::from(*again).to_be_bytes());
                out.extend(length(payload));
                out.extend_from_slice(payload);
            }
            Body::Xor { blocks, payload } => {
                let count = u8::try_from(blocks.len()).expect("at most XOR_MAX");
                out.extend([count, 0]);
                out.extend(length(payload));
                out.extend(blocks[0].to_be_bytes());
                for pair in blocks.windows(2) {
                    let gap = pair[1].checked_sub(pair[0] + 1);
                    leb_put(gap.expect("rising"), out);
                }
                out.extend_from_slice(payload);
            }
            Body::End { upto, round } => {
                out.extend(upto.to_be_bytes());
                out.extend(round.to_be_bytes());
            }
        }
    }

    /// Reads a datagram.
    ///
    /// # Errors
    /// Whatever [`Packet::encode`] does not write.
    pub fn decode(bytes: &'a [u8]) -> Result<Self, PacketError> {
        let mut reader = PacketReader(bytes);
        let magic = reader.u16().ok_or(PacketError::Foreign)?;
        let version = reader.u8().ok_or(PacketError::Foreign)?;
        if magic != MAGIC || version != VERSION {
            return Err(PacketError::Foreign);
        }
        let short = PacketError::Damaged("shorter than its header");
        let kind = reader.u8().ok_or(short)?;
        let stream = reader.u32().ok_or(short)?;
        let pkt = reader.u32().ok_or(short)?;
        let sent_us = reader.u32().ok_or(short)?;
        let body = match kind {
            DATA => {
                let block = reader.u32().ok_or(short)?;
                let flags = reader.u16().ok_or(short)?;
                let length = reader.u16().ok_or(short)?;
                if flags > 1 {
                    return Err(PacketError::Damaged("unknown flags"));
                }
                if reader.0.len() != usize::from(length) {
                    return Err(PacketError::Damaged("its length is not the datagram's"));
                }
                Body::Data { block, again: flags == 1, payload: reader.0 }
            }
            XOR => {
                let count = usize::from(reader.u8().ok_or(short)?);
                let zero = reader.u8().ok_or(short)?;
                let length = reader.u16().ok_or(short)?;
                if !(2..=XOR_MAX).contains(&count) || zero != 0 {
                    return Err(PacketError::Damaged("an XOR of too few or too many blocks"));
                }
                let mut blocks = Vec::with_capacity(count);
                let mut last = reader.u32().ok_or(short)?;
                blocks.push(last);
                for _ in 1..count {
                    let gap = leb_take(&mut reader.0).ok_or(short)?;
                    last = gap
                        .checked_add(1)
                        .and_then(|step| last.checked_add(step))
                        .ok_or(PacketError::Damaged("a block beyond all numbers"))?;
                    blocks.push(last);
                }
                if reader.0.len() != usize::from(length) {
                    return Err(PacketError::Damaged("its length is not the datagram's"));
                }
                Body::Xor { blocks, payload: reader.0 }
            }
            END => {
                let upto = reader.u32().ok_or(short)?;
                let round = reader.u32().ok_or(short)?;
                if !reader.0.is_empty() {
                    return Err(PacketError::Damaged("bytes after its end"));
                }
                Body::End { upto, round }
            }
            _ => return Err(PacketError::Damaged("an unknown kind")),
        };
        Ok(Self { stream, pkt, sent_us, body })
    }
}

/// Takes big-endian numbers off the front.
struct PacketReader<'a>(&'a [u8]);

impl PacketReader<'_> {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (head, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*head)
    }

    fn u8(&mut self) -> Option<u8> {
        self.take::<1>().map(|[byte]| byte)
    }

    fn u16(&mut self) -> Option<u16> {
        self.take().map(u16::from_be_bytes)
    }

    fn u32(&mut self) -> Option<u32> {
        self.take().map(u32::from_be_bytes)
    }
}

/// Appends `value` as LEB128: seven bits a byte, low first, the top bit says that more follow.
pub(crate) fn leb_put(mut value: u32, out: &mut Vec<u8>) {
    while value >= 0x80 {
        out.push((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Takes a LEB128 number off the front; `None` when it is cut, too large or longer than needed.
pub(crate) fn leb_take(bytes: &mut &[u8]) -> Option<u32> {
    let mut value: u64 = 0;
    for place in 0..5 {
        let (&byte, rest) = bytes.split_first()?;
        *bytes = rest;
        value |= u64::from(byte & 0x7f) << (7 * place);
        if byte & 0x80 == 0 {
            if byte == 0 && place > 0 {
                return None;
            }
            return u32::try_from(value).ok();
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn encoded(packet: &Packet<'_>) -> Vec<u8> {
        let mut out = Vec::new();
        packet.encode(&mut out);
        // tests/dissector shows it to Wireshark's dissector.
        let shown = &out[..out.len().min(1472)];
        println!("wire-udp {}", shown.iter().map(|b| format!("{b:02x}")).collect::<String>());
        out
    }

    fn sample(body: Body<'_>) -> Packet<'_> {
        Packet { stream: 0xdead_beef, pkt: u32::MAX - 9, sent_us: 7, body }
    }

    #[test]
    fn the_bytes_are_as_the_table_says() {
        let data = sample(Body::Data { block: 5, again: true, payload: b"hi" });
        assert_eq!(
            encoded(&data),
            b"\x0c\x47\x01\x01\xde\xad\xbe\xef\xff\xff\xff\xf6\0\0\0\x07\0\0\0\x05\0\x01\0\x02hi"
        );
        let xor = sample(Body::Xor { blocks: vec![1, 2, 200], payload: b"x" });
        let bytes = encoded(&xor);
        assert_eq!(&bytes[16..], b"\x03\0\0\x01\0\0\0\x01\0\xc5\x01x");
        assert_eq!(bytes.len() - HEADER - 8 - 1, xor_ids(&[1, 2, 200]));
        let end = sample(Body::End { upto: 9, round: 2 });
        assert_eq!(&encoded(&end)[16..], b"\0\0\0\x09\0\0\0\x02");
    }

    #[test]
    fn first_byte_is_of_no_other_protocol() {
        let first = MAGIC.to_be_bytes()[0];
        // RFC 9443, section 3: STUN 0-3, ZRTP 16-19, DTLS 20-63, TURN 64-79, QUIC 80-127 and
        // 192-255, RTP 128-191; MPEG-TS is in TURN's part, TFTP's opcodes begin with 0.
        assert!((4..16).contains(&first));
        assert_ne!(first, 0x47);
    }

    #[test]
    fn datagram_of_any_length_is_refused_or_read() {
        let payload = vec![7; usize::from(DATAGRAM_MAX) - DATA_HEADER];
        let whole = encoded(&sample(Body::Data { block: 1, again: false, payload: &payload }));
        assert_eq!(whole.len(), usize::from(DATAGRAM_MAX));
        assert!(Packet::decode(&whole).is_ok());
        for cut in 0..whole.len() {
            let error = Packet::decode(&whole[..cut]).expect_err("cut");
            assert_eq!(error == PacketError::Foreign, cut < 3, "{cut}: {error:?}");
        }
    }

    #[test]
    fn impossible_datagrams_are_refused() {
        let good = encoded(&sample(Body::Xor { blocks: vec![1, 5], payload: b"xy" }));
        let with = |at: usize, byte: u8| {
            let mut bad = good.clone();
            bad[at] = byte;
            Packet::decode(&bad).err()
        };
        assert_eq!(with(0, 0x47), Some(PacketError::Foreign));
        assert_eq!(with(2, 2), Some(PacketError::Foreign));
        for (at, byte) in [(3, 0), (3, 4), (16, 0), (16, 1), (16, 21), (17, 1), (19, 3)] {
            assert!(matches!(with(at, byte), Some(PacketError::Damaged(_))), "{at}");
        }
        let mut far = good.clone();
        far[20..24].fill(0xff);
        assert!(Packet::decode(&far).is_err(), "a block beyond all numbers");
        assert_eq!(leb_take(&mut &[0x80, 0][..]), None, "longer than needed");
        assert_eq!(leb_take(&mut &[0xff, 0xff, 0xff, 0xff, 0x7f][..]), None);
    }

    proptest! {
        #[test]
        fn packets_are_read_back(
            stream: u32, pkt: u32, sent_us: u32, block: u32, again: bool, upto: u32, round: u32,
            ids in prop::collection::btree_set(any::<u32>(), 2..=XOR_MAX),
            payload in prop::collection::vec(any::<u8>(), 0..64),
        ) {
            let blocks: Vec<u32> = ids.into_iter().collect();
            for body in [
                Body::Data { block, again, payload: &payload },
                Body::Xor { blocks, payload: &payload },
                Body::End { upto, round },
            ] {
                let packet = Packet { stream, pkt, sent_us, body };
                let bytes = encoded(&packet);
                prop_assert_eq!(Packet::decode(&bytes), Ok(packet));
            }
        }

        #[test]
        fn decoder_never_panics_and_reads_what_was_encoded(
            mut bytes in prop::collection::vec(any::<u8>(), 0..80), ours: bool,
        ) {
            if ours && bytes.len() > 4 {
                bytes[..3].copy_from_slice(&[0x0c, 0x47, 1]);
                bytes[3] %= 5;
            }
            if let Ok(packet) = Packet::decode(&bytes) {
                prop_assert_eq!(encoded(&packet), bytes);
            }
        }
    }
}
