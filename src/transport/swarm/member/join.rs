//! How a link begins, is entered, and ends.

use std::net::IpAddr;
use std::net::SocketAddr;
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread;

use crate::error::Result;
use crate::net::STACK;
use crate::net::clock;
use crate::proto::bt::wire::ExtendedHandshake;
use crate::proto::bt::wire::Handshake;
use crate::proto::bt::wire::Message;
use crate::proto::bt::wire::REQUESTS_DEFAULT;
use crate::proto::bt::wire::REQUESTS_MAX;
use crate::transport::swarm::connect;
use crate::transport::swarm::leech::is_private;
use crate::transport::swarm::link::CLOSED;
use crate::transport::swarm::link::PeerConnection;
use crate::transport::swarm::member::EXTERNAL_CONNECTIONS;
use crate::transport::swarm::member::MemberState;
use crate::transport::swarm::member::SwarmMember;
use crate::transport::swarm::member::role::Role;
use crate::transport::swarm::member::role::has_role;
use crate::transport::swarm::member::role::untrusted;
use crate::transport::swarm::member::view::moved;
use crate::units::Moment;

impl SwarmMember {
    /// Calls `addr` in a thread of its own, unless there is a link to it, or it is being called.
    pub fn dial(&self, addr: SocketAddr) {
        self.call(&mut self.lock(), addr);
    }

    fn call(&self, state: &mut MemberState, addr: SocketAddr) {
        let Some(me) = self.me.upgrade() else {
            return;
        };
        if state.only_public && is_private(addr.ip()) {
            return log::info!("{addr}: a private address from a public tracker, not called");
        }
        let full = state.links.len() >= self.links_max / 2 || state.calling.len() >= CALLS_MAX;
        if state.closed || full {
            return;
        }
        let called = SocketAddr::new(addr.ip().to_canonical(), addr.port());
        let linked = || state.links.values().any(|link| link.reached_at() == called);
        if linked() || !state.calling.insert(called) {
            return;
        }
        let started = thread::Builder::new()
            .name(format!("peer-{addr}"))
            .stack_size(STACK)
            .spawn(move || {
                let answered = connect::call(addr, &me.handshake());
                me.lock().calling.remove(&called);
                match answered {
                    Ok((stream, peer)) => me.run(Arc::new(stream), addr, peer, true),
                    Err(error) => log::debug!("{error}"),
                }
            });
        if let Err(error) = started {
            state.calling.remove(&called);
            log::warn!("cannot start a thread to call {addr}: {error}");
        }
    }

    /// Calls `addr` at `when`, unless the member of `id` is there by then.
    pub fn schedule_dial(&self, when: Moment, addr: SocketAddr, id: [u8; 20]) {
        let mut state = self.lock();
        let known = state.calls.iter().any(|call| call.1 == addr);
        let here = state.calls.iter().filter(|call| call.1.ip() == addr.ip());
        let linked = state.links.values().any(|link| link.peer.peer_id == id);
        if !known
            && !linked
            && state.calls.len() < WAITING_MAX
            && here.count() < EXTERNAL_CONNECTIONS
        {
            state.calls.push_back((when, addr, id));
        }
    }

    /// Makes the calls that are due, while there is room for them.
    pub(super) fn call_due(&self, state: &mut MemberState) {
        while let Some(&(when, addr, id)) = state.calls.front()
            && state.calling.len() < CALLS_MAX
            && clock::left(when).is_none()
        {
            state.calls.pop_front();
            if !state.links.values().any(|link| link.peer.peer_id == id) {
                self.call(state, addr);
            }
        }
    }

    /// Serves a caller whose greeting has been answered, until the link ends.
    pub fn serve(&self, stream: Arc<TcpStream>, addr: SocketAddr, peer: Handshake) {
        if let Some(me) = self.me.upgrade() {
            me.run(stream, addr, peer, false);
        }
    }

    fn run(
        self: Arc<Self>,
        stream: Arc<TcpStream>,
        addr: SocketAddr,
        peer: Handshake,
        dialed: bool,
    ) {
        let link = match self.join(stream, addr, peer, dialed) {
            Ok(link) => link,
            Err(why) => return log::debug!("{addr}: no link: {why}"),
        };
        let (member, writing) = (Arc::clone(&self), Arc::clone(&link));
        let writer = thread::Builder::new()
            .name(format!("write-{addr}"))
            .stack_size(STACK)
            .spawn(move || {
                if let Err(error) =
                    writing.write_all(&member.store, &|bytes| member.wait_turn(bytes))
                {
                    log::debug!("{addr}: {error}");
                }
                writing.close();
            });
        let ended = match writer {
            Ok(_) => link.read_all(|message| self.hear(&link, message)),
            Err(error) => Err(format!("cannot start a thread: {error}")),
        };
        match ended {
            // What another did wrong is worth a word; that it went is not.
            Err(why) if why != CLOSED => log::info!("{addr}: link ended: {why}"),
            _ => log::debug!("{addr}: link ended"),
        }
        self.leave(&link);
    }

    /// Enters a link and says the first words on it.
    fn join(
        &self,
        stream: Arc<TcpStream>,
        addr: SocketAddr,
        peer: Handshake,
        dialed: bool,
    ) -> Result<Arc<PeerConnection>, &'static str> {
        if peer.peer_id == self.id {
            return Err("it is ourselves");
        }
        // Blocks are written whole; nothing gains by waiting for more.
        let _ = stream.set_nodelay(true);
        let mut state = self.lock();
        let peer = match self.believes(&state, &peer, addr.ip()) {
            true => peer,
            false => untrusted(peer),
        };
        if state.closed {
            return Err("we are leaving");
        }
        let banned = || state.banned.iter().filter(|(ip, _)| *ip == addr.ip());
        // Others at the address of one that lies may be honest; of several, hardly.
        let all = banned().count() >= BANNED_IDS && !addr.ip().is_loopback();
        if all || banned().any(|(_, id)| *id == peer.peer_id) {
            return Err("it has sent wrong pieces");
        }
        // A seeder keeps half of its links for those that have a seat.
        let ours = |peer: &Handshake| match self.role {
            Role::Seeder => has_role(Role::Seated, peer),
            Role::Seated | Role::External => peer.native(),
        };
        let (all, most) = match ours(&peer) {
            true if addr.ip().is_loopback() => (self.links_max, self.links_max),
            true => (self.links_max, self.links_max / 2),
            false if self.role == Role::Seeder => (self.links_max / 2, EXTERNAL_CONNECTIONS),
            false => (self.links_max, EXTERNAL_CONNECTIONS),
        };
        let like = || {
            state
                .links
                .values()
                .filter(|link| ours(&link.peer) == ours(&peer))
        };
        if state.links.len() >= self.links_max || like().count() >= all {
            return Err("too many links");
        }
        if like().filter(|link| link.addr.ip() == addr.ip()).count() >= most {
            return Err("too many links to its address");
        }
        let twin = state
            .links
            .values()
            .find(|link| link.peer.peer_id == peer.peer_id);
        if let Some(twin) = twin {
            // Both sides called at once: both keep the call of the smaller id. Only then: on a link
            // that has moved payload there are requests, and bytes on their way, and nobody else
            // can take its place by saying its id.
            let ours = self.id < peer.peer_id;
            let here = twin.addr.ip() == addr.ip();
            if !peer.native()
                || twin.dialed == dialed
                || dialed != ours
                || twin.has_moved()
                || !here
            {
                if dialed && here {
                    // It had called us, and now we know where it listens.
                    twin.listens.store(addr.port(), Ordering::Relaxed);
                }
                return Err("there is a link to it already");
            }
            twin.close();
        }
        let key = state.next;
        state.next += 1;
        let pieces = self.layout.pieces();
        let link = Arc::new(PeerConnection::new(key, stream, addr, peer, dialed, pieces));
        state.links.insert(key, Arc::clone(&link));
        state.table.add_peer(key, REQUESTS_DEFAULT as usize);
        let fed = has_role(Role::Seated, &peer);
        let admitted = state.admitted.contains(&peer.peer_id);
        if fed && let Some(injector) = &mut state.injector {
            injector.add_peer(key);
            if admitted {
                injector.admit(key);
            }
        }
        let have = state.table.have();
        let bits = have.encode();
        let hides = fed
            && state
                .injector
                .as_ref()
                .is_some_and(|i| !admitted || !i.reveals_all());
        let held = match () {
            () if hides && peer.fast() => Some(Message::HaveNone),
            () if hides => None,
            () if have.is_full() && peer.fast() => Some(Message::HaveAll),
            () if have.is_empty() && peer.fast() => Some(Message::HaveNone),
            () if have.is_empty() => None,
            () => Some(Message::Bitfield(&bits)),
        };
        let introduction = ExtendedHandshake {
            port: state.port,
            requests: u32::try_from(REQUESTS_MAX).ok(),
            program: Some(concat!("gatecast ", env!("CARGO_PKG_VERSION")).to_owned()),
        }
        .encode();
        let mut words: Vec<Message<'_>> = held.into_iter().collect();
        if peer.extended() {
            words.push(Message::Extended(0, &introduction));
        }
        if state.released.is_some() {
            words.push(Message::Unchoke);
        }
        link.say(&words);
        if state.released.is_some() {
            self.show(&mut state);
        }
        Ok(link)
    }

    /// Whether `peer` is what its id says. Ids are no secret: our server's seeder is where our
    /// server is, and whom a seeder feeds comes from where the control connection of that seat does.
    fn believes(&self, state: &MemberState, peer: &Handshake, ip: IpAddr) -> bool {
        let ip = ip.to_canonical();
        match self.role {
            Role::Seeder if has_role(Role::Seated, peer) => {
                state.seats.get(&peer.peer_id) == Some(&ip)
            }
            Role::Seeder => !has_role(Role::Seeder, peer),
            Role::Seated if has_role(Role::Seeder, peer) => state.server == Some(ip),
            Role::Seated | Role::External => true,
        }
    }

    fn leave(&self, link: &Arc<PeerConnection>) {
        link.close();
        let mut state = self.lock();
        if state.table.is_suspect(link.key) {
            let MemberState {
                suspects, table, ..
            } = &mut *state;
            suspects.retain(|&key, _| table.is_suspect(key));
            if suspects.len() < SUSPECTS_MAX {
                suspects.insert(link.key, (link.addr.ip(), link.peer.peer_id));
            }
        }
        state.table.remove_peer(link.key);
        state.links.remove(&link.key);
        if let Some(injector) = &mut state.injector {
            injector.remove_peer(link.key);
        }
        let moved = moved(link);
        if link.has_moved() {
            // Whoever comes under ever new names is one in the end.
            let id = link.peer.peer_id;
            let MemberState { gone, seats, .. } = &mut *state;
            let known = gone.len() < GONE_MAX || gone.contains_key(&id) || seats.contains_key(&id);
            let gone = gone.entry(if known { id } else { OTHERS }).or_default();
            *gone = gone.and(moved);
        }
        state.protocol += link.protocol.load(Ordering::Relaxed);
        self.ask_all(&mut state);
        self.show(&mut state);
    }

    /// A member that sent wrong pieces is left and not let in again, though it may be gone by now.
    pub(super) fn ban(&self, state: &mut MemberState, key: u32) {
        let linked = state.links.get(&key);
        let who = linked.map(|link| (link.addr.ip(), link.peer.peer_id));
        let Some((ip, id)) = who.or_else(|| state.suspects.remove(&key)) else {
            return;
        };
        if let Some(link) = linked {
            link.close();
        }
        let name = crate::text::escape(&String::from_utf8_lossy(&id)).to_string();
        log::warn!("{ip}: {name} sent a wrong piece, and is not spoken to again");
        state.banned.truncate(BANNED_MAX - 1);
        state.banned.push_front((ip, id));
    }
}

/// Most calls that have not been answered at a time: each is a thread.
const CALLS_MAX: usize = 64;

/// Most calls that wait for their time.
const WAITING_MAX: usize = 1024;

/// Ids at one address that sent wrong pieces, from which on nobody there is let in.
const BANNED_IDS: usize = 3;

/// Most that are remembered to have sent wrong pieces.
const BANNED_MAX: usize = 1000;

/// Most that are gone and may have sent wrong pieces.
const SUSPECTS_MAX: usize = 1000;

/// The id under which others are counted.
const OTHERS: [u8; 20] = *b"-??0001-others------";

/// Most members that are gone of which each is remembered with what it moved.
const GONE_MAX: usize = 1000;
