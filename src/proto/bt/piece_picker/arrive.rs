//! Blocks that come, come wrong, or do not come.

use std::time::Duration;

use crate::{
    digest::Digest,
    proto::bt::{
        piece_picker::{BlockState, PendingRequest, PiecePicker},
        wire::Block,
    },
    units::Moment,
};

/// What an arriving block means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Arrival {
    /// It is not wanted, or not any more, and is dropped.
    Unwanted,
    /// It is kept; these other peers need not send it.
    Kept(Vec<u32>),
    /// The same, and its piece is now complete and can be verified.
    PieceComplete(Vec<u32>),
}

/// How long a peer may leave a request unanswered.
const SNUB_AFTER: Duration = Duration::from_secs(4);

impl PiecePicker {
    /// A block has come.
    pub fn receive_block(&mut self, peer: u32, block: Block, now: Moment) -> Arrival {
        self.counts.blocks += 1;
        let arrival = self.keep_block(peer, block, now);
        if arrival == Arrival::Unwanted {
            self.counts.wasted += 1;
        }
        arrival
    }

    fn keep_block(&mut self, peer: u32, block: Block, now: Moment) -> Arrival {
        let Some(from) = self.peers.get_mut(&peer) else {
            return Arrival::Unwanted;
        };
        let at = from.pending.iter().position(|pending| pending.block == block);
        let Some(request) = at.and_then(|at| from.pending.remove(at)) else {
            if from.withdrawn > 0 {
                from.withdrawn -= 1;
            } else {
                from.unrequested += 1;
            }
            return Arrival::Unwanted;
        };
        from.pipeline.received(block.len, now.since(request.since), now);
        let index = self.layout.index(block);
        let Some(partial) = self.partial.get_mut(&block.piece) else {
            return Arrival::Unwanted;
        };
        let mut others = Vec::new();
        match partial.blocks[index] {
            BlockState::Received(_) => return Arrival::Unwanted,
            // The request was given up, but the block came after all.
            BlockState::Missing => {
                partial.missing -= 1;
                self.missing -= 1;
            }
            BlockState::Requested(1) if !request.late => {}
            BlockState::Requested(_) => {
                for (&other, from) in &mut self.peers {
                    let before = from.pending.len();
                    from.pending.retain(|pending| pending.block != block);
                    if from.pending.len() < before {
                        from.withdrawn += 1;
                        others.push(other);
                    }
                }
            }
        }
        partial.blocks[index] = BlockState::Received(peer);
        partial.to_come -= 1;
        if partial.to_come == 0 { Arrival::PieceComplete(others) } else { Arrival::Kept(others) }
    }

    /// A piece's digest is right. Returns the peers that had sent wrong blocks of it before, found
    /// by its `bytes`.
    pub fn piece_verified(&mut self, piece: u32, bytes: &[u8]) -> Vec<u32> {
        self.partial.remove(&piece);
        self.started.clear(piece);
        self.have.set(piece);
        let mut liars = Vec::new();
        for (begin, peer, digest) in self.suspects.remove(&piece).unwrap_or_default() {
            let end = bytes.len().min((begin + self.layout.block) as usize);
            let right = bytes.get(begin as usize..end).map(Digest::of);
            if right.is_some_and(|right| right != digest) && !liars.contains(&peer) {
                liars.push(peer);
            }
        }
        liars
    }

    /// A piece's digest is wrong: it is fetched again. Returns its sender if there was only one;
    /// else the digests of its blocks are kept.
    pub fn piece_corrupt(&mut self, piece: u32, bytes: &[u8]) -> Option<u32> {
        self.counts.wrong += 1;
        self.started.clear(piece);
        let partial = self.partial.remove(&piece)?;
        let senders = partial.blocks.iter().filter_map(|block| match block {
            BlockState::Received(peer) => Some(*peer),
            _ => None,
        });
        let first = senders.clone().next()?;
        if senders.clone().all(|peer| peer == first) {
            return Some(first);
        }
        let begins = (0..).step_by(self.layout.block as usize);
        let blocks = bytes.chunks(self.layout.block as usize);
        let suspects = self.suspects.entry(piece).or_default();
        for ((begin, peer), block) in begins.zip(senders).zip(blocks) {
            suspects.push((begin, peer, Digest::of(block)));
        }
        None
    }

    /// A peer will not send a block; false when it was not asked for it.
    pub fn request_rejected(&mut self, peer: u32, block: Block) -> bool {
        let Some(from) = self.peers.get_mut(&peer) else {
            return false;
        };
        let at = from.pending.iter().position(|pending| pending.block == block);
        let Some(request) = at.and_then(|at| from.pending.remove(at)) else {
            return false;
        };
        // It announced the piece and does not send it: it is not asked for that piece again.
        if from.has.clear(block.piece) {
            self.copies[block.piece as usize] -= 1;
        }
        self.release_request(request);
        self.discard_if_empty(block.piece);
        true
    }

    /// Releases the requests that peers have left unanswered for too long; returns those peers.
    pub fn snub_silent_peers(&mut self, now: Moment) -> Vec<u32> {
        let (mut silent, mut released) = (Vec::new(), Vec::new());
        for (&key, peer) in &mut self.peers {
            let oldest = peer.pending.iter().find(|request| !request.late);
            if oldest.is_none_or(|oldest| now.since(oldest.since) <= SNUB_AFTER) {
                continue;
            }
            silent.push(key);
            peer.pipeline.snubbed = true;
            peer.current = None;
            // The requests stay: a block that comes late is kept while it is wanted.
            for request in peer.pending.iter_mut().filter(|request| !request.late) {
                released.push(*request);
                request.late = true;
            }
        }
        for request in released {
            self.release_request(request);
        }
        silent
    }

    /// Releases every request of a peer.
    pub(super) fn release_requests(&mut self, peer: u32) {
        let Some(from) = self.peers.get_mut(&peer) else {
            return;
        };
        from.current = None;
        let pending = std::mem::take(&mut from.pending);
        from.withdrawn += pending.len();
        for request in pending {
            self.release_request(request);
            self.discard_if_empty(request.block.piece);
        }
    }

    /// A block is requested of one peer fewer.
    fn release_request(&mut self, request: PendingRequest) {
        let Some(partial) = self.partial.get_mut(&request.block.piece) else {
            return;
        };
        if request.late {
            return;
        }
        match &mut partial.blocks[self.layout.index(request.block)] {
            BlockState::Requested(count) if *count > 1 => *count -= 1,
            block @ BlockState::Requested(_) => {
                *block = BlockState::Missing;
                partial.missing += 1;
                self.missing += 1;
            }
            BlockState::Missing | BlockState::Received(_) => {}
        }
    }

    /// Discards a piece of which no block has come or is requested, so that any peer can start it.
    fn discard_if_empty(&mut self, piece: u32) {
        let partial = self.partial.get(&piece);
        if partial.is_some_and(|piece| piece.missing as usize == piece.blocks.len()) {
            self.discard_partial(piece);
        }
    }

    /// Discards a partial piece.
    pub(super) fn discard_partial(&mut self, piece: u32) {
        if let Some(partial) = self.partial.remove(&piece) {
            self.missing -= partial.missing;
            self.started.clear(piece);
        }
    }
}
