//! How a connection begins, is admitted, and ends.

use std::{
    net::{SocketAddr, TcpStream},
    sync::{Arc, atomic::Ordering::Relaxed},
};

use crate::{
    error::Error,
    net::{spawn, tcp_info},
    proto::bt::wire::{
        ExtendedHandshake, Handshake, Message, PeerId, REQUESTS_DEFAULT, REQUESTS_MAX,
    },
    text::escape,
    transport::swarm::{
        address::unmapped,
        external_peers::ExternalPlace,
        handshake,
        member::{MemberState, SwarmMember},
        peer_connection::PeerConnection,
        peer_id::{Role, distrust},
    },
    units::Moment,
};

impl SwarmMember {
    /// Dials `addr` in a thread of its own, unless it is connected or being dialed already.
    pub fn dial(self: &Arc<Self>, addr: SocketAddr) {
        self.start_dial(&mut self.lock(), addr);
    }

    fn start_dial(self: &Arc<Self>, state: &mut MemberState, addr: SocketAddr) {
        let target = unmapped(addr);
        if state.closed || state.connections.len() >= self.connections_max / 2 {
            return;
        }
        let mut connections = state.connections.values();
        if connections.any(|c| c.listen_addr() == target) || !state.dialer.begin(target) {
            return;
        }
        let me = Arc::clone(self);
        let started = spawn(format!("peer-{addr}"), move || {
            let answered = handshake::dial(addr, &me.handshake());
            me.lock().dialer.end(target);
            match answered {
                Ok((stream, theirs)) => me.run(Arc::new(stream), addr, theirs, true),
                Err(error) => log::debug!("{error}"),
            }
        });
        if let Err(error) = started {
            state.dialer.end(target);
            log::warn!("cannot start a thread to dial {addr}: {error}");
        }
    }

    /// Dials `addr` at `due`, unless the peer of `id` is connected by then.
    pub fn schedule_dial(&self, due: Moment, addr: SocketAddr, id: PeerId) {
        let mut state = self.lock();
        if state.connection_to(&id).is_none() {
            state.dialer.schedule(due, addr, id);
        }
    }

    /// Starts the scheduled dials that are due, while there is room for them.
    pub(super) fn dial_due(self: &Arc<Self>, state: &mut MemberState) {
        while let Some(dial) = state.dialer.next_due() {
            if state.connection_to(&dial.id).is_none() {
                self.start_dial(state, dial.addr);
            }
        }
    }

    /// Serves a peer that dialed us, after the handshakes, until the connection ends.
    pub fn serve(self: &Arc<Self>, stream: Arc<TcpStream>, addr: SocketAddr, theirs: Handshake) {
        self.run(stream, addr, theirs, false);
    }

    fn run(
        self: &Arc<Self>,
        stream: Arc<TcpStream>,
        addr: SocketAddr,
        theirs: Handshake,
        dialed: bool,
    ) {
        // Blocks are written whole; nothing gains by waiting for more.
        let _ = stream.set_nodelay(true);
        tcp_info::shorten_rto(&stream);
        let pieces = self.layout.pieces();
        let connection = PeerConnection::new(stream, addr, theirs, dialed, pieces);
        let connection = match self.add_connection(connection) {
            Ok(connection) => connection,
            Err(why) => return log::debug!("{addr}: not connected: {why}"),
        };
        let (member, writing) = (Arc::clone(self), Arc::clone(&connection));
        let writer = spawn(format!("write-{addr}"), move || {
            let wait_for_rate = |bytes| {
                if let Some(place) = &writing.place {
                    place.count(bytes);
                }
                member.wait_for_rate(bytes);
            };
            if let Err(error) = writing.run_writer(&member.store, &wait_for_rate) {
                log::debug!("{addr}: {error}");
            }
            writing.close();
        });
        let ended = match writer {
            Ok(_) => connection
                .run_reader(&self.ending, |message| self.handle_message(&connection, message)),
            Err(error) => Err(Error::io("start a thread", addr)(error)),
        };
        match ended {
            Ok(()) => log::debug!("{addr}: connection ended"),
            Err(error) => log::info!("{error}"),
        }
        self.remove_connection(&connection);
    }

    /// Admits a connection and sends our first messages on it.
    fn add_connection(
        &self,
        mut connection: PeerConnection,
    ) -> Result<Arc<PeerConnection>, &'static str> {
        let mut state = self.lock();
        let state = &mut *state;
        let (ip, theirs) = (connection.addr.ip(), &mut connection.handshake);
        if theirs.peer_id == self.id {
            return Err("it is ourselves");
        }
        if !state.trusted.is_trusted(self.role, &theirs.peer_id, ip) {
            distrust(theirs);
        }
        let id = theirs.peer_id;
        if state.closed {
            return Err("we are leaving");
        }
        if state.bans.is_banned(ip, &id) {
            return Err("it has sent wrong pieces");
        }
        if !state.trusted.admits(ip) {
            return Err("no client of this session is at its address");
        }
        connection.place = self.find_room(state, &connection)?;
        if let Some(other) = state.connection_to(&id) {
            if !self.replaces(other, &connection) {
                if connection.dialed && other.addr.ip() == ip {
                    // It had dialed us, and now we know where it listens.
                    other.set_listen_port(connection.addr.port());
                }
                return Err("it is connected already");
            }
            other.close();
        }
        let key = state.next_key;
        state.next_key += 1;
        connection.key = key;
        let connection = Arc::new(connection);
        state.connections.insert(key, Arc::clone(&connection));
        state.picker.add_peer(key, REQUESTS_DEFAULT as usize);
        let mut hides = false;
        // Only a peer that has the fast extension (BEP 6) can be told later that we have all.
        if Role::of(&id) == Some(Role::Seated)
            && connection.limits.fast
            && let Some(super_seeder) = &mut state.super_seeder
        {
            super_seeder.add_peer(key);
            let admitted = state.trusted.admitted.contains(&id);
            if admitted {
                super_seeder.admit(key);
            }
            hides = !admitted || !super_seeder.reveals_all;
        }
        send_greeting(state, &connection, hides);
        let waits = state.super_seeder.is_some() && state.released.is_none();
        if waits {
            self.warn_of_waiting(&connection);
        }
        self.reveal(state);
        Ok(connection)
    }

    /// Warns that a program of others waits, which shows nothing of the gate itself. Once a
    /// session, however many do.
    pub(super) fn warn_of_waiting(&self, connection: &PeerConnection) {
        if !connection.handshake.is_gatecast() && !self.told.swap(true, Relaxed) {
            let (ip, name) = (connection.addr.ip(), &self.metainfo.name);
            log::warn!("{ip}: a BitTorrent program waits for '{name}' until clients are released");
        }
    }

    /// The place of another connection, if there is room: none for one of our own peers. A seeder
    /// keeps half of its connections for peers with a seat.
    fn find_room(
        &self,
        state: &MemberState,
        connection: &PeerConnection,
    ) -> Result<Option<ExternalPlace>, &'static str> {
        let is_ours = |peer: &PeerConnection| match self.role {
            Role::Seeder => peer.role() == Some(Role::Seated),
            Role::Seated | Role::External => peer.handshake.is_gatecast(),
        };
        let (max, ip) = (self.connections_max, connection.addr.ip());
        if state.connections.len() >= max {
            return Err("too many connections");
        }
        if !is_ours(connection) {
            return self.external.admit(connection.addr).map(Some);
        }
        let ours = state.connections.values().filter(|other| is_ours(other));
        let here = ours.filter(|other| other.addr.ip() == ip).count();
        if here >= if ip.is_loopback() { max } else { max / 2 } {
            return Err("too many connections to its address");
        }
        Ok(None)
    }

    /// Whether a new connection replaces the `other` one to the same id. It does when both sides
    /// dialed at once: both keep the one that the smaller id dialed. A connection that has moved
    /// payload is never replaced: requests are on their way, and the id may be a stolen one.
    fn replaces(&self, other: &PeerConnection, new: &PeerConnection) -> bool {
        new.handshake.is_gatecast()
            && other.dialed != new.dialed
            && new.dialed == (self.id < new.id())
            && !other.has_moved()
            && other.addr.ip() == new.addr.ip()
    }

    fn remove_connection(&self, connection: &Arc<PeerConnection>) {
        connection.close();
        let mut state = self.lock();
        let state = &mut *state;
        let (key, id) = (connection.key, connection.id());
        let picker = &mut state.picker;
        if picker.is_suspect(key) {
            let suspect = (connection.addr.ip(), id);
            state.bans.add_suspect(key, suspect, |key| picker.is_suspect(key));
        }
        picker.remove_peer(key);
        if let Some(super_seeder) = &mut state.super_seeder {
            super_seeder.remove_peer(key);
        }
        let has_seat = state.trusted.seats.contains_key(&id);
        state.accounting.close(connection, has_seat);
        state.connections.remove(&key);
        self.request_from_all(state);
        self.reveal(state);
    }

    /// Closes the connection to a peer that sent wrong pieces, and bans it, even if it has left.
    pub(super) fn ban(&self, state: &mut MemberState, key: u32) {
        let connected = state.connections.get(&key);
        let who = connected.map(|peer| (peer.addr.ip(), peer.handshake.peer_id));
        let Some((ip, id)) = who.or_else(|| state.bans.suspects.remove(&key)) else {
            return;
        };
        if let Some(connection) = connected {
            connection.close();
        }
        let name = escape(&String::from_utf8_lossy(&id));
        log::warn!("{ip}: {name} sent a wrong piece and is banned");
        state.bans.ban(ip, id);
    }
}

/// Sends the first messages: which pieces we have, what we allow, and that we serve.
fn send_greeting(state: &MemberState, connection: &PeerConnection, hides: bool) {
    let theirs = &connection.handshake;
    let have = state.picker.have();
    let bits = have.encode();
    let extended = ExtendedHandshake {
        port: state.listen_port,
        requests: u32::try_from(REQUESTS_MAX).ok(),
        program: Some(concat!("gatecast ", env!("CARGO_PKG_VERSION")).to_owned()),
    }
    .encode();
    let mut messages = Vec::new();
    if hides || have.is_empty() {
        if theirs.fast() {
            messages.push(Message::HaveNone);
        }
    } else if have.is_full() && theirs.fast() {
        messages.push(Message::HaveAll);
    } else {
        messages.push(Message::Bitfield(&bits));
    }
    if theirs.extended() {
        messages.push(Message::Extended(0, &extended));
    }
    if state.released.is_some() {
        messages.push(Message::Unchoke);
    }
    connection.send(&messages);
}
