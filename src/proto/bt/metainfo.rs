//! A `.torrent` (BEP 3): one file, its pieces' digests, and where its tracker is.
//!
//! Its info-hash is the digest of the `info` dictionary as it was found, never of a re-encoding.
//! Its name is checked by [`FileName`], like every name from outside.

use std::fmt;

use crate::{
    digest::Digest,
    proto::bt::{
        bencode::{self, BencodeError, Dictionary, Item},
        layout::PieceLayout,
    },
    text::FileName,
};

/// The contents of a torrent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Metainfo {
    /// The tracker; `None` when it names none.
    pub announce: Option<String>,
    /// The file's name.
    pub name: FileName,
    /// The file's length, at least 1.
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

/// Why bytes are not a torrent that can be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MetainfoError {
    /// It is longer than [`METAINFO_MAX`].
    TooLong(usize),
    /// It is not bencode.
    Bencode(BencodeError),
    /// An entry is missing or has another type.
    Missing(&'static str),
    /// An entry has an invalid value.
    Invalid {
        /// The entry.
        key: &'static str,
        /// Its value.
        value: String,
        /// Which values are valid.
        expected: &'static str,
    },
    /// A kind of torrent that is not supported.
    Unsupported(&'static str),
}

/// Longest `.torrent`, bytes: [`PIECES_MAX`] pieces, and as much again for the rest as any has.
pub const METAINFO_MAX: usize = PIECES_MAX as usize * Digest::LEN + (64 << 10);

/// Most pieces of one file.
pub const PIECES_MAX: u32 = 1 << 19;

/// Least length of a piece: one block.
pub const PIECE_MIN: u32 = 16 << 10;

/// Greatest length of a piece.
pub const PIECE_MAX: u32 = 16 << 20;

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
    ) -> Result<Self, MetainfoError> {
        let length = i64::try_from(bytes)
            .map_err(|_| MetainfoError::invalid("length", bytes, "fewer bytes"))?;
        let joined: Vec<u8> = pieces.iter().flat_map(|piece| *piece.as_bytes()).collect();
        let info = Dictionary::default()
            .integer("length", length)
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
    pub fn decode(bytes: &[u8]) -> Result<Self, MetainfoError> {
        if bytes.len() > METAINFO_MAX {
            return Err(MetainfoError::TooLong(bytes.len()));
        }
        let torrent = bencode::decode(bytes).map_err(MetainfoError::Bencode)?;
        let info = torrent.get("info").ok_or(MetainfoError::Missing("info"))?;
        if info.get("files").is_some() {
            return Err(MetainfoError::Unsupported("it holds several files"));
        }
        let attr = info.get("attr").and_then(Item::bytes);
        if attr.is_some_and(|attr| attr.contains(&b'l')) {
            return Err(MetainfoError::Unsupported("its file is a symbolic link"));
        }
        let number = |key: &'static str| {
            let item = info.get(key).and_then(Item::integer);
            item.ok_or(MetainfoError::Missing(key))
        };
        let length = number("length")?;
        let length = u64::try_from(length)
            .map_err(|_| MetainfoError::invalid("length", length, "at least 1"))?;
        let piece_bytes = number("piece length")?;
        let piece_bytes = u32::try_from(piece_bytes)
            .map_err(|_| MetainfoError::invalid("piece length", piece_bytes, PIECE_LENGTHS))?;
        let name = info.get("name").and_then(Item::text);
        let name = name.ok_or(MetainfoError::Missing("name"))?;
        let name = FileName::new(name).map_err(|_| {
            MetainfoError::invalid("name", crate::text::escape(name), "a plain file name")
        })?;
        let pieces = info.get("pieces").and_then(Item::bytes);
        let pieces = pieces.ok_or(MetainfoError::Missing("pieces"))?;
        let (digests, rest) = pieces.as_chunks::<{ Digest::LEN }>();
        if !rest.is_empty() {
            let len = format!("{} bytes", pieces.len());
            return Err(MetainfoError::invalid("pieces", len, "a multiple of 20 bytes"));
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

    fn check(&self) -> Result<(), MetainfoError> {
        let piece = self.piece_bytes;
        if !(PIECE_MIN..=PIECE_MAX).contains(&piece) || !piece.is_power_of_two() {
            return Err(MetainfoError::invalid("piece length", piece, PIECE_LENGTHS));
        }
        if self.bytes == 0 {
            return Err(MetainfoError::Unsupported("its file is empty"));
        }
        let pieces = self.bytes.div_ceil(u64::from(piece));
        let digests = self.pieces.len();
        if pieces > u64::from(PIECES_MAX) {
            let expected = "at most 524288 pieces";
            return Err(MetainfoError::invalid("length", self.bytes, expected));
        }
        if pieces != digests as u64 {
            let value = format!("{digests} digests");
            return Err(MetainfoError::invalid("pieces", value, "one digest for each piece"));
        }
        Ok(())
    }
}

impl MetainfoError {
    fn invalid(key: &'static str, value: impl fmt::Display, expected: &'static str) -> Self {
        Self::Invalid { key, value: value.to_string(), expected }
    }
}

impl fmt::Display for MetainfoError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("not a usable torrent: ")?;
        match self {
            Self::TooLong(len) => write!(f, "{len} bytes, of {METAINFO_MAX} at most"),
            Self::Bencode(error) => error.fmt(f),
            Self::Missing(key) => write!(f, "'{key}' is missing"),
            Self::Invalid { key, value, expected } => {
                write!(f, "invalid '{key}' '{value}': expected {expected}")
            }
            Self::Unsupported(what) => f.write_str(what),
        }
    }
}

impl std::error::Error for MetainfoError {}

#[cfg(test)]
mod tests {
    use super::*;

    fn honest() -> Metainfo {
        let name = FileName::new("a file.bin").expect("plain");
        let pieces = vec![Digest::of(b"1"), Digest::of(b"2"), Digest::of(b"3")];
        Metainfo::new(name, 40_000, 16 << 10, pieces).expect("honest")
    }

    /// An `info` of which single entries are replaced.
    fn with(key: &str, value: &[u8]) -> Vec<u8> {
        let info = Dictionary::default()
            .integer("length", 40_000)
            .bytes("name", "x")
            .integer("piece length", 16 << 10)
            .bytes("pieces", [7; 60])
            .raw(key, value.to_vec());
        Dictionary::default().raw("info", info.finish()).finish()
    }

    #[test]
    fn torrent_of_the_most_pieces_can_be_read() {
        let bytes = u64::from(PIECES_MAX) * (4 << 20);
        assert_eq!(piece_bytes(bytes), 4 << 20);
        let name = FileName::new(&"n".repeat(200)).expect("plain");
        let pieces = vec![Digest::of(b"1"); PIECES_MAX as usize];
        let made = Metainfo::new(name, bytes, 4 << 20, pieces).expect("honest");
        let torrent = made.encode(Some("http://h:1/announce"), Some("http://h:1/f"));
        assert!(torrent.len() > 10 << 20);
        let read = Metainfo::decode(&torrent).expect("ours");
        assert_eq!(read.info_hash(), made.info_hash());
        assert!(Metainfo::decode(&vec![b'd'; METAINFO_MAX + 1]).is_err());
    }

    #[test]
    fn torrent_round_trips_with_the_same_hash() {
        let made = honest();
        let bytes = made.encode(Some("http://h:1/announce"), None);
        let read = Metainfo::decode(&bytes).expect("honest");
        assert_eq!(read.info_hash(), made.info_hash());
        assert_eq!(read.announce.as_deref(), Some("http://h:1/announce"));
        assert!(read.private);
        for end in 0..bytes.len() {
            assert!(Metainfo::decode(&bytes[..end]).is_err(), "{end}");
        }
    }

    #[test]
    fn info_hash_is_of_the_bytes_as_found() {
        // A key that we do not know is part of what is hashed.
        let torrent = with("zz", b"i1e");
        let read = Metainfo::decode(&torrent).expect("honest");
        let from = torrent.windows(7).position(|w| w == b"4:infod").expect("there") + 6;
        assert_eq!(read.info_hash(), Digest::of(&torrent[from..torrent.len() - 1]));
    }

    #[test]
    fn invalid_values_are_refused() {
        Metainfo::decode(&with("private", b"i0e")).expect("honest");
        for (key, value) in [
            ("length", &b"i0e"[..]),
            ("length", b"i-1e"),
            ("length", b"1:5"),
            ("length", b"i4611686018427387904e"),
            ("length", b"i9223372036854775807e"),
            ("length", b"i65536e"),
            ("piece length", b"i0e"),
            ("piece length", b"i-1e"),
            ("piece length", b"i4611686018427387904e"),
            ("piece length", b"i16383e"),
            ("piece length", b"i8192e"),
            ("piece length", b"i33554432e"),
            ("piece length", b"i32768e"),
            ("pieces", b"0:"),
            ("pieces", b"5:12345"),
            ("pieces", b"le"),
            ("files", b"le"),
            ("attr", b"1:l"),
            ("name", b"0:"),
            ("name", b"1:."),
            ("name", b"2:.."),
            ("name", b"6:/etc/x"),
            ("name", b"6:a/../b"),
            ("name", b"4:..\\x"),
            ("name", b"4:C:\\x"),
            ("name", b"3:a\0b"),
            ("name", b"2:\xff\xfe"),
            ("name", b"4:a\xe2\x80\xae"),
            ("name", b"i5e"),
        ] {
            let shown = String::from_utf8_lossy(value).into_owned();
            assert!(Metainfo::decode(&with(key, value)).is_err(), "{key} {shown}");
        }
        let long = format!("10000:{}", "x".repeat(10_000));
        assert!(Metainfo::decode(&with("name", long.as_bytes())).is_err());
        assert!(Metainfo::decode(&vec![b'l'; METAINFO_MAX + 1]).is_err());
        assert!(Metainfo::decode(b"i5e").is_err());
    }

    #[test]
    fn files_have_about_a_thousand_pieces_and_never_too_many() {
        for (bytes, piece) in [
            (1, 16 << 10),
            (10_485_760, 16 << 10),
            (100_000_000, 64 << 10),
            (1 << 30, 512 << 10),
            (1 << 40, 4 << 20),
        ] {
            assert_eq!(piece_bytes(bytes), piece, "{bytes}");
        }
        let huge = 1 << 43;
        assert!(huge / u64::from(piece_bytes(huge)) <= u64::from(PIECES_MAX));
    }
}
