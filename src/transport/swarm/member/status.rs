//! What the rest of the program sees of a member.

use std::{collections::BTreeMap, net::SocketAddr, sync::atomic::Ordering};

use crate::{
    net::{clock, tcp_info},
    proto::bt::{bitfield::Bitfield, piece_picker::PickerCounts, wire::PeerId},
    transfer::Evidence,
    transport::swarm::{
        member::{
            MemberState, SwarmMember,
            accounting::{Holder, PeerTraffic},
        },
        peer_id::Role,
    },
    units::Moment,
};

/// A connected member.
#[derive(Clone, Debug)]
pub struct ConnectedPeer {
    /// Its id (BEP 20).
    pub id: PeerId,
    /// The address of its end of the connection.
    pub addr: SocketAddr,
    /// It runs gatecast.
    pub is_gatecast: bool,
    /// How many pieces it has.
    pub pieces: u32,
    /// What moved on this connection.
    pub traffic: PeerTraffic,
}

/// How far a copy has come.
#[derive(Clone, Copy, Debug)]
pub struct Progress {
    /// Verified bytes.
    pub bytes: u64,
    /// Pieces that we lack.
    pub missing: u32,
    /// Of these, pieces that no connected member has.
    pub unavailable: u32,
    /// Connected gatecast peers that are not complete.
    pub incomplete_peers: usize,
    /// The pieces that these have, together.
    pub their_pieces: u64,
    /// Payload bytes that came and were kept.
    pub kept: u64,
    /// Payload bytes that we sent since the release.
    pub sent: u64,
    /// What should not happen often.
    pub counts: PickerCounts,
    /// Bytes without payload, both ways.
    pub protocol: u64,
}

/// The payload bytes that a member received, all of one moment, so that they add up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReceivedBytes {
    /// From seeders of gatecast servers.
    pub from_server: u64,
    /// From everybody else.
    pub from_peers: u64,
    /// Of both, the bytes of no use.
    pub wasted: u64,
}

impl SwarmMember {
    /// How many connections are open.
    pub fn connections(&self) -> usize {
        self.lock().connections.len()
    }

    /// How many pieces a connected member has; `None` when it is not connected.
    pub fn pieces_of(&self, id: PeerId) -> Option<u32> {
        let state = self.lock();
        let connection = state.connection_to(&id)?;
        state.picker.pieces_of(connection.key).map(Bitfield::count)
    }

    /// How far the copy has come.
    pub fn progress(&self) -> Progress {
        let state = self.lock();
        let picker = &state.picker;
        let have = picker.have();
        let last = self.layout.pieces() - 1;
        let mut bytes = u64::from(have.count()) * u64::from(self.layout.piece);
        if have.has(last) {
            bytes -= u64::from(self.layout.piece - self.layout.len(last));
        }
        let (mut incomplete_peers, mut their_pieces) = (0, 0);
        for connection in state.connections.values() {
            if connection.is_gatecast_peer()
                && let Some(pieces) = picker.pieces_of(connection.key)
                && !pieces.is_full()
            {
                incomplete_peers += 1;
                their_pieces += u64::from(pieces.count());
            }
        }
        Progress {
            bytes,
            missing: self.layout.pieces() - have.count(),
            unavailable: picker.unavailable_pieces(),
            incomplete_peers,
            their_pieces,
            kept: state.accounting.kept,
            sent: self.sent.load(Ordering::Relaxed),
            counts: picker.counts,
            protocol: state.accounting.protocol(&state.connections),
        }
    }

    /// True when every piece is verified.
    pub fn is_complete(&self) -> bool {
        self.lock().picker.is_complete()
    }

    /// What the system saw of the connection to a member.
    pub fn evidence_of(&self, id: PeerId) -> Evidence {
        self.lock().connection_to(&id).map(|c| tcp_info::evidence(&c.stream)).unwrap_or_default()
    }

    /// Looks at the queue of our own link if it is time to, and says for how long it has been full,
    /// microseconds.
    pub fn update_link(&self) -> Option<u64> {
        let mut state = self.lock();
        let MemberState { accounting, connections, .. } = &mut *state;
        let queued =
            || connections.values().filter_map(|peer| tcp_info::queued(&*peer.stream)).max();
        accounting.link.update(clock::now(), queued);
        accounting.link.full_us()
    }

    /// When the first payload byte came; `None` before.
    pub fn first_received(&self) -> Option<Moment> {
        self.lock().accounting.first_received
    }

    /// When the last payload byte of the verified pieces came; `None` before.
    pub fn last_received(&self) -> Option<Moment> {
        self.lock().accounting.last_received
    }

    /// Notes when each piece comes, and from whom, and returns what was noted before: a line for each
    /// piece that came since the release.
    pub fn note_arrivals(&self) -> String {
        self.lock().accounting.arrivals.replace(String::new()).unwrap_or_default()
    }

    /// Why the copy cannot be finished.
    pub fn fault(&self) -> Option<String> {
        self.lock().fault.clone()
    }

    /// What moved between us and every member ever connected, by id.
    pub fn traffic(&self) -> BTreeMap<PeerId, PeerTraffic> {
        let state = self.lock();
        state.accounting.by_peer(&state.connections)
    }

    /// The payload bytes that we received.
    pub fn received(&self) -> ReceivedBytes {
        let state = self.lock();
        let mut received =
            ReceivedBytes { wasted: state.accounting.wasted, ..ReceivedBytes::default() };
        for (id, traffic) in state.accounting.by_peer(&state.connections) {
            if Role::of(&id) == Some(Role::Seeder) {
                received.from_server += traffic.received;
            } else {
                received.from_peers += traffic.received;
            }
        }
        received
    }

    /// The connected members.
    pub fn connected_peers(&self) -> Vec<ConnectedPeer> {
        let state = self.lock();
        let connections = state.connections.values();
        connections
            .map(|connection| ConnectedPeer {
                id: connection.id(),
                addr: connection.addr,
                is_gatecast: connection.handshake.is_gatecast(),
                pieces: (state.picker.pieces_of(connection.key)).map_or(0, Bitfield::count),
                traffic: PeerTraffic::of(connection),
            })
            .collect()
    }

    /// For each piece which client was the first to tell that it has it, and how many that are
    /// connected tell so, with us.
    pub fn piece_holders(&self) -> Vec<(Option<Holder>, u32)> {
        let state = self.lock();
        let copies = |piece| {
            let clients = state.super_seeder.as_ref().map_or(0, |seeder| seeder.copies(piece));
            clients + u32::from(state.picker.have().has(piece))
        };
        let holders = &state.accounting.first_holders;
        (0u32..).zip(holders).map(|(piece, &holder)| (holder, copies(piece))).collect()
    }

    /// The turn in which the seeder means to offer `piece` for the first time.
    pub fn piece_turn(&self, piece: u32) -> Option<u32> {
        self.lock().super_seeder.as_ref()?.turn(piece)
    }
}
