//! A whole swarm in virtual time, with the same piece table and the same injection as the real
//! one, so that what no machine here can run is still known.
//!
//! Every node has an uplink and a downlink. An uplink sends one piece at a time, in turn to each
//! neighbour that asked; a downlink takes pieces one after the other. There is no latency, no loss
//! and no protocol, and a piece is the least that moves: what this leaves out is what a
//! measurement adds.

use std::cmp::Reverse;
use std::collections::BTreeSet;
use std::collections::BinaryHeap;
use std::collections::VecDeque;
use std::ops::Range;
use std::time::Duration;

use crate::proto::bt::bits::Bitfield;
use crate::proto::bt::inject::SuperSeeder;
use crate::proto::bt::layout::PieceLayout;
use crate::proto::bt::metainfo;
use crate::proto::bt::random::Random;
use crate::proto::bt::table::PiecePicker;
use crate::proto::bt::table::arrive::Arrival;
use crate::units::Moment;

/// What is simulated.
#[derive(Clone, Debug)]
pub struct SimulationConfig {
    /// The file's length, at least 1.
    pub bytes: u64,
    /// The server's uplink, bytes per second.
    pub server_up: f64,
    /// Each client's uplink and downlink, bytes per second.
    pub clients: Vec<(f64, f64)>,
    /// How many others each client is linked to; all where there are no more.
    pub links: usize,
    /// Equal seeds, equal runs.
    pub seed: u64,
}

/// How it went.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SimulationResult {
    /// From the release to the last client's last byte.
    pub makespan: Duration,
    /// The least time that the links allow (Kumar and Ross).
    pub bound: Duration,
    /// How many pieces the file has.
    pub pieces: u32,
    /// Bytes that the server sent.
    pub server_bytes: u64,
    /// Bytes that the busiest client sent.
    pub client_bytes: u64,
}

/// Links that the server's seeder has at most.
const SERVER_LINKS: usize = crate::transport::swarm::member::SEEDER_CONNECTIONS;

struct SimulatedPeer {
    table: PiecePicker,
    /// Neighbours, and our own place in each one's list.
    links: Vec<(usize, u32)>,
    up: f64,
    down: f64,
    /// Pieces asked of us, by neighbour, and whose turn it is.
    queues: Vec<VecDeque<u32>>,
    turns: VecDeque<usize>,
    busy: bool,
    /// When the downlink has taken what was sent to it, microseconds.
    down_free: f64,
    sent: u64,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum TransferEvent {
    /// A node's uplink has sent a piece to its neighbour.
    Sent {
        node: usize,
        link: usize,
        piece: u32,
    },
    /// A node has a piece from its neighbour.
    Came { node: usize, link: u32, piece: u32 },
}

struct Simulation {
    nodes: Vec<SimulatedPeer>,
    events: BinaryHeap<Reverse<(u64, u64, TransferEvent)>>,
    made: u64,
    now: f64,
    layout: PieceLayout,
    injector: SuperSeeder,
    /// Clients that are not whole.
    left: usize,
    /// Pieces that the server sent on each link, and on all.
    fed: Vec<u64>,
    fed_all: u64,
}

/// The least time for everybody to have `plan`'s file (Kumar and Ross).
#[allow(clippy::cast_precision_loss, reason = "sizes are far below 2^53")]
pub fn bound(plan: &SimulationConfig) -> Duration {
    let bytes = plan.bytes as f64;
    let slowest = plan
        .clients
        .iter()
        .map(|(_, down)| *down)
        .fold(f64::INFINITY, f64::min);
    let uplinks: f64 = plan.clients.iter().map(|(up, _)| up).sum();
    let all = plan.clients.len() as f64 * bytes / (plan.server_up + uplinks);
    Duration::from_secs_f64((bytes / plan.server_up).max(bytes / slowest).max(all))
}

/// Runs `plan`; `None` when it has no clients or no bytes, or when it did not come to an end.
pub fn run(plan: &SimulationConfig) -> Option<SimulationResult> {
    if plan.clients.is_empty() || plan.bytes == 0 {
        return None;
    }
    let piece = metainfo::piece_bytes(plan.bytes);
    let layout = PieceLayout {
        bytes: plan.bytes,
        piece,
        block: piece,
    };
    let mut run = Simulation::new(plan, layout);
    run.show();
    while let Some(Reverse((at, _, event))) = run.events.pop() {
        #[allow(clippy::cast_precision_loss, reason = "microseconds of hours")]
        {
            run.now = at as f64;
        }
        match event {
            TransferEvent::Sent { node, link, piece } => run.sent(node, link, piece),
            TransferEvent::Came { node, link, piece } => run.came(node, link, piece),
        }
        if run.left == 0 {
            let clients = &run.nodes[1..];
            return Some(SimulationResult {
                makespan: Duration::from_secs_f64(run.now / 1e6),
                bound: bound(plan),
                pieces: layout.pieces(),
                server_bytes: run.nodes[0].sent,
                client_bytes: clients.iter().map(|node| node.sent).max().unwrap_or(0),
            });
        }
    }
    None
}

impl Simulation {
    /// Node 0 is the server.
    fn new(plan: &SimulationConfig, layout: PieceLayout) -> Self {
        let mut random = Random::new(plan.seed);
        let (pieces, piece) = (layout.pieces(), layout.piece);
        let node = |have, up, down, seed| SimulatedPeer {
            table: PiecePicker::new(layout, have, seed),
            links: Vec::new(),
            up,
            down,
            queues: Vec::new(),
            turns: VecDeque::new(),
            busy: false,
            down_free: 0.0,
            sent: 0,
        };
        let server = node(Bitfield::full(pieces), plan.server_up, f64::INFINITY, 1);
        let mut nodes = vec![server];
        for &(up, down) in &plan.clients {
            nodes.push(node(Bitfield::new(pieces), up, down, random.next_u64()));
        }
        let injector = SuperSeeder::new(pieces, piece, &mut random);
        let mut run = Self {
            fed: vec![0; nodes.len()],
            nodes,
            events: BinaryHeap::new(),
            made: 0,
            now: 0.0,
            layout,
            injector,
            left: plan.clients.len(),
            fed_all: 0,
        };
        run.connect(plan.links, &mut random);
        run
    }

    /// Links the server to everybody, and each client to as many others as peers are: who comes
    /// calls half as many as it wants of those that it is told of, and later, when it is told of
    /// others, those that it still lacks; who has twice as many as that refuses.
    fn connect(&mut self, links: usize, random: &mut Random) {
        let clients = self.nodes.len() - 1;
        for client in 1..=clients.min(SERVER_LINKS) {
            self.link(0, client);
        }
        let served = |client: usize| usize::from(client <= SERVER_LINKS);
        let few = clients <= links + 1;
        for client in 2..=clients {
            let calls = if few { client } else { links.div_ceil(2) };
            self.call(client, 1..client, calls, 2 * links, random);
        }
        for client in 1..=clients {
            let lacking = links.saturating_sub(self.nodes[client].links.len() - served(client));
            if !few && lacking > 0 {
                self.call(client, 1..clients + 1, lacking, 2 * links, random);
            }
        }
    }

    /// A client calls some of `others`, which have less than `most` links.
    fn call(
        &mut self,
        client: usize,
        others: Range<usize>,
        calls: usize,
        most: usize,
        random: &mut Random,
    ) {
        let mut linked: BTreeSet<usize> =
            self.nodes[client].links.iter().map(|link| link.0).collect();
        linked.insert(client);
        let mut named: Vec<usize> = others.collect();
        let mut left = calls;
        while left > 0 && !named.is_empty() {
            let other = named.swap_remove(random.below(named.len()));
            if self.nodes[other].links.len() <= most && linked.insert(other) {
                self.link(other, client);
                left -= 1;
            }
        }
    }

    fn link(&mut self, one: usize, two: usize) {
        let key = |node: &SimulatedPeer| u32::try_from(node.links.len()).expect("few links");
        let (at_one, at_two) = (key(&self.nodes[one]), key(&self.nodes[two]));
        for (node, other, ours, theirs) in [(one, two, at_one, at_two), (two, one, at_two, at_one)]
        {
            let node = &mut self.nodes[node];
            node.links.push((other, theirs));
            node.queues.push(VecDeque::new());
            node.table.add_peer(ours, 250);
            node.table.set_serving(ours, true);
        }
        if one == 0 {
            self.injector.add_peer(at_one);
            self.injector.admit(at_one);
        }
    }

    /// The server shows clients their pieces.
    fn show(&mut self) {
        let seconds = (self.now / 1e6).max(0.1);
        let fed = &self.fed;
        #[allow(clippy::cast_precision_loss, reason = "a count of pieces")]
        let given = |link: u32| fed[link as usize] as f64;
        #[allow(clippy::cast_precision_loss, reason = "a count of pieces")]
        let all = self.fed_all as f64;
        let now = self.moment();
        for (link, piece) in self.injector.reveal(now, seconds, given, all) {
            let (client, theirs) = self.nodes[0].links[link as usize];
            let _ = self.nodes[client].table.add_piece(theirs, piece);
            self.ask(client, theirs);
        }
        if self.injector.try_reveal_all(self.moment()) {
            let all = Bitfield::full(self.layout.pieces());
            for (client, theirs) in self.nodes[0].links.clone() {
                self.nodes[client].table.add_pieces(theirs, &all);
                self.ask(client, theirs);
            }
        }
    }

    /// A node asks a neighbour for more.
    fn ask(&mut self, node: usize, link: u32) {
        if node == 0 || !self.nodes[node].table.needs_requests(link) {
            return;
        }
        let now = self.moment();
        let blocks = self.nodes[node].table.next_requests(link, now);
        let (other, theirs) = self.nodes[node].links[link as usize];
        let from = &mut self.nodes[other];
        for block in blocks {
            let queue = &mut from.queues[theirs as usize];
            queue.push_back(block.piece);
            if queue.len() == 1 {
                from.turns.push_back(theirs as usize);
            }
        }
        self.send(other);
    }

    /// A node's uplink takes the next piece.
    fn send(&mut self, node: usize) {
        let from = &mut self.nodes[node];
        if from.busy {
            return;
        }
        let Some(link) = from.turns.pop_front() else {
            return;
        };
        let piece = from.queues[link].pop_front().expect("it has a turn");
        if !from.queues[link].is_empty() {
            from.turns.push_back(link);
        }
        from.busy = true;
        let len = self.layout.len(piece);
        from.sent += u64::from(len);
        let at = self.now + f64::from(len) / from.up * 1e6;
        self.at(at, TransferEvent::Sent { node, link, piece });
    }

    fn sent(&mut self, node: usize, link: usize, piece: u32) {
        self.nodes[node].busy = false;
        let (other, theirs) = self.nodes[node].links[link];
        if node == 0 {
            self.fed[link] += 1;
            self.fed_all += 1;
        }
        let to = &mut self.nodes[other];
        // It flowed in while it flowed out; only what the downlink was busy with delays it.
        let flowed = to.down_free + f64::from(self.layout.len(piece)) / to.down * 1e6;
        let at = self.now.max(flowed);
        to.down_free = at;
        let link = theirs;
        self.at(
            at,
            TransferEvent::Came {
                node: other,
                link,
                piece,
            },
        );
        self.send(node);
    }

    fn came(&mut self, node: usize, link: u32, piece: u32) {
        let now = self.moment();
        let len = self.layout.len(piece);
        let to = &mut self.nodes[node];
        if let Arrival::PieceComplete(_) = to.table.receive_block(link, piece, 0, len, now) {
            to.table.piece_verified(piece, &[]);
            if to.table.is_complete() {
                self.left -= 1;
            }
            for at in 0..self.nodes[node].links.len() {
                let (other, theirs) = self.nodes[node].links[at];
                if other == 0 {
                    self.injector.peer_has(theirs, piece);
                    self.show();
                } else {
                    // Who has it needs not hear of it.
                    let table = &mut self.nodes[other].table;
                    if !table.have().has(piece) && table.add_piece(theirs, piece) == Ok(true) {
                        self.ask(other, theirs);
                    }
                }
            }
        }
        self.ask(node, link);
    }

    fn at(&mut self, at: f64, event: TransferEvent) {
        #[allow(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a time to come"
        )]
        let at = at.ceil() as u64;
        self.made += 1;
        self.events.push(Reverse((at, self.made, event)));
    }

    fn moment(&self) -> Moment {
        #[allow(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a time past"
        )]
        Moment(self.now as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINK: f64 = 12.5e6;

    fn plan(clients: usize, bytes: u64) -> SimulationConfig {
        SimulationConfig {
            bytes,
            server_up: LINK,
            clients: vec![(LINK, LINK); clients],
            links: 50,
            seed: 7,
        }
    }

    fn ratio(plan: &SimulationConfig) -> f64 {
        let outcome = run(plan).expect("it ends");
        outcome.makespan.as_secs_f64() / outcome.bound.as_secs_f64()
    }

    #[test]
    fn the_bound_is_the_tightest_of_its_three() {
        let mut plan = plan(4, 25_000_000);
        assert_eq!(bound(&plan), Duration::from_secs(2));
        plan.clients[0].1 = LINK / 4.0;
        assert_eq!(bound(&plan), Duration::from_secs(8), "a slow downlink");
        plan.clients = vec![(0.0, LINK); 4];
        assert_eq!(bound(&plan), Duration::from_secs(8), "nobody gives");
    }

    #[test]
    fn one_client_takes_as_long_as_the_link() {
        assert!(ratio(&plan(1, 25_000_000)) < 1.001);
    }

    #[test]
    fn a_hundred_megabytes_come_near_the_bound_for_few_and_for_many() {
        for (clients, most) in [(2, 1.02), (8, 1.05), (13, 1.06), (50, 1.20)] {
            let ratio = ratio(&plan(clients, 100_000_000));
            assert!((1.0..most).contains(&ratio), "{clients}: {ratio}");
        }
    }

    #[test]
    fn links_that_are_not_equal_stay_within_a_quarter_of_the_bound() {
        let mut plan = plan(12, 100_000_000);
        plan.clients
            .iter_mut()
            .step_by(2)
            .for_each(|link| link.0 /= 4.0);
        let ratio = ratio(&plan);
        assert!((1.0..1.25).contains(&ratio), "{ratio}");
    }

    #[test]
    fn the_server_sends_little_more_than_the_file_once() {
        let outcome = run(&plan(13, 100_000_000)).expect("it ends");
        assert!(
            outcome.server_bytes < 110_000_000,
            "{}",
            outcome.server_bytes
        );
    }

    #[test]
    fn equal_seeds_make_equal_runs() {
        assert_eq!(run(&plan(5, 5_000_000)), run(&plan(5, 5_000_000)));
        assert!(run(&plan(0, 5)).is_none() && run(&plan(5, 0)).is_none());
    }
}
