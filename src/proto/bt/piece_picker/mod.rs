//! The pieces of one copy, and which block is requested of whom next: a state machine without I/O,
//! fed with what peers send and with the time.
//!
//! A block is requested of one peer only, except at the very end. The next block for a peer comes
//! from the piece that it is sending; else from a piece that another peer left unfinished; else
//! from the rarest piece that it has, chosen at random among equals; else from a piece that
//! another peer is sending. So nearly every piece has one sender, which is to blame when the piece
//! is wrong. When a wrong piece had several senders, the digests of its blocks are kept, and the
//! right piece shows whose were wrong.
//!
//! The bytes are elsewhere; here are only numbers.
//!
//! [`pick`] chooses blocks, [`arrive`] notes what came, [`pipeline`] is how many requests a peer
//! gets at a time.

use std::collections::{BTreeMap, VecDeque};

use crate::{
    digest::Digest,
    proto::{
        bt::{
            bitfield::Bitfield, layout::PieceLayout, piece_picker::pipeline::Pipeline,
            random::Random, wire::Block,
        },
        line::DecodeError,
    },
    units::Moment,
};

pub mod arrive;
pub mod pick;
pub mod pipeline;

/// The pieces, the peers and what was requested of them.
#[derive(Debug)]
pub struct PiecePicker {
    layout: PieceLayout,
    have: Bitfield,
    /// Pieces that are being collected or verified, and must not be started again.
    started: Bitfield,
    /// How many peers have each piece.
    copies: Vec<u16>,
    partial: BTreeMap<u32, PartialPiece>,
    /// Missing blocks of all partial pieces together.
    missing: u32,
    peers: BTreeMap<u32, PickerPeer>,
    /// Begin, sender and digest of the blocks of wrong pieces with several senders.
    suspects: BTreeMap<u32, Vec<(u32, u32, Digest)>>,
    random: Random,
    /// What happened that should not happen often.
    pub counts: PickerCounts,
    /// Before this moment no block is overdue.
    overdue_from: Moment,
}

/// What happened that should not happen often.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PickerCounts {
    /// Blocks that came.
    pub blocks: u64,
    /// Blocks that came twice or were not requested.
    pub wasted: u64,
    /// Blocks requested of a second peer at the end.
    pub endgame: u64,
    /// Pieces with a wrong digest.
    pub wrong: u64,
}

/// A piece that is being collected.
#[derive(Debug)]
struct PartialPiece {
    blocks: Vec<BlockState>,
    /// Blocks that are [`BlockState::Missing`].
    missing: u32,
    /// Blocks that have not come.
    to_come: u32,
    /// The peer that sends it. Others help only when it is gone or they have nothing else.
    lead: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum BlockState {
    /// Not requested.
    Missing,
    /// Requested of so many peers.
    Requested(u8),
    /// Sent by this peer.
    Received(u32),
}

#[derive(Debug, Default)]
struct PickerPeer {
    has: Bitfield,
    /// The oldest first.
    pending: VecDeque<PendingRequest>,
    /// It answers requests.
    serves: bool,
    /// The piece that it is sending.
    current: Option<u32>,
    /// Requests that were withdrawn, and whose blocks may still come.
    withdrawn: usize,
    /// Blocks that came and were never requested.
    unrequested: usize,
    pipeline: Pipeline,
}

/// A block that was requested of a peer.
#[derive(Clone, Copy, Debug)]
struct PendingRequest {
    block: Block,
    since: Moment,
    /// Others may be asked for the block. If it comes after all it is kept.
    late: bool,
}

impl PiecePicker {
    /// The picker of a copy that has the pieces of `have`.
    pub fn new(layout: PieceLayout, have: Bitfield, seed: u64) -> Self {
        let pieces = layout.pieces();
        Self {
            layout,
            started: Bitfield::new(pieces),
            copies: vec![0; pieces as usize],
            have,
            partial: BTreeMap::new(),
            missing: 0,
            peers: BTreeMap::new(),
            suspects: BTreeMap::new(),
            random: Random::new(seed),
            counts: PickerCounts::default(),
            overdue_from: Moment(0),
        }
    }

    /// The verified pieces.
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

    /// How many pieces we lack that no peer has.
    pub fn unavailable_pieces(&self) -> u32 {
        let unavailable = |piece: &u32| !self.have.has(*piece) && self.copies(*piece) == 0;
        let count = (0..self.layout.pieces()).filter(unavailable).count();
        u32::try_from(count).expect("at most all pieces")
    }

    /// True when `peer` has a piece that we lack.
    pub fn is_interesting(&self, peer: u32) -> bool {
        self.peers.get(&peer).is_some_and(|peer| {
            let mut words = peer.has.words().iter().zip(self.have.words());
            words.any(|(theirs, ours)| theirs & !ours != 0)
        })
    }

    /// Adds a peer, which has nothing yet and lets `request_limit` requests wait.
    pub fn add_peer(&mut self, peer: u32, request_limit: usize) {
        self.remove_peer(peer);
        let new = PickerPeer {
            has: Bitfield::new(self.layout.pieces()),
            pipeline: Pipeline::new(request_limit),
            ..PickerPeer::default()
        };
        self.peers.insert(peer, new);
    }

    /// How many requests a peer lets wait.
    pub fn set_request_limit(&mut self, peer: u32, requests: usize) {
        if let Some(peer) = self.peers.get_mut(&peer) {
            peer.pipeline.limit = requests.max(1);
        }
    }

    /// Removes a peer; what was requested of it can be requested of others.
    pub fn remove_peer(&mut self, peer: u32) {
        self.release_requests(peer);
        if let Some(gone) = self.peers.remove(&peer) {
            for piece in gone.has.iter() {
                self.copies[piece as usize] -= 1;
            }
        }
    }

    /// A peer has `piece`; false when that was known.
    ///
    /// # Errors
    /// There is no such piece.
    pub fn add_piece(&mut self, peer: u32, piece: u32) -> Result<bool, DecodeError> {
        if piece >= self.layout.pieces() {
            return Err(DecodeError(format!("there is no piece {piece}")));
        }
        let peer = self.peers.get_mut(&peer);
        let is_new = peer.is_some_and(|peer| peer.has.set(piece));
        if is_new {
            let copies = &mut self.copies[piece as usize];
            *copies = copies.saturating_add(1);
        }
        Ok(is_new)
    }

    /// A peer has every piece of `pieces`, and may have others; returns those that are new.
    pub fn add_pieces(&mut self, peer: u32, pieces: &Bitfield) -> Vec<u32> {
        let Some(peer) = self.peers.get_mut(&peer) else {
            return Vec::new();
        };
        let new: Vec<u32> = pieces.iter().filter(|&piece| peer.has.set(piece)).collect();
        for &piece in &new {
            let copies = &mut self.copies[piece as usize];
            *copies = copies.saturating_add(1);
        }
        new
    }

    /// A peer answers requests from now on, or does not; then nothing that was requested comes.
    pub fn set_serving(&mut self, peer: u32, serves: bool) {
        if !serves {
            self.release_requests(peer);
        }
        if let Some(peer) = self.peers.get_mut(&peer) {
            peer.serves = serves;
        }
    }

    /// True when `peer` answers requests.
    pub fn is_serving(&self, peer: u32) -> bool {
        self.peers.get(&peer).is_some_and(|peer| peer.serves)
    }

    /// True when `peer` has sent blocks of a piece that is not verified yet, or that was wrong and
    /// had other senders too.
    pub fn is_suspect(&self, peer: u32) -> bool {
        let mut wrong = self.suspects.values().flatten();
        let mut unverified = self.partial.values().flat_map(|piece| &piece.blocks);
        unverified.any(|block| *block == BlockState::Received(peer))
            || wrong.any(|(_, sender, _)| *sender == peer)
    }

    /// True while blocks of `piece` are being collected.
    pub fn is_partial(&self, piece: u32) -> bool {
        self.partial.contains_key(&piece)
    }

    /// How many pieces are being collected.
    pub fn partial_count(&self) -> usize {
        self.partial.len()
    }

    /// How many blocks came from `peer` that were never requested.
    pub fn unrequested_blocks(&self, peer: u32) -> usize {
        self.peers.get(&peer).map_or(0, |peer| peer.unrequested)
    }
}

#[cfg(test)]
mod tests;
