//! Blocks that come, come wrong, or do not come.

use std::time::Duration;

use crate::digest::Digest;
use crate::proto::bt::table::BlockState;
use crate::proto::bt::table::PendingRequest;
use crate::proto::bt::table::PiecePicker;
use crate::proto::bt::table::Pipeline;
use crate::proto::bt::wire::BLOCK_LEN;
use crate::proto::bt::wire::Block;
use crate::units::Moment;

/// What an arriving block means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Arrival {
    /// Nobody wants it (any more); nothing is stored.
    Unwanted,
    /// It is kept; these other peers need not send it.
    Kept(Vec<u32>),
    /// The same, and with it its piece is there to be verified.
    PieceComplete(Vec<u32>),
}

/// How often a rate is taken.
const PACE_EVERY: Duration = Duration::from_millis(250);

/// How long a peer may leave a block unanswered.
const SNUB: Duration = Duration::from_secs(4);

impl PiecePicker {
    /// A block has come.
    pub fn receive_block(
        &mut self,
        peer: u32,
        piece: u32,
        begin: u32,
        len: u32,
        now: Moment,
    ) -> Arrival {
        let block = Block { piece, begin, len };
        self.counts.blocks += 1;
        let asked = self.peers.get_mut(&peer).and_then(|from| {
            let Some(at) = from.asked.iter().position(|asked| asked.block == block) else {
                match from.withdrawn {
                    0 => from.strays += 1,
                    _ => from.withdrawn -= 1,
                }
                return None;
            };
            from.snubbed = false;
            from.pace.count(len, now);
            let owed = from.asked.remove(at)?;
            from.pace.answered(len, now.since(owed.since));
            Some(owed)
        });
        let Some(asked) = asked else {
            self.counts.wasted += 1;
            return Arrival::Unwanted;
        };
        let index = (begin / self.layout.block) as usize;
        let Some(open) = self.open.get_mut(&piece) else {
            self.counts.wasted += 1;
            return Arrival::Unwanted;
        };
        let others = match open.slots[index] {
            BlockState::Received(_) => {
                self.counts.wasted += 1;
                return Arrival::Unwanted;
            }
            // It came after all, though it was given up.
            BlockState::Missing => {
                open.free -= 1;
                self.free -= 1;
                Vec::new()
            }
            BlockState::Requested(1) if !asked.late => Vec::new(),
            BlockState::Requested(_) => {
                let mut owing = Vec::new();
                for (&other, from) in &mut self.peers {
                    let before = from.asked.len();
                    from.asked.retain(|asked| asked.block != block);
                    if from.asked.len() < before {
                        from.withdrawn += 1;
                        owing.push(other);
                    }
                }
                owing
            }
        };
        open.slots[index] = BlockState::Received(peer);
        open.missing -= 1;
        match open.missing {
            0 => Arrival::PieceComplete(others),
            _ => Arrival::Kept(others),
        }
    }

    /// A piece's digest is right. `bytes` are its bytes where somebody's lie is to be found out.
    /// Returns the peers that had sent wrong blocks of it before.
    pub fn piece_verified(&mut self, piece: u32, bytes: &[u8]) -> Vec<u32> {
        self.open.remove(&piece);
        self.begun.clear(piece);
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

    /// A piece's digest is wrong: it is to be fetched again. Returns its sender if there was only
    /// one; else its blocks are remembered.
    pub fn piece_corrupt(&mut self, piece: u32, bytes: &[u8]) -> Option<u32> {
        self.counts.wrong += 1;
        self.begun.clear(piece);
        let open = self.open.remove(&piece)?;
        let senders: Vec<u32> = open
            .slots
            .iter()
            .filter_map(|slot| match slot {
                BlockState::Received(peer) => Some(*peer),
                _ => None,
            })
            .collect();
        let first = *senders.first()?;
        if senders.iter().all(|&peer| peer == first) {
            return Some(first);
        }
        let digests = (0u32..)
            .zip(senders)
            .zip(bytes.chunks(self.layout.block as usize));
        let suspects = self.suspects.entry(piece).or_default();
        suspects
            .extend(digests.map(|((index, peer), block)| {
                (index * self.layout.block, peer, Digest::of(block))
            }));
        None
    }

    /// A peer will not send a block.
    pub fn request_rejected(&mut self, peer: u32, block: Block) {
        let Some(from) = self.peers.get_mut(&peer) else {
            return;
        };
        let Some(at) = from.asked.iter().position(|asked| asked.block == block) else {
            return;
        };
        let owed = from.asked.remove(at).expect("just found");
        // It said that it has the piece and does not give it: not asked again for that one.
        if from.has.clear(block.piece) {
            self.copies[block.piece as usize] -= 1;
        }
        self.release_request(owed);
        self.discard_if_empty(block.piece);
    }

    /// Gives back what peers have left unanswered for too long; returns those peers.
    pub fn snub_silent_peers(&mut self, now: Moment) -> Vec<u32> {
        let mut late = Vec::new();
        let mut owed = Vec::new();
        for (&key, peer) in &mut self.peers {
            let oldest = peer.asked.iter().find(|owed| !owed.late);
            if oldest.is_none_or(|oldest| now.since(oldest.since) <= SNUB) {
                continue;
            }
            late.push(key);
            peer.snubbed = true;
            peer.at = None;
            // The requests stand: what comes after all is taken while it is wanted.
            for asked in peer.asked.iter_mut().filter(|asked| !asked.late) {
                owed.push(*asked);
                asked.late = true;
            }
        }
        owed.into_iter().for_each(|owed| self.release_request(owed));
        late
    }

    pub(super) fn release_requests(&mut self, peer: u32) {
        let Some(from) = self.peers.get_mut(&peer) else {
            return;
        };
        from.at = None;
        let asked = std::mem::take(&mut from.asked);
        from.withdrawn += asked.len();
        for owed in asked {
            self.release_request(owed);
            self.discard_if_empty(owed.block.piece);
        }
    }

    /// One peer fewer is asked for a block.
    fn release_request(&mut self, owed: PendingRequest) {
        let Some(open) = self.open.get_mut(&owed.block.piece).filter(|_| !owed.late) else {
            return;
        };
        let slot = &mut open.slots[(owed.block.begin / self.layout.block) as usize];
        match slot {
            BlockState::Requested(1) => {
                *slot = BlockState::Missing;
                open.free += 1;
                self.free += 1;
            }
            BlockState::Requested(count) => *count -= 1,
            BlockState::Missing | BlockState::Received(_) => {}
        }
    }

    /// A piece of which nothing has come and nothing is asked may be begun again, with whoever
    /// has it.
    fn discard_if_empty(&mut self, piece: u32) {
        let Some(open) = self.open.get(&piece) else {
            return;
        };
        if open.slots.iter().all(|slot| *slot == BlockState::Missing) {
            self.discard_partial(piece);
        }
    }

    /// An unfinished piece is not begun any more.
    pub(super) fn discard_partial(&mut self, piece: u32) {
        if let Some(open) = self.open.remove(&piece) {
            self.free -= open.free;
            self.begun.clear(piece);
        }
    }
}

impl Pipeline {
    /// A block of `len` came so long after it was asked for.
    fn answered(&mut self, len: u32, took: Duration) {
        // What takes long to send says nothing of the way; only a simulation has such blocks.
        if len <= BLOCK_LEN {
            self.answer = Some(self.answer.map_or(took, |least| least.min(took)));
        }
    }

    fn count(&mut self, len: u32, now: Moment) {
        let since = *self.since.get_or_insert(now);
        self.bytes += u64::from(len);
        let span = now.since(since);
        if span >= PACE_EVERY {
            #[allow(clippy::cast_precision_loss, reason = "a quarter of a second's bytes")]
            let rate = self.bytes as f64 / span.as_secs_f64();
            // A pause between two stretches is no slowness of the peer's: let it fade, not fall.
            self.rate = rate.max(self.rate / 2.0);
            self.bytes = 0;
            self.since = Some(now);
        }
    }
}
