//! What strangers, browsers and torrents must not get from a swarm: a disk read, a false fact, the
//! place of a file.

use std::{
    fs,
    io::Write,
    net::{SocketAddr, TcpListener},
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, AtomicU64},
    thread,
    thread::JoinHandle,
    time::Duration,
};

use gatecast::internals::{
    client::{FetchConfig, FetchRun},
    digest::Digest,
    error::{Error, Result},
    proto::{
        bt::{
            bitfield::Bitfield,
            metainfo::Metainfo,
            tracker::{
                announce::{Announce, AnnounceEvent},
                response::AnnounceResponse,
            },
            wire::{BLOCK_LEN, Block, ExtendedHandshake, Message},
        },
        native::{FromServer, Offer},
    },
    session::{FileInfo, SeatId, SessionId, Via},
    text::FileName,
    transport::{
        swarm,
        swarm::{leech, leech::TorrentDownload, peer_id::seated_id},
    },
};

use crate::{
    common,
    common::{
        Peer,
        http::{get, get_with, request_head},
        swarm::{Raw, data_of, held_back, metainfo, request, server},
        until, within,
    },
    swarm::links::{Counted, Tracker},
};

const LIMIT: Duration = Duration::from_secs(60);

const PIECE: u32 = 2 * BLOCK_LEN;

/// A torrent called `name` of two pieces of two blocks each, and its content.
fn two_pieces(tracker: &Tracker, name: &str) -> (Metainfo, Vec<u8>) {
    let content: Vec<u8> = (0..2 * PIECE).map(|n| (n * n / 7) as u8).collect();
    let name = FileName::new(name).expect("a name");
    let digests = content.chunks(PIECE as usize).map(Digest::of).collect();
    let bytes = content.len() as u64;
    let mut torrent = Metainfo::new(name, bytes, PIECE, digests).expect("a torrent");
    torrent.announce = Some(format!("http://{}/announce", tracker.start()));
    (torrent, content)
}

/// A leech of `torrent` into `out`.
fn leech_into(torrent: &Metainfo, out: &Path) -> JoinHandle<Result<TorrentDownload>> {
    let (metainfo, out) = (torrent.clone(), out.to_owned());
    thread::spawn(move || {
        let wish = leech::TorrentRequest {
            metainfo,
            replace: false,
            out: &out,
            stall: common::PATIENCE,
            seed_time: Duration::ZERO,
            sha1: None,
        };
        leech::fetch(wish, &AtomicU64::new(0), &AtomicBool::new(false))
    })
}

/// A peer that says to have everything and serves, connected to `at`.
fn seeder(at: SocketAddr, torrent: &Metainfo) -> Raw {
    let mut raw = Raw::join(at, torrent, *b"-XX0001-honesthonest");
    raw.send(&Message::HaveAll);
    raw.send(&Message::Unchoke);
    raw
}

/// The next `count` blocks that are requested.
fn requests(raw: &mut Raw, count: usize) -> Vec<Block> {
    let messages = std::iter::from_fn(|| raw.read_message());
    messages.filter_map(|message| request(&message)).take(count).collect()
}

fn give(raw: &mut Raw, torrent: &Metainfo, content: &[u8], blocks: &[Block]) {
    for &block in blocks {
        let data = data_of(content, torrent, block);
        raw.send(&Message::Piece(block.piece, block.begin, data));
    }
}

/// The only part in `out`, with its content.
fn part_in(out: &Path) -> Option<(PathBuf, Vec<u8>)> {
    let part = common::entries(out).into_iter().find(|path| common::is_part(path))?;
    let bytes = fs::read(&part).ok()?;
    Some((part, bytes))
}

#[test]
fn peer_sends_no_more_bitfields_than_it_has_pieces_for() {
    within(LIMIT, || {
        let server = server(2_000_000, |settings| settings.via = None);
        let torrent = metainfo(&server);
        let pieces = u32::try_from(torrent.pieces.len()).expect("few");
        let bits = Bitfield::full(pieces).encode();
        // What some programs send before it changes nothing.
        let mut honest = Raw::join(server.addr, &torrent, *b"-XX0001-honesthonest");
        honest.send(&Message::KeepAlive);
        honest.send(&Message::Extended(0, &ExtendedHandshake::default().encode()));
        honest.send(&Message::Bitfield(&bits));
        honest.send(&Message::Request(Block { piece: 0, begin: 0, len: BLOCK_LEN }));
        assert_eq!(honest.read_until(&[7]), 7, "it is served");
        let mut flood = Raw::join(server.addr, &torrent, *b"-XX0001-bits-andbits");
        for _ in 0..1000 {
            flood.send(&Message::Bitfield(&bits));
        }
        flood.until_closed();
        // aria2 tells of each 20 pieces by another bitfield.
        let mut late = Raw::join(server.addr, &torrent, *b"-XX0001-bits-andmore");
        late.send(&Message::Have(0));
        (0..pieces / 20).for_each(|_| late.send(&Message::Bitfield(&bits)));
        late.send(&Message::Request(Block { piece: 0, begin: 0, len: BLOCK_LEN }));
        assert_eq!(late.read_until(&[7]), 7, "it is served");
        late.send(&Message::Bitfield(&bits));
        late.until_closed();
        server.stop();
    });
}

#[test]
fn word_of_stranger_is_no_fact_and_hides_no_piece() {
    within(LIMIT, || {
        let server = server(2_000_000, |_| {});
        let mut peer = server.joined(1, "x");
        let torrent = metainfo(&server);
        let pieces = torrent.pieces.len();
        let page = || String::from_utf8(get(server.addr, "/swarm")).expect("text");
        let mut stranger = Raw::join(server.addr, &torrent, *b"-XX0001-has-it-all--");
        stranger.send(&Message::HaveAll);
        until("its word to come", || page().contains(&format!("\"pieces\":{pieces},")));
        assert_eq!(held_back(&server), pieces, "{}", page());
        assert_eq!(page().matches("\"copies\":1}").count(), pieces, "only the server's copy");
        let views = server.running().lobby().views();
        let id = seated_id(views[0].session, views[0].seats[0].seat);
        let mut seated = Raw::join(server.addr, &torrent, id);
        seated.send(&Message::HaveNone);
        peer.send("READY offset=0\n");
        assert_eq!(seated.read_until(&[4, 14]), 4, "it is shown pieces one by one");
        seated.send(&Message::Have(3));
        until("a client's word to come", || {
            page().contains("{\"chunk\":3,\"first\":\"C1\",\"copies\":2}")
        });
        drop((seated, peer));
        server.record();
        server.stop();
    });
}

fn announce(torrent: &Metainfo, port: u16) -> String {
    let announce = Announce {
        info_hash: torrent.info_hash(),
        peer_id: *b"-XX0001-anybody-else",
        port,
        left: Some(5),
        event: AnnounceEvent::Started,
        wanted: 9,
        uploaded: 0,
        received_from: Vec::new(),
    };
    format!("/announce?{}", announce.encode())
}

/// A page elsewhere can make a browser ask for any address, and its host would be dialed.
#[test]
fn browser_cannot_announce_its_host() {
    within(LIMIT, || {
        let server = server(200_000, |settings| settings.via = None);
        let torrent = metainfo(&server);
        let door = Counted::new();
        let target = announce(&torrent, door.addr().port());
        for field in [
            "User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:140.0)",
            "Origin: http://elsewhere.example",
            "Referer: http://elsewhere.example/page",
            "Sec-Fetch-Site: cross-site",
        ] {
            let (_, _, body) = get_with(server.addr, &target, &format!("{field}\n"));
            assert!(body.starts_with(b"d14:failure reason"), "{field}: {body:?}");
        }
        let scrape = get(server.addr, "/scrape");
        assert!(scrape.ends_with(b"10:incompletei0eeee"), "nobody is known: {scrape:?}");
        assert_eq!(door.calls(), 0);
        let (_, _, body) = get_with(server.addr, &target, "User-Agent: aria2/1.36.0\n");
        assert!(body.starts_with(b"d8:complete"), "{body:?}");
        until("a call", || door.calls() > 0);
        server.stop();
    });
}

#[test]
fn copy_changed_on_disk_is_not_published() {
    within(LIMIT, || {
        let tracker = Tracker::default();
        let (torrent, content) = two_pieces(&tracker, "f.bin");
        let out = tempfile::tempdir().expect("a folder");
        let fetching = leech_into(&torrent, out.path());
        let mut raw = seeder(tracker.first(), &torrent);
        let wanted = requests(&mut raw, 4);
        let (now, later): (Vec<Block>, Vec<Block>) =
            wanted.iter().partition(|block| block.piece == wanted[0].piece);
        give(&mut raw, &torrent, &content, &now);
        let at = (wanted[0].piece * PIECE) as usize;
        let written = || {
            let (path, bytes) = part_in(out.path())?;
            (bytes.get(at..at + PIECE as usize)? == &content[at..at + PIECE as usize])
                .then_some((path, bytes))
        };
        until("a piece on disk", || written().is_some());
        let (path, mut bytes) = written().expect("there");
        bytes[at + 5] ^= 1;
        fs::write(&path, bytes).expect("room");
        give(&mut raw, &torrent, &content, &later);
        let error = fetching.join().expect("no panic").expect_err("one byte is wrong");
        assert!(matches!(error, Error::Corrupt { .. }), "{error}");
        assert!(error.to_string().contains("1 of 2 pieces"), "{error}");
        assert!(common::entries(out.path()).iter().all(|path| common::is_part(path)));
        // What is right is kept, and only the wrong piece is fetched again.
        let tracker = Tracker::default();
        let mut torrent = torrent;
        torrent.announce = Some(format!("http://{}/announce", tracker.start()));
        let fetching = leech_into(&torrent, out.path());
        let mut raw = seeder(tracker.first(), &torrent);
        let wanted = requests(&mut raw, 2);
        give(&mut raw, &torrent, &content, &wanted);
        let fetched = fetching.join().expect("no panic").expect("whole");
        assert_eq!(fetched.resumed, u64::from(PIECE));
        assert_eq!(fs::read(out.path().join("f.bin")).expect("there"), content);
    });
}

/// The part of another file that a client has lying about is nobody's business (as rsync's
/// CVE-2024-12086), and neither is a piece before it is verified.
#[test]
fn only_verified_pieces_are_served() {
    within(LIMIT, || {
        let tracker = Tracker::default();
        let (torrent, content) = two_pieces(&tracker, "f.bin");
        let out = tempfile::tempdir().expect("a folder");
        let part = format!(".{}-1.pieces.part", torrent.info_hash().short());
        // Its second piece is right, its first is something else of the same length.
        let mut held = content.clone();
        held[..PIECE as usize].fill(b's');
        fs::write(out.path().join(part), held).expect("room");
        let fetching = leech_into(&torrent, out.path());
        let at = tracker.first();
        let mut spy = Raw::join(at, &torrent, *b"-XX0001-looks-around");
        let block = |piece, begin| Block { piece, begin, len: BLOCK_LEN };
        let bits = spy.read_message().expect("what it has");
        assert_eq!(bits, [5, 0b0100_0000], "only what is verified is announced");
        spy.send(&Message::Interested);
        let mut ask = |block, kind| {
            spy.send(&Message::Request(block));
            assert_eq!(spy.read_until(&[7, 16]), kind, "{block:?}");
        };
        ask(block(1, 0), 7);
        ask(block(0, 0), 16);
        let mut raw = seeder(at, &torrent);
        let wanted = requests(&mut raw, 2);
        give(&mut raw, &torrent, &content, &wanted[..1]);
        ask(wanted[0], 16);
        ask(wanted[1], 16);
        give(&mut raw, &torrent, &content, &wanted[1..]);
        fetching.join().expect("no panic").expect("whole");
        assert_eq!(fs::read(out.path().join("f.bin")).expect("there"), content);
    });
}

/// Speaks for a server of the swarm up to READY; returns the lines that its client says.
fn lines_before_ready(door: &TcpListener, offer: &Offer, torrent: &[u8]) -> Vec<String> {
    let (control, _) = door.accept().expect("a client");
    let mut control = Peer::over(control);
    assert!(control.read_line().starts_with("GATECAST/1 JOIN"));
    control.send(FromServer::Offer(offer.clone()).encode());
    let answered = door.try_clone().expect("a socket");
    let torrent = torrent.to_vec();
    thread::spawn(move || {
        for mut stream in answered.incoming().map_while(std::result::Result::ok) {
            let nobody =
                AnnounceResponse { complete: 1, incomplete: 0, interval: 5, peers: Vec::new() };
            let body = if request_head(&mut stream).starts_with("GET /f.bin.torrent ") {
                torrent.clone()
            } else {
                nobody.encode()
            };
            let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len());
            let _ = stream.write_all(&[head.as_bytes(), &body].concat());
        }
    });
    let mut lines = Vec::new();
    while !lines.last().is_some_and(|line: &String| line.starts_with("READY ")) {
        lines.push(control.read_line());
        assert_ne!(lines.last().map(String::as_str), Some(""), "{lines:?}");
    }
    lines
}

/// A server waits 30 s for a sign of life; the pieces of a large part take longer.
#[test]
fn client_that_verifies_pieces_gives_signs_of_life() {
    within(LIMIT, || {
        let (torrent, content) = two_pieces(&Tracker::default(), "f.bin");
        let door = TcpListener::bind("127.0.0.1:0").expect("a port");
        let out = tempfile::tempdir().expect("a folder");
        let sha1 = Digest::of(&content);
        fs::write(out.path().join(format!(".{}-1.pieces.part", sha1.short())), &content)
            .expect("room");
        let mut order = FetchConfig::new(vec![door.local_addr().expect("bound")]);
        (order.out, order.resume, order.via) = (out.path().to_owned(), true, Some(Via::Swarm));
        let fetching = thread::spawn(move || {
            FetchRun::new(&order)
                .run(&order, &[&swarm::receive::SwarmReceiveTransport::default()])
                .expect("an order")
        });
        let offer = Offer {
            session: SessionId(5),
            seat: SeatId(1),
            clients: 1,
            run: None,
            via: Via::Swarm,
            file: FileInfo { name: torrent.name.clone(), bytes: torrent.bytes, sha1 },
            tree: None,
        };
        let lines = lines_before_ready(&door, &offer, &torrent.encode(None, None));
        assert!(lines[0].starts_with("ALIVE bytes="), "{lines:?}");
        assert_eq!(lines.last().expect("READY"), &format!("READY offset={}", torrent.bytes));
        // The control connection is closed here, and the client ends.
        fetching.join().expect("no panic");
    });
}

/// A seat whose peer cannot reach the seeder, as in a swarm that is too large for it.
#[test]
fn row_of_seat_without_peer_tells_how_full_the_seeder_is() {
    within(LIMIT, || {
        let server = server(200_000, |settings| settings.stall = Duration::from_millis(200));
        let mut peer = server.joined(1, "x");
        peer.send("READY offset=0\n");
        let record = server.record();
        let reason = record.transfers[0].reason.clone().unwrap_or_default();
        assert!(reason.contains("no connection to its peer"), "{reason}");
        assert!(reason.contains("0 of 2000 connections"), "{reason}");
        server.stop();
    });
}

#[test]
#[cfg(unix)]
fn torrent_without_end_is_not_read_to_its_end() {
    let folder = tempfile::tempdir().expect("a folder");
    let endless = folder.path().join("endless.torrent");
    std::os::unix::fs::symlink("/dev/zero", &endless).expect("room");
    let error = leech::open(&endless).expect_err("no end").to_string();
    assert!(error.contains("of 10551296 at most"), "{error}");
    // The largest there is.
    let pieces = gatecast::internals::proto::bt::metainfo::PIECES_MAX;
    let name = FileName::new("f.bin").expect("a name");
    let digests = vec![Digest::of(b"x"); pieces as usize];
    let largest = Metainfo::new(name, u64::from(pieces) * u64::from(PIECE), PIECE, digests);
    let largest = largest.expect("as many pieces as there may be");
    let path = folder.path().join("largest.torrent");
    fs::write(&path, largest.encode(Some("http://127.0.0.1:8080/announce"), None)).expect("room");
    assert_eq!(leech::open(&path).expect("a torrent").info_hash(), largest.info_hash());
}

#[cfg(all(target_os = "linux", feature = "cli"))]
mod processes {
    use std::net::TcpStream;

    use super::*;
    use crate::common::program::{Program, folder_with_file};

    /// Bytes that the process has read from files so far.
    fn read_by(server: &Program) -> u64 {
        let io = fs::read_to_string(format!("/proc/{}/io", server.pid())).expect("ours");
        let line = io.lines().find_map(|line| line.strip_prefix("rchar: ")).expect("a count");
        line.parse().expect("a number")
    }

    /// Sends the handshake of a torrent that nobody knows.
    fn greet(addr: SocketAddr, hash: Digest) {
        let hello = gatecast::internals::proto::bt::wire::Handshake::new(hash, [b'x'; 20]);
        let mut stream = TcpStream::connect(addr).expect("a server");
        stream.set_read_timeout(Some(common::PATIENCE)).expect("a socket");
        stream.write_all(&hello.encode()).expect("a server that listens");
        let mut answer = Vec::new();
        let end = std::io::Read::read_to_end(&mut stream, &mut answer);
        let kind = end.err().map(|error| error.kind());
        assert_ne!(kind, Some(std::io::ErrorKind::WouldBlock), "it is let go");
        assert_eq!(answer, b"", "nothing is said to a stranger");
    }

    #[test]
    fn stranger_causes_no_disk_read_and_torrents_are_bounded() {
        within(LIMIT, || {
            const FILES: usize = 300;
            const BYTES: usize = 50_000;
            let folder = tempfile::tempdir().expect("a folder");
            let path = folder.path();
            fs::create_dir(path.join("offered")).expect("room");
            let name = |n: usize| format!("f{n:03}.bin");
            for n in 0..FILES {
                let content = vec![n as u8; BYTES + n];
                fs::write(path.join("offered").join(name(n)), content).expect("room");
            }
            let (server, addr) = Program::serve(path, &["offered"]);
            let at: SocketAddr = addr.parse().expect("an address");
            until("the welcome", || server.stderr().contains("the page of this server"));
            let (before, threads, files) =
                (read_by(&server), server.count("task"), server.count("fd"));
            for n in 0..20u8 {
                let hash = Digest::of(&[n]);
                greet(at, hash);
                let query: String = hash.as_bytes().iter().map(|b| format!("%{b:02x}")).collect();
                let target =
                    format!("/announce?info_hash={query}&peer_id={}&port=5000", "y".repeat(20));
                assert!(get(at, &target).starts_with(b"d14:failure reason"));
            }
            let read = read_by(&server) - before;
            assert!(read < BYTES as u64, "{read} bytes were read for strangers");
            assert_eq!(get(at, "/scrape"), b"d5:filesdee", "no torrent was made");
            // Every torrent is had for the asking, and the server keeps some of them.
            for n in 0..FILES {
                let torrent = get(at, &format!("/{}.torrent", name(n)));
                assert_eq!(Metainfo::decode(&torrent).expect("a torrent").name.as_str(), name(n));
            }
            let scrape = get(at, "/scrape");
            let kept = scrape.windows(10).filter(|ten| ten == b"8:complete").count();
            assert_eq!(kept, 64, "the last are kept");
            until("threads and files of the others to be gone", || {
                server.count("task") <= threads + 64 + 2 && server.count("fd") <= files + 2 * 64 + 2
            });
            for n in [0, FILES - 1] {
                let mut client = Program::fetch(path, &addr, "o", &[&name(n), "--via", "swarm"]);
                assert_eq!(client.code(), 0, "{}", client.stderr());
            }
            server.signal("TERM");
        });
    }

    #[test]
    fn torrent_file_of_another_sha1_is_not_published() {
        within(LIMIT, || {
            let (folder, sha1) = folder_with_file(200_000);
            let path = folder.path();
            let (server, addr) = Program::serve(path, &["f.bin"]);
            let torrent = get(addr.parse().expect("an address"), "/f.bin.torrent");
            fs::write(path.join("f.bin.torrent"), torrent).expect("room");
            let fetch = |sha1: Digest| {
                let words = ["fetch", "f.bin.torrent", "--out", "o", "--sha1", &sha1.to_string()];
                let mut command = common::program::gatecast(path, &words);
                Program::start(&mut command)
            };
            let mut client = fetch(Digest::of(b"another"));
            assert_eq!(client.code(), 5, "{}", client.stderr());
            assert!(
                client.stderr().contains(&format!("its SHA-1 is {sha1}")),
                "{}",
                client.stderr()
            );
            assert_eq!(common::entries(&path.join("o")), [] as [PathBuf; 0]);
            let mut client = fetch(sha1);
            assert_eq!(client.code(), 0, "{}", client.stderr());
            common::program::whole(path, "o", sha1);
            server.signal("TERM");
        });
    }
}
