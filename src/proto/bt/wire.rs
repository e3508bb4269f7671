//! The messages between two peers (BEP 3), with the fast extension (BEP 6) and the extension
//! handshake (BEP 10).
//!
//! Every length is held to what its message must have before anything is read of it; the indexes
//! in a message are held to the torrent by [`Table`](crate::proto::bt::table::Table), which knows
//! it.

use std::fmt;

use crate::digest::Digest;
use crate::proto::bt::bencode;
use crate::proto::bt::bencode::Dictionary;
use crate::proto::bt::bencode::Item;

/// A stretch of a piece, as it is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Block {
    /// The piece.
    pub piece: u32,
    /// Where it begins in the piece, bytes.
    pub begin: u32,
    /// Its length, bytes.
    pub len: u32,
}

/// What both sides say first, 68 bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Handshake {
    /// Capabilities, a bit each.
    pub reserved: [u8; 8],
    /// The torrent.
    pub info_hash: Digest,
    /// Who speaks (BEP 20).
    pub peer_id: [u8; 20],
}

/// One message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message<'a> {
    /// Nothing; the speaker lives.
    KeepAlive,
    /// Requests will not be answered.
    Choke,
    /// Requests will be answered.
    Unchoke,
    /// The other side has something that is wanted.
    Interested,
    /// The other side has nothing that is wanted.
    NotInterested,
    /// The speaker has this piece.
    Have(u32),
    /// The pieces that the speaker has.
    Bitfield(&'a [u8]),
    /// Asks for a block.
    Request(Block),
    /// A block: piece, begin, bytes.
    Piece(u32, u32, &'a [u8]),
    /// The block is not wanted any more.
    Cancel(Block),
    /// The speaker has every piece (BEP 6).
    HaveAll,
    /// The speaker has no piece (BEP 6).
    HaveNone,
    /// The block will not come (BEP 6).
    Reject(Block),
    /// Of an extension (BEP 10): its number, 0 for the handshake, and its body.
    Extended(u8, &'a [u8]),
    /// A message that is passed over: a known one of no use here, or an unknown one.
    Other(u8),
}

/// What the extension handshake tells (BEP 10).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ExtendedHandshake {
    /// The port on which the speaker listens.
    pub port: Option<u16>,
    /// How many requests it lets wait.
    pub requests: Option<u32>,
    /// Its program and version; not escaped.
    pub program: Option<String>,
}

/// What a connection allows, fixed when both handshakes are known.
#[derive(Clone, Copy, Debug)]
pub struct MessageLimits {
    /// How many pieces the torrent has.
    pub pieces: u32,
    /// Both sides speak the fast extension.
    pub fast: bool,
}

/// Why bytes are no message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WireError(String);

/// Length of a block that is asked for, bytes: the one that every client serves.
pub const BLOCK_LEN: u32 = 16 << 10;

/// Longest block that is served, bytes. Whoever asks for more is closed (BEP 3).
pub const REQUEST_MAX: u32 = 128 << 10;

/// Most requests of one peer that wait to be served.
pub const REQUESTS_MAX: usize = 500;

/// Requests that are let wait by a peer that does not say how many.
pub const REQUESTS_DEFAULT: u32 = 250;

/// Longest message of any kind that is no bitfield, bytes.
const OTHER_MAX: usize = 64 << 10;

/// Length of a handshake.
pub const HANDSHAKE_LEN: usize = 68;

/// With what a handshake begins.
pub const PROTOCOL: &[u8; 20] = b"\x13BitTorrent protocol";

/// With what our own peers' ids begin (BEP 20).
pub const PEER_ID_PREFIX: &[u8; 8] = b"-GC0001-";

impl Handshake {
    /// Our own.
    pub fn new(info_hash: Digest, peer_id: [u8; 20]) -> Self {
        let mut reserved = [0; 8];
        reserved[5] = 0x10;
        reserved[7] = 0x04;
        Self {
            reserved,
            info_hash,
            peer_id,
        }
    }

    /// The speaker knows the fast extension (BEP 6).
    pub fn fast(&self) -> bool {
        self.reserved[7] & 0x04 != 0
    }

    /// The speaker knows extension messages (BEP 10).
    pub fn extended(&self) -> bool {
        self.reserved[5] & 0x10 != 0
    }

    /// The speaker is one of ours.
    pub fn native(&self) -> bool {
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

    /// Reads one. A listener may leave the id for later: 48 bytes are enough for the torrent.
    ///
    /// # Errors
    /// Another protocol.
    pub fn decode(bytes: &[u8; HANDSHAKE_LEN]) -> Result<Self, WireError> {
        if !bytes.starts_with(PROTOCOL) {
            return Err(WireError("another protocol than BitTorrent's".to_owned()));
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
            numbers
                .iter()
                .for_each(|number| out.extend_from_slice(&number.to_be_bytes()));
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
    /// A length that its message cannot have, or a message that was not agreed upon.
    pub fn decode(frame: &'a [u8], limits: MessageLimits) -> Result<Self, WireError> {
        let Some((&id, body)) = frame_len.split_first() else {
            return Ok(Self::KeepAlive);
        };
        let exactly = |wanted: usize| match body.len() == wanted {
            true => Ok(()),
            false => Err(WireError(format!(
                "message {id} with {} bytes in place of {wanted}",
                body.len()
            ))),
        };
        let fast = || match limits.fast {
            true => Ok(()),
            false => Err(WireError(format!(
                "message {id}, which was not agreed upon"
            ))),
        };
        let number =
            |at: usize| u32::from_be_bytes(body[at..at + 4].try_into().expect("four bytes"));
        let block = || {
            exactly(12)?;
            Ok(Block {
                piece: number(0),
                begin: number(4),
                len: number(8),
            })
        };
        Ok(match id {
            0 => exactly(0).map(|()| Self::Choke)?,
            1 => exactly(0).map(|()| Self::Unchoke)?,
            2 => exactly(0).map(|()| Self::Interested)?,
            3 => exactly(0).map(|()| Self::NotInterested)?,
            4 => exactly(4).map(|()| Self::Have(number(0)))?,
            5 => {
                exactly((limits.pieces as usize).div_ceil(8))?;
                Self::Bitfield(body)
            }
            6 => Self::Request(block()?),
            7 if body.len() < 8 || body.len() > 8 + BLOCK_LEN as usize => {
                return Err(WireError(format!("a block in {} bytes", body.len())));
            }
            7 => Self::Piece(number(0), number(4), &body[8..]),
            8 => Self::Cancel(block()?),
            9 => exactly(2).map(|()| Self::Other(id))?,
            13 | 17 => fast().and_then(|()| exactly(4)).map(|()| Self::Other(id))?,
            14 => fast().and_then(|()| exactly(0)).map(|()| Self::HaveAll)?,
            15 => fast().and_then(|()| exactly(0)).map(|()| Self::HaveNone)?,
            16 => fast().and_then(|()| block()).map(Self::Reject)?,
            20 => match body.split_first() {
                Some((&kind, body)) => Self::Extended(kind, body),
                None => return Err(WireError("an extension message of nothing".to_owned())),
            },
            _ => Self::Other(id),
        })
    }
}

/// Takes the first whole message's frame off `bytes`: its length with the four bytes before it.
///
/// # Errors
/// A length over `limits`.
pub fn frame_len(bytes: &[u8], limits: MessageLimits) -> Result<Option<usize>, WireError> {
    let Some(head) = bytes.first_chunk::<4>() else {
        return Ok(None);
    };
    let len = u32::from_be_bytes(*head) as usize;
    if len > limits.max_len() {
        return Err(WireError(format!(
            "a message of {len} bytes, of {} at most",
            limits.max_len()
        )));
    }
    Ok((bytes.len() - 4 >= len).then_some(len + 4))
}

impl ExtendedHandshake {
    /// The body of an extension handshake.
    pub fn encode(&self) -> Vec<u8> {
        let mut told = Dictionary::default().raw("m", b"de".to_vec());
        if let Some(port) = self.port {
            told = told.integer("p", i64::from(port));
        }
        if let Some(requests) = self.requests {
            told = told.integer("reqq", i64::from(requests));
        }
        if let Some(program) = &self.program {
            told = told.bytes("v", program);
        }
        told.finish()
    }

    /// Reads the body of an extension handshake.
    ///
    /// # Errors
    /// Bytes that are no bencode; what it says beyond sense is passed over.
    pub fn decode(body: &[u8]) -> Result<Self, WireError> {
        let told = bencode::decode(body).map_err(|error| WireError(error.to_string()))?;
        let number = |key| told.get(key).and_then(Item::integer);
        Ok(Self {
            port: number("p")
                .and_then(|port| u16::try_from(port).ok())
                .filter(|&port| port > 0),
            requests: number("reqq")
                .and_then(|count| u32::try_from(count).ok())
                .filter(|&count| count > 0),
            program: told
                .get("v")
                .and_then(Item::text)
                .map(|text| text.chars().take(64).collect()),
        })
    }
}

impl fmt::Display for WireError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for WireError {}

#[cfg(test)]
mod tests;
