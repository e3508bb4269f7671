//! The parsers of the swarm.

use gatecast::internals::{
    digest::Digest,
    proto::{
        bt::{
            bencode::{self, DEPTH_MAX, Dictionary, ITEMS_MAX, Item, Value},
            bitfield::Bitfield,
            metainfo::{Metainfo, PIECE_MAX, PIECE_MIN, PIECES_MAX, piece_bytes},
            tracker::{
                announce::{Announce, AnnounceEvent, SHARES_MAX},
                response::{AnnounceResponse, PEERS_MAX, encode_failure},
                scrape::{self, ScrapeCounts},
            },
            wire::{
                Block, ExtendedHandshake, HANDSHAKE_LEN, Handshake, Message, MessageLimits,
                frame_len,
            },
        },
        manifest::Manifest,
    },
    session::{SeatId, SessionId},
    text::{FileName, is_unsafe},
    transport::swarm::peer_id::{name_of, seat_of, seated_id},
};
use std::{
    collections::BTreeSet,
    net::{IpAddr, SocketAddr},
};

use crate::heap::{at_most, bounded};

/// What is decoded encodes to the same bytes, within the limits.
pub fn bencode(data: &[u8]) {
    let Ok(item) = bounded(data.len(), || bencode::decode(data)) else {
        return;
    };
    assert_eq!(item.raw, data);
    let (mut out, mut items) = (Vec::new(), 0);
    write(&item, 0, &mut items, &mut out);
    assert_eq!(out, data);
    assert!(items <= ITEMS_MAX);
}

fn write(item: &Item<'_>, depth: usize, items: &mut usize, out: &mut Vec<u8>) {
    let string = |bytes: &[u8], out: &mut Vec<u8>| {
        out.extend(format!("{}:", bytes.len()).into_bytes());
        out.extend(bytes);
    };
    assert!(depth <= DEPTH_MAX);
    *items += 1;
    let from = out.len();
    match &item.value {
        Value::Bytes(bytes) => string(bytes, out),
        Value::Integer(number) => out.extend(format!("i{number}e").into_bytes()),
        Value::List(list) => {
            out.push(b'l');
            list.iter().for_each(|item| write(item, depth + 1, items, out));
            out.push(b'e');
        }
        Value::Dictionary(entries) => {
            assert!(entries.windows(2).all(|pair| pair[0].0 < pair[1].0), "sorted");
            out.push(b'd');
            for (key, value) in entries {
                string(key, out);
                write(value, depth + 1, items, out);
            }
            out.push(b'e');
        }
    }
    assert_eq!(&out[from..], item.raw, "each item knows its own bytes");
}

pub fn bencode_seeds() -> Vec<Vec<u8>> {
    let deep = [b"l".repeat(DEPTH_MAX), b"e".repeat(DEPTH_MAX)].concat();
    let texts =
        [&b"d1:ali1ei-5e0:e1:bd1:cleee"[..], b"i-9223372036854775808e", b"0:", b"le", &deep];
    texts.map(<[u8]>::to_vec).into_iter().chain(metainfo_seeds()).collect()
}

/// A torrent that is accepted can be shared: its pieces are its file, and it is read again as it is
/// written, under the same info-hash.
pub fn metainfo(data: &[u8]) {
    let number = data.first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes));
    if number <= u64::from(PIECES_MAX) * u64::from(PIECE_MAX) {
        let piece = piece_bytes(number);
        assert!(piece.is_power_of_two() && (PIECE_MIN..=PIECE_MAX).contains(&piece));
        assert!(number.div_ceil(u64::from(piece)) <= u64::from(PIECES_MAX));
    }
    let (name, manifest) = folder();
    if let Ok(torrent) = bounded(data.len(), || Metainfo::decode_tree(data, &name, &manifest)) {
        assert_eq!((torrent.bytes, torrent.pieces.len()), (manifest.bytes(), 3));
        let bytes = torrent.encode(None, None);
        assert_eq!(Metainfo::decode_tree(&bytes, &name, &manifest), Ok(torrent));
    }
    let Ok(torrent) = bounded(data.len(), || Metainfo::decode(data)) else {
        return;
    };
    let layout = torrent.layout();
    assert_eq!(layout.pieces() as usize, torrent.pieces.len());
    let bytes: u64 = (0..layout.pieces()).map(|piece| u64::from(layout.len(piece))).sum();
    assert_eq!(bytes, torrent.bytes);
    let last = layout.pieces() - 1;
    let blocks = (0..layout.blocks(last)).map(|index| layout.block(last, index));
    let mut at = 0;
    for block in blocks {
        assert!(block.begin == at && layout.allows(block), "{block:?}");
        at += block.len;
    }
    assert_eq!(at, layout.len(last));
    let bytes = torrent.encode(torrent.announce.as_deref(), Some("http://h/f"));
    let again = Metainfo::decode(&bytes).expect("our own");
    assert_eq!(again.info_hash(), torrent.info_hash());
    assert_eq!(again, torrent);
}

fn torrent(pieces: u8) -> Metainfo {
    let digests = (0..pieces).map(|piece| Digest::of(&[piece])).collect();
    let name = FileName::new("f.bin").expect("a name");
    Metainfo::new(name, u64::from(pieces) << 14, 1 << 14, digests).expect("a torrent")
}

/// A folder of two files.
fn folder() -> (FileName, Manifest) {
    let zeros = Digest::of(b"");
    let lines = format!("d 755 0 d\nf 644 0 5 {zeros} d/a\nf 644 0 40000 {zeros} e\n");
    let manifest = Manifest::decode(lines.as_bytes()).expect("a manifest");
    (FileName::new("folder").expect("a name"), manifest)
}

fn folder_torrent() -> Metainfo {
    let (name, manifest) = folder();
    let digests = (0..3).map(|piece| Digest::of(&[piece])).collect();
    Metainfo::of_tree(name, &manifest, 1 << 14, digests).expect("a torrent")
}

pub fn metainfo_seeds() -> Vec<Vec<u8>> {
    vec![
        folder_torrent().encode(Some("http://10.0.0.1:8080/announce"), None),
        torrent(20).encode(Some("http://10.0.0.1:8080/announce"), Some("http://a/f")),
        torrent(1).encode(None, None),
    ]
}

/// Frames and messages are read as they are written; what names a length keeps to it.
pub fn peer_wire(data: &[u8]) {
    let (&first, mut rest) = data.split_first().unwrap_or((&0, data));
    let pieces = [1, 20, 70_000, PIECES_MAX][usize::from(first & 3)];
    let limits = MessageLimits { pieces, fast: first & 4 == 0 };
    if let Some(bytes) = rest.first_chunk::<HANDSHAKE_LEN>()
        && let Ok(hello) = Handshake::decode(bytes)
    {
        assert_eq!(&hello.encode(), bytes);
        let name = name_of(&hello.peer_id, ([10, 0, 0, 1], 5000).into());
        assert!(!name.chars().any(is_unsafe), "{name:?}");
        let _ = seat_of(&hello.peer_id);
    }
    while let Ok(Some(len)) = frame_len(rest, limits) {
        assert!(len <= limits.max_len() + 4);
        assert_eq!(frame_len(&rest[..len], limits), Ok(Some(len)));
        assert_eq!(frame_len(&rest[..len - 1], limits), Ok(None));
        let frame = &rest[4..len];
        let Ok(message) = bounded(len, || Message::decode(frame, limits)) else {
            return;
        };
        if !matches!(message, Message::Other(_)) {
            let mut bytes = Vec::new();
            message.encode(&mut bytes);
            assert_eq!(bytes, rest[..len]);
        }
        match message {
            Message::Bitfield(body) => bitfield(pieces, body),
            Message::Extended(0, body) => extended(body),
            _ => {}
        }
        rest = &rest[len..];
    }
    let seat = SeatId(u16::from(first) * 39);
    assert_eq!(seat_of(&seated_id(SessionId(u64::MAX), seat)), Some(seat));
}

fn bitfield(pieces: u32, body: &[u8]) {
    let Some(bits) = at_most(2 * body.len() + 64, || Bitfield::decode(pieces, body)) else {
        return;
    };
    assert_eq!(bits.encode(), body);
    assert_eq!(bits.iter().count(), bits.count() as usize);
    assert!(bits.iter().all(|piece| piece < pieces && bits.has(piece)));
}

fn extended(body: &[u8]) {
    if let Ok(hello) = bounded(body.len(), || ExtendedHandshake::decode(body)) {
        assert!(hello.program.as_ref().is_none_or(|program| program.chars().count() <= 64));
        assert!(hello.port != Some(0) && hello.requests != Some(0));
        assert_eq!(ExtendedHandshake::decode(&hello.encode()), Ok(hello));
    }
}

pub fn peer_wire_seeds() -> Vec<Vec<u8>> {
    let block = Block { piece: 1, begin: 0, len: 16_384 };
    let hello = ExtendedHandshake {
        port: Some(5000),
        requests: Some(500),
        program: Some("gatecast".to_owned()),
    };
    let body = hello.encode();
    let messages = [
        Message::KeepAlive,
        Message::Choke,
        Message::Unchoke,
        Message::Have(3),
        Message::Bitfield(&[0xff, 0xff, 0xf0]),
        Message::Request(block),
        Message::Piece(1, 0, &[7; 90]),
        Message::Cancel(block),
        Message::Reject(block),
        Message::HaveAll,
        Message::Extended(0, &body),
    ];
    let mut stream = vec![1];
    messages.iter().for_each(|message| message.encode(&mut stream));
    let id = seated_id(SessionId(u64::MAX), SeatId(25));
    let hello = Handshake::new(Digest::of(b"x"), id).encode();
    vec![stream, [&[1][..], &hello].concat(), b"\x01\0\0\0\x02\x09\x1a".to_vec()]
}

/// A question and an answer are read again as they are written; the answer names peers that one
/// can connect to, and no more than its limit.
pub fn tracker(data: &[u8]) {
    let query = String::from_utf8_lossy(data);
    if let Ok(announce) = bounded(2 * query.len(), || Announce::decode(&query)) {
        assert!(announce.port >= 1024 && announce.wanted <= PEERS_MAX);
        assert!(announce.received_from.len() <= SHARES_MAX);
        let again = Announce::decode(&announce.encode()).expect("our own");
        let left = Some(announce.left.unwrap_or(0));
        // Numbers beyond a signed one are not read.
        assert!(again.left == left || left > Some(i64::MAX as u64));
        assert_eq!(Announce { left: announce.left, ..again }, announce);
    }
    if let Ok(hashes) = bounded(2 * query.len(), || scrape::decode_query(&query)) {
        assert!(hashes.len() <= PEERS_MAX);
        let counts = ScrapeCounts { complete: u64::MAX, incomplete: 1, downloaded: 2 };
        let body = scrape::encode(hashes.into_iter().map(|hash| (hash, counts)));
        assert!(bencode::decode(&body).is_ok());
    }
    if let Ok(answer) = bounded(data.len(), || AnnounceResponse::decode(data)) {
        assert!(answer.peers.len() <= PEERS_MAX && (2..=3600).contains(&answer.interval));
        assert!(answer.peers.iter().all(can_be_called), "{:?}", answer.peers);
        let again = AnnounceResponse::decode(&answer.encode()).expect("our own");
        assert_eq!(plain(&again.peers), plain(&answer.peers));
        assert_eq!(
            AnnounceResponse { peers: Vec::new(), ..again },
            AnnounceResponse { peers: Vec::new(), ..answer }
        );
    }
    let failure = AnnounceResponse::decode(&encode_failure(&query));
    let shown = failure.expect_err("a failure").to_string();
    assert!(!shown.chars().any(is_unsafe), "{shown:?}");
}

fn plain(peers: &[SocketAddr]) -> BTreeSet<(IpAddr, u16)> {
    peers.iter().map(|peer| (peer.ip().to_canonical(), peer.port())).collect()
}

fn can_be_called(peer: &SocketAddr) -> bool {
    let ip = peer.ip().to_canonical();
    let broadcast = matches!(ip, IpAddr::V4(ip) if ip.is_broadcast());
    !ip.is_multicast() && !ip.is_unspecified() && !broadcast && peer.port() > 0
}

pub fn tracker_seeds() -> Vec<Vec<u8>> {
    let announce = Announce {
        info_hash: Digest::of(b"x"),
        peer_id: *b"-GC0001-P00000010001",
        port: 5000,
        left: Some(7),
        event: AnnounceEvent::Started,
        wanted: 50,
        uploaded: 9,
        received_from: vec![(*b"-GC0001-S00000000000", 5), ([0xff; 20], 7)],
    };
    let v6 = "[2001:db8::1]:5000".parse().expect("an address");
    let peers = (0..5).map(|n| ([10, 0, 0, n], 5000).into()).chain([v6]).collect();
    let answer = AnnounceResponse { complete: 3, incomplete: 4, interval: 5, peers };
    let named = Dictionary::default()
        .integer("interval", 5)
        .raw("peers", b"ld2:ip8:10.0.0.14:porti5000eeld2:ip3:::14:porti5000eee".to_vec());
    vec![
        announce.encode().into_bytes(),
        answer.encode(),
        named.finish(),
        b"d8:intervali5e5:peersld2:ip8:10.0.0.14:porti5000eed2:ip3:::14:porti5000eeee".to_vec(),
        format!("info_hash={0}&info_hash={0}", "%41".repeat(20)).into_bytes(),
        encode_failure("no such torrent"),
    ]
}
