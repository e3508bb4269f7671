//! What can go wrong in a swarm: a server killed in mid-session, a peer that vanishes with nearly
//! everything, one that opens a thousand connections or asks for all there is, a tracker that dies.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::thread;
use std::time::Duration;

use crate::common;
use crate::common::swarm::{Raw, fetch, get, metainfo, server};
use crate::common::{Server, until, within};
use gatecast::internals::proto::bt::tracker::response::AnnounceResponse;
use gatecast::internals::proto::bt::wire::{BLOCK_LEN, Block, Message};
use gatecast::internals::transport::swarm::leech;
use gatecast::internals::transport::swarm::limits::EXTERNAL_CONNECTIONS;
use gatecast::internals::units::Rate;

const LIMIT: Duration = Duration::from_secs(120);

/// How many peers the server's page shows.
fn peers(server: &Server) -> usize {
    let page = String::from_utf8(get(server.addr, "/swarm")).expect("text");
    page.matches("\"address\":").count()
}

/// A whole file's requests.
fn everything(bytes: u64, piece: u32) -> Vec<Block> {
    let mut all = Vec::new();
    let mut at = 0;
    while at < bytes {
        let begin = u32::try_from(at % u64::from(piece)).expect("inside a piece");
        let len = (bytes - at)
            .min(u64::from(BLOCK_LEN))
            .min(u64::from(piece - begin));
        all.push(Block {
            piece: u32::try_from(at / u64::from(piece)).expect("few pieces"),
            begin,
            len: u32::try_from(len).expect("a block"),
        });
        at += len;
    }
    all
}

#[test]
fn a_peer_that_opens_a_thousand_connections_holds_as_many_as_a_room_and_the_session_goes_on() {
    within(LIMIT, || {
        let server = server(1_000_000, |settings| settings.clients = Some(3));
        let torrent = metainfo(&server);
        // The largest honest number of one address is let in.
        let mut flood: Vec<Raw> = (0..EXTERNAL_CONNECTIONS)
            .map(|n| Raw::join(server.addr, &torrent, id(n)))
            .collect();
        until("a room's links", || peers(&server) == EXTERNAL_CONNECTIONS);
        // Everything beyond is greeted and closed.
        for n in EXTERNAL_CONNECTIONS..1000 {
            let mut one = Raw::join(server.addr, &torrent, id(n));
            assert_eq!(one.hear(), None, "connection {n}");
        }
        assert_eq!(peers(&server), EXTERNAL_CONNECTIONS);
        let ends = fetch(&server, 3, |_| {}).join().expect("no panic");
        assert!(ends.iter().all(|end| end.path.is_some()), "{ends:?}");
        let record = server.record();
        assert_eq!(record.proven(), 3);
        // Whoever was let in still stands: it was never in anybody's way.
        assert!(flood[0].until(&[1, 14]) > 0);
        drop(flood);
        until("the links to be gone", || peers(&server) == 0);
        Raw::join(server.addr, &torrent, id(0)).until(&[14]);
        server.stop();
    });
}

fn id(number: usize) -> [u8; 20] {
    let text = format!("-XX0001-{number:012}");
    text.as_bytes().try_into().expect("twenty")
}

#[test]
fn peers_that_ask_for_everything_at_once_get_what_they_read_and_delay_nobody_for_long() {
    within(LIMIT, || {
        const BYTES: u64 = 3_000_000;
        let server = server(BYTES, |settings| {
            settings.clients = Some(2);
            settings.rate = Some(Rate(80_000_000));
        });
        let torrent = metainfo(&server);
        let all = everything(BYTES, torrent.piece_bytes);
        let mut reading = Raw::join(server.addr, &torrent, id(1));
        let mut silent = Raw::join(server.addr, &torrent, id(2));
        let clients = fetch(&server, 2, |_| {});
        assert_eq!(reading.until(&[1]), 1, "the release");
        // Everything, thirty times over, and not a byte is read: what waits for it is bounded, and
        // then it is closed.
        let asking = thread::spawn(move || {
            let mut asks = Vec::new();
            all.iter()
                .for_each(|block| Message::Request(*block).encode(&mut asks));
            for _ in 0..30 {
                reading.raw(&asks);
            }
            let (mut served, mut refused) = (0, 0);
            let asked = all.len() * 30;
            while served + refused < asked {
                match reading.until(&[7, 16]) {
                    7 => served += 1,
                    _ => refused += 1,
                }
            }
            (served, refused, all.len())
        });
        let mut asks = Vec::new();
        let one = Block {
            piece: 0,
            begin: 0,
            len: BLOCK_LEN,
        };
        (0..10_000).for_each(|_| Message::Request(one).encode(&mut asks));
        silent
            .stream
            .set_write_timeout(Some(Duration::from_secs(5)))
            .expect("a socket");
        let mut told = 0;
        while silent.stream.write_all(&asks).is_ok() {
            told += asks.len();
            assert!(told < 400 << 20, "it is listened to for ever");
        }
        let ends = clients.join().expect("no panic");
        assert!(ends.iter().all(|end| end.path.is_some()), "{ends:?}");
        assert_eq!(server.record().proven(), 2);
        let (served, refused, blocks) = asking.join().expect("no panic");
        assert!(served >= blocks, "{served} of {blocks} blocks");
        assert!(refused > 0, "what is too much is refused, {served} served");
        server.stop();
    });
}

#[test]
fn a_tracker_that_dies_in_mid_session_stops_nobody() {
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
            raw.say(&Message::HaveAll);
            raw.say(&Message::Unchoke);
            while let Some(message) = raw.hear() {
                if message[0] == 6 {
                    let number = |at: usize| {
                        u32::from_be_bytes(message[at..at + 4].try_into().expect("four")) as usize
                    };
                    let from = number(1) * serving.piece_bytes as usize + number(5);
                    let data = &content[from..from + number(9)];
                    thread::sleep(Duration::from_millis(15));
                    let (piece, begin) = (number(1) as u32, number(5) as u32);
                    raw.say(&Message::Piece(piece, begin, data));
                }
            }
        });
        let tracker = TcpListener::bind("127.0.0.1:0").expect("a port");
        let url = format!("http://{}/announce", tracker.local_addr().expect("bound"));
        torrent.announce = Some(url);
        let tracker_thread = thread::spawn(move || answer_once(&tracker, at));
        let wish = leech::TorrentRequest {
            metainfo: torrent,
            out: &server.out("o"),
            stall: common::PATIENCE,
            seed_time: Duration::ZERO,
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

/// Answers one announce with `peer`, to be asked again in a second, and is gone.
fn answer_once(tracker: &TcpListener, peer: SocketAddr) {
    let (mut stream, _) = tracker.accept().expect("the leech");
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        stream.read_exact(&mut byte).expect("a request");
        head.push(byte[0]);
    }
    let body = AnnounceResponse {
        complete: 1,
        incomplete: 1,
        interval: 1,
        peers: vec![peer],
    }
    .encode();
    let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len());
    stream.write_all(head.as_bytes()).expect("the leech");
    stream.write_all(&body).expect("the leech");
}

#[cfg(all(unix, feature = "cli"))]
mod processes {
    use std::fs;
    use std::os::unix::fs::MetadataExt;
    use std::path::Path;

    use gatecast::internals::digest::Digest;
    use gatecast::internals::server::sample;

    use super::*;
    use crate::common::entries;
    use crate::common::program::Program;

    const CLIENTS: usize = 3;

    /// A folder with `f.bin`, and its digest.
    fn place(bytes: u64) -> (tempfile::TempDir, Digest) {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("f.bin");
        sample::make(&file, bytes).expect("room");
        let sha1 = Digest::of_reader(fs::File::open(file).expect("made")).expect("readable");
        (folder, sha1)
    }

    /// A server and its clients, each a process, and the server's address.
    fn session(path: &Path, rate: &str) -> (Program, SocketAddr, Vec<Program>) {
        let clients = CLIENTS.to_string();
        let words = [
            "f.bin",
            "--via",
            "swarm",
            "--clients",
            &clients,
            "--rate",
            rate,
        ];
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
    fn a_server_killed_when_every_piece_is_out_once_is_not_missed() {
        within(LIMIT, || {
            let (folder, sha1) = place(4_000_000);
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
                assert_eq!(
                    there,
                    [path.join(format!("c{n}/f.bin"))],
                    "{}",
                    client.said()
                );
                let copy = fs::read(&there[0]).expect("there");
                assert_eq!(Digest::of(&copy), sha1);
                assert_eq!(code, 0, "{}", client.said());
            }
        });
    }

    #[test]
    fn of_a_server_killed_before_that_each_client_says_what_is_missing() {
        within(LIMIT, || {
            let (folder, _) = place(8_000_000);
            let path = folder.path();
            let (mut server, addr, mut clients) = session(path, "16mbit");
            until("a part of it out", || {
                let page = swarm(addr);
                page.contains("\"released\":true") && at_nobody(&page) < 300
            });
            server.kill();
            for (n, client) in clients.iter_mut().enumerate() {
                assert_eq!(client.code(), 4, "{}", client.said());
                let said = client.said();
                assert!(said.contains("pieces are missing"), "{said}");
                assert!(
                    said.contains("no peer has, and the server is gone"),
                    "{said}"
                );
                let there = entries(&path.join(format!("c{n}")));
                assert!(there.iter().all(|path| common::is_part(path)), "{there:?}");
            }
        });
    }

    #[test]
    fn a_client_that_vanishes_with_99_of_100_pieces_takes_none_with_it() {
        within(LIMIT, || {
            const BYTES: u64 = 8_000_000;
            let (folder, sha1) = place(BYTES);
            let path = folder.path();
            let (server, _, mut clients) = session(path, "8mbit");
            // As the disk has it: a `.part` has holes where pieces are missing.
            let held = || {
                let part = entries(&path.join("c0")).into_iter().next()?;
                Some(fs::metadata(part).ok()?.blocks() * 512)
            };
            until("99 of 100 pieces", || {
                held().is_some_and(|held| held * 100 >= BYTES * 99)
            });
            clients[0].kill();
            let killed = entries(&path.join("c0"));
            assert!(
                killed.iter().all(|path| common::is_part(path)),
                "{killed:?}"
            );
            for (n, client) in clients.iter_mut().enumerate().skip(1) {
                assert_eq!(client.code(), 0, "{}", client.said());
                let copy = fs::read(path.join(format!("c{n}/f.bin"))).expect("whole");
                assert_eq!(Digest::of(&copy), sha1);
            }
            server.signal("TERM");
        });
    }

    #[test]
    fn a_frozen_client_holds_up_nobody_and_goes_on_where_it_was() {
        within(LIMIT, || {
            let (folder, sha1) = place(8_000_000);
            let path = folder.path();
            let (server, addr, mut clients) = session(path, "16mbit");
            until("the release", || {
                let page = swarm(addr);
                page.contains("\"released\":true") && at_nobody(&page) < 450
            });
            clients[0].signal("STOP");
            let whole = |n: usize, client: &mut Program| {
                assert_eq!(client.code(), 0, "{}", client.said());
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
    fn of_a_piece_that_was_half_written_when_its_client_was_killed_nothing_is_claimed() {
        within(LIMIT, || {
            const BYTES: u64 = 4_000_000;
            let (folder, sha1) = place(BYTES);
            let path = folder.path();
            let words = [
                "f.bin",
                "--via",
                "swarm",
                "--clients",
                "1",
                "--rate",
                "16mbit",
            ];
            let (server, addr) = Program::serve(path, &words);
            let part = || {
                entries(&path.join("c"))
                    .into_iter()
                    .find(|p| common::is_part(p))
            };
            let mut client = Program::fetch(path, &addr, "c", &["--via", "swarm"]);
            let held = || Some(fs::metadata(part()?).ok()?.blocks() * 512);
            until("half of it", || held().is_some_and(|held| held > BYTES / 2));
            client.kill();
            // As if it had been in the middle of pieces: the ends of twenty are not there yet.
            let torn = part().expect("what it had");
            let before = fs::read(&torn).expect("there");
            let mut after = before.clone();
            let mut pieces = 0;
            for piece in after
                .chunks_mut(16_384)
                .filter(|piece| piece.iter().any(|&b| b != 0))
            {
                let half = piece.len() / 2;
                piece[half..].fill(0);
                pieces += 1;
                if pieces == 20 {
                    break;
                }
            }
            fs::write(&torn, after).expect("room");
            let mut again = Program::fetch(path, &addr, "c", &["--via", "swarm", "--resume"]);
            assert_eq!(again.code(), 0, "{}", again.said());
            let copy = fs::read(path.join("c/f.bin")).expect("whole");
            assert_eq!(Digest::of(&copy), sha1);
            let records = common::program::records(path);
            let resumed =
                |record: &gatecast::internals::transfer::Record| record.transfers[0].bytes_resumed;
            let resumed = records.iter().map(resumed).max().expect("two sessions");
            let good = before
                .chunks(16_384)
                .filter(|piece| piece.iter().any(|&b| b != 0))
                .count();
            let most = (good - 20) as u64 * 16_384;
            assert!(resumed > 0 && resumed <= most, "{resumed} of {most}");
            server.signal("TERM");
        });
    }

    #[test]
    fn run_takes_a_swarm_of_twenty_five() {
        within(LIMIT, || {
            let folder = tempfile::tempdir().expect("a folder");
            let output = std::process::Command::new(env!("CARGO_BIN_EXE_gatecast"))
                .args([
                    "run",
                    "--via",
                    "swarm",
                    "--clients",
                    "25",
                    "--size",
                    "4MB",
                    "--json",
                ])
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
            assert_eq!(
                server + peers - sum("retransmitted"),
                25 * 4_000_000,
                "{text}"
            );
            assert!(
                peers > server,
                "{peers} from peers, {server} from the server"
            );
            let digests: std::collections::BTreeSet<Digest> = entries(&folder.path().join("kept"))
                .into_iter()
                .flat_map(|path| {
                    if path.is_dir() {
                        entries(&path)
                    } else {
                        vec![path]
                    }
                })
                .map(|path| Digest::of(&fs::read(path).expect("a copy")))
                .collect();
            assert_eq!(digests.len(), 1, "twenty-five equal copies");
        });
    }
}
