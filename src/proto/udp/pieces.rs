//! Pieces of a file with a SHA-1 each, by which a damaged copy is mended and not sent anew.
//!
//! UDP's own checksum is sixteen bits, and what it lets through is found when the copy is hashed.
//! Only then are pieces talked about, on the control connection, so an undamaged copy costs
//! nothing: the client says DAMAGED, the server PIECES and as many SHA1 lines as it takes, the
//! client NOTHING, or MEND with the port at which it takes in what it reports missing, and MENDED.

use std::ops::Range;

use crate::digest::Digest;
use crate::proto::line::DecodeError;
use crate::proto::line::Fields;
use crate::proto::line::LineWriter;
use crate::proto::udp::control::Listen;
use crate::proto::udp::packet::DATAGRAM_MAX;
use crate::proto::udp::packet::DATAGRAM_MIN;

/// How a file is cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pieces {
    /// Bytes of a full datagram of data.
    pub datagram: u16,
    /// Blocks in each piece but the last.
    pub blocks: u32,
    /// How many pieces.
    pub count: u32,
}

/// What the client says when its copy has the wrong digest.
pub const DAMAGED: &str = "DAMAGED";

/// What it says when every piece is right, so that the copy's digest is not the file's fault.
pub const NOTHING: &str = "NOTHING";

/// What it says when every piece has become right.
pub const MENDED: &str = "MENDED";

/// How often one copy is mended at most.
pub const MENDS_MAX: u32 = 3;

/// Fewest blocks in a piece: some hundred kilobytes.
const BLOCKS_MIN: u32 = 256;

/// Most pieces, so that the list stays short however large the file.
pub const PIECES_MAX: u32 = 4096;

/// Digests in one line.
pub const PER_LINE: usize = 40;

impl Pieces {
    /// The cut of a file of `blocks` blocks.
    pub fn of(blocks: u32, datagram: u16) -> Self {
        let least = blocks.div_ceil(PIECES_MAX).max(BLOCKS_MIN);
        Self {
            datagram,
            blocks: least,
            count: blocks.div_ceil(least),
        }
    }

    /// The blocks of one piece, in a file of `blocks`.
    pub fn piece(&self, number: u32, blocks: u32) -> Range<u32> {
        let from = number.saturating_mul(self.blocks).min(blocks);
        from..from.saturating_add(self.blocks).min(blocks)
    }

    /// The message as its line.
    pub fn encode(&self) -> Vec<u8> {
        LineWriter::new("PIECES")
            .field("datagram", self.datagram)
            .field("blocks", self.blocks)
            .field("count", self.count)
            .finish()
    }

    /// Reads the line.
    ///
    /// # Errors
    /// Another word, a wrong field, or more pieces than there may be.
    pub fn decode(line: &str) -> Result<Self, DecodeError> {
        let fields = Fields::parse(line)?;
        let read = Self {
            datagram: fields.number("datagram")?,
            blocks: fields.number("blocks")?,
            count: fields.number("count")?,
        };
        let possible = fields.word() == "PIECES"
            && (DATAGRAM_MIN..=DATAGRAM_MAX).contains(&read.datagram)
            && read.blocks > 0
            && read.count <= PIECES_MAX;
        match possible {
            true => Ok(read),
            false => Err(DecodeError("no cut of a file".to_owned())),
        }
    }
}

/// Digests as a line: at most [`PER_LINE`].
pub fn encode_list(digests: &[Digest]) -> Vec<u8> {
    let list: String = digests.iter().map(ToString::to_string).collect();
    LineWriter::new("SHA1").field("list", list).finish()
}

/// Reads a line of digests.
///
/// # Errors
/// Another word, or what is no list of digests.
pub fn decode_list(line: &str) -> Result<Vec<Digest>, DecodeError> {
    let fields = Fields::parse(line)?;
    let list = fields.get("list").unwrap_or_default();
    let wrong = || DecodeError("no list of digests".to_owned());
    if fields.word() != "SHA1" || !list.is_ascii() || list.is_empty() {
        return Err(wrong());
    }
    if list.len() > PER_LINE * 2 * Digest::LEN {
        return Err(wrong());
    }
    (0..list.len())
        .step_by(2 * Digest::LEN)
        .map(|at| list.get(at..at + 2 * Digest::LEN)?.parse().ok())
        .collect::<Option<_>>()
        .ok_or_else(wrong)
}

/// MEND: where the client takes the damaged parts in.
pub fn encode_mend(listen: &Listen) -> Vec<u8> {
    LineWriter::new("MEND")
        .field("port", listen.port)
        .field("buffer", listen.buffer)
        .finish()
}

/// Reads MEND.
///
/// # Errors
/// Another word or a wrong field.
pub fn decode_mend(line: &str) -> Result<Listen, DecodeError> {
    match line.strip_prefix("MEND ") {
        Some(rest) => Listen::decode(&format!("LISTEN {rest}")),
        None => Err(DecodeError("no MEND".to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::line::LINE_MAX;

    fn text(line: Vec<u8>) -> String {
        String::from_utf8(line).expect("text").trim_end().to_owned()
    }

    #[test]
    fn every_block_is_in_one_piece_and_the_list_is_short() {
        for blocks in [1, 255, 256, 257, 71_023, 1 << 20, (1 << 31) - 1] {
            let cut = Pieces::of(blocks, 1472);
            assert!(cut.count <= PIECES_MAX, "{blocks}");
            assert_eq!(Pieces::decode(&text(cut.encode())), Ok(cut));
            let mut next = 0;
            for number in 0..cut.count {
                let piece = cut.piece(number, blocks);
                assert_eq!(piece.start, next);
                assert!(!piece.is_empty());
                next = piece.end;
            }
            assert_eq!(next, blocks);
        }
    }

    #[test]
    fn lists_are_read_as_they_were_written_and_wrong_ones_refused() {
        let digests: Vec<Digest> = (0..PER_LINE).map(|n| Digest::of(&[n as u8])).collect();
        let line = encode_list(&digests);
        assert!(line.len() < LINE_MAX, "{}", line.len());
        assert_eq!(decode_list(&text(line)), Ok(digests));
        let long = "0".repeat(40 * (PER_LINE + 1));
        for wrong in [
            "SHA1".to_owned(),
            "SHA1 list=00".to_owned(),
            format!("SHA1 list={}", "x".repeat(40)),
            format!("SHA1 list={long}"),
            "SHA2 list=da39a3ee5e6b4b0d3255bfef95601890afd80709".to_owned(),
        ] {
            assert!(decode_list(&wrong).is_err(), "{wrong}");
        }
        for wrong in [
            "PIECES datagram=1472 blocks=0 count=1",
            "PIECES datagram=1472 blocks=1 count=4097",
            "PIECES datagram=5 blocks=1 count=1",
            "PIECES blocks=1 count=1",
        ] {
            assert!(Pieces::decode(wrong).is_err(), "{wrong}");
        }
        let listen = Listen {
            port: 5000,
            buffer: 7,
        };
        assert_eq!(decode_mend(&text(encode_mend(&listen))), Ok(listen));
        for wrong in ["MEND", "MEND port=80 buffer=7", "LISTEN port=5000 buffer=7"] {
            assert!(decode_mend(wrong).is_err(), "{wrong}");
        }
    }
}
