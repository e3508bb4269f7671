//! One member of one swarm: a copy, whole or in parts, and its links to the other members.
//!
//! The server's seeder and every peer are the same thing here; a seeder is a member that begins
//! whole and has an [`Injector`]. Each link has a reader and a writer thread ([`Link`]); one more
//! thread sends announcements of new pieces a few at a time and looks after time limits.
//!
//! One lock holds the piece table, the bytes of unfinished pieces and the list of links. It is
//! taken before a link's own, never after it, and never held while anything hashes, reads, writes
//! or waits. Until [`Member::release`] nobody is served and nothing is asked for.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::net::IpAddr;
use std::net::SocketAddr;
use std::net::TcpStream;
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
use crate::proto::bt::bits::Bits;
use crate::proto::bt::inject::Injector;
use crate::proto::bt::metainfo::Metainfo;
use crate::proto::bt::table::Arrival;
use crate::proto::bt::table::Counts;
use crate::proto::bt::table::Layout;
use crate::proto::bt::table::Random;
use crate::proto::bt::table::Table;
use crate::proto::bt::wire::Block;
use crate::proto::bt::wire::Handshake;
use crate::proto::bt::wire::Introduction;
use crate::proto::bt::wire::Message;
use crate::proto::bt::wire::OUR_PREFIX;
use crate::proto::bt::wire::REQUEST_MAX;
use crate::proto::bt::wire::REQUESTS_ASSUMED;
use crate::proto::bt::wire::REQUESTS_MAX;
use crate::runtime::clock;
use crate::runtime::lobby::STACK;
use crate::runtime::pace::Pacer;
use crate::swarm::connect;
use crate::swarm::leech::is_private;
use crate::swarm::link::Link;
use crate::swarm::store::Store;
use crate::units::Moment;

/// One member.
#[derive(Debug)]
pub struct Member {
    /// What the swarm shares.
    pub metainfo: Arc<Metainfo>,
    hash: Digest,
    id: [u8; 20],
    layout: Layout,
    store: Store,
    links_max: usize,
    /// Holds what we send to a rate, where it has one.
    pacer: Mutex<Option<Arc<Pacer>>>,
    /// Payload bytes sent since the last release.
    sent: AtomicU64,
    state: Mutex<State>,
    /// Told when a piece is in, a link is gone, or all is over.
    changed: Condvar,
    /// Wakes the ticker.
    tick: Condvar,
    me: Weak<Self>,
}

#[derive(Debug)]
struct State {
    table: Table,
    injector: Option<Injector>,
    links: BTreeMap<u32, Arc<Link>>,
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
    banned: Vec<(IpAddr, [u8; 20])>,
    /// The seated peers whose session is released.
    admitted: BTreeSet<[u8; 20]>,
    /// First payload byte that came.
    first: Option<Moment>,
    /// Why the copy cannot go on.
    fault: Option<String>,
    /// What links that are gone had moved, by peer: sent to it, received from it.
    gone: BTreeMap<[u8; 20], Moved>,
    /// For each piece the first other member that had it.
    holders: Vec<Option<Holder>>,
    /// Payload bytes that were received and are of no use.
    wasted: u64,
    protocol: u64,
    /// Calls no addresses of private networks.
    only_public: bool,
}

/// Who had a piece first.
pub type Holder = ([u8; 20], SocketAddr);

/// What moved between us and one other member.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Moved {
    /// Payload bytes that we sent.
    pub sent: u64,
    /// Payload bytes that we received.
    pub received: u64,
    /// When the first payload byte was sent.
    pub first_sent: Option<Moment>,
}

/// What a face shows of another member.
#[derive(Clone, Debug)]
pub struct Neighbour {
    /// Its id (BEP 20).
    pub id: [u8; 20],
    /// Its address, as far as the connection shows it.
    pub addr: SocketAddr,
    /// It is one of our own program.
    pub native: bool,
    /// How many pieces it has.
    pub pieces: u32,
    /// What moved.
    pub moved: Moved,
}

/// How far a copy has come.
#[derive(Clone, Copy, Debug)]
pub struct Progress {
    /// Verified bytes.
    pub bytes: u64,
    /// Pieces that are not there yet.
    pub missing: u32,
    /// Of these, pieces that no connected member has.
    pub nowhere: u32,
    /// Open links.
    pub links: usize,
    /// Links to members that are not whole, of our own program.
    pub unfinished: usize,
    /// What should not happen often.
    pub counts: Counts,
    /// Payload bytes that were of no use.
    pub wasted: u64,
    /// Bytes that were no payload, both ways.
    pub protocol: u64,
}

/// Longest time for which news of a piece waits for others, so that one message carries several.
const NEWS_WAIT: Duration = Duration::from_millis(4);

/// How often time limits are looked at.
const TICK: Duration = Duration::from_millis(50);

/// Links that a peer wants; above it a swarm is no full mesh any more, and needs none. It takes
/// twice as many calls: who came first would be full otherwise, and the last would find nobody.
pub const PEER_LINKS: usize = 55;

/// Links of a seeder up to which it calls others.
pub const SEEDER_LINKS: usize = 1000;

/// A member's role, told by the ninth character of its id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// The server's seeder.
    Seeder,
    /// A client with a seat at the gate: the seeder feeds it.
    Seated,
    /// A peer without a gate, like those of other programs.
    Free,
}

/// A new id: of the seeder, or of a peer known by a text of its own.
pub fn peer_id(role: Role, own: &str) -> [u8; 20] {
    let mut id = [b'0'; 20];
    id[..8].copy_from_slice(OUR_PREFIX);
    id[8] = role.letter();
    let own = own.as_bytes();
    let len = own.len().min(11);
    id[9..9 + len].copy_from_slice(&own[..len]);
    id
}

fn is(role: Role, peer: &Handshake) -> bool {
    peer.native() && peer.peer_id[8] == role.letter()
}

impl Role {
    fn letter(self) -> u8 {
        match self {
            Self::Seeder => b'S',
            Self::Seated => b'P',
            Self::Free => b'L',
        }
    }
}

impl Member {
    /// A member with the pieces of `have`.
    ///
    /// # Errors
    /// The system refuses a thread.
    pub fn start(
        metainfo: Arc<Metainfo>,
        store: Store,
        have: Bits,
        id: [u8; 20],
        role: Role,
    ) -> Result<Arc<Self>> {
        let layout = Layout::new(metainfo.bytes, metainfo.piece_bytes);
        let injector =
            (role == Role::Seeder).then(|| Injector::opened(layout.pieces(), layout.piece));
        let pieces = layout.pieces() as usize;
        let state = State {
            table: Table::new(layout, have, clock::random()),
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
            banned: Vec::new(),
            admitted: BTreeSet::new(),
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
            layout,
            store,
            links_max: match role {
                Role::Seeder => 2 * SEEDER_LINKS,
                Role::Seated | Role::Free => 2 * PEER_LINKS,
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
    pub fn listens_on(&self, port: u16) {
        self.lock().port = Some(port);
    }

    /// Begins to serve and to ask, all links at once.
    pub fn release(&self) {
        let mut state = self.lock();
        if state.released.is_some() {
            return;
        }
        state.released = Some(clock::now());
        self.sent.store(0, Ordering::Relaxed);
        let links: Vec<Arc<Link>> = state.links.values().map(Arc::clone).collect();
        links.iter().for_each(|link| link.say(&[Message::Unchoke]));
        self.show(&mut state);
        for link in &links {
            self.ask(&mut state, link);
            link.flush();
        }
    }

    /// Serves nobody until the next [`Member::release`], and shows every piece anew to whom it
    /// has not been shown: the seeder's part of a new session.
    pub fn hold(&self) {
        let mut state = self.lock();
        state.released = None;
        let State {
            injector, links, ..
        } = &mut *state;
        let mut random = Random::new(clock::random());
        *injector = Some(Injector::new(
            self.layout.pieces(),
            self.layout.piece,
            &mut random,
        ));
        for link in links.values() {
            link.say(&[Message::Choke]);
            refuse(link, link.cancel_all());
            link.flush();
        }
        state.holders.fill(None);
        state.admitted.clear();
    }

    /// Lets a seated peer be fed, and whoever was not yet served: its session is released.
    pub fn admit(&self, id: [u8; 20]) {
        self.release();
        let mut state = self.lock();
        state.admitted.insert(id);
        let Some(link) = state.links.values().find(|link| link.peer.peer_id == id) else {
            return;
        };
        let link = Arc::clone(link);
        if let Some(injector) = &mut state.injector {
            injector.admit(link.key);
            if injector.is_open() {
                link.say(&[Message::HaveAll]);
            }
        }
        self.show(&mut state);
    }

    /// True once released, until held again.
    pub fn is_released(&self) -> bool {
        self.lock().released.is_some()
    }

    /// Calls no addresses of private networks from now on.
    pub fn only_public(&self) {
        self.lock().only_public = true;
    }

    /// Calls `addr` in a thread of its own.
    pub fn dial(&self, addr: SocketAddr) {
        let Some(me) = self.me.upgrade() else {
            return;
        };
        {
            let state = self.lock();
            if state.only_public && is_private(addr.ip()) {
                return log::info!("{addr}: a private address from a public tracker, not called");
            }
            if state.closed || state.links.len() >= self.links_max / 2 {
                return;
            }
        }
        let started = thread::Builder::new()
            .name(format!("peer-{addr}"))
            .stack_size(STACK)
            .spawn(move || match connect::call(addr, &me.handshake()) {
                Ok((stream, peer)) => me.run(Arc::new(stream), addr, peer, true),
                Err(error) => {
                    log::debug!("{error}");
                }
            });
        if let Err(error) = started {
            log::warn!("cannot start a thread to call {addr}: {error}");
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
        if let Err(why) = ended {
            log::debug!("{addr}: link ended: {why}");
        }
        self.leave(&link);
    }

    /// Holds every link together to `pacer`'s rate of payload.
    pub fn pace(&self, pacer: Option<Arc<Pacer>>) {
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

    /// True when there is a link to the member of this id.
    pub fn is_linked(&self, id: [u8; 20]) -> bool {
        self.lock()
            .links
            .values()
            .any(|link| link.peer.peer_id == id)
    }

    /// How many links there are.
    pub fn links(&self) -> usize {
        self.lock().links.len()
    }

    /// How many pieces a linked member has; `None` when it is not linked.
    pub fn pieces_of(&self, id: [u8; 20]) -> Option<u32> {
        let state = self.lock();
        let link = state.links.values().find(|link| link.peer.peer_id == id)?;
        state.table.has(link.key).map(Bits::count)
    }

    /// Enters a link and says the first words on it.
    fn join(
        &self,
        stream: Arc<TcpStream>,
        addr: SocketAddr,
        peer: Handshake,
        dialed: bool,
    ) -> Result<Arc<Link>, &'static str> {
        if peer.peer_id == self.id {
            return Err("it is ourselves");
        }
        // Blocks are written whole; nothing gains by waiting for more.
        let _ = stream.set_nodelay(true);
        let mut state = self.lock();
        if state.closed {
            return Err("we are leaving");
        }
        if state
            .banned
            .iter()
            .any(|&(ip, id)| ip == addr.ip() && (id == peer.peer_id || !ip.is_loopback()))
        {
            return Err("it has sent wrong pieces");
        }
        if state.links.len() >= self.links_max {
            return Err("too many links");
        }
        let twin = state
            .links
            .values()
            .find(|link| link.peer.peer_id == peer.peer_id);
        if let Some(twin) = twin {
            // Both sides called at once: both keep the call of the smaller id.
            let ours = self.id < peer.peer_id;
            if !peer.native() || twin.dialed == dialed || dialed != ours {
                return Err("there is a link to it already");
            }
            twin.close();
        }
        let key = state.next;
        state.next += 1;
        let pieces = self.layout.pieces();
        let link = Arc::new(Link::new(key, stream, addr, peer, dialed, pieces));
        state.links.insert(key, Arc::clone(&link));
        state.table.join(key, REQUESTS_ASSUMED as usize);
        let fed = is(Role::Seated, &peer);
        let admitted = state.admitted.contains(&peer.peer_id);
        if fed && let Some(injector) = &mut state.injector {
            injector.join(key);
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
                .is_some_and(|i| !admitted || !i.is_open());
        let held = match () {
            () if hides && peer.fast() => Some(Message::HaveNone),
            () if hides => None,
            () if have.is_full() && peer.fast() => Some(Message::HaveAll),
            () if have.is_empty() && peer.fast() => Some(Message::HaveNone),
            () if have.is_empty() => None,
            () => Some(Message::Bitfield(&bits)),
        };
        let introduction = Introduction {
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

    fn leave(&self, link: &Arc<Link>) {
        link.close();
        let mut state = self.lock();
        state.table.leave(link.key);
        state.links.remove(&link.key);
        if let Some(injector) = &mut state.injector {
            injector.leave(link.key);
        }
        let moved = moved(link);
        let gone = state.gone.entry(link.peer.peer_id).or_default();
        *gone = gone.and(moved);
        state.protocol += link.protocol.load(Ordering::Relaxed);
        self.ask_all(&mut state);
        self.show(&mut state);
    }

    /// What another member says.
    fn hear(&self, link: &Arc<Link>, message: Message<'_>) -> Result<(), String> {
        match message {
            Message::Piece(piece, begin, data) => return self.take(link, piece, begin, data),
            Message::Request(block) => return self.requested(link, block),
            Message::Cancel(block) => {
                if link.cancel(block) && link.limits.fast {
                    link.add(&[Message::Reject(block)]);
                }
                return Ok(());
            }
            Message::KeepAlive
            | Message::Interested
            | Message::NotInterested
            | Message::HaveNone
            | Message::Other(_) => return Ok(()),
            Message::Extended(0, body) => {
                let told = Introduction::decode(body).map_err(|error| error.to_string())?;
                if let Some(requests) = told.requests {
                    let requests = (requests as usize).min(REQUESTS_MAX);
                    self.lock().table.allow(link.key, requests);
                }
                return Ok(());
            }
            Message::Extended(..) => return Ok(()),
            _ => {}
        }
        let mut state = self.lock();
        match message {
            Message::Choke => state.table.serves(link.key, false),
            Message::Unchoke => state.table.serves(link.key, true),
            Message::Reject(block) => state.table.rejected(link.key, block),
            Message::Have(piece) => {
                let new = state.table.had(link.key, piece)?;
                if new {
                    self.has_now(&mut state, link, piece);
                }
            }
            Message::Bitfield(body) => {
                let bits = Bits::decode(self.layout.pieces(), body)
                    .ok_or("a bitfield with bits beyond the last piece")?;
                self.had_all(&mut state, link, &bits);
            }
            Message::HaveAll => {
                let bits = Bits::full(self.layout.pieces());
                self.had_all(&mut state, link, &bits);
            }
            _ => {}
        }
        self.want(&state, link);
        self.ask(&mut state, link);
        if state.injector.is_some() {
            self.show(&mut state);
        }
        Ok(())
    }

    fn had_all(&self, state: &mut State, link: &Arc<Link>, bits: &Bits) {
        let known = state.table.has(link.key).cloned();
        state.table.had_all(link.key, bits);
        if state.injector.is_some() {
            let new = bits
                .iter()
                .filter(|&p| known.as_ref().is_none_or(|known| !known.has(p)));
            for piece in new.collect::<Vec<_>>() {
                self.has_now(state, link, piece);
            }
        }
    }

    /// Another member has a piece that it had not before.
    fn has_now(&self, state: &mut State, link: &Link, piece: u32) {
        if let Some(injector) = &mut state.injector {
            injector.had(link.key, piece);
        }
        if let Some(holder) = state.holders.get_mut(piece as usize) {
            holder.get_or_insert((link.peer.peer_id, link.addr));
        }
    }

    /// Says once that there is something to want.
    fn want(&self, state: &State, link: &Link) {
        if !link.interested.load(Ordering::Relaxed) && state.table.interests(link.key) {
            link.interested.store(true, Ordering::Relaxed);
            link.add(&[Message::Interested]);
        }
    }

    /// Fills a link's pipeline, once there is room worth a message; the caller flushes.
    fn ask(&self, state: &mut State, link: &Link) {
        if state.released.is_none() || state.closed || !state.table.runs_dry(link.key) {
            return;
        }
        let blocks = state.table.ask(link.key, clock::now());
        let asks: Vec<Message<'_>> = blocks.into_iter().map(Message::Request).collect();
        if !asks.is_empty() {
            link.add(&asks);
        }
    }

    fn ask_all(&self, state: &mut State) {
        let links: Vec<Arc<Link>> = state.links.values().map(Arc::clone).collect();
        for link in links {
            self.ask(state, &link);
            link.flush();
        }
    }

    /// Shows peers the pieces that are theirs to fetch; when all are out, everything to everybody.
    fn show(&self, state: &mut State) {
        let State {
            released: Some(released),
            injector: Some(injector),
            links,
            table,
            ..
        } = state
        else {
            return;
        };
        let now = clock::now();
        let taken = now.since(*released).as_secs_f64().max(0.1) * f64::from(self.layout.piece);
        #[allow(clippy::cast_precision_loss, reason = "a rate")]
        let rate = |bytes: &AtomicU64| bytes.load(Ordering::Relaxed) as f64 / taken;
        let of = |key: u32| links.get(&key).map_or(0.0, |link| rate(&link.sent));
        let shown = injector.show(of, rate(&self.sent));
        for one in shown.chunk_by(|one, two| one.0 == two.0) {
            let news: Vec<Message<'_>> = one.iter().map(|&(_, p)| Message::Have(p)).collect();
            if let Some(link) = links.get(&one[0].0) {
                link.say(&news);
            }
        }
        if injector.opens(now) {
            let bits = table.have().encode();
            for link in links.values() {
                let all = match link.limits.fast {
                    true => Message::HaveAll,
                    false => Message::Bitfield(&bits),
                };
                link.say(&[all]);
            }
        }
    }

    /// A block is asked for.
    fn requested(&self, link: &Link, block: Block) -> Result<(), String> {
        if block.len > REQUEST_MAX {
            return Err(format!("a request for {} bytes", block.len));
        }
        let state = self.lock();
        let may = state.released.is_some()
            && self.layout.allows(block)
            && state.table.have().has(block.piece)
            && state
                .injector
                .as_ref()
                .is_none_or(|injector| injector.may_have(link.key, block.piece));
        drop(state);
        if !may || !link.serve(block) {
            refuse(link, vec![block]);
        }
        Ok(())
    }

    /// A block has come.
    fn take(&self, link: &Arc<Link>, piece: u32, begin: u32, data: &[u8]) -> Result<(), String> {
        let now = clock::now();
        let mut state = self.lock();
        let len = u32::try_from(data.len()).expect("bounded by the message");
        link.received
            .fetch_add(data.len() as u64, Ordering::Relaxed);
        let arrival = state.table.arrive(link.key, piece, begin, len, now);
        let (others, whole) = match arrival {
            Arrival::Unwanted => {
                state.wasted += data.len() as u64;
                self.ask(&mut state, link);
                return Ok(());
            }
            Arrival::Kept(others) => (others, false),
            Arrival::Whole(others) => (others, true),
        };
        state.first.get_or_insert(now);
        let size = self.layout.len(piece) as usize;
        let State { open, spare, .. } = &mut *state;
        let bytes = open
            .entry(piece)
            .or_insert_with(|| spare.pop().unwrap_or_default());
        bytes.resize(size, 0);
        bytes[begin as usize..begin as usize + data.len()].copy_from_slice(data);
        for other in others {
            if let Some(other) = state.links.get(&other) {
                other.say(&[Message::Cancel(Block { piece, begin, len })]);
            }
        }
        let bytes = whole.then(|| state.open.remove(&piece)).flatten();
        self.ask(&mut state, link);
        drop(state);
        match bytes {
            Some(bytes) => {
                // Verifying takes longer than the next blocks should wait to be asked for.
                link.flush();
                self.settle(piece, bytes, is(Role::Seeder, &link.peer))
            }
            None => Ok(()),
        }
    }

    /// All of a piece is here: verifies it, writes it, tells of it. No lock while it works.
    fn settle(&self, piece: u32, bytes: Vec<u8>, ours_alone: bool) -> Result<(), String> {
        if Digest::of(&bytes) != self.metainfo.pieces[piece as usize] {
            let mut state = self.lock();
            state.wasted += bytes.len() as u64;
            log::warn!("piece {piece} is wrong and is fetched again");
            if let Some(liar) = state.table.wrong(piece, &bytes) {
                self.ban(&mut state, liar);
            }
            self.ask_all(&mut state);
            return Ok(());
        }
        let written = self.store.write(piece, &bytes);
        let mut state = self.lock();
        if let Err(error) = written {
            state.fault = Some(format!("the copy cannot be written: {error}"));
            drop(state);
            self.changed.notify_all();
            return Err("our own disk failed".to_owned());
        }
        for liar in state.table.verified(piece, &bytes) {
            self.ban(&mut state, liar);
        }
        state.spare.push(bytes);
        let whole = state.table.is_whole();
        if ours_alone || whole {
            state.news.push(piece);
            if state.news.len() == 1 {
                self.tick.notify_one();
            }
        } else {
            state.rumours.push(piece);
        }
        if whole {
            state.spare = Vec::new();
            drop(state);
            self.changed.notify_all();
        }
        Ok(())
    }

    /// A member that sent wrong pieces is left and not let in again.
    fn ban(&self, state: &mut State, key: u32) {
        if let Some(link) = state.links.get(&key) {
            log::warn!(
                "{}: sent a wrong piece, and is not spoken to again",
                link.addr
            );
            state.banned.push((link.addr.ip(), link.peer.peer_id));
            link.close();
        }
    }

    /// The ticker's thread.
    fn keep_time(&self) {
        let mut state = self.lock();
        let mut look = clock::now().after(TICK);
        while !state.closed {
            if state.news.is_empty() {
                let left = clock::left(look).unwrap_or_default();
                state = self
                    .tick
                    .wait_timeout(state, left)
                    .unwrap_or_else(PoisonError::into_inner)
                    .0;
            }
            if !state.news.is_empty() {
                drop(state);
                // Others that come meanwhile go with them.
                thread::sleep(NEWS_WAIT);
                state = self.lock();
                let news = std::mem::take(&mut state.news);
                self.tell(&mut state, &news);
                state.links.values().for_each(|link| link.flush());
            }
            if clock::left(look).is_none() {
                look = clock::now().after(TICK);
                // The rumours of the last tick, where nothing else went out meanwhile.
                state.links.values().for_each(|link| link.flush());
                let rumours = std::mem::take(&mut state.rumours);
                if !rumours.is_empty() {
                    self.tell(&mut state, &rumours);
                }
                for late in state.table.give_up(clock::now()) {
                    if let Some(link) = state.links.get(&late) {
                        log::info!("{}: does not answer, others are asked", link.addr);
                    }
                }
                self.ask_all(&mut state);
                self.show(&mut state);
            }
        }
    }

    /// Tells the others of new pieces; one of ours that has a piece needs not hear of it. The
    /// caller flushes what must not wait for something else to go out.
    fn tell(&self, state: &mut State, news: &[u32]) {
        let whole = state.table.is_whole();
        for link in state.links.values() {
            let terse = link.peer.native() && !is(Role::Seeder, &link.peer);
            let has = state.table.has(link.key);
            let mut words: Vec<Message<'_>> = match whole && link.peer.native() {
                true => vec![Message::HaveAll],
                false => news
                    .iter()
                    .filter(|&&piece| !terse || has.is_none_or(|has| !has.has(piece)))
                    .map(|&piece| Message::Have(piece))
                    .collect(),
            };
            if whole && link.interested.swap(false, Ordering::Relaxed) {
                words.push(Message::NotInterested);
            }
            if !words.is_empty() {
                link.add(&words);
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
    pub fn give_back(&self) {
        self.store.give_back();
    }

    /// Waits until something has changed, or `patience` is over; not at all once the copy is
    /// whole or cannot go on.
    pub fn wait(&self, patience: Duration) {
        let state = self.lock();
        if state.table.is_whole() || state.fault.is_some() || state.closed {
            return;
        }
        drop(
            self.changed
                .wait_timeout(state, patience)
                .unwrap_or_else(PoisonError::into_inner),
        );
    }

    /// How far the copy has come.
    pub fn progress(&self) -> Progress {
        let state = self.lock();
        let table = &state.table;
        let have = table.have();
        let last = self.layout.pieces() - 1;
        let mut bytes = u64::from(have.count()) * u64::from(self.layout.piece);
        if have.has(last) {
            bytes -= u64::from(self.layout.piece - self.layout.len(last));
        }
        let unfinished = state.links.values().filter(|link| {
            let whole = table.has(link.key).is_some_and(Bits::is_full);
            link.peer.native() && !is(Role::Seeder, &link.peer) && !whole
        });
        let live: u64 = state
            .links
            .values()
            .map(|link| link.protocol.load(Ordering::Relaxed))
            .sum();
        Progress {
            bytes,
            missing: self.layout.pieces() - have.count(),
            nowhere: table.nowhere(),
            links: state.links.len(),
            unfinished: unfinished.count(),
            counts: table.counts(),
            wasted: state.wasted,
            protocol: state.protocol + live,
        }
    }

    /// When the first payload byte came; `None` before.
    pub fn first(&self) -> Option<Moment> {
        self.lock().first
    }

    /// Why the copy cannot go on.
    pub fn fault(&self) -> Option<String> {
        self.lock().fault.clone()
    }

    /// What moved between us and every member ever linked, by id.
    pub fn moved(&self) -> BTreeMap<[u8; 20], Moved> {
        moved_in(&self.lock())
    }

    /// Payload bytes received from seeders of our own program, from everybody else, and of these
    /// the ones of no use: of one moment, so that they add up.
    pub fn sources(&self) -> (u64, u64, u64) {
        let seeder = |id: &[u8; 20]| id.starts_with(OUR_PREFIX) && id[8] == Role::Seeder.letter();
        let state = self.lock();
        let (server, peers) =
            moved_in(&state)
                .iter()
                .fold((0, 0), |(server, peers), (id, moved)| match seeder(id) {
                    true => (server + moved.received, peers),
                    false => (server, peers + moved.received),
                });
        (server, peers, state.wasted)
    }

    /// The linked members.
    pub fn neighbours(&self) -> Vec<Neighbour> {
        let state = self.lock();
        let neighbour = |link: &Arc<Link>| Neighbour {
            id: link.peer.peer_id,
            addr: link.addr,
            native: link.peer.native(),
            pieces: state.table.has(link.key).map_or(0, Bits::count),
            moved: moved(link),
        };
        state.links.values().map(neighbour).collect()
    }

    /// For each piece who had it first, and how many linked members have it now, us included.
    pub fn chunks(&self) -> Vec<(Option<Holder>, u32)> {
        let state = self.lock();
        let own = |piece| u32::from(state.table.have().has(piece));
        (0u32..)
            .zip(&state.holders)
            .map(|(piece, &holder)| (holder, u32::from(state.table.copies(piece)) + own(piece)))
            .collect()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // A thread that panicked left its own link behind, which its closing takes out.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Moved {
    fn and(self, other: Self) -> Self {
        let first = [self.first_sent, other.first_sent];
        Self {
            sent: self.sent + other.sent,
            received: self.received + other.received,
            first_sent: first.into_iter().flatten().min(),
        }
    }
}

fn moved_in(state: &State) -> BTreeMap<[u8; 20], Moved> {
    let mut all = state.gone.clone();
    for link in state.links.values() {
        let entry = all.entry(link.peer.peer_id).or_default();
        *entry = entry.and(moved(link));
    }
    all
}

fn moved(link: &Link) -> Moved {
    let first = link.first_sent.load(Ordering::Relaxed);
    Moved {
        sent: link.sent.load(Ordering::Relaxed),
        received: link.received.load(Ordering::Relaxed),
        first_sent: (first > 0).then_some(Moment(first)),
    }
}

/// Says that blocks will not come, where the other side understands it; the caller flushes.
fn refuse(link: &Link, blocks: Vec<Block>) {
    if link.limits.fast {
        let words: Vec<Message<'_>> = blocks.into_iter().map(Message::Reject).collect();
        link.add(&words);
    }
}
