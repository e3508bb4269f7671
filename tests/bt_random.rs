//! The parsers of the swarm with random input: half of it noise, half of it honest messages with a
//! few bytes changed, cut or inserted. None may panic, and none may allocate more than a bound that
//! grows with the input only. An allocator that counts checks the bound, so this is a binary of its
//! own.
//!
//! `cargo test --release --test bt_random -- --nocapture` prints how many inputs there were. The
//! variable `GATECAST_INPUTS=1000000` sets how many each parser gets.

#![allow(unsafe_code, reason = "an allocator that counts cannot be written without")]

use std::{
    alloc::{GlobalAlloc, Layout, System},
    cell::Cell,
    panic::{AssertUnwindSafe, catch_unwind},
};

use gatecast::internals::{
    digest::Digest,
    proto::bt::{
        bencode,
        bitfield::Bitfield,
        metainfo::Metainfo,
        random::Random,
        tracker,
        tracker::{
            announce::{Announce, AnnounceEvent},
            response::AnnounceResponse,
        },
        wire,
        wire::{Block, ExtendedHandshake, HANDSHAKE_LEN, Handshake, Message, MessageLimits},
    },
    text::FileName,
};

/// Counts what this thread holds, and the most that it held.
struct Counting;

thread_local! {
    static HELD: Cell<usize> = const { Cell::new(0) };
    static MOST: Cell<usize> = const { Cell::new(0) };
}

fn more(bytes: usize) {
    // A thread that is ending has no thread-local values any more.
    let _ = HELD.try_with(|held| {
        held.set(held.get().saturating_add(bytes));
        let _ = MOST.try_with(|most| most.set(most.get().max(held.get())));
    });
}

fn less(bytes: usize) {
    let _ = HELD.try_with(|held| held.set(held.get().saturating_sub(bytes)));
}

// SAFETY: every call goes to the system's allocator with the arguments it came with; counting
// touches two cells that need no allocation.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        more(layout.size());
        // SAFETY: the caller keeps the contract of `alloc`, which is passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        less(layout.size());
        // SAFETY: `at` came from `alloc` above with this layout.
        unsafe { System.dealloc(at, layout) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

/// Inputs for each parser, unless the environment says otherwise.
const INPUTS: u32 = 50_000;

/// Longest input, bytes.
const LONGEST: usize = 4096;

/// What a parser may hold: so many bytes for each byte of its input, and a little. A list of
/// two-byte items is the worst: an item is a hundred bytes, in a vector that doubles.
const PER_BYTE: usize = 256;
const AND: usize = 4096;

fn noise(random: &mut Random) -> Vec<u8> {
    let len = random.below(LONGEST);
    // Bytes that have a meaning in bencode and queries come more often than others.
    const TELLING: &[u8] = b"ilde0123456789:-%&=infopiecesname";
    (0..len)
        .map(|_| match random.below(3) {
            0 => u8::try_from(random.below(256)).expect("a byte"),
            _ => TELLING[random.below(TELLING.len())],
        })
        .collect()
}

fn changed(random: &mut Random, honest: &[u8]) -> Vec<u8> {
    let mut bytes = honest.to_vec();
    for _ in 0..=random.below(4) {
        let at = random.below(bytes.len().max(1));
        match random.below(5) {
            _ if bytes.is_empty() => {}
            0 => bytes.truncate(at),
            1 => bytes[at] = u8::try_from(random.below(256)).expect("a byte"),
            2 => bytes[at] = b'0' + u8::try_from(random.below(10)).expect("a digit"),
            3 => {
                bytes.remove(at);
            }
            _ => {
                let some = noise(random);
                let some = &some[..some.len().min(8)];
                bytes.splice(at..at, some.iter().copied());
            }
        }
    }
    bytes
}

/// Feeds `parser`. Prints how many inputs there were, how many it accepted, and the most bytes held
/// for one byte of input.
fn feed(name: &str, honest: &[Vec<u8>], parser: impl Fn(&[u8]) -> bool) {
    let inputs = std::env::var("GATECAST_INPUTS")
        .ok()
        .map_or(INPUTS, |text| text.parse().expect("a number of inputs"));
    let mut random = Random::new(u64::from(inputs) ^ name.len() as u64);
    let (mut taken, mut most) = (0, 0);
    for one in honest {
        assert!(parser(one), "{name}: an honest one is taken");
    }
    for number in 0..inputs {
        let input = match number % 2 {
            0 => noise(&mut random),
            _ => {
                let one = &honest[random.below(honest.len())];
                changed(&mut random, one)
            }
        };
        let before = HELD.get();
        MOST.set(before);
        let parsed = catch_unwind(AssertUnwindSafe(|| parser(&input)));
        let held = MOST.get() - before;
        taken += u32::from(parsed.unwrap_or_else(|_| panic!("{name} panics at {input:?}")));
        assert!(
            held <= PER_BYTE * input.len() + AND,
            "{name}: {held} bytes for {} of {input:?}",
            input.len()
        );
        most = most.max(held);
    }
    println!(
        "{name:<20} {inputs:>9} random inputs, {taken:>7} of them taken, no panic, at most {most} bytes held"
    );
    assert!(taken < inputs, "{name} takes anything");
}

fn torrent() -> Metainfo {
    let name = FileName::new("f.bin").expect("a name");
    let pieces = (0..20u8).map(|piece| Digest::of(&[piece])).collect();
    Metainfo::new(name, 20 << 14, 1 << 14, pieces).expect("a torrent")
}

#[test]
fn bencode_and_torrents_survive_random_bytes() {
    let torrent = torrent().encode(Some("http://10.0.0.1:8080/announce"), Some("http://a/f"));
    let all = [
        torrent.clone(),
        b"d1:ali1ei-5e0:e1:bd1:cleee".to_vec(),
        b"l".repeat(8).into_iter().chain(b"i0e".repeat(500)).chain(b"e".repeat(8)).collect(),
    ];
    feed("bencode", &all, |bytes| bencode::decode(bytes).is_ok());
    feed("metainfo", &[torrent], |bytes| Metainfo::decode(bytes).is_ok());
}

#[test]
fn tracker_parsers_survive_random_bytes() {
    let answer = AnnounceResponse {
        complete: 3,
        incomplete: 4,
        interval: 5,
        peers: (0..50).map(|n| ([10, 0, 0, n], 5000).into()).collect(),
    };
    let named = b"d8:intervali5e5:peersld2:ip8:10.0.0.14:porti5000eeee".to_vec();
    feed("tracker answer", &[answer.encode(), named], |bytes| {
        AnnounceResponse::decode(bytes).is_ok()
    });
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
    feed("tracker request", &[announce.encode().into_bytes()], |bytes| {
        Announce::decode(&String::from_utf8_lossy(bytes)).is_ok()
    });
    let scrape = format!("info_hash={}", "%41".repeat(20)).into_bytes();
    feed("scrape request", &[scrape], |bytes| {
        let hashes = tracker::scrape::decode_query(&String::from_utf8_lossy(bytes));
        hashes.is_ok_and(|hashes| !hashes.is_empty())
    });
}

#[test]
fn peer_parsers_survive_random_bytes() {
    let limits = MessageLimits { pieces: 20, fast: true };
    let block = Block { piece: 1, begin: 0, len: 16_384 };
    let introduction = ExtendedHandshake {
        port: Some(5000),
        requests: Some(500),
        program: Some("gatecast".to_owned()),
    }
    .encode();
    let words = [
        Message::KeepAlive,
        Message::Unchoke,
        Message::Have(3),
        Message::Bitfield(&[0xff, 0xff, 0xf0]),
        Message::Request(block),
        Message::Piece(1, 0, &[7; 900]),
        Message::Reject(block),
        Message::HaveAll,
        Message::Extended(0, &introduction),
    ];
    let honest: Vec<Vec<u8>> = words
        .iter()
        .map(|word| {
            let mut bytes = Vec::new();
            word.encode(&mut bytes);
            bytes
        })
        .collect();
    // As a link reads them: frame after frame, up to the first that is invalid.
    feed("wire messages", &honest, |bytes| {
        let mut rest = bytes;
        let mut heard = 0;
        loop {
            match wire::frame_len(rest, limits) {
                Ok(Some(len)) => {
                    let Ok(message) = Message::decode(&rest[4..len], limits) else {
                        return false;
                    };
                    match message {
                        Message::Extended(0, body) if ExtendedHandshake::decode(body).is_err() => {
                            return false;
                        }
                        Message::Bitfield(body) if Bitfield::decode(20, body).is_none() => {
                            return false;
                        }
                        _ => heard += 1,
                    }
                    rest = &rest[len..];
                }
                Ok(None) => return heard > 0,
                Err(_) => return false,
            }
        }
    });
    let hello = Handshake::new(Digest::of(b"x"), *b"-XX0001-abcdefghijkl").encode();
    feed("handshake", &[hello.to_vec()], |bytes| {
        bytes.first_chunk::<HANDSHAKE_LEN>().is_some_and(|bytes| Handshake::decode(bytes).is_ok())
    });
}
