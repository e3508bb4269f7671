//! The machines of the swarm under whatever peers do in whatever order.

use gatecast::internals::{
    proto::bt::{
        bitfield::Bitfield,
        layout::PieceLayout,
        piece_picker::{PiecePicker, arrive::Arrival},
        random::Random,
        super_seeder::SuperSeeder,
        wire::Block,
    },
    units::Moment,
};
use std::collections::{BTreeMap, BTreeSet};

use crate::input::Input;

const PIECE: u32 = 65_536;
static RIGHT: [u8; PIECE as usize] = [0; PIECE as usize];
static WRONG: [u8; PIECE as usize] = [1; PIECE as usize];

/// A block is requested of a peer that has it and serves, of one peer, or two at the end; copies
/// are those that peers have; whatever happened, one honest peer completes the copy.
pub fn piece_picker(data: &[u8]) {
    let mut input = Input(data);
    let pieces = 1 + u32::from(input.u8() % 70);
    let layout = PieceLayout::new(u64::from(pieces) * u64::from(PIECE) - 20_000, PIECE);
    let mut copy = Copy {
        picker: PiecePicker::new(layout, Bitfield::new(pieces), u64::from(input.u8())),
        layout,
        now: Moment(1_000_000),
        has: BTreeMap::new(),
        owed: Vec::new(),
        complete: Vec::new(),
    };
    while !input.is_empty() {
        copy.step(&mut input);
        // To look at all copies takes longer than a step.
        if input.0.len() % 16 == 0 {
            copy.check();
        }
    }
    copy.completes();
}

struct Copy {
    picker: PiecePicker,
    layout: PieceLayout,
    now: Moment,
    has: BTreeMap<u32, BTreeSet<u32>>,
    /// Requests that were not answered, also those of peers that are gone.
    owed: Vec<(u32, Block)>,
    /// Pieces that are being verified.
    complete: Vec<u32>,
}

impl Copy {
    fn step(&mut self, input: &mut Input<'_>) {
        let peer = u32::from(input.u8() % 5);
        match input.u8() % 10 {
            0 => {
                self.picker.add_peer(peer, usize::from(input.u8()));
                self.has.insert(peer, BTreeSet::new());
                // A connection that is gone brings nothing more.
                self.owed.retain(|(from, _)| *from != peer);
            }
            1 => {
                self.picker.remove_peer(peer);
                self.has.remove(&peer);
                self.owed.retain(|(from, _)| *from != peer);
            }
            2 => self.announce(peer, input),
            3 => self.picker.set_serving(peer, input.u8() % 4 > 0),
            4 | 5 => self.request(peer),
            6 | 7 => self.receive(input),
            8 => match input.flag() {
                true => self.verify(input.flag()),
                false => self.reject(input),
            },
            _ => {
                input.wait(&mut self.now);
                let silent = self.picker.snub_silent_peers(self.now);
                assert!(silent.iter().all(|peer| self.has.contains_key(peer)));
            }
        }
    }

    fn announce(&mut self, peer: u32, input: &mut Input<'_>) {
        let pieces = self.layout.pieces();
        if input.u8() < 32 {
            self.picker.add_pieces(peer, &Bitfield::full(pieces));
            self.has.entry(peer).and_modify(|has| has.extend(0..pieces));
            return;
        }
        let piece = u32::from(input.u8() % 80);
        match self.picker.add_piece(peer, piece) {
            Err(_) => assert!(piece >= pieces),
            Ok(new) => {
                let known = self.has.get_mut(&peer).map(|has| has.insert(piece));
                assert_eq!(known.unwrap_or(false), new);
            }
        }
    }

    fn request(&mut self, peer: u32) {
        let serves = self.picker.is_serving(peer);
        for block in self.picker.next_requests(peer, self.now) {
            assert!(serves && self.layout.allows(block), "{block:?}");
            assert!(self.has[&peer].contains(&block.piece) && !self.picker.have().has(block.piece));
            assert!(self.picker.is_partial(block.piece));
            self.owed.push((peer, block));
        }
    }

    fn receive(&mut self, input: &mut Input<'_>) {
        if self.owed.is_empty() {
            return;
        }
        let at = usize::from(input.u16()) % self.owed.len();
        let (peer, block) = if input.u8() < 240 {
            self.owed.swap_remove(at)
        } else {
            // One that nobody asked for, or of somebody else.
            let (_, block) = self.owed[at];
            (
                u32::from(input.u8() % 5),
                Block { begin: block.begin ^ u32::from(input.u16()), ..block },
            )
        };
        match self.picker.receive_block(peer, block, self.now) {
            // A snubbed peer may owe a block twice; then the second request is withdrawn too.
            Arrival::Unwanted | Arrival::Kept(_) => {}
            Arrival::PieceComplete(_) => {
                assert!(!self.complete.contains(&block.piece), "it is complete once");
                self.complete.push(block.piece);
            }
        }
    }

    fn verify(&mut self, right: bool) {
        let Some(piece) = self.complete.pop() else { return };
        if right {
            let liars = self.picker.piece_verified(piece, &RIGHT);
            assert!(liars.len() <= 5 && self.picker.have().has(piece));
        } else {
            self.picker.piece_corrupt(piece, &WRONG);
            assert!(!self.picker.have().has(piece));
        }
        assert!(!self.picker.is_partial(piece));
    }

    fn reject(&mut self, input: &mut Input<'_>) {
        if self.owed.is_empty() {
            return;
        }
        let at = usize::from(input.u16()) % self.owed.len();
        let (peer, block) = self.owed.swap_remove(at);
        let had = self.picker.pieces_of(peer).is_some_and(|has| has.has(block.piece));
        self.picker.request_rejected(peer, block);
        let has = self.picker.pieces_of(peer).is_some_and(|has| has.has(block.piece));
        if had && !has {
            self.has.get_mut(&peer).expect("known").remove(&block.piece);
        }
    }

    fn check(&self) {
        for piece in 0..self.layout.pieces() {
            let copies = self.has.values().filter(|has| has.contains(&piece)).count();
            assert_eq!(usize::from(self.picker.copies(piece)), copies, "piece {piece}");
        }
        let counts = self.picker.counts;
        assert!(counts.wasted <= counts.blocks);
        assert!(self.picker.partial_count() <= self.layout.pieces() as usize);
        assert!(self.picker.is_complete() == self.picker.have().is_full());
    }

    fn completes(mut self) {
        while !self.complete.is_empty() {
            self.verify(false);
        }
        (0..5).for_each(|peer| self.picker.remove_peer(peer));
        self.has.clear();
        self.check();
        self.picker.add_peer(9, 250);
        self.picker.add_pieces(9, &Bitfield::full(self.layout.pieces()));
        self.picker.set_serving(9, true);
        for _ in 0..self.layout.pieces() * 8 {
            for block in self.picker.next_requests(9, self.now) {
                if let Arrival::PieceComplete(_) = self.picker.receive_block(9, block, self.now) {
                    self.picker.piece_verified(block.piece, &RIGHT);
                }
            }
            if self.picker.is_complete() {
                break;
            }
        }
        assert!(self.picker.is_complete(), "one honest peer is enough");
        assert_eq!(self.picker.partial_count(), 0);
        assert_eq!(self.picker.unavailable_pieces(), 0);
    }
}

/// A piece is revealed to an admitted peer that lacks it and may then be requested; a peer alone is
/// in the end shown everything.
pub fn super_seeder(data: &[u8]) {
    let mut input = Input(data);
    let pieces = 1 + u32::from(input.u8() % 90);
    let mut seeder = SuperSeeder::new(pieces, 1 << 20, &mut Random::new(u64::from(input.u8())));
    let mut now = Moment(1_000_000);
    // What each peer has, and whether it was admitted.
    let mut peers: BTreeMap<u32, (BTreeSet<u32>, bool)> = BTreeMap::new();
    while !input.is_empty() {
        let peer = u32::from(input.u8() % 6);
        match input.u8() % 8 {
            0 => {
                seeder.add_peer(peer);
                peers.insert(peer, (BTreeSet::new(), false));
            }
            1 => {
                seeder.admit(peer);
                peers.entry(peer).and_modify(|(_, admitted)| *admitted = true);
            }
            2 => {
                seeder.remove_peer(peer);
                peers.remove(&peer);
            }
            3 | 4 => {
                let piece = u32::from(input.u8()) % pieces;
                seeder.peer_has(peer, piece);
                peers.entry(peer).and_modify(|(has, _)| _ = has.insert(piece));
            }
            5 => input.wait(&mut now),
            6 => {
                seeder.try_reveal_all(now);
            }
            _ => {
                let rates = [input.u8(), input.u8()].map(f64::from);
                let sent = |peer: u32| rates[(peer % 2) as usize];
                for (peer, piece) in seeder.reveal(now, 1.0, sent, rates[0] + rates[1]) {
                    let (has, admitted) = &peers[&peer];
                    // A peer that was doubtful may have announced a piece before it was admitted.
                    assert!(
                        piece < pieces && !has.contains(&piece) && (*admitted || !has.is_empty())
                    );
                    assert!(seeder.may_request(peer, piece));
                }
            }
        }
    }
    peers.keys().for_each(|&peer| seeder.remove_peer(peer));
    seeder.add_peer(9);
    seeder.admit(9);
    // What was revealed and came to nobody is revealed again; what once arrived is with its peer.
    for (peer, piece) in seeder.reveal(now, 1.0, |_| 100.0, 100.0) {
        assert!(peer == 9 && piece < pieces);
        seeder.peer_has(9, piece);
    }
    let all = seeder.try_reveal_all(now) || seeder.reveals_all;
    assert!(all && (0..pieces).all(|piece| seeder.may_request(9, piece)));
}
