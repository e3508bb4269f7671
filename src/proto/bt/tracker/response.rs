//! The response to an announce, with the peers in compact form (BEP 23, BEP 7).

use std::net::{IpAddr, SocketAddr};

use crate::{
    proto::{
        bt::{
            bencode::{self, Dictionary, Item},
            tracker::{invalid, missing},
        },
        line::DecodeError,
    },
    text::escape,
};

/// What a tracker answers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AnnounceResponse {
    /// How many peers have the whole file.
    pub complete: u64,
    /// How many do not.
    pub incomplete: u64,
    /// When to announce again, seconds.
    pub interval: u64,
    /// Other peers.
    pub peers: Vec<SocketAddr>,
}

/// Longest response that is read, bytes.
pub const RESPONSE_MAX: usize = 64 << 10;

/// Most peers in a response, sent or read.
pub const PEERS_MAX: usize = 200;

/// Least and greatest interval that a tracker can ask of us, seconds.
const INTERVAL: std::ops::RangeInclusive<u64> = 2..=3600;

/// Longest failure reason that is shown, characters.
const FAILURE_MAX: usize = 200;

impl AnnounceResponse {
    /// The body of the response.
    pub fn encode(&self) -> Vec<u8> {
        self.dictionary().finish()
    }

    /// The body of the response to a program that is to show its user `warning`.
    pub fn encode_with(&self, warning: &str) -> Vec<u8> {
        self.dictionary().bytes("warning message", warning).finish()
    }

    fn dictionary(&self) -> Dictionary {
        let (mut v4, mut v6) = (Vec::new(), Vec::new());
        for peer in &self.peers {
            let port = peer.port().to_be_bytes();
            match peer.ip().to_canonical() {
                IpAddr::V4(ip) => v4.extend(ip.octets().into_iter().chain(port)),
                IpAddr::V6(ip) => v6.extend(ip.octets().into_iter().chain(port)),
            }
        }
        let mut response = Dictionary::default()
            .count("complete", self.complete)
            .count("incomplete", self.incomplete)
            .count("interval", self.interval)
            .count("min interval", self.interval.min(*INTERVAL.start()))
            .bytes("peers", v4);
        if !v6.is_empty() {
            response = response.bytes("peers6", v6);
        }
        response
    }

    /// Reads the body of a response, with the peers in either form. Addresses that no peer can
    /// have are ignored.
    ///
    /// # Errors
    /// The tracker's own failure, or bytes that are not a response.
    pub fn decode(body: &[u8]) -> Result<Self, DecodeError> {
        if body.len() > RESPONSE_MAX {
            return Err(DecodeError(format!("a response of {} bytes is too long", body.len())));
        }
        let response = bencode::decode(body)?;
        if let Some(reason) = response.get("failure reason").and_then(Item::bytes) {
            let text = String::from_utf8_lossy(reason);
            let shown: String = text.chars().take(FAILURE_MAX).collect();
            return Err(DecodeError(escape(&shown)));
        }
        let number = |key| response.get(key).and_then(Item::integer);
        let count = |key| number(key).and_then(|n| u64::try_from(n).ok()).unwrap_or(0);
        let interval = number("interval").ok_or_else(|| missing("interval"))?;
        let mut peers = Vec::new();
        if let Some(item) = response.get("peers") {
            match (item.bytes(), item.list()) {
                (Some(bytes), _) => compact_peers::<6>("peers", bytes, &mut peers)?,
                (None, Some(list)) => peers.extend(list.iter().filter_map(dictionary_peer)),
                (None, None) => return Err(invalid("peers", "a string or a list")),
            }
        }
        if let Some(bytes) = response.get("peers6").and_then(Item::bytes) {
            compact_peers::<18>("peers6", bytes, &mut peers)?;
        }
        peers.retain(is_reachable);
        peers.truncate(PEERS_MAX);
        Ok(Self {
            complete: count("complete"),
            incomplete: count("incomplete"),
            interval: u64::try_from(interval)
                .unwrap_or(0)
                .clamp(*INTERVAL.start(), *INTERVAL.end()),
            peers,
        })
    }
}

/// The body that tells a peer why there is no response; the HTTP status stays 200.
pub fn encode_failure(reason: &str) -> Vec<u8> {
    Dictionary::default().bytes("failure reason", reason).finish()
}

/// Appends the peers of a compact string: an address, then a port, in `EACH` bytes.
fn compact_peers<const EACH: usize>(
    key: &str,
    bytes: &[u8],
    peers: &mut Vec<SocketAddr>,
) -> Result<(), DecodeError> {
    if !bytes.len().is_multiple_of(EACH) {
        return Err(invalid(key, "6 or 18 bytes for each peer"));
    }
    for peer in bytes.chunks_exact(EACH).take(PEERS_MAX) {
        let (ip, port) = peer.split_at(EACH - 2);
        let ip = match ip.len() {
            4 => IpAddr::from(<[u8; 4]>::try_from(ip).expect("four bytes")),
            _ => IpAddr::from(<[u8; 16]>::try_from(ip).expect("sixteen bytes")),
        };
        peers.push(SocketAddr::new(ip, u16::from_be_bytes([port[0], port[1]])));
    }
    Ok(())
}

/// A peer in the long form, a dictionary.
fn dictionary_peer(item: &Item<'_>) -> Option<SocketAddr> {
    let ip: IpAddr = item.get("ip")?.text()?.parse().ok()?;
    let port = u16::try_from(item.get("port")?.integer()?).ok()?;
    Some(SocketAddr::new(ip, port))
}

/// False for addresses that no single host can have.
fn is_reachable(peer: &SocketAddr) -> bool {
    let usable = match peer.ip().to_canonical() {
        IpAddr::V4(ip) => !ip.is_broadcast() && !ip.is_unspecified() && !ip.is_multicast(),
        IpAddr::V6(ip) => !ip.is_unspecified() && !ip.is_multicast(),
    };
    usable && peer.port() > 0
}
