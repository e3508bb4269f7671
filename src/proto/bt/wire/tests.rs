use proptest::prelude::*;

use super::*;

const LIMITS: MessageLimits = MessageLimits { pieces: 10, fast: true };

const SLOW: MessageLimits = MessageLimits { pieces: 10, fast: false };

const BLOCK_1: Block = Block { piece: 1, begin: 16384, len: 16384 };

fn messages() -> Vec<Message<'static>> {
    vec![
        Message::KeepAlive,
        Message::Choke,
        Message::Unchoke,
        Message::Interested,
        Message::NotInterested,
        Message::Have(9),
        Message::Bitfield(&[0xff, 0xc0]),
        Message::Request(BLOCK_1),
        Message::Piece(3, 7, b"payload"),
        Message::Piece(3, 7, &[7; BLOCK_LEN as usize]),
        Message::Cancel(BLOCK_1),
        Message::HaveAll,
        Message::HaveNone,
        Message::Reject(BLOCK_1),
        Message::Extended(0, b"de"),
        Message::Other(77),
    ]
}

#[test]
fn every_message_round_trips_however_it_is_split() {
    let mut stream = Vec::new();
    messages().iter().for_each(|message| message.encode(&mut stream));
    let mut at = 0;
    for message in messages() {
        let rest = &stream[at..];
        let len = frame_len(rest, LIMITS).expect("short").expect("whole");
        for cut in 0..len {
            assert_eq!(frame_len(&rest[..cut], LIMITS), Ok(None), "{message:?} at {cut}");
        }
        assert_eq!(Message::decode(&rest[4..len], LIMITS), Ok(message));
        at += len;
    }
    assert_eq!(at, stream.len());
}

#[test]
fn handshake_has_68_bytes_and_tells_what_its_sender_can() {
    let ours = Handshake::new(Digest::of(b"x"), *b"-GC0001-abcdefghijkl");
    let bytes = ours.encode();
    assert_eq!(Handshake::decode(&bytes), Ok(ours));
    assert!(ours.fast() && ours.extended() && ours.is_gatecast());
    for (at, byte) in [(0, 0), (0, 255), (1, b'b'), (19, b'x')] {
        let mut wrong = bytes;
        wrong[at] = byte;
        assert!(Handshake::decode(&wrong).is_err(), "{at}");
    }
    let mut foreign = bytes;
    foreign[20..28].fill(0);
    foreign[48..56].copy_from_slice(b"-TR3000-");
    let foreign = Handshake::decode(&foreign).expect("a handshake");
    assert!(!foreign.fast() && !foreign.extended() && !foreign.is_gatecast());
}

#[test]
fn invalid_message_lengths_are_refused() {
    for (id, wrong) in [
        (0, vec![1]),
        (1, vec![1]),
        (2, vec![1]),
        (3, vec![1]),
        (4, vec![0; 3]),
        (4, vec![0; 5]),
        (5, vec![0; 1]),
        (5, vec![0; 3]),
        (6, vec![0; 11]),
        (6, vec![0; 13]),
        (7, vec![0; 7]),
        (7, vec![0; 8 + BLOCK_LEN as usize + 1]),
        (8, vec![0; 0]),
        (9, vec![0; 1]),
        (13, vec![0; 3]),
        (14, vec![0]),
        (15, vec![0]),
        (16, vec![0; 4]),
        (17, vec![0; 8]),
        (20, vec![]),
    ] {
        let frame: Vec<u8> = std::iter::once(id).chain(wrong).collect();
        assert!(Message::decode(&frame, LIMITS).is_err(), "{id}");
    }
    for id in [14, 15] {
        assert!(Message::decode(&[id], SLOW).is_err(), "{id} was not agreed upon");
    }
}

#[test]
fn too_long_message_is_refused_before_it_is_complete() {
    for len in [u32::MAX, 1 << 31, LIMITS.max_len() as u32 + 1] {
        assert!(frame_len(&len.to_be_bytes(), LIMITS).is_err(), "{len}");
    }
    let longest = LIMITS.max_len() as u32;
    assert_eq!(frame_len(&longest.to_be_bytes(), LIMITS), Ok(None));
    let many = MessageLimits { pieces: crate::proto::bt::metainfo::PIECES_MAX, fast: true };
    let bitfield = 1 + many.pieces / 8;
    assert_eq!(frame_len(&bitfield.to_be_bytes(), many), Ok(None), "the largest honest bitfield");
    assert!(frame_len(&(bitfield + 1).to_be_bytes(), many).is_err());
}

#[test]
fn extended_handshake_ignores_invalid_values() {
    let ours = ExtendedHandshake {
        port: Some(6881),
        requests: Some(500),
        program: Some("gatecast".to_owned()),
    };
    assert_eq!(ExtendedHandshake::decode(&ours.encode()), Ok(ours));
    assert_eq!(
        ExtendedHandshake::decode(b"d1:pi99999e4:reqqi-5e1:vi1ee"),
        Ok(ExtendedHandshake::default())
    );
    assert!(ExtendedHandshake::decode(b"d1:p").is_err());
    assert!(ExtendedHandshake::decode("l".repeat(20_000).as_bytes()).is_err());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(20_000))]

    #[test]
    fn random_frames_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..64), id in 0u8..22) {
        let framed: Vec<u8> = std::iter::once(id).chain(bytes.iter().copied()).collect();
        for limits in [LIMITS, SLOW] {
            let _ = Message::decode(&bytes, limits);
            let _ = Message::decode(&framed, limits);
            let _ = frame_len(&bytes, limits);
        }
        let _ = ExtendedHandshake::decode(&bytes);
    }
}
