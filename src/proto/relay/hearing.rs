//! What a viewer hears of the relay's group, and so whether it takes the stream from there: without
//! I/O, fed with numbers and the time.
//!
//! The group gets the stream in RTP, each datagram with the relay's number. The relay says from
//! which number on a viewer is sent to by the group, and up to which: what has another number is
//! not of the viewer's stream, and what is missing between them was lost.

use std::{ops::Range, time::Duration};

use crate::{proto::relay::ControlCommand, units::Moment};

/// What one viewer hears of a group.
#[derive(Debug)]
pub struct GroupHearing {
    /// Stay with the group, whatever is heard.
    always: bool,
    /// The numbers of the datagrams that are the viewer's stream; none before anything is decided.
    taken: Range<u64>,
    /// One more than the highest number known.
    next: u64,
    /// Datagrams heard since the last look, and sent to the viewer until then.
    heard: u64,
    sent: u64,
    /// The group is not tried again before this.
    not_before: Moment,
}

/// Datagrams of the relay that are enough for a look.
const ENOUGH: u64 = 8;

/// Of so many datagrams one may be missing: more, and they come by unicast.
const LOSS_MAX: u64 = 10;

/// A group that lost its viewer is not tried again for so long.
const HOLD: Duration = Duration::from_secs(30);

impl GroupHearing {
    /// Nothing is heard or decided yet of a group whose next datagram has the number `next`.
    pub fn new(next: u64, always: bool) -> Self {
        let (taken, not_before) = (u64::MAX..u64::MAX, Moment(0));
        Self { always, taken, next, heard: 0, sent: 0, not_before }
    }

    /// Whether the stream comes by the group, or nothing is decided yet.
    pub fn is_taken(&self) -> bool {
        self.taken.end == u64::MAX
    }

    /// Whether so much was heard that the group reaches this host.
    pub fn is_heard(&self) -> bool {
        self.always || self.heard >= ENOUGH
    }

    /// A datagram was heard whose number ends with these 16 bits. Whether it is of the stream.
    pub fn hears(&mut self, low: u16) -> bool {
        // The low bits are all that RTP has of it.
        let ahead = low.wrapping_sub(self.next as u16).cast_signed();
        let number = self.next.saturating_add_signed(ahead.into());
        self.next = self.next.max(number.saturating_add(1));
        self.heard += 1;
        self.taken.contains(&number)
    }

    /// The relay says at `now` how much it has `sent` to the viewer. Returns what to ask it for.
    pub fn check(&mut self, sent: u64, now: Moment) -> Option<ControlCommand> {
        let (expected, taken) = (sent.saturating_sub(self.sent), self.is_taken());
        if expected < ENOUGH && !self.always {
            return None;
        }
        let reaches = self.always || self.heard >= expected - expected / LOSS_MAX;
        (self.sent, self.heard) = (sent, 0);
        if taken && !reaches {
            self.not_before = now.after(HOLD);
            return Some(ControlCommand::Continue);
        }
        (!taken && reaches && now >= self.not_before).then_some(ControlCommand::Group)
    }

    /// From the datagram `next` on the relay sends by the group, or does not.
    pub fn switch(&mut self, by_group: bool, next: u64) {
        self.taken = if by_group { next..u64::MAX } else { self.taken.start..next };
        self.next = self.next.max(next);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A group and one viewer of it, in virtual time: a look each second.
    struct World {
        hearing: GroupHearing,
        next: u64,
        now: Moment,
        taken: u64,
    }

    impl World {
        fn new(next: u64, always: bool) -> Self {
            let mut hearing = GroupHearing::new(next, always);
            assert!(hearing.is_taken() && hearing.is_heard() == always, "listened for");
            hearing.switch(false, next);
            hearing.sent = next;
            Self { hearing, next, now: Moment(7), taken: 0 }
        }

        /// A second in which `count` datagrams are sent, of which `arrives` says what is heard; the
        /// relay does what the viewer then asks. Returns whether that is the group.
        fn second(&mut self, count: u64, arrives: impl Fn(u64) -> bool) -> Option<bool> {
            for number in (self.next..self.next + count).filter(|number| arrives(*number)) {
                self.taken += u64::from(self.hearing.hears(number as u16));
            }
            self.next += count;
            self.now = self.now.after(Duration::from_secs(1));
            let asked = self.hearing.check(self.next, self.now)?;
            let by_group = asked == ControlCommand::Group;
            assert!(by_group || asked == ControlCommand::Continue);
            self.hearing.switch(by_group, self.next);
            Some(by_group)
        }
    }

    #[test]
    fn viewer_takes_a_group_that_it_hears() {
        // Beside the end of the 16 bits that RTP has.
        let mut world = World::new(65_000, false);
        assert_eq!(world.second(300, |_| true), Some(true));
        assert_eq!(world.taken, 0, "until then it was not its stream");
        for _ in 0..400 {
            assert_eq!(world.second(300, |number| number % 20 != 0), None);
        }
        assert_eq!(world.taken, 400 * 300 * 19 / 20);
    }

    #[test]
    fn group_that_is_silent_is_neither_taken_nor_left() {
        let mut world = World::new(0, false);
        assert_eq!(world.second(0, |_| true), None, "nothing was sent");
        assert_eq!(world.second(7, |_| false), None, "too little to tell");
        assert_eq!(world.second(300, |_| true), Some(true), "307 sent, 300 heard");
        for _ in 0..100 {
            assert_eq!(world.second(0, |_| false), None);
        }
        assert!(world.hearing.is_taken());
    }

    #[test]
    fn group_that_stops_is_left_and_tried_again_later() {
        let mut world = World::new(9, false);
        assert_eq!(world.second(100, |_| true), Some(true));
        assert_eq!(world.second(100, |_| false), Some(false));
        let tries = (1..100).find(|_| world.second(100, |_| true) == Some(true));
        assert_eq!(tries, Some(30), "seconds");
        assert_eq!(world.taken, 0);
    }

    #[test]
    fn group_that_loses_more_than_a_tenth_is_not_taken() {
        let mut world = World::new(0, false);
        let loses = |one_of: u64| move |number: u64| !number.is_multiple_of(one_of);
        assert_eq!(world.second(900, loses(9)), None);
        assert_eq!(world.second(900, loses(10)), Some(true));
        assert_eq!(world.second(900, loses(9)), Some(false));
    }

    #[test]
    fn numbers_outside_the_relays_bounds_are_not_taken() {
        let mut hearing = GroupHearing::new(100, false);
        assert!(!hearing.hears(100), "nothing is decided");
        hearing.switch(true, 100);
        assert!(!hearing.hears(99) && hearing.hears(100) && hearing.hears(104));
        hearing.switch(false, 103);
        assert!(hearing.hears(102), "it was late");
        assert!(!hearing.hears(103) && !hearing.hears(105));
        // Any numbers that anybody could send.
        for next in [0, u64::MAX, 1 << 40] {
            let mut hearing = GroupHearing::new(next, false);
            assert!((0..=u16::MAX).step_by(99).all(|low| !hearing.hears(low)));
            hearing.check(u64::MAX, Moment(u64::MAX));
            hearing.check(0, Moment(0));
        }
    }

    #[test]
    fn viewer_of_nothing_but_the_group_stays() {
        let mut world = World::new(0, true);
        assert_eq!(world.second(0, |_| false), Some(true));
        assert_eq!(world.second(1000, |_| false), None);
        // After a pause too.
        world.hearing.switch(false, world.next);
        assert_eq!(world.second(0, |_| false), Some(true));
    }
}
