//! A chain of clients: who takes the file from whom, and who is stepped over.
//!
//! The server holds one [`Chain`] for each session. Everybody takes from the nearest who stands
//! before, the first from the server. Whoever is gone or stands still is stepped over: who took from
//! it goes on, from its own offset, at whoever stands before that one, at last at the server. So is
//! who gets less than half of what the one before it gets. A member only ever moves towards the
//! server, so that no circle can come about, whatever members say.

use std::{
    collections::BTreeMap,
    net::IpAddr,
    ops::Bound::{Excluded, Unbounded},
    time::Duration,
};

use crate::{
    session::SeatId,
    units::{Moment, micros},
};

pub mod words;

/// Where a member stands: in the order of a roster's seats, else of addresses, so that a rack is
/// crossed once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// `None` where there is a roster.
    pub address: Option<IpAddr>,
    /// Its seat.
    pub seat: SeatId,
}

/// A member takes from another from now on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step {
    /// The member.
    pub seat: SeatId,
    /// Its steps are counted; what it says of an earlier one means nothing.
    pub step: u32,
    /// Whom it takes from; `None` is the server.
    pub from: Option<SeatId>,
}

/// The members of one session.
#[derive(Debug)]
pub struct Chain {
    bytes: u64,
    members: BTreeMap<SeatId, Member>,
    order: BTreeMap<Place, SeatId>,
    released: bool,
    ticked: Moment,
    /// When it was last looked who is slow.
    measured: Moment,
}

#[derive(Debug)]
struct Member {
    place: Place,
    /// It takes only from who stands before this place.
    before: Place,
    from: Option<SeatId>,
    step: u32,
    linked: bool,
    /// Links lost since its last byte.
    lost: u32,
    at: u64,
    /// Since when there is more for it, and it has not got further.
    behind: Option<Moment>,
    stalled: bool,
    /// It was moved to another link for that, and has got no further since.
    moved: bool,
    /// How far it was when it was last looked who is slow, and how often in a row it was.
    measured: u64,
    slow: u8,
}

/// Who gets no further for so long, though there is more for it, is stepped over.
pub const STALL: Duration = Duration::from_secs(1);

/// How often it is looked who is slow: who has not got yet what the one that stands before it had the
/// last time, and got less than half of what that one got since.
pub const SLOW: Duration = Duration::from_secs(1);

/// Who is found slow so often in a row is moved to another link: it may as well be the one before that
/// gives little ...
const SLOW_MOVED: u8 = 2;

/// ... and who is found so once more is stepped over for good.
const SLOW_OVER: u8 = 3;

/// How long one that stands still may take to make the link to another.
const ANSWER_LIMIT: Duration = Duration::from_millis(200);

/// After so many lost links without a byte a member takes from the server: nobody else may be within
/// its reach.
const LOST_MAX: u32 = 3;

/// So many links to the server may be lost without a byte.
const SERVER_LOST_MAX: u32 = 16;

impl Chain {
    /// A chain for a file of `bytes` bytes, without members.
    pub fn new(bytes: u64) -> Self {
        let (members, order) = (BTreeMap::new(), BTreeMap::new());
        let (ticked, measured) = (Moment(0), Moment(0));
        Self { bytes, members, order, released: false, ticked, measured }
    }

    /// A member comes. After the release nobody does: then there is no step.
    pub fn join(&mut self, place: Place) -> Vec<Step> {
        if self.released {
            return Vec::new();
        }
        let mut steps = self.leave(place.seat);
        let member = Member {
            place,
            before: place,
            from: None,
            step: 0,
            linked: false,
            lost: 0,
            at: 0,
            behind: None,
            stalled: false,
            moved: false,
            measured: 0,
            slow: 0,
        };
        self.members.insert(place.seat, member);
        self.order.insert(place, place.seat);
        steps.extend(self.assign(place.seat));
        let next = self.order.range((Excluded(place), Unbounded)).next().map(|(_, seat)| *seat);
        if let Some(next) = next.filter(|next| self.members[next].before > place) {
            steps.extend(self.assign(next));
        }
        steps
    }

    /// A member is gone.
    pub fn leave(&mut self, seat: SeatId) -> Vec<Step> {
        let Some(member) = self.members.remove(&seat) else {
            return Vec::new();
        };
        self.order.remove(&member.place);
        self.step_over(seat)
    }

    /// The bytes may move from now on.
    pub fn release(&mut self, now: Moment) {
        if !self.released {
            (self.released, self.ticked, self.measured) = (true, now, now);
        }
    }

    /// A member's link stands.
    pub fn linked(&mut self, seat: SeatId, step: u32) {
        if let Some(member) = self.members.get_mut(&seat).filter(|member| member.step == step) {
            (member.linked, member.behind) = (true, None);
        }
    }

    /// Whether the links of `steps` stand, or are not wanted any more.
    pub fn stand(&self, steps: &[Step]) -> bool {
        steps.iter().all(|step| {
            let member = self.members.get(&step.seat);
            member.is_none_or(|member| member.linked || member.step != step.step)
        })
    }

    /// A member lost its link, or could not make it.
    pub fn lost(&mut self, seat: SeatId, step: u32) -> Option<Step> {
        let member = self.members.get_mut(&seat).filter(|member| member.step == step)?;
        member.lost += 1;
        if member.from.is_none() && member.lost > SERVER_LOST_MAX {
            return None;
        }
        self.step_back(seat)
    }

    /// A member has the file's first `bytes` bytes.
    pub fn at(&mut self, seat: SeatId, bytes: u64) {
        let most = self.bytes;
        if let Some(member) = self.members.get_mut(&seat).filter(|member| member.at < bytes) {
            member.at = bytes.min(most);
            (member.lost, member.behind) = (0, None);
            (member.stalled, member.moved) = (false, false);
        }
    }

    /// How far a member is.
    pub fn bytes_of(&self, seat: SeatId) -> Option<u64> {
        self.members.get(&seat).map(|member| member.at)
    }

    /// Looks who stands still; `sent` tells up to which byte the server has sent to a member that
    /// takes from it, `None` where it has not asked for any.
    pub fn tick(&mut self, now: Moment, sent: impl Fn(SeatId) -> Option<u64>) -> Vec<Step> {
        let paused = now.since(std::mem::replace(&mut self.ticked, now)) >= STALL / 2;
        let mut steps = Vec::new();
        if !self.released {
            return steps;
        }
        let in_order: Vec<SeatId> = self.order.values().copied().collect();
        for seat in in_order {
            let member = &self.members[&seat];
            let there = match member.from {
                None => sent(seat).unwrap_or(self.bytes),
                Some(from) => self.members.get(&from).map_or(self.bytes, |from| from.at),
            };
            let is_behind = member.at < there;
            let member = self.members.get_mut(&seat).expect("it is in the order");
            match member.behind {
                _ if !is_behind => member.behind = None,
                // Who cannot look cannot tell.
                Some(_) if paused => member.behind = Some(now),
                Some(since) if now.since(since) >= STALL => {
                    // It may as well be the one before that gives nothing: who answers from another
                    // link is not the one that stands still.
                    if member.from.is_some() && !member.moved {
                        member.moved = true;
                        steps.extend(self.step_back(seat));
                        let since = Moment(now.0.saturating_sub(micros(STALL - ANSWER_LIMIT)));
                        self.members.get_mut(&seat).expect("it is there").behind = Some(since);
                    } else {
                        member.stalled = true;
                        steps.extend(self.step_over(seat));
                    }
                }
                Some(_) => {}
                None => member.behind = Some(now),
            }
        }
        if !paused && now.since(self.measured) >= SLOW {
            self.measured = now;
            steps.extend(self.step_over_slow());
        }
        steps
    }

    /// Looks who is slow, and moves it, or those behind it.
    fn step_over_slow(&mut self) -> Vec<Step> {
        let (mut found, mut before) = (Vec::new(), None);
        for &seat in self.order.values() {
            let member = &self.members[&seat];
            let got = member.at - member.measured;
            // Several who take from one end share what that gives.
            let share = || {
                let same = self.members.values().filter(|other| other.from == member.from);
                same.filter(|other| other.at < self.bytes).count() as u64
            };
            let is_slow = before.is_some_and(|(from, at, more)| {
                let is_less = member.at < at && 2 * got < more;
                is_less && (from == member.from || 2 * got * share() < more)
            });
            found.extend(is_slow.then_some(seat));
            if member.slow < SLOW_OVER {
                before = Some((member.from, member.measured, got));
            }
        }
        for (seat, member) in &mut self.members {
            member.measured = member.at;
            let is_slow = found.contains(seat) || member.slow == SLOW_OVER;
            member.slow = if is_slow { SLOW_OVER.min(member.slow + 1) } else { 0 };
        }
        let steps = found.into_iter().map(|seat| match self.members[&seat].slow {
            SLOW_OVER => self.step_over(seat),
            SLOW_MOVED => self.step_back(seat).into_iter().collect(),
            _ => Vec::new(),
        });
        steps.flatten().collect()
    }

    /// Those who took from `seat` take from who stands before it.
    fn step_over(&mut self, seat: SeatId) -> Vec<Step> {
        let takers = self.members.iter().filter(|(_, member)| {
            member.from == Some(seat) && (member.at < self.bytes || !self.released)
        });
        let takers: Vec<SeatId> = takers.map(|(taker, _)| *taker).collect();
        takers.into_iter().filter_map(|taker| self.step_back(taker)).collect()
    }

    /// Takes from who stands before the one that it takes from now.
    fn step_back(&mut self, seat: SeatId) -> Option<Step> {
        let from = self.members.get(&seat)?.from;
        if let Some(place) = from.and_then(|from| self.members.get(&from)).map(|from| from.place) {
            self.members.get_mut(&seat)?.before = place;
        }
        self.assign(seat)
    }

    /// Takes from the nearest before that it may take from.
    fn assign(&mut self, seat: SeatId) -> Option<Step> {
        let member = self.members.get(&seat)?;
        let mut before = self.order.range(..member.before).rev().map(|(_, seat)| *seat);
        let may_give = |giver: &Member| !giver.stalled && giver.slow < SLOW_OVER;
        let from = before.find(|seat| may_give(&self.members[seat]) && member.lost < LOST_MAX);
        let member = self.members.get_mut(&seat)?;
        (member.from, member.linked, member.behind) = (from, false, None);
        member.step += 1;
        Some(Step { seat, step: member.step, from })
    }
}

#[cfg(test)]
mod tests;
