//! Which pieces a seeder shows to whom: eager unique injection.
//!
//! A seeder that gives a piece twice while another has not left it once makes everybody wait. So
//! each of our own peers is shown pieces that nobody else was shown, in turn, as many as keep the
//! seeder's uplink busy and no more; nothing waits for a piece to spread (BEP 16, which does, takes
//! 1.75 times the bound). When every piece is out, all are shown to all, and the seeder serves the
//! rest like any other peer. In a swarm of many it goes on showing each piece to one at a time,
//! the rarest first: a thousand that ask for what they like would each wait for seconds. Peers of
//! other programs are shown everything at once: transmission looks for new pieces twice a second,
//! and would starve.
//!
//! A peer that takes nothing of what it was shown is in nobody's way for long: its pieces go out
//! again to others, and it is shown more once it has told of a piece.

use std::collections::BTreeMap;
use std::collections::VecDeque;
use std::time::Duration;

use crate::proto::bt::bits::Bitfield;
use crate::proto::bt::random::Random;
use crate::units::Moment;

/// The pieces that are not out yet, and who was shown which.
#[derive(Debug)]
pub struct SuperSeeder {
    unrevealed: VecDeque<u32>,
    peers: BTreeMap<u32, SeededPeer>,
    /// The peers of `fed` that are admitted, the next to be shown something first.
    turns: VecDeque<u32>,
    /// Shown and not yet had, of all peers that are not in doubt.
    waiting: usize,
    piece_bytes: u32,
    /// How many of `fed` have each piece.
    copies: Vec<u32>,
    /// Pieces that were shown once, or that somebody has.
    distributed: Bitfield,
    /// Everything is shown to everybody.
    all_visible: bool,
    /// When the last piece was shown.
    last_revealed_at: Option<Moment>,
}

#[derive(Debug)]
struct SeededPeer {
    shown: Bitfield,
    has: Bitfield,
    /// Shown and not yet had.
    waiting: Vec<u32>,
    /// How many pieces it had been given when it was last seen to take some, and when that was.
    given: f64,
    since: Moment,
    /// It was overdue: until it has a piece that it was shown, what it is shown holds up nobody.
    doubtful: bool,
}

/// Least number of pieces that a peer is shown ahead.
const AHEAD_MIN: usize = 2;

/// How far ahead a peer is shown pieces, by the rate at which it takes them, seconds; and all
/// together, by the uplink's rate.
const AHEAD_SECONDS: f64 = 0.15;

/// What all together are shown ahead at least, bytes.
const AHEAD_ALL: usize = 2 << 20;

/// How long a peer may take nothing of what it was shown at least.
const OVERDUE_MIN: Duration = Duration::from_secs(2);

/// And how many times as long as the uplink takes for all that is shown.
const OVERDUE_TIMES: f64 = 4.0;

/// How long the last pieces may take to arrive before they are shown to others too.
const PATIENCE: Duration = Duration::from_millis(500);

/// Most peers to which everything is shown in the end.
const OPEN_MAX: usize = 64;

impl SuperSeeder {
    /// Every piece, of so many bytes, is still to go out, in random order.
    pub fn new(pieces: u32, piece_bytes: u32, random: &mut Random) -> Self {
        let mut order: Vec<u32> = (0..pieces).collect();
        random.shuffle(&mut order);
        Self {
            unrevealed: order.into(),
            peers: BTreeMap::new(),
            turns: VecDeque::new(),
            waiting: 0,
            piece_bytes,
            copies: vec![0; pieces as usize],
            distributed: Bitfield::new(pieces),
            all_visible: false,
            last_revealed_at: None,
        }
    }

    /// A seeder that has nothing to hold back.
    pub fn all_revealed(pieces: u32, piece_bytes: u32) -> Self {
        Self {
            unrevealed: VecDeque::new(),
            distributed: Bitfield::full(pieces),
            all_visible: true,
            ..Self::new(pieces, piece_bytes, &mut Random::new(0))
        }
    }

    /// True when everything is shown to everybody.
    pub fn reveals_all(&self) -> bool {
        self.all_visible
    }

    /// A peer that is to be fed, from [`Injector::admit`] on.
    pub fn add_peer(&mut self, peer: u32) {
        self.remove_peer(peer);
        let none =
            || Bitfield::new(u32::try_from(self.copies.len()).expect("bounded by the metainfo"));
        let new = SeededPeer {
            shown: none(),
            has: none(),
            waiting: Vec::new(),
            given: 0.0,
            since: Moment(0),
            doubtful: false,
        };
        self.peers.insert(peer, new);
    }

    /// The peer's session is released: before, it would sit on what it is shown.
    pub fn admit(&mut self, peer: u32) {
        if self.peers.contains_key(&peer) && !self.turns.contains(&peer) {
            self.turns.push_back(peer);
        }
    }

    /// A peer that left; what it was shown and never had goes out first.
    pub fn remove_peer(&mut self, peer: u32) {
        self.turns.retain(|&other| other != peer);
        if let Some(fed) = self.peers.remove(&peer) {
            if !fed.doubtful {
                self.waiting -= fed.waiting.len();
            }
            for piece in fed.waiting {
                self.unrevealed.push_front(piece);
            }
            for piece in fed.has.iter() {
                self.copies[piece as usize] -= 1;
            }
        }
    }

    /// A peer has a piece now.
    pub fn peer_has(&mut self, peer: u32, piece: u32) {
        // What somebody brought with him needs no injection.
        if !self.distributed.has(piece) {
            self.unrevealed.retain(|&waiting| waiting != piece);
            self.distributed.set(piece);
        }
        let Some(fed) = self.peers.get_mut(&peer) else {
            return;
        };
        let new = fed.has.set(piece);
        if new {
            self.copies[piece as usize] += 1;
        }
        if let Some(at) = fed.waiting.iter().position(|&waiting| waiting == piece) {
            fed.waiting.swap_remove(at);
            match std::mem::take(&mut fed.doubtful) {
                // It takes what it is shown after all, and the rest of that counts again.
                true => self.waiting += fed.waiting.len(),
                false => self.waiting -= 1,
            }
        }
        if new && fed.doubtful {
            self.admit(peer);
        }
    }

    /// Who has taken nothing for too long of what it was shown holds up nobody any more: that goes
    /// out again, first, and it is shown nothing more before it tells of a piece.
    fn mark_doubtful(&mut self, now: Moment, given: impl Fn(u32) -> f64, all_rate: f64) {
        if self.peers.len() < 2 {
            return;
        }
        #[allow(clippy::cast_precision_loss, reason = "a count of pieces")]
        let takes = OVERDUE_TIMES * self.waiting as f64 / all_rate;
        // No rate is none known yet.
        let most = Duration::try_from_secs_f64(takes).map_or(OVERDUE_MIN, |d| d.max(OVERDUE_MIN));
        for (&peer, fed) in &mut self.peers {
            let taken = given(peer);
            if fed.waiting.is_empty() || taken > fed.given {
                (fed.given, fed.since) = (taken, now);
            }
            if now.since(fed.since) < most {
                continue;
            }
            if !std::mem::replace(&mut fed.doubtful, true) {
                self.waiting -= fed.waiting.len();
            }
            for piece in fed.waiting.drain(..) {
                self.unrevealed.push_front(piece);
            }
            self.turns.retain(|&other| other != peer);
        }
    }

    /// The pieces to show at `now`, and to whom. Within `seconds` the uplink has given each peer as
    /// many pieces as `given` tells, which need not be whole ones, and to all of them `all`.
    pub fn reveal(
        &mut self,
        now: Moment,
        seconds: f64,
        given: impl Fn(u32) -> f64,
        all: f64,
    ) -> Vec<(u32, u32)> {
        let mut shown = Vec::new();
        if self.all_visible {
            return shown;
        }
        let all_rate = all / seconds;
        self.mark_doubtful(now, &given, all_rate);
        let piece_rate = |peer: u32| given(peer) / seconds;
        if self.turns.is_empty() {
            return shown;
        }
        let alone = self.peers.len() == 1;
        let least = AHEAD_ALL / self.piece_bytes as usize;
        let all = ahead(all_rate).max(least).max(AHEAD_MIN);
        if self.unrevealed.is_empty() && self.peers.len() > OPEN_MAX && self.waiting < all {
            self.unrevealed = self.rarest();
        }
        while alone || self.waiting < all {
            let Some(&piece) = self.unrevealed.front() else {
                break;
            };
            let mut lacking = false;
            let found = self.turns.iter().position(|peer| {
                let fed = &self.peers[peer];
                let lacks = !fed.has.has(piece) && !fed.shown.has(piece);
                lacking |= lacks;
                let most = AHEAD_MIN.max(ahead(piece_rate(*peer)));
                lacks && (alone || fed.waiting.len() < most)
            });
            let Some(at) = found else {
                if lacking {
                    break;
                }
                // Nobody needs it; whoever was shown it before may still get it.
                self.unrevealed.pop_front();
                continue;
            };
            self.unrevealed.pop_front();
            let peer = self.turns.remove(at).expect("just found");
            self.turns.push_back(peer);
            let fed = self.peers.get_mut(&peer).expect("who is in line is fed");
            fed.shown.set(piece);
            if fed.waiting.is_empty() {
                fed.since = now;
            }
            fed.waiting.push(piece);
            self.waiting += usize::from(!fed.doubtful);
            self.distributed.set(piece);
            shown.push((peer, piece));
        }
        shown
    }

    /// The pieces that somebody lacks, the rarest first.
    fn rarest(&self) -> VecDeque<u32> {
        let mut pieces: Vec<(u32, u32)> = self.copies.iter().copied().zip(0..).collect();
        pieces.retain(|&(copies, _)| (copies as usize) < self.peers.len());
        pieces.sort_unstable();
        pieces.into_iter().map(|(_, piece)| piece).collect()
    }

    /// True once, when everything may be shown to all: every piece has arrived somewhere, or the
    /// last were shown so long ago that their peers must be in trouble. Sooner, and others ask the
    /// seeder for what is on its way: with ten megabytes that costs a fifth of the time.
    pub fn try_reveal_all(&mut self, now: Moment) -> bool {
        if self.all_visible || !self.unrevealed.is_empty() || self.peers.len() > OPEN_MAX {
            self.last_revealed_at = None;
            return false;
        }
        let emptied = *self.last_revealed_at.get_or_insert(now);
        self.all_visible = self.waiting == 0 || now.since(emptied) >= PATIENCE;
        self.all_visible
    }

    /// Whether `peer` may ask for `piece`: it was shown it, or is none that we feed.
    pub fn may_request(&self, peer: u32, piece: u32) -> bool {
        let shown = |fed: &SeededPeer| {
            (self.all_visible && self.turns.contains(&peer)) || fed.shown.has(piece)
        };
        self.peers.get(&peer).is_none_or(shown)
    }
}

#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "saturates"
)]
fn ahead(rate: f64) -> usize {
    (rate * AHEAD_SECONDS).ceil() as usize + 1
}

#[cfg(test)]
mod tests;
