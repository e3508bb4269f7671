//! Which peers of a simulated swarm are connected.

use std::{collections::BTreeSet, ops::Range};

use crate::{proto::bt::random::Random, transport::swarm::limits::SEEDER_CONNECTIONS};

/// The links of each peer; peer 0 is the server.
pub(super) struct SwarmTopology {
    /// For each peer its neighbours, each with the place of this link in the neighbour's list.
    pub(super) links: Vec<Vec<(usize, u32)>>,
}

impl SwarmTopology {
    /// Links the server to everybody, and each client to `links` others where there are so many.
    /// A client dials half as many as it wants of those before it, and later, when the tracker
    /// names others, those that it still lacks; a client with twice as many refuses.
    pub(super) fn new(clients: usize, links: usize, random: &mut Random) -> Self {
        let mut topology = Self { links: vec![Vec::new(); clients + 1] };
        for client in 1..=clients.min(SEEDER_CONNECTIONS) {
            topology.link(0, client);
        }
        let is_served = |client: usize| usize::from(client <= SEEDER_CONNECTIONS);
        let is_small = clients <= links + 1;
        for client in 2..=clients {
            let dials = if is_small { client } else { links.div_ceil(2) };
            topology.dial(client, 1..client, dials, 2 * links, random);
        }
        for client in 1..=clients {
            let lacking = links.saturating_sub(topology.links[client].len() - is_served(client));
            if !is_small && lacking > 0 {
                topology.dial(client, 1..clients + 1, lacking, 2 * links, random);
            }
        }
        topology
    }

    /// A client dials some of `others`, which have at most `most` links.
    fn dial(
        &mut self,
        client: usize,
        others: Range<usize>,
        dials: usize,
        most: usize,
        random: &mut Random,
    ) {
        let mut linked: BTreeSet<usize> = self.links[client].iter().map(|link| link.0).collect();
        linked.insert(client);
        let mut named: Vec<usize> = others.collect();
        let mut left = dials;
        while left > 0 && !named.is_empty() {
            let other = named.swap_remove(random.below(named.len()));
            if self.links[other].len() <= most && linked.insert(other) {
                self.link(other, client);
                left -= 1;
            }
        }
    }

    fn link(&mut self, one: usize, two: usize) {
        let place = |links: &Vec<_>| u32::try_from(links.len()).expect("few links");
        let (in_one, in_two) = (place(&self.links[one]), place(&self.links[two]));
        self.links[one].push((two, in_two));
        self.links[two].push((one, in_one));
    }

    /// The neighbour on a link of `peer`, and the place of this link in the neighbour's list.
    pub(super) fn other_end(&self, peer: usize, link: u32) -> (usize, u32) {
        self.links[peer][link as usize]
    }
}
