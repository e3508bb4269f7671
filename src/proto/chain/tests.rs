use super::*;

const MS: Duration = Duration::from_millis(1);

/// A chain in virtual time: each end gives and gets `RATE` a millisecond at most, whoever is paused
/// moves nothing.
struct World {
    chain: Chain,
    bytes: u64,
    now: Moment,
    at: BTreeMap<SeatId, u64>,
    from: BTreeMap<SeatId, (u32, Option<SeatId>)>,
    paused: Vec<SeatId>,
    /// It says that it has all, and gives nothing.
    liar: Option<SeatId>,
    /// Who gives less, and who gets less, a millisecond.
    up: BTreeMap<SeatId, u64>,
    down: BTreeMap<SeatId, u64>,
}

const RATE: u64 = 1000;

fn place(seat: u16) -> Place {
    Place { address: None, seat: SeatId(seat) }
}

impl World {
    fn new(bytes: u64, seats: impl IntoIterator<Item = u16>) -> Self {
        let mut world = Self {
            chain: Chain::new(bytes),
            bytes,
            now: Moment(1_000_000),
            at: BTreeMap::new(),
            from: BTreeMap::new(),
            paused: Vec::new(),
            liar: None,
            up: BTreeMap::new(),
            down: BTreeMap::new(),
        };
        for seat in seats {
            let steps = world.chain.join(place(seat));
            world.at.insert(SeatId(seat), 0);
            world.apply(steps);
        }
        world
    }

    fn apply(&mut self, steps: impl IntoIterator<Item = Step>) {
        for Step { seat, step, from } in steps {
            let before = self.from.insert(seat, (step, from));
            assert!(before.is_none_or(|(before, _)| before < step));
            if !self.paused.contains(&seat) {
                self.chain.linked(seat, step);
            }
            let places = &self.chain.members;
            assert!(from.is_none_or(|from| places[&from].place < places[&seat].place));
        }
    }

    fn leave(&mut self, seat: u16) {
        self.at.remove(&SeatId(seat));
        self.from.remove(&SeatId(seat));
        let steps = self.chain.leave(SeatId(seat));
        self.apply(steps);
    }

    fn from(&self, seat: u16) -> Option<u16> {
        self.from[&SeatId(seat)].1.map(|seat| seat.0)
    }

    /// Runs until those who can have everything, for `limit` at most; returns how long it took.
    fn run(&mut self, limit: Duration) -> Duration {
        self.chain.release(self.now);
        let begun = self.now;
        loop {
            let is_over = |seat: &SeatId| {
                self.at[seat] == self.bytes
                    || self.paused.contains(seat)
                    || self.liar == Some(*seat)
            };
            let spent = self.now.since(begun);
            if spent >= limit || self.at.keys().all(is_over) {
                return spent;
            }
            self.now = self.now.after(MS);
            let before = self.at.clone();
            let mut gives: BTreeMap<Option<SeatId>, u64> = BTreeMap::new();
            let mut takers: BTreeMap<Option<SeatId>, Vec<(u64, SeatId)>> = BTreeMap::new();
            for (&seat, &at) in &before {
                let from = self.from[&seat].1;
                let there = match from {
                    None => self.bytes,
                    Some(from) if self.paused.contains(&from) || self.liar == Some(from) => 0,
                    Some(from) => before.get(&from).copied().unwrap_or(0),
                };
                let most = self.down.get(&seat).copied().unwrap_or(RATE);
                if !self.paused.contains(&seat) && there > at {
                    takers.entry(from).or_default().push((most.min(there - at), seat));
                    let up = from.and_then(|from| self.up.get(&from).copied());
                    gives.insert(from, up.unwrap_or(RATE));
                }
            }
            // Those who take little leave the rest to the others.
            for (from, mut takers) in takers {
                takers.sort_unstable();
                let mut left = gives[&from];
                for (n, &(most, seat)) in takers.iter().enumerate() {
                    let share = most.min(left / (takers.len() - n) as u64);
                    *self.at.get_mut(&seat).expect("it is there") += share;
                    left -= share;
                }
            }
            if self.now.0.is_multiple_of(100_000) {
                for (&seat, &at) in &self.at {
                    let said = if self.liar == Some(seat) { u64::MAX } else { at };
                    self.chain.at(seat, said);
                }
                let at = &self.at;
                let steps = self.chain.tick(self.now, |seat| Some(at[&seat] + 1));
                self.apply(steps);
            }
        }
    }
}

#[test]
fn members_stand_in_their_order_whenever_they_come() {
    let world = World::new(1, [3, 1, 4, 2]);
    assert_eq!([1, 2, 3, 4].map(|seat| world.from(seat)), [None, Some(1), Some(2), Some(3)]);
    let mut chain = Chain::new(1);
    let at = |ip: [u8; 4], seat| Place { address: Some(ip.into()), seat: SeatId(seat) };
    chain.join(at([10, 0, 1, 1], 1));
    chain.join(at([10, 0, 0, 9], 2));
    chain.join(at([10, 0, 0, 10], 3));
    let from = |seat| chain.members[&SeatId(seat)].from;
    assert_eq!([from(2), from(3), from(1)], [None, Some(SeatId(2)), Some(SeatId(3))]);
}

#[test]
fn client_that_leaves_before_release_leaves_no_gap() {
    let mut world = World::new(1, 1..=4);
    world.leave(2);
    assert_eq!(world.from(3), Some(1));
    world.leave(1);
    assert_eq!((world.from(3), world.from(4)), (None, Some(3)));
    let steps = world.chain.join(place(2));
    world.apply(steps);
    assert_eq!((world.from(2), world.from(3)), (None, Some(2)));
}

#[test]
fn links_stand_once_each_has_said_so() {
    let mut chain = Chain::new(1);
    chain.join(place(2));
    let steps = chain.join(place(1));
    assert_eq!(steps.len(), 2, "its own, and that of the next");
    assert!(!chain.stand(&steps));
    chain.linked(SeatId(1), steps[0].step);
    chain.linked(SeatId(2), steps[1].step - 1);
    assert!(!chain.stand(&steps), "an earlier step is not this one");
    chain.linked(SeatId(2), steps[1].step);
    assert!(chain.stand(&steps));
}

#[test]
fn nobody_comes_after_the_release() {
    let mut world = World::new(1, 1..=2);
    world.chain.release(world.now);
    assert_eq!(world.chain.join(place(3)), []);
    assert_eq!(world.chain.bytes_of(SeatId(3)), None);
}

#[test]
fn whole_chain_takes_one_file_and_one_step_each() {
    let mut world = World::new(5_000_000, 1..=13);
    assert_eq!(world.run(Duration::from_secs(60)), 5012 * MS);
    assert!(world.from.values().all(|(step, _)| *step == 1), "nobody was stepped over");
}

#[test]
fn dead_one_is_stepped_over_wherever_it_stood() {
    for dead in [1, 7, 13] {
        let mut world = World::new(5_000_000, 1..=13);
        world.run(2000 * MS);
        let before = world.at[&SeatId(if dead == 13 { 12 } else { dead + 1 })];
        assert!(before > 0);
        world.leave(dead);
        let rest = world.run(Duration::from_secs(60));
        assert!(world.at.values().all(|&at| at == 5_000_000));
        assert!(2000 * MS + rest <= 5012 * MS, "{dead}: {rest:?}: no byte was asked for again");
        assert_eq!(world.from(if dead == 13 { 12 } else { dead + 1 }).unwrap_or(0) + 1, {
            if dead == 13 { 12 } else { dead }
        });
    }
}

#[test]
fn stalled_one_is_stepped_over_and_nobody_else() {
    for stalled in [1, 7, 13] {
        let mut world = World::new(5_000_000, 1..=13);
        world.run(2000 * MS);
        world.paused.push(SeatId(stalled));
        let rest = world.run(Duration::from_secs(60));
        assert!(2000 * MS + rest <= 5012 * MS + STALL + 500 * MS, "{stalled}: {rest:?}");
        for seat in (1..=13).filter(|seat| *seat != stalled) {
            assert_eq!(world.at[&SeatId(seat)], 5_000_000);
            let is_next = seat == stalled + 1;
            assert_eq!(world.from[&SeatId(seat)].0, if is_next { 2 } else { 1 }, "seat {seat}");
        }
    }
}

/// How long thirteen take for 10 s of bytes when `set` makes some slow, and who takes from whom then.
fn with_slow(set: impl FnOnce(&mut World)) -> (Duration, World) {
    let mut world = World::new(10_000 * RATE, 1..=13);
    set(&mut world);
    let spent = world.run(Duration::from_secs(400));
    assert!(world.at.values().all(|&at| at == world.bytes));
    (spent, world)
}

#[test]
fn slow_one_that_moves_is_stepped_over_by_those_behind() {
    for slow in [2, 7, 12] {
        let mut world = World::new(10_000 * RATE, 1..=13);
        world.down.insert(SeatId(slow), RATE / 4);
        // The slow one itself takes 40 s; the others are not kept back by it.
        world.run(Duration::from_secs(17));
        for seat in (1..=13).filter(|seat| *seat != slow) {
            assert_eq!(world.at[&SeatId(seat)], world.bytes, "{slow}: {seat}");
        }
        assert_eq!(world.from(slow + 1), Some(slow - 1));
        world.run(Duration::from_secs(30));
        assert_eq!(world.at[&SeatId(slow)], world.bytes);
    }
}

#[test]
fn client_that_gives_little_costs_one_half_and_not_more() {
    let (spent, world) = with_slow(|world| world.up = [(SeatId(6), RATE / 8)].into());
    assert!(spent < Duration::from_secs(23), "{spent:?}: it would be 80 s");
    let moved: Vec<u16> = (1..=13).filter(|seat| world.from[&SeatId(*seat)].0 > 1).collect();
    assert_eq!(moved, [7], "nobody else");
    assert_eq!(world.from(7), Some(5));
}

#[test]
fn even_chain_and_short_pauses_move_nobody() {
    // All are as slow; or the second half is a little slower; or one pauses for less than is noticed.
    for (first, down) in [(1, RATE / 4), (7, RATE * 2 / 3)] {
        let (_, world) = with_slow(|world| {
            world.down.extend((first..=13).map(|seat| (SeatId(seat), down)));
        });
        assert!(world.from.values().all(|(step, _)| *step == 1));
    }
    let mut world = World::new(10_000 * RATE, 1..=13);
    world.down = (1..=13).map(|seat| (SeatId(seat), RATE / 2)).collect();
    for seat in [3, 9, 3, 5, 3] {
        world.down.insert(SeatId(seat), RATE);
        world.run(3_000 * MS);
        world.paused = vec![SeatId(seat)];
        world.run(900 * MS);
        world.paused.clear();
    }
    world.run(Duration::from_secs(100));
    assert!(world.from.values().all(|(step, _)| *step == 1), "{:?}", world.from);
}

#[test]
fn half_the_clients_slow_do_not_hold_the_others_to_their_rate() {
    let mut world = World::new(10_000 * RATE, 1..=13);
    world.down = (2..=13).step_by(2).map(|seat| (SeatId(seat), RATE / 8)).collect();
    let is_whole = |world: &World, seat: &u16| world.at[&SeatId(*seat)] == world.bytes;
    world.run(Duration::from_secs(40));
    let whole: Vec<u16> = (1..=13).filter(|seat| is_whole(&world, seat)).collect();
    assert_eq!(whole, [1, 3, 5, 7, 9, 11, 13], "it would be 80 s");
    world.run(Duration::from_secs(60));
    assert!((1..=13).all(|seat| is_whole(&world, &seat)));
}

#[test]
fn liar_that_claims_all_and_gives_nothing_is_stepped_over() {
    for liar in [1, 6] {
        let mut world = World::new(3_000_000, 1..=8);
        world.liar = Some(SeatId(liar));
        let spent = world.run(Duration::from_secs(60));
        // It takes its half of what the one before it gives.
        assert!(spent < 2 * 3007 * MS + STALL, "{spent:?}");
        assert!((1..=8).filter(|s| *s != liar).all(|s| world.at[&SeatId(s)] == 3_000_000));
        assert_ne!(world.from(liar + 1), Some(liar));
    }
}

#[test]
fn many_may_stall_and_die_and_the_others_are_whole() {
    let mut world = World::new(3_000_000, 1..=40);
    for (n, seat) in (1..=40).filter(|seat| seat % 3 == 0).enumerate() {
        world.run(100 * MS);
        if n % 2 == 0 { world.leave(seat) } else { world.paused.push(SeatId(seat)) }
    }
    world.run(Duration::from_secs(60));
    let whole = |(seat, at): (&SeatId, &u64)| *at == 3_000_000 || world.paused.contains(seat);
    assert!(world.at.iter().all(whole), "{:?}", world.at);
}

#[test]
fn slow_server_and_a_pause_of_its_own_step_over_nobody() {
    let mut chain = Chain::new(100);
    (1..=3).for_each(|seat| drop(chain.join(place(seat))));
    chain.release(Moment(0));
    let mut now = Moment(0);
    // The server has sent what the first has, for an hour.
    for _ in 0..36_000 {
        now = now.after(100 * MS);
        assert_eq!(chain.tick(now, |_| Some(0)), []);
    }
    // There is more; but the looks are far apart.
    for _ in 0..10 {
        now = now.after(STALL);
        assert_eq!(chain.tick(now, |_| Some(1)), []);
    }
}

#[test]
fn lost_links_end_at_the_server_and_there_too() {
    let mut chain = Chain::new(100);
    (1..=9).for_each(|seat| drop(chain.join(place(seat))));
    let mut froms = Vec::new();
    let mut step = chain.members[&SeatId(9)].step;
    assert_eq!(chain.lost(SeatId(9), step + 1), None, "no step that is to come");
    while let Some(next) = chain.lost(SeatId(9), step) {
        assert_eq!(chain.lost(SeatId(9), step), None, "a step is lost once");
        step = next.step;
        froms.push(next.from.map_or(0, |from| from.0));
        assert!(froms.len() < 100, "without end");
    }
    assert_eq!(froms[..3], [7, 6, 0]);
    assert_eq!(froms.len(), 1 + SERVER_LOST_MAX as usize - 1);
    assert!(froms[2..].iter().all(|from| *from == 0));
}

#[test]
fn claims_of_more_than_the_file_and_of_less_mean_nothing() {
    let mut chain = Chain::new(100);
    chain.join(place(1));
    chain.at(SeatId(1), u64::MAX);
    assert_eq!(chain.bytes_of(SeatId(1)), Some(100));
    chain.at(SeatId(1), 1);
    chain.at(SeatId(2), 1);
    assert_eq!((chain.bytes_of(SeatId(1)), chain.bytes_of(SeatId(2))), (Some(100), None));
}
