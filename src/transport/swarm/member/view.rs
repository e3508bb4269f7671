//! What faces and sessions see of a member.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::proto::bt::bits::Bitfield;
use crate::proto::bt::table::PickerCounts;
use crate::proto::bt::wire::PEER_ID_PREFIX;
use crate::transport::swarm::link::PeerConnection;
use crate::transport::swarm::member::MemberState;
use crate::transport::swarm::member::SwarmMember;
use crate::transport::swarm::member::role::Role;
use crate::transport::swarm::member::role::has_role;
use crate::units::Moment;

/// Who had a piece first.
pub type Holder = ([u8; 20], SocketAddr);

/// What moved between us and one other member.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PeerTraffic {
    /// Payload bytes that we sent.
    pub sent: u64,
    /// Payload bytes that we received.
    pub received: u64,
    /// When the first payload byte was sent.
    pub first_sent: Option<Moment>,
}

/// What a face shows of another member.
#[derive(Clone, Debug)]
pub struct ConnectedPeer {
    /// Its id (BEP 20).
    pub id: [u8; 20],
    /// Its address, as far as the connection shows it.
    pub addr: SocketAddr,
    /// It is one of our own program.
    pub native: bool,
    /// How many pieces it has.
    pub pieces: u32,
    /// What moved.
    pub moved: PeerTraffic,
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
    /// The pieces that these have, together.
    pub theirs: u64,
    /// Payload bytes that came and were kept.
    pub kept: u64,
    /// Payload bytes that we sent since the release.
    pub given: u64,
    /// What should not happen often.
    pub counts: PickerCounts,
    /// Payload bytes that were of no use.
    pub wasted: u64,
    /// Bytes that were no payload, both ways.
    pub protocol: u64,
}

impl SwarmMember {
    /// True when there is a link to the member of this id.
    pub fn is_connected(&self, id: [u8; 20]) -> bool {
        self.lock()
            .links
            .values()
            .any(|link| link.peer.peer_id == id)
    }

    /// How many links there are.
    pub fn connections(&self) -> usize {
        self.lock().links.len()
    }

    /// How many pieces a linked member has; `None` when it is not linked.
    pub fn pieces_of(&self, id: [u8; 20]) -> Option<u32> {
        let state = self.lock();
        let link = state.links.values().find(|link| link.peer.peer_id == id)?;
        state.table.pieces_of(link.key).map(Bitfield::count)
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
        let (mut unfinished, mut theirs) = (0, 0);
        for link in state.links.values() {
            let Some(has) = table.pieces_of(link.key).filter(|has| !has.is_full()) else {
                continue;
            };
            if link.peer.native() && !has_role(Role::Seeder, &link.peer) {
                unfinished += 1;
                theirs += u64::from(has.count());
            }
        }
        let live: u64 = state
            .links
            .values()
            .map(|link| link.protocol.load(Ordering::Relaxed))
            .sum();
        Progress {
            bytes,
            missing: self.layout.pieces() - have.count(),
            nowhere: table.unavailable_pieces(),
            links: state.links.len(),
            unfinished,
            theirs,
            kept: state.kept,
            given: self.sent.load(Ordering::Relaxed),
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
    pub fn traffic(&self) -> BTreeMap<[u8; 20], PeerTraffic> {
        moved_in(&self.lock())
    }

    /// Payload bytes received from seeders of our own program, from everybody else, and of these
    /// the ones of no use: of one moment, so that they add up.
    pub fn sources(&self) -> (u64, u64, u64) {
        let seeder =
            |id: &[u8; 20]| id.starts_with(PEER_ID_PREFIX) && id[8] == Role::Seeder.letter();
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
    pub fn connected_peers(&self) -> Vec<ConnectedPeer> {
        let state = self.lock();
        let neighbour = |link: &Arc<PeerConnection>| ConnectedPeer {
            id: link.peer.peer_id,
            addr: link.addr,
            native: link.peer.native(),
            pieces: state.table.pieces_of(link.key).map_or(0, Bitfield::count),
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
}

impl PeerTraffic {
    pub(super) fn and(self, other: Self) -> Self {
        let first = [self.first_sent, other.first_sent];
        Self {
            sent: self.sent + other.sent,
            received: self.received + other.received,
            first_sent: first.into_iter().flatten().min(),
        }
    }
}

fn moved_in(state: &MemberState) -> BTreeMap<[u8; 20], PeerTraffic> {
    let mut all = state.gone.clone();
    for link in state.links.values() {
        let entry = all.entry(link.peer.peer_id).or_default();
        *entry = entry.and(moved(link));
    }
    all
}

pub(super) fn moved(link: &PeerConnection) -> PeerTraffic {
    let first = link.first_sent.load(Ordering::Relaxed);
    PeerTraffic {
        sent: link.sent.load(Ordering::Relaxed),
        received: link.received.load(Ordering::Relaxed),
        first_sent: (first > 0).then_some(Moment(first)),
    }
}
