//! Super-seeding: which pieces a seeder reveals to whom, so that it sends none twice too early.
//!
//! When a seeder sends a piece a second time before every other piece was sent once, everybody
//! waits longer. So each gatecast peer is told of pieces that nobody else was told of, in turn, as
//! many as keep the seeder's uplink busy. BEP 16 also waits until a piece has spread, which takes
//! 1.75 times the lower bound; here nothing waits for that. Once every piece was sent, all pieces
//! are revealed to all peers, and the seeder serves them like any other peer. In a large swarm it
//! goes on revealing each piece to one peer at a time, the rarest first: if a thousand peers could
//! request what they like, each would wait for seconds.
//!
//! Other programs are told of every piece at once: transmission looks for new pieces only twice a
//! second, and would starve.
//!
//! A peer that downloads none of its revealed pieces in time is marked doubtful. Its pieces are
//! offered to others first, and it is told of more once it announces a piece.

use std::{
    collections::{BTreeMap, VecDeque},
    time::Duration,
};

use crate::{
    proto::bt::{bitfield::Bitfield, random::Random},
    units::Moment,
};

/// The pieces that were not sent yet, and which were revealed to whom.
#[derive(Debug, Default)]
pub struct SuperSeeder {
    /// The pieces to reveal next.
    unrevealed: VecDeque<u32>,
    /// The turn of each piece in the beginning, from 1.
    plan: Vec<u32>,
    peers: BTreeMap<u32, SeededPeer>,
    /// The admitted peers, in the order in which they get pieces.
    turns: VecDeque<u32>,
    /// Pieces revealed and not yet downloaded, without those of doubtful peers.
    pending: usize,
    piece_bytes: u32,
    /// How many of `peers` have each piece.
    copies: Vec<u32>,
    /// Pieces that were revealed once, or that some peer has.
    revealed_once: Bitfield,
    /// Of `unrevealed`, pieces that some peer brought with it and that we need not send: they are
    /// passed over when their turn comes, because to look for each would take too long.
    brought: Bitfield,
    /// Every piece is revealed to everybody.
    pub reveals_all: bool,
    /// When no piece was left to reveal.
    exhausted_at: Option<Moment>,
}

#[derive(Debug, Default)]
struct SeededPeer {
    revealed: Bitfield,
    has: Bitfield,
    /// Revealed and not yet downloaded.
    pending: Vec<u32>,
    /// How many pieces it had been sent when it last made progress, and when that was.
    sent: f64,
    since: Moment,
    /// It was overdue. Until it downloads a revealed piece, others do not wait for its pieces.
    doubtful: bool,
}

/// Least number of pending pieces of a peer.
const AHEAD_MIN: usize = 2;

/// How many seconds' worth of pieces may be pending: of a peer by the rate at which it downloads,
/// and of all peers by the rate of the uplink.
const AHEAD_SECONDS: f64 = 0.15;

/// Least number of pending bytes of all peers together.
const AHEAD_ALL: usize = 2 << 20;

/// Least time without progress after which a peer is overdue.
const OVERDUE_MIN: Duration = Duration::from_secs(2);

/// Overdue timeout, as a multiple of the uplink time for all pending pieces.
const OVERDUE_TIMES: f64 = 4.0;

/// How long the last pieces may be pending before they are revealed to all.
const LAST_PIECES_LIMIT: Duration = Duration::from_millis(500);

/// Most peers to which every piece is revealed in the end.
const REVEAL_ALL_MAX: usize = 64;

impl SuperSeeder {
    /// No piece was sent yet; they are revealed in random order.
    pub fn new(pieces: u32, piece_bytes: u32, random: &mut Random) -> Self {
        let mut unrevealed: Vec<u32> = (0..pieces).collect();
        random.shuffle(&mut unrevealed);
        let mut plan = vec![0; pieces as usize];
        for (turn, &piece) in (1..).zip(&unrevealed) {
            plan[piece as usize] = turn;
        }
        Self {
            plan,
            unrevealed: unrevealed.into(),
            piece_bytes,
            copies: vec![0; pieces as usize],
            revealed_once: Bitfield::new(pieces),
            brought: Bitfield::new(pieces),
            ..Self::default()
        }
    }

    /// A seeder that hides nothing.
    pub fn all_revealed(pieces: u32, piece_bytes: u32) -> Self {
        Self {
            unrevealed: VecDeque::new(),
            plan: Vec::new(),
            revealed_once: Bitfield::full(pieces),
            reveals_all: true,
            ..Self::new(pieces, piece_bytes, &mut Random::new(0))
        }
    }

    /// Adds a peer, to which pieces are revealed once it is admitted.
    pub fn add_peer(&mut self, peer: u32) {
        self.remove_peer(peer);
        let none = Bitfield::new(self.revealed_once.len());
        let new = SeededPeer { revealed: none.clone(), has: none, ..SeededPeer::default() };
        self.peers.insert(peer, new);
    }

    /// The peer's session is released. Before, it would not download what is revealed to it.
    pub fn admit(&mut self, peer: u32) {
        if self.peers.contains_key(&peer) && !self.turns.contains(&peer) {
            self.turns.push_back(peer);
        }
    }

    /// Removes a peer that left. Its pending pieces are the next to be revealed.
    pub fn remove_peer(&mut self, peer: u32) {
        self.turns.retain(|&other| other != peer);
        if let Some(gone) = self.peers.remove(&peer) {
            if !gone.doubtful {
                self.pending -= gone.pending.len();
            }
            for piece in gone.pending {
                self.unrevealed.push_front(piece);
            }
            for piece in gone.has.iter() {
                self.copies[piece as usize] -= 1;
            }
        }
    }

    /// A peer has announced a piece.
    pub fn peer_has(&mut self, peer: u32, piece: u32) {
        if self.revealed_once.set(piece) {
            self.brought.set(piece);
        }
        let Some(state) = self.peers.get_mut(&peer) else {
            return;
        };
        let is_new = state.has.set(piece);
        if is_new {
            self.copies[piece as usize] += 1;
        }
        if let Some(at) = state.pending.iter().position(|&other| other == piece) {
            state.pending.swap_remove(at);
            if std::mem::take(&mut state.doubtful) {
                // It downloads after all, and the rest of its pieces counts again.
                self.pending += state.pending.len();
            } else {
                self.pending -= 1;
            }
        }
        if is_new && state.doubtful {
            self.admit(peer);
        }
    }

    /// The next piece to reveal.
    fn next_unrevealed(&mut self) -> Option<u32> {
        while let Some(&piece) = self.unrevealed.front() {
            if !self.brought.has(piece) {
                return Some(piece);
            }
            self.unrevealed.pop_front();
        }
        None
    }

    /// The turn in which `piece` is to be revealed, from 1; `None` where nothing is hidden.
    pub fn turn(&self, piece: u32) -> Option<u32> {
        self.plan.get(piece as usize).copied()
    }

    /// How many peers say that they have `piece`.
    pub fn copies(&self, piece: u32) -> u32 {
        self.copies.get(piece as usize).copied().unwrap_or(0)
    }

    /// Marks peers as doubtful that made no progress in time. Their pending pieces are the next to
    /// be revealed, and they get no more before they announce a piece.
    fn mark_doubtful(&mut self, now: Moment, sent: impl Fn(u32) -> f64, uplink_rate: f64) {
        if self.peers.len() < 2 {
            return;
        }
        let timeout = OVERDUE_TIMES * self.pending as f64 / uplink_rate;
        // Without a rate the timeout is infinite, and the least one applies.
        let timeout =
            Duration::try_from_secs_f64(timeout).map_or(OVERDUE_MIN, |time| time.max(OVERDUE_MIN));
        for (&peer, state) in &mut self.peers {
            let sent = sent(peer);
            if state.pending.is_empty() || sent > state.sent {
                (state.sent, state.since) = (sent, now);
            }
            if now.since(state.since) < timeout {
                continue;
            }
            if !std::mem::replace(&mut state.doubtful, true) {
                self.pending -= state.pending.len();
            }
            for piece in state.pending.drain(..) {
                self.unrevealed.push_front(piece);
            }
            self.turns.retain(|&other| other != peer);
        }
    }

    /// The pieces to reveal at `now`, each with its peer. In the last `seconds` each peer was sent
    /// as many pieces as `sent` tells, in fractions too, and all peers together `sent_to_all`.
    pub fn reveal(
        &mut self,
        now: Moment,
        seconds: f64,
        sent: impl Fn(u32) -> f64,
        sent_to_all: f64,
    ) -> Vec<(u32, u32)> {
        let mut revealed = Vec::new();
        if self.reveals_all {
            return revealed;
        }
        let uplink_rate = sent_to_all / seconds;
        self.mark_doubtful(now, &sent, uplink_rate);
        if self.turns.is_empty() {
            return revealed;
        }
        let alone = self.peers.len() == 1;
        let least = AHEAD_ALL / self.piece_bytes as usize;
        let pending_max = ahead(uplink_rate).max(least).max(AHEAD_MIN);
        if self.next_unrevealed().is_none()
            && self.peers.len() > REVEAL_ALL_MAX
            && self.pending < pending_max
        {
            self.unrevealed = self.rarest();
            self.brought = Bitfield::new(self.brought.len());
        }
        while alone || self.pending < pending_max {
            let Some(piece) = self.next_unrevealed() else {
                break;
            };
            let mut lacking = false;
            let found = self.turns.iter().position(|peer| {
                let state = &self.peers[peer];
                let lacks = !state.has.has(piece) && !state.revealed.has(piece);
                lacking |= lacks;
                let most = AHEAD_MIN.max(ahead(sent(*peer) / seconds));
                lacks && (alone || state.pending.len() < most)
            });
            if found.is_none() && lacking {
                break;
            }
            self.unrevealed.pop_front();
            // Without a peer that lacks the piece, those to which it was revealed may still get it.
            if let Some(peer) = found.and_then(|at| self.turns.remove(at)) {
                self.turns.push_back(peer);
                self.reveal_to(peer, piece, now);
                revealed.push((peer, piece));
            }
        }
        revealed
    }

    fn reveal_to(&mut self, peer: u32, piece: u32, now: Moment) {
        let state = self.peers.get_mut(&peer).expect("only known peers have turns");
        state.revealed.set(piece);
        if state.pending.is_empty() {
            state.since = now;
        }
        state.pending.push(piece);
        self.pending += usize::from(!state.doubtful);
        self.revealed_once.set(piece);
    }

    /// The pieces that some peer lacks, the rarest first.
    fn rarest(&self) -> VecDeque<u32> {
        let mut pieces: Vec<(u32, u32)> = self.copies.iter().copied().zip(0..).collect();
        pieces.retain(|&(copies, _)| (copies as usize) < self.peers.len());
        pieces.sort_unstable();
        pieces.into_iter().map(|(_, piece)| piece).collect()
    }

    /// Reveals every piece to everybody, and returns true, once each piece has arrived somewhere
    /// or the last ones are pending for too long. Sooner, peers would request pieces that others
    /// are about to have: with ten megabytes that costs a fifth of the time.
    pub fn try_reveal_all(&mut self, now: Moment) -> bool {
        let exhausted = self.next_unrevealed().is_none() && self.peers.len() <= REVEAL_ALL_MAX;
        if self.reveals_all || !exhausted {
            self.exhausted_at = None;
            return false;
        }
        let exhausted = *self.exhausted_at.get_or_insert(now);
        self.reveals_all = self.pending == 0 || now.since(exhausted) >= LAST_PIECES_LIMIT;
        self.reveals_all
    }

    /// Whether `peer` may request `piece`: it was revealed to it, or the peer is of another
    /// program.
    pub fn may_request(&self, peer: u32, piece: u32) -> bool {
        self.peers.get(&peer).is_none_or(|state| {
            (self.reveals_all && self.turns.contains(&peer)) || state.revealed.has(piece)
        })
    }
}

/// How many pieces may be pending at a rate of so many pieces a second.
fn ahead(rate: f64) -> usize {
    (rate * AHEAD_SECONDS).ceil() as usize + 1
}

#[cfg(test)]
mod tests;
