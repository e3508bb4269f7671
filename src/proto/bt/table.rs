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

use std::collections::BTreeMap;
use std::collections::VecDeque;
use std::time::Duration;

use crate::digest::Digest;
use crate::proto::bt::bits::Bits;
use crate::proto::bt::wire::BLOCK;
use crate::proto::bt::wire::Block;
use crate::proto::bt::wire::REQUEST_MAX;
use crate::units::Moment;

/// How a file falls into pieces, and pieces into blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    /// The file's length, at least 1.
    pub bytes: u64,
    /// Length of a piece, bytes.
    pub piece: u32,
    /// Length of a block, bytes; [`BLOCK`] on the wire, a whole piece in a simulation.
    pub block: u32,
}

/// A small generator of random numbers (xorshift64*), seeded by its owner: equal seeds, equal
/// choices.
#[derive(Clone, Debug)]
pub struct Random(u64);

/// The pieces, the peers and what was asked of them.
#[derive(Debug)]
pub struct Table {
    layout: Layout,
    have: Bits,
    /// Begun, or being verified: not to be begun again.
    begun: Bits,
    /// How many peers have each piece.
    copies: Vec<u16>,
    open: BTreeMap<u32, Open>,
    /// Free blocks of all open pieces together.
    free: u32,
    peers: BTreeMap<u32, Peer>,
    /// Digests of the blocks of wrong pieces with several senders.
    suspects: BTreeMap<u32, Vec<(u32, u32, Digest)>>,
    random: Random,
    counts: Counts,
    /// Before this no block is overdue.
    overdue_from: Moment,
}

/// What happened that should not happen often.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
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
struct Open {
    slots: Vec<Slot>,
    /// Blocks that nobody was asked for.
    free: u32,
    /// Blocks that have not come.
    missing: u32,
    /// The peer that began it; others help only when it is gone or they have nothing else.
    lead: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Slot {
    Free,
    Asked(u8),
    Got(u32),
}

#[derive(Debug)]
struct Peer {
    has: Bits,
    /// Blocks asked and not come, the oldest first.
    asked: VecDeque<Owed>,
    /// It answers requests.
    serves: bool,
    /// The most requests that it lets wait.
    allowed: usize,
    /// The piece that it is at.
    at: Option<u32>,
    /// It did not answer in time; one request at a time until it does.
    snubbed: bool,
    pace: Pace,
}

/// A block that a peer was asked for.
#[derive(Clone, Copy, Debug)]
struct Owed {
    block: Block,
    since: Moment,
    /// Given up: another may be asked, and if it comes after all it is welcome.
    late: bool,
}

/// How fast blocks come.
#[derive(Debug, Default)]
struct Pace {
    /// Bytes per second, of the last stretch.
    rate: f64,
    bytes: u64,
    since: Option<Moment>,
}

/// What an arriving block means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Arrival {
    /// Nobody wants it (any more); nothing is stored.
    Unwanted,
    /// It is kept; these other peers need not send it.
    Kept(Vec<u32>),
    /// The same, and with it its piece is there to be verified.
    Whole(Vec<u32>),
}

/// Requests that are kept waiting at a peer at least, in bytes.
const DEPTH_MIN: usize = 2 * BLOCK as usize;

/// Requests that are kept waiting at all peers together at least, in bytes: so that the first
/// seconds need no rate. What was asked of one cannot be asked of another, so more would leave
/// some uplinks with much to do at the end and others with nothing.
const DEPTH_ALL: usize = 64 * BLOCK as usize;

/// For how long a peer's requests last at its rate, seconds: longer than any answer takes.
const DEPTH_SECONDS: f64 = 0.12;

/// How often a rate is taken.
const PACE_EVERY: Duration = Duration::from_millis(250);

/// Peers that one block is asked of at the end.
const ENDGAME_PEERS: u8 = 2;

/// How long a block must be overdue before another peer is asked for it too.
const ENDGAME_AFTER: Duration = Duration::from_millis(200);

/// How long a peer may leave a block unanswered.
const SNUB: Duration = Duration::from_secs(4);

impl Layout {
    /// A file of `bytes` in pieces of `piece`, as it is on the wire.
    pub fn new(bytes: u64, piece: u32) -> Self {
        let block = BLOCK;
        Self {
            bytes,
            piece,
            block,
        }
    }

    /// How many pieces there are.
    pub fn pieces(&self) -> u32 {
        u32::try_from(self.bytes.div_ceil(u64::from(self.piece))).expect("bounded by the metainfo")
    }

    /// Where a piece begins in the file.
    pub fn start(&self, piece: u32) -> u64 {
        u64::from(piece) * u64::from(self.piece)
    }

    /// A piece's length.
    pub fn len(&self, piece: u32) -> u32 {
        let left = self.bytes.saturating_sub(self.start(piece));
        u32::try_from(left).unwrap_or(u32::MAX).min(self.piece)
    }

    /// A piece's `index`th block.
    pub fn block(&self, piece: u32, index: u32) -> Block {
        let begin = index * self.block;
        let len = (self.len(piece) - begin).min(self.block);
        Block { piece, begin, len }
    }

    /// How many blocks a piece has.
    pub fn blocks(&self, piece: u32) -> u32 {
        self.len(piece).div_ceil(self.block)
    }

    /// Whether a peer may ask for `block`: inside its piece, not empty, not too long.
    pub fn allows(&self, block: Block) -> bool {
        block.piece < self.pieces()
            && (1..=REQUEST_MAX).contains(&block.len)
            && u64::from(block.begin) + u64::from(block.len) <= u64::from(self.len(block.piece))
    }
}

impl Random {
    /// A generator for `seed`.
    pub fn new(seed: u64) -> Self {
        // Neighbouring seeds must not begin alike, and zero would stay zero.
        Self(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    /// The next number.
    pub fn next_u64(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    /// A number below `end`, which is not zero.
    pub fn below(&mut self, end: usize) -> usize {
        let end = end as u64;
        usize::try_from((self.next_u64() >> 16) % end).expect("below a usize")
    }

    /// Puts `items` into random order.
    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for at in (1..items.len()).rev() {
            items.swap(at, self.below(at + 1));
        }
    }
}

impl Table {
    /// The table of a copy that has the pieces of `have`.
    pub fn new(layout: Layout, have: Bits, seed: u64) -> Self {
        let pieces = layout.pieces();
        Self {
            layout,
            begun: Bits::new(pieces),
            copies: vec![0; pieces as usize],
            have,
            open: BTreeMap::new(),
            free: 0,
            peers: BTreeMap::new(),
            suspects: BTreeMap::new(),
            random: Random::new(seed),
            counts: Counts::default(),
            overdue_from: Moment(0),
        }
    }

    /// How the file is cut.
    pub fn layout(&self) -> Layout {
        self.layout
    }

    /// The pieces that are verified.
    pub fn have(&self) -> &Bits {
        &self.have
    }

    /// True when every piece is verified.
    pub fn is_whole(&self) -> bool {
        self.have.is_full()
    }

    /// What a peer has.
    pub fn has(&self, peer: u32) -> Option<&Bits> {
        self.peers.get(&peer).map(|peer| &peer.has)
    }

    /// How many peers have `piece`.
    pub fn copies(&self, piece: u32) -> u16 {
        self.copies[piece as usize]
    }

    /// What happened that should not happen often.
    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// The pieces that we lack and no peer has.
    pub fn nowhere(&self) -> u32 {
        let missing = |piece: &u32| !self.have.has(*piece) && self.copies[*piece as usize] == 0;
        u32::try_from((0..self.layout.pieces()).filter(missing).count()).expect("fits")
    }

    /// True when `peer` has a piece that we lack.
    pub fn interests(&self, peer: u32) -> bool {
        self.peers.get(&peer).is_some_and(|peer| {
            let words = peer.has.words().iter().zip(self.have.words());
            words.clone().any(|(theirs, ours)| theirs & !ours != 0)
        })
    }

    /// A new peer, which has nothing yet and lets `allowed` requests wait.
    pub fn join(&mut self, peer: u32, allowed: usize) {
        self.leave(peer);
        let new = Peer {
            has: Bits::new(self.layout.pieces()),
            asked: VecDeque::new(),
            serves: false,
            allowed: allowed.max(1),
            at: None,
            snubbed: false,
            pace: Pace::default(),
        };
        self.peers.insert(peer, new);
    }

    /// How many requests a peer lets wait.
    pub fn allow(&mut self, peer: u32, requests: usize) {
        if let Some(peer) = self.peers.get_mut(&peer) {
            peer.allowed = requests.max(1);
        }
    }

    /// A peer is gone; what was asked of it is free again.
    pub fn leave(&mut self, peer: u32) {
        self.free_all(peer);
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
    pub fn had(&mut self, peer: u32, piece: u32) -> Result<bool, String> {
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
    pub fn had_all(&mut self, peer: u32, bits: &Bits) {
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
    pub fn serves(&mut self, peer: u32, serves: bool) {
        if !serves {
            self.free_all(peer);
        }
        if let Some(peer) = self.peers.get_mut(&peer) {
            peer.serves = serves;
        }
    }

    /// The rate at which a peer sends, bytes per second.
    pub fn rate(&self, peer: u32) -> f64 {
        self.peers.get(&peer).map_or(0.0, |peer| peer.pace.rate)
    }

    /// How many blocks are asked of `peer` and have not come.
    pub fn asked(&self, peer: u32) -> usize {
        self.peers.get(&peer).map_or(0, |peer| peer.asked.len())
    }

    /// True when a peer has so few requests left that it should get more: they go out in
    /// batches, not one for each block.
    pub fn runs_dry(&self, peer: u32) -> bool {
        self.peers.get(&peer).is_some_and(|peer| {
            peer.serves && peer.asked.len() <= peer.depth(self.layout.block, self.peers.len()) / 2
        })
    }

    /// Blocks to ask of `peer` now, until its pipeline is full.
    pub fn ask(&mut self, peer: u32, now: Moment) -> Vec<Block> {
        let mut blocks = Vec::new();
        let Some(asked) = self.peers.get(&peer).filter(|peer| peer.serves) else {
            return blocks;
        };
        let depth = asked.depth(self.layout.block, self.peers.len());
        let room = depth.saturating_sub(asked.asked.len());
        while blocks.len() < room {
            match self.pick(peer, now) {
                Some(block) => blocks.push(block),
                None => break,
            }
        }
        blocks
    }

    /// The next block for `peer`, noted as asked.
    fn pick(&mut self, peer: u32, now: Moment) -> Option<Block> {
        // Mostly nothing is free, and then there is nothing to search.
        let free = self.free > 0;
        let piece = (free.then(|| self.continued(peer)).flatten())
            .or_else(|| free.then(|| self.left_behind(peer)).flatten())
            .or_else(|| self.begin(peer))
            .or_else(|| free.then(|| self.helped(peer)).flatten());
        let block = match piece {
            Some(piece) => {
                let open = self.open.get_mut(&piece).expect("just found");
                let index = open
                    .slots
                    .iter()
                    .position(|slot| *slot == Slot::Free)
                    .expect("it has a free block");
                open.slots[index] = Slot::Asked(1);
                open.free -= 1;
                self.free -= 1;
                self.layout
                    .block(piece, u32::try_from(index).expect("few blocks"))
            }
            None => self.overdue(peer, now)?,
        };
        let asked = self.peers.get_mut(&peer).expect("the caller saw it");
        asked.at = Some(block.piece);
        asked.asked.push_back(Owed {
            block,
            since: now,
            late: false,
        });
        Some(block)
    }

    /// The piece that this peer is at, while it has free blocks.
    fn continued(&self, peer: u32) -> Option<u32> {
        let at = self.peers[&peer].at?;
        let open = self.open.get(&at)?;
        (open.free > 0 && open.lead == peer && self.peers[&peer].has.has(at)).then_some(at)
    }

    /// A piece whose lead is gone or does not answer.
    fn left_behind(&self, peer: u32) -> Option<u32> {
        let has = &self.peers[&peer].has;
        let orphan = |open: &Open| {
            open.free > 0
                && self
                    .peers
                    .get(&open.lead)
                    .is_none_or(|lead| !lead.serves || lead.snubbed)
        };
        let found = self
            .open
            .iter()
            .find(|(piece, open)| orphan(open) && has.has(**piece));
        found.map(|(&piece, _)| piece)
    }

    /// Begins the rarest piece that this peer has.
    fn begin(&mut self, peer: u32) -> Option<u32> {
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
        let blocks = self.layout.blocks(piece);
        let open = Open {
            slots: vec![Slot::Free; blocks as usize],
            free: blocks,
            missing: blocks,
            lead: peer,
        };
        self.open.insert(piece, open);
        self.free += blocks;
        self.begun.set(piece);
        Some(piece)
    }

    /// Another's piece that this peer has too. One that was wrong before stays with its lead.
    fn helped(&self, peer: u32) -> Option<u32> {
        let has = &self.peers[&peer].has;
        let found = self.open.iter().find(|(piece, open)| {
            open.free > 0 && has.has(**piece) && !self.suspects.contains_key(piece)
        });
        found.map(|(&piece, _)| piece)
    }

    /// The end: a block that another peer owes for long, when nothing else is left to ask.
    fn overdue(&mut self, peer: u32, now: Moment) -> Option<Block> {
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
            .find(|Owed { block, .. }| {
                let open = self.open.get(&block.piece);
                let slot = open.map(|open| open.slots[(block.begin / self.layout.block) as usize]);
                matches!(slot, Some(Slot::Asked(count)) if count < ENDGAME_PEERS)
                    && me.has.has(block.piece)
                    && !me.asked.iter().any(|asked| asked.block == *block)
            });
        let block = owed?.block;
        let open = self.open.get_mut(&block.piece).expect("just found");
        if let Slot::Asked(count) = &mut open.slots[(block.begin / self.layout.block) as usize] {
            *count += 1;
        }
        self.counts.endgame += 1;
        Some(block)
    }

    /// A block has come.
    pub fn arrive(&mut self, peer: u32, piece: u32, begin: u32, len: u32, now: Moment) -> Arrival {
        let block = Block { piece, begin, len };
        self.counts.blocks += 1;
        let asked = self.peers.get_mut(&peer).and_then(|from| {
            let at = from.asked.iter().position(|asked| asked.block == block)?;
            from.snubbed = false;
            from.pace.count(len, now);
            from.asked.remove(at)
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
            Slot::Got(_) => {
                self.counts.wasted += 1;
                return Arrival::Unwanted;
            }
            // It came after all, though it was given up.
            Slot::Free => {
                open.free -= 1;
                self.free -= 1;
                Vec::new()
            }
            Slot::Asked(1) if !asked.late => Vec::new(),
            Slot::Asked(_) => {
                let mut owing = Vec::new();
                for (&other, from) in &mut self.peers {
                    let before = from.asked.len();
                    from.asked.retain(|asked| asked.block != block);
                    if from.asked.len() < before {
                        owing.push(other);
                    }
                }
                owing
            }
        };
        open.slots[index] = Slot::Got(peer);
        open.missing -= 1;
        match open.missing {
            0 => Arrival::Whole(others),
            _ => Arrival::Kept(others),
        }
    }

    /// A piece's digest is right. `bytes` are its bytes where somebody's lie is to be found out.
    /// Returns the peers that had sent wrong blocks of it before.
    pub fn verified(&mut self, piece: u32, bytes: &[u8]) -> Vec<u32> {
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
    pub fn wrong(&mut self, piece: u32, bytes: &[u8]) -> Option<u32> {
        self.counts.wrong += 1;
        self.begun.clear(piece);
        let open = self.open.remove(&piece)?;
        let senders: Vec<u32> = open
            .slots
            .iter()
            .filter_map(|slot| match slot {
                Slot::Got(peer) => Some(*peer),
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
    pub fn rejected(&mut self, peer: u32, block: Block) {
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
        self.free(owed);
        self.forget(block.piece);
    }

    /// Gives back what peers have left unanswered for too long; returns those peers.
    pub fn give_up(&mut self, now: Moment) -> Vec<u32> {
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
        owed.into_iter().for_each(|owed| self.free(owed));
        late
    }

    fn free_all(&mut self, peer: u32) {
        let Some(from) = self.peers.get_mut(&peer) else {
            return;
        };
        from.at = None;
        let asked = std::mem::take(&mut from.asked);
        for owed in asked {
            self.free(owed);
            self.forget(owed.block.piece);
        }
    }

    /// One peer fewer is asked for a block.
    fn free(&mut self, owed: Owed) {
        let Some(open) = self.open.get_mut(&owed.block.piece).filter(|_| !owed.late) else {
            return;
        };
        let slot = &mut open.slots[(owed.block.begin / self.layout.block) as usize];
        match slot {
            Slot::Asked(1) => {
                *slot = Slot::Free;
                open.free += 1;
                self.free += 1;
            }
            Slot::Asked(count) => *count -= 1,
            Slot::Free | Slot::Got(_) => {}
        }
    }

    /// A piece of which nothing has come and nothing is asked may be begun again, with whoever
    /// has it.
    fn forget(&mut self, piece: u32) {
        let Some(open) = self.open.get(&piece) else {
            return;
        };
        if open.slots.iter().all(|slot| *slot == Slot::Free) {
            self.free -= open.free;
            self.open.remove(&piece);
            self.begun.clear(piece);
        }
    }
}

impl Peer {
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
        let paced = (self.pace.rate * DEPTH_SECONDS) as usize;
        let wanted = paced.max(DEPTH_ALL / peers.max(1)).max(DEPTH_MIN);
        wanted.div_ceil(block as usize).clamp(1, self.allowed)
    }
}

impl Pace {
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

#[cfg(test)]
mod tests;
