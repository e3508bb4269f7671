//! The links of a swarm: which peer dials which, which link stays when there are two, and which
//! peers are trusted.

use std::{
    io::Write,
    net::{SocketAddr, TcpListener},
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    thread::JoinHandle,
    time::{Duration, Instant},
};

use gatecast::internals::{
    digest::Digest,
    http::{self, HttpConfig},
    proto::{
        bt::{
            metainfo::Metainfo,
            tracker::{
                announce::{Announce, AnnounceEvent},
                response::AnnounceResponse,
            },
            wire::{Block, ExtendedHandshake, Message},
        },
        http::response::HttpResponse,
        native::FromServer,
    },
    session::Via,
    text::FileName,
    transport::{
        swarm,
        swarm::{
            leech, leech::TorrentDownload, limits::EXTERNAL_CONNECTIONS, peer_id::seated_id,
            torrents::SwarmServerConfig,
        },
    },
};

use crate::{
    common,
    common::{
        Peer, Server,
        http::{get, request_head},
        swarm::{Raw, data_of, fetch, metainfo, request, server},
        until, within,
    },
};

const LIMIT: Duration = Duration::from_secs(60);

/// A tracker that names the peers that a test wants, with an interval of one second, and that keeps
/// the requests.
#[derive(Clone, Default)]
pub(super) struct Tracker {
    state: Arc<Mutex<(Vec<SocketAddr>, Vec<String>)>>,
}

impl Tracker {
    pub(super) fn start(&self) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let addr = listener.local_addr().expect("bound");
        let tracker = self.clone();
        thread::spawn(move || {
            for mut stream in listener.incoming().map_while(Result::ok) {
                let asked = request_head(&mut stream);
                let mut state = tracker.lock();
                let body = AnnounceResponse {
                    complete: 0,
                    incomplete: 1,
                    interval: 1,
                    peers: state.0.clone(),
                }
                .encode();
                state.1.push(asked);
                drop(state);
                let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len());
                let _ = stream.write_all(&[head.as_bytes(), &body].concat());
            }
        });
        addr
    }

    fn lock(&self) -> MutexGuard<'_, (Vec<SocketAddr>, Vec<String>)> {
        self.state.lock().expect("no panic")
    }

    fn name(&self, peer: SocketAddr) {
        self.lock().0.push(peer);
    }

    /// How many announces came.
    fn asked(&self) -> usize {
        self.lock().1.len()
    }

    /// The address of the first peer that announced itself.
    pub(super) fn first(&self) -> SocketAddr {
        until("an announce", || self.asked() > 0);
        let state = self.lock();
        let (_, after) = state.1[0].split_once("port=").expect("a port");
        let port: String = after.chars().take_while(char::is_ascii_digit).collect();
        SocketAddr::from(([127, 0, 0, 1], port.parse().expect("a port")))
    }
}

/// An ordinary leech of `server`'s file that knows only the peers that `tracker` names.
fn leech(
    server: &Server,
    tracker: &Tracker,
) -> (Metainfo, JoinHandle<TorrentDownload>, Arc<AtomicU64>) {
    let mut torrent = metainfo(server);
    torrent.announce = Some(format!("http://{}/announce", tracker.start()));
    let (wanted, out) = (torrent.clone(), server.out("o"));
    let moved = Arc::new(AtomicU64::new(0));
    let counted = Arc::clone(&moved);
    let fetching = thread::spawn(move || {
        let wish = leech::TorrentRequest {
            metainfo: wanted,
            replace: false,
            out: &out,
            stall: common::PATIENCE,
            seed_time: Duration::ZERO,
            sha1: None,
        };
        leech::fetch(wish, &counted, &AtomicBool::new(false)).expect("a swarm")
    });
    (torrent, fetching, moved)
}

/// Unchokes, and serves whatever is asked for.
fn serve(raw: &mut Raw, content: &[u8], metainfo: &Metainfo) {
    raw.send(&Message::Unchoke);
    raw.serve(|block| data_of(content, metainfo, block).to_vec());
}

/// A listener that only counts connections.
pub(super) struct Counted(TcpListener);

impl Counted {
    pub(super) fn new() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        listener.set_nonblocking(true).expect("a socket");
        Self(listener)
    }

    pub(super) fn addr(&self) -> SocketAddr {
        self.0.local_addr().expect("bound")
    }

    pub(super) fn calls(&self) -> usize {
        std::iter::from_fn(|| self.0.accept().ok()).count()
    }
}

#[test]
fn connected_peer_is_not_dialed_again_on_announce() {
    within(LIMIT, || {
        let server = server(200_000, |settings| settings.via = None);
        let content = std::fs::read(server.source()).expect("the file");
        let (tracker, door) = (Tracker::default(), Counted::new());
        let (torrent, fetching, _) = leech(&server, &tracker);
        let at = tracker.first();
        // Its id is greater than the leech's, so the leech would dial it.
        let mut raw = Raw::join(at, &torrent, *b"-GC0001-Lzzzzzzzzzzz");
        let told =
            ExtendedHandshake { port: Some(door.addr().port()), ..ExtendedHandshake::default() };
        raw.send(&Message::HaveAll);
        raw.send(&Message::Extended(0, &told.encode()));
        tracker.name(door.addr());
        until("two announces more", || tracker.asked() >= 3);
        // What the second announce caused has been done by the third.
        assert_eq!(door.calls(), 0, "there is a link to it");
        let stranger = Counted::new();
        tracker.name(stranger.addr());
        until("a call to another", || stranger.calls() > 0);
        serve(&mut raw, &content, &torrent);
        assert_eq!(fetching.join().expect("no panic").sha1, server.sha1);
        server.stop();
    });
}

#[test]
fn copied_peer_id_cannot_replace_working_link() {
    within(LIMIT, || {
        let server = server(200_000, |settings| settings.via = None);
        let content = std::fs::read(server.source()).expect("the file");
        let door = TcpListener::bind("127.0.0.1:0").expect("a port");
        let tracker = Tracker::default();
        tracker.name(door.local_addr().expect("bound"));
        let (torrent, fetching, moved) = leech(&server, &tracker);
        let (stream, _) = door.accept().expect("the leech");
        // Its id is smaller than the leech's: if both dial, the link that it dialed stays.
        let id = *b"-GC0001-L00000000000";
        let mut honest = Raw::greet(stream, &torrent, id);
        honest.send(&Message::HaveAll);
        honest.send(&Message::Unchoke);
        let asked = loop {
            if let Some(block) = request(&honest.read_message().expect("a link that stands")) {
                break block;
            }
        };
        let data = data_of(&content, &torrent, asked);
        honest.send(&Message::Piece(asked.piece, asked.begin, data));
        until("the block to be in", || moved.load(Ordering::Relaxed) > 0);
        let mut other = Raw::join(tracker.first(), &torrent, id);
        assert_eq!(other.read_message(), None, "it is let go");
        honest.send(&Message::Choke);
        serve(&mut honest, &content, &torrent);
        assert_eq!(fetching.join().expect("no panic").sha1, server.sha1);
        server.stop();
    });
}

/// The peer id of the seat that the server offers to `peer`.
fn seat_peer_id(peer: &mut Peer) -> [u8; 20] {
    peer.send("GATECAST/1 JOIN group=2 name=x\n");
    let line = peer.read_line();
    let Ok(FromServer::Offer(offer)) = FromServer::decode(line.trim_end()) else {
        panic!("{line}");
    };
    seated_id(offer.session, offer.seat)
}

/// Peers with a seat are sent their pieces only; all others see a complete seeder.
#[test]
fn peer_id_without_seat_is_treated_as_foreign() {
    within(LIMIT, || {
        let server = server(200_000, |_| {});
        let torrent = metainfo(&server);
        let mut peer = server.peer();
        let id = seat_peer_id(&mut peer);
        let mut seated = Raw::join(server.addr, &torrent, id);
        assert_eq!(seated.read_until(&[14, 15]), 15, "it will be shown what is its own");
        // No seat has these ids. As many of them are let in from one address as of any other
        // program.
        let mut strangers: Vec<Raw> = (0..EXTERNAL_CONNECTIONS)
            .map(|n| {
                let id = format!("-GC0001-P0000000{n:04x}");
                Raw::join(server.addr, &torrent, id.as_bytes().try_into().expect("twenty"))
            })
            .collect();
        for stranger in &mut strangers {
            assert_eq!(stranger.read_until(&[14, 15]), 14, "as any other program");
        }
        let mut more = Raw::join(server.addr, &torrent, *b"-GC0001-Pnobodys-id-");
        assert_eq!(more.read_message(), None, "too many");
        // They keep no seated peer out.
        let mut second = server.peer();
        let id = seat_peer_id(&mut second);
        let mut other = Raw::join(server.addr, &torrent, id);
        assert_eq!(other.read_until(&[14, 15]), 15);
        server.stop();
    });
}

/// A connection to `server` from another address than that of all others.
#[cfg(all(target_os = "linux", feature = "sockopt"))]
fn from_elsewhere(server: &Server) -> std::net::TcpStream {
    let local: SocketAddr = "127.0.0.2:0".parse().expect("an address");
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None);
    let socket = socket.expect("a socket");
    socket.bind(&local.into()).expect("loopback");
    socket.connect(&server.addr.into()).expect("a server");
    socket.into()
}

#[test]
#[cfg(all(target_os = "linux", feature = "sockopt"))]
fn peer_id_of_seat_counts_only_from_its_address() {
    within(LIMIT, || {
        let server = server(200_000, |_| {});
        let torrent = metainfo(&server);
        let mut peer = server.peer();
        let id = seat_peer_id(&mut peer);
        let mut thief = Raw::greet(from_elsewhere(&server), &torrent, id);
        assert_eq!(thief.read_until(&[14, 15]), 14, "as any other program");
        let mut seated = Raw::join(server.addr, &torrent, id);
        assert_eq!(seated.read_until(&[14, 15]), 15, "the seat is its own");
        let page = String::from_utf8(get(server.addr, "/swarm")).expect("text");
        assert_eq!(page.matches("\"peer\":\"C1\"").count(), 1, "{page}");
        server.stop();
    });
}

#[test]
fn client_refused_by_tracker_dials_the_seeder() {
    within(LIMIT, || {
        let turned_away = Arc::new(AtomicU64::new(0));
        let counted = Arc::clone(&turned_away);
        let server = Server::with(
            200_000,
            |settings| settings.via = Some(Via::Swarm),
            |host| {
                let (host, torrents) = swarm::serve(host, SwarmServerConfig::default());
                let config = HttpConfig {
                    extra: Some(Arc::new(move |request, peer, local, lobby| {
                        if request.path == "/announce" {
                            counted.fetch_add(1, Ordering::Relaxed);
                            return Some(HttpResponse::text(503, "no announces today"));
                        }
                        torrents.answer(request, peer, local, lobby)
                    })),
                    ..HttpConfig::default()
                };
                http::serve(host, config).expect("HTTP")
            },
        );
        let ends = fetch(&server, 2, |_| {}).join().expect("no panic");
        assert!(ends.iter().all(|end| end.path.is_some()), "{ends:?}");
        assert_eq!(server.record().proven(), 2);
        assert!(turned_away.load(Ordering::Relaxed) >= 2);
        server.stop();
    });
}

/// A torrent of one piece of four blocks, and its content.
fn one_piece(tracker: &Tracker) -> (Metainfo, Vec<u8>) {
    let content: Vec<u8> = (0..65536u32).map(|n| (n * n / 7) as u8).collect();
    let name = FileName::new("f.bin").expect("a name");
    let mut torrent =
        Metainfo::new(name, 65536, 65536, vec![Digest::of(&content)]).expect("a torrent");
    torrent.announce = Some(format!("http://{}/announce", tracker.start()));
    (torrent, content)
}

/// A leech of `torrent` that seeds for `seed_time` at the end.
fn leech_of(
    torrent: &Metainfo,
    stall: Duration,
    seed_time: Duration,
) -> JoinHandle<gatecast::internals::error::Result<TorrentDownload>> {
    let metainfo = torrent.clone();
    thread::spawn(move || {
        let out = tempfile::tempdir().expect("a folder");
        let wish = leech::TorrentRequest {
            metainfo,
            replace: false,
            out: out.path(),
            stall,
            seed_time,
            sha1: None,
        };
        leech::fetch(wish, &AtomicU64::new(0), &AtomicBool::new(false))
    })
}

/// Answers `count` requests, with every byte of the data changed by `spoilt`.
fn send(raw: &mut Raw, content: &[u8], count: usize, spoilt: u8) {
    let mut sent = 0;
    while sent < count {
        let message = raw.read_message().expect("a link that stands");
        if let Some(block) = request(&message) {
            let (from, len) = (block.begin as usize, block.len as usize);
            let data: Vec<u8> = content[from..from + len].iter().map(|b| b ^ spoilt).collect();
            raw.send(&Message::Piece(block.piece, block.begin, &data));
            sent += 1;
        }
    }
}

#[test]
fn sender_of_wrong_blocks_stays_banned_after_leaving() {
    within(LIMIT, || {
        let tracker = Tracker::default();
        let (torrent, content) = one_piece(&tracker);
        let fetching = leech_of(&torrent, common::PATIENCE, Duration::from_secs(3));
        let at = tracker.first();
        let (bad, good) = (*b"-XX0001-liarliarliar", *b"-XX0001-honesthonest");
        let mut liar = Raw::join(at, &torrent, bad);
        liar.send(&Message::HaveAll);
        liar.send(&Message::Unchoke);
        send(&mut liar, &content, 2, 1);
        liar.send(&Message::Choke);
        let mut honest = Raw::join(at, &torrent, good);
        honest.send(&Message::HaveAll);
        honest.send(&Message::Unchoke);
        send(&mut honest, &content, 2, 0);
        // The piece is wrong, and either peer may have sent the wrong blocks.
        drop(liar);
        send(&mut honest, &content, 4, 0);
        honest.read_until(&[4, 14]);
        let mut again = Raw::join(at, &torrent, bad);
        assert_eq!(again.read_message(), None, "it has sent wrong pieces");
        let mut other = Raw::join(at, &torrent, *b"-XX0001-another-one-");
        assert!(other.read_message().is_some(), "others at its address are let in");
        let fetched = fetching.join().expect("no panic").expect("whole");
        assert_eq!(fetched.sha1, Digest::of(&content));
    });
}

#[test]
fn unrequested_blocks_are_no_progress_and_end_the_link() {
    within(LIMIT, || {
        let tracker = Tracker::default();
        let (torrent, _) = one_piece(&tracker);
        let fetching = leech_of(&torrent, Duration::from_secs(2), Duration::ZERO);
        let mut raw = Raw::join(tracker.first(), &torrent, *b"-XX0001-drips-drips-");
        raw.send(&Message::HaveAll);
        let begun = Instant::now();
        while !fetching.is_finished() && begun.elapsed() < Duration::from_secs(10) {
            raw.send(&Message::Piece(0, 0, b"x"));
            thread::sleep(Duration::from_millis(400));
        }
        let error = fetching.join().expect("no panic").expect_err("nothing came");
        assert!(error.to_string().contains("2 s"), "{error}");
        assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
        // The same without a pause.
        let tracker = Tracker::default();
        let (torrent, _) = one_piece(&tracker);
        let fetching = leech_of(&torrent, Duration::from_secs(2), Duration::ZERO);
        let mut raw = Raw::join(tracker.first(), &torrent, *b"-XX0001-pours-pours-");
        (0..17).for_each(|_| raw.send(&Message::Piece(0, 0, b"x")));
        raw.until_closed();
        fetching.join().expect("no panic").expect_err("nothing came");
    });
}

#[test]
fn repeated_costly_messages_end_the_link() {
    within(LIMIT, || {
        let server = server(2_000_000, |settings| settings.via = None);
        let torrent = metainfo(&server);
        let framed = |message: Message<'_>| {
            let mut bytes = Vec::new();
            message.encode(&mut bytes);
            bytes
        };
        // A peer that chokes and unchokes a hundred times at once is still served.
        let mut raw = Raw::join(server.addr, &torrent, *b"-XX0001-wavers-waver");
        let turn = [framed(Message::Unchoke), framed(Message::Choke)].concat();
        raw.send_bytes(&turn.repeat(100));
        raw.send_bytes(&framed(Message::HaveAll).repeat(100_000));
        let block = Block { piece: 0, begin: 0, len: 16_384 };
        raw.send(&Message::Request(block));
        assert_eq!(raw.read_until(&[7]), 7);
        raw.send_bytes(&turn.repeat(100));
        raw.until_closed();
        server.stop();
    });
}

#[test]
fn slow_peer_holds_finished_client_only_for_seconds() {
    within(LIMIT, || {
        let server = server(2_000_000, |settings| settings.clients = Some(2));
        let torrent = metainfo(&server);
        let held = fetch(&server, 1, |_| {});
        server.until_ready(1);
        let announce = Announce {
            info_hash: torrent.info_hash(),
            peer_id: *b"-XX0001-asks-the-way",
            port: 5000,
            left: Some(5),
            event: AnnounceEvent::Regular,
            wanted: 50,
            uploaded: 0,
            received_from: Vec::new(),
        };
        let target = format!("/announce?{}", announce.encode());
        let known = AnnounceResponse::decode(&get(server.addr, &target)).expect("an answer");
        let at = known.peers.iter().find(|addr| **addr != server.addr);
        let Some(&at) = at else {
            panic!("{known:?}");
        };
        // Its id is that of a gatecast client, so others wait for it.
        let mut raw = Raw::join(at, &torrent, *b"-GC0001-Lhardly-asks");
        raw.stream.set_read_timeout(Some(Duration::from_secs(2))).expect("a socket");
        let other = fetch(&server, 1, |order| order.out = server.out("p"));
        assert_eq!(server.record().proven(), 2);
        let begun = Instant::now();
        let mut piece = 0;
        while !held.is_finished() {
            assert!(begun.elapsed() < Duration::from_secs(25), "it waits for ever");
            let block = Block { piece, begin: 0, len: 1024 };
            raw.send(&Message::Request(block));
            piece += 1;
            thread::sleep(Duration::from_millis(1500));
        }
        assert!(begun.elapsed() > Duration::from_secs(5), "it was waited for");
        for ends in [held, other] {
            assert!(ends.join().expect("no panic")[0].path.is_some());
        }
        server.stop();
    });
}

/// Announces a peer at `port` to the tracker.
fn announce(server: &Server, torrent: &Metainfo, number: usize, port: u16) -> Vec<u8> {
    let announce = Announce {
        info_hash: torrent.info_hash(),
        peer_id: format!("-XX0001-{number:012}").as_bytes().try_into().expect("twenty"),
        port,
        left: Some(5),
        event: AnnounceEvent::Started,
        wanted: 0,
        uploaded: 0,
        received_from: Vec::new(),
    };
    get(server.addr, &format!("/announce?{}", announce.encode()))
}

#[test]
fn mute_peers_cost_a_bounded_number_of_connections() {
    within(LIMIT, || {
        let server = server(200_000, |settings| settings.via = None);
        let torrent = metainfo(&server);
        let pits: Vec<Counted> = (0..100).map(|_| Counted::new()).collect();
        for (number, pit) in pits.iter().enumerate() {
            announce(&server, &torrent, number, pit.addr().port());
        }
        let begun = Instant::now();
        let mut held = Vec::new();
        while begun.elapsed() < Duration::from_secs(2) {
            held.extend(pits.iter().filter_map(|pit| pit.0.accept().ok()));
            thread::sleep(Duration::from_millis(10));
        }
        // 64 may wait for an answer at a time. On a busy machine one of them may be given up and
        // another called meanwhile.
        assert!((32..=72).contains(&held.len()), "{} of 100", held.len());
        // Dialed peers that are gone leave room for others.
        drop((held, pits));
        let honest = Counted::new();
        announce(&server, &torrent, 100, honest.addr().port());
        until("a call", || honest.calls() > 0);
        server.stop();
    });
}

#[test]
fn torrent_written_beforehand_is_known_once_it_is_made_here() {
    let of_file = |server: &Server| {
        let content = std::fs::read(server.source()).expect("the file");
        let piece = gatecast::internals::proto::bt::metainfo::piece_bytes(200_000);
        let pieces = content.chunks(piece as usize).map(Digest::of).collect();
        let name = FileName::new("f.bin").expect("a name");
        Metainfo::new(name, 200_000, piece, pieces).expect("a torrent")
    };
    let any = server(200_000, |settings| settings.via = None);
    let torrent = of_file(&any);
    let unknown = announce(&any, &torrent, 1, 5000);
    assert!(unknown.starts_with(b"d14:failure reason"), "{unknown:?}");
    metainfo(&any);
    assert!(announce(&any, &torrent, 1, 5000).starts_with(b"d8:complete"));
    any.stop();
    let swarm = server(200_000, |_| {});
    assert!(announce(&swarm, &of_file(&swarm), 1, 5000).starts_with(b"d8:complete"));
    swarm.stop();
}

#[test]
fn own_address_from_tracker_does_no_harm() {
    within(LIMIT, || {
        let tracker = Tracker::default();
        let (torrent, content) = one_piece(&tracker);
        let fetching = leech_of(&torrent, common::PATIENCE, Duration::ZERO);
        let at = tracker.first();
        tracker.name(at);
        until("two announces more", || tracker.asked() >= 3);
        let mut raw = Raw::join(at, &torrent, *b"-XX0001-honesthonest");
        raw.send(&Message::HaveAll);
        raw.send(&Message::Unchoke);
        send(&mut raw, &content, 4, 0);
        let fetched = fetching.join().expect("no panic").expect("whole");
        assert_eq!(fetched.sha1, Digest::of(&content));
    });
}

#[test]
fn torrent_may_only_announce_in_private_network() {
    within(LIMIT, || {
        let door = Counted::new();
        let (mut torrent, _) = one_piece(&Tracker::default());
        for path in ["", "admin", "admin?/announce", "announce/../admin"] {
            torrent.announce = Some(format!("http://{}/{path}", door.addr()));
            let fetching = leech_of(&torrent, common::PATIENCE, Duration::ZERO);
            let error = fetching.join().expect("no panic").expect_err(path);
            assert!(error.to_string().contains("private network"), "{error}");
        }
        assert_eq!(door.calls(), 0);
        for path in ["announce", "a-key/announce", "announce?key=1", "announce.php"] {
            torrent.announce = Some(format!("http://{}/{path}", door.addr()));
            let fetching = leech_of(&torrent, common::PATIENCE, Duration::ZERO);
            until("an announce", || door.calls() > 0);
            assert!(fetching.join().expect("no panic").is_err(), "{path}");
        }
    });
}

#[test]
fn repeated_requests_for_absent_pieces_end_the_link() {
    within(LIMIT, || {
        let server = server(200_000, |settings| settings.via = None);
        let torrent = metainfo(&server);
        let mut raw = Raw::join(server.addr, &torrent, *b"-XX0001-asks-wrongly");
        let block = |piece| Block { piece, begin: 0, len: 1024 };
        for _ in 0..300 {
            raw.send(&Message::Request(block(9999)));
            assert_eq!(raw.read_until(&[7, 16]), 16);
        }
        raw.send(&Message::Request(block(0)));
        assert_eq!(raw.read_until(&[7, 16]), 7, "it is still served");
        raw.send(&Message::Request(block(9999)));
        raw.until_closed();
        server.stop();
    });
}
