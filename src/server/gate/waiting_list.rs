//! Who waits for a seat of a full muster, and in which order.

use std::{collections::HashMap, net::SocketAddr};

use crate::server::places::Origin;

/// So many addresses are counted; an honest one has lost no seat.
const ADDRESSES_MAX: usize = 4096;

/// Who waits for a seat of a full muster, and who has lost seats.
#[derive(Debug, Default)]
pub(super) struct WaitingList {
    waiting: Vec<SocketAddr>,
    /// Who of them gets the next seat, once that is known.
    first: Option<SocketAddr>,
    /// How many seats each address has given up or lost before the release.
    lost: HashMap<Origin, u64>,
}

impl WaitingList {
    /// How many wait.
    pub(super) fn len(&self) -> usize {
        self.waiting.len()
    }

    /// True while nobody waits.
    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Puts `peer` among those who wait, unless its address has as many there as there are seats.
    pub(super) fn wait(&mut self, peer: SocketAddr, clients: u16) -> bool {
        let origin = Origin::of(peer);
        let ours = self.waiting.iter().filter(|&&other| Origin::of(other) == origin).count();
        let may = ours < usize::from(clients);
        self.waiting.extend(may.then_some(peer));
        may
    }

    /// The client at `peer` waits no more.
    pub(super) fn go(&mut self, peer: SocketAddr) {
        self.waiting.retain(|&other| other != peer);
        self.first = None;
    }

    /// Who gets the next seat: of the address that has lost the fewest, the first that came.
    pub(super) fn first(&mut self) -> Option<SocketAddr> {
        let next = || self.waiting.iter().min_by_key(|peer| self.lost(**peer)).copied();
        self.first = self.first.or_else(next);
        self.first
    }

    /// The client at `peer` has no seat any more, and there was no release.
    pub(super) fn note_lost(&mut self, peer: SocketAddr) {
        let origin = Origin::of(peer);
        if self.lost.len() < ADDRESSES_MAX || self.lost.contains_key(&origin) {
            *self.lost.entry(origin).or_default() += 1;
        }
    }

    /// How many seats the address of `peer` has lost.
    pub(super) fn lost(&self, peer: SocketAddr) -> u64 {
        self.lost.get(&Origin::of(peer)).copied().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(host: u8, port: u16) -> SocketAddr {
        ([10, 0, 0, host], port).into()
    }

    #[test]
    fn seat_goes_to_address_that_lost_the_fewest() {
        let mut list = WaitingList::default();
        // One host comes and leaves again and again.
        (1..=1000).for_each(|port| list.note_lost(peer(1, port)));
        list.note_lost(peer(3, 1));
        let queue = [peer(1, 2001), peer(3, 2), peer(2, 100), peer(4, 1)];
        assert!(queue.into_iter().all(|peer| list.wait(peer, 25)));
        for next in [peer(2, 100), peer(4, 1), peer(3, 2), peer(1, 2001)] {
            assert_eq!(list.first(), Some(next));
            list.go(next);
        }
        assert_eq!(list.first(), None);
    }

    #[test]
    fn address_waits_for_as_many_seats_as_there_are() {
        let mut list = WaitingList::default();
        assert!((1..=25).all(|port| list.wait(peer(1, port), 25)));
        assert!(!list.wait(peer(1, 26), 25));
        assert!(list.wait(peer(2, 1), 25), "another one waits all the same");
    }

    #[test]
    fn addresses_of_a_muster_are_counted_up_to_a_limit() {
        let mut list = WaitingList::default();
        for number in 0..10_000_u32 {
            let ip = std::net::Ipv4Addr::from(0x0a00_0000 + number);
            list.note_lost((ip, 1).into());
        }
        assert_eq!(list.lost.len(), ADDRESSES_MAX);
    }
}
