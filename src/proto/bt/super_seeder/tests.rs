use super::*;

const T0: Moment = Moment(1);
const PIECE: u32 = 1 << 20;

/// What is revealed to all at these rates.
fn reveal(seeder: &mut SuperSeeder, rates: &[f64]) -> Vec<(u32, u32)> {
    let all = rates.iter().sum();
    let of = |peer: u32| rates.get(peer as usize).copied().unwrap_or(0.0);
    seeder.reveal(T0, 1.0, of, all)
}

fn of(revealed: &[(u32, u32)], peer: u32) -> Vec<u32> {
    let own = revealed.iter().filter(|(to, _)| *to == peer);
    own.map(|(_, piece)| *piece).collect()
}

fn three_peers(pieces: u32) -> SuperSeeder {
    let mut seeder = SuperSeeder::new(pieces, PIECE, &mut Random::new(1));
    for peer in 0..3 {
        seeder.add_peer(peer);
        seeder.admit(peer);
    }
    seeder
}

#[test]
fn no_piece_is_revealed_twice_before_all_are_once() {
    let mut seeder = three_peers(20);
    let mut seen = Bitfield::new(20);
    while !seeder.try_reveal_all(T0) {
        for (peer, piece) in reveal(&mut seeder, &[]) {
            assert!(seen.set(piece), "{piece} twice");
            assert!(seeder.may_request(peer, piece));
            assert!(!seeder.may_request((peer + 1) % 3, piece));
            seeder.peer_has(peer, piece);
        }
    }
    assert!(seen.is_full());
    assert!(seeder.may_request(2, 0) && !seeder.try_reveal_all(T0), "it opens once");
}

#[test]
fn pieces_are_revealed_in_their_planned_turns() {
    let mut seeder = three_peers(20);
    let mut turns = Vec::new();
    while !seeder.try_reveal_all(T0) {
        for (peer, piece) in reveal(&mut seeder, &[]) {
            turns.push(seeder.turn(piece).expect("planned"));
            seeder.peer_has(peer, piece);
        }
    }
    assert_eq!(turns, (1..=20).collect::<Vec<_>>());
    assert_eq!((seeder.turn(20), SuperSeeder::all_revealed(20, PIECE).turn(0)), (None, None));
}

#[test]
fn pending_pieces_follow_the_rates_of_peers_and_uplink() {
    let mut seeder = three_peers(100);
    let revealed = reveal(&mut seeder, &[]);
    assert_eq!(revealed.len(), 2, "two megabytes, for a start");
    assert_ne!(revealed[0].0, revealed[1].0, "in turn");
    let mut seeder = three_peers(100);
    let revealed = reveal(&mut seeder, &[0.0, 40.0, 20.0]);
    assert_eq!([0, 1, 2].map(|peer| of(&revealed, peer).len()), [2, 4, 4]);
    seeder.peer_has(1, of(&revealed, 1)[0]);
    let next = reveal(&mut seeder, &[0.0, 40.0, 20.0]);
    assert_eq!(next.len(), 1, "one in the place of one");
}

#[test]
fn all_is_revealed_when_every_piece_arrived_or_time_is_over() {
    let mut seeder = three_peers(4);
    let revealed = reveal(&mut seeder, &[9.0; 3]);
    assert_eq!(revealed.len(), 4);
    assert!(!seeder.try_reveal_all(T0), "four are on their way");
    for &(peer, piece) in &revealed[..3] {
        seeder.peer_has(peer, piece);
    }
    assert!(!seeder.try_reveal_all(T0.after(LAST_PIECES_LIMIT / 2)));
    let (peer, piece) = revealed[3];
    seeder.peer_has(peer, piece);
    assert!(seeder.try_reveal_all(T0.after(LAST_PIECES_LIMIT / 2)));
    let mut late = three_peers(1);
    reveal(&mut late, &[]);
    assert!(!late.try_reveal_all(T0) && late.try_reveal_all(T0.after(LAST_PIECES_LIMIT)));
}

#[test]
fn pieces_of_a_lost_peer_are_revealed_next() {
    let mut seeder = three_peers(10);
    let revealed = reveal(&mut seeder, &[20.0; 3]);
    let lost = of(&revealed, 0);
    seeder.peer_has(0, lost[0]);
    seeder.remove_peer(0);
    let next = reveal(&mut seeder, &[1e9; 3]);
    let again: Vec<u32> = next.iter().map(|(_, piece)| *piece).collect();
    assert!(lost[1..].contains(&again[0]));
    assert!(!again.contains(&lost[0]), "it is out");
}

/// Pieces of which two fill an uplink of one a second; peers 0 and 1 take nothing, peer 2 takes
/// a quarter of a piece every quarter of a second. Returns when it had all ten.
fn beside_two_that_are_frozen(frozen: usize) -> Option<u64> {
    let mut seeder = SuperSeeder::new(10, 4 << 20, &mut Random::new(1));
    for peer in 0..3 {
        seeder.add_peer(peer);
        seeder.admit(peer);
    }
    let (mut given, mut owed) = ([0.0; 3], Vec::new());
    for quarter in 0..400u32 {
        let now = T0.after(Duration::from_millis(250) * quarter);
        let seconds = (f64::from(quarter) / 4.0).max(0.1);
        let all = given.iter().sum();
        let revealed = seeder.reveal(now, seconds, |peer| given[peer as usize], all);
        owed.extend(revealed.into_iter().filter(|&(peer, _)| peer as usize >= frozen));
        if seeder.try_reveal_all(now) || seeder.revealed_once.is_full() && owed.is_empty() {
            return Some(u64::from(quarter) / 4);
        }
        if let Some(&(peer, piece)) = owed.first() {
            given[peer as usize] += 0.25;
            if quarter % 4 == 3 {
                owed.remove(0);
                seeder.peer_has(peer, piece);
            }
        }
    }
    None
}

#[test]
fn frozen_peers_do_not_delay_others_for_long() {
    let alone = beside_two_that_are_frozen(0).expect("an end");
    assert!((8..=10).contains(&alone), "as fast as the uplink: {alone} s");
    let late = beside_two_that_are_frozen(2).expect("an end");
    assert!(late <= alone + 12, "once two seconds and once some: {late} s");
}

#[test]
fn doubtful_peer_gets_more_once_it_announces_a_piece() {
    let mut seeder = three_peers(100);
    let reveal_at = |seeder: &mut SuperSeeder, ms: u64, given: [f64; 3]| {
        let now = T0.after(Duration::from_millis(ms));
        seeder.reveal(now, 1.0, |peer| given[peer as usize], 0.0)
    };
    let first = reveal_at(&mut seeder, 0, [0.0; 3]);
    assert_eq!(first.len(), 2, "all that is revealed ahead");
    assert!(reveal_at(&mut seeder, 1999, [0.0; 3]).is_empty());
    let again = reveal_at(&mut seeder, 2000, [0.0; 3]);
    assert!(again.iter().all(|&(peer, _)| peer == 2), "{again:?}");
    let pieces = |revealed: &[(u32, u32)]| -> Vec<u32> {
        let mut all: Vec<u32> = revealed.iter().map(|one| one.1).collect();
        all.sort_unstable();
        all
    };
    assert_eq!(pieces(&again), pieces(&first), "the same, to another");
    let (back, its) = first[0];
    assert!(seeder.may_request(back, its), "what it was revealed stays its");
    seeder.peer_has(back, 99);
    let more = reveal_at(&mut seeder, 2001, [0.0, 0.0, 0.0]);
    assert!(more.iter().all(|&(peer, _)| peer == back), "{more:?}");
    assert_eq!((more.len(), seeder.pending), (0, 2), "the others wait for two");
    seeder.peer_has(2, again[0].1);
    let more = reveal_at(&mut seeder, 2002, [0.0, 0.0, 1.0]);
    assert_eq!(of(&more, 2).len(), 1, "in the place of one: {more:?}");
    seeder.peer_has(2, again[1].1);
    let more = reveal_at(&mut seeder, 2003, [0.0, 0.0, 2.0]);
    assert_eq!(of(&more, 2).len(), 1, "as if the other were not there");
    let its = of(&more, back);
    assert_eq!((its.len(), seeder.pending), (1, 2), "{more:?}");
    seeder.peer_has(back, its[0]);
    assert!(!seeder.peers[&back].doubtful, "it takes what it is revealed");
}

#[test]
fn single_peer_gets_all_pieces_and_external_ones_are_free() {
    let mut seeder = SuperSeeder::new(10, PIECE, &mut Random::new(1));
    seeder.add_peer(0);
    seeder.add_peer(1);
    assert!(reveal(&mut seeder, &[]).is_empty() && !seeder.may_request(0, 0), "not released");
    seeder.admit(0);
    assert_eq!(
        reveal(&mut seeder, &[]).len(),
        2,
        "the other is released in a moment, and would find nothing left"
    );
    assert!(!seeder.may_request(1, 3));
    assert!(seeder.may_request(99, 3));
    seeder.remove_peer(1);
    assert_eq!(reveal(&mut seeder, &[]).len(), 8);
}

#[test]
fn many_peers_get_the_rarest_pieces_first() {
    let mut seeder = SuperSeeder::new(3, PIECE, &mut Random::new(1));
    let many = u32::try_from(REVEAL_ALL_MAX).expect("few") + 1;
    for peer in 0..many {
        seeder.add_peer(peer);
        seeder.admit(peer);
    }
    (0..many - 1).for_each(|peer| seeder.peer_has(peer, 0));
    (0..many - 2).for_each(|peer| seeder.peer_has(peer, 1));
    seeder.peer_has(7, 2);
    assert!(!seeder.try_reveal_all(T0.after(LAST_PIECES_LIMIT)));
    let mut revealed = Vec::new();
    loop {
        let some = reveal(&mut seeder, &[]);
        if some.is_empty() {
            break;
        }
        for (peer, piece) in some {
            seeder.peer_has(peer, piece);
            assert_ne!(peer, 7, "has all of them");
            revealed.push(piece);
        }
    }
    assert_eq!(revealed[..3], [2, 1, 0]);
    let lacking = |piece| revealed.iter().filter(|&&other| other == piece).count();
    assert_eq!([lacking(0), lacking(1)], [1, 2]);
}

#[test]
fn pieces_that_a_peer_brings_are_passed_over() {
    // As many as there may be: to search for each in all would take hours.
    const MANY: u32 = 1 << 19;
    let mut seeder = three_peers(MANY);
    (1..MANY).for_each(|piece| seeder.peer_has(0, piece));
    assert!(!seeder.try_reveal_all(T0), "one piece has to be sent");
    assert_eq!(reveal(&mut seeder, &[]), [(0, 0)]);
    assert_eq!([0, 1].map(|piece| seeder.copies(piece)), [0, 1]);
    seeder.peer_has(0, 0);
    assert!(seeder.try_reveal_all(T0));
}
