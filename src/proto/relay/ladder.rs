//! Which of a relay's inputs, best first, a viewer is to have: without I/O, fed each second with what
//! the viewer has lost and with the inputs that live.
//!
//! A viewer that loses for some seconds goes one input down, and one up again when it has lost
//! nothing for long enough. Where it soon comes down again, the next time must be twice as long.

use std::time::Duration;

use crate::units::Moment;

/// The way of one viewer.
#[derive(Debug)]
pub struct Ladder {
    /// What it had when it was last looked at.
    input: usize,
    lost: u64,
    /// Whether it lost something before each of the last looks, the last one at bit 0.
    losses: u8,
    changed: Moment,
    climbed: Option<Moment>,
    /// It has lost nothing since.
    quiet: Moment,
    patience: Duration,
}

/// Most inputs of a relay.
pub const INPUTS_MAX: usize = 4;

/// How often a viewer is looked at.
pub const LOOK_EVERY: Duration = Duration::from_secs(1);

/// A viewer loses when it lost something in so many of the last looks.
const LOSING: u32 = 3;

/// The last looks, as bits.
const LOOKS: u8 = 0b1_1111;

/// For so long after a change a loss may be of the input before.
const SETTLE: Duration = Duration::from_secs(3);

/// How long nothing is lost before a viewer goes up, at first and at most.
pub const PATIENCE: [Duration; 2] = [Duration::from_secs(10), Duration::from_secs(160)];

/// Who comes down again within so long went up in vain.
const TRIAL: Duration = Duration::from_secs(60);

impl Ladder {
    /// A viewer that begins at `now` with the best input.
    pub fn new(now: Moment) -> Self {
        let (changed, quiet, patience) = (now, now, PATIENCE[0]);
        Self { input: 0, lost: 0, losses: 0, changed, climbed: None, quiet, patience }
    }

    /// The input that it had when it was last asked about.
    pub fn input(&self) -> usize {
        self.input
    }

    /// The input to have, asked at `now` of a viewer that has `input` and says that it has `lost` so
    /// much in all, if it says so. Only inputs that are `alive` are chosen.
    pub fn choose(
        &mut self,
        now: Moment,
        input: usize,
        lost: Option<u64>,
        alive: &[bool],
    ) -> usize {
        if input > self.input {
            let in_vain = self.climbed.take().is_some_and(|at| now.since(at) < TRIAL);
            let longer = (self.patience * 2).min(PATIENCE[1]);
            self.patience = if in_vain { longer } else { PATIENCE[0] };
        } else if input < self.input {
            self.climbed = Some(now);
        }
        if input != self.input {
            (self.input, self.losses, self.changed, self.quiet) = (input, 0, now, now);
        }
        let lost = lost.unwrap_or(0);
        let loses = lost > self.lost && now.since(self.changed) >= SETTLE;
        self.lost = self.lost.max(lost);
        self.losses = (self.losses << 1 | u8::from(loses)) & LOOKS;
        if loses {
            self.quiet = now;
        }
        let is_alive = |other: &usize| alive[*other];
        let below = (input + 1..alive.len()).find(is_alive);
        let above = (0..input).rev().find(is_alive);
        let next = match (alive[input], self.losses.count_ones() >= LOSING) {
            (false, _) => below.or(above),
            (true, true) => below,
            (true, false) => above.filter(|_| now.since(self.quiet) >= self.patience),
        };
        next.unwrap_or(input)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One viewer in virtual time, whose changes are made `wait` seconds after they are wanted.
    struct World {
        ladder: Ladder,
        input: usize,
        lost: u64,
        second: u64,
        wait: u64,
        waited: u64,
        /// When it changed, and to which input.
        changes: Vec<(u64, usize)>,
    }

    impl World {
        fn new(wait: u64) -> Self {
            let ladder = Ladder::new(Moment(0));
            Self { ladder, input: 0, lost: 0, second: 0, wait, waited: 0, changes: Vec::new() }
        }

        /// Some seconds in which `loses` says of each, and of its input, what is lost.
        fn run(&mut self, seconds: u64, alive: &[bool], loses: impl Fn(u64, usize) -> Option<u64>) {
            for _ in 0..seconds {
                self.second += 1;
                let lost = loses(self.second, self.input);
                self.lost += lost.unwrap_or(0);
                let now = Moment(self.second * 1_000_000);
                let told = lost.map(|_| self.lost);
                let wanted = self.ladder.choose(now, self.input, told, alive);
                assert!(wanted == self.input || alive[wanted], "a silent one at {now:?}");
                self.waited = if wanted == self.input { 0 } else { self.waited + 1 };
                if self.waited > self.wait {
                    (self.input, self.waited) = (wanted, 0);
                    self.changes.push((self.second, wanted));
                }
            }
        }
    }

    const ALL: [bool; 3] = [true; 3];

    /// Of inputs of 8, 4 and 2 Mbit/s, a link of so many loses what is above.
    fn link(mbit: u64) -> impl Fn(u64, usize) -> Option<u64> {
        move |_, input| Some((8_u64 >> input).saturating_sub(mbit))
    }

    #[test]
    fn viewer_goes_down_as_far_as_it_must_and_up_again() {
        let mut world = World::new(0);
        world.run(60, &ALL, link(8));
        assert_eq!(world.changes, [], "it has what it can take");
        world.run(15, &ALL, link(3));
        assert_eq!(world.changes, [(63, 1), (69, 2)]);
        // The link is wide again: ten quiet seconds for each.
        world.run(30, &ALL, link(9));
        assert_eq!(world.changes[2..], [(80, 1), (91, 0)]);
        world.run(1000, &ALL, link(9));
        assert_eq!(world.changes.len(), 4);
    }

    #[test]
    fn losses_now_and_then_change_nothing() {
        let mut world = World::new(0);
        world.run(10_000, &ALL, |second, _| Some(u64::from(second % 3 == 0)));
        assert_eq!(world.changes, []);
        // Three in five are a loss for some seconds.
        world.run(20, &ALL, |second, _| Some(u64::from(second % 5 < 3)));
        assert_ne!(world.changes, []);
    }

    #[test]
    fn climbs_in_vain_become_rare_and_a_good_one_forgets_them() {
        let mut world = World::new(0);
        // For the middle one there is room, for the best there never is.
        world.run(3600, &ALL, link(4));
        let ups: Vec<u64> =
            world.changes.iter().filter(|(_, to)| *to == 0).map(|(at, _)| *at).collect();
        let gaps: Vec<u64> = ups.windows(2).map(|pair| pair[1] - pair[0]).collect();
        assert!(gaps.is_sorted() && gaps[..4] == [27, 47, 87, 167], "{gaps:?}");
        assert_eq!(gaps.last(), Some(&167), "as long as it gets");
        // An hour without loss, and a short trouble: the first patience again.
        world.run(3600, &ALL, link(8));
        let before = world.changes.len();
        world.run(10, &ALL, link(4));
        world.run(30, &ALL, link(8));
        let [(down, 1), (up, 0)] = world.changes[before..] else { panic!("{:?}", world.changes) };
        assert!(up - down < 20, "{:?}", world.changes);
    }

    #[test]
    fn liar_never_changes_faster_than_the_bound() {
        // Whatever it says: more and more, less, nothing, the most there is.
        let lies: [fn(u64) -> u64; 4] = [|n| n, |n| u64::MAX - n, |n| n % 7, |n| n % 40 / 20 * n];
        for lie in lies {
            let mut ladder = Ladder::new(Moment(0));
            let (mut input, mut changes) = (0, vec![0]);
            for second in 1..3600 {
                let now = Moment(second * 1_000_000);
                let wanted = ladder.choose(now, input, Some(lie(second)), &ALL);
                if wanted != input {
                    let apart = second - changes.last().expect("one");
                    assert!(apart >= if wanted > input { 5 } else { 11 }, "{apart} s");
                    changes.push(second);
                    input = wanted;
                }
            }
        }
    }

    #[test]
    fn silent_input_is_left_and_never_chosen() {
        let mut world = World::new(0);
        // One that tells nothing, as the lab's clients.
        let silent = |_, _| None;
        world.run(60, &ALL, silent);
        world.run(1, &[false, false, true], silent);
        assert_eq!(world.changes, [(61, 2)]);
        world.run(60, &[false, false, true], silent);
        world.run(12, &[false, true, true], silent);
        assert_eq!(world.changes[1..], [(122, 1)]);
        world.run(1, &[false, false, false], silent);
        assert_eq!(world.input, 1, "there is none to go to");
        world.run(12, &[true, true, true], silent);
        assert_eq!(world.input, 0);
        // The lowest dies: it goes up, whatever it has lost.
        let mut world = World::new(0);
        world.run(16, &ALL, link(2));
        assert_eq!(world.input, 2);
        world.run(1, &[true, true, false], link(2));
        assert_eq!(world.input, 1);
    }

    #[test]
    fn change_that_waits_for_its_picture_is_kept_or_taken_back() {
        let mut world = World::new(4);
        world.run(7, &ALL, link(3));
        assert_eq!((world.input, world.waited), (0, 3), "it waits");
        world.run(2, &ALL, link(3));
        assert_eq!(world.input, 1);
        let mut world = World::new(4);
        world.run(5, &ALL, link(3));
        world.run(60, &ALL, link(8));
        assert_eq!(world.changes, [], "the trouble was over before");
    }
}
