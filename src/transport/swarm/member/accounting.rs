//! Which bytes moved between us and whom, and who had which piece first.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{Arc, atomic::Ordering},
};

use crate::{
    net::link_queue::LinkQueue, proto::bt::wire::PeerId,
    transport::swarm::peer_connection::PeerConnection, units::Moment,
};

/// The first client that told that it has a piece.
pub type Holder = (PeerId, SocketAddr);

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

/// The counters of one member.
#[derive(Debug, Default)]
pub(super) struct Accounting {
    /// Payload bytes that were kept.
    pub(super) kept: u64,
    /// Payload bytes that were received and are of no use.
    pub(super) wasted: u64,
    /// When the first payload byte came.
    pub(super) first_received: Option<Moment>,
    /// When the last payload byte of the verified pieces came.
    pub(super) last_received: Option<Moment>,
    /// For each piece the first client that told that it has it.
    pub(super) first_holders: Vec<Option<Holder>>,
    /// A line for each piece that came, where that was asked for: client, seconds, piece, from.
    pub(super) arrivals: Option<String>,
    /// For how long our own link was full.
    pub(super) link: LinkQueue,
    /// What moved on connections that are closed, by peer.
    closed: BTreeMap<PeerId, PeerTraffic>,
    /// Bytes without payload on connections that are closed.
    closed_protocol: u64,
}

/// Most peers whose closed connections are counted each by itself.
const CLOSED_MAX: usize = 1000;

/// The id under which the others are counted together.
const OTHERS: PeerId = *b"-??0001-others------";

impl Accounting {
    /// Nothing has moved; the first holders of so many pieces are noted.
    pub(super) fn new(pieces: u32) -> Self {
        Self { first_holders: vec![None; pieces as usize], ..Self::default() }
    }

    /// A client tells that it has `piece`.
    pub(super) fn note_holder(&mut self, piece: u32, connection: &PeerConnection) {
        if let Some(holder) = self.first_holders.get_mut(piece as usize) {
            holder.get_or_insert((connection.id(), connection.addr));
        }
    }

    /// A connection is closed. Peers with a seat are always counted by themselves; others could
    /// come back under ever new ids.
    pub(super) fn close(&mut self, connection: &PeerConnection, has_seat: bool) {
        self.closed_protocol += connection.traffic.protocol.load(Ordering::Relaxed);
        if !connection.has_moved() {
            return;
        }
        let id = connection.id();
        let known = has_seat || self.closed.len() < CLOSED_MAX || self.closed.contains_key(&id);
        let total = self.closed.entry(if known { id } else { OTHERS });
        total.or_default().add(PeerTraffic::of(connection));
    }

    /// A new session: what moved before is not of it.
    pub(super) fn start_session(&mut self) {
        self.first_holders.fill(None);
        self.closed.clear();
    }

    /// What moved between us and every member, with the connections that are open.
    pub(super) fn by_peer(
        &self,
        open: &BTreeMap<u32, Arc<PeerConnection>>,
    ) -> BTreeMap<PeerId, PeerTraffic> {
        let mut all = self.closed.clone();
        for connection in open.values() {
            let total = all.entry(connection.id()).or_default();
            total.add(PeerTraffic::of(connection));
        }
        all
    }

    /// Bytes without payload, both ways, with the connections that are open.
    pub(super) fn protocol(&self, open: &BTreeMap<u32, Arc<PeerConnection>>) -> u64 {
        let live = open.values();
        let live = live.map(|connection| connection.traffic.protocol.load(Ordering::Relaxed));
        self.closed_protocol + live.sum::<u64>()
    }
}

impl PeerTraffic {
    /// What moved on one connection.
    pub(super) fn of(connection: &PeerConnection) -> Self {
        let traffic = &connection.traffic;
        let first = traffic.first_sent.load(Ordering::Relaxed);
        Self {
            sent: traffic.sent.load(Ordering::Relaxed),
            received: traffic.received.load(Ordering::Relaxed),
            first_sent: (first > 0).then_some(Moment(first)),
        }
    }

    fn add(&mut self, other: Self) {
        let first = [self.first_sent, other.first_sent];
        self.sent += other.sent;
        self.received += other.received;
        self.first_sent = first.into_iter().flatten().min();
    }
}
