//! One member of a swarm: a copy, whole or in part, and its connections to the other members.
//!
//! The server's seeder and every client use the same type; a seeder is a member that begins with
//! the whole file and has a [`SuperSeeder`]. Each [`PeerConnection`] has a reader and a writer
//! thread. One more thread, the ticker, announces new pieces and applies time limits.
//!
//! One lock holds the `MemberState`. It is taken before a connection's own lock, never after it,
//! and never held while anything hashes, reads, writes or waits. Until [`SwarmMember::release`]
//! nothing is served and nothing is requested.
//!
//! Each part of the state owns its data:
//! - [`accounting`]: which bytes moved between whom
//! - [`ban_list`]: who sent wrong pieces
//! - [`buffers`]: the bytes of unfinished pieces
//! - [`dialer`]: whom to dial, and when
//! - [`trusted_peers`]: which peer ids are trusted
//!
//! What a member does:
//! - [`connect`]: how a connection begins and ends
//! - [`messages`]: what other members send
//! - [`blocks`]: a block that came, up to the verified piece
//! - [`haves`]: the ticker
//! - [`release`]: the gate, and what the seeder reveals to whom
//! - [`status`]: what the rest of the program sees of a member

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use crate::{
    digest::Digest,
    error::{Error, Result},
    net::{clock, lock, pacing::Pacer, spawn},
    proto::bt::{
        bitfield::Bitfield,
        layout::PieceLayout,
        metainfo::Metainfo,
        piece_picker::PiecePicker,
        super_seeder::SuperSeeder,
        wire::{Handshake, PeerId},
    },
    transport::swarm::{
        external_peers::ExternalPeers,
        limits::{PEER_CONNECTIONS, SEEDER_CONNECTIONS},
        member::{
            accounting::Accounting, ban_list::BanList, buffers::PieceBuffers, dialer::Dialer,
            trusted_peers::TrustedPeers,
        },
        peer_connection::PeerConnection,
        peer_id::Role,
        store::Store,
    },
    units::Moment,
};

pub mod accounting;
pub mod ban_list;
pub mod blocks;
pub mod buffers;
pub mod connect;
pub mod dialer;
pub mod haves;
pub mod messages;
pub mod release;
pub mod status;
pub mod trusted_peers;

/// One member of a swarm.
#[derive(Debug)]
pub struct SwarmMember {
    /// The torrent.
    pub metainfo: Arc<Metainfo>,
    /// The digest that names the torrent.
    pub info_hash: Digest,
    /// Our own id.
    pub id: PeerId,
    role: Role,
    layout: PieceLayout,
    pub(super) store: Store,
    /// How many connections may be open.
    pub connections_max: usize,
    /// Limits the payload that all connections together send.
    pub(super) pacer: Mutex<Option<Arc<Pacer>>>,
    /// Payload bytes sent since the last release.
    sent: AtomicU64,
    /// Every block that is lacking has been requested.
    ending: AtomicBool,
    /// Whether our user knows that others' programs wait for the gate.
    told: AtomicBool,
    state: Mutex<MemberState>,
    external: Arc<ExternalPeers>,
    /// Notified when a piece is written, the disk fails, or the member closes.
    changed: Condvar,
    /// Wakes the ticker.
    tick: Condvar,
}

/// What the member's lock protects.
#[derive(Debug)]
struct MemberState {
    picker: PiecePicker,
    /// Only a seeder has one.
    super_seeder: Option<SuperSeeder>,
    connections: BTreeMap<u32, Arc<PeerConnection>>,
    next_key: u32,
    buffers: PieceBuffers,
    /// New pieces that others wait for, because the seeder gave them to us alone.
    urgent_haves: Vec<u32>,
    /// Other new pieces that were not announced yet.
    lazy_haves: Vec<u32>,
    dialer: Dialer,
    bans: BanList,
    trusted: TrustedPeers,
    accounting: Accounting,
    /// The port on which we listen, for our handshakes.
    listen_port: Option<u16>,
    released: Option<Moment>,
    closed: bool,
    /// Why the copy cannot be finished.
    fault: Option<String>,
}

impl SwarmMember {
    /// A member that has the pieces of `have`, and lets peers without a seat in by
    /// `external_peers`.
    ///
    /// # Errors
    /// The system refuses a thread.
    pub fn start(
        metainfo: Arc<Metainfo>,
        store: Store,
        have: Bitfield,
        id: PeerId,
        role: Role,
        external: Arc<ExternalPeers>,
    ) -> Result<Arc<Self>> {
        let layout = metainfo.layout();
        let is_seeder = role == Role::Seeder;
        let state = MemberState {
            picker: PiecePicker::new(layout, have, clock::random()),
            super_seeder: is_seeder
                .then(|| SuperSeeder::all_revealed(layout.pieces(), layout.piece)),
            connections: BTreeMap::new(),
            next_key: 0,
            buffers: PieceBuffers::default(),
            urgent_haves: Vec::new(),
            lazy_haves: Vec::new(),
            dialer: Dialer::default(),
            bans: BanList::default(),
            trusted: TrustedPeers::default(),
            accounting: Accounting::new(if is_seeder { layout.pieces() } else { 0 }),
            listen_port: None,
            released: None,
            closed: false,
            fault: None,
        };
        let member = Arc::new(Self {
            info_hash: metainfo.info_hash(),
            metainfo,
            id,
            role,
            layout,
            store,
            connections_max: 2 * if is_seeder { SEEDER_CONNECTIONS } else { PEER_CONNECTIONS },
            pacer: Mutex::new(None),
            sent: AtomicU64::new(0),
            ending: AtomicBool::new(false),
            told: AtomicBool::new(false),
            state: Mutex::new(state),
            external,
            changed: Condvar::new(),
            tick: Condvar::new(),
        });
        let ticking = Arc::clone(&member);
        spawn("swarm-tick", move || ticking.run_ticker())
            .map_err(Error::io("start the swarm's thread", "this process"))?;
        Ok(member)
    }

    /// Our own handshake.
    pub fn handshake(&self) -> Handshake {
        Handshake::new(self.info_hash, self.id)
    }

    /// Sets the port on which we listen, which other members are told.
    pub fn set_listen_port(&self, port: u16) {
        self.lock().listen_port = Some(port);
    }

    /// The peer of this id has a seat, and its control connection comes from `ip`.
    pub fn add_seat(&self, id: PeerId, ip: IpAddr) {
        let mut state = self.lock();
        let state = &mut *state;
        let connected = |id: &PeerId| {
            let mut connections = state.connections.values();
            connections.any(|connection| connection.id() == *id)
        };
        state.trusted.add_seat(id, ip, connected);
    }

    /// True when the peer of this id has a seat, and comes from the address of that seat.
    pub fn has_seat(&self, id: PeerId, ip: IpAddr) -> bool {
        self.lock().trusted.has_seat(&id, ip)
    }

    /// The addresses from which peers have seats.
    pub fn seat_addresses(&self) -> BTreeSet<IpAddr> {
        self.lock().trusted.addresses()
    }

    /// True when some peer has a seat from `ip`.
    pub fn has_seat_at(&self, ip: IpAddr) -> bool {
        self.lock().trusted.has_seat_at(ip)
    }

    /// Closes every connection but those to our server and to peers at `addresses`, and begins none
    /// to others.
    pub fn limit_to(&self, addresses: BTreeSet<IpAddr>) {
        let mut state = self.lock();
        state.trusted.limit_to(addresses);
        let connections = state.connections.values();
        let strangers = connections.filter(|peer| !state.trusted.admits(peer.addr.ip()));
        strangers.for_each(|peer| peer.close());
    }

    /// Our server is at `ip`.
    pub fn set_server(&self, ip: IpAddr) {
        self.lock().trusted.set_server(ip);
    }

    /// Dials no private addresses from now on.
    pub fn dial_only_public(&self) {
        self.lock().dialer.only_public = true;
    }

    /// Waits until `bytes` of payload may be sent.
    fn wait_for_rate(&self, bytes: u64) {
        self.sent.fetch_add(bytes, Ordering::Relaxed);
        let pacer = lock(&self.pacer).clone();
        if let Some(pacer) = pacer {
            let mut left = bytes;
            while left > 0 {
                left -= pacer.grant(left);
            }
        }
    }

    /// Closes every connection and ends every thread of this member.
    pub fn close(&self) {
        let mut state = self.lock();
        state.closed = true;
        state.connections.values().for_each(|peer| peer.close());
        drop(state);
        self.tick.notify_all();
        self.changed.notify_all();
    }

    /// Waits until something changes, at most for `timeout`; returns at once when the copy is
    /// whole or cannot be finished.
    pub fn wait(&self, timeout: Duration) {
        let state = self.lock();
        if state.picker.is_complete() || state.fault.is_some() || state.closed {
            return;
        }
        drop(self.changed.wait_timeout(state, timeout).unwrap_or_else(PoisonError::into_inner));
    }

    fn lock(&self) -> MutexGuard<'_, MemberState> {
        // A thread that panicked leaves the state whole: its connection is removed when it closes.
        lock(&self.state)
    }
}

impl MemberState {
    /// The connection to the peer of this id.
    fn connection_to(&self, id: &PeerId) -> Option<&Arc<PeerConnection>> {
        let mut connections = self.connections.values();
        connections.find(|connection| connection.id() == *id)
    }
}
