use proptest::prelude::*;

use super::*;
use crate::{
    proto::native::probe::{BURST_MAX, STEPS_MAX, TRAIN_HEAD, TrainHead},
    session::MAX_SEATS,
    transfer::auto::AUTO_WAYS,
};

fn file() -> FileInfo {
    FileInfo {
        name: FileName::new("100 MB é=%.bin").expect("plain"),
        bytes: 100_000_000,
        sha1: Digest::of(b"x"),
    }
}

fn line(bytes: Vec<u8>) -> String {
    let text = String::from_utf8(bytes).expect("lines are text");
    assert!(text.len() <= crate::proto::line::LINE_MAX);
    // tests/dissector shows it to Wireshark's dissector.
    println!("wire-tcp {}", text.trim_end());
    text.strip_suffix('\n').expect("lines end").to_owned()
}

#[test]
fn openings_come_back() {
    let joins = [
        Join {
            file: None,
            group: 1,
            via: None,
            name: ClientName::new("a").expect("short"),
            takes_trees: false,
            ways: Vec::new(),
            auto: false,
        },
        Join {
            file: Some(FileName::new(&"é".repeat(127)).expect("longest")),
            group: MAX_SEATS,
            via: Some(Via::Multicast),
            name: ClientName::new("\u{1b}[2J =%\n|").expect("any text"),
            takes_trees: true,
            ways: AUTO_WAYS.to_vec(),
            auto: true,
        },
    ];
    let others = [ClientHello::List, ClientHello::Echo, ClientHello::Challenge(Challenge(0xab))];
    for opening in joins.map(ClientHello::Join).into_iter().chain(others) {
        assert_eq!(ClientHello::decode(&line(opening.encode())), Ok(opening));
    }
}

#[test]
fn the_wire_is_what_the_document_says() {
    let join = Join {
        file: Some(file().name),
        group: 25,
        via: Some(Via::Tcp),
        name: ClientName::new("pc 7").expect("short"),
        takes_trees: true,
        ways: AUTO_WAYS.to_vec(),
        auto: true,
    };
    assert_eq!(
        line(ClientHello::Join(join).encode()),
        "GATECAST/1 JOIN file=100%20MB%20%C3%A9%3D%25.bin group=25 via=tcp name=pc%207 tree=yes \
         ways=tcp,multicast,swarm auto=yes"
    );
    assert_eq!(line(FromServer::Go { bytes: 17 }.encode()), "GO bytes=17");
    assert_eq!(line(FromClient::Held.encode()), "HELD");
}

#[test]
fn every_message_of_a_client_comes_back() {
    let receipt = Receipt {
        bytes: u64::MAX,
        sha1: Digest::of(b"y"),
        last: Duration::from_micros(1),
        hashed: Duration::from_secs(2),
        durable: None,
        first: Some((ClockId(u64::MAX), Moment(0))),
        counts: Counts::from_values([Some(u64::MAX); Counts::NAMES.len()]),
        evidence: Evidence::from_values([Some(u64::MAX); Evidence::NAMES.len()]),
    };
    for message in [
        FromClient::Proof(Digest::of(b"p")),
        FromClient::Ready { offset: 0 },
        FromClient::Held,
        FromClient::Heard(HeardStep {
            step: STEPS_MAX - 1,
            datagrams: u32::MAX,
            span_us: u64::MAX,
            tail: 0,
            tail_us: 1,
        }),
        FromClient::Probed { datagrams: u32::MAX },
        FromClient::Alive { bytes: 5 },
        FromClient::Last { bytes: 6 },
        FromClient::Hashed { sha1: Digest::of(b"z") },
        FromClient::Receipt(Receipt {
            durable: Some(Duration::from_secs(3)),
            first: None,
            counts: Counts::default(),
            evidence: Evidence::default(),
            ..receipt.clone()
        }),
        FromClient::Receipt(receipt),
        FromClient::Fail {
            outcome: Outcome::Cut,
            bytes: 7,
            reason: "disk full\n".to_owned(),
            last: Some(Duration::from_micros(3)),
            counts: Counts { lost: Some(3), ..Counts::default() },
        },
    ] {
        assert_eq!(FromClient::decode(&line(message.encode())), Ok(message));
    }
}

#[test]
fn every_message_of_a_server_comes_back() {
    let summary = Summary {
        outcome: Outcome::Complete,
        reason: None,
        bytes: 9,
        last: Some(Duration::from_micros(10)),
        woke: Duration::ZERO,
        first: None,
        sender: "sendfile, bbr".to_owned(),
        counts: Counts::from_values([Some(u64::MAX); Counts::NAMES.len()]),
        evidence: Evidence::default(),
    };
    let longest: IpAddr = "2001:db8:1111:2222:3333:4444:5555:6666".parse().expect("valid");
    for message in [
        FromServer::Challenge(Challenge(u128::MAX)),
        FromServer::Proof(Digest::of(b"p")),
        FromServer::Peers(vec![longest; ADDRESSES_MAX]),
        FromServer::Peers(vec!["10.0.0.7".parse().expect("valid"), longest]),
        FromServer::Offer(Offer {
            session: SessionId(1),
            seat: SeatId(1),
            clients: MAX_SEATS,
            run: Some(u64::MAX),
            via: Via::Tcp,
            file: file(),
            tree: Some(500_000),
        }),
        FromServer::File { file: FileInfo { bytes: SIZE_MAX, ..file() }, is_tree: false },
        FromServer::File { file: file(), is_tree: true },
        FromServer::End(ListEnd::default()),
        FromServer::End(ListEnd {
            run: Some(0),
            clients: Some(MAX_SEATS),
            file: Some(file().name),
        }),
        FromServer::Wait { ready: 0, clients: 25 },
        FromServer::Go { bytes: 0 },
        FromServer::Summary(Summary { reason: Some("é".repeat(150)), ..summary.clone() }),
        // A way has counters, or its payload goes over the connection.
        FromServer::Summary(Summary {
            reason: Some("é".repeat(150)),
            counts: Counts::default(),
            evidence: Evidence::from_values([Some(u64::MAX); Evidence::NAMES.len()]),
            ..summary.clone()
        }),
        FromServer::Summary(summary),
        FromServer::Error { code: ErrorCode::Muster, reason: "3 of 25".to_owned() },
    ] {
        assert_eq!(FromServer::decode(&line(message.encode())), Ok(message));
    }
}

#[test]
fn a_long_reason_is_clipped_to_whole_characters() {
    let message = FromServer::Error { code: ErrorCode::Refused, reason: "é".repeat(1000) };
    let FromServer::Error { reason, .. } =
        FromServer::decode(&line(message.encode())).expect("own")
    else {
        panic!("another message")
    };
    assert_eq!(reason, "é".repeat(150));
}

#[test]
fn wrong_openings_are_refused_with_the_value() {
    for (text, says) in [
        ("GATECAST/2 JOIN group=1 name=a", "GATECAST/2"),
        ("GATECAST/0", "GATECAST/0"),
        ("GATECAST/1", "JOIN or LIST"),
        ("GATECAST/1 READY offset=0", "READY"),
        ("GATECAST/1 JOIN name=a", "group"),
        ("GATECAST/1 JOIN group=0 name=a", "group=0"),
        ("GATECAST/1 JOIN group=10001 name=a", "group=10001"),
        ("GATECAST/1 JOIN group=-1 name=a", "-1"),
        ("GATECAST/1 JOIN group=1 name=", "empty"),
        ("GATECAST/1 JOIN group=1 name=a file=..%2Fx", "separator"),
        ("GATECAST/1 JOIN group=1 name=a file=x%00", "control"),
        ("GATECAST/1 JOIN group=1 name=a file=", "empty"),
        ("GATECAST/1 JOIN group=1 name=a via=pigeon", "tcp, udp"),
        ("GATECAST/1 JOIN group=1 group=2 name=a", "twice"),
        ("GATECAST/1 CHALLENGE", "without random"),
        ("GATECAST/1 CHALLENGE random=ff", "32 lower-case"),
    ] {
        let error = ClientHello::decode(text).expect_err(text).to_string();
        assert!(error.contains(says), "{text}: {error}");
    }
}

#[test]
fn wrong_or_too_many_addresses_are_refused() {
    for (at, says) in [
        (String::new(), "a wrong address"),
        ("10.0.0.1,".to_owned(), "a wrong address"),
        ("10.0.0.1:80".to_owned(), "a wrong address"),
        (vec!["10.0.0.1"; ADDRESSES_MAX + 1].join(","), "more than 40 addresses"),
        (vec!["10.0.0.1"; ADDRESSES_MAX + 9].join(","), "a wrong address"),
    ] {
        let error = FromServer::decode(&format!("PEERS at={at}")).expect_err(&at).to_string();
        assert!(error.contains(says), "{at}: {error}");
    }
    assert!(FromServer::decode("PEERS").is_err());
}

#[test]
fn last_words_are_found_only_at_the_end_of_their_session() {
    let words = encode_last_words(SessionId(5), "the source was truncated");
    assert!(words.len() <= LAST_WORDS_MAX);
    assert!(encode_last_words(SessionId(5), &"\n".repeat(1000)).len() <= LAST_WORDS_MAX);
    let mut tail = b"payload".to_vec();
    tail.extend(&words);
    assert_eq!(
        decode_last_words(SessionId(5), &tail),
        Some((words.len(), "the source was truncated".to_owned()))
    );
    assert_eq!(decode_last_words(SessionId(6), &tail), None);
    assert_eq!(decode_last_words(SessionId(5), &tail[..tail.len() - 1]), None);
    assert_eq!(decode_last_words(SessionId(5), b""), None);
}

proptest! {
    #[test]
    fn any_line_is_a_message_or_an_error(text in "[A-Z]{0,8}( [a-z_0-9]{0,8}=[ -~]{0,12}){0,5}") {
        let _ = (ClientHello::decode(&text), FromClient::decode(&text), FromServer::decode(&text));
        let _ = ClientHello::decode(&format!("{GREETING} {text}"));
    }
}

#[test]
fn measurement_lines_are_read_back_up_to_their_limits() {
    for group in [None, "239.255.1.2:1024".parse().ok()] {
        let probe = FromServer::Probe(GroupProbe { group, random: u64::MAX });
        assert_eq!(FromServer::decode(&line(probe.encode())), Ok(probe));
    }
    for message in
        [FromServer::Burst { bytes: 0 }, FromServer::Burst { bytes: BURST_MAX }, FromServer::Probed]
    {
        assert_eq!(FromServer::decode(&line(message.encode())), Ok(message));
    }
    for text in [
        "PROBE group=192.0.2.1:5000 random=0",
        "PROBE group=239.255.1.2:1023 random=0",
        "PROBE group=239.255.1.2:5000",
        "PROBE random=g",
        "BURST",
        "BURST bytes=16385",
        "BURST bytes=-1",
    ] {
        assert!(FromServer::decode(text).is_err(), "{text}");
    }
    for text in [
        "HEARD step=32 datagrams=1 span_us=1 tail=1 tail_us=1",
        "HEARD step=0 datagrams=4294967296 span_us=1 tail=1 tail_us=1",
        "HEARD step=0",
        "PROBED",
    ] {
        assert!(FromClient::decode(text).is_err(), "{text}");
    }
    let later = "GATECAST/1 JOIN group=1 name=c ways=chain,swarm,udp,swarm";
    let Ok(ClientHello::Join(join)) = ClientHello::decode(later) else { panic!("a join") };
    assert_eq!(join.ways, [Via::Swarm]);
}

#[test]
fn datagram_of_another_train_is_not_counted() {
    let head = TrainHead { random: 7, step: STEPS_MAX - 1, number: 8, of: 9 };
    let read = |head: TrainHead| {
        let mut datagram = [0; TRAIN_HEAD];
        head.encode(&mut datagram);
        TrainHead::decode(&datagram, 7)
    };
    assert_eq!(read(head), Some(head));
    assert_eq!(read(TrainHead { random: 8, ..head }), None);
    assert_eq!(read(TrainHead { step: STEPS_MAX, ..head }), None);
    assert_eq!(read(TrainHead { number: 9, ..head }), None);
    assert_eq!(TrainHead::decode(&[0; TRAIN_HEAD - 1], 0), None);
}
