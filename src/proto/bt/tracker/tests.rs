use std::net::Ipv4Addr;

use proptest::prelude::*;

use super::{
    announce::{Announce, AnnounceEvent, PEERS_DEFAULT},
    response::{AnnounceResponse, PEERS_MAX, RESPONSE_MAX, encode_failure},
    scrape::ScrapeCounts,
    *,
};
use crate::{
    digest::Digest,
    proto::bt::bencode::{self, Dictionary},
};

fn honest() -> Announce {
    Announce {
        info_hash: Digest::of(b"x"),
        peer_id: *b"-GC0001-\0\xff%& =+/?#ab",
        port: 6881,
        left: Some(5),
        event: AnnounceEvent::Started,
        wanted: 30,
        uploaded: 77,
        received_from: vec![(*b"-GC0001-S0000000000,", 5), ([0xff; 20], 72)],
    }
}

#[test]
fn announce_round_trips() {
    let announce = honest();
    assert_eq!(Announce::decode(&announce.encode()), Ok(announce));
}

#[test]
fn announces_of_other_clients_are_read() {
    let query = "info_hash=%124Vx%9a%bc%de%f1%23Eg%89%ab%cd%ef%124Vx%9A&peer_id=-TR3000-abcdefghijkl\
        &port=51413&uploaded=0&downloaded=0&left=100&numwant=80&key=1a2b&compact=1&ip=8.8.8.8\
        &supportcrypto=1&event=stopped";
    let read = Announce::decode(query).expect("honest");
    assert_eq!(&read.peer_id, b"-TR3000-abcdefghijkl");
    assert_eq!((read.port, read.wanted, read.event), (51413, 80, AnnounceEvent::Stopped));
    assert_eq!(read.info_hash.as_bytes()[..4], [0x12, 0x34, 0x56, 0x78]);
}

#[test]
fn invalid_announces_are_refused() {
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
    for (number, wanted) in [("-1", PEERS_DEFAULT), ("1000000000", PEERS_MAX), ("0", 0)] {
        let query = honest.replacen("numwant=30", &format!("numwant={number}"), 1);
        assert_eq!(Announce::decode(&query).expect("read").wanted, wanted);
    }
    let query = honest.replacen("started", "%00", 1);
    assert_eq!(Announce::decode(&query).expect("read").event, AnnounceEvent::Regular);
}

#[test]
fn responses_of_both_forms_are_read() {
    let answer = AnnounceResponse {
        complete: 1,
        incomplete: 2,
        interval: 5,
        peers: vec!["10.0.0.1:6881".parse().expect("v4"), "[fe80::1]:7".parse().expect("v6")],
    };
    assert_eq!(AnnounceResponse::decode(&answer.encode()), Ok(answer));
    let long = b"d8:intervali9e5:peersld2:ip8:10.0.0.74:porti6881eed2:ip3:x.y4:porti1eeee";
    let read = AnnounceResponse::decode(long).expect("the long form");
    assert_eq!(read.peers, ["10.0.0.7:6881".parse().expect("v4")]);
}

#[test]
fn invalid_responses_are_refused_or_limited() {
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
    let body =
        Dictionary::default().integer("interval", 5).bytes("peers", nobody.as_flattened()).finish();
    let read = AnnounceResponse::decode(&body).expect("an answer");
    assert_eq!(read.peers, ["10.0.0.2:80".parse().expect("v4")]);
    for (interval, kept) in [(0, 2), (-5, 2), (i64::MAX, 3600)] {
        let body = Dictionary::default().integer("interval", interval).finish();
        assert_eq!(AnnounceResponse::decode(&body).expect("an answer").interval, kept);
    }
    let many = Dictionary::default()
        .integer("interval", 5)
        .bytes("peers", [10, 0, 0, 1, 9, 9].repeat(5000))
        .finish();
    assert_eq!(AnnounceResponse::decode(&many).expect("an answer").peers.len(), PEERS_MAX);
    let reason = format!("\x1b[2J{}", "x".repeat(30_000));
    let shown =
        AnnounceResponse::decode(&encode_failure(&reason)).expect_err("a failure").to_string();
    assert!(shown.len() < 300 && !shown.contains('\x1b'), "{shown}");
}

#[test]
fn mapped_address_is_dropped_as_the_plain_one_is() {
    let peers: Vec<u8> = ["224.0.0.1", "255.255.255.255", "0.0.0.0", "10.0.0.2"]
        .into_iter()
        .flat_map(|ip| {
            let ip: Ipv4Addr = ip.parse().expect("an address");
            [&ip.to_ipv6_mapped().octets()[..], &[0, 80]].concat()
        })
        .collect();
    let body = Dictionary::default().integer("interval", 5).bytes("peers6", peers).finish();
    let read = AnnounceResponse::decode(&body).expect("an answer");
    assert_eq!(read.peers, ["[::ffff:10.0.0.2]:80".parse().expect("mapped")]);
}

#[test]
fn shares_beyond_all_numbers_are_announced() {
    let announce = Announce { received_from: vec![([7; 20], u64::MAX), ([8; 20], 1)], ..honest() };
    assert_eq!(Announce::decode(&announce.encode()), Ok(announce));
}

#[test]
fn scrape_names_its_torrents() {
    let hash = Digest::of(b"x");
    let query = format!("info_hash={}", percent::encode(hash.as_bytes(), b""));
    assert_eq!(scrape::decode_query(&query), Ok(vec![hash]));
    assert_eq!(scrape::decode_query(""), Ok(vec![]));
    assert!(scrape::decode_query("info_hash=%00").is_err());
    let body = scrape::encode([(hash, ScrapeCounts::default())]);
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
        let _ = scrape::decode_query(&text);
        let _ = AnnounceResponse::decode(&bytes);
        let framed = [&b"d8:intervali5e5:peers"[..], &bytes, b"e"].concat();
        let _ = AnnounceResponse::decode(&framed);
    }
}
