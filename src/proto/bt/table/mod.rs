//! The pieces of one copy, and which block is asked of whom next: a state machine, fed with what
//! peers say and with the time.
//!
//! A block is asked of one peer only, except at the very end. The next block for a peer comes
//! from the piece that it is at; else from a piece that somebody left unfinished; else from the
//! rarest piece that it has, chosen at random among equals; else it helps with another's piece. So
//! nearly every piece has one sender, and a wrong one tells who lied. Where a wrong piece had
//! several senders, its blocks' digests are kept, and the right piece shows whose were wrong.
//!
//! Whoever holds the bytes holds the lock; here are only numbers.
//!
//! [`pick`] chooses blocks, [`arrive`] takes them in.

use std::collections::BTreeMap;
use std::collections::VecDeque;
use std::time::Duration;

use crate::digest::Digest;
use crate::proto::bt::bits::Bitfield;
use crate::proto::bt::layout::PieceLayout;
use crate::proto::bt::random::Random;
use crate::proto::bt::wire::Block;
use crate::units::Moment;

pub mod arrive;
pub mod pick;

/// The pieces, the peers and what was asked of them.
#[derive(Debug)]
pub struct PiecePicker {
    layout: PieceLayout,
    have: Bitfield,
    /// Begun, or being verified: not to be begun again.
    begun: Bitfield,
    /// How many peers have each piece.
    copies: Vec<u16>,
    open: BTreeMap<u32, PartialPiece>,
    /// Free blocks of all open pieces together.
    free: u32,
    peers: BTreeMap<u32, PickerPeer>,
    /// Digests of the blocks of wrong pieces with several senders.
    suspects: BTreeMap<u32, Vec<(u32, u32, Digest)>>,
    random: Random,
    counts: PickerCounts,
    /// Before this no block is overdue.
    overdue_from: Moment,
}

/// What happened that should not happen often.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PickerCounts {
    /// Blocks that came.
    pub blocks: u64,
    /// Blocks that came twice or were not asked for.
    pub wasted: u64,
    /// Blocks asked of a second peer at the end.
    pub endgame: u64,
    /// Pieces whose digest was wrong.
    pub wrong: u64,
}

/// A piece that is being collected.
#[derive(Debug)]
struct PartialPiece {
    slots: Vec<BlockState>,
    /// Blocks that nobody was asked for.
    free: u32,
    /// Blocks that have not come.
    missing: u32,
    /// The peer that began it; others help only when it is gone or they have nothing else.
    lead: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum BlockState {
    Missing,
    Requested(u8),
    Received(u32),
}

#[derive(Debug)]
struct PickerPeer {
    has: Bitfield,
    /// Blocks asked and not come, the oldest first.
    asked: VecDeque<PendingRequest>,
    /// It answers requests.
    serves: bool,
    /// The most requests that it lets wait.
    allowed: usize,
    /// The piece that it is at.
    at: Option<u32>,
    /// Blocks that were asked and taken back, and may be on their way.
    withdrawn: usize,
    /// Blocks that came and were never asked for.
    strays: usize,
    /// It did not answer in time; one request at a time until it does.
    snubbed: bool,
    pace: Pipeline,
}

/// A block that a peer was asked for.
#[derive(Clone, Copy, Debug)]
struct PendingRequest {
    block: Block,
    since: Moment,
    /// Given up: another may be asked, and if it comes after all it is welcome.
    late: bool,
}

/// How fast blocks come.
#[derive(Debug, Default)]
struct Pipeline {
    /// Bytes per second, of the last stretch.
    rate: f64,
    bytes: u64,
    since: Option<Moment>,
    /// The shortest time from a request to its block: a round trip, and little more.
    answer: Option<Duration>,
}

impl PiecePicker {
    /// The table of a copy that has the pieces of `have`.
    pub fn new(layout: PieceLayout, have: Bitfield, seed: u64) -> Self {
        let pieces = layout.pieces();
        Self {
            layout,
            begun: Bitfield::new(pieces),
            copies: vec![0; pieces as usize],
            have,
            open: BTreeMap::new(),
            free: 0,
            peers: BTreeMap::new(),
            suspects: BTreeMap::new(),
            random: Random::new(seed),
            counts: PickerCounts::default(),
            overdue_from: Moment(0),
        }
    }

    /// How the file is cut.
    pub fn layout(&self) -> PieceLayout {
        self.layout
    }

    /// The pieces that are verified.
    pub fn have(&self) -> &Bitfield {
        &self.have
    }

    /// True when every piece is verified.
    pub fn is_complete(&self) -> bool {
        self.have.is_full()
    }

    /// What a peer has.
    pub fn pieces_of(&self, peer: u32) -> Option<&Bitfield> {
        self.peers.get(&peer).map(|peer| &peer.has)
    }

    /// How many peers have `piece`.
    pub fn copies(&self, piece: u32) -> u16 {
        self.copies[piece as usize]
    }

    /// What happened that should not happen often.
    pub fn counts(&self) -> PickerCounts {
        self.counts
    }

    /// The pieces that we lack and no peer has.
    pub fn unavailable_pieces(&self) -> u32 {
        let missing = |piece: &u32| !self.have.has(*piece) && self.copies[*piece as usize] == 0;
        u32::try_from((0..self.layout.pieces()).filter(missing).count()).expect("fits")
    }

    /// True when `peer` has a piece that we lack.
    pub fn is_interesting(&self, peer: u32) -> bool {
        self.peers.get(&peer).is_some_and(|peer| {
            let words = peer.has.words().iter().zip(self.have.words());
            words.clone().any(|(theirs, ours)| theirs & !ours != 0)
        })
    }

    /// A new peer, which has nothing yet and lets `allowed` requests wait.
    pub fn add_peer(&mut self, peer: u32, allowed: usize) {
        self.remove_peer(peer);
        let new = PickerPeer {
            has: Bitfield::new(self.layout.pieces()),
            asked: VecDeque::new(),
            serves: false,
            allowed: allowed.max(1),
            at: None,
            withdrawn: 0,
            strays: 0,
            snubbed: false,
            pace: Pipeline::default(),
        };
        self.peers.insert(peer, new);
    }

    /// How many requests a peer lets wait.
    pub fn set_request_limit(&mut self, peer: u32, requests: usize) {
        if let Some(peer) = self.peers.get_mut(&peer) {
            peer.allowed = requests.max(1);
        }
    }

    /// A peer is gone; what was asked of it is free again.
    pub fn remove_peer(&mut self, peer: u32) {
        self.release_requests(peer);
        if let Some(gone) = self.peers.remove(&peer) {
            gone.has
                .iter()
                .for_each(|piece| self.copies[piece as usize] -= 1);
        }
    }

    /// A peer has `piece`; false when that was known.
    ///
    /// # Errors
    /// There is no such piece.
    pub fn add_piece(&mut self, peer: u32, piece: u32) -> Result<bool, String> {
        if piece >= self.layout.pieces() {
            return Err(format!("piece {piece} of {}", self.layout.pieces()));
        }
        let new = self
            .peers
            .get_mut(&peer)
            .is_some_and(|peer| peer.has.set(piece));
        if new {
            self.copies[piece as usize] = self.copies[piece as usize].saturating_add(1);
        }
        Ok(new)
    }

    /// A peer has every piece of `bits`, and may have others.
    pub fn add_pieces(&mut self, peer: u32, bits: &Bitfield) {
        let Some(peer) = self.peers.get_mut(&peer) else {
            return;
        };
        for piece in bits.iter() {
            if peer.has.set(piece) {
                self.copies[piece as usize] = self.copies[piece as usize].saturating_add(1);
            }
        }
    }

    /// A peer answers requests from now on, or does not; then nothing that was asked will come.
    pub fn set_serving(&mut self, peer: u32, serves: bool) {
        if !serves {
            self.release_requests(peer);
        }
        if let Some(peer) = self.peers.get_mut(&peer) {
            peer.serves = serves;
        }
    }

    /// True when `peer` has sent blocks of a wrong piece, among others, or of one that is not
    /// verified yet.
    pub fn is_suspect(&self, peer: u32) -> bool {
        let mut blocks = self.suspects.values().flatten();
        let mut slots = self.open.values().flat_map(|open| &open.slots);
        slots.any(|slot| *slot == BlockState::Received(peer))
            || blocks.any(|(_, sender, _)| *sender == peer)
    }

    /// True while blocks of `piece` are being collected.
    pub fn is_partial(&self, piece: u32) -> bool {
        self.open.contains_key(&piece)
    }

    /// How many pieces are being collected.
    pub fn partial_count(&self) -> usize {
        self.open.len()
    }

    /// True when `peer` answers requests.
    pub fn is_serving(&self, peer: u32) -> bool {
        self.peers.get(&peer).is_some_and(|peer| peer.serves)
    }

    /// The rate at which a peer sends, bytes per second.
    pub fn rate(&self, peer: u32) -> f64 {
        self.peers.get(&peer).map_or(0.0, |peer| peer.pace.rate)
    }

    /// How many blocks came from `peer` that were never asked for.
    pub fn unrequested_blocks(&self, peer: u32) -> usize {
        self.peers.get(&peer).map_or(0, |peer| peer.strays)
    }

    /// How many blocks are asked of `peer` and have not come.
    pub fn pending_requests(&self, peer: u32) -> usize {
        self.peers.get(&peer).map_or(0, |peer| peer.asked.len())
    }
}

#[cfg(test)]
mod tests;
