//! The messages between two peers (BEP 3), with the fast extension (BEP 6) and the extension
//! handshake (BEP 10).
//!
//! The length of each message is checked before anything in it is read. The pieces and blocks that
//! it names are checked by the [`PiecePicker`](crate::proto::bt::piece_picker::PiecePicker), which
//! knows the torrent.

use crate::{
    digest::Digest,
    proto::{
        bt::bencode::{self, Dictionary, Item},
        line::DecodeError,
    },
};

/// A part of a piece, as it is requested.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Block {
    /// The piece.
    pub piece: u32,
    /// Where it begins in the piece, bytes.
    pub begin: u32,
    /// Its length, bytes.
    pub len: u32,
}

/// What both sides send first, 68 bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Handshake {
    /// Capabilities, a bit each.
    pub reserved: [u8; 8],
    /// The torrent.
    pub info_hash: Digest,
    /// The sender's id (BEP 20).
    pub peer_id: PeerId,
}

/// One message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message<'a> {
    /// Nothing; the sender is alive.
    KeepAlive,
    /// Requests will not be answered.
    Choke,
    /// Requests will be answered.
    Unchoke,
    /// The other side has something that is wanted.
    Interested,
    /// The other side has nothing that is wanted.
    NotInterested,
    /// The sender has this piece.
    Have(u32),
    /// The pieces that the sender has.
    Bitfield(&'a [u8]),
    /// Requests a block.
    Request(Block),
    /// A block: piece, begin, bytes.
    Piece(u32, u32, &'a [u8]),
    /// The block is not wanted any more.
    Cancel(Block),
    /// The sender has every piece (BEP 6).
    HaveAll,
    /// The sender has no piece (BEP 6).
    HaveNone,
    /// The block will not come (BEP 6).
    Reject(Block),
    /// Of an extension (BEP 10): its number, 0 for the handshake, and its body.
    Extended(u8, &'a [u8]),
    /// A message that is ignored: of a kind that is not used here, or of an unknown kind.
    Other(u8),
}

/// The extension handshake (BEP 10).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ExtendedHandshake {
    /// The port on which the sender listens.
    pub port: Option<u16>,
    /// How many requests it lets wait.
    pub requests: Option<u32>,
    /// Its program and version; not escaped.
    pub program: Option<String>,
}

/// Which messages a connection allows, known after both handshakes.
#[derive(Clone, Copy, Debug)]
pub struct MessageLimits {
    /// How many pieces the torrent has.
    pub pieces: u32,
    /// Both sides use the fast extension (BEP 6).
    pub fast: bool,
}

/// A peer's id (BEP 20).
pub type PeerId = [u8; 20];

/// Length of a block that is requested, bytes: the one that every client serves.
pub const BLOCK_LEN: u32 = 16 << 10;

/// Longest block that is served, bytes. A connection that requests more is closed (BEP 3).
pub const REQUEST_MAX: u32 = 128 << 10;

/// Most requests of one peer that wait to be served.
pub const REQUESTS_MAX: usize = 500;

/// How many requests a peer lets wait that does not say how many.
pub const REQUESTS_DEFAULT: u32 = 250;

/// Longest message of any kind but a bitfield, bytes.
const OTHER_MAX: usize = 64 << 10;

/// Length of a handshake.
pub const HANDSHAKE_LEN: usize = 68;

/// The beginning of a handshake.
pub const PROTOCOL: &[u8; 20] = b"\x13BitTorrent protocol";

/// The beginning of the ids of gatecast peers (BEP 20).
pub const PEER_ID_PREFIX: &[u8; 8] = b"-GC0001-";

impl Handshake {
    /// Our own handshake.
    pub fn new(info_hash: Digest, peer_id: PeerId) -> Self {
        let mut reserved = [0; 8];
        reserved[5] = 0x10;
        reserved[7] = 0x04;
        Self { reserved, info_hash, peer_id }
    }

    /// The sender knows the fast extension (BEP 6).
    pub fn fast(&self) -> bool {
        self.reserved[7] & 0x04 != 0
    }

    /// The sender knows extension messages (BEP 10).
    pub fn extended(&self) -> bool {
        self.reserved[5] & 0x10 != 0
    }

    /// The sender runs gatecast.
    pub fn is_gatecast(&self) -> bool {
        self.peer_id.starts_with(PEER_ID_PREFIX)
    }

    /// Its bytes.
    pub fn encode(&self) -> [u8; HANDSHAKE_LEN] {
        let mut bytes = [0; HANDSHAKE_LEN];
        bytes[..20].copy_from_slice(PROTOCOL);
        bytes[20..28].copy_from_slice(&self.reserved);
        bytes[28..48].copy_from_slice(self.info_hash.as_bytes());
        bytes[48..].copy_from_slice(&self.peer_id);
        bytes
    }

    /// Reads a handshake.
    ///
    /// # Errors
    /// It is of another protocol.
    pub fn decode(bytes: &[u8; HANDSHAKE_LEN]) -> Result<Self, DecodeError> {
        if !bytes.starts_with(PROTOCOL) {
            let what = "a handshake of another protocol than BitTorrent";
            return Err(DecodeError(what.to_owned()));
        }
        let part = |from: usize| bytes[from..from + 20].try_into().expect("twenty bytes");
        Ok(Self {
            reserved: bytes[20..28].try_into().expect("eight bytes"),
            info_hash: Digest::from_bytes(part(28)),
            peer_id: part(48),
        })
    }
}

impl MessageLimits {
    /// The longest message that this connection may carry, bytes without its length.
    pub fn max_len(&self) -> usize {
        OTHER_MAX.max(1 + (self.pieces as usize).div_ceil(8))
    }
}

impl<'a> Message<'a> {
    /// Appends the message to `out`.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let mut put = |id: u8, numbers: &[u32], bytes: &[u8]| {
            let len = 1 + numbers.len() * 4 + bytes.len();
            out.extend_from_slice(&u32::try_from(len).expect("bounded").to_be_bytes());
            out.push(id);
            numbers.iter().for_each(|number| out.extend_from_slice(&number.to_be_bytes()));
            out.extend_from_slice(bytes);
        };
        match self {
            Self::KeepAlive => out.extend_from_slice(&[0; 4]),
            Self::Choke => put(0, &[], &[]),
            Self::Unchoke => put(1, &[], &[]),
            Self::Interested => put(2, &[], &[]),
            Self::NotInterested => put(3, &[], &[]),
            Self::Have(piece) => put(4, &[*piece], &[]),
            Self::Bitfield(bits) => put(5, &[], bits),
            Self::Request(block) => put(6, &[block.piece, block.begin, block.len], &[]),
            Self::Piece(piece, begin, bytes) => put(7, &[*piece, *begin], bytes),
            Self::Cancel(block) => put(8, &[block.piece, block.begin, block.len], &[]),
            Self::HaveAll => put(14, &[], &[]),
            Self::HaveNone => put(15, &[], &[]),
            Self::Reject(block) => put(16, &[block.piece, block.begin, block.len], &[]),
            Self::Extended(id, body) => {
                let bytes: Vec<u8> = std::iter::once(*id).chain(body.iter().copied()).collect();
                put(20, &[], &bytes);
            }
            Self::Other(id) => put(*id, &[], &[]),
        }
    }

    /// Reads the message in `frame`, which is everything after its length.
    ///
    /// # Errors
    /// A length that its message cannot have, or a message that was not agreed on.
    pub fn decode(frame: &'a [u8], limits: MessageLimits) -> Result<Self, DecodeError> {
        let Some((&id, body)) = frame.split_first() else {
            return Ok(Self::KeepAlive);
        };
        let has_valid_length = match id {
            0..=3 | 14 | 15 => body.is_empty(),
            4 | 13 | 17 => body.len() == 4,
            5 => body.len() == (limits.pieces as usize).div_ceil(8),
            6 | 8 | 16 => body.len() == 12,
            7 => (8..=8 + BLOCK_LEN as usize).contains(&body.len()),
            9 => body.len() == 2,
            20 => !body.is_empty(),
            _ => true,
        };
        if matches!(id, 13..=17) && !limits.fast {
            return Err(DecodeError(format!("message {id}, which was not agreed on")));
        }
        if !has_valid_length {
            return Err(DecodeError(format!("message {id} with {} bytes", body.len())));
        }
        let number =
            |at: usize| u32::from_be_bytes(body[at..at + 4].try_into().expect("four bytes"));
        let block = || Block { piece: number(0), begin: number(4), len: number(8) };
        Ok(match id {
            0 => Self::Choke,
            1 => Self::Unchoke,
            2 => Self::Interested,
            3 => Self::NotInterested,
            4 => Self::Have(number(0)),
            5 => Self::Bitfield(body),
            6 => Self::Request(block()),
            7 => Self::Piece(number(0), number(4), &body[8..]),
            8 => Self::Cancel(block()),
            14 => Self::HaveAll,
            15 => Self::HaveNone,
            16 => Self::Reject(block()),
            20 => Self::Extended(body[0], &body[1..]),
            _ => Self::Other(id),
        })
    }
}

/// The length of the first message in `bytes`, with the four bytes of its length; `None` when it is
/// not complete yet.
///
/// # Errors
/// The message is longer than `limits` allow.
pub fn frame_len(bytes: &[u8], limits: MessageLimits) -> Result<Option<usize>, DecodeError> {
    let Some(head) = bytes.first_chunk::<4>() else {
        return Ok(None);
    };
    let len = u32::from_be_bytes(*head) as usize;
    if len > limits.max_len() {
        return Err(DecodeError(format!("a message of {len} bytes is too long")));
    }
    Ok((bytes.len() - 4 >= len).then_some(len + 4))
}

impl ExtendedHandshake {
    /// The body of an extension handshake.
    pub fn encode(&self) -> Vec<u8> {
        let mut dictionary = Dictionary::default().raw("m", b"de".to_vec());
        if let Some(port) = self.port {
            dictionary = dictionary.integer("p", i64::from(port));
        }
        if let Some(requests) = self.requests {
            dictionary = dictionary.integer("reqq", i64::from(requests));
        }
        if let Some(program) = &self.program {
            dictionary = dictionary.bytes("v", program);
        }
        dictionary.finish()
    }

    /// Reads the body of an extension handshake.
    ///
    /// # Errors
    /// It is not bencode. Values that make no sense are ignored.
    pub fn decode(body: &[u8]) -> Result<Self, DecodeError> {
        let dictionary = bencode::decode(body)?;
        let number = |key| dictionary.get(key).and_then(Item::integer);
        Ok(Self {
            port: number("p").and_then(|port| u16::try_from(port).ok()).filter(|&port| port > 0),
            requests: number("reqq")
                .and_then(|count| u32::try_from(count).ok())
                .filter(|&count| count > 0),
            program: dictionary
                .get("v")
                .and_then(Item::text)
                .map(|text| text.chars().take(64).collect()),
        })
    }
}

#[cfg(test)]
mod tests;
