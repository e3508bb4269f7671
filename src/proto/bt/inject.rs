//! Which pieces a seeder shows to whom: eager unique injection.
//!
//! A seeder that gives a piece twice while another has not left it once makes everybody wait. So
//! each of our own peers is shown pieces that nobody else was shown, as many as keep its download
//! from the seeder busy and no more; nothing waits for a piece to spread (BEP 16, which does, takes
//! 1.75 times the bound). When every piece is out, all are shown to all, and the seeder serves the
//! rest like any other peer. Peers of other programs are shown everything at once: transmission
//! looks for new pieces twice a second, and would starve.

use std::collections::BTreeMap;
use std::collections::VecDeque;
use std::time::Duration;

use crate::proto::bt::bits::Bits;
use crate::proto::bt::table::Random;
use crate::units::Moment;

/// The pieces that are not out yet, and who was shown which.
#[derive(Debug)]
pub struct Injector {
    order: VecDeque<u32>,
    fed: BTreeMap<u32, Fed>,
    pieces: u32,
    /// Pieces that were shown once, or that somebody has.
    out: Bits,
    /// Everything is shown to everybody.
    open: bool,
    /// When the last piece was shown.
    emptied: Option<Moment>,
}

#[derive(Debug)]
struct Fed {
    shown: Bits,
    /// Shown and not yet had.
    waiting: Vec<u32>,
    admitted: bool,
}

/// Least number of pieces that a peer is shown ahead.
const AHEAD_MIN: usize = 2;

/// How far ahead a peer is shown pieces, by the rate at which it takes them, seconds.
const AHEAD_SECONDS: f64 = 0.15;

/// How long the last pieces may take to arrive before they are shown to others too.
const PATIENCE: Duration = Duration::from_millis(500);

impl Injector {
    /// Every piece is still to go out, in random order.
    pub fn new(pieces: u32, random: &mut Random) -> Self {
        let mut order: Vec<u32> = (0..pieces).collect();
        random.shuffle(&mut order);
        Self {
            order: order.into(),
            fed: BTreeMap::new(),
            pieces,
            out: Bits::new(pieces),
            open: false,
            emptied: None,
        }
    }

    /// A seeder that has nothing to hold back.
    pub fn opened(pieces: u32) -> Self {
        Self {
            order: VecDeque::new(),
            fed: BTreeMap::new(),
            pieces,
            out: Bits::full(pieces),
            open: true,
            emptied: None,
        }
    }

    /// True when everything is shown to everybody.
    pub fn is_open(&self) -> bool {
        self.open
    }

    /// A peer that is to be fed, from [`Injector::admit`] on.
    pub fn join(&mut self, peer: u32) {
        let new = Fed {
            shown: Bits::new(self.pieces),
            waiting: Vec::new(),
            admitted: false,
        };
        self.fed.insert(peer, new);
    }

    /// The peer's session is released: before, it would sit on what it is shown.
    pub fn admit(&mut self, peer: u32) {
        if let Some(fed) = self.fed.get_mut(&peer) {
            fed.admitted = true;
        }
    }

    /// A peer that left; what it was shown and never had goes out first.
    pub fn leave(&mut self, peer: u32) {
        if let Some(fed) = self.fed.remove(&peer) {
            fed.waiting
                .into_iter()
                .for_each(|piece| self.order.push_front(piece));
        }
    }

    /// A peer has a piece now.
    pub fn had(&mut self, peer: u32, piece: u32) {
        // What somebody brought with him needs no injection.
        if !self.out.has(piece) {
            self.order.retain(|&waiting| waiting != piece);
            self.out.set(piece);
        }
        if let Some(fed) = self.fed.get_mut(&peer)
            && let Some(at) = fed.waiting.iter().position(|&waiting| waiting == piece)
        {
            fed.waiting.swap_remove(at);
        }
    }

    /// The pieces to show to `peer` now, which takes `piece_rate` pieces a second.
    pub fn show(&mut self, peer: u32, piece_rate: f64) -> Vec<u32> {
        let alone = self.fed.values().filter(|fed| fed.admitted).count() == 1;
        let admitted = self.fed.get_mut(&peer).filter(|fed| fed.admitted);
        let Some(fed) = admitted.filter(|_| !self.open) else {
            return Vec::new();
        };
        #[allow(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "saturates"
        )]
        let ahead = AHEAD_MIN.max((piece_rate * AHEAD_SECONDS).ceil() as usize + 1);
        let ahead = if alone { usize::MAX } else { ahead };
        let mut shown = Vec::new();
        while fed.waiting.len() < ahead {
            let Some(piece) = self.order.pop_front() else {
                break;
            };
            self.out.set(piece);
            fed.shown.set(piece);
            fed.waiting.push(piece);
            shown.push(piece);
        }
        shown
    }

    /// True once, when everything may be shown to all: every piece has arrived somewhere, or the
    /// last were shown so long ago that their peers must be in trouble. Sooner, and others ask the
    /// seeder for what is on its way: with ten megabytes that costs a fifth of the time.
    pub fn opens(&mut self, now: Moment) -> bool {
        if self.open || !self.order.is_empty() {
            self.emptied = None;
            return false;
        }
        let emptied = *self.emptied.get_or_insert(now);
        let waiting = self.fed.values().any(|fed| !fed.waiting.is_empty());
        self.open = !waiting || now.since(emptied) >= PATIENCE;
        self.open
    }

    /// Whether `peer` may ask for `piece`: it was shown it, or is none that we feed.
    pub fn may_have(&self, peer: u32, piece: u32) -> bool {
        let fed = self.fed.get(&peer);
        fed.is_none_or(|fed| fed.admitted && (self.open || fed.shown.has(piece)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const T0: Moment = Moment(1);

    fn injector(pieces: u32) -> Injector {
        let mut injector = Injector::new(pieces, &mut Random::new(1));
        for peer in 0..3 {
            injector.join(peer);
            injector.admit(peer);
        }
        injector
    }

    #[test]
    fn no_piece_is_shown_twice_before_every_piece_is_out() {
        let mut injector = injector(20);
        let mut seen = Bits::new(20);
        'all: loop {
            for peer in 0..3 {
                for piece in injector.show(peer, 0.0) {
                    assert!(seen.set(piece), "{piece} twice");
                    assert!(injector.may_have(peer, piece));
                    assert!(!injector.may_have((peer + 1) % 3, piece));
                    injector.had(peer, piece);
                }
                if injector.opens(T0) {
                    break 'all;
                }
            }
        }
        assert!(seen.is_full());
        assert!(
            injector.may_have(2, 0) && !injector.opens(T0),
            "it opens once"
        );
    }

    #[test]
    fn a_peer_is_shown_as_far_ahead_as_it_is_fast() {
        let mut injector = injector(100);
        assert_eq!(injector.show(0, 0.0).len(), 2);
        assert_eq!(injector.show(0, 0.0).len(), 0);
        assert_eq!(injector.show(1, 40.0).len(), 7);
        assert_eq!(injector.show(0, 40.0).len(), 5);
    }

    #[test]
    fn all_is_shown_once_every_piece_has_arrived_or_a_peer_is_in_trouble() {
        let mut injector = injector(4);
        let (one, two) = (injector.show(0, 0.0), injector.show(1, 0.0));
        assert!(!injector.opens(T0), "four are on their way");
        one.iter()
            .chain(&two[..1])
            .for_each(|&piece| injector.had(0, piece));
        injector.had(1, two[0]);
        assert!(!injector.opens(T0.after(PATIENCE / 2)));
        let mut late = Injector::new(1, &mut Random::new(1));
        late.join(0);
        late.join(1);
        late.admit(0);
        late.admit(1);
        late.show(0, 0.0);
        assert!(!late.opens(T0) && late.opens(T0.after(PATIENCE)));
        injector.had(1, two[1]);
        assert!(injector.opens(T0.after(PATIENCE / 2)));
    }

    #[test]
    fn what_a_lost_peer_never_had_goes_out_again_first() {
        let mut injector = injector(10);
        let lost = injector.show(0, 0.0);
        injector.had(0, lost[0]);
        injector.leave(0);
        assert_eq!(injector.show(1, 0.0)[0], lost[1]);
        let rest: Vec<u32> = (0..9).flat_map(|_| injector.show(2, 1e9)).collect();
        assert!(!rest.contains(&lost[0]), "it is out");
    }

    #[test]
    fn a_single_peer_is_shown_everything_and_a_foreign_one_is_not_held_back() {
        let mut injector = Injector::new(10, &mut Random::new(1));
        injector.join(0);
        injector.join(1);
        assert!(
            injector.show(0, 0.0).is_empty() && !injector.may_have(0, 0),
            "not released"
        );
        injector.admit(0);
        assert_eq!(injector.show(0, 0.0).len(), 10, "the other is not released");
        assert!(!injector.may_have(1, 3));
        assert!(injector.may_have(99, 3));
    }
}
