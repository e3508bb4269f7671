//! One member of one swarm: a copy, whole or in parts, and its links to the other members.
//!
//! The server's seeder and every peer are the same thing here; a seeder is a member that begins
//! whole and has an [`Injector`]. Each link has a reader and a writer thread ([`Link`]); one more
//! thread sends announcements of new pieces a few at a time and looks after time limits.
//!
//! One lock holds the piece table, the bytes of unfinished pieces and the list of links. It is
//! taken before a link's own, never after it, and never held while anything hashes, reads, writes
//! or waits. Until [`Member::release`] nobody is served and nothing is asked for.
//!
//! - [`role`]: who a member is, by its id
//! - [`release`]: the gate, and what the seeder shows to whom
//! - [`join`]: how a link begins and ends
//! - [`hear`]: what the others say, and what is asked of them
//! - [`take`]: a block that came, up to the verified piece
//! - [`tell`]: the thread that spreads the news
//! - [`view`]: what faces and sessions see of a member

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::collections::VecDeque;
use std::net::IpAddr;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::Condvar;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;
use std::sync::Weak;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::Duration;

use crate::digest::Digest;
use crate::error::Error;
use crate::error::Result;
use crate::net::STACK;
use crate::net::clock;
use crate::net::pacing::Pacer;
use crate::proto::bt::bits::Bitfield;
use crate::proto::bt::inject::SuperSeeder;
use crate::proto::bt::layout::PieceLayout;
use crate::proto::bt::metainfo::Metainfo;
use crate::proto::bt::table::PiecePicker;
use crate::proto::bt::wire::Handshake;
use crate::session::MAX_SEATS;
use crate::transport::swarm::link::PeerConnection;
use crate::transport::swarm::member::role::Role;
use crate::transport::swarm::member::view::Holder;
use crate::transport::swarm::member::view::PeerTraffic;
use crate::transport::swarm::store::Store;
use crate::units::Moment;

pub mod hear;
pub mod join;
pub mod release;
pub mod role;
pub mod take;
pub mod tell;
pub mod view;

/// One member.
#[derive(Debug)]
pub struct SwarmMember {
    /// What the swarm shares.
    pub metainfo: Arc<Metainfo>,
    hash: Digest,
    id: [u8; 20],
    role: Role,
    layout: PieceLayout,
    store: Store,
    links_max: usize,
    /// Holds what we send to a rate, where it has one.
    pacer: Mutex<Option<Arc<Pacer>>>,
    /// Payload bytes sent since the last release.
    sent: AtomicU64,
    state: Mutex<MemberState>,
    /// Told when a piece is in, a link is gone, or all is over.
    changed: Condvar,
    /// Wakes the ticker.
    tick: Condvar,
    me: Weak<Self>,
}

#[derive(Debug)]
struct MemberState {
    table: PiecePicker,
    injector: Option<SuperSeeder>,
    links: BTreeMap<u32, Arc<PeerConnection>>,
    next: u32,
    /// The bytes of pieces that are being collected.
    open: BTreeMap<u32, Vec<u8>>,
    /// Buffers of pieces that are done, for the next.
    spare: Vec<Vec<u8>>,
    /// Pieces that the others have not been told of and wait for: the seeder gave them to us alone.
    news: Vec<u32>,
    /// Other pieces that the others have not been told of.
    rumours: Vec<u32>,
    released: Option<Moment>,
    closed: bool,
    /// The port on which we can be called; told to those we call.
    port: Option<u16>,
    /// Who is being called.
    calling: BTreeSet<SocketAddr>,
    /// Who is to be called, and when, unless the member of this id is there by then.
    calls: VecDeque<(Moment, SocketAddr, [u8; 20])>,
    /// Who sent wrong pieces, the last first.
    banned: VecDeque<(IpAddr, [u8; 20])>,
    /// Who is gone and may have sent one, by link.
    suspects: BTreeMap<u32, (IpAddr, [u8; 20])>,
    /// The seated peers, and from where each has its seat: nobody else is believed such an id.
    seats: BTreeMap<[u8; 20], IpAddr>,
    /// Where our server is: nobody else is believed to be its seeder.
    server: Option<IpAddr>,
    /// The seated peers whose session is released.
    admitted: BTreeSet<[u8; 20]>,
    /// Payload bytes that were kept.
    kept: u64,
    /// First payload byte that came.
    first: Option<Moment>,
    /// Why the copy cannot go on.
    fault: Option<String>,
    /// What links that are gone had moved, by peer: sent to it, received from it.
    gone: BTreeMap<[u8; 20], PeerTraffic>,
    /// For each piece the first other member that had it.
    holders: Vec<Option<Holder>>,
    /// Payload bytes that were received and are of no use.
    wasted: u64,
    protocol: u64,
    /// Calls no addresses of private networks.
    only_public: bool,
}

/// Links that a peer wants; above it a swarm is no full mesh any more, and needs none. It takes
/// twice as many calls: who came first would be full otherwise, and the last would find nobody.
pub const PEER_CONNECTIONS: usize = 55;

/// Links to other programs at one address; a room of them may sit behind one. Our own may be many
/// at one address too, all clients of a test; they leave half of all links to other addresses.
pub const EXTERNAL_CONNECTIONS: usize = 64;

/// Most seats of sessions that overlap that are remembered.
const SEATS_MAX: usize = 4 * MAX_SEATS as usize;

/// Links of a seeder up to which it calls others.
pub const SEEDER_CONNECTIONS: usize = 1000;

impl SwarmMember {
    /// A member with the pieces of `have`.
    ///
    /// # Errors
    /// The system refuses a thread.
    pub fn start(
        metainfo: Arc<Metainfo>,
        store: Store,
        have: Bitfield,
        id: [u8; 20],
        role: Role,
    ) -> Result<Arc<Self>> {
        let layout = PieceLayout::new(metainfo.bytes, metainfo.piece_bytes);
        let injector = (role == Role::Seeder)
            .then(|| SuperSeeder::all_revealed(layout.pieces(), layout.piece));
        let pieces = layout.pieces() as usize;
        let state = MemberState {
            table: PiecePicker::new(layout, have, clock::random()),
            injector,
            links: BTreeMap::new(),
            next: 0,
            open: BTreeMap::new(),
            spare: Vec::new(),
            news: Vec::new(),
            rumours: Vec::new(),
            released: None,
            closed: false,
            port: None,
            calling: BTreeSet::new(),
            calls: VecDeque::new(),
            banned: VecDeque::new(),
            suspects: BTreeMap::new(),
            seats: BTreeMap::new(),
            server: None,
            admitted: BTreeSet::new(),
            kept: 0,
            first: None,
            fault: None,
            gone: BTreeMap::new(),
            holders: vec![None; if role == Role::Seeder { pieces } else { 0 }],
            wasted: 0,
            protocol: 0,
            only_public: false,
        };
        let member = Arc::new_cyclic(|me| Self {
            hash: metainfo.info_hash(),
            metainfo,
            id,
            role,
            layout,
            store,
            links_max: match role {
                Role::Seeder => 2 * SEEDER_CONNECTIONS,
                Role::Seated | Role::External => 2 * PEER_CONNECTIONS,
            },
            pacer: Mutex::new(None),
            sent: AtomicU64::new(0),
            state: Mutex::new(state),
            changed: Condvar::new(),
            tick: Condvar::new(),
            me: Weak::clone(me),
        });
        let ticking = Arc::clone(&member);
        thread::Builder::new()
            .name("swarm-tick".to_owned())
            .stack_size(STACK)
            .spawn(move || ticking.keep_time())
            .map_err(Error::io("start the swarm's thread", "this process"))?;
        Ok(member)
    }

    /// The torrent.
    pub fn hash(&self) -> Digest {
        self.hash
    }

    /// Our own id.
    pub fn id(&self) -> [u8; 20] {
        self.id
    }

    /// Our own greeting.
    pub fn handshake(&self) -> Handshake {
        Handshake::new(self.hash, self.id)
    }

    /// The port on which others can call us.
    pub fn set_listen_port(&self, port: u16) {
        self.lock().port = Some(port);
    }

    /// The peer of this id has a seat, and comes from `ip`.
    pub fn add_seat(&self, id: [u8; 20], ip: IpAddr) {
        let mut state = self.lock();
        let MemberState { seats, links, .. } = &mut *state;
        if seats.len() >= SEATS_MAX {
            // Sessions that overlap for ever: who is linked stays.
            seats.retain(|id, _| links.values().any(|link| link.peer.peer_id == *id));
        }
        seats.insert(id, ip.to_canonical());
    }

    /// True when the peer of this id has a seat, and from `ip`.
    pub fn has_seat(&self, id: [u8; 20], ip: IpAddr) -> bool {
        self.lock().seats.get(&id) == Some(&ip.to_canonical())
    }

    /// Our server is at `ip`.
    pub fn set_server(&self, ip: IpAddr) {
        self.lock().server = Some(ip.to_canonical());
    }

    /// Calls no addresses of private networks from now on.
    pub fn only_public(&self) {
        self.lock().only_public = true;
    }

    /// Holds every link together to `pacer`'s rate of payload.
    pub fn set_pacer(&self, pacer: Option<Arc<Pacer>>) {
        *self.pacer.lock().unwrap_or_else(PoisonError::into_inner) = pacer;
    }

    fn wait_turn(&self, bytes: u64) {
        self.sent.fetch_add(bytes, Ordering::Relaxed);
        let pacer = self
            .pacer
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        if let Some(pacer) = pacer {
            let mut left = bytes;
            while left > 0 {
                left -= pacer.grant(left);
            }
        }
    }

    /// Closes every link and ends every thread of this member.
    pub fn close(&self) {
        let mut state = self.lock();
        state.closed = true;
        state.links.values().for_each(|link| link.close());
        drop(state);
        self.tick.notify_all();
        self.changed.notify_all();
    }

    /// Lets another client have the copy's file; for a member that is closed.
    pub fn unlock_file(&self) {
        self.store.give_back();
    }

    /// Waits until something has changed, or `patience` is over; not at all once the copy is
    /// whole or cannot go on.
    pub fn wait(&self, patience: Duration) {
        let state = self.lock();
        if state.table.is_complete() || state.fault.is_some() || state.closed {
            return;
        }
        drop(
            self.changed
                .wait_timeout(state, patience)
                .unwrap_or_else(PoisonError::into_inner),
        );
    }

    fn lock(&self) -> MutexGuard<'_, MemberState> {
        // A thread that panicked left its own link behind, which its closing takes out.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
