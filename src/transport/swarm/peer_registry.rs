//! The peers that the server's tracker knows. HTTP is spoken elsewhere.
//!
//! A peer's address is that of its connection, whatever it claims. What it claims may be wrong in
//! any way: the list of a swarm is bounded, and each address may announce only so often.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use crate::{
    proto::{
        bt::{
            random::Random,
            tracker::{
                announce::{Announce, AnnounceEvent, Share},
                response::AnnounceResponse,
                scrape::ScrapeCounts,
            },
            wire::PeerId,
        },
        line::DecodeError,
    },
    session::MAX_SEATS,
    transport::swarm::limits::EXTERNAL_CONNECTIONS,
    units::Moment,
};

/// The peers of one swarm.
#[derive(Debug)]
pub struct PeerRegistry {
    peers: BTreeMap<SocketAddr, RegisteredPeer>,
    /// Where each peer with a seat is: it has one entry, whatever ports it announces.
    seats: BTreeMap<PeerId, SocketAddr>,
    /// Announces of each address: since when they are counted, and how many there were.
    announces: BTreeMap<IpAddr, (Moment, u32)>,
    completed: u64,
    /// What the seated peers of this session reported.
    pub reports: BTreeMap<PeerId, SourceReport>,
    random: Random,
    /// When silent peers were removed last.
    swept: Moment,
}

/// What a seated peer reported of its bytes.
#[derive(Clone, Debug)]
pub struct SourceReport {
    /// Where it listens.
    pub addr: SocketAddr,
    /// It has the whole file.
    pub complete: bool,
    /// Payload bytes by the member that they came from.
    pub shares: Vec<Share>,
}

#[derive(Debug)]
struct RegisteredPeer {
    id: PeerId,
    complete: bool,
    has_seat: bool,
    seen: Moment,
}

/// How long a peer waits between two announces, seconds. On a local network that is no burden;
/// public trackers use half an hour.
pub const INTERVAL: u64 = 5;

/// Most peers of one swarm, beside those with a seat. When there are more, the one that was silent
/// longest is removed.
pub const PEERS_MAX: usize = 1024;

/// Most of these at one address.
const ADDRESS_MAX: usize = EXTERNAL_CONNECTIONS;

/// After how much silence a peer is removed: two and a half intervals would do, but libtorrent
/// announces itself only every five minutes, whatever interval it is told.
const SILENCE_MAX: Duration = Duration::from_secs(330);

/// How often silent peers are removed.
const SWEEP: Duration = Duration::from_secs(1);

/// Most announces of one address in [`SPAN`]. All clients of a test may be on one host.
const ANNOUNCES_MAX: u32 = 3000;

/// The same for peers with a seat, which announce themselves at begin, end and each interval.
const SEAT_ANNOUNCES_MAX: u32 = 4 * MAX_SEATS as u32;

/// The span in which announces are counted.
const SPAN: Duration = Duration::from_secs(10);

impl PeerRegistry {
    /// A registry without peers.
    pub fn new(seed: u64) -> Self {
        Self {
            peers: BTreeMap::new(),
            seats: BTreeMap::new(),
            announces: BTreeMap::new(),
            completed: 0,
            reports: BTreeMap::new(),
            random: Random::new(seed),
            swept: Moment(0),
        }
    }

    /// Enters an announce from `ip` and answers it; `seeder` is our own address as the peer
    /// reaches it. Peers that have a seat are never turned away for others and are named first,
    /// and only their reports are kept.
    ///
    /// # Errors
    /// There are too many announces.
    pub fn announce(
        &mut self,
        announce: &Announce,
        ip: IpAddr,
        has_seat: bool,
        seeder: SocketAddr,
        now: Moment,
    ) -> Result<AnnounceResponse, DecodeError> {
        self.count_announce(ip, has_seat, now)?;
        if now.since(self.swept) >= SWEEP {
            self.swept = now;
            self.peers.retain(|_, peer| now.since(peer.seen) < SILENCE_MAX);
            let peers = &self.peers;
            self.seats.retain(|id, addr| is_at(peers, *addr, id));
        }
        let addr = SocketAddr::new(ip, announce.port);
        let complete = announce.left == Some(0);
        // The last announce may have no report; then the one before it stands.
        if has_seat && !announce.received_from.is_empty() {
            let report = SourceReport { addr, complete, shares: announce.received_from.clone() };
            self.reports.insert(announce.peer_id, report);
        }
        // Transmission announces that it stopped before it ever started.
        if announce.event == AnnounceEvent::Stopped {
            self.peers.remove(&addr);
            return Ok(self.response(Vec::new()));
        }
        if announce.event == AnnounceEvent::Completed {
            self.completed += 1;
        }
        if has_seat {
            let moved = self.seats.insert(announce.peer_id, addr).filter(|old| *old != addr);
            if let Some(old) = moved.filter(|old| is_at(&self.peers, *old, &announce.peer_id)) {
                self.peers.remove(&old);
            }
        } else if !self.peers.contains_key(&addr) {
            self.make_room(ip);
        }
        let peer = RegisteredPeer { id: announce.peer_id, complete, has_seat, seen: now };
        self.peers.insert(addr, peer);
        let mut named = self.others_for(announce, addr, complete);
        // The seeder always, and first: the list may be cut.
        if !complete {
            named.insert(0, seeder);
        }
        named.truncate(announce.wanted);
        Ok(self.response(named))
    }

    fn count_announce(
        &mut self,
        ip: IpAddr,
        has_seat: bool,
        now: Moment,
    ) -> Result<(), DecodeError> {
        self.announces.retain(|_, (since, _)| now.since(*since) < SPAN);
        if !has_seat && self.announces.len() >= PEERS_MAX && !self.announces.contains_key(&ip) {
            return Err(DecodeError("too many peers announce themselves".to_owned()));
        }
        let (_, count) = self.announces.entry(ip).or_insert((now, 0));
        *count += 1;
        let most = if has_seat { SEAT_ANNOUNCES_MAX } else { ANNOUNCES_MAX };
        if *count > most {
            return Err(DecodeError("this address announces itself too often".to_owned()));
        }
        Ok(())
    }

    /// A random choice of peers that are of use to the one at `addr`, those with a seat first.
    fn others_for(
        &mut self,
        announce: &Announce,
        addr: SocketAddr,
        complete: bool,
    ) -> Vec<SocketAddr> {
        let useful = |&(other, peer): &(&SocketAddr, &RegisteredPeer)| {
            *other != addr && peer.id != announce.peer_id && !(complete && peer.complete)
        };
        let useful = self.peers.iter().filter(useful);
        let (mut named, mut external): (Vec<_>, Vec<_>) = useful.partition(|(_, p)| p.has_seat);
        self.random.draw(&mut named, announce.wanted);
        self.random.draw(&mut external, announce.wanted);
        named.append(&mut external);
        named.into_iter().map(|(addr, _)| *addr).collect()
    }

    /// Removes the peer that was silent longest of those without a seat, at `ip` where these are
    /// too many, else anywhere where all are.
    fn make_room(&mut self, ip: IpAddr) {
        let others = || self.peers.iter().filter(|(_, peer)| !peer.has_seat);
        let here = || others().filter(|(addr, _)| addr.ip() == ip);
        let oldest = if here().count() >= ADDRESS_MAX {
            here().min_by_key(|(_, peer)| peer.seen)
        } else if others().count() >= PEERS_MAX {
            others().min_by_key(|(_, peer)| peer.seen)
        } else {
            None
        };
        if let Some(&oldest) = oldest.map(|(addr, _)| addr) {
            self.peers.remove(&oldest);
        }
    }

    fn response(&self, peers: Vec<SocketAddr>) -> AnnounceResponse {
        let ScrapeCounts { complete, incomplete, .. } = self.counts();
        AnnounceResponse { complete, incomplete, interval: INTERVAL, peers }
    }

    /// How many peers there are, with our seeder.
    pub fn counts(&self) -> ScrapeCounts {
        let complete = self.peers.values().filter(|peer| peer.complete).count() as u64;
        ScrapeCounts {
            complete: complete + 1,
            incomplete: self.peers.len() as u64 - complete,
            downloaded: self.completed,
        }
    }
}

/// True when the peer of this id is entered at `addr`.
fn is_at(peers: &BTreeMap<SocketAddr, RegisteredPeer>, addr: SocketAddr, id: &PeerId) -> bool {
    peers.get(&addr).is_some_and(|peer| peer.id == *id)
}

#[cfg(test)]
mod tests;
