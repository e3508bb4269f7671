//! Which peer ids are trusted. Ids are no secret, so anybody can claim one: the server's seeder
//! must come from our server's address, and a seated client from the address of its control
//! connection.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use crate::{proto::bt::wire::PeerId, session::MAX_SEATS, transport::swarm::peer_id::Role};

/// The seats and the server that a member knows.
#[derive(Debug, Default)]
pub(super) struct TrustedPeers {
    /// Each seated peer, and the address from which it has its seat.
    pub(super) seats: BTreeMap<PeerId, IpAddr>,
    /// The seated peers whose session is released.
    pub(super) admitted: BTreeSet<PeerId>,
    server: Option<IpAddr>,
    /// Where the clients are that have proven a key, if there is one: nobody else is connected.
    proven: Option<BTreeSet<IpAddr>>,
}

/// Most seats of sessions that overlap that are remembered.
const SEATS_MAX: usize = 4 * MAX_SEATS as usize;

impl TrustedPeers {
    /// The peer of this id has a seat, from `ip`. When there are too many seats, those of peers
    /// that are not connected are forgotten.
    pub(super) fn add_seat(&mut self, id: PeerId, ip: IpAddr, connected: impl Fn(&PeerId) -> bool) {
        if self.seats.len() >= SEATS_MAX {
            self.seats.retain(|id, _| connected(id));
        }
        self.seats.insert(id, ip.to_canonical());
    }

    /// True when the peer of this id has a seat, from `ip`.
    pub(super) fn has_seat(&self, id: &PeerId, ip: IpAddr) -> bool {
        self.seats.get(id) == Some(&ip.to_canonical())
    }

    /// The addresses from which peers have seats.
    pub(super) fn addresses(&self) -> BTreeSet<IpAddr> {
        self.seats.values().copied().collect()
    }

    /// True when some peer has a seat from `ip`.
    pub(super) fn has_seat_at(&self, ip: IpAddr) -> bool {
        let ip = ip.to_canonical();
        self.seats.values().any(|&at| at == ip)
    }

    /// Only our server and the peers at `addresses` are connected from now on.
    pub(super) fn limit_to(&mut self, addresses: BTreeSet<IpAddr>) {
        self.proven = Some(addresses);
    }

    /// Whether a peer at `ip` may be connected.
    pub(super) fn admits(&self, ip: IpAddr) -> bool {
        let ip = ip.to_canonical();
        self.proven.as_ref().is_none_or(|at| at.contains(&ip) || self.server == Some(ip))
    }

    /// A new session: the seats of the last one are forgotten.
    pub(super) fn clear_seats(&mut self) {
        self.admitted.clear();
        self.seats.clear();
    }

    /// Our server is at `ip`.
    pub(super) fn set_server(&mut self, ip: IpAddr) {
        self.server = Some(ip.to_canonical());
    }

    /// Whether a member of role `ours` believes that the peer at `ip` has this id.
    pub(super) fn is_trusted(&self, ours: Role, id: &PeerId, ip: IpAddr) -> bool {
        match (ours, Role::of(id)) {
            (Role::Seeder, Some(Role::Seated)) => self.has_seat(id, ip),
            (Role::Seeder, theirs) => theirs != Some(Role::Seeder),
            (Role::Seated, Some(Role::Seeder)) => self.server == Some(ip.to_canonical()),
            _ => true,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        session::{SeatId, SessionId},
        transport::swarm::peer_id::seated_id,
    };

    #[test]
    fn only_addresses_with_a_proven_seat_are_admitted() {
        let at = |text: &str| -> IpAddr { text.parse().expect("valid") };
        let mut trusted = TrustedPeers::default();
        assert!(trusted.admits(at("10.0.0.9")), "without a key, everybody");
        trusted.set_server(at("10.0.0.1"));
        for (seat, ip) in [(1, "10.0.0.2"), (2, "::ffff:10.0.0.3"), (3, "10.0.0.2")] {
            trusted.add_seat(seated_id(SessionId(1), SeatId(seat)), at(ip), |_| false);
        }
        assert_eq!(trusted.addresses(), [at("10.0.0.2"), at("10.0.0.3")].into());
        assert!(trusted.has_seat_at(at("10.0.0.3")) && trusted.has_seat_at(at("::ffff:10.0.0.2")));
        assert!(!trusted.has_seat_at(at("10.0.0.1")));
        trusted.limit_to(trusted.addresses());
        for (ip, admitted) in [
            ("10.0.0.1", true),
            ("10.0.0.2", true),
            ("::ffff:10.0.0.3", true),
            ("10.0.0.4", false),
            ("127.0.0.1", false),
        ] {
            assert_eq!(trusted.admits(at(ip)), admitted, "{ip}");
        }
    }
}
