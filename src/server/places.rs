//! The rule by which connections have places and lose them, without sockets or clocks.
//!
//! Against an address counts only what has not reached READY: connections that have said nothing,
//! that have not finished a request, that read a file outside of any session, that have a seat and
//! are not ready. A client that is ready keeps its place.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet, HashMap},
    net::{IpAddr, Ipv6Addr, SocketAddr},
    time::Duration,
};

use crate::{
    server::budget::{Budget, BudgetLimit},
    units::Moment,
};

/// Whom limits are for: an IPv4 address, or the /64 in which an IPv6 host chooses its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Origin(IpAddr);

/// How far a connection has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Stage {
    /// It has not said what it is.
    Silent,
    /// It has; its client is not ready.
    Greeted,
    /// Its client is ready, or further.
    Ready,
    /// It was closed to make room, and is about to end.
    Closing,
}

/// The open connections, `H` each, and what else takes descriptors.
#[derive(Debug)]
pub(super) struct Places<H> {
    limits: PlaceLimits,
    open: BTreeMap<u64, OpenConnection<H>>,
    by_peer: HashMap<SocketAddr, u64>,
    unready: HashMap<Origin, BTreeSet<(Stage, u64)>>,
    /// The connection that was closed last to make room.
    evicted: Option<(u64, Moment)>,
    /// Descriptors that sessions hold.
    held: usize,
    joins: HashMap<Origin, Budget>,
    next: u64,
}

/// How many there may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct PlaceLimits {
    /// Connections.
    pub(super) connections: usize,
    /// Descriptors, of connections and sessions together.
    pub(super) descriptors: usize,
    /// Of them kept for sessions that are to begin.
    pub(super) spare: usize,
}

#[derive(Debug)]
struct OpenConnection<H> {
    handle: H,
    peer: SocketAddr,
    since: Moment,
    stage: Stage,
}

/// A silent connection younger than this is not closed to make room: an honest client's greeting
/// is under way when it is accepted, and its thread needs a moment to read it.
pub(super) const GREETING_GRACE: Duration = Duration::from_millis(5);

/// The same for one that has greeted: what an honest client needs from its greeting to READY.
const READY_GRACE: Duration = Duration::from_secs(2);

/// How long one that was closed to make room may take to go before another is closed.
const EVICTION_LIMIT: Duration = Duration::from_millis(20);

/// An address may hold 3 of 4 places with clients that are not ready: 9,000 of 12,000, more than
/// the 5,000 seats of one address that may all ask before the first is ready.
const SHARE: (usize, usize) = (3, 4);

/// Seats that one address may ask for without a client that becomes ready: a whole session of the
/// largest size at once, and 100 a second.
const JOINS: BudgetLimit = BudgetLimit { most: 10_000, each: Duration::from_millis(10) };

/// Above this number of addresses, those that owe nothing are forgotten.
const JOIN_ADDRESSES: usize = 1024;

impl Origin {
    /// Whom a limit counts `peer` to.
    pub(crate) fn of(peer: SocketAddr) -> Self {
        match peer.ip().to_canonical() {
            IpAddr::V4(ip) => Self(ip.into()),
            IpAddr::V6(ip) => {
                let [a, b, c, d, ..] = ip.segments();
                Self(Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0).into())
            }
        }
    }
}

impl<H> Places<H> {
    pub(super) fn new(limits: PlaceLimits) -> Self {
        Self {
            limits,
            open: BTreeMap::new(),
            by_peer: HashMap::new(),
            unready: HashMap::new(),
            evicted: None,
            held: 0,
            joins: HashMap::new(),
            next: 0,
        }
    }

    /// How many connections are open.
    pub(super) fn len(&self) -> usize {
        self.open.len()
    }

    /// How many descriptors are taken.
    pub(super) fn taken(&self) -> usize {
        self.open.len() + self.held
    }

    /// Whether one more connection may come.
    pub(super) fn has_room(&self) -> bool {
        let PlaceLimits { connections, descriptors, spare } = self.limits;
        self.open.len() < connections && self.taken() < descriptors.saturating_sub(spare).max(1)
    }

    /// The connections that are open, with how far each has come.
    pub(super) fn handles(&self) -> impl Iterator<Item = (Stage, &H)> {
        self.open.values().map(|place| (place.stage, &place.handle))
    }

    /// Adds a silent connection, and returns its number.
    pub(super) fn add(&mut self, handle: H, peer: SocketAddr, now: Moment) -> u64 {
        let id = self.next;
        self.next += 1;
        self.open.insert(id, OpenConnection { handle, peer, since: now, stage: Stage::Silent });
        self.by_peer.insert(peer, id);
        self.unready.entry(Origin::of(peer)).or_default().insert((Stage::Silent, id));
        id
    }

    /// The connection has ended.
    pub(super) fn remove(&mut self, id: u64) {
        self.count_out(id);
        if let Some(place) = self.open.remove(&id)
            && self.by_peer.get(&place.peer) == Some(&id)
        {
            self.by_peer.remove(&place.peer);
        }
    }

    /// The connection has come to `stage`.
    pub(super) fn set_stage(&mut self, id: u64, stage: Stage) {
        self.count_out(id);
        let Some(place) = self.open.get_mut(&id).filter(|place| place.stage != Stage::Closing)
        else {
            return;
        };
        place.stage = stage;
        if stage < Stage::Ready {
            self.unready.entry(Origin::of(place.peer)).or_default().insert((stage, id));
        }
    }

    /// The client at `peer` is ready: its JOIN counts no more.
    pub(super) fn set_ready(&mut self, peer: SocketAddr) {
        if let Some(&id) = self.by_peer.get(&peer) {
            self.set_stage(id, Stage::Ready);
        }
        if let Some(joins) = self.joins.get_mut(&Origin::of(peer)) {
            joins.give_back(JOINS);
        }
    }

    /// Chooses the connection to close to make room, if one has had its grace: a silent one before
    /// one that has greeted, of the address that has most of them, the oldest.
    pub(super) fn evict(&mut self, now: Moment) -> Option<&H> {
        // The last one is given a moment to go.
        let is_going =
            |(id, at): (u64, Moment)| self.open.contains_key(&id) && now.since(at) < EVICTION_LIMIT;
        if self.evicted.is_some_and(is_going) {
            return None;
        }
        let of_each = self.unready.values().filter_map(|of_one| self.oldest(of_one, now));
        let (_, _, id) = of_each.min()?;
        self.close(id, now)
    }

    /// Chooses the connection of `peer`'s address to close because the address has too many that have
    /// had their grace.
    pub(super) fn evict_of(&mut self, peer: SocketAddr, now: Moment) -> Option<&H> {
        let of_one = self.unready.get(&Origin::of(peer))?;
        let (share, of) = SHARE;
        if of_one.len() <= (self.limits.connections / of * share).max(1) {
            return None;
        }
        let (_, _, id) = self.oldest(of_one, now)?;
        self.close(id, now)
    }

    /// The connection that goes first of those of one address, if it has had its grace.
    fn oldest(
        &self,
        of_one: &BTreeSet<(Stage, u64)>,
        now: Moment,
    ) -> Option<(Stage, Reverse<usize>, u64)> {
        let greeted = of_one.range((Stage::Greeted, 0)..).next();
        let mut each = [of_one.first(), greeted].into_iter().flatten();
        let &(stage, id) = each.find(|(stage, id)| {
            let grace = if *stage == Stage::Silent { GREETING_GRACE } else { READY_GRACE };
            self.open.get(id).is_some_and(|place| now.since(place.since) >= grace)
        })?;
        Some((stage, Reverse(of_one.len()), id))
    }

    /// Takes `count` descriptors for a session; false where there are not so many.
    pub(super) fn hold(&mut self, count: usize) -> bool {
        let has = self.taken() + count <= self.limits.descriptors;
        if has {
            self.held += count;
        }
        has
    }

    /// Gives them back.
    pub(super) fn give_back(&mut self, count: usize) {
        self.held = self.held.saturating_sub(count);
    }

    /// Whether the address of `peer` may ask for one more seat.
    pub(super) fn join(&mut self, peer: SocketAddr, now: Moment) -> bool {
        if self.joins.len() >= JOIN_ADDRESSES {
            self.joins.retain(|_, joins| !joins.is_whole(now));
        }
        self.joins.entry(Origin::of(peer)).or_default().spend(JOINS, now)
    }

    fn close(&mut self, id: u64, now: Moment) -> Option<&H> {
        self.set_stage(id, Stage::Closing);
        self.evicted = Some((id, now));
        self.open.get(&id).map(|place| &place.handle)
    }

    /// Takes the connection out of those that count against its address.
    fn count_out(&mut self, id: u64) {
        let Some(place) = self.open.get(&id) else {
            return;
        };
        let origin = Origin::of(place.peer);
        if let Some(of_one) = self.unready.get_mut(&origin) {
            of_one.remove(&(place.stage, id));
            if of_one.is_empty() {
                self.unready.remove(&origin);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: PlaceLimits = PlaceLimits { connections: 100, descriptors: 120, spare: 8 };

    fn at(ms: u64) -> Moment {
        Moment(1_000_000 + ms * 1000)
    }

    fn peer(host: u8, port: u16) -> SocketAddr {
        ([10, 0, 0, host], port).into()
    }

    /// So many connections of `host` that are at `stage`; each is named by its peer.
    fn fill(places: &mut Places<SocketAddr>, host: u8, count: u16, stage: Stage) -> Vec<u64> {
        let ports = 1..=count;
        ports
            .map(|port| {
                let peer = peer(host, port + (stage as u16) * 1000);
                let id = places.add(peer, peer, at(0));
                places.set_stage(id, stage);
                id
            })
            .collect()
    }

    #[test]
    fn silent_connection_goes_before_one_that_has_greeted() {
        let mut places = Places::new(LIMITS);
        fill(&mut places, 1, 60, Stage::Greeted);
        fill(&mut places, 2, 3, Stage::Silent);
        assert_eq!(places.evict(at(4)), None, "an honest greeting is under way");
        let second = at(5000).after(EVICTION_LIMIT);
        assert_eq!(places.evict(at(5000)), Some(&peer(2, 1)));
        assert_eq!(places.evict(at(5001)), None, "one at a time");
        assert_eq!(places.evict(second), Some(&peer(2, 2)), "the first does not go");
    }

    #[test]
    fn address_with_most_unready_clients_gives_up_the_oldest() {
        let mut places = Places::new(LIMITS);
        let honest = fill(&mut places, 1, 5, Stage::Greeted);
        let attack = fill(&mut places, 2, 95, Stage::Greeted);
        assert!(!places.has_room());
        assert_eq!(places.evict(at(1999)), None, "they may still become ready");
        let mut now = at(2000);
        // The attack comes again and again: the honest keep their places meanwhile.
        for round in 0..500 {
            let victim = *places.evict(now).expect("an old one");
            assert_eq!(Origin::of(victim), Origin::of(peer(2, 1)), "round {round}");
            let id = places.by_peer[&victim];
            places.remove(id);
            assert!(places.has_room());
            now = now.after(Duration::from_millis(1));
            let new = peer(2, 10_000 + round);
            let id = places.add(new, new, now.after(Duration::from_secs(0)));
            places.set_stage(id, Stage::Greeted);
            now = now.after(READY_GRACE);
        }
        assert!(honest.iter().all(|id| places.open.contains_key(id)));
        assert!(!attack.iter().any(|id| places.open.contains_key(id)));
    }

    /// An honest client has greeted while silent connections come faster than their grace ends.
    #[test]
    fn client_about_to_be_ready_outlasts_silent_flood() {
        let mut places = Places::new(LIMITS);
        let honest = peer(1, 1);
        let id = places.add(honest, honest, at(0));
        places.set_stage(id, Stage::Greeted);
        for ms in 0..1999 {
            let new = peer(1, 100 + ms);
            let now = at(u64::from(ms));
            for victim in [places.evict_of(new, now).copied(), places.evict(now).copied()] {
                assert_ne!(victim, Some(honest), "after {ms} ms");
                victim.into_iter().for_each(|victim| places.remove(places.by_peer[&victim]));
            }
            places.add(new, new, now);
            places.add(peer(1, 10_000 + ms), peer(1, 10_000 + ms), now);
        }
        assert!(places.open.contains_key(&id));
    }

    #[test]
    fn ready_client_is_never_closed() {
        let mut places = Places::new(LIMITS);
        fill(&mut places, 1, 100, Stage::Greeted);
        for port in 1..=100 {
            places.set_ready(peer(1, 1000 + port));
        }
        assert_eq!(places.evict(at(3_600_000)), None);
        assert!(places.unready.is_empty());
        assert!(!places.has_room());
    }

    #[test]
    fn one_address_leaves_places_for_others() {
        let mut places = Places::new(LIMITS);
        for port in 1..=90 {
            let new = peer(1, port);
            let now = at(u64::from(port) * 1000);
            let id = places.add(new, new, now);
            places.set_stage(id, Stage::Greeted);
            if let Some(&victim) = places.evict_of(new, now) {
                assert_eq!(victim, peer(1, port - 75), "the oldest");
                places.remove(places.by_peer[&victim]);
            }
        }
        assert_eq!(places.len(), 75);
        assert_eq!(places.evict_of(peer(2, 1), at(100)), None);
        // Half of a hall is ready: it counts no more, and the other half comes.
        let mut places = Places::new(LIMITS);
        fill(&mut places, 1, 75, Stage::Greeted);
        (1..=75).for_each(|port| places.set_ready(peer(1, 1000 + port)));
        fill(&mut places, 1, 25, Stage::Silent);
        assert_eq!(places.evict_of(peer(1, 1), at(1)), None);
    }

    #[test]
    fn five_thousand_seats_of_one_address_have_places_and_joins() {
        let limits = PlaceLimits { connections: 12_000, descriptors: 16_000, spare: 64 };
        let mut places = Places::new(limits);
        for port in 1..=5000 {
            let new = peer(1, port);
            assert!(places.has_room());
            let id = places.add(new, new, at(0));
            places.set_stage(id, Stage::Greeted);
            assert_eq!(places.evict_of(new, at(0)), None);
            assert!(places.join(new, at(0)));
        }
        (1..=5000).for_each(|port| places.set_ready(peer(1, port)));
        // Three more such sessions at the same moment.
        for _ in 0..3 {
            assert!((1..=5000).all(|port| places.join(peer(1, port), at(0))));
            (1..=5000).for_each(|port| places.set_ready(peer(1, port)));
        }
    }

    #[test]
    fn joins_without_ready_are_bounded_by_address() {
        let mut places = Places::<()>::new(LIMITS);
        let joined = (0..30_000).filter(|_| places.join(peer(1, 1), at(0))).count();
        assert_eq!(joined, 10_000);
        assert!(places.join(peer(2, 1), at(0)), "another address asks as before");
        let later = (0..30_000).filter(|_| places.join(peer(1, 1), at(1000))).count();
        assert_eq!(later, 100, "a second later");
        // An IPv6 host has a whole /64 to come from.
        let host = |low: u16| -> SocketAddr {
            let address = format!("[2001:db8::{low:x}:1]:9");
            address.parse().expect("an address")
        };
        let joined = (0..30_000).filter(|&low| places.join(host(low), at(0))).count();
        assert_eq!(joined, 10_000);
    }

    #[test]
    fn addresses_that_owe_nothing_are_forgotten() {
        let mut places = Places::<()>::new(LIMITS);
        for number in 0..100_000_u32 {
            let ip = std::net::Ipv4Addr::from(0x0a00_0000 + number);
            assert!(places.join((ip, 1).into(), at(u64::from(number))));
        }
        assert!(places.joins.len() <= JOIN_ADDRESSES + 1);
    }

    #[test]
    fn sessions_find_the_descriptors_kept_for_them() {
        let mut places = Places::new(PlaceLimits { descriptors: 100, ..LIMITS });
        let ids = fill(&mut places, 1, 92, Stage::Ready);
        assert!(!places.has_room());
        assert!(places.hold(4) && places.hold(4));
        assert!(!places.hold(4), "that is all");
        places.give_back(4);
        assert!(places.hold(4));
        ids.into_iter().take(8).for_each(|id| places.remove(id));
        assert!(!places.has_room(), "what sessions hold, connections cannot");
        places.give_back(8);
        assert!(places.has_room());
    }
}
