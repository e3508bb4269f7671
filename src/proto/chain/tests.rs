use super::*;

const MS: Duration = Duration::from_millis(1);

/// A chain in virtual time: links carry `RATE` a millisecond, whoever is paused moves nothing.
struct World {
    chain: Chain,
    bytes: u64,
    now: Moment,
    at: BTreeMap<SeatId, u64>,
    from: BTreeMap<SeatId, (u32, Option<SeatId>)>,
    paused: Vec<SeatId>,
    /// It says that it has all, and gives nothing.
    liar: Option<SeatId>,
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
            for (&seat, at) in &mut self.at {
                let there = match self.from[&seat].1 {
                    None => self.bytes,
                    Some(from) if self.paused.contains(&from) || self.liar == Some(from) => 0,
                    Some(from) => before.get(&from).copied().unwrap_or(0),
                };
                if !self.paused.contains(&seat) {
                    *at = (*at).max(there.min(*at + RATE));
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

#[test]
fn liar_that_claims_all_and_gives_nothing_is_stepped_over() {
    for liar in [1, 6] {
        let mut world = World::new(3_000_000, 1..=8);
        world.liar = Some(SeatId(liar));
        let spent = world.run(Duration::from_secs(60));
        assert!(spent < 3007 * MS + STALL * 2, "{spent:?}");
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
