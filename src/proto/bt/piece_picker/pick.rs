//! Which block is requested of whom next.

use std::time::Duration;

use crate::{
    proto::bt::{
        piece_picker::{BlockState, PartialPiece, PendingRequest, PiecePicker, pipeline::Pipeline},
        wire::Block,
    },
    units::Moment,
};

/// Pieces that may be started and have missing blocks, for each peer.
const PARTIAL_PER_PEER: usize = 2;

/// Peers of which one block is requested at the end.
const ENDGAME_PEERS: u8 = 2;

/// How long a block must be overdue before it is requested of another peer too.
const ENDGAME_AFTER: Duration = Duration::from_millis(200);

impl PiecePicker {
    /// True when `peer` should get more requests. They go out in batches, not one for each block.
    pub fn needs_requests(&self, peer: u32) -> bool {
        self.peers.get(&peer).is_some_and(|peer| {
            let depth = peer.pipeline.depth(self.layout.block, self.peers.len());
            peer.serves && Pipeline::is_low(depth, peer.pending.len())
        })
    }

    /// Blocks to request of `peer` now, until its pipeline is full.
    pub fn next_requests(&mut self, peer: u32, now: Moment) -> Vec<Block> {
        let Some(state) = self.peers.get(&peer).filter(|peer| peer.serves) else {
            return Vec::new();
        };
        let depth = state.pipeline.depth(self.layout.block, self.peers.len());
        let room = depth.saturating_sub(state.pending.len());
        let mut blocks = Vec::new();
        while blocks.len() < room {
            match self.pick_block(peer, now) {
                Some(block) => blocks.push(block),
                None => break,
            }
        }
        blocks
    }

    /// The next block for `peer`, noted as requested.
    fn pick_block(&mut self, peer: u32, now: Moment) -> Option<Block> {
        let block = match self.pick_piece(peer) {
            Some(piece) => {
                let partial = self.partial.get_mut(&piece).expect("just found");
                let mut blocks = partial.blocks.iter();
                let index = blocks
                    .position(|block| *block == BlockState::Missing)
                    .expect("it has a missing block");
                partial.blocks[index] = BlockState::Requested(1);
                partial.missing -= 1;
                self.missing -= 1;
                let index = u32::try_from(index).expect("few blocks");
                self.layout.block(piece, index)
            }
            None => self.endgame_block(peer, now)?,
        };
        let state = self.peers.get_mut(&peer).expect("the caller saw it");
        state.current = Some(block.piece);
        state.pending.push_back(PendingRequest { block, since: now, late: false });
        Some(block)
    }

    fn pick_piece(&mut self, peer: u32) -> Option<u32> {
        // Mostly no block is missing, and then there is nothing to search.
        if self.missing == 0 {
            return self.start_rarest_piece(peer);
        }
        self.current_piece(peer)
            .or_else(|| self.orphaned_piece(peer))
            .or_else(|| self.start_rarest_piece(peer))
            .or_else(|| self.shared_piece(peer))
    }

    /// The piece that this peer is sending, while it has missing blocks.
    fn current_piece(&self, peer: u32) -> Option<u32> {
        let state = &self.peers[&peer];
        let current = state.current?;
        let piece = self.partial.get(&current)?;
        (piece.missing > 0 && piece.lead == peer && state.has.has(current)).then_some(current)
    }

    /// A piece whose lead is gone, does not answer, or is sending another.
    fn orphaned_piece(&self, peer: u32) -> Option<u32> {
        let has = &self.peers[&peer].has;
        let is_orphan = |piece: u32, partial: &PartialPiece| {
            let lead = self.peers.get(&partial.lead);
            lead.is_none_or(|lead| {
                !lead.serves || lead.pipeline.snubbed || lead.current != Some(piece)
            })
        };
        let found = self.partial.iter().find(|&(&piece, partial)| {
            partial.missing > 0 && is_orphan(piece, partial) && has.has(piece)
        });
        found.map(|(&piece, _)| piece)
    }

    /// Starts the rarest piece that this peer has.
    fn start_rarest_piece(&mut self, peer: u32) -> Option<u32> {
        let piece = self.rarest_piece(peer)?;
        if !self.make_room() {
            return None;
        }
        let blocks = self.layout.blocks(piece);
        let partial = PartialPiece {
            blocks: vec![BlockState::Missing; blocks as usize],
            missing: blocks,
            to_come: blocks,
            lead: peer,
        };
        self.partial.insert(piece, partial);
        self.missing += blocks;
        self.started.set(piece);
        Some(piece)
    }

    fn rarest_piece(&mut self, peer: u32) -> Option<u32> {
        let has = self.peers[&peer].has.words();
        let (have, started) = (self.have.words(), self.started.words());
        // From a random place on, so that the first of equals is nearly a random one.
        let (words, from) = (has.len(), self.random.below(has.len().max(1)));
        let (mut best, mut rarest, mut equals) = (None, u16::MAX, 0);
        for at in (from..words).chain(0..from) {
            let mut rest = has[at] & !have[at] & !started[at];
            while rest != 0 {
                let piece = u32::try_from(at).expect("few words") * 64 + rest.trailing_zeros();
                rest &= rest - 1;
                let copies = self.copies[piece as usize];
                if copies < rarest {
                    (best, rarest, equals) = (Some(piece), copies, 1);
                } else if copies == rarest {
                    equals += 1;
                    if self.random.below(equals) == 0 {
                        best = Some(piece);
                    }
                }
            }
            // Only this peer has it, so no piece is rarer.
            if rarest <= 1 {
                break;
            }
        }
        best
    }

    /// Whether another piece may be started. A peer that sends one block of every piece must not
    /// make us keep all of them: where there are too many, one that nobody is sending is dropped.
    fn make_room(&mut self) -> bool {
        let unfinished = self.partial.values().filter(|piece| piece.missing > 0);
        if unfinished.count() < PARTIAL_PER_PEER * self.peers.len().max(1) {
            return true;
        }
        let is_idle = |piece: u32, partial: &PartialPiece| {
            let lead = self.peers.get(&partial.lead);
            let mut blocks = partial.blocks.iter();
            partial.missing > 0
                && lead.and_then(|lead| lead.current) != Some(piece)
                && !blocks.any(|block| matches!(block, BlockState::Requested(_)))
        };
        let mut partial = self.partial.iter();
        let idle = partial.find(|&(&piece, partial)| is_idle(piece, partial));
        let Some((&piece, _)) = idle else {
            return false;
        };
        self.discard_partial(piece);
        true
    }

    /// A piece of another peer that this one has too. A piece that was wrong before is not shared.
    fn shared_piece(&self, peer: u32) -> Option<u32> {
        let has = &self.peers[&peer].has;
        let found = self.partial.iter().find(|(piece, partial)| {
            partial.missing > 0 && has.has(**piece) && !self.suspects.contains_key(piece)
        });
        found.map(|(&piece, _)| piece)
    }

    /// True when every block that is lacking has been requested.
    pub fn is_ending(&self) -> bool {
        let lacking = || (self.layout.pieces() - self.have.count()) as usize;
        self.missing == 0 && lacking() <= self.partial.len()
    }

    /// At the end, when nothing else is left to request: a block that is overdue at another peer.
    fn endgame_block(&mut self, peer: u32, now: Moment) -> Option<Block> {
        if !self.is_ending() || now < self.overdue_from {
            return None;
        }
        let pending = self.peers.values().flat_map(|peer| &peer.pending);
        let oldest = pending.map(|request| request.since).min();
        self.overdue_from = oldest.unwrap_or(now).after(ENDGAME_AFTER);
        if now < self.overdue_from {
            return None;
        }
        let me = &self.peers[&peer];
        let others = self.peers.iter().filter(|(other, _)| **other != peer);
        let mut overdue = others
            .flat_map(|(_, other)| &other.pending)
            .filter(|request| now.since(request.since) >= ENDGAME_AFTER)
            .map(|request| request.block);
        let block = overdue.find(|block| {
            let partial = self.partial.get(&block.piece);
            let state = partial.map(|partial| partial.blocks[self.layout.index(*block)]);
            matches!(state, Some(BlockState::Requested(count)) if count < ENDGAME_PEERS)
                && me.has.has(block.piece)
                && !me.pending.iter().any(|request| request.block == *block)
        })?;
        let partial = self.partial.get_mut(&block.piece).expect("just found");
        if let BlockState::Requested(count) = &mut partial.blocks[self.layout.index(block)] {
            *count += 1;
        }
        self.counts.endgame += 1;
        Some(block)
    }
}
