//! The least makespan that the links allow: `max(N F / u_s, F / d_min)` for one server, and what
//! stands beside it for a swarm and a group.
//!
//! Fluid bounds: bytes without end of file, pieces or headers of their own. Nothing measured here;
//! the rates are the caller's.

/// Which bound a way of sending is compared with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bound {
    /// One server sends a copy to each client: `max(N F / u_s, F / d_min)`.
    Unicast,
    /// Peers give what they have to each other (Kumar and Ross, 2006):
    /// `max(F / u_s, F / d_min, N F / (u_s + sum u_i))`.
    Swarm,
    /// Each client passes the file on to the next: `max(F / u_s, F / d_min, F / u_i)`. Of clients
    /// with unequal uplinks the mean is taken, which is no more than the truth.
    Chain,
    /// One server sends one copy to all: `max(F / u_s, F / d_min)`.
    Multicast,
}

/// What the links can carry, in file bytes per second.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Capacity {
    /// The server's uplink, u_s.
    pub server_up: f64,
    /// All clients' uplinks together, the sum of u_i.
    pub peers_up: f64,
    /// The least of the clients' downlinks, d_min.
    pub least_down: f64,
}

impl Bound {
    /// The least makespan of a file of `bytes` to `clients` clients, seconds.
    // Exact to 2^53 bytes.
    pub fn seconds(self, bytes: u64, clients: u64, links: &Capacity) -> f64 {
        let (file, all) = (bytes as f64, bytes as f64 * clients as f64);
        let down = file / links.least_down;
        let up = match self {
            Self::Unicast => all / links.server_up,
            Self::Multicast => file / links.server_up,
            Self::Chain if clients > 1 => (file / links.server_up).max(all / links.peers_up),
            Self::Chain => file / links.server_up,
            Self::Swarm => (file / links.server_up).max(all / (links.server_up + links.peers_up)),
        };
        up.max(down)
    }

    /// The formula, for people.
    pub fn formula(self) -> &'static str {
        match self {
            Self::Unicast => "max(N F / u_s, F / d_min)",
            Self::Swarm => "max(F / u_s, F / d_min, N F / (u_s + sum u_i))",
            Self::Chain => "max(F / u_s, F / d_min, F / u_i)",
            Self::Multicast => "max(F / u_s, F / d_min)",
        }
    }
}

impl Capacity {
    /// All rates times `factor`: what loss or headers leave of them.
    pub fn scaled(self, factor: f64) -> Self {
        Self {
            server_up: self.server_up * factor,
            peers_up: self.peers_up * factor,
            least_down: self.least_down * factor,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MB: f64 = 1e6;

    #[test]
    fn bounds_of_a_symmetric_star() {
        let links = |clients: f64| Capacity {
            server_up: 10.0 * MB,
            peers_up: clients * 10.0 * MB,
            least_down: 10.0 * MB,
        };
        for (bound, clients, seconds) in [
            (Bound::Unicast, 1, 1.0),
            (Bound::Unicast, 13, 13.0),
            (Bound::Multicast, 13, 1.0),
            // 13 x 10 MB over 14 links of 10 MB/s would be 0.93 s; the server's link takes 1 s.
            (Bound::Swarm, 13, 1.0),
            (Bound::Swarm, 1, 1.0),
            (Bound::Chain, 13, 1.0),
            (Bound::Chain, 1, 1.0),
        ] {
            let got = bound.seconds(10_000_000, clients, &links(f64::from(clients as u32)));
            assert!((got - seconds).abs() < 1e-9, "{bound:?} {clients}: {got}");
        }
    }

    #[test]
    fn each_term_can_be_the_largest() {
        let slow_peers =
            Capacity { server_up: 10.0 * MB, peers_up: 10.0 * MB, least_down: 100.0 * MB };
        assert!((Bound::Swarm.seconds(10_000_000, 10, &slow_peers) - 5.0).abs() < 1e-9);
        assert!((Bound::Chain.seconds(10_000_000, 10, &slow_peers) - 10.0).abs() < 1e-9);
        let slow_down = Capacity { least_down: MB, ..slow_peers };
        for bound in [Bound::Unicast, Bound::Swarm, Bound::Chain, Bound::Multicast] {
            let got = bound.seconds(10_000_000, 2, &slow_down);
            assert!((got - 10.0).abs() < 1e-9, "{bound:?}: {got}");
        }
        assert!(Bound::Swarm.seconds(1, 1_000_000_000, &slow_down.scaled(0.5)).is_finite());
    }
}
