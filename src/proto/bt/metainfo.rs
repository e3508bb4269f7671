//! A `.torrent` (BEP 3): one file, or the files of a folder one after the other, the digests of their
//! pieces, and where its tracker is.
//!
//! Its info-hash is the digest of the `info` dictionary as it was found, never of a re-encoding.
//! Its name is checked by [`FileName`], like every name from outside. A folder's torrent is only
//! read by who has the folder's manifest, so no path in it is ever used.

use std::fmt;

use crate::{
    digest::Digest,
    proto::{
        bt::{
            bencode::{self, Dictionary, Item},
            layout::PieceLayout,
        },
        line::DecodeError,
        manifest::{FileEntry, Manifest},
    },
    text::FileName,
};

/// The contents of a torrent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Metainfo {
    /// The tracker; `None` when it names none.
    pub announce: Option<String>,
    /// The name of the file or folder.
    pub name: FileName,
    /// The length of the file, or of all files, at least 1.
    pub bytes: u64,
    /// Length of every piece but the last, a power of two.
    pub piece_bytes: u32,
    /// The pieces' SHA-1.
    pub pieces: Vec<Digest>,
    /// Peers come from the tracker alone (BEP 27).
    pub private: bool,
    /// The `info` dictionary as it was found or made.
    info: Vec<u8>,
}

/// Longest `.torrent`, bytes: [`PIECES_MAX`] pieces, and as much again for the rest as any has.
pub const METAINFO_MAX: usize = PIECES_MAX as usize * Digest::LEN + (64 << 10);

/// Most pieces of one file.
pub const PIECES_MAX: u32 = 1 << 19;

/// Least length of a piece: one block.
pub const PIECE_MIN: u32 = 16 << 10;

/// Greatest length of a piece.
pub const PIECE_MAX: u32 = 16 << 20;

/// How the `info` dictionary of a `.torrent` begins.
const INFO_KEY: &[u8] = b"4:info";

/// How the `info` dictionary of a torrent of ours ends behind its pieces.
const PIECES_TAIL: &[u8] = b"7:privatei1ee";

/// Which lengths a piece may have.
const PIECE_LENGTHS: &str = "a power of two from 16 KiB to 16 MiB";

/// Most pieces that a file should have; it has more than half as many. Fewer, and peers wait for
/// whole pieces before they can give anything; more, and the messages about pieces cost more than
/// they gain.
const PIECES_WANTED: u64 = 2048;

/// Longest piece that is chosen for that number alone; beyond it there are more pieces.
const PIECE_WANTED_MAX: u64 = 4 << 20;

/// The length of a piece of a file of `bytes`: a power of two that makes about a thousand.
pub fn piece_bytes(bytes: u64) -> u32 {
    let wanted =
        (bytes / PIECES_WANTED).next_power_of_two().clamp(u64::from(PIECE_MIN), PIECE_WANTED_MAX);
    // A huge file still must not have too many.
    let least = bytes.div_ceil(u64::from(PIECES_MAX)).next_power_of_two();
    u32::try_from(wanted.max(least)).unwrap_or(u32::MAX)
}

/// Longest `.torrent` of a folder, bytes. Each name of a path has its length before it.
pub fn tree_torrent_max(manifest: &Manifest) -> usize {
    let files = manifest.files().iter().map(|file| 2 * file.path.as_str().len() + 64);
    METAINFO_MAX + files.sum::<usize>()
}

/// An entry of `files`.
fn encode_file(file: &FileEntry) -> Vec<u8> {
    let names = file.path.as_str().split('/').map(|name| format!("{}:{name}", name.len()));
    let path = format!("l{}e", names.collect::<String>());
    Dictionary::default().count("length", file.bytes).raw("path", path.into_bytes()).finish()
}

impl Metainfo {
    /// A torrent of a file, private to its tracker.
    ///
    /// # Errors
    /// An empty file, or one that needs more pieces than there may be.
    pub fn new(
        name: FileName,
        bytes: u64,
        piece_bytes: u32,
        pieces: Vec<Digest>,
    ) -> Result<Self, DecodeError> {
        let info = Dictionary::default().count("length", bytes);
        Self::make(info, name, bytes, piece_bytes, pieces)
    }

    /// A torrent of the files of a folder in the manifest's order, private to its tracker. It has no
    /// place for empty folders, modes and times.
    ///
    /// # Errors
    /// As [`Metainfo::new`].
    pub fn of_tree(
        name: FileName,
        manifest: &Manifest,
        piece_bytes: u32,
        pieces: Vec<Digest>,
    ) -> Result<Self, DecodeError> {
        let mut files = vec![b'l'];
        manifest.files().iter().for_each(|file| files.extend(encode_file(file)));
        files.push(b'e');
        let info = Dictionary::default().raw("files", files);
        Self::make(info, name, manifest.bytes(), piece_bytes, pieces)
    }

    fn make(
        info: Dictionary,
        name: FileName,
        bytes: u64,
        piece_bytes: u32,
        pieces: Vec<Digest>,
    ) -> Result<Self, DecodeError> {
        let joined: Vec<u8> = pieces.iter().flat_map(|piece| *piece.as_bytes()).collect();
        let info = info
            .bytes("name", name.as_str())
            .integer("piece length", i64::from(piece_bytes))
            .bytes("pieces", joined)
            .integer("private", 1)
            .finish();
        let made = Self { announce: None, name, bytes, piece_bytes, pieces, private: true, info };
        made.check()?;
        Ok(made)
    }

    /// How the file is divided.
    pub fn layout(&self) -> PieceLayout {
        PieceLayout::new(self.bytes, self.piece_bytes)
    }

    /// The digest that names the torrent.
    pub fn info_hash(&self) -> Digest {
        Digest::of(&self.info)
    }

    /// The `.torrent`, with its tracker at `announce` and, where it is wanted, the same file over
    /// HTTP (BEP 19).
    pub fn encode(&self, announce: Option<&str>, web_seed: Option<&str>) -> Vec<u8> {
        let mut torrent = Dictionary::default()
            .bytes("created by", concat!("gatecast ", env!("CARGO_PKG_VERSION")))
            .raw("info", self.info.clone());
        if let Some(announce) = announce {
            torrent = torrent.bytes("announce", announce);
        }
        if let Some(url) = web_seed {
            torrent = torrent.bytes("url-list", url);
        }
        torrent.finish()
    }

    /// Reads a `.torrent`.
    ///
    /// # Errors
    /// What is wrong with it, and the value.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        if bytes.len() > METAINFO_MAX {
            return Err(unusable(format_args!("{} bytes, of {METAINFO_MAX} at most", bytes.len())));
        }
        let torrent = bencode::decode(bytes).map_err(unusable)?;
        let info = torrent.get("info").ok_or_else(|| missing("info"))?;
        if info.get("files").is_some() {
            return Err(unusable("it holds several files"));
        }
        let attr = info.get("attr").and_then(Item::bytes);
        if attr.is_some_and(|attr| attr.contains(&b'l')) {
            return Err(unusable("its file is a symbolic link"));
        }
        let number = |key: &'static str| {
            let item = info.get(key).and_then(Item::integer);
            item.ok_or_else(|| missing(key))
        };
        let length = number("length")?;
        let length = u64::try_from(length).map_err(|_| invalid("length", length, "at least 1"))?;
        let piece_bytes = number("piece length")?;
        let piece_bytes = u32::try_from(piece_bytes)
            .map_err(|_| invalid("piece length", piece_bytes, PIECE_LENGTHS))?;
        let name = info.get("name").and_then(Item::text);
        let name = name.ok_or_else(|| missing("name"))?;
        let name = FileName::new(name)
            .map_err(|_| invalid("name", crate::text::escape(name), "a plain file name"))?;
        let pieces = info.get("pieces").and_then(Item::bytes);
        let pieces = pieces.ok_or_else(|| missing("pieces"))?;
        let (digests, rest) = pieces.as_chunks::<{ Digest::LEN }>();
        if !rest.is_empty() {
            let len = format!("{} bytes", pieces.len());
            return Err(invalid("pieces", len, "a multiple of 20 bytes"));
        }
        let made = Self {
            announce: torrent.get("announce").and_then(Item::text).map(str::to_owned),
            name,
            bytes: length,
            piece_bytes,
            pieces: digests.iter().map(|bytes| Digest::from_bytes(*bytes)).collect(),
            private: info.get("private").and_then(Item::integer) == Some(1),
            info: info.raw.to_vec(),
        };
        made.check()?;
        Ok(made)
    }

    /// Reads the pieces of a `.torrent` that [`Metainfo::of_tree`] made of the folder `name`; all else
    /// in it is known from `manifest`.
    ///
    /// # Errors
    /// It is the torrent of another folder, or no torrent.
    pub fn decode_tree(
        bytes: &[u8],
        name: &FileName,
        manifest: &Manifest,
    ) -> Result<Self, DecodeError> {
        let piece = piece_bytes(manifest.bytes());
        let count = u32::try_from(manifest.bytes().div_ceil(u64::from(piece)));
        let count = count.map_or(PIECES_MAX, |count| count.min(PIECES_MAX)) as usize;
        let make = |pieces| Self::of_tree(name.clone(), manifest, piece, pieces);
        let mut expected = make(vec![Digest::from_bytes([0; Digest::LEN]); count])?.info;
        let to = expected.len() - PIECES_TAIL.len();
        let from = to - count * Digest::LEN;
        let at = bytes.windows(INFO_KEY.len()).position(|found| found == INFO_KEY);
        let info = at.and_then(|at| bytes.get(at + INFO_KEY.len()..)?.get(..expected.len()));
        let info = info.ok_or_else(|| missing("info"))?;
        expected[from..to].copy_from_slice(&info[from..to]);
        if info != expected {
            return Err(unusable("it is not of the folder that is offered"));
        }
        let (pieces, _) = info[from..to].as_chunks::<{ Digest::LEN }>();
        make(pieces.iter().map(|bytes| Digest::from_bytes(*bytes)).collect())
    }

    fn check(&self) -> Result<(), DecodeError> {
        let piece = self.piece_bytes;
        if !(PIECE_MIN..=PIECE_MAX).contains(&piece) || !piece.is_power_of_two() {
            return Err(invalid("piece length", piece, PIECE_LENGTHS));
        }
        if self.bytes == 0 {
            return Err(unusable("its file is empty"));
        }
        let pieces = self.bytes.div_ceil(u64::from(piece));
        let digests = self.pieces.len();
        if pieces > u64::from(PIECES_MAX) {
            let expected = "at most 524288 pieces";
            return Err(invalid("length", self.bytes, expected));
        }
        if pieces != digests as u64 {
            let value = format!("{digests} digests");
            return Err(invalid("pieces", value, "one digest for each piece"));
        }
        Ok(())
    }
}

/// Why bytes are not a torrent that can be used.
fn unusable(why: impl fmt::Display) -> DecodeError {
    DecodeError(format!("not a usable torrent: {why}"))
}

fn missing(key: &str) -> DecodeError {
    unusable(format_args!("'{key}' is missing"))
}

fn invalid(key: &str, value: impl fmt::Display, expected: &str) -> DecodeError {
    unusable(format_args!("invalid '{key}' '{value}': expected {expected}"))
}

#[cfg(test)]
mod tests;
