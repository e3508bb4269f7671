//! What one end of a chain gives to others: the bytes that are on its disk, to those who prove that
//! the server sent them here. The server's own end is the same.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Shutdown, SocketAddr, TcpStream},
    sync::{
        Arc, Condvar, Mutex, OnceLock, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use crate::{
    digest::Digest,
    error::{Error, Phase, Result},
    net::{
        clock, copy,
        copy::{Copying, Method, Stop},
        line_stream::LineStream,
        lock,
        pacing::Pacer,
        storage::FileStorage,
    },
    proto::{
        chain::words::{ChainLine, ticket},
        key::{Challenge, is_same},
    },
    session::{SeatId, SessionId},
    text::debug_fields,
    units::Moment,
};

/// What a [`Feed`] is made of.
#[derive(Debug)]
pub struct FeedSpec {
    /// The session.
    pub session: SessionId,
    /// Our own token.
    pub token: Challenge,
    /// Where the bytes are.
    pub file: FileStorage,
    /// How many there are in all.
    pub bytes: u64,
    /// A link that takes nothing for so long is closed.
    pub stall: Duration,
    /// Holds the session's rate.
    pub pacer: Option<Pacer>,
}

/// One end's bytes, and the links over which they go.
pub struct Feed {
    pub(super) spec: FeedSpec,
    closed: AtomicBool,
    state: Mutex<FeedState>,
    changed: Condvar,
}

#[derive(Default)]
struct FeedState {
    /// How many bytes there are; `None` before the release.
    held: Option<u64>,
    /// How many there were when the links were woken last.
    woke: u64,
    links: BTreeMap<SeatId, Arc<Link>>,
    /// Who may take; `None` is whoever has a ticket.
    only: Option<BTreeSet<IpAddr>>,
    /// What went over links that are over, and when the first of it did.
    sent: BTreeMap<SeatId, LinkCount>,
}

/// What was sent to a seat.
#[derive(Clone, Copy, Debug, Default)]
pub struct LinkCount {
    /// Bytes in all.
    pub bytes: u64,
    /// When the first went.
    pub first: Option<Moment>,
}

#[derive(Debug)]
struct Link {
    stream: Arc<TcpStream>,
    peer: SocketAddr,
    /// From where it takes, once it has asked.
    from: OnceLock<u64>,
    moved: AtomicU64,
}

/// A link that waits for more is woken by so many new bytes ...
const WAKE_BYTES: u64 = 16 << 10;

/// ... or after so long, by fewer.
const WAKE_EVERY: Duration = Duration::from_millis(5);

/// How often a link that waits looks whether it is to end.
const LOOK_EVERY: Duration = Duration::from_millis(500);

impl Feed {
    /// An end that gives nothing before [`Feed::hold`].
    pub fn new(spec: FeedSpec) -> Arc<Self> {
        let (state, changed) = (Mutex::default(), Condvar::new());
        Arc::new(Self { spec, closed: AtomicBool::new(false), state, changed })
    }

    /// The first `bytes` bytes are there and may be taken.
    pub fn hold(&self, bytes: u64) {
        let mut state = lock(&self.state);
        state.held = Some(bytes);
        if bytes >= state.woke + WAKE_BYTES || bytes == self.spec.bytes {
            state.woke = bytes;
            drop(state);
            self.changed.notify_all();
        }
    }

    /// Only those at these addresses may take from now on.
    pub fn limit_to(&self, only: BTreeSet<IpAddr>) {
        let mut state = lock(&self.state);
        let links = state.links.values();
        links.filter(|link| !only.contains(&ip_of(link.peer))).for_each(|link| close(&link.stream));
        state.only = Some(only);
    }

    /// Serves a connection that begins with `first`, until its client has everything or leaves.
    ///
    /// # Errors
    /// It proves no ticket, says something else, or does not take what it is sent.
    pub fn serve(
        &self,
        stream: &Arc<TcpStream>,
        peer: SocketAddr,
        first: &[u8],
        deadline: Moment,
    ) -> Result<()> {
        let mut lines = LineStream::new(stream, peer, first);
        let line = lines.read_line(deadline, Phase::Greet)?;
        match ChainLine::decode(&line) {
            Ok(ChainLine::Link { session, seat, ticket }) if session == self.spec.session => {
                self.serve_link(stream, lines, (seat, ticket), || ())
            }
            Ok(_) => Err(Error::protocol(peer, "no LINK of this session")),
            Err(error) => Err(Error::protocol(peer, error.to_string())),
        }
    }

    /// Serves the link of `seat`, if `proof` is its ticket; calls `proven` then.
    pub(super) fn serve_link(
        &self,
        stream: &Arc<TcpStream>,
        mut lines: LineStream<'_>,
        (seat, proof): (SeatId, Digest),
        proven: impl FnOnce(),
    ) -> Result<()> {
        let peer = lines.peer;
        let right = ticket(self.spec.token, self.spec.session, seat);
        if !is_same(right.as_bytes(), proof.as_bytes()) {
            return Err(Error::protocol(peer, "a wrong ticket"));
        }
        let link = Arc::new(Link {
            stream: Arc::clone(stream),
            peer,
            from: OnceLock::new(),
            moved: AtomicU64::new(0),
        });
        {
            let mut state = lock(&self.state);
            let is_ours = state.only.as_ref().is_none_or(|only| only.contains(&ip_of(peer)));
            if !is_ours || self.is_closed() {
                return Err(Error::protocol(peer, "nobody who may take"));
            }
            if let Some(before) = state.links.insert(seat, Arc::clone(&link)) {
                close(&before.stream);
            }
        }
        proven();
        let end = self.send(&link, seat, &mut lines);
        let mut state = lock(&self.state);
        if state.links.get(&seat).is_some_and(|other| Arc::ptr_eq(other, &link)) {
            state.links.remove(&seat);
        }
        state.sent.entry(seat).or_default().bytes += link.moved.load(Ordering::Relaxed);
        drop(state);
        self.changed.notify_all();
        end
    }

    /// Waits for TAKE, and sends what is there until there is no more to come.
    fn send(&self, link: &Link, seat: SeatId, lines: &mut LineStream<'_>) -> Result<()> {
        lines.write_line(&ChainLine::Linked(0).encode())?;
        let mut at = self.wait_for_take(lines)?;
        let _ = link.from.set(at);
        while at < self.spec.bytes {
            let held = self.wait_beyond(at).ok_or(Error::Interrupted)?;
            lock(&self.state).sent.entry(seat).or_default().first.get_or_insert_with(clock::now);
            let method = Method::Auto.resolved().unwrap_or(Method::Buffered);
            let copying = Copying {
                pacer: self.spec.pacer.as_ref(),
                stopped: Some(&self.closed),
                ..Copying::new(method, self.spec.stall, &link.moved)
            };
            copy::send(&self.spec.file, at..held, &link.stream, copying).map_err(
                |stop| match stop {
                    Stop::Stopped => Error::Interrupted,
                    Stop::Stalled => Error::timed_out(Phase::Transfer, link.peer, self.spec.stall),
                    stop => Error::io("send to the next client", link.peer)(stop.into()),
                },
            )?;
            at = held;
        }
        // All is on its way; the one who has it closes.
        let _ = link.stream.shutdown(Shutdown::Write);
        Ok(())
    }

    fn wait_for_take(&self, lines: &mut LineStream<'_>) -> Result<u64> {
        loop {
            match lines.read_line(clock::now().after(LOOK_EVERY), Phase::Muster) {
                Ok(line) => match ChainLine::decode(&line) {
                    Ok(ChainLine::Take(at)) if at <= self.spec.bytes => return Ok(at),
                    _ => return Err(Error::protocol(lines.peer, "no TAKE within the file")),
                },
                // The muster's own time limits this.
                Err(Error::TimedOut { .. }) if !self.is_closed() => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Waits until there is a byte at `at`; `None` when there will be none.
    fn wait_beyond(&self, at: u64) -> Option<u64> {
        let mut state = lock(&self.state);
        loop {
            if self.is_closed() {
                return None;
            }
            if let Some(held) = state.held.filter(|&held| held > at) {
                return Some(held);
            }
            let wait = if state.held.is_some() { WAKE_EVERY } else { LOOK_EVERY };
            let waited = self.changed.wait_timeout(state, wait);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Up to which byte `seat` was sent over its link; `None` if it has not asked for any.
    pub fn sent_to(&self, seat: SeatId) -> Option<u64> {
        let state = lock(&self.state);
        let link = state.links.get(&seat)?;
        Some(link.from.get()? + link.moved.load(Ordering::Relaxed))
    }

    /// What `seat` was sent over all its links; waits until then for the one that it has to end, so
    /// that all of it is counted.
    pub fn sent(&self, seat: SeatId, until: Moment) -> LinkCount {
        let state = lock(&self.state);
        let left = clock::left(until).unwrap_or_default();
        let is_open = |state: &mut FeedState| state.links.contains_key(&seat);
        let waited = self.changed.wait_timeout_while(state, left, is_open);
        let state = waited.unwrap_or_else(PoisonError::into_inner).0;
        let mut sent = state.sent.get(&seat).copied().unwrap_or_default();
        sent.bytes += state.links.get(&seat).map_or(0, |link| link.moved.load(Ordering::Relaxed));
        sent
    }

    /// How many links there are, and how many bytes went over them.
    pub fn progress(&self) -> (usize, u64) {
        let state = lock(&self.state);
        let links = state.links.values();
        (state.links.len(), links.map(|link| link.moved.load(Ordering::Relaxed)).sum())
    }

    /// Ends every link, and lets go of the file for another client.
    pub fn close(&self) {
        self.closed.store(true, Ordering::Relaxed);
        lock(&self.state).links.values().for_each(|link| close(&link.stream));
        self.changed.notify_all();
    }

    fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Relaxed)
    }
}

/// Ends a connection.
pub(super) fn close(stream: &TcpStream) {
    // One that is gone already needs no closing.
    let _ = stream.shutdown(Shutdown::Both);
}

/// The address of `peer` in the one form in which addresses are compared.
pub(super) fn ip_of(peer: SocketAddr) -> IpAddr {
    peer.ip().to_canonical()
}

debug_fields!(Feed, spec);
