//! Which block is asked of whom next.

use std::time::Duration;

use crate::proto::bt::table::BlockState;
use crate::proto::bt::table::PartialPiece;
use crate::proto::bt::table::PendingRequest;
use crate::proto::bt::table::PickerPeer;
use crate::proto::bt::table::PiecePicker;
use crate::proto::bt::table::Pipeline;
use crate::proto::bt::wire::BLOCK_LEN;
use crate::proto::bt::wire::Block;
use crate::units::Moment;

/// Requests that are kept waiting at a peer at least, in bytes.
const DEPTH_MIN: usize = 2 * BLOCK_LEN as usize;

/// Requests that are kept waiting at all peers together at least, in bytes: so that the first
/// seconds need no rate. What was asked of one cannot be asked of another, so more would leave
/// some uplinks with much to do at the end and others with nothing.
const DEPTH_ALL: usize = 64 * BLOCK_LEN as usize;

/// For how long a peer's requests last at its rate, seconds, where answers take no time.
const DEPTH_SECONDS: f64 = 0.12;

/// And beyond the time that its fastest answer takes, twice: they are made up for when half of them
/// are answered, and must not run out before the next come.
const DEPTH_BEYOND: f64 = 0.04;

/// Longest time for an answer that is made up for, seconds.
const ANSWER_MAX: f64 = 1.0;

/// Pieces that are begun, and have blocks that nobody is asked for, for each peer.
const IDLE_PER_PEER: usize = 2;

/// Most requests of a batch: with a long way the half of all is too many to go without.
const BATCH_MAX: usize = 64;

/// Peers that one block is asked of at the end.
const ENDGAME_PEERS: u8 = 2;

/// How long a block must be overdue before another peer is asked for it too.
const ENDGAME_AFTER: Duration = Duration::from_millis(200);

impl PiecePicker {
    /// True when a peer has so few requests left that it should get more: they go out in
    /// batches, not one for each block.
    pub fn needs_requests(&self, peer: u32) -> bool {
        self.peers.get(&peer).is_some_and(|peer| {
            let depth = peer.depth(self.layout.block, self.peers.len());
            peer.serves && peer.asked.len() <= (depth / 2).max(depth.saturating_sub(BATCH_MAX))
        })
    }

    /// Blocks to ask of `peer` now, until its pipeline is full.
    pub fn next_requests(&mut self, peer: u32, now: Moment) -> Vec<Block> {
        let mut blocks = Vec::new();
        let Some(asked) = self.peers.get(&peer).filter(|peer| peer.serves) else {
            return blocks;
        };
        let depth = asked.depth(self.layout.block, self.peers.len());
        let room = depth.saturating_sub(asked.asked.len());
        while blocks.len() < room {
            match self.pick_block(peer, now) {
                Some(block) => blocks.push(block),
                None => break,
            }
        }
        blocks
    }

    /// The next block for `peer`, noted as asked.
    fn pick_block(&mut self, peer: u32, now: Moment) -> Option<Block> {
        // Mostly nothing is free, and then there is nothing to search.
        let free = self.free > 0;
        let piece = (free.then(|| self.current_piece(peer)).flatten())
            .or_else(|| free.then(|| self.orphaned_piece(peer)).flatten())
            .or_else(|| self.start_rarest_piece(peer))
            .or_else(|| free.then(|| self.shared_piece(peer)).flatten());
        let block = match piece {
            Some(piece) => {
                let open = self.open.get_mut(&piece).expect("just found");
                let index = open
                    .slots
                    .iter()
                    .position(|slot| *slot == BlockState::Missing)
                    .expect("it has a free block");
                open.slots[index] = BlockState::Requested(1);
                open.free -= 1;
                self.free -= 1;
                self.layout
                    .block(piece, u32::try_from(index).expect("few blocks"))
            }
            None => self.endgame_block(peer, now)?,
        };
        let asked = self.peers.get_mut(&peer).expect("the caller saw it");
        asked.at = Some(block.piece);
        asked.asked.push_back(PendingRequest {
            block,
            since: now,
            late: false,
        });
        Some(block)
    }

    /// The piece that this peer is at, while it has free blocks.
    fn current_piece(&self, peer: u32) -> Option<u32> {
        let at = self.peers[&peer].at?;
        let open = self.open.get(&at)?;
        (open.free > 0 && open.lead == peer && self.peers[&peer].has.has(at)).then_some(at)
    }

    /// A piece whose lead is gone, does not answer, or is at another now.
    fn orphaned_piece(&self, peer: u32) -> Option<u32> {
        let has = &self.peers[&peer].has;
        let orphan = |piece: u32, open: &PartialPiece| {
            open.free > 0
                && self
                    .peers
                    .get(&open.lead)
                    .is_none_or(|lead| !lead.serves || lead.snubbed || lead.at != Some(piece))
        };
        let found = self
            .open
            .iter()
            .find(|&(&piece, open)| orphan(piece, open) && has.has(piece));
        found.map(|(&piece, _)| piece)
    }

    /// Begins the rarest piece that this peer has.
    fn start_rarest_piece(&mut self, peer: u32) -> Option<u32> {
        let has = self.peers[&peer].has.words();
        let (have, begun) = (self.have.words(), self.begun.words());
        // From a random place on, so that the first of equals is a random one, nearly.
        let (words, from) = (has.len(), self.random.below(has.len().max(1)));
        let (mut best, mut rarest, mut equals) = (None, u16::MAX, 0);
        'search: for at in (from..words).chain(0..from) {
            let mut rest = has[at] & !have[at] & !begun[at];
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
            // Nobody else has it: it cannot be rarer.
            if rarest <= 1 {
                break 'search;
            }
        }
        let piece = best?;
        if !self.make_room() {
            return None;
        }
        let blocks = self.layout.blocks(piece);
        let open = PartialPiece {
            slots: vec![BlockState::Missing; blocks as usize],
            free: blocks,
            missing: blocks,
            lead: peer,
        };
        self.open.insert(piece, open);
        self.free += blocks;
        self.begun.set(piece);
        Some(piece)
    }

    /// Whether another piece may be begun: a peer that gives a block of every piece and ends none
    /// would have us keep all of them. Where there are too many, one that nobody is at makes room.
    fn make_room(&mut self) -> bool {
        let ended = |open: &&PartialPiece| open.free == 0;
        let idle = self.open.len() - self.open.values().filter(ended).count();
        if idle < IDLE_PER_PEER * self.peers.len().max(1) {
            return true;
        }
        let left = self.open.iter().find(|&(&piece, open)| {
            let at = self.peers.get(&open.lead).and_then(|lead| lead.at);
            let asked = |slot: &BlockState| matches!(slot, BlockState::Requested(_));
            open.free > 0 && at != Some(piece) && !open.slots.iter().any(asked)
        });
        let Some(&piece) = left.map(|(piece, _)| piece) else {
            return false;
        };
        self.discard_partial(piece);
        true
    }

    /// Another's piece that this peer has too. One that was wrong before stays with its lead.
    fn shared_piece(&self, peer: u32) -> Option<u32> {
        let has = &self.peers[&peer].has;
        let found = self.open.iter().find(|(piece, open)| {
            open.free > 0 && has.has(**piece) && !self.suspects.contains_key(piece)
        });
        found.map(|(&piece, _)| piece)
    }

    /// The end: a block that another peer owes for long, when nothing else is left to ask.
    fn endgame_block(&mut self, peer: u32, now: Moment) -> Option<Block> {
        let missing = self.layout.pieces() - self.have.count();
        if missing as usize > self.open.len() || self.free > 0 || now < self.overdue_from {
            return None;
        }
        let owed = self.peers.values().flat_map(|peer| &peer.asked);
        let oldest = owed.map(|owed| owed.since).min();
        self.overdue_from = oldest.unwrap_or(now).after(ENDGAME_AFTER);
        if now < self.overdue_from {
            return None;
        }
        let me = &self.peers[&peer];
        let owed = self
            .peers
            .iter()
            .filter(|(other, _)| **other != peer)
            .flat_map(|(_, other)| &other.asked)
            .filter(|owed| now.since(owed.since) >= ENDGAME_AFTER)
            .find(|PendingRequest { block, .. }| {
                let open = self.open.get(&block.piece);
                let slot = open.map(|open| open.slots[(block.begin / self.layout.block) as usize]);
                matches!(slot, Some(BlockState::Requested(count)) if count < ENDGAME_PEERS)
                    && me.has.has(block.piece)
                    && !me.asked.iter().any(|asked| asked.block == *block)
            });
        let block = owed?.block;
        let open = self.open.get_mut(&block.piece).expect("just found");
        if let BlockState::Requested(count) =
            &mut open.slots[(block.begin / self.layout.block) as usize]
        {
            *count += 1;
        }
        self.counts.endgame += 1;
        Some(block)
    }
}

impl PickerPeer {
    /// How many requests for a `block` should wait at it, which is one of `peers`.
    fn depth(&self, block: u32, peers: usize) -> usize {
        if self.snubbed {
            return 1;
        }
        #[allow(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "saturates"
        )]
        let paced = (self.pace.rate * self.pace.ahead()) as usize;
        let wanted = paced.max(DEPTH_ALL / peers.max(1)).max(DEPTH_MIN);
        wanted.div_ceil(block as usize).clamp(1, self.allowed)
    }
}

impl Pipeline {
    /// For how long the requests should last, seconds.
    fn ahead(&self) -> f64 {
        let answer = self.answer.map_or(0.0, |answer| answer.as_secs_f64());
        DEPTH_SECONDS.max(2.0 * answer.min(ANSWER_MAX) + DEPTH_BEYOND)
    }
}
