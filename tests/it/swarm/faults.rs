//! Faults in a swarm: a server killed in mid-session, a peer that vanishes with nearly all pieces,
//! peers that open a thousand connections or request everything, and a tracker that dies.

use std::{
    io::Write,
    net::{SocketAddr, TcpListener},
    sync::atomic::{AtomicBool, AtomicU64},
    thread,
    time::Duration,
};

use gatecast::internals::{
    proto::bt::{
        tracker::response::AnnounceResponse,
        wire::{BLOCK_LEN, Block, Message},
    },
    transport::swarm::{leech, limits::EXTERNAL_CONNECTIONS},
    units::Rate,
};

use crate::{
    common,
    common::{
        Server,
        http::{get, request_head},
        swarm::{Raw, data_of, fetch, metainfo, server},
        until, within,
    },
};

const LIMIT: Duration = Duration::from_secs(120);

/// How many peers the server's page shows.
fn peers(server: &Server) -> usize {
    let page = String::from_utf8(get(server.addr, "/swarm")).expect("text");
    page.matches("\"address\":").count()
}

/// The requests for a whole file.
fn everything(bytes: u64, piece: u32) -> Vec<Block> {
    let mut all = Vec::new();
    let mut at = 0;
    while at < bytes {
        let begin = u32::try_from(at % u64::from(piece)).expect("inside a piece");
        let len = (bytes - at).min(u64::from(BLOCK_LEN)).min(u64::from(piece - begin));
        all.push(Block {
            piece: u32::try_from(at / u64::from(piece)).expect("few pieces"),
            begin,
            len: u32::try_from(len).expect("a block"),
        });
        at += len;
    }
    all
}

/// One address may hold as many links as the peers of a lab room behind one router would.
#[test]
fn flood_of_connections_is_bounded_and_session_finishes() {
    within(LIMIT, || {
        let server = server(1_000_000, |settings| settings.clients = Some(3));
        let torrent = metainfo(&server);
        // As many links of one address as honest peers may need.
        let mut flood: Vec<Raw> =
            (0..EXTERNAL_CONNECTIONS).map(|n| Raw::join(server.addr, &torrent, id(n))).collect();
        until("a room's links", || peers(&server) == EXTERNAL_CONNECTIONS);
        // All further links get a handshake and are closed.
        for n in EXTERNAL_CONNECTIONS..1000 {
            let mut one = Raw::join(server.addr, &torrent, id(n));
            assert_eq!(one.read_message(), None, "connection {n}");
        }
        assert_eq!(peers(&server), EXTERNAL_CONNECTIONS);
        let ends = fetch(&server, 3, |_| {}).join().expect("no panic");
        assert!(ends.iter().all(|end| end.path.is_some()), "{ends:?}");
        let record = server.record();
        assert_eq!(record.proven(), 3);
        // The links that were let in still stand.
        assert!(flood[0].read_until(&[1, 14]) > 0);
        drop(flood);
        until("the links to be gone", || peers(&server) == 0);
        Raw::join(server.addr, &torrent, id(0)).read_until(&[14]);
        server.stop();
    });
}

fn id(number: usize) -> [u8; 20] {
    let text = format!("-XX0001-{number:012}");
    text.as_bytes().try_into().expect("twenty")
}

#[test]
fn greedy_peers_are_bounded_and_delay_nobody() {
    within(LIMIT, || {
        const BYTES: u64 = 3_000_000;
        let server = server(BYTES, |settings| {
            settings.clients = Some(2);
            settings.rate = Some(Rate(80_000_000));
        });
        let torrent = metainfo(&server);
        let all = everything(BYTES, torrent.piece_bytes);
        let early = fetch(&server, 1, |_| {});
        server.until_ready(1);
        let mut reading = Raw::join(server.addr, &torrent, id(1));
        let mut silent = Raw::join(server.addr, &torrent, id(2));
        let late = fetch(&server, 1, |order| order.out = server.out("p"));
        assert_eq!(reading.read_until(&[1]), 1, "the release");
        // `reading` requests everything thirty times over and reads the answers. `silent` requests
        // without end and reads nothing, until it is closed.
        let asking = thread::spawn(move || {
            let mut asks = Vec::new();
            all.iter().for_each(|block| Message::Request(*block).encode(&mut asks));
            for _ in 0..30 {
                reading.send_bytes(&asks);
            }
            let (mut served, mut refused) = (0, 0);
            let asked = all.len() * 30;
            while served + refused < asked {
                match reading.read_until(&[7, 16]) {
                    7 => served += 1,
                    _ => refused += 1,
                }
            }
            (served, refused, all.len())
        });
        let mut asks = Vec::new();
        let one = Block { piece: 0, begin: 0, len: BLOCK_LEN };
        (0..10_000).for_each(|_| Message::Request(one).encode(&mut asks));
        silent.stream.set_write_timeout(Some(Duration::from_secs(5))).expect("a socket");
        let mut told = 0;
        while silent.stream.write_all(&asks).is_ok() {
            told += asks.len();
            assert!(told < 400 << 20, "it is listened to for ever");
        }
        for ends in [early, late] {
            let ends = ends.join().expect("no panic");
            assert!(ends[0].path.is_some(), "{ends:?}");
        }
        assert_eq!(server.record().proven(), 2);
        let (served, refused, blocks) = asking.join().expect("no panic");
        assert!(served >= blocks, "{served} of {blocks} blocks");
        assert!(refused > 0, "what is too much is refused, {served} served");
        server.stop();
    });
}

#[test]
fn tracker_death_in_mid_session_stops_nobody() {
    within(LIMIT, || {
        const BYTES: u64 = 3_000_000;
        let server = server(BYTES, |settings| settings.via = None);
        let mut torrent = metainfo(&server);
        let content = std::fs::read(server.source()).expect("the file");
        // The only seeder is slow, and the tracker dies after its first answer.
        let seeder = TcpListener::bind("127.0.0.1:0").expect("a port");
        let at = seeder.local_addr().expect("bound");
        let serving = torrent.clone();
        thread::spawn(move || {
            let (stream, _) = seeder.accept().expect("the leech");
            let mut raw = Raw::greet(stream, &serving, id(9));
            raw.send(&Message::HaveAll);
            raw.send(&Message::Unchoke);
            raw.serve(|block| {
                thread::sleep(Duration::from_millis(15));
                data_of(&content, &serving, block).to_vec()
            });
        });
        let tracker = TcpListener::bind("127.0.0.1:0").expect("a port");
        let url = format!("http://{}/announce", tracker.local_addr().expect("bound"));
        torrent.announce = Some(url);
        let tracker_thread = thread::spawn(move || answer_once(&tracker, at));
        let wish = leech::TorrentRequest {
            metainfo: torrent,
            replace: false,
            out: &server.out("o"),
            stall: common::PATIENCE,
            seed_time: Duration::ZERO,
            sha1: None,
        };
        let moved = AtomicU64::new(0);
        let fetched = leech::fetch(wish, &moved, &AtomicBool::new(false)).expect("a swarm");
        tracker_thread.join().expect("no panic");
        assert_eq!((fetched.sha1, fetched.bytes), (server.sha1, BYTES));
        assert!(
            fetched.seconds > Duration::from_secs(2),
            "it outlived two announces: {:?}",
            fetched.seconds
        );
        server.only_whole_copies();
    });
}

/// A tracker that answers one announce with `peer` and an interval of one second, and then ends.
fn answer_once(tracker: &TcpListener, peer: SocketAddr) {
    let (mut stream, _) = tracker.accept().expect("the leech");
    request_head(&mut stream);
    let body =
        AnnounceResponse { complete: 1, incomplete: 1, interval: 1, peers: vec![peer] }.encode();
    let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len());
    stream.write_all(head.as_bytes()).expect("the leech");
    stream.write_all(&body).expect("the leech");
}

#[cfg(all(unix, feature = "cli"))]
mod processes {
    use std::{fs, os::unix::fs::MetadataExt, path::Path};

    use gatecast::internals::digest::Digest;

    use super::*;
    use crate::common::{
        entries,
        program::{Program, folder_with_file},
    };

    const CLIENTS: usize = 3;

    /// A server and its clients, each a process, and the server's address.
    fn session(path: &Path, rate: &str) -> (Program, SocketAddr, Vec<Program>) {
        let clients = CLIENTS.to_string();
        let words = ["f.bin", "--via", "swarm", "--clients", &clients, "--rate", rate];
        let (server, addr) = Program::serve(path, &words);
        let fetching = (0..CLIENTS)
            .map(|n| Program::fetch(path, &addr, &format!("c{n}"), &["--via", "swarm"]))
            .collect();
        (server, addr.parse().expect("an address"), fetching)
    }

    fn swarm(addr: SocketAddr) -> String {
        String::from_utf8(get(addr, "/swarm")).expect("text")
    }

    fn at_nobody(page: &str) -> usize {
        page.matches("\"first\":null").count()
    }

    #[test]
    fn clients_finish_without_server_when_all_pieces_are_out() {
        within(LIMIT, || {
            let (folder, sha1) = folder_with_file(4_000_000);
            let path = folder.path();
            let (mut server, addr, mut clients) = session(path, "16mbit");
            until("every piece out once", || {
                let page = swarm(addr);
                page.contains("\"released\":true") && at_nobody(&page) == 0
            });
            server.kill();
            for (n, client) in clients.iter_mut().enumerate() {
                let code = client.code();
                let there = entries(&path.join(format!("c{n}")));
                assert_eq!(there, [path.join(format!("c{n}/f.bin"))], "{}", client.stderr());
                let copy = fs::read(&there[0]).expect("there");
                assert_eq!(Digest::of(&copy), sha1);
                assert_eq!(code, 0, "{}", client.stderr());
            }
        });
    }

    #[test]
    fn clients_name_missing_pieces_when_server_dies_early() {
        within(LIMIT, || {
            let (folder, _) = folder_with_file(8_000_000);
            let path = folder.path();
            let (mut server, addr, mut clients) = session(path, "16mbit");
            until("a part of it out", || {
                let page = swarm(addr);
                page.contains("\"released\":true") && at_nobody(&page) < 300
            });
            server.kill();
            for (n, client) in clients.iter_mut().enumerate() {
                assert_eq!(client.code(), 4, "{}", client.stderr());
                let said = client.stderr();
                assert!(said.contains("pieces are missing"), "{said}");
                assert!(said.contains("no peer has, and the server is gone"), "{said}");
                let there = entries(&path.join(format!("c{n}")));
                assert!(there.iter().all(|path| common::is_part(path)), "{there:?}");
            }
        });
    }

    /// It vanishes when it has 99 of 100 pieces.
    #[test]
    fn vanished_client_takes_no_piece_with_it() {
        within(LIMIT, || {
            const BYTES: u64 = 8_000_000;
            let (folder, sha1) = folder_with_file(BYTES);
            let path = folder.path();
            let (server, _, mut clients) = session(path, "8mbit");
            // Counted in blocks of the disk: a part has holes where pieces are missing.
            let held = || {
                let part = entries(&path.join("c0")).into_iter().next()?;
                Some(fs::metadata(part).ok()?.blocks() * 512)
            };
            until("99 of 100 pieces", || held().is_some_and(|held| held * 100 >= BYTES * 99));
            clients[0].kill();
            let killed = entries(&path.join("c0"));
            assert!(killed.iter().all(|path| common::is_part(path)), "{killed:?}");
            for (n, client) in clients.iter_mut().enumerate().skip(1) {
                assert_eq!(client.code(), 0, "{}", client.stderr());
                let copy = fs::read(path.join(format!("c{n}/f.bin"))).expect("whole");
                assert_eq!(Digest::of(&copy), sha1);
            }
            server.signal("TERM");
        });
    }

    #[test]
    fn frozen_client_delays_nobody_and_resumes() {
        within(LIMIT, || {
            let (folder, sha1) = folder_with_file(8_000_000);
            let path = folder.path();
            let (server, addr, mut clients) = session(path, "16mbit");
            until("the release", || {
                let page = swarm(addr);
                page.contains("\"released\":true") && at_nobody(&page) < 450
            });
            clients[0].signal("STOP");
            let whole = |n: usize, client: &mut Program| {
                assert_eq!(client.code(), 0, "{}", client.stderr());
                let copy = fs::read(path.join(format!("c{n}/f.bin"))).expect("whole");
                assert_eq!(Digest::of(&copy), sha1);
            };
            for n in 1..CLIENTS {
                until("a whole copy", || path.join(format!("c{n}/f.bin")).exists());
            }
            assert!(!path.join("c0/f.bin").exists());
            clients[0].signal("CONT");
            for (n, client) in clients.iter_mut().enumerate() {
                whole(n, client);
            }
            server.signal("TERM");
        });
    }

    #[test]
    fn half_written_piece_is_not_claimed_on_resume() {
        within(LIMIT, || {
            const BYTES: u64 = 4_000_000;
            let (folder, sha1) = folder_with_file(BYTES);
            let path = folder.path();
            let words = ["f.bin", "--via", "swarm", "--clients", "1", "--rate", "16mbit"];
            let (server, addr) = Program::serve(path, &words);
            let part = || entries(&path.join("c")).into_iter().find(|p| common::is_part(p));
            let mut client = Program::fetch(path, &addr, "c", &["--via", "swarm"]);
            let held = || Some(fs::metadata(part()?).ok()?.blocks() * 512);
            until("half of it", || held().is_some_and(|held| held > BYTES / 2));
            client.kill();
            // As if it had been killed while it wrote pieces: the second halves of twenty are
            // missing.
            let torn = part().expect("what it had");
            let before = fs::read(&torn).expect("there");
            let mut after = before.clone();
            let mut pieces = 0;
            for piece in after.chunks_mut(16_384).filter(|piece| piece.iter().any(|&b| b != 0)) {
                let half = piece.len() / 2;
                piece[half..].fill(0);
                pieces += 1;
                if pieces == 20 {
                    break;
                }
            }
            fs::write(&torn, after).expect("room");
            let mut again = Program::fetch(path, &addr, "c", &["--via", "swarm", "--resume"]);
            assert_eq!(again.code(), 0, "{}", again.stderr());
            let copy = fs::read(path.join("c/f.bin")).expect("whole");
            assert_eq!(Digest::of(&copy), sha1);
            let records = common::program::records(path);
            let resumed =
                |record: &gatecast::internals::transfer::Record| record.transfers[0].bytes_resumed;
            let resumed = records.iter().map(resumed).max().expect("two sessions");
            let good = before.chunks(16_384).filter(|piece| piece.iter().any(|&b| b != 0)).count();
            let most = (good - 20) as u64 * 16_384;
            assert!(resumed > 0 && resumed <= most, "{resumed} of {most}");
            server.signal("TERM");
        });
    }

    #[test]
    fn run_sends_by_swarm_to_25_clients() {
        within(LIMIT, || {
            let folder = tempfile::tempdir().expect("a folder");
            let output = std::process::Command::new(env!("CARGO_BIN_EXE_gatecast"))
                .args(["run", "--via", "swarm", "--clients", "25", "--size", "4MB", "--json"])
                .args(["--keep", "kept"])
                .current_dir(folder.path())
                .output()
                .expect("the program");
            let said = String::from_utf8_lossy(&output.stderr);
            assert!(output.status.success(), "{said}");
            let text = String::from_utf8(output.stdout).expect("text");
            let document: serde_json::Value = serde_json::from_str(&text).expect("JSON");
            let sum = |key: &str| -> u64 {
                let rows = document["results"].as_array().expect("rows");
                rows.iter().map(|row| row[key].as_u64().expect(key)).sum()
            };
            let (server, peers) = (sum("bytes_from_server"), sum("bytes_from_peers"));
            assert_eq!(server + peers - sum("retransmitted"), 25 * 4_000_000, "{text}");
            assert!(peers > server, "{peers} from peers, {server} from the server");
            let digests: std::collections::BTreeSet<Digest> = entries(&folder.path().join("kept"))
                .into_iter()
                .flat_map(|path| if path.is_dir() { entries(&path) } else { vec![path] })
                .map(|path| Digest::of(&fs::read(path).expect("a copy")))
                .collect();
            assert_eq!(digests.len(), 1, "twenty-five equal copies");
        });
    }
}
