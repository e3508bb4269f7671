//! The server's connections to the members of its chains: it hears how far each is and who lost its
//! link, and tells each from whom it takes.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr, TcpStream},
    sync::{Arc, Mutex, Weak},
    time::Duration,
};

use crate::{
    digest::Digest,
    error::{Error, Phase, Result},
    net::{clock, copy, line_stream::LineStream, lock},
    proto::{
        chain::{
            Chain, Place, Step,
            words::{ChainLine, ticket},
        },
        key::{Challenge, is_same},
    },
    server::{gate::SeatConnection, listener::Connection, lobby::Lobby},
    session::{SeatId, SessionId},
    transport::chain::feed::{Feed, FeedSpec, close, ip_of},
    units::Moment,
};

/// The chains of one server.
#[derive(Debug, Default)]
pub struct Chains(Mutex<BTreeMap<SessionId, Weak<ChainMembers>>>);

/// The chain of one session.
#[derive(Debug)]
pub struct ChainMembers {
    /// The server's own end.
    pub feed: Arc<Feed>,
    /// Seats are in the order of a roster.
    has_roster: bool,
    state: Mutex<MembersState>,
}

#[derive(Debug)]
struct MembersState {
    chain: Chain,
    seats: BTreeMap<SeatId, ChainSeat>,
    next_tick: Moment,
}

/// A seat that was given its terms.
#[derive(Debug)]
struct ChainSeat {
    token: Challenge,
    ip: IpAddr,
    /// Its connection, and where others take from it.
    member: Option<(Arc<TcpStream>, SocketAddr)>,
}

/// How often the chain is looked at.
const TICK: Duration = Duration::from_millis(100);

/// How often it is looked whether the links stand that a member's JOIN changed ...
const SETTLE_EVERY: Duration = Duration::from_millis(5);

/// ... and for how long: a client that does not make its link holds nobody up for longer.
const SETTLE_LIMIT: Duration = Duration::from_secs(4);

/// How long a member may take to accept a line.
const WRITE_LIMIT: Duration = Duration::from_secs(1);

impl Chains {
    /// Serves a connection of a member: its own to the server, or one over which it takes.
    pub fn serve(&self, connection: &Connection, lobby: &Lobby) {
        let served = self.serve_member(connection, lobby);
        if let Err(error) = served {
            log::debug!("{}: {error}", connection.peer);
        }
    }

    fn serve_member(&self, connection: &Connection, lobby: &Lobby) -> Result<()> {
        let Connection { stream, peer, first, deadline } = connection;
        let mut lines = LineStream::new(stream, *peer, first);
        let line = lines.read_line(*deadline, Phase::Greet)?;
        let unknown = || Error::protocol(peer, "no member of a chain here");
        let find = |session| lock(&self.0).get(&session).and_then(Weak::upgrade);
        match ChainLine::decode(&line).map_err(|error| Error::protocol(peer, error.to_string()))? {
            ChainLine::Join { session, seat, token, port } => {
                let members = find(session).ok_or_else(unknown)?;
                let steps = members.join(seat, token, (stream, *peer), port).ok_or_else(unknown)?;
                lobby.keep(*peer);
                members.listen(seat, &mut lines, &steps);
                members.leave(seat, stream);
                Ok(())
            }
            ChainLine::Link { session, seat, ticket } => {
                let members = find(session).ok_or_else(unknown)?;
                members.admits(seat, ip_of(*peer)).then_some(()).ok_or_else(unknown)?;
                members.feed.serve_link(stream, lines, (seat, ticket), || lobby.keep(*peer))
            }
            _ => Err(unknown()),
        }
    }

    /// Begins the chain of the session of `seat`.
    pub fn begin(&self, seat: &SeatConnection, spec: FeedSpec) -> Arc<ChainMembers> {
        let session = spec.session;
        let chain = Chain::new(spec.bytes);
        let state = MembersState { chain, seats: BTreeMap::new(), next_tick: Moment(0) };
        let members = Arc::new(ChainMembers {
            feed: Feed::new(spec),
            has_roster: seat.session.roster.is_some(),
            state: Mutex::new(state),
        });
        lock(&self.0).insert(session, Arc::downgrade(&members));
        members
    }

    /// A session is over.
    pub fn end(&self, members: &ChainMembers) {
        lock(&self.0).remove(&members.feed.spec.session);
        members.feed.close();
        lock(&members.state).seats.values().for_each(ChainSeat::close);
    }
}

/// Sixteen random bytes.
pub(super) fn random_token() -> Challenge {
    Challenge(u128::from(clock::random()) << 64 | u128::from(clock::random()))
}

impl ChainMembers {
    /// The terms of a seat, which whoever had it before cannot use.
    pub fn terms(&self, seat: &SeatConnection) -> ChainLine {
        let token = random_token();
        let entry = ChainSeat { token, ip: ip_of(seat.peer), member: None };
        let before = lock(&self.state).seats.insert(seat.id, entry);
        before.iter().for_each(ChainSeat::close);
        ChainLine::Terms(token)
    }

    /// The addresses of the seats.
    pub fn addresses(&self) -> BTreeSet<IpAddr> {
        lock(&self.state).seats.values().map(|seat| seat.ip).collect()
    }

    fn admits(&self, seat: SeatId, ip: IpAddr) -> bool {
        lock(&self.state).seats.get(&seat).is_some_and(|seat| seat.ip == ip)
    }

    /// A client comes into the chain; `None` if it does not prove its seat, or comes too late.
    fn join(
        &self,
        seat: SeatId,
        token: Challenge,
        (stream, peer): (&Arc<TcpStream>, SocketAddr),
        port: u16,
    ) -> Option<Vec<Step>> {
        let ip = ip_of(peer);
        let same = |ours: Challenge| is_same(&ours.0.to_be_bytes(), &token.0.to_be_bytes());
        let mut state = lock(&self.state);
        let entry = state.seats.get_mut(&seat).filter(|seat| same(seat.token) && seat.ip == ip)?;
        entry.close();
        entry.member = Some((Arc::clone(stream), SocketAddr::new(ip, port)));
        let place = Place { address: (!self.has_roster).then_some(ip), seat };
        let steps = state.chain.join(place);
        drop(state);
        self.send_steps(&steps);
        (!steps.is_empty()).then_some(steps)
    }

    /// Hears a member until it leaves; it is told once the links of `steps` stand.
    fn listen(&self, seat: SeatId, lines: &mut LineStream<'_>, steps: &[Step]) {
        let until = clock::now().after(SETTLE_LIMIT);
        let mut is_settled = false;
        loop {
            if !is_settled && (clock::left(until).is_none() || lock(&self.state).chain.stand(steps))
            {
                is_settled = true;
                if lines.write_line(&ChainLine::Settled.encode()).is_err() {
                    return;
                }
            }
            let wait = if is_settled { SETTLE_LIMIT } else { SETTLE_EVERY };
            let line = match lines.read_line(clock::now().after(wait), Phase::Transfer) {
                Ok(line) => line,
                Err(Error::TimedOut { .. }) => continue,
                Err(_) => return,
            };
            match ChainLine::decode(&line) {
                Ok(ChainLine::At(bytes)) => lock(&self.state).chain.at(seat, bytes),
                Ok(ChainLine::Linked(step)) => lock(&self.state).chain.linked(seat, step),
                Ok(ChainLine::Lost(step)) => {
                    let step = lock(&self.state).chain.lost(seat, step);
                    self.send_steps(step.as_slice());
                }
                _ => return log::debug!("seat {seat}: no line of a member"),
            }
        }
    }

    /// The member at the other end of `stream` is gone.
    fn leave(&self, seat: SeatId, stream: &Arc<TcpStream>) {
        let mut state = lock(&self.state);
        let member = state.seats.get(&seat).and_then(|seat| seat.member.as_ref());
        if member.is_some_and(|(ours, _)| Arc::ptr_eq(ours, stream)) {
            let steps = state.chain.leave(seat);
            drop(state);
            self.send_steps(&steps);
        }
    }

    /// The client in `seat` has failed: nobody shall take from it.
    pub fn drop_member(&self, seat: SeatId) {
        // Its own thread does the rest.
        lock(&self.state).seats.get(&seat).iter().for_each(|seat| seat.close());
    }

    /// The gate is open.
    pub fn release(&self, bytes: u64) {
        lock(&self.state).chain.release(clock::now());
        self.feed.hold(bytes);
    }

    /// How far a member is; looks who stands still, where that is due.
    pub fn progress(&self, seat: SeatId) -> u64 {
        let now = clock::now();
        let mut state = lock(&self.state);
        let mut steps = Vec::new();
        if now >= state.next_tick {
            state.next_tick = now.after(TICK);
            steps = state.chain.tick(now, |seat| self.feed.sent_to(seat));
        }
        let bytes = state.chain.bytes_of(seat).unwrap_or(0);
        drop(state);
        self.send_steps(&steps);
        bytes
    }

    /// Tells members from whom they take.
    fn send_steps(&self, steps: &[Step]) {
        let FeedSpec { session, token, .. } = self.feed.spec;
        for &Step { seat, step, from } in steps {
            let state = lock(&self.state);
            let source = |from: SeatId| {
                let entry = state.seats.get(&from)?;
                let (_, at) = entry.member.as_ref()?;
                Some(((from, *at), ticket(entry.token, session, seat)))
            };
            let (source, ticket): (_, Digest) = match from.and_then(source) {
                Some((source, ticket)) => (Some(source), ticket),
                None => (None, ticket(token, session, seat)),
            };
            let member = state.seats.get(&seat).and_then(|seat| seat.member.as_ref());
            let Some(stream) = member.map(|(stream, _)| Arc::clone(stream)) else { continue };
            drop(state);
            log::info!(
                "seat {seat} takes from {}",
                source.map_or_else(
                    || "the server".to_owned(),
                    |(from, at)| format!("seat {from} at {at}"),
                )
            );
            let line = ChainLine::From { step, source, ticket }.encode();
            if copy::send_all(&stream, &line, clock::now().after(WRITE_LIMIT)).is_err() {
                close(&stream);
            }
        }
    }
}

impl ChainSeat {
    fn close(&self) {
        self.member.iter().for_each(|(stream, _)| close(stream));
    }
}
