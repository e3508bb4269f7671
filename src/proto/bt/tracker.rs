//! What peers ask an HTTP tracker and what it answers (BEP 3, 7, 23, 48).
//!
//! Values are bytes, decoded once; an address in a request (`ip`, `ipv4`) is never read: a peer is
//! where its connection comes from. Answers are compact.

use std::fmt;
use std::fmt::Write;
use std::net::IpAddr;
use std::net::SocketAddr;

use crate::digest::Digest;
use crate::proto::bt::bencode;
use crate::proto::bt::bencode::Dictionary;
use crate::proto::bt::bencode::Item;
use crate::proto::percent;

/// What a peer tells of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Announce {
    /// The torrent.
    pub info_hash: Digest,
    /// Who speaks.
    pub peer_id: [u8; 20],
    /// Where it listens.
    pub port: u16,
    /// Bytes that it lacks; `None` when it does not say.
    pub left: Option<u64>,
    /// What happened to it.
    pub event: AnnounceEvent,
    /// How many peers it wants to know.
    pub wanted: usize,
    /// Payload bytes that the peer has sent so far.
    pub sent: u64,
    /// Payload bytes that it has received, by the member that sent them; only our own peers tell,
    /// and only our own tracker listens. At most [`FROM_MAX`].
    pub received_from: Vec<Share>,
}

/// Why a peer announces itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AnnounceEvent {
    /// It begins.
    Started,
    /// It has just become whole.
    Completed,
    /// It leaves.
    Stopped,
    /// It is still there.
    #[default]
    Regular,
}

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

/// Why a request cannot be answered, or an answer not be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TrackerError(pub String);

/// A member's id, and how many payload bytes came from it.
pub type Share = ([u8; 20], u64);

/// Most members of which a peer tells what came from them: more than it may have links.
pub const SHARES_MAX: usize = 128;

/// Longest answer that is read, bytes.
pub const RESPONSE_MAX: usize = 64 << 10;

/// Most peers in an answer, given or taken.
pub const PEERS_MAX: usize = 200;

/// How many peers are told to whoever does not say.
const PEERS_USUAL: usize = 50;

/// Least and greatest time between two announces that an answer can ask of us, seconds.
const INTERVAL: std::ops::RangeInclusive<u64> = 2..=3600;

/// Longest text of a failure that is shown, characters.
const FAILURE_MAX: usize = 200;

impl Announce {
    /// Reads the query of `/announce`.
    ///
    /// # Errors
    /// What is missing or wrong, as the tracker's failure reason.
    pub fn decode(query: &str) -> Result<Self, TrackerError> {
        let number = |key: &str| -> Result<Option<i64>, TrackerError> {
            let Some(value) = value(query, key)? else {
                return Ok(None);
            };
            let parsed = std::str::from_utf8(&value)
                .ok()
                .and_then(|t| t.parse().ok());
            parsed
                .map(Some)
                .ok_or_else(|| TrackerError(format!("'{key}' is no number")))
        };
        let port = number("port")?.ok_or_else(|| TrackerError("'port' is missing".to_owned()))?;
        let port = u16::try_from(port)
            .ok()
            .filter(|&port| port >= 1024)
            .ok_or_else(|| TrackerError(format!("the port {port} is not from 1024 to 65535")))?;
        Ok(Self {
            info_hash: Digest::from_bytes(twenty(query, "info_hash")?),
            peer_id: twenty(query, "peer_id")?,
            port,
            left: number("left")?.and_then(|left| u64::try_from(left).ok()),
            event: match value(query, "event")?.as_deref() {
                Some(b"started") => AnnounceEvent::Started,
                Some(b"completed") => AnnounceEvent::Completed,
                Some(b"stopped") => AnnounceEvent::Stopped,
                _ => AnnounceEvent::Regular,
            },
            wanted: number("numwant")?
                .and_then(|wanted| usize::try_from(wanted).ok())
                .unwrap_or(PEERS_USUAL)
                .min(PEERS_MAX),
            sent: number("uploaded")?
                .and_then(|sent| u64::try_from(sent).ok())
                .unwrap_or(0),
            received_from: match value(query, FROM)? {
                Some(bytes) => shares(&bytes)
                    .ok_or_else(|| TrackerError(format!("'{FROM}' is no list of shares")))?,
                None => Vec::new(),
            },
        })
    }

    /// The query.
    pub fn encode(&self) -> String {
        let mut query = format!(
            "info_hash={}&peer_id={}&port={}&uploaded={}&downloaded={}&left={}&compact=1&numwant={}",
            percent(self.info_hash.as_bytes()),
            percent(&self.peer_id),
            self.port,
            self.sent,
            self.received_from.iter().map(|share| share.1).sum::<u64>(),
            self.left.unwrap_or(0),
            self.wanted,
        );
        match self.event {
            AnnounceEvent::Started => query.push_str("&event=started"),
            AnnounceEvent::Completed => query.push_str("&event=completed"),
            AnnounceEvent::Stopped => query.push_str("&event=stopped"),
            AnnounceEvent::Regular => {}
        }
        for (number, (id, bytes)) in self.received_from.iter().take(SHARES_MAX).enumerate() {
            let mark = if number == 0 { "&x_from=" } else { "," };
            let _ = write!(query, "{mark}{}:{bytes}", percent(id));
        }
        query
    }
}

impl AnnounceResponse {
    /// The body of an answer.
    pub fn encode(&self) -> Vec<u8> {
        let (mut four, mut six) = (Vec::new(), Vec::new());
        for peer in &self.peers {
            match peer.ip().to_canonical() {
                IpAddr::V4(ip) => {
                    four.extend_from_slice(&ip.octets());
                    four.extend_from_slice(&peer.port().to_be_bytes());
                }
                IpAddr::V6(ip) => {
                    six.extend_from_slice(&ip.octets());
                    six.extend_from_slice(&peer.port().to_be_bytes());
                }
            }
        }
        let count = |count: u64| i64::try_from(count).unwrap_or(i64::MAX);
        let mut answer = Dictionary::default()
            .integer("complete", count(self.complete))
            .integer("incomplete", count(self.incomplete))
            .integer("interval", count(self.interval))
            .integer("min interval", count(self.interval.min(*INTERVAL.start())))
            .bytes("peers", four);
        if !six.is_empty() {
            answer = answer.bytes("peers6", six);
        }
        answer.finish()
    }

    /// Reads the body of an answer, both forms of peers. Addresses that nobody can be at are
    /// passed over.
    ///
    /// # Errors
    /// The tracker's own failure, or bytes that are no answer.
    pub fn decode(body: &[u8]) -> Result<Self, TrackerError> {
        if body.len() > RESPONSE_MAX {
            return Err(TrackerError(format!(
                "an answer of {} bytes, of {RESPONSE_MAX} at most",
                body.len()
            )));
        }
        let answer = bencode::decode(body).map_err(|error| TrackerError(error.to_string()))?;
        if let Some(reason) = answer.get("failure reason").and_then(Item::bytes) {
            let text = String::from_utf8_lossy(reason);
            let shown: String = text.chars().take(FAILURE_MAX).collect();
            return Err(TrackerError(crate::text::escape(&shown)));
        }
        let Some(interval) = answer.get("interval").and_then(Item::integer) else {
            return Err(TrackerError("an answer without 'interval'".to_owned()));
        };
        let count = |key| {
            let number = answer.get(key).and_then(Item::integer);
            number.and_then(|n| u64::try_from(n).ok()).unwrap_or(0)
        };
        let mut peers = Vec::new();
        match answer.get("peers") {
            None => {}
            Some(item) => match (item.bytes(), item.list()) {
                (Some(bytes), _) => compact_peers::<6>(bytes, &mut peers)?,
                (None, Some(list)) => peers.extend(list.iter().filter_map(dictionary_peer)),
                (None, None) => return Err(TrackerError("'peers' of another kind".to_owned())),
            },
        }
        if let Some(bytes) = answer.get("peers6").and_then(Item::bytes) {
            compact_peers::<18>(bytes, &mut peers)?;
        }
        peers.retain(reachable);
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

/// The body that tells a peer why it gets no answer; the status stays 200.
pub fn failure(reason: &str) -> Vec<u8> {
    Dictionary::default()
        .bytes("failure reason", reason)
        .finish()
}

/// The torrents that a `/scrape` asks for (BEP 48); empty asks for all.
///
/// # Errors
/// A hash that is none.
pub fn decode_scrape(query: &str) -> Result<Vec<Digest>, TrackerError> {
    let hashes = query
        .split('&')
        .filter_map(|pair| pair.strip_prefix("info_hash="));
    hashes
        .take(PEERS_MAX)
        .map(|value| {
            let bytes = percent::decode(value).and_then(|bytes| bytes.try_into().ok());
            bytes
                .map(Digest::from_bytes)
                .ok_or_else(|| TrackerError("'info_hash' has not 20 bytes".to_owned()))
        })
        .collect()
}

/// The body of a scrape's answer: for each torrent the peers that are whole, those that are not,
/// and how often it was completed.
pub fn encode_scrape(torrents: &[(Digest, u64, u64, u64)]) -> Vec<u8> {
    let mut files = Dictionary::default();
    for (hash, complete, incomplete, downloaded) in torrents {
        let count = |count: u64| i64::try_from(count).unwrap_or(i64::MAX);
        let counts = Dictionary::default()
            .integer("complete", count(*complete))
            .integer("downloaded", count(*downloaded))
            .integer("incomplete", count(*incomplete))
            .finish();
        files = files.raw_bytes(hash.as_bytes(), counts);
    }
    Dictionary::default().raw("files", files.finish()).finish()
}

/// The one value of `key`, decoded.
fn value(query: &str, key: &str) -> Result<Option<Vec<u8>>, TrackerError> {
    let mut found = query
        .split('&')
        .filter_map(|pair| pair.split_once('=').filter(|(name, _)| *name == key));
    let Some((_, value)) = found.next() else {
        return Ok(None);
    };
    if found.next().is_some() {
        return Err(TrackerError(format!("'{key}' stands twice")));
    }
    let bytes = percent::decode(value);
    bytes
        .map(Some)
        .ok_or_else(|| TrackerError(format!("'{key}' has a broken percent code")))
}

/// The key of [`Announce::from`]: for each member its id, a colon, the bytes, and a comma between
/// two. An id may hold a comma, so nothing is split before its twenty bytes are taken off.
const FROM: &str = "x_from";

fn shares(bytes: &[u8]) -> Option<Vec<Share>> {
    let mut all = Vec::new();
    let mut rest = bytes;
    loop {
        let (id, after) = rest.split_first_chunk::<20>()?;
        let after = after.strip_prefix(b":")?;
        let end = after
            .iter()
            .position(|&byte| byte == b',')
            .unwrap_or(after.len());
        if all.len() == SHARES_MAX {
            return None;
        }
        let digits = std::str::from_utf8(&after[..end]).ok()?;
        all.push((*id, crate::proto::line::decimal(digits)?));
        match after[end..].strip_prefix(b",") {
            Some(more) => rest = more,
            None => return Some(all),
        }
    }
}

fn twenty(query: &str, key: &str) -> Result<[u8; 20], TrackerError> {
    let bytes = value(query, key)?.ok_or_else(|| TrackerError(format!("'{key}' is missing")))?;
    let len = bytes.len();
    bytes
        .try_into()
        .map_err(|_| TrackerError(format!("'{key}' has {len} bytes and not 20")))
}

fn percent(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "%{byte:02X}");
        text
    })
}

/// Appends the peers of a compact string: an address, then a port.
fn compact_peers<const EACH: usize>(
    bytes: &[u8],
    peers: &mut Vec<SocketAddr>,
) -> Result<(), TrackerError> {
    if !bytes.len().is_multiple_of(EACH) {
        let what = format!("peers in {} bytes, no multiple of {EACH}", bytes.len());
        return Err(TrackerError(what));
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

/// A peer in the long form.
fn dictionary_peer(item: &Item<'_>) -> Option<SocketAddr> {
    let ip: IpAddr = item.get("ip")?.text()?.parse().ok()?;
    let port = u16::try_from(item.get("port")?.integer()?).ok()?;
    Some(SocketAddr::new(ip, port))
}

/// False for addresses at which no single host can be.
fn reachable(peer: &SocketAddr) -> bool {
    let usable = match peer.ip() {
        IpAddr::V4(ip) => !ip.is_broadcast() && !ip.is_unspecified() && !ip.is_multicast(),
        IpAddr::V6(ip) => !ip.is_unspecified() && !ip.is_multicast(),
    };
    usable && peer.port() > 0
}

impl fmt::Display for TrackerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for TrackerError {}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn honest() -> Announce {
        Announce {
            info_hash: Digest::of(b"x"),
            peer_id: *b"-GC0001-\0\xff%& =+/?#ab",
            port: 6881,
            left: Some(5),
            event: AnnounceEvent::Started,
            wanted: 30,
            sent: 77,
            received_from: vec![(*b"-GC0001-S0000000000,", 5), ([0xff; 20], 72)],
        }
    }

    #[test]
    fn an_announce_goes_there_and_back() {
        let announce = honest();
        assert_eq!(Announce::decode(&announce.encode()), Ok(announce));
    }

    #[test]
    fn an_announce_as_other_clients_write_it_is_read() {
        let query = "info_hash=%124Vx%9a%bc%de%f1%23Eg%89%ab%cd%ef%124Vx%9A&peer_id=-TR3000-abcdefghijkl\
            &port=51413&uploaded=0&downloaded=0&left=100&numwant=80&key=1a2b&compact=1&ip=8.8.8.8\
            &supportcrypto=1&event=stopped";
        let read = Announce::decode(query).expect("honest");
        assert_eq!(&read.peer_id, b"-TR3000-abcdefghijkl");
        assert_eq!(
            (read.port, read.wanted, read.event),
            (51413, 80, AnnounceEvent::Stopped)
        );
        assert_eq!(read.info_hash.as_bytes()[..4], [0x12, 0x34, 0x56, 0x78]);
    }

    #[test]
    fn a_wrong_announce_is_told_what_is_wrong() {
        let honest = honest().encode();
        for (from, to) in [
            ("port=6881", "port=0"),
            ("port=6881", "port=99999"),
            ("port=6881", "port=80"),
            ("port=6881", "port="),
            ("port=6881", "port=6881&port=6882"),
            ("port=6881", "prot=6881"),
            ("peer_id=", "peer_id=%zz"),
            ("peer_id=", "peer_id=x"),
            ("peer_id=", "peerid="),
            ("info_hash=%", "info_hash=%0"),
            ("left=5", "left=x"),
        ] {
            let wrong = honest.replacen(from, to, 1);
            assert_ne!(wrong, honest, "{from}");
            assert!(Announce::decode(&wrong).is_err(), "{to}");
        }
        for (number, wanted) in [("-1", PEERS_USUAL), ("1000000000", PEERS_MAX), ("0", 0)] {
            let query = honest.replacen("numwant=30", &format!("numwant={number}"), 1);
            assert_eq!(Announce::decode(&query).expect("read").wanted, wanted);
        }
        let query = honest.replacen("started", "%00", 1);
        assert_eq!(
            Announce::decode(&query).expect("read").event,
            AnnounceEvent::Regular
        );
    }

    #[test]
    fn answers_of_both_forms_are_read() {
        let answer = AnnounceResponse {
            complete: 1,
            incomplete: 2,
            interval: 5,
            peers: vec![
                "10.0.0.1:6881".parse().expect("v4"),
                "[fe80::1]:7".parse().expect("v6"),
            ],
        };
        assert_eq!(AnnounceResponse::decode(&answer.encode()), Ok(answer));
        let long = b"d8:intervali9e5:peersld2:ip8:10.0.0.74:porti6881eed2:ip3:x.y4:porti1eeee";
        let read = AnnounceResponse::decode(long).expect("the long form");
        assert_eq!(read.peers, ["10.0.0.7:6881".parse().expect("v4")]);
    }

    #[test]
    fn an_answer_that_cannot_be_meant_is_refused_or_held_to_its_limits() {
        for wrong in [
            &b"d8:intervali5e5:peers5:12345e"[..],
            b"d8:intervali5e5:peersi5ee",
            b"d8:intervali5e6:peers617:12345678901234567e",
            b"d5:peers0:e",
            b"i5e",
            b"<html>",
            b"\x1f\x8b\x08\0\0\0\0\0",
        ] {
            assert!(AnnounceResponse::decode(wrong).is_err(), "{wrong:?}");
        }
        assert!(AnnounceResponse::decode(&vec![b'0'; RESPONSE_MAX + 1]).is_err());
        assert!(AnnounceResponse::decode("l".repeat(20_000).as_bytes()).is_err());
        let nobody = [
            [0, 0, 0, 0, 1, 1],
            [255, 255, 255, 255, 1, 1],
            [224, 0, 0, 1, 1, 1],
            [10, 0, 0, 1, 0, 0],
            [10, 0, 0, 2, 0, 80],
        ];
        let body = Dictionary::default()
            .integer("interval", 5)
            .bytes("peers", nobody.as_flattened())
            .finish();
        let read = AnnounceResponse::decode(&body).expect("an answer");
        assert_eq!(read.peers, ["10.0.0.2:80".parse().expect("v4")]);
        for (interval, kept) in [(0, 2), (-5, 2), (i64::MAX, 3600)] {
            let body = Dictionary::default().integer("interval", interval).finish();
            assert_eq!(
                AnnounceResponse::decode(&body).expect("an answer").interval,
                kept
            );
        }
        let many = Dictionary::default()
            .integer("interval", 5)
            .bytes("peers", [10, 0, 0, 1, 9, 9].repeat(5000))
            .finish();
        assert_eq!(
            AnnounceResponse::decode(&many)
                .expect("an answer")
                .peers
                .len(),
            PEERS_MAX
        );
        let reason = format!("\x1b[2J{}", "x".repeat(30_000));
        let shown = AnnounceResponse::decode(&failure(&reason))
            .expect_err("a failure")
            .0;
        assert!(shown.len() < 300 && !shown.contains('\x1b'), "{shown}");
    }

    #[test]
    fn a_scrape_names_its_torrents() {
        let hash = Digest::of(b"x");
        let query = format!("info_hash={}", percent(hash.as_bytes()));
        assert_eq!(decode_scrape(&query), Ok(vec![hash]));
        assert_eq!(decode_scrape(""), Ok(vec![]));
        assert!(decode_scrape("info_hash=%00").is_err());
        let body = encode_scrape(&[(hash, 1, 2, 3)]);
        let answer = bencode::decode(&body).expect("bencode");
        assert!(answer.get("files").is_some());
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(20_000))]

        #[test]
        fn random_requests_and_answers_never_panic(
            text in "[a-z_=&%0-9]{0,80}", bytes in prop::collection::vec(any::<u8>(), 0..80)
        ) {
            let _ = Announce::decode(&text);
            let _ = Announce::decode(&format!("info_hash={text}&peer_id={text}&port={text}"));
            let _ = decode_scrape(&text);
            let _ = AnnounceResponse::decode(&bytes);
            let framed = [&b"d8:intervali5e5:peers"[..], &bytes, b"e"].concat();
            let _ = AnnounceResponse::decode(&framed);
        }
    }
}
