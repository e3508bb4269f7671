//! Scrapes (BEP 48): how many peers a torrent has.

use crate::{
    digest::Digest,
    proto::{
        bt::{
            bencode::Dictionary,
            tracker::{invalid, response::PEERS_MAX},
        },
        line::DecodeError,
        percent,
    },
};

/// The peers of one torrent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ScrapeCounts {
    /// Peers that have the whole file.
    pub complete: u64,
    /// Peers that do not.
    pub incomplete: u64,
    /// How often a peer became complete.
    pub downloaded: u64,
}

/// The torrents that a `/scrape` asks for; none means all.
///
/// # Errors
/// An info-hash has not 20 bytes.
pub fn decode_query(query: &str) -> Result<Vec<Digest>, DecodeError> {
    let hashes = query.split('&').filter_map(|pair| pair.strip_prefix("info_hash="));
    hashes
        .take(PEERS_MAX)
        .map(|value| {
            let bytes = percent::decode(value).and_then(|bytes| bytes.try_into().ok());
            bytes.map(Digest::from_bytes).ok_or_else(|| invalid("info_hash", "20 bytes"))
        })
        .collect()
}

/// The body of the response.
pub fn encode(torrents: impl IntoIterator<Item = (Digest, ScrapeCounts)>) -> Vec<u8> {
    let mut files = Dictionary::default();
    for (hash, counts) in torrents {
        let counts = Dictionary::default()
            .count("complete", counts.complete)
            .count("downloaded", counts.downloaded)
            .count("incomplete", counts.incomplete)
            .finish();
        files = files.raw(hash.as_bytes(), counts);
    }
    Dictionary::default().raw("files", files.finish()).finish()
}
