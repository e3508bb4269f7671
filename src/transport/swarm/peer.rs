//! The swarm as a client has it: a peer that is ready before the gate and goes on until nobody
//! needs it any more.
//!
//! Before READY it takes the torrent from the server, looks what an earlier session left, listens,
//! announces itself and calls the others, so that at GO every link stands and every peer knows
//! what every other has. From GO on the server is one member among others: when it dies, the peers
//! finish with what is out, and each can say what is missing.

use std::fs::File;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::Duration;

use crate::client::part::ByteOrder;
use crate::client::receive::PrepareContext;
use crate::client::receive::ReceiveContext;
use crate::client::receive::ReceiveError;
use crate::client::receive::ReceiveSession;
use crate::client::receive::ReceiveTransport;
use crate::client::receive::Received;
use crate::error::Error;
use crate::error::Phase;
use crate::error::Result;
use crate::net::clock;
use crate::net::http::client;
use crate::net::line_stream::LineStream;
use crate::proto::bt::layout::Layout;
use crate::proto::bt::metainfo::METAINFO_MAX;
use crate::proto::bt::metainfo::Metainfo;
use crate::proto::greeting::Greeting;
use crate::proto::http::text::percent_encode;
use crate::proto::http::url::Url;
use crate::server::listener::ConnectionHandler;
use crate::server::listener::Listener;
use crate::session::Via;
use crate::transfer::Counts;
use crate::transport::swarm::announce::Announcer;
use crate::transport::swarm::connect;
use crate::transport::swarm::member::Member;
use crate::transport::swarm::member::role::Role;
use crate::transport::swarm::store::Store;
use crate::transport::swarm::torrents::name_of;
use crate::transport::swarm::torrents::seated_id;
use crate::units::Moment;

/// The way.
#[derive(Clone, Copy, Debug)]
pub struct Swarm;

/// A member with its port and its tracker.
#[derive(Debug)]
pub struct Peer {
    /// The member.
    pub member: Arc<Member>,
    listener: Listener,
    announcer: Announcer,
    /// Bytes that were there when it began.
    held: u64,
    /// When it began.
    began: Moment,
}

/// How long a swarm without a server may stand still, and a finished peer wait for silent ones.
const ALONE: Duration = Duration::from_secs(10);

/// What a finished peer must have given meanwhile for the others not to be silent, bytes; a piece
/// where that is less.
const ENOUGH: u64 = 256 << 10;

/// How long a finished peer may be held by those that are not, at least; and by how much longer
/// than its own copy took.
const SEE_OUT_MIN: Duration = Duration::from_secs(60);
const SEE_OUT_TIMES: u32 = 10;

/// How often the state of things is looked at.
const LOOK: Duration = Duration::from_millis(50);

/// How long connections get to end.
const LEAVE: Duration = Duration::from_millis(500);

impl ReceiveTransport for Swarm {
    fn via(&self) -> Via {
        Via::Swarm
    }

    fn byte_order(&self) -> ByteOrder {
        ByteOrder::Any
    }

    fn prepare(
        &self,
        arriving: &PrepareContext<'_>,
        _: &mut LineStream<'_>,
    ) -> Result<Box<dyn ReceiveSession>> {
        if arriving.offer.file.bytes == 0 {
            return Ok(Box::new(Nothing));
        }
        let failed = |error| Error::io("look at the connection", "the server")(error);
        let server = arriving.stream.peer_addr().map_err(failed)?;
        let local = arriving.stream.local_addr().map_err(failed)?;
        let name = percent_encode(arriving.offer.file.name.as_str());
        let host = server.to_string();
        let torrent = client::get(&[server], &host, &format!("/{name}.torrent"), METAINFO_MAX)?;
        let metainfo = Metainfo::decode(&torrent)
            .map_err(|error| Error::protocol(server, error.to_string()))?;
        if metainfo.bytes != arriving.offer.file.bytes {
            let what = format!(
                "a torrent of {} bytes for a file of {}",
                metainfo.bytes, arriving.offer.file.bytes
            );
            return Err(Error::protocol(server, what));
        }
        let tracker = Url {
            host,
            target: "/announce".to_owned(),
        };
        let id = seated_id(arriving.offer.session, arriving.offer.seat);
        let at = SocketAddr::new(local.ip(), 0);
        let tracker = (tracker, vec![server]);
        let peer = Peer::start(metainfo, arriving.file, id, Role::Seated, at, tracker)?;
        peer.member.has_server(server.ip());
        if let Err(error) = peer.announcer.join_in(true) {
            // The server's seeder tells who is there by what they have, a little later.
            log::warn!("{error}; the server's seeder is called without its tracker");
            peer.announcer.call(vec![server], true);
        }
        Ok(Box::new(Seated {
            peer,
            seed_time: arriving.config.seed_time,
        }))
    }
}

/// An empty file: no torrent is of one, and it needs no peer.
#[derive(Debug)]
struct Nothing;

impl ReceiveSession for Nothing {
    fn receive(
        &mut self,
        _: &ReceiveContext<'_>,
        _: &mut LineStream<'_>,
    ) -> Result<Received, ReceiveError> {
        Ok(Received::nothing(clock::now()))
    }
}

/// A peer with a seat.
#[derive(Debug)]
struct Seated {
    peer: Peer,
    seed_time: Option<Duration>,
}

impl ReceiveSession for Seated {
    fn bytes_held(&self) -> Option<u64> {
        Some(self.peer.held)
    }

    fn receive(
        &mut self,
        incoming: &ReceiveContext<'_>,
        _: &mut LineStream<'_>,
    ) -> Result<Received, ReceiveError> {
        let member = &self.peer.member;
        member.release();
        let moved = |bytes: u64| {
            incoming
                .moved
                .store(bytes - self.peer.held, Ordering::Relaxed);
        };
        let gone = || server_is_gone(incoming);
        let last = self
            .peer
            .finish(incoming.config.stall, incoming.stopped, &gone, &moved)?;
        self.peer.announcer.is_whole();
        let progress = member.progress();
        moved(progress.bytes);
        let (from_server, from_peers, wasted) = member.sources();
        log::info!(
            "seat {}: {} bytes from the server, {} from peers, {} wasted, {} of protocol, {} end-game",
            incoming.offer.seat,
            from_server,
            from_peers,
            wasted,
            progress.protocol,
            progress.counts.endgame
        );
        Ok(Received {
            first: member.first(),
            last,
            counts: Counts {
                retransmitted: Some(wasted),
                bytes_from_server: Some(from_server),
                bytes_from_peers: Some(from_peers),
                ..Counts::default()
            },
        })
    }

    fn serve_others(self: Box<Self>, stopped: &AtomicBool) {
        self.peer.see_out(self.seed_time, stopped);
    }
}

/// True when the server has closed the control connection; it says nothing on it meanwhile.
fn server_is_gone(incoming: &ReceiveContext<'_>) -> bool {
    let seen = incoming
        .stream
        .set_nonblocking(true)
        .and_then(|()| incoming.stream.peek(&mut [0]));
    let _ = incoming.stream.set_nonblocking(false);
    match seen {
        Ok(bytes) => bytes == 0,
        Err(error) => !Error::is_timeout(&error) && error.kind() != std::io::ErrorKind::Interrupted,
    }
}

impl Peer {
    /// A peer that listens on `at` and keeps its copy in `file`, of which it verifies what is
    /// there. It is in no swarm before its announcer has joined in, at `tracker` and its addresses.
    ///
    /// # Errors
    /// The file cannot be read, or the address not be listened on.
    pub fn start(
        metainfo: Metainfo,
        file: &File,
        id: [u8; 20],
        role: Role,
        at: SocketAddr,
        tracker: (Url, Vec<SocketAddr>),
    ) -> Result<Self> {
        let layout = Layout::new(metainfo.bytes, metainfo.piece_bytes);
        let shown = metainfo.name.to_string();
        let file = file
            .try_clone()
            .map_err(Error::io("open the copy", &shown))?;
        let store = Store::new(file, layout);
        let have = store
            .verify(&metainfo)
            .map_err(Error::io("read the copy", &shown))?;
        let member = Member::start(Arc::new(metainfo), store, have, id, role)?;
        let held = member.progress().bytes;
        let serving = Arc::clone(&member);
        let handler: ConnectionHandler = Arc::new(move |connection| {
            let (stream, from) = (Arc::clone(&connection.stream), connection.peer);
            let ours = serving.handshake();
            let greeted = connect::answer(
                &stream,
                from,
                connection.first,
                connection.deadline,
                |hash| (hash == ours.info_hash).then_some(ours),
            );
            match greeted {
                Ok(theirs) => serving.serve(stream, from, theirs),
                Err(error) => log::debug!("{error}"),
            }
        });
        let listener = Listener::start(at, [(Greeting::Swarm, handler)].into())?;
        let port = listener.addr().port();
        member.listens_on(port);
        let announcer = Announcer::new(&member, tracker, port, role == Role::Seated)?;
        Ok(Self {
            member,
            listener,
            announcer,
            held,
            began: clock::now(),
        })
    }

    /// Bytes that were there when it began.
    pub fn held(&self) -> u64 {
        self.held
    }

    /// Announces this peer for the first time and calls whom the tracker names.
    ///
    /// # Errors
    /// The tracker cannot be reached or refuses.
    pub fn join_in(&self) -> Result<()> {
        self.announcer.join_in(false)
    }

    /// Waits until the copy is whole; returns when it was. `gone` tells that the server will not
    /// help any more; `moved` is told how far it has come.
    ///
    /// # Errors
    /// Stopped, no progress for `stall`, a disk that failed; without the server, as soon as no
    /// linked peer has what is missing, or none made progress for ten seconds.
    pub fn finish(
        &self,
        stall: Duration,
        stopped: &AtomicBool,
        gone: &dyn Fn() -> bool,
        moved: &dyn Fn(u64),
    ) -> Result<Moment> {
        let member = &self.member;
        let (mut best, mut since) = (0, clock::now());
        let mut alone = None;
        loop {
            let progress = member.progress();
            moved(progress.bytes);
            if progress.missing == 0 {
                return Ok(clock::now());
            }
            if let Some(fault) = member.fault() {
                return Err(Error::refused("this machine", fault));
            }
            if stopped.load(Ordering::Relaxed) {
                return Err(Error::Interrupted);
            }
            let now = clock::now();
            if progress.kept > best {
                (best, since) = (progress.kept, now);
            }
            if alone.is_none() && gone() {
                log::warn!("the server is gone; the peers go on without it");
                alone = Some(now);
            }
            let quiet = now.since(since);
            let lost = |why: &str| {
                let layout = Layout::new(member.metainfo.bytes, member.metainfo.piece_bytes);
                let reason = format!(
                    "{} of {} pieces are missing, {} of them at nobody, {why}",
                    progress.missing,
                    layout.pieces(),
                    progress.nowhere
                );
                Error::refused("the swarm", reason)
            };
            if let Some(at) = alone {
                let settled = now.since(at) > Duration::from_secs(2) && quiet > LOOK * 10;
                // Who is still being told of pieces may hear of more; a standstill is one.
                if settled && progress.nowhere == progress.missing && progress.unfinished == 0 {
                    return Err(lost("and the server is gone"));
                }
                if settled && progress.nowhere > 0 && quiet > Duration::from_secs(3) {
                    return Err(lost("and the server is gone"));
                }
                if quiet > ALONE {
                    return Err(lost("and no peer sends any more"));
                }
            } else if quiet > stall {
                return Err(Error::TimedOut {
                    phase: Phase::Transfer,
                    at: "the swarm".to_owned(),
                    after: stall,
                });
            }
            member.wait(LOOK);
        }
    }

    /// Serves the others until each linked peer of ours is whole or hardly moves, but not many
    /// times as long as our own copy took; or for `seed_time`. Then leaves.
    pub fn see_out(mut self, seed_time: Option<Duration>, stopped: &AtomicBool) {
        let begun = clock::now();
        let enough = u64::from(self.member.metainfo.piece_bytes).min(ENOUGH);
        let most = SEE_OUT_MIN.max(begun.since(self.began) * SEE_OUT_TIMES);
        let (mut given, mut theirs, mut since) = (0, 0, begun);
        loop {
            let now = clock::now();
            let progress = self.member.progress();
            if progress.given >= given + enough || progress.theirs > theirs {
                (given, theirs, since) = (progress.given, progress.theirs, now);
            }
            let spent = now.since(begun);
            let over = match seed_time {
                Some(limit) => spent >= limit,
                None => progress.unfinished == 0 || now.since(since) > ALONE || spent > most,
            };
            if over || stopped.load(Ordering::Relaxed) {
                break;
            }
            thread::sleep(LOOK);
        }
        for peer in self.member.neighbours() {
            log::info!(
                "{}: {} bytes sent to it, {} received",
                name_of(&peer.id, peer.addr),
                peer.moved.sent,
                peer.moved.received
            );
        }
        self.announcer.end();
        self.member.close();
        self.listener.stop();
        self.listener.close_all(LEAVE);
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        self.member.close();
        self.member.give_back();
        self.listener.stop();
    }
}
