use proptest::prelude::*;

use super::*;
use crate::digest::Digest;
use crate::proto::udp::cookie::KEY;
use crate::proto::udp::cookie::SLICE;
use crate::proto::udp::greet::HEADER;
use crate::proto::udp::greet::HELLO;
use crate::proto::udp::greet::REASON_MAX;
use crate::proto::udp::packet::DATAGRAM_MAX;
use crate::proto::udp::packet::PacketError;
use crate::session::FileInfo;
use crate::session::SessionId;

const NOW: Moment = Moment(100_000_000);

fn address(text: &str) -> SocketAddr {
    text.parse().expect("an address")
}

fn door() -> Door {
    Door::new(Cookies::new([3; KEY]))
}

fn name(text: &str) -> FileName {
    FileName::new(text).expect("harmless")
}

fn welcome(file: &str) -> Welcome {
    Welcome {
        session: SessionId(0x0102_0304_0506_0708),
        datagram: 1472,
        file: FileInfo {
            name: name(file),
            bytes: u64::MAX,
            sha1: Digest::of(b"x"),
        },
    }
}

#[test]
fn the_bytes_are_as_the_table_says() {
    let greet = |word| {
        Greet {
            nonce: 0x0a0b,
            word,
        }
        .encode()
    };
    let hello = greet(Word::Hello {
        cookie: [9; COOKIE],
        buffer: 258,
        file: Some(name("f")),
    });
    assert_eq!(&hello[..12], b"\x0c\x47\x01\x08\0\0\0\0\0\0\x0a\x0b");
    assert_eq!(
        &hello[12..34],
        b"\x09\x09\x09\x09\x09\x09\x09\x09\x09\x09\x09\x09\x09\x09\x09\x09\0\0\x01\x02\x01f"
    );
    assert!(hello.len() == HELLO && hello[34..].iter().all(|&byte| byte == 0));
    assert_eq!(greet(Word::Cookie([5; COOKIE])).len(), HEADER + COOKIE);
    let told = greet(Word::Welcome(welcome("f")));
    assert_eq!(told[12..20], [1, 2, 3, 4, 5, 6, 7, 8]);
    assert_eq!(told[28..30], [5, 192]);
    assert_eq!(told[50..], *b"f");
    assert_eq!(
        greet(Word::Line("LAST bytes=1\n")),
        b"\x0c\x47\x01\x0c\0\0\0\0\0\0\x0a\x0bLAST bytes=1"
    );
    assert_eq!(greet(Word::Heard).len(), HEADER);
}

#[test]
fn no_answer_is_longer_than_what_asked_for_it() {
    let longest = "n".repeat(255);
    for word in [
        Word::Cookie([0; COOKIE]),
        Word::Welcome(welcome(&longest)),
        Word::Refused(&"é".repeat(1000)),
        Word::Heard,
    ] {
        let bytes = Greet { nonce: 1, word }.encode();
        assert!(bytes.len() <= HEADER + REASON_MAX && bytes.len() < HELLO / 2);
        Greet::decode(&bytes).expect("what is written is read");
    }
}

#[test]
fn a_client_that_receives_where_it_says_is_let_in() {
    let (door, here) = (door(), address("192.0.2.1:5000"));
    let mut knock = Knock::new(7, Some(name("f.bin")), 1 << 40, NOW);
    let hello = knock.poll_transmit(NOW).expect("at once");
    assert_eq!(knock.poll_transmit(NOW), None, "then it waits");
    let Comes::Stranger(cookie) = door.handle(&hello, here, NOW) else {
        panic!("a guest without a cookie");
    };
    assert_eq!(knock.handle(&cookie, NOW), Ok(None));
    let hello = knock.poll_transmit(NOW).expect("with the cookie, at once");
    let guest = Comes::Guest {
        nonce: 7,
        buffer: u32::MAX,
        file: Some(name("f.bin")),
    };
    assert_eq!(door.handle(&hello, here, NOW), guest);
    assert_eq!(door.handle(&hello, here, NOW), guest, "and once more");
    assert_eq!(knock.handle(&cookie, NOW), Ok(None));
    assert_eq!(knock.poll_transmit(NOW), None, "the same cookie is no news");

    // Replayed from another address, or long after, it is a stranger's.
    for (from, at) in [
        (address("192.0.2.2:5000"), NOW),
        (address("192.0.2.1:5001"), NOW),
        (here, NOW.after(SLICE * 2)),
    ] {
        assert!(
            matches!(door.handle(&hello, from, at), Comes::Stranger(_)),
            "{from} {at:?}"
        );
    }
    // And a client whose cookie is too old gets a new one, and gets in.
    let late = NOW.after(SLICE * 2);
    let hello = knock.poll_transmit(late).expect("due");
    let Comes::Stranger(cookie) = door.handle(&hello, here, late) else {
        panic!("an old cookie is no cookie");
    };
    assert_eq!(knock.handle(&cookie, late), Ok(None));
    let hello = knock.poll_transmit(late).expect("at once");
    assert_eq!(door.handle(&hello, here, late), guest);

    let told = |word| Greet { nonce: 7, word }.encode();
    let yes = told(Word::Welcome(welcome("f.bin")));
    assert_eq!(knock.handle(&yes, late), Ok(Some(welcome("f.bin"))));
    let no = told(Word::Refused("no room"));
    assert_eq!(knock.handle(&no, late), Err("no room".to_owned()));
    let others = Greet {
        nonce: 8,
        word: Word::Refused("no room"),
    }
    .encode();
    assert_eq!(knock.handle(&others, late), Ok(None), "to another client");
}

#[test]
fn a_server_that_is_silent_is_asked_ever_more_seldom() {
    let mut knock = Knock::new(7, None, 0, NOW);
    let (mut now, mut asked) = (NOW, 0);
    while now < NOW.after(Duration::from_secs(20)) {
        now = now.max(knock.poll_timeout());
        assert_eq!(
            knock.poll_transmit(now).map(|hello| hello.len()),
            Some(HELLO)
        );
        asked += 1;
    }
    assert!((10..15).contains(&asked), "{asked}");
}

#[test]
fn a_datagram_of_every_length_is_refused_or_read() {
    let (door, from) = (door(), address("[2001:db8::1]:9"));
    let mut knock = Knock::new(7, None, 0, NOW);
    let hello = knock.poll_transmit(NOW).expect("at once");
    let line = Greet {
        nonce: 7,
        word: Word::Line("LAST bytes=1"),
    }
    .encode();
    let told = Greet {
        nonce: 7,
        word: Word::Welcome(welcome("f.bin")),
    }
    .encode();
    for start in [hello, line, told, vec![0; 3], vec![0xff; 3]] {
        let mut whole = start.clone();
        whole.resize(usize::from(DATAGRAM_MAX), 0);
        for len in 0..=whole.len() {
            let bytes = &whole[..len];
            let stranger = matches!(door.handle(bytes, from, NOW), Comes::Stranger(_));
            assert!(!stranger || len == HELLO, "{len}");
            let _ = knock.handle(bytes, NOW);
        }
    }
}

#[test]
fn impossible_greetings_are_refused() {
    let good = Knock::new(7, Some(name("f")), 0, NOW)
        .poll_transmit(NOW)
        .expect("at once");
    let with = |at: usize, byte: u8| {
        let mut bad = good.clone();
        bad[at] = byte;
        Greet::decode(&bad).err()
    };
    for (at, byte) in [(0, 0x47), (2, 2)] {
        assert_eq!(with(at, byte), Some(PacketError::Foreign));
    }
    // Kinds of data and none; a name that opens another file, or is none; no zeros behind it.
    for (at, byte) in [
        (3, 1),
        (3, 14),
        (33, b'/'),
        (33, 0),
        (33, 0xff),
        (32, 2),
        (HELLO - 1, 1),
    ] {
        assert!(
            matches!(with(at, byte), Some(PacketError::Damaged(_))),
            "{at} {byte}"
        );
    }
    for (kind, body) in [
        (9, vec![0; COOKIE + 1]),
        (10, vec![0; 37]),
        (10, vec![0; 60]),
        (11, vec![b'x'; REASON_MAX + 1]),
        (12, vec![b'x'; crate::proto::line::LINE_MAX + 1]),
        (12, b"two\nlines".to_vec()),
        (12, vec![0xff]),
        (13, vec![0]),
    ] {
        let mut bad = good[..HEADER].to_vec();
        bad[3] = kind;
        bad.extend(body);
        assert!(
            matches!(Greet::decode(&bad), Err(PacketError::Damaged(_))),
            "{kind}"
        );
    }
}

/// What a client at a forged address may have: everything but a cookie that came to it there.
fn forged() -> impl Strategy<Value = (Vec<u8>, u64)> {
    let at = 0..SLICE.as_micros() as u64 * 4;
    let hello =
        (any::<u64>(), any::<[u8; COOKIE]>(), any::<u8>()).prop_map(|(nonce, cookie, how)| {
            let here = address("198.51.100.1:7");
            let cookie = match how % 4 {
                0 => [0; COOKIE],
                1 => cookie,
                // Its own, for where it really is; and one of another server.
                2 => Cookies::new([3; KEY]).make(here, nonce, NOW),
                _ => Cookies::new([4; KEY]).make(address("192.0.2.1:5000"), nonce, NOW),
            };
            let word = Word::Hello {
                cookie,
                buffer: 0,
                file: None,
            };
            Greet { nonce, word }.encode()
        });
    let cut = hello
        .clone()
        .prop_flat_map(|hello| (0..hello.len()).prop_map(move |len| hello[..len].to_vec()));
    let line = any::<u64>().prop_map(|nonce| {
        Greet {
            nonce,
            word: Word::Line("READY offset=0"),
        }
        .encode()
    });
    let noise = prop::collection::vec(any::<u8>(), 0..1400);
    (prop_oneof![hello, cut, line, noise], at)
}

proptest! {
    #[test]
    fn nobody_is_sent_more_than_came_from_its_address(
        datagrams in prop::collection::vec(forged(), 0..40),
    ) {
        let (door, from) = (door(), address("192.0.2.1:5000"));
        let (mut came, mut sent) = (0, 0);
        for (datagram, at) in datagrams {
            came += datagram.len();
            match door.handle(&datagram, from, Moment(NOW.0 + at)) {
                Comes::Nobody => {}
                Comes::Stranger(answer) => sent += answer.len(),
                // The caller answers no line of somebody who is no guest.
                Comes::Line { .. } => {}
                Comes::Guest { nonce, .. } => prop_assert!(false, "{nonce} was let in"),
            }
            prop_assert!(sent <= came, "{sent} for {came}");
        }
    }

    #[test]
    fn no_bytes_make_the_decoder_panic_and_what_it_reads_is_what_was_written(
        mut bytes in prop::collection::vec(any::<u8>(), 0..100), ours: bool,
    ) {
        if ours && bytes.len() > 4 {
            bytes[..3].copy_from_slice(&[0x0c, 0x47, 1]);
            bytes[3] = 8 + bytes[3] % 7;
        }
        if let Ok(greet) = Greet::decode(&bytes) {
            prop_assert_eq!(greet.encode(), bytes);
        }
    }
}
