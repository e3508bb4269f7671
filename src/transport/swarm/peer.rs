//! A client's peer: a member with its port and its tracker.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use crate::{
    error::{Error, Phase, Result},
    net::clock,
    proto::{bt::wire::PeerId, greeting::Greeting},
    server::listener::{ConnectionHandler, Listener},
    transport::swarm::{
        announcer::{Announcer, Tracker},
        external_peers::ExternalPeers,
        handshake,
        limits::PEER_CONNECTIONS,
        member::{SwarmMember, status::Progress},
        peer_id::{self, Role},
        store::HeldCopy,
    },
    units::Moment,
};

/// A member with its port and its tracker.
#[derive(Debug)]
pub struct Peer {
    /// The member.
    pub member: Arc<SwarmMember>,
    /// Announces it to the tracker.
    pub announcer: Announcer,
    /// Bytes of the copy that were there in the beginning.
    pub resumed: u64,
    listener: Listener,
    started: Moment,
}

/// Without a server: after how long without progress the swarm is given up. And when the copy is
/// complete: for how long a peer waits for others that make no progress.
const STANDSTILL_LIMIT: Duration = Duration::from_secs(10);

/// A peer that seeds counts others as making progress when it sent so many bytes, or one piece
/// where that is less.
const PROGRESS_BYTES: u64 = 256 << 10;

/// How long a complete peer seeds at most for others that are not complete: at least this long ...
const SEED_MIN: Duration = Duration::from_secs(60);

/// ... and up to so many times as long as its own copy took.
const SEED_TIMES: u32 = 10;

/// How often the progress is checked.
const CHECK_INTERVAL: Duration = Duration::from_millis(50);

/// How long connections get to end.
const CLOSE_LIMIT: Duration = Duration::from_millis(500);

impl Peer {
    /// A peer that listens on `at` and goes on with the copy `held`. It joins the swarm with
    /// [`Announcer::start`].
    ///
    /// # Errors
    /// The address cannot be listened on.
    pub fn start(
        held: HeldCopy,
        id: PeerId,
        role: Role,
        at: SocketAddr,
        tracker: Tracker,
    ) -> Result<Self> {
        let HeldCopy { metainfo, store, have } = held;
        let external = ExternalPeers::new(2 * PEER_CONNECTIONS, Arc::default());
        let member = SwarmMember::start(Arc::new(metainfo), store, have, id, role, external)?;
        let serving = Arc::clone(&member);
        let handler: ConnectionHandler = Arc::new(move |connection| {
            let (stream, from) = (Arc::clone(&connection.stream), connection.peer);
            let ours = serving.handshake();
            let accepted =
                handshake::accept(&stream, from, connection.first, connection.deadline, |hash| {
                    (hash == ours.info_hash).then_some(ours)
                });
            match accepted {
                Ok(theirs) => serving.serve(stream, from, theirs),
                Err(error) => log::debug!("{error}"),
            }
        });
        let listener = Listener::start(at, [(Greeting::Swarm, handler)].into())?;
        let port = listener.addr().port();
        member.set_listen_port(port);
        Ok(Self {
            announcer: Announcer::new(&member, tracker, port, role == Role::Seated)?,
            resumed: member.progress().bytes,
            member,
            listener,
            started: clock::now(),
        })
    }

    /// Waits until the copy is complete, and returns when it was. `server_gone` tells that the
    /// server cannot help any more; `moved` is told how many bytes are verified.
    ///
    /// # Errors
    /// Stopped, no progress for `stall`, or a disk that failed. Without the server: no connected
    /// peer has what is missing, or nothing made progress for ten seconds.
    pub fn wait_until_complete(
        &self,
        stall: Duration,
        stopped: &AtomicBool,
        server_gone: &dyn Fn() -> bool,
        moved: &dyn Fn(u64),
    ) -> Result<Moment> {
        let member = &self.member;
        let (mut kept, mut since) = (0, clock::now());
        let mut gone_since = None;
        loop {
            let progress = member.progress();
            moved(progress.bytes);
            member.update_link();
            let now = clock::now();
            if progress.missing == 0 {
                return Ok(member.last_received().unwrap_or(now));
            }
            if let Some(fault) = member.fault() {
                return Err(Error::refused("this machine", fault));
            }
            if stopped.load(Ordering::Relaxed) {
                return Err(Error::Interrupted);
            }
            if progress.kept > kept {
                (kept, since) = (progress.kept, now);
            }
            let quiet = now.since(since);
            if gone_since.is_none() && server_gone() {
                log::warn!("the server is gone; the peers go on without it");
                gone_since = Some(now);
            }
            if let Some(gone) = gone_since {
                if let Some(why) = hopeless(&progress, now.since(gone), quiet) {
                    let reason = format!(
                        "{} of {} pieces are missing, {} of which no peer has, {why}",
                        progress.missing,
                        member.metainfo.pieces.len(),
                        progress.unavailable
                    );
                    return Err(Error::refused("the swarm", reason));
                }
            } else if quiet > stall {
                return Err(Error::timed_out(Phase::Transfer, "the swarm", stall));
            }
            member.wait(CHECK_INTERVAL);
        }
    }

    /// Serves the others for `seed_time`; without one until every connected gatecast peer is
    /// complete or makes no progress, but not many times as long as our own copy took. Then leaves.
    pub fn seed(&mut self, seed_time: Option<Duration>, stopped: &AtomicBool) {
        let begun = clock::now();
        let enough = u64::from(self.member.metainfo.piece_bytes).min(PROGRESS_BYTES);
        let most = SEED_MIN.max(begun.since(self.started) * SEED_TIMES);
        let (mut sent, mut their_pieces, mut since) = (0, 0, begun);
        loop {
            let now = clock::now();
            let progress = self.member.progress();
            if progress.sent >= sent + enough || progress.their_pieces > their_pieces {
                (sent, their_pieces, since) = (progress.sent, progress.their_pieces, now);
            }
            let spent = now.since(begun);
            let over = match seed_time {
                Some(limit) => spent >= limit,
                None => {
                    progress.incomplete_peers == 0
                        || now.since(since) > STANDSTILL_LIMIT
                        || spent > most
                }
            };
            if over || stopped.load(Ordering::Relaxed) {
                break;
            }
            thread::sleep(CHECK_INTERVAL);
        }
        for peer in self.member.connected_peers() {
            log::info!(
                "{}: {} bytes sent to it, {} received",
                peer_id::name_of(&peer.id, peer.addr),
                peer.traffic.sent,
                peer.traffic.received
            );
        }
        self.announcer.stop();
        self.member.close();
        self.listener.stop();
        self.listener.close_all(CLOSE_LIMIT);
    }
}

/// Why a swarm whose server is gone for `gone` cannot finish, after a standstill of `quiet`.
fn hopeless(progress: &Progress, gone: Duration, quiet: Duration) -> Option<&'static str> {
    let settled = gone > Duration::from_secs(2) && quiet > CHECK_INTERVAL * 10;
    // While pieces are announced more may become available; a standstill shows that none will.
    let nothing_left = progress.unavailable == progress.missing && progress.incomplete_peers == 0;
    let some_lost = progress.unavailable > 0 && quiet > Duration::from_secs(3);
    if settled && (nothing_left || some_lost) {
        Some("and the server is gone")
    } else if quiet > STANDSTILL_LIMIT {
        Some("and no peer sends any more")
    } else {
        None
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        self.member.close();
        self.member.store.file.unlock();
        self.listener.stop();
    }
}
