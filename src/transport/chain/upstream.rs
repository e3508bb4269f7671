//! From whom a client of a chain takes: it does what the server tells it, before the release and
//! after.

use std::{
    net::{SocketAddr, TcpStream},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use crate::{
    digest::Digest,
    error::{Error, Phase, Result},
    net::{clock, copy, line_stream::LineStream, lock, socket, spawn},
    proto::chain::words::ChainLine,
    session::{SeatId, SessionId},
    transport::chain::feed::close,
    units::Moment,
};

/// A client's connection to the server as a member, and its link.
#[derive(Debug)]
pub struct Upstream {
    session: SessionId,
    seat: SeatId,
    server: SocketAddr,
    control: TcpStream,
    state: Mutex<UpstreamState>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct UpstreamState {
    link: Option<UpstreamLink>,
    settled: bool,
    gone: bool,
}

/// A link that stands.
#[derive(Clone, Debug)]
pub struct UpstreamLink {
    /// Which of the server's steps made it.
    pub step: u32,
    /// It leads to the server itself.
    pub is_server: bool,
    /// The connection.
    pub stream: Arc<TcpStream>,
}

/// How long a connection to another client may take, and how long its answer.
const LINK_LIMIT: Duration = Duration::from_secs(1);

/// How long the links may take before READY.
const SETTLED_LIMIT: Duration = Duration::from_secs(10);

/// How long one read waits; it ends with its connection.
const READ_EVERY: Duration = Duration::from_secs(10);

impl Upstream {
    /// Comes into the chain with `join`, and returns once the links stand that this changed.
    ///
    /// # Errors
    /// The server cannot be reached, or does not know this client.
    pub fn join(
        server: SocketAddr,
        session: SessionId,
        seat: SeatId,
        join: ChainLine,
    ) -> Result<Arc<Self>> {
        let control = socket::connect(&[server], clock::now().after(SETTLED_LIMIT))?;
        let (state, changed) = (Mutex::default(), Condvar::new());
        let upstream = Arc::new(Self { session, seat, server, control, state, changed });
        upstream.send(join)?;
        let following = Arc::clone(&upstream);
        spawn("chain", move || following.follow())
            .map_err(Error::io("start the chain's thread", "this process"))?;
        let until = clock::now().after(SETTLED_LIMIT);
        let settled = upstream.wait(until, |state| state.settled || state.gone).settled;
        if settled {
            return Ok(upstream);
        }
        upstream.close();
        Err(Error::refused(server, "no place in its chain"))
    }

    /// Does what the server says, until that closes the connection.
    fn follow(&self) {
        let mut lines = LineStream::new(&self.control, self.server, b"");
        loop {
            match lines.read_line(clock::now().after(READ_EVERY), Phase::Transfer) {
                Ok(line) => match ChainLine::decode(&line) {
                    Ok(ChainLine::From { step, source, ticket }) => {
                        let at = source.map(|(_, at)| at);
                        let said = match self.link(step, at, ticket) {
                            Ok(true) => self.send(ChainLine::Linked(step)),
                            Ok(false) => Ok(()),
                            Err(error) => {
                                log::debug!("seat {}: {error}", self.seat);
                                self.send(ChainLine::Lost(step))
                            }
                        };
                        if said.is_err() {
                            break;
                        }
                    }
                    Ok(ChainLine::Settled) => lock(&self.state).settled = true,
                    _ => break,
                },
                Err(Error::TimedOut { .. }) => continue,
                Err(_) => break,
            }
            self.changed.notify_all();
        }
        lock(&self.state).gone = true;
        self.changed.notify_all();
    }

    /// Makes the link of `step`, to `at` or to the server; `false` if there is a later one.
    fn link(&self, step: u32, at: Option<SocketAddr>, ticket: Digest) -> Result<bool> {
        if lock(&self.state).link.as_ref().is_some_and(|link| link.step >= step) {
            return Ok(false);
        }
        let to = at.unwrap_or(self.server);
        let stream = socket::connect(&[to], clock::now().after(LINK_LIMIT))?;
        let mut lines = LineStream::new(&stream, to, b"");
        let Self { session, seat, .. } = *self;
        lines.write_line(&ChainLine::Link { session, seat, ticket }.encode())?;
        let answer = lines.read_line(clock::now().after(LINK_LIMIT), Phase::Ready)?;
        if ChainLine::decode(&answer) != Ok(ChainLine::Linked(0)) || lines.has_buffered() {
            return Err(Error::protocol(to, "no answer to LINK"));
        }
        let (is_server, stream) = (at.is_none(), Arc::new(stream));
        let before = lock(&self.state).link.replace(UpstreamLink { step, is_server, stream });
        before.iter().for_each(|link| close(&link.stream));
        Ok(true)
    }

    /// The link after that of `step`, if it stands by then; `None` also when the server is gone.
    pub fn after(&self, step: u32, until: Moment) -> Option<UpstreamLink> {
        let is_new = |link: &UpstreamLink| link.step > step;
        let is_there =
            |state: &UpstreamState| state.gone || state.link.as_ref().is_some_and(is_new);
        self.wait(until, is_there).link.clone().filter(is_new)
    }

    /// Whether the server has ended this client's part in the chain.
    pub fn is_gone(&self) -> bool {
        lock(&self.state).gone
    }

    /// Whether `link` is still the one to take from.
    pub fn is_current(&self, link: &UpstreamLink) -> bool {
        lock(&self.state).link.as_ref().is_some_and(|now| now.step == link.step)
    }

    /// Says `line` to the server.
    ///
    /// # Errors
    /// It is gone.
    pub fn send(&self, line: ChainLine) -> Result<()> {
        copy::send_all(&self.control, &line.encode(), clock::now().after(LINK_LIMIT))
            .map_err(|stop| Error::io("speak to the other side", self.server)(stop.into()))
    }

    /// Ends it.
    pub fn close(&self) {
        close(&self.control);
        lock(&self.state).link.iter().for_each(|link| close(&link.stream));
    }

    fn wait(
        &self,
        until: Moment,
        is_over: impl Fn(&UpstreamState) -> bool,
    ) -> MutexGuard<'_, UpstreamState> {
        let left = clock::left(until).unwrap_or_default();
        let waited = self.changed.wait_timeout_while(lock(&self.state), left, |now| !is_over(now));
        waited.unwrap_or_else(PoisonError::into_inner).0
    }
}
