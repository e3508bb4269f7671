//! The server's swarms: for each offered file a torrent, a seeder and a tracker's board.
//!
//! A torrent is made when it is first asked for: by a session, by somebody who fetches the
//! `.torrent`, or by a peer that has one already. Sessions of one file share its swarm: the first
//! holds it until its gate opens.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;
use std::time::Duration;

use crate::digest::Digest;
use crate::error::Error;
use crate::error::Result;
use crate::net::clock;
use crate::proto::bt::bits::Bits;
use crate::proto::bt::layout::Layout;
use crate::proto::bt::metainfo;
use crate::proto::bt::metainfo::Metainfo;
use crate::proto::bt::tracker;
use crate::proto::bt::tracker::Announce;
use crate::proto::bt::tracker::Share;
use crate::proto::bt::tracker::TrackerError;
use crate::proto::http::request::HttpRequest;
use crate::proto::http::response::HttpResponse;
use crate::proto::http::text::percent_encode;
use crate::proto::json::Json;
use crate::server::catalog;
use crate::server::catalog::Source;
use crate::server::listener::Connection;
use crate::server::lobby::Lobby;
use crate::text::FileName;
use crate::transport::swarm::connect;
use crate::transport::swarm::member::Member;
use crate::transport::swarm::member::role::Role;
use crate::transport::swarm::member::role::peer_id;
use crate::transport::swarm::store;
use crate::transport::swarm::store::Store;
use crate::transport::swarm::tracker::Board;

/// What a server's swarms may do beyond the usual.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Write who had which chunk first into this file, in the lab's two columns.
    pub tracker_file: Option<PathBuf>,
    /// Name the file's own address on this server in the torrent, for programs that fetch over
    /// HTTP too (BEP 19). Each then takes a copy from the server.
    pub web_seed: bool,
    /// Serve nobody before the first session of a file is released.
    pub gated: bool,
}

/// All swarms of one server.
#[derive(Debug)]
pub struct Torrents {
    /// What they may do.
    pub options: Options,
    all: Mutex<Vec<Arc<Torrent>>>,
    /// Held by whoever makes a torrent: all clients of a session ask for it at the same time, and
    /// each would hash the file. Taken before `all`.
    making: Mutex<()>,
    /// The files whose torrents were made, or tried to be, for a hash that was unknown. Taken
    /// before `making`.
    sought: Mutex<BTreeSet<FileName>>,
}

/// One file's swarm.
#[derive(Debug)]
pub struct Torrent {
    /// The file.
    pub source: Arc<Source>,
    /// Our seeder.
    pub member: Arc<Member>,
    board: Mutex<Board>,
    /// Sessions that have begun and not ended.
    sessions: Mutex<usize>,
}

/// One peer of ours in the table of who got how much from whom.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// What it is called.
    pub peer: String,
    /// It has the whole file.
    pub whole: bool,
    /// Payload bytes that came from the server.
    pub from_server: u64,
    /// Payload bytes that came from other peers.
    pub from: Vec<(String, u64)>,
    /// Payload bytes that others had from it, as these tell.
    pub sent: u64,
}

/// Most files of which a server has torrents at once.
const TORRENTS_MAX: usize = 1000;

/// How long a peer that announced itself is given to call us before we call it. Transmission
/// calls nobody on loopback, and libtorrent asks for others once in five minutes.
const CALL_AFTER: Duration = Duration::from_millis(300);

impl Torrents {
    /// None yet.
    pub fn new(options: Options) -> Arc<Self> {
        Arc::new(Self {
            options,
            all: Mutex::default(),
            making: Mutex::default(),
            sought: Mutex::default(),
        })
    }

    /// The torrent of `source`, made if there is none.
    ///
    /// # Errors
    /// The file is empty, changed while it was read, or cannot be read.
    pub fn of(&self, source: &Arc<Source>) -> Result<Arc<Torrent>> {
        let info = &source.info;
        let known = |all: &[Arc<Torrent>]| {
            let same = |torrent: &&Arc<Torrent>| torrent.source.info == *info;
            all.iter().find(same).map(Arc::clone)
        };
        if let Some(torrent) = known(&self.lock()) {
            return Ok(torrent);
        }
        let _making = self.making.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(torrent) = known(&self.lock()) {
            return Ok(torrent);
        }
        let refuse = |why: String| Error::refused("gatecast", format!("'{}': {why}", info.name));
        let layout = Layout::new(info.bytes, metainfo::piece_bytes(info.bytes));
        let full = || refuse(format!("there are {TORRENTS_MAX} torrents already"));
        if self.lock().len() >= TORRENTS_MAX {
            return Err(full());
        }
        if info.bytes == 0 {
            return Err(refuse("an empty file has no torrent".to_owned()));
        }
        let pieces = store::digests(&source.file, layout, info.name.as_str())?;
        source.unchanged()?;
        let metainfo = Metainfo::new(info.name.clone(), info.bytes, layout.piece, pieces)
            .map_err(|error| refuse(error.to_string()))?;
        let file = source
            .file
            .try_clone()
            .map_err(Error::io("open the file again", &info.name))?;
        let have = Bits::full(layout.pieces());
        let id = peer_id(Role::Seeder, &format!("{:011x}", clock::random() >> 20));
        let store = Store::new(file, layout);
        let member = Member::start(Arc::new(metainfo), store, have, id, Role::Seeder)?;
        if !self.options.gated {
            // Until a session holds it, it is open to whoever has the torrent.
            member.release();
        }
        let torrent = Arc::new(Torrent {
            source: Arc::clone(source),
            member,
            board: Mutex::new(Board::new(clock::random())),
            sessions: Mutex::default(),
        });
        let mut all = self.lock();
        if all.len() >= TORRENTS_MAX {
            torrent.member.close();
            return Err(full());
        }
        all.push(Arc::clone(&torrent));
        Ok(torrent)
    }

    /// The torrent of an offered file.
    ///
    /// # Errors
    /// As [`Torrents::of`], or there is no such file.
    pub fn named(&self, lobby: &Lobby, name: &FileName) -> Result<Arc<Torrent>> {
        self.of(&Arc::new(lobby.catalog.open(name, &catalog::silent)?))
    }

    /// The torrent of this hash. Somebody may have a `.torrent` of a file whose own was never
    /// asked for here, so an unknown hash makes them all, once.
    pub fn hashed(&self, lobby: &Lobby, hash: Digest) -> Option<Arc<Torrent>> {
        let find = || {
            let all = self.lock();
            let found = all.iter().find(|torrent| torrent.member.hash() == hash);
            found.map(Arc::clone)
        };
        if let Some(found) = find() {
            return Some(found);
        }
        // Each file once: a hash that nothing has must not have the catalogue read every time.
        let mut sought = self.sought.lock().unwrap_or_else(PoisonError::into_inner);
        let made = self.names();
        for name in lobby.catalog.names().filter(|name| !made.contains(name)) {
            if self.lock().len() >= TORRENTS_MAX {
                break;
            }
            if sought.insert(name.clone())
                && let Err(error) = self.named(lobby, name)
            {
                log::debug!("{error}");
            }
        }
        find()
    }

    fn names(&self) -> Vec<FileName> {
        self.lock()
            .iter()
            .map(|torrent| torrent.source.info.name.clone())
            .collect()
    }

    /// Serves a peer that greets us.
    pub fn greet(&self, connection: Connection, lobby: &Lobby) {
        let Connection {
            stream,
            peer,
            first,
            deadline,
        } = connection;
        let mut found = None;
        let greeted = connect::answer(&stream, peer, first, deadline, |hash| {
            found = self.hashed(lobby, hash);
            found.as_ref().map(|torrent| torrent.member.handshake())
        });
        match (greeted, found) {
            (Ok(theirs), Some(torrent)) => torrent.member.serve(stream, peer, theirs),
            (Ok(_), None) => {}
            (Err(error), _) => log::debug!("{error}"),
        }
    }

    /// Answers a GET, which came from `peer` to our address `local`; `None` if its path is not a
    /// swarm's.
    pub fn answer(
        &self,
        request: &HttpRequest,
        peer: SocketAddr,
        local: SocketAddr,
        lobby: &Lobby,
    ) -> Option<HttpResponse> {
        let query = request.query.as_deref().unwrap_or_default();
        let plain = |body: Vec<u8>| HttpResponse::new(200, "text/plain", body);
        Some(match &*request.path {
            // A failure is an answer like any other (BEP 3).
            "/announce" => plain(match self.announce(lobby, query, peer, local) {
                Ok(body) => body,
                Err(error) => tracker::failure(&error.to_string()),
            }),
            "/scrape" => plain(match tracker::scraped(query) {
                Ok(hashes) => self.scrape(&hashes),
                Err(error) => tracker::failure(&error.to_string()),
            }),
            "/swarm" => HttpResponse::json(self.document()),
            path => {
                let name = path.strip_prefix('/')?.strip_suffix(".torrent")?;
                let name = FileName::new(name).ok()?;
                // An offered file may itself be called so.
                if !lobby.catalog.names().any(|offered| *offered == name) {
                    return None;
                }
                match self.named(lobby, &name) {
                    Ok(torrent) => {
                        let body = self.torrent_file(&torrent, local);
                        HttpResponse::new(200, "application/x-bittorrent", body)
                    }
                    Err(error) => HttpResponse::new(404, "text/plain", format!("{error}\n")),
                }
            }
        })
    }

    fn torrent_file(&self, torrent: &Torrent, local: SocketAddr) -> Vec<u8> {
        let local = SocketAddr::new(local.ip().to_canonical(), local.port());
        let announce = format!("http://{local}/announce");
        let name = percent_encode(torrent.source.info.name.as_str());
        let web_seed = format!("http://{local}/{name}");
        let web_seed = self.options.web_seed.then_some(web_seed);
        torrent
            .member
            .metainfo
            .encode(Some(&announce), web_seed.as_deref())
    }

    fn announce(
        &self,
        lobby: &Lobby,
        query: &str,
        peer: SocketAddr,
        local: SocketAddr,
    ) -> Result<Vec<u8>, TrackerError> {
        let announce = Announce::decode(query)?;
        let torrent = self
            .hashed(lobby, announce.info_hash)
            .ok_or_else(|| TrackerError("no such torrent is served here".to_owned()))?;
        let ip = peer.ip().to_canonical();
        let seeder = SocketAddr::new(local.ip().to_canonical(), local.port());
        let seat = torrent.member.is_seat(announce.peer_id, ip);
        let answer = torrent
            .board()
            .announce(&announce, ip, seat, seeder, clock::now())
            .map_err(|why| TrackerError(why.to_owned()))?;
        if announce.event != tracker::Event::Stopped && announce.left != Some(0) {
            let addr = SocketAddr::new(ip, announce.port);
            let when = clock::now().after(CALL_AFTER);
            torrent.member.dial_at(when, addr, announce.peer_id);
        }
        Ok(answer.encode())
    }

    fn scrape(&self, hashes: &[Digest]) -> Vec<u8> {
        let all = self.lock();
        let asked = all
            .iter()
            .filter(|torrent| hashes.is_empty() || hashes.contains(&torrent.member.hash()));
        let counts: Vec<(Digest, u64, u64, u64)> = asked
            .map(|torrent| {
                let (complete, incomplete, completed) = torrent.board().counts();
                (torrent.member.hash(), complete, incomplete, completed)
            })
            .collect();
        tracker::encode_scrape(&counts)
    }

    /// Payload bytes that each of our own peers gave to others, as these tell, by seat.
    pub fn given(&self) -> Vec<(String, u64)> {
        let all: Vec<Arc<Torrent>> = self.lock().iter().map(Arc::clone).collect();
        let rows = all.iter().flat_map(|torrent| torrent.moved());
        let seat = |peer: String| match peer.strip_prefix('C') {
            Some(seat) => format!("seat {seat}"),
            None => peer,
        };
        rows.map(|row| (seat(row.peer), row.sent)).collect()
    }

    /// Who is in which swarm and who has which chunk, as `gatecast.swarm/1`.
    pub fn document(&self) -> String {
        let all: Vec<Arc<Torrent>> = self.lock().iter().map(Arc::clone).collect();
        Json::object(|json| {
            json.text("schema", "gatecast.swarm/1");
            json.list("swarms", |json| {
                for torrent in &all {
                    json.item(|json| torrent.describe(json));
                }
            });
        })
    }

    /// Ends every swarm.
    pub fn close(&self) {
        self.lock()
            .iter()
            .for_each(|torrent| torrent.member.close());
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Arc<Torrent>>> {
        self.all.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Torrent {
    /// A session of this file begins: nobody is served until it is released, unless another
    /// session runs already, which must not stand still for it.
    pub fn begin(&self) {
        let mut sessions = self.sessions.lock().unwrap_or_else(PoisonError::into_inner);
        *sessions += 1;
        if *sessions == 1 {
            self.member.hold();
            self.board().forget();
        }
    }

    /// A session of this file has ended, released or not.
    pub fn end(&self) {
        let mut sessions = self.sessions.lock().unwrap_or_else(PoisonError::into_inner);
        *sessions -= 1;
        if *sessions == 0 {
            self.member.release();
        }
    }

    fn board(&self) -> MutexGuard<'_, Board> {
        self.board.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn describe(&self, json: &mut Json) {
        let progress = self.member.progress();
        json.text("file", self.source.info.name.as_str());
        json.text("info_hash", self.member.hash().to_string());
        json.truth("released", self.member.is_released());
        json.count("protocol_bytes", Some(progress.protocol));
        json.list("peers", |json| {
            for peer in self.member.neighbours() {
                json.item(|json| {
                    json.text("peer", name_of(&peer.id, peer.addr));
                    json.text("address", peer.addr.to_string());
                    json.truth("gatecast", peer.native);
                    json.count("pieces", Some(u64::from(peer.pieces)));
                    json.count("bytes_from_server", Some(peer.moved.sent));
                });
            }
        });
        json.list("moved", |json| {
            for row in self.moved() {
                json.item(|json| {
                    json.text("peer", &row.peer);
                    json.truth("whole", row.whole);
                    json.count("bytes_from_server", Some(row.from_server));
                    json.list("bytes_from", |json| {
                        for (peer, bytes) in &row.from {
                            json.item(|json| {
                                json.text("peer", peer);
                                json.count("bytes", Some(*bytes));
                            });
                        }
                    });
                    json.count("bytes_sent", Some(row.sent));
                });
            }
        });
        json.list("chunks", |json| {
            for (chunk, (first, copies)) in self.member.chunks().into_iter().enumerate() {
                json.item(|json| {
                    json.count("chunk", Some(chunk as u64));
                    json.maybe_text("first", first.map(|(id, addr)| name_of(&id, addr)));
                    json.count("copies", Some(u64::from(copies)));
                });
            }
        });
    }

    /// What each of our own peers got from whom, as it told the tracker, by name.
    pub fn moved(&self) -> Vec<Row> {
        let told = self.board().told().clone();
        let name = |id: &[u8; 20]| match told.get(id) {
            Some(known) => name_of(id, known.addr),
            None => seat_of(id).map_or_else(
                || crate::text::escape(&String::from_utf8_lossy(id)).to_string(),
                |seat| format!("C{seat}"),
            ),
        };
        let mut sent: BTreeMap<[u8; 20], u64> = BTreeMap::new();
        for (id, bytes) in told.values().flat_map(|one| &one.from) {
            let sum = sent.entry(*id).or_default();
            *sum = sum.saturating_add(*bytes);
        }
        let server = self.member.id();
        let rows = told.iter().map(|(id, mine)| {
            let of = |share: &&Share| share.0 == server;
            Row {
                peer: name(id),
                whole: mine.whole,
                from_server: mine.from.iter().find(of).map_or(0, |share| share.1),
                from: (mine.from.iter().filter(|share| !of(share)))
                    .map(|share| (name(&share.0), share.1))
                    .collect(),
                sent: sent.get(id).copied().unwrap_or(0),
            }
        });
        rows.collect()
    }

    /// Who had which chunk first, in two columns: the chunk's number and the peer.
    pub fn table(&self) -> String {
        let chunks = self.member.chunks().into_iter().enumerate();
        chunks.fold(String::new(), |text, (chunk, (first, _))| {
            let peer = first.map_or_else(|| "-".to_owned(), |(id, addr)| name_of(&id, addr));
            format!("{text}{chunk}\t{peer}\n")
        })
    }
}

/// What a peer is called: a seated one by its seat, another by its program and address.
pub fn name_of(id: &[u8; 20], addr: SocketAddr) -> String {
    let text = String::from_utf8_lossy(id);
    match seat_of(id) {
        Some(seat) => format!("C{seat}"),
        None => format!(
            "{} {addr}",
            crate::text::escape(&text[..text.floor_char_boundary(8)])
        ),
    }
}

/// The seat in the id of a seated peer of ours.
fn seat_of(id: &[u8; 20]) -> Option<u16> {
    if !id.starts_with(b"-GC0001-P") {
        return None;
    }
    let digits = std::str::from_utf8(&id[16..]).ok()?;
    u16::from_str_radix(digits, 16).ok()
}

/// The id of the client in `seat` of `session`: both sides know it without a word.
pub fn seated_id(session: crate::session::SessionId, seat: crate::session::SeatId) -> [u8; 20] {
    let session = session.0 >> (64 - 28);
    peer_id(Role::Seated, &format!("{session:07x}{:04x}", seat.0))
}

impl Drop for Torrents {
    fn drop(&mut self) {
        self.close();
    }
}
