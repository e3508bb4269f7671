//! The swarm over real sockets: sessions, lying and hostile peers, a server that dies, the tracker.

mod faults;
#[cfg(feature = "cli")]
mod files;
mod guards;
mod links;
#[cfg(all(target_os = "linux", feature = "cli", feature = "sockopt"))]
mod peers;
mod tree;

use std::{
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    sync::atomic::{AtomicBool, AtomicU64},
    thread,
    time::Duration,
};

use gatecast::internals::{
    client::FetchRun,
    digest::Digest,
    proto::bt::{
        metainfo::Metainfo,
        tracker::announce::{Announce, AnnounceEvent},
        wire::{Block, Handshake, Message},
    },
    session::Via,
    transfer::Outcome,
    transport::{
        swarm,
        swarm::{leech, limits::EXTERNAL_CONNECTIONS},
    },
    units::Rate,
};

use crate::{
    common,
    common::{
        http::get,
        swarm::{Raw, fetch, held_back, metainfo, server},
        until, within,
    },
};

const LIMIT: Duration = Duration::from_secs(120);

#[test]
fn clients_get_file_mostly_from_each_other() {
    within(LIMIT, || {
        // The server is paced, so that the links between peers are faster, as on a star.
        let server = server(3_000_000, |settings| settings.rate = Some(Rate(24_000_000)));
        let clients = fetch(&server, 5, |_| {});
        let record = server.record();
        let ends = clients.join().expect("no panic");
        assert!(ends.iter().all(|end| end.path.is_some()));
        assert_eq!(record.proven(), 5);
        assert_eq!(record.broken_identities(), Vec::<String>::new());
        let sum = |get: fn(&gatecast::internals::transfer::Counts) -> Option<u64>| -> u64 {
            record.transfers.iter().filter_map(|t| get(&t.counts)).sum()
        };
        let (server_bytes, peers) = (sum(|c| c.bytes_from_server), sum(|c| c.bytes_from_peers));
        assert_eq!(server_bytes + peers, 15_000_000 + sum(|c| c.retransmitted));
        assert!(server_bytes < 7_500_000, "{server_bytes} from the server, {peers} from peers");
        // The page of the tracker has the same sums, and what each peer sent.
        let page = || String::from_utf8(get(server.addr, "/swarm")).expect("text");
        until("all five to have told", || page().matches("\"whole\":true").count() == 5);
        let page = page();
        assert_eq!(sum_of(&page, "bytes_from_server"), server_bytes);
        assert_eq!(sum_of(&page, "bytes"), peers);
        assert_eq!(sum_of(&page, "bytes_sent"), peers);
        assert_eq!(page.matches("\"peer\":\"C1\"").count(), 5, "its row, and four others'");
        server.stop();
    });
}

/// The sum of the numbers under `key` in a document.
fn sum_of(document: &str, key: &str) -> u64 {
    let key = format!("\"{key}\":");
    let after = document.split(&key).skip(1);
    let number = |text: &str| -> u64 {
        let digits: String = text.chars().take_while(char::is_ascii_digit).collect();
        digits.parse().expect("a number")
    };
    after.map(number).sum()
}

#[test]
fn files_of_awkward_sizes_arrive() {
    within(LIMIT, || {
        for bytes in [0, 1, 16_384, 16_385, 100_000] {
            let server = server(bytes, |_| {});
            let ends = fetch(&server, 2, |_| {}).join().expect("no panic");
            assert!(ends.iter().all(|end| end.path.is_some()), "{bytes}: {ends:?}");
            assert_eq!(server.record().broken_identities(), Vec::<String>::new());
            server.stop();
        }
    });
}

#[test]
fn no_peer_moves_bytes_before_release() {
    within(LIMIT, || {
        let server = server(200_000, |settings| settings.clients = Some(2));
        let early = fetch(&server, 1, |_| {});
        server.until_ready(1);
        let mut foreign = Raw::join(server.addr, &metainfo(&server), *b"-XX0001-abcdefghijkl");
        let block = Block { piece: 0, begin: 0, len: 16_384 };
        foreign.send(&Message::Interested);
        foreign.send(&Message::Request(block));
        assert_eq!(foreign.read_until(&[16, 7, 1]), 16, "rejected, neither served nor unchoked");
        let late = fetch(&server, 1, |order| order.out = server.out("p"));
        assert_eq!(foreign.read_until(&[7, 1]), 1, "the release unchokes");
        foreign.send(&Message::Request(block));
        assert_eq!(foreign.read_until(&[16, 7]), 7);
        assert_eq!(server.record().proven(), 2);
        for ends in [early, late] {
            assert!(ends.join().expect("no panic")[0].path.is_some());
        }
        server.stop();
    });
}

/// As curl is served outside of the gate; and while a session musters it is told why it waits.
#[test]
fn stranger_is_served_unless_session_musters() {
    within(LIMIT, || {
        let server = server(200_000, |settings| settings.clients = Some(2));
        let torrent = metainfo(&server);
        let block = Block { piece: 0, begin: 0, len: 16_384 };
        let mut stranger = Raw::join(server.addr, &torrent, *b"-XX0001-abcdefghijkl");
        assert_eq!(stranger.read_until(&[7, 1]), 1, "at once");
        let mut ask = |kind| {
            stranger.send(&Message::Request(block));
            assert_eq!(stranger.read_until(&[7, 16]), kind);
        };
        ask(7);
        let announce = Announce {
            info_hash: torrent.info_hash(),
            peer_id: *b"-XX0001-abcdefghijkl",
            port: 5000,
            left: Some(0),
            event: AnnounceEvent::Regular,
            wanted: 0,
            uploaded: 0,
            received_from: Vec::new(),
        };
        let answer = || {
            let answer = get(server.addr, &format!("/announce?{}", announce.encode()));
            String::from_utf8_lossy(&answer).into_owned()
        };
        assert!(!answer().contains("warning"), "{}", answer());
        let joined = server.joined(2, "one");
        ask(16);
        let why = "15:warning message42:'f.bin' waits for the clients of a sessione";
        assert!(answer().ends_with(why), "{}", answer());
        drop(joined);
        assert!(
            fetch(&server, 2, |_| {})
                .join()
                .expect("no panic")
                .iter()
                .all(|end| end.path.is_some())
        );
        assert_eq!(server.record().proven(), 2);
        ask(7);
        server.stop();
    });
}

/// Strangers share the rate and the count of what is sent outside of sessions.
#[test]
fn strangers_of_two_torrents_share_count_and_places() {
    within(LIMIT, || {
        let folder = tempfile::tempdir().expect("a folder");
        for name in ["a.bin", "b.bin"] {
            std::fs::write(folder.path().join(name), vec![name.as_bytes()[0]; 40_000])
                .expect("room");
        }
        let server = gatecast::Server::builder().offer(folder.path()).bind("127.0.0.1:0");
        let server = server.expect("a server");
        let addr = server.local_addr();
        let torrents = ["a", "b"].map(|name| {
            Metainfo::decode(&get(addr, &format!("/{name}.bin.torrent"))).expect("a torrent")
        });
        let mut strangers: Vec<Raw> = (0..EXTERNAL_CONNECTIONS)
            .map(|n| {
                let id = format!("-XX0001-{n:012}");
                Raw::join(addr, &torrents[n % 2], id.as_bytes().try_into().expect("twenty"))
            })
            .collect();
        for stranger in &mut strangers[..2] {
            stranger.read_until(&[1]);
            stranger.send(&Message::Request(Block { piece: 1, begin: 0, len: 16_384 }));
            stranger.read_until(&[7]);
        }
        let metrics = String::from_utf8(get(addr, "/metrics")).expect("text");
        assert!(metrics.contains("\ngatecast_download_bytes_total 32768\n"), "{metrics}");
        for stranger in &mut strangers {
            // All of them have a place now.
            stranger.send(&Message::Request(Block { piece: 9, begin: 0, len: 1 }));
            stranger.read_until(&[16]);
        }
        for torrent in &torrents {
            let mut more = Raw::join(addr, torrent, *b"-XX0001-one-too-many");
            assert_eq!(more.read_message(), None, "too many of its address");
        }
        strangers.clear();
        until("a place", || {
            Raw::join(addr, &torrents[0], *b"-XX0001-one-too-many").read_message().is_some()
        });
        server.shutdown().expect("no log");
    });
}

#[test]
fn sender_of_wrong_pieces_is_found_and_copies_are_whole() {
    within(LIMIT, || {
        let server = server(1_500_000, |settings| {
            settings.rate = Some(Rate(16_000_000));
            settings.clients = Some(2);
        });
        let metainfo = metainfo(&server);
        let liar = TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = liar.local_addr().expect("bound").port();
        let announce = Announce {
            info_hash: metainfo.info_hash(),
            peer_id: *b"-XX0001-liarliarliar",
            port,
            left: Some(5),
            event: AnnounceEvent::Started,
            wanted: 0,
            uploaded: 0,
            received_from: Vec::new(),
        };
        get(server.addr, &format!("/announce?{}", announce.encode()));
        thread::spawn(move || {
            for stream in liar.incoming().map_while(Result::ok) {
                let metainfo = metainfo.clone();
                thread::spawn(move || {
                    let mut raw = Raw::greet(stream, &metainfo, *b"-XX0001-liarliarliar");
                    raw.send(&Message::HaveAll);
                    raw.send(&Message::Unchoke);
                    raw.serve(|block| vec![7; block.len as usize]);
                });
            }
        });
        let clients = fetch(&server, 2, |_| {});
        let record = server.record();
        clients.join().expect("no panic");
        assert_eq!(record.proven(), 2);
        assert_eq!(record.broken_identities(), Vec::<String>::new());
        let wasted: u64 = record.transfers.iter().filter_map(|t| t.counts.retransmitted).sum();
        assert!(wasted > 0, "the liar was asked");
        assert!(wasted < 1_500_000, "and not for long: {wasted}");
        server.stop();
    });
}

#[test]
fn peers_finish_without_server() {
    within(LIMIT, || {
        let mut server = server(2_000_000, |settings| settings.rate = Some(Rate(16_000_000)));
        let clients = fetch(&server, 4, |_| {});
        server.until_ready(4);
        until("every piece out once", || held_back(&server) == 0);
        let ends = {
            server.kill();
            clients.join().expect("no panic")
        };
        for end in &ends {
            assert!(end.path.is_some(), "{:?}", end.error);
        }
        server.only_whole_copies();
    });
}

#[test]
fn peers_name_pieces_missing_without_server() {
    within(LIMIT, || {
        let mut server = server(4_000_000, |settings| settings.rate = Some(Rate(8_000_000)));
        let clients = fetch(&server, 3, |_| {});
        server.until_ready(3);
        until("some pieces out", || held_back(&server) < 180);
        server.kill();
        for end in clients.join().expect("no panic") {
            let error = end.error.expect("it cannot be whole").to_string();
            assert!(error.contains("pieces are missing"), "{error}");
            assert!(error.contains("no peer has"), "{error}");
            assert_eq!(end.path, None);
        }
        server.only_whole_copies();
    });
}

#[test]
fn interrupted_copy_resumes_by_its_pieces() {
    within(LIMIT, || {
        let server = server(2_000_000, |settings| settings.rate = Some(Rate(8_000_000)));
        let mut order = server.order("o");
        order.via = Some(Via::Swarm);
        let fetching = std::sync::Arc::new(FetchRun::new(&order));
        let stopping = std::sync::Arc::clone(&fetching);
        let stopper = thread::spawn(move || {
            until("half of it", || stopping.views()[0].moved > 700_000);
            stopping.stop();
        });
        let ends = fetching
            .run(&order, &[&swarm::receive::SwarmReceiveTransport::default()])
            .expect("an order");
        stopper.join().expect("no panic");
        assert_eq!(ends[0].path, None);
        server.record();
        order.resume = true;
        let ends = FetchRun::new(&order)
            .run(&order, &[&swarm::receive::SwarmReceiveTransport::default()])
            .expect("an order");
        assert!(ends[0].path.is_some(), "{:?}", ends[0].error);
        let record = server.record();
        assert!(record.transfers[0].bytes_resumed > 600_000);
        assert_eq!(record.transfers[0].outcome, Outcome::Complete);
        assert_eq!(record.broken_identities(), Vec::<String>::new());
        server.stop();
    });
}

#[test]
fn torrent_is_fetched_without_gate() {
    within(LIMIT, || {
        // Whatever the server sends its sessions by.
        let server = server(500_000, |settings| settings.clients = Some(25));
        let wish = leech::TorrentRequest {
            metainfo: metainfo(&server),
            replace: false,
            out: &server.out("o"),
            stall: common::PATIENCE,
            seed_time: Duration::ZERO,
            sha1: None,
        };
        let fetched = leech::fetch(wish, &AtomicU64::new(0), &AtomicBool::new(false));
        let fetched = fetched.expect("a swarm");
        assert_eq!((fetched.sha1, fetched.bytes), (server.sha1, 500_000));
        server.only_whole_copies();
    });
}

#[test]
fn hostile_messages_leave_other_peers_served() {
    within(LIMIT, || {
        let server = server(300_000, |_| {});
        let metainfo = metainfo(&server);
        let pieces = metainfo.pieces.len() as u32;
        let framed = |message: Message<'_>| {
            let mut bytes = Vec::new();
            message.encode(&mut bytes);
            bytes
        };
        let request = |piece, begin, len| framed(Message::Request(Block { piece, begin, len }));
        // Each of these ends the link.
        let fatal: Vec<Vec<u8>> = vec![
            u32::MAX.to_be_bytes().to_vec(),
            vec![0, 1, 0, 1],
            vec![0, 0, 0, 1, 4],
            vec![0, 0, 0, 2, 5, 0xff],
            framed(Message::Bitfield(&[0xff, 0xff, 0xff])),
            framed(Message::Have(pieces)),
            framed(Message::Have(u32::MAX)),
            request(0, 0, 1 << 20),
            framed(Message::Extended(0, b"d1:")),
            framed(Message::Extended(0, "l".repeat(20_000).as_bytes())),
            [0, 0, 0, 1, 99].repeat(17),
        ];
        for bytes in fatal {
            let mut raw = Raw::join(server.addr, &metainfo, *b"-XX0001-abcdefghijkl");
            raw.send_bytes(&bytes);
            raw.until_closed();
        }
        // Each of these is answered or ignored.
        let harmless: Vec<Vec<u8>> = vec![
            request(pieces, 0, 1),
            request(u32::MAX, u32::MAX, 16_384),
            request(0, u32::MAX, u32::MAX >> 15),
            request(0, 0, 0),
            framed(Message::Piece(0, 0, b"not asked for")),
            framed(Message::Cancel(Block { piece: 9, begin: 9, len: 9 })),
            framed(Message::HaveAll),
            framed(Message::KeepAlive).repeat(1000),
            framed(Message::Have(0)).repeat(100_000),
        ];
        let mut raw = Raw::join(server.addr, &metainfo, *b"-XX0001-harmlessharm");
        harmless.iter().for_each(|bytes| raw.send_bytes(bytes));
        raw.send_bytes(&request(0, 0, 1));
        assert_eq!(raw.read_until(&[7]), 7, "it is still served");
        // Handshakes for another torrent, whole and cut.
        for cut in [20, 47, 68] {
            let mut stranger = TcpStream::connect(server.addr).expect("a server");
            let hash = Digest::of(b"another");
            let hello = Handshake::new(hash, *b"-XX0001-abcdefghijkl").encode();
            stranger.write_all(&hello[..cut]).expect("a server that listens");
            // It may have been closed already.
            let _ = stranger.shutdown(std::net::Shutdown::Write);
            let mut answer = Vec::new();
            let _ = stranger.read_to_end(&mut answer);
            assert_eq!(answer, b"", "nothing is said to a stranger");
        }
        let ends = fetch(&server, 2, |_| {}).join().expect("no panic");
        assert!(ends.iter().all(|end| end.path.is_some()));
        server.stop();
    });
}

#[test]
fn tracker_answers_every_request() {
    let server = server(100_000, |_| {});
    let hash = metainfo(&server).info_hash();
    let announce = |hash: Digest, port: u16| {
        let announce = Announce {
            info_hash: hash,
            peer_id: *b"-XX0001-abcdefghijkl",
            port,
            left: Some(5),
            event: AnnounceEvent::Stopped,
            wanted: 50,
            uploaded: 0,
            received_from: Vec::new(),
        };
        get(server.addr, &format!("/announce?{}", announce.encode()))
    };
    assert!(announce(hash, 5000).starts_with(b"d8:completei1e"));
    for refused in [
        announce(Digest::of(b"x"), 5000),
        announce(hash, 80),
        get(server.addr, "/announce"),
        get(server.addr, "/announce?info_hash=%zz"),
        get(server.addr, "/scrape?info_hash=short"),
    ] {
        assert!(refused.starts_with(b"d14:failure reason"), "{refused:?}");
    }
    assert!(get(server.addr, "/scrape").starts_with(b"d5:filesd20:"));
    for nothing in ["/other.torrent", "/..%2ff.bin.torrent", "/.torrent"] {
        let answer = get(server.addr, nothing);
        assert!(answer.starts_with(b"there is nothing at '/"), "{nothing}");
    }
    server.stop();
}

#[test]
fn aria2_fetches_torrent() {
    if !common::have("aria2c", common::installed("aria2c")) {
        return;
    }
    within(LIMIT, || {
        let server = server(500_000, |settings| settings.clients = Some(25));
        let torrent = server.folder.path().join("f.bin.torrent");
        std::fs::write(&torrent, get(server.addr, "/f.bin.torrent")).expect("room");
        let out = server.out("aria2");
        let status = std::process::Command::new("timeout")
            .args(["60", "aria2c", "-q", "--enable-dht=false", "--enable-dht6=false"])
            .args(["--bt-enable-lpd=false", "--enable-peer-exchange=false", "--seed-time=0"])
            .args(["--file-allocation=none", "--no-conf=true", "--dir"])
            .arg(&out)
            .arg(&torrent)
            .status()
            .expect("aria2c");
        assert!(status.success(), "{status}");
        let copy = std::fs::read(out.join("f.bin")).expect("a copy");
        assert_eq!(Digest::of(&copy), server.sha1);
        server.only_whole_copies();
    });
}
