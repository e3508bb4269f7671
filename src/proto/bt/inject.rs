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

use crate::proto::bt::bits::Bits;
use crate::proto::bt::random::Random;
use crate::units::Moment;

/// The pieces that are not out yet, and who was shown which.
#[derive(Debug)]
pub struct Injector {
    order: VecDeque<u32>,
    fed: BTreeMap<u32, Fed>,
    /// The peers of `fed` that are admitted, the next to be shown something first.
    line: VecDeque<u32>,
    /// Shown and not yet had, of all peers that are not in doubt.
    waiting: usize,
    piece_bytes: u32,
    /// How many of `fed` have each piece.
    copies: Vec<u32>,
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
    has: Bits,
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

impl Injector {
    /// Every piece, of so many bytes, is still to go out, in random order.
    pub fn new(pieces: u32, piece_bytes: u32, random: &mut Random) -> Self {
        let mut order: Vec<u32> = (0..pieces).collect();
        random.shuffle(&mut order);
        Self {
            order: order.into(),
            fed: BTreeMap::new(),
            line: VecDeque::new(),
            waiting: 0,
            piece_bytes,
            copies: vec![0; pieces as usize],
            out: Bits::new(pieces),
            open: false,
            emptied: None,
        }
    }

    /// A seeder that has nothing to hold back.
    pub fn opened(pieces: u32, piece_bytes: u32) -> Self {
        Self {
            order: VecDeque::new(),
            out: Bits::full(pieces),
            open: true,
            ..Self::new(pieces, piece_bytes, &mut Random::new(0))
        }
    }

    /// True when everything is shown to everybody.
    pub fn is_open(&self) -> bool {
        self.open
    }

    /// A peer that is to be fed, from [`Injector::admit`] on.
    pub fn join(&mut self, peer: u32) {
        self.leave(peer);
        let none = || Bits::new(u32::try_from(self.copies.len()).expect("bounded by the metainfo"));
        let new = Fed {
            shown: none(),
            has: none(),
            waiting: Vec::new(),
            given: 0.0,
            since: Moment(0),
            doubtful: false,
        };
        self.fed.insert(peer, new);
    }

    /// The peer's session is released: before, it would sit on what it is shown.
    pub fn admit(&mut self, peer: u32) {
        if self.fed.contains_key(&peer) && !self.line.contains(&peer) {
            self.line.push_back(peer);
        }
    }

    /// A peer that left; what it was shown and never had goes out first.
    pub fn leave(&mut self, peer: u32) {
        self.line.retain(|&other| other != peer);
        if let Some(fed) = self.fed.remove(&peer) {
            if !fed.doubtful {
                self.waiting -= fed.waiting.len();
            }
            for piece in fed.waiting {
                self.order.push_front(piece);
            }
            for piece in fed.has.iter() {
                self.copies[piece as usize] -= 1;
            }
        }
    }

    /// A peer has a piece now.
    pub fn had(&mut self, peer: u32, piece: u32) {
        // What somebody brought with him needs no injection.
        if !self.out.has(piece) {
            self.order.retain(|&waiting| waiting != piece);
            self.out.set(piece);
        }
        let Some(fed) = self.fed.get_mut(&peer) else {
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
    fn give_up(&mut self, now: Moment, given: impl Fn(u32) -> f64, all_rate: f64) {
        if self.fed.len() < 2 {
            return;
        }
        #[allow(clippy::cast_precision_loss, reason = "a count of pieces")]
        let takes = OVERDUE_TIMES * self.waiting as f64 / all_rate;
        // No rate is none known yet.
        let most = Duration::try_from_secs_f64(takes).map_or(OVERDUE_MIN, |d| d.max(OVERDUE_MIN));
        for (&peer, fed) in &mut self.fed {
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
                self.order.push_front(piece);
            }
            self.line.retain(|&other| other != peer);
        }
    }

    /// The pieces to show at `now`, and to whom. Within `seconds` the uplink has given each peer as
    /// many pieces as `given` tells, which need not be whole ones, and to all of them `all`.
    pub fn show(
        &mut self,
        now: Moment,
        seconds: f64,
        given: impl Fn(u32) -> f64,
        all: f64,
    ) -> Vec<(u32, u32)> {
        let mut shown = Vec::new();
        if self.open {
            return shown;
        }
        let all_rate = all / seconds;
        self.give_up(now, &given, all_rate);
        let piece_rate = |peer: u32| given(peer) / seconds;
        if self.line.is_empty() {
            return shown;
        }
        let alone = self.fed.len() == 1;
        let least = AHEAD_ALL / self.piece_bytes as usize;
        let all = ahead(all_rate).max(least).max(AHEAD_MIN);
        if self.order.is_empty() && self.fed.len() > OPEN_MAX && self.waiting < all {
            self.order = self.rarest();
        }
        while alone || self.waiting < all {
            let Some(&piece) = self.order.front() else {
                break;
            };
            let mut lacking = false;
            let found = self.line.iter().position(|peer| {
                let fed = &self.fed[peer];
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
                self.order.pop_front();
                continue;
            };
            self.order.pop_front();
            let peer = self.line.remove(at).expect("just found");
            self.line.push_back(peer);
            let fed = self.fed.get_mut(&peer).expect("who is in line is fed");
            fed.shown.set(piece);
            if fed.waiting.is_empty() {
                fed.since = now;
            }
            fed.waiting.push(piece);
            self.waiting += usize::from(!fed.doubtful);
            self.out.set(piece);
            shown.push((peer, piece));
        }
        shown
    }

    /// The pieces that somebody lacks, the rarest first.
    fn rarest(&self) -> VecDeque<u32> {
        let mut pieces: Vec<(u32, u32)> = self.copies.iter().copied().zip(0..).collect();
        pieces.retain(|&(copies, _)| (copies as usize) < self.fed.len());
        pieces.sort_unstable();
        pieces.into_iter().map(|(_, piece)| piece).collect()
    }

    /// True once, when everything may be shown to all: every piece has arrived somewhere, or the
    /// last were shown so long ago that their peers must be in trouble. Sooner, and others ask the
    /// seeder for what is on its way: with ten megabytes that costs a fifth of the time.
    pub fn opens(&mut self, now: Moment) -> bool {
        if self.open || !self.order.is_empty() || self.fed.len() > OPEN_MAX {
            self.emptied = None;
            return false;
        }
        let emptied = *self.emptied.get_or_insert(now);
        self.open = self.waiting == 0 || now.since(emptied) >= PATIENCE;
        self.open
    }

    /// Whether `peer` may ask for `piece`: it was shown it, or is none that we feed.
    pub fn may_have(&self, peer: u32, piece: u32) -> bool {
        let shown = |fed: &Fed| (self.open && self.line.contains(&peer)) || fed.shown.has(piece);
        self.fed.get(&peer).is_none_or(shown)
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
mod tests {
    use super::*;

    const T0: Moment = Moment(1);
    const PIECE: u32 = 1 << 20;

    /// What is shown to all at these rates.
    fn show(injector: &mut Injector, rates: &[f64]) -> Vec<(u32, u32)> {
        let all = rates.iter().sum();
        let of = |peer: u32| rates.get(peer as usize).copied().unwrap_or(0.0);
        injector.show(T0, 1.0, of, all)
    }

    fn of(shown: &[(u32, u32)], peer: u32) -> Vec<u32> {
        let own = shown.iter().filter(|(to, _)| *to == peer);
        own.map(|(_, piece)| *piece).collect()
    }

    fn injector(pieces: u32) -> Injector {
        let mut injector = Injector::new(pieces, PIECE, &mut Random::new(1));
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
        while !injector.opens(T0) {
            for (peer, piece) in show(&mut injector, &[]) {
                assert!(seen.set(piece), "{piece} twice");
                assert!(injector.may_have(peer, piece));
                assert!(!injector.may_have((peer + 1) % 3, piece));
                injector.had(peer, piece);
            }
        }
        assert!(seen.is_full());
        assert!(
            injector.may_have(2, 0) && !injector.opens(T0),
            "it opens once"
        );
    }

    #[test]
    fn a_peer_is_shown_as_far_ahead_as_it_is_fast_and_all_as_far_as_the_uplink_is() {
        let mut fed = injector(100);
        let shown = show(&mut fed, &[]);
        assert_eq!(shown.len(), 2, "two megabytes, for a start");
        assert_ne!(shown[0].0, shown[1].0, "in turn");
        let mut fed = injector(100);
        let shown = show(&mut fed, &[0.0, 40.0, 20.0]);
        assert_eq!([0, 1, 2].map(|peer| of(&shown, peer).len()), [2, 4, 4]);
        fed.had(1, of(&shown, 1)[0]);
        let next = show(&mut fed, &[0.0, 40.0, 20.0]);
        assert_eq!(next.len(), 1, "one in the place of one");
    }

    #[test]
    fn all_is_shown_once_every_piece_has_arrived_or_a_peer_is_in_trouble() {
        let mut fed = injector(4);
        let shown = show(&mut fed, &[9.0; 3]);
        assert_eq!(shown.len(), 4);
        assert!(!fed.opens(T0), "four are on their way");
        for &(peer, piece) in &shown[..3] {
            fed.had(peer, piece);
        }
        assert!(!fed.opens(T0.after(PATIENCE / 2)));
        let (peer, piece) = shown[3];
        fed.had(peer, piece);
        assert!(fed.opens(T0.after(PATIENCE / 2)));
        let mut late = injector(1);
        show(&mut late, &[]);
        assert!(!late.opens(T0) && late.opens(T0.after(PATIENCE)));
    }

    #[test]
    fn what_a_lost_peer_never_had_goes_out_again_first() {
        let mut fed = injector(10);
        let shown = show(&mut fed, &[20.0; 3]);
        let lost = of(&shown, 0);
        fed.had(0, lost[0]);
        fed.leave(0);
        let next = show(&mut fed, &[1e9; 3]);
        let again: Vec<u32> = next.iter().map(|(_, piece)| *piece).collect();
        assert!(lost[1..].contains(&again[0]));
        assert!(!again.contains(&lost[0]), "it is out");
    }

    /// Pieces of which two fill an uplink of one a second; peers 0 and 1 take nothing, peer 2 takes
    /// a quarter of a piece every quarter of a second. Returns when it had all ten.
    fn beside_two_that_are_frozen(frozen: usize) -> Option<u64> {
        let mut fed = Injector::new(10, 4 << 20, &mut Random::new(1));
        for peer in 0..3 {
            fed.join(peer);
            fed.admit(peer);
        }
        let (mut given, mut owed) = ([0.0; 3], Vec::new());
        for quarter in 0..400u32 {
            let now = T0.after(Duration::from_millis(250) * quarter);
            let seconds = (f64::from(quarter) / 4.0).max(0.1);
            let all = given.iter().sum();
            let shown = fed.show(now, seconds, |peer| given[peer as usize], all);
            owed.extend(
                shown
                    .into_iter()
                    .filter(|&(peer, _)| peer as usize >= frozen),
            );
            if fed.opens(now) || fed.out.is_full() && owed.is_empty() {
                return Some(u64::from(quarter) / 4);
            }
            if let Some(&(peer, piece)) = owed.first() {
                given[peer as usize] += 0.25;
                if quarter % 4 == 3 {
                    owed.remove(0);
                    fed.had(peer, piece);
                }
            }
        }
        None
    }

    #[test]
    fn frozen_peers_hold_up_nobody_for_long_and_slow_ones_are_not_taken_for_frozen() {
        let alone = beside_two_that_are_frozen(0).expect("an end");
        assert!(
            (8..=10).contains(&alone),
            "as fast as the uplink: {alone} s"
        );
        let late = beside_two_that_are_frozen(2).expect("an end");
        assert!(
            late <= alone + 12,
            "once two seconds and once some: {late} s"
        );
    }

    #[test]
    fn who_was_frozen_is_shown_more_once_it_tells_of_a_piece_and_in_doubt_till_it_takes_one() {
        let mut fed = injector(100);
        let show_at = |fed: &mut Injector, ms: u64, given: [f64; 3]| {
            let now = T0.after(Duration::from_millis(ms));
            fed.show(now, 1.0, |peer| given[peer as usize], 0.0)
        };
        let first = show_at(&mut fed, 0, [0.0; 3]);
        assert_eq!(first.len(), 2, "all that is shown ahead");
        assert!(show_at(&mut fed, 1999, [0.0; 3]).is_empty());
        let again = show_at(&mut fed, 2000, [0.0; 3]);
        assert!(again.iter().all(|&(peer, _)| peer == 2), "{again:?}");
        let pieces = |shown: &[(u32, u32)]| -> Vec<u32> {
            let mut all: Vec<u32> = shown.iter().map(|one| one.1).collect();
            all.sort_unstable();
            all
        };
        assert_eq!(pieces(&again), pieces(&first), "the same, to another");
        let (back, its) = first[0];
        assert!(fed.may_have(back, its), "what it was shown stays its");
        fed.had(back, 99);
        let more = show_at(&mut fed, 2001, [0.0, 0.0, 0.0]);
        assert!(more.iter().all(|&(peer, _)| peer == back), "{more:?}");
        assert_eq!((more.len(), fed.waiting), (0, 2), "the others wait for two");
        fed.had(2, again[0].1);
        let more = show_at(&mut fed, 2002, [0.0, 0.0, 1.0]);
        assert_eq!(of(&more, 2).len(), 1, "in the place of one: {more:?}");
        fed.had(2, again[1].1);
        let more = show_at(&mut fed, 2003, [0.0, 0.0, 2.0]);
        assert_eq!(of(&more, 2).len(), 1, "as if the other were not there");
        let its = of(&more, back);
        assert_eq!((its.len(), fed.waiting), (1, 2), "{more:?}");
        fed.had(back, its[0]);
        assert!(!fed.fed[&back].doubtful, "it takes what it is shown");
    }

    #[test]
    fn a_single_peer_is_shown_everything_and_a_foreign_one_is_not_held_back() {
        let mut injector = Injector::new(10, PIECE, &mut Random::new(1));
        injector.join(0);
        injector.join(1);
        assert!(
            show(&mut injector, &[]).is_empty() && !injector.may_have(0, 0),
            "not released"
        );
        injector.admit(0);
        assert_eq!(
            show(&mut injector, &[]).len(),
            2,
            "the other is released in a moment, and would find nothing left"
        );
        assert!(!injector.may_have(1, 3));
        assert!(injector.may_have(99, 3));
        injector.leave(1);
        assert_eq!(show(&mut injector, &[]).len(), 8);
    }

    #[test]
    fn many_are_never_shown_everything_but_the_rarest_first() {
        let mut fed = Injector::new(3, PIECE, &mut Random::new(1));
        let many = u32::try_from(OPEN_MAX).expect("few") + 1;
        for peer in 0..many {
            fed.join(peer);
            fed.admit(peer);
        }
        (0..many - 1).for_each(|peer| fed.had(peer, 0));
        (0..many - 2).for_each(|peer| fed.had(peer, 1));
        fed.had(7, 2);
        assert!(!fed.opens(T0.after(PATIENCE)));
        let mut shown = Vec::new();
        loop {
            let some = show(&mut fed, &[]);
            if some.is_empty() {
                break;
            }
            for (peer, piece) in some {
                fed.had(peer, piece);
                assert_ne!(peer, 7, "has all of them");
                shown.push(piece);
            }
        }
        assert_eq!(shown[..3], [2, 1, 0]);
        let lacking = |piece| shown.iter().filter(|&&other| other == piece).count();
        assert_eq!([lacking(0), lacking(1)], [1, 2]);
    }
}
