use super::*;

const T0: Moment = Moment(1);
const PIECE: u32 = 1 << 20;

/// What is shown to all at these rates.
fn show(injector: &mut SuperSeeder, rates: &[f64]) -> Vec<(u32, u32)> {
    let all = rates.iter().sum();
    let of = |peer: u32| rates.get(peer as usize).copied().unwrap_or(0.0);
    injector.reveal(T0, 1.0, of, all)
}

fn of(shown: &[(u32, u32)], peer: u32) -> Vec<u32> {
    let own = shown.iter().filter(|(to, _)| *to == peer);
    own.map(|(_, piece)| *piece).collect()
}

fn injector(pieces: u32) -> SuperSeeder {
    let mut injector = SuperSeeder::new(pieces, PIECE, &mut Random::new(1));
    for peer in 0..3 {
        injector.add_peer(peer);
        injector.admit(peer);
    }
    injector
}

#[test]
fn no_piece_is_shown_twice_before_every_piece_is_out() {
    let mut injector = injector(20);
    let mut seen = Bitfield::new(20);
    while !injector.try_reveal_all(T0) {
        for (peer, piece) in show(&mut injector, &[]) {
            assert!(seen.set(piece), "{piece} twice");
            assert!(injector.may_request(peer, piece));
            assert!(!injector.may_request((peer + 1) % 3, piece));
            injector.peer_has(peer, piece);
        }
    }
    assert!(seen.is_full());
    assert!(
        injector.may_request(2, 0) && !injector.try_reveal_all(T0),
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
    fed.peer_has(1, of(&shown, 1)[0]);
    let next = show(&mut fed, &[0.0, 40.0, 20.0]);
    assert_eq!(next.len(), 1, "one in the place of one");
}

#[test]
fn all_is_shown_once_every_piece_has_arrived_or_a_peer_is_in_trouble() {
    let mut fed = injector(4);
    let shown = show(&mut fed, &[9.0; 3]);
    assert_eq!(shown.len(), 4);
    assert!(!fed.try_reveal_all(T0), "four are on their way");
    for &(peer, piece) in &shown[..3] {
        fed.peer_has(peer, piece);
    }
    assert!(!fed.try_reveal_all(T0.after(PATIENCE / 2)));
    let (peer, piece) = shown[3];
    fed.peer_has(peer, piece);
    assert!(fed.try_reveal_all(T0.after(PATIENCE / 2)));
    let mut late = injector(1);
    show(&mut late, &[]);
    assert!(!late.try_reveal_all(T0) && late.try_reveal_all(T0.after(PATIENCE)));
}

#[test]
fn what_a_lost_peer_never_had_goes_out_again_first() {
    let mut fed = injector(10);
    let shown = show(&mut fed, &[20.0; 3]);
    let lost = of(&shown, 0);
    fed.peer_has(0, lost[0]);
    fed.remove_peer(0);
    let next = show(&mut fed, &[1e9; 3]);
    let again: Vec<u32> = next.iter().map(|(_, piece)| *piece).collect();
    assert!(lost[1..].contains(&again[0]));
    assert!(!again.contains(&lost[0]), "it is out");
}

/// Pieces of which two fill an uplink of one a second; peers 0 and 1 take nothing, peer 2 takes
/// a quarter of a piece every quarter of a second. Returns when it had all ten.
fn beside_two_that_are_frozen(frozen: usize) -> Option<u64> {
    let mut fed = SuperSeeder::new(10, 4 << 20, &mut Random::new(1));
    for peer in 0..3 {
        fed.add_peer(peer);
        fed.admit(peer);
    }
    let (mut given, mut owed) = ([0.0; 3], Vec::new());
    for quarter in 0..400u32 {
        let now = T0.after(Duration::from_millis(250) * quarter);
        let seconds = (f64::from(quarter) / 4.0).max(0.1);
        let all = given.iter().sum();
        let shown = fed.reveal(now, seconds, |peer| given[peer as usize], all);
        owed.extend(
            shown
                .into_iter()
                .filter(|&(peer, _)| peer as usize >= frozen),
        );
        if fed.try_reveal_all(now) || fed.distributed.is_full() && owed.is_empty() {
            return Some(u64::from(quarter) / 4);
        }
        if let Some(&(peer, piece)) = owed.first() {
            given[peer as usize] += 0.25;
            if quarter % 4 == 3 {
                owed.remove(0);
                fed.peer_has(peer, piece);
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
    let show_at = |fed: &mut SuperSeeder, ms: u64, given: [f64; 3]| {
        let now = T0.after(Duration::from_millis(ms));
        fed.reveal(now, 1.0, |peer| given[peer as usize], 0.0)
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
    assert!(fed.may_request(back, its), "what it was shown stays its");
    fed.peer_has(back, 99);
    let more = show_at(&mut fed, 2001, [0.0, 0.0, 0.0]);
    assert!(more.iter().all(|&(peer, _)| peer == back), "{more:?}");
    assert_eq!((more.len(), fed.waiting), (0, 2), "the others wait for two");
    fed.peer_has(2, again[0].1);
    let more = show_at(&mut fed, 2002, [0.0, 0.0, 1.0]);
    assert_eq!(of(&more, 2).len(), 1, "in the place of one: {more:?}");
    fed.peer_has(2, again[1].1);
    let more = show_at(&mut fed, 2003, [0.0, 0.0, 2.0]);
    assert_eq!(of(&more, 2).len(), 1, "as if the other were not there");
    let its = of(&more, back);
    assert_eq!((its.len(), fed.waiting), (1, 2), "{more:?}");
    fed.peer_has(back, its[0]);
    assert!(!fed.peers[&back].doubtful, "it takes what it is shown");
}

#[test]
fn a_single_peer_is_shown_everything_and_a_foreign_one_is_not_held_back() {
    let mut injector = SuperSeeder::new(10, PIECE, &mut Random::new(1));
    injector.add_peer(0);
    injector.add_peer(1);
    assert!(
        show(&mut injector, &[]).is_empty() && !injector.may_request(0, 0),
        "not released"
    );
    injector.admit(0);
    assert_eq!(
        show(&mut injector, &[]).len(),
        2,
        "the other is released in a moment, and would find nothing left"
    );
    assert!(!injector.may_request(1, 3));
    assert!(injector.may_request(99, 3));
    injector.remove_peer(1);
    assert_eq!(show(&mut injector, &[]).len(), 8);
}

#[test]
fn many_are_never_shown_everything_but_the_rarest_first() {
    let mut fed = SuperSeeder::new(3, PIECE, &mut Random::new(1));
    let many = u32::try_from(OPEN_MAX).expect("few") + 1;
    for peer in 0..many {
        fed.add_peer(peer);
        fed.admit(peer);
    }
    (0..many - 1).for_each(|peer| fed.peer_has(peer, 0));
    (0..many - 2).for_each(|peer| fed.peer_has(peer, 1));
    fed.peer_has(7, 2);
    assert!(!fed.try_reveal_all(T0.after(PATIENCE)));
    let mut shown = Vec::new();
    loop {
        let some = show(&mut fed, &[]);
        if some.is_empty() {
            break;
        }
        for (peer, piece) in some {
            fed.peer_has(peer, piece);
            assert_ne!(peer, 7, "has all of them");
            shown.push(piece);
        }
    }
    assert_eq!(shown[..3], [2, 1, 0]);
    let lacking = |piece| shown.iter().filter(|&&other| other == piece).count();
    assert_eq!([lacking(0), lacking(1)], [1, 2]);
}
