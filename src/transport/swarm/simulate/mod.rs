//! A whole swarm in virtual time, with the piece picker and the super-seeding of the real one: what
//! it would do on more machines than there are.
//!
//! Every peer has an uplink and a downlink. An uplink sends one piece at a time, in turn to each
//! neighbour that requested some; a downlink receives pieces one after the other. There is no
//! latency, no loss and no protocol, and pieces are not divided: a measurement adds all that.

use std::{
    cmp::Reverse,
    collections::{BinaryHeap, VecDeque},
    time::Duration,
};

use crate::{
    proto::bt::{
        bitfield::Bitfield,
        layout::PieceLayout,
        metainfo,
        piece_picker::{PiecePicker, arrive::Arrival},
        random::Random,
        super_seeder::SuperSeeder,
        wire::Block,
    },
    transport::swarm::simulate::topology::SwarmTopology,
    units::Moment,
};

pub mod topology;

/// What is simulated.
#[derive(Clone, Debug)]
pub struct SimulationConfig {
    /// The file's length, at least 1.
    pub bytes: u64,
    /// The server's uplink, bytes per second.
    pub server_up: f64,
    /// Each client's uplink and downlink, bytes per second.
    pub clients: Vec<(f64, f64)>,
    /// How many others each client is connected to; all where there are fewer.
    pub links: usize,
    /// Equal seeds give equal runs.
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

/// One peer; peer 0 is the server.
struct SimulatedPeer {
    picker: PiecePicker,
    up: f64,
    down: f64,
    /// Pieces that each neighbour requested, and the neighbours whose turn it is.
    queues: Vec<VecDeque<u32>>,
    turns: VecDeque<usize>,
    is_sending: bool,
    /// When the downlink has received what was sent to it, microseconds.
    down_free: f64,
    sent: u64,
}

/// A step of a transfer between a peer and one of its neighbours.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct TransferEvent {
    /// The peer's downlink has received the piece from the neighbour, or its uplink sent it there.
    is_received: bool,
    peer: usize,
    link: u32,
    piece: u32,
}

struct Simulation {
    layout: PieceLayout,
    topology: SwarmTopology,
    peers: Vec<SimulatedPeer>,
    super_seeder: SuperSeeder,
    /// The next events, by time and then in the order in which they were made.
    events: BinaryHeap<Reverse<(u64, u64, TransferEvent)>>,
    events_made: u64,
    /// Microseconds.
    now: f64,
    /// Clients that are not complete.
    incomplete: usize,
    /// Pieces that the server sent to each neighbour, and to all.
    sent_to: Vec<f64>,
    sent_to_all: f64,
}

/// The least time in which everybody can have the file (Kumar and Ross).
// Sizes are far below 2^53.
pub fn bound(config: &SimulationConfig) -> Duration {
    let bytes = config.bytes as f64;
    let downlinks = config.clients.iter().map(|(_, down)| *down);
    let slowest = downlinks.fold(f64::INFINITY, f64::min);
    let uplinks: f64 = config.clients.iter().map(|(up, _)| up).sum();
    let all = config.clients.len() as f64 * bytes / (config.server_up + uplinks);
    Duration::from_secs_f64((bytes / config.server_up).max(bytes / slowest).max(all))
}

/// Runs a simulation; `None` when it has no clients or no bytes, or when it did not end.
pub fn run(config: &SimulationConfig) -> Option<SimulationResult> {
    if config.clients.is_empty() || config.bytes == 0 {
        return None;
    }
    let mut simulation = Simulation::new(config);
    simulation.reveal();
    while simulation.incomplete > 0 {
        let Reverse((at, _, event)) = simulation.events.pop()?;
        simulation.now = at as f64;
        let TransferEvent { is_received, peer, link, piece } = event;
        let handle = if is_received { Simulation::on_received } else { Simulation::on_sent };
        handle(&mut simulation, peer, link, piece);
    }
    let clients = &simulation.peers[1..];
    Some(SimulationResult {
        makespan: Duration::from_secs_f64(simulation.now / 1e6),
        bound: bound(config),
        pieces: simulation.layout.pieces(),
        server_bytes: simulation.peers[0].sent,
        client_bytes: clients.iter().map(|peer| peer.sent).max().unwrap_or(0),
    })
}

impl Simulation {
    fn new(config: &SimulationConfig) -> Self {
        let piece = metainfo::piece_bytes(config.bytes);
        let layout = PieceLayout { bytes: config.bytes, piece, block: piece };
        let pieces = layout.pieces();
        let mut random = Random::new(config.seed);
        let new = |have, up, down, seed| SimulatedPeer {
            picker: PiecePicker::new(layout, have, seed),
            up,
            down,
            queues: Vec::new(),
            turns: VecDeque::new(),
            is_sending: false,
            down_free: 0.0,
            sent: 0,
        };
        let mut peers = vec![new(Bitfield::full(pieces), config.server_up, f64::INFINITY, 1)];
        for &(up, down) in &config.clients {
            peers.push(new(Bitfield::new(pieces), up, down, random.next_u64()));
        }
        let mut super_seeder = SuperSeeder::new(pieces, piece, &mut random);
        let topology = SwarmTopology::new(config.clients.len(), config.links, &mut random);
        for (number, peer) in peers.iter_mut().enumerate() {
            for (link, _) in (0..).zip(&topology.links[number]) {
                peer.queues.push(VecDeque::new());
                peer.picker.add_peer(link, 250);
                peer.picker.set_serving(link, true);
                if number == 0 {
                    super_seeder.add_peer(link);
                    super_seeder.admit(link);
                }
            }
        }
        Self {
            layout,
            topology,
            peers,
            super_seeder,
            events: BinaryHeap::new(),
            events_made: 0,
            now: 0.0,
            incomplete: config.clients.len(),
            sent_to: vec![0.0; config.clients.len()],
            sent_to_all: 0.0,
        }
    }

    /// The server reveals pieces to clients.
    fn reveal(&mut self) {
        let seconds = (self.now / 1e6).max(0.1);
        let now = self.moment();
        let sent_to = |link: u32| self.sent_to[link as usize];
        let revealed = (self.super_seeder).reveal(now, seconds, sent_to, self.sent_to_all);
        for (link, piece) in revealed {
            let (client, theirs) = self.topology.other_end(0, link);
            let _ = self.peers[client].picker.add_piece(theirs, piece);
            self.request(client, theirs);
        }
        if self.super_seeder.try_reveal_all(now) {
            let all = Bitfield::full(self.layout.pieces());
            for (client, theirs) in self.topology.links[0].clone() {
                self.peers[client].picker.add_pieces(theirs, &all);
                self.request(client, theirs);
            }
        }
    }

    /// A peer requests pieces of a neighbour.
    fn request(&mut self, peer: usize, link: u32) {
        let now = self.moment();
        let picker = &mut self.peers[peer].picker;
        if peer == 0 || !picker.needs_requests(link) {
            return;
        }
        let blocks = picker.next_requests(link, now);
        let (other, theirs) = self.topology.other_end(peer, link);
        let from = &mut self.peers[other];
        let theirs = theirs as usize;
        for block in blocks {
            let queue = &mut from.queues[theirs];
            queue.push_back(block.piece);
            if queue.len() == 1 {
                from.turns.push_back(theirs);
            }
        }
        self.send(other);
    }

    /// A peer's uplink begins to send the next piece.
    fn send(&mut self, peer: usize) {
        let from = &mut self.peers[peer];
        if from.is_sending {
            return;
        }
        let Some(link) = from.turns.pop_front() else {
            return;
        };
        let piece = from.queues[link].pop_front().expect("it has a turn");
        if !from.queues[link].is_empty() {
            from.turns.push_back(link);
        }
        from.is_sending = true;
        let len = self.layout.len(piece);
        from.sent += u64::from(len);
        let at = self.now + f64::from(len) / from.up * 1e6;
        let link = u32::try_from(link).expect("few links");
        self.schedule(at, TransferEvent { is_received: false, peer, link, piece });
    }

    fn on_sent(&mut self, peer: usize, link: u32, piece: u32) {
        self.peers[peer].is_sending = false;
        if peer == 0 {
            self.sent_to[link as usize] += 1.0;
            self.sent_to_all += 1.0;
        }
        let (other, theirs) = self.topology.other_end(peer, link);
        let to = &mut self.peers[other];
        // It arrived while it was sent; only what the downlink was busy with delays it.
        let arrived = to.down_free + f64::from(self.layout.len(piece)) / to.down * 1e6;
        let at = self.now.max(arrived);
        to.down_free = at;
        let received = TransferEvent { is_received: true, peer: other, link: theirs, piece };
        self.schedule(at, received);
        self.send(peer);
    }

    fn on_received(&mut self, peer: usize, link: u32, piece: u32) {
        let now = self.moment();
        let block = Block { piece, begin: 0, len: self.layout.len(piece) };
        let picker = &mut self.peers[peer].picker;
        if let Arrival::PieceComplete(_) = picker.receive_block(link, block, now) {
            picker.piece_verified(piece, &[]);
            self.incomplete -= usize::from(picker.is_complete());
            for (other, theirs) in self.topology.links[peer].clone() {
                if other == 0 {
                    self.super_seeder.peer_has(theirs, piece);
                    self.reveal();
                    continue;
                }
                // A peer that has the piece need not be told.
                let picker = &mut self.peers[other].picker;
                if !picker.have().has(piece) && picker.add_piece(theirs, piece) == Ok(true) {
                    self.request(other, theirs);
                }
            }
        }
        self.request(peer, link);
    }

    fn schedule(&mut self, at: f64, event: TransferEvent) {
        let at = at.ceil() as u64;
        self.events_made += 1;
        self.events.push(Reverse((at, self.events_made, event)));
    }

    fn moment(&self) -> Moment {
        Moment(self.now as u64)
    }
}

#[cfg(test)]
mod tests;
