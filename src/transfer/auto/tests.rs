use std::collections::BTreeMap;

use super::*;

/// Steps of a train that climbs by half from 4 Mbit/s, each of 20 ms.
fn train(steps: usize) -> Vec<SentStep> {
    let mut rate = 4_000_000.0;
    let step = |_| {
        let datagrams = (rate * 0.02 / 8.0 / TRAIN_DATAGRAM as f64) as u32;
        let sent = SentStep { rate: rate as u64, datagrams, span_us: 20_000 };
        rate *= 1.5;
        sent
    };
    (0..steps).map(step).collect()
}

/// What a seat hears behind a link of `limit` bit/s that lets `queue` bytes through at once.
fn heard(sent: &[SentStep], limit: f64, queue: f64) -> Vec<HeardStep> {
    let each = (TRAIN_DATAGRAM * 8) as f64;
    let steps = sent.iter().zip(0..).map(|(sent, step)| {
        let bits = f64::from(sent.datagrams) * each;
        let behind = (bits - queue * 8.0 - limit * 0.02).max(0.0);
        let span_us = 20_000 + (behind / limit * 1e6) as u64;
        let tail = sent.datagrams / 2;
        let tail_us =
            if behind > 0.0 { (f64::from(tail) * each / limit * 1e6) as u64 } else { 10_000 };
        HeardStep { step, datagrams: sent.datagrams, span_us, tail, tail_us }
    });
    steps.collect()
}

fn seat(down: u64, heard: Vec<HeardStep>) -> MeasuredSeat {
    let total = heard.iter().map(|heard| heard.datagrams).sum();
    MeasuredSeat {
        name: "pc".to_owned(),
        ways: AUTO_WAYS.to_vec(),
        is_local: false,
        burst: Some(Burst { bytes: down / 8, from_us: 0, to_us: 1_000_000 }),
        heard,
        total: Some(total),
    }
}

fn chosen(
    bytes: u64,
    rate: Option<u64>,
    sent: &[SentStep],
    seats: &[MeasuredSeat],
) -> (Via, AutoChoice) {
    let seats: BTreeMap<_, _> = (1..).map(SeatId).zip(seats).collect();
    choose(bytes, rate.map(Rate), sent, seats.iter().map(|(&id, seat)| (id, *seat)))
}

const FILE: u64 = 100_000_000;

#[test]
fn equal_links_with_a_group_choose_multicast() {
    let sent = train(9);
    let seats = vec![seat(12_000_000, heard(&sent, 96e6, 0.0)); 8];
    let (via, choice) = chosen(FILE, None, &sent, &seats);
    assert_eq!(via, Via::Multicast, "{choice:?}");
    let seconds = |via| choice.figures.expected_us(via).map_or(0, |us| us / 1_000_000);
    assert_eq!((seconds(Via::Tcp), seconds(Via::Multicast)), (68, 8), "{choice:?}");
    assert_eq!(choice.why, "");
}

#[test]
fn seat_that_heard_nothing_makes_it_a_swarm_and_is_named() {
    let sent = train(9);
    let mut seats = vec![seat(12_000_000, heard(&sent, 96e6, 0.0)); 8];
    seats[4] = MeasuredSeat { heard: Vec::new(), total: Some(0), ..seats[4].clone() };
    let (via, choice) = chosen(FILE, None, &sent, &seats);
    assert_eq!(via, Via::Swarm);
    assert_eq!(choice.why, "no multicast: seat 5 (pc) heard nothing of the group");
    // One answer that is late is no reason, all of them are.
    seats[4] =
        MeasuredSeat { heard: heard(&sent[..8], 96e6, 0.0), total: None, ..seats[4].clone() };
    assert!(chosen(FILE, None, &sent, &seats).1.figures.multicast_us.is_some());
    seats[4].heard.clear();
    let (via, choice) = chosen(FILE, None, &sent, &seats);
    assert_eq!(via, Via::Swarm);
    assert_eq!(choice.why, "no multicast: seat 5 (pc) did not say in time what it heard");
}

#[test]
fn group_at_a_crawl_is_not_chosen() {
    let sent = train(3);
    let seats = vec![seat(12_000_000, heard(&sent, 5e6, 0.0)); 8];
    let (via, choice) = chosen(FILE, None, &sent, &seats);
    assert_eq!(via, Via::Swarm, "{choice:?}");
    let rate = choice.figures.group_rate.expect("measured");
    assert!((4_500_000..5_500_000).contains(&rate), "{rate}");
}

#[test]
fn bucket_of_a_slow_host_is_not_taken_for_its_rate() {
    // 20 Mbit/s behind a bucket of 32 kB: the whole fifth step comes at once.
    let sent = train(7);
    let slow = seat(19_000_000, heard(&sent, 20e6, 32_000.0));
    let (_, choice) = chosen(FILE, None, &sent, &[seat(60_000_000, heard(&sent, 96e6, 0.0)), slow]);
    let rate = choice.figures.group_rate.expect("measured");
    assert!((18_000_000..22_000_000).contains(&rate), "{rate}");
    let down = choice.figures.least_down.expect("measured");
    assert!((18_000_000..22_000_000).contains(&down), "{down}");
}

#[test]
fn answer_that_cannot_be_true_excludes_multicast() {
    let sent = train(9);
    let honest = seat(12_000_000, heard(&sent, 96e6, 0.0));
    let lies = [
        HeardStep { datagrams: u32::MAX, ..honest.heard[1] },
        HeardStep { step: 9, ..honest.heard[1] },
        HeardStep { tail: honest.heard[1].datagrams + 1, ..honest.heard[1] },
        HeardStep { tail_us: u64::MAX, ..honest.heard[1] },
    ];
    for lie in lies {
        let mut liar = honest.clone();
        liar.heard[1] = lie;
        let (via, choice) = chosen(FILE, None, &sent, &[honest.clone(), liar]);
        assert_ne!(via, Via::Multicast);
        assert!(choice.why.contains("seat 2 (pc) says that it heard what was not sent"));
    }
    let liar = MeasuredSeat { total: Some(u32::MAX), ..honest.clone() };
    assert_ne!(chosen(FILE, None, &sent, &[honest.clone(), liar]).0, Via::Multicast);
    // The largest that can be true.
    assert_eq!(chosen(FILE, None, &sent, &[honest.clone(), honest]).0, Via::Multicast);
}

#[test]
fn loss_adds_its_repair_to_multicast() {
    let sent = train(9);
    let lossy = |permille: u32| {
        let mut heard = heard(&sent, 96e6, 0.0);
        for heard in &mut heard {
            heard.datagrams -= heard.datagrams * permille / 1000;
            heard.tail = heard.tail.min(heard.datagrams);
        }
        let seats = [seat(48_000_000, heard.clone()), seat(48_000_000, heard)];
        chosen(FILE, None, &sent, &seats).1.figures.multicast_us.expect("usable")
    };
    let added = |permille| lossy(permille).saturating_sub(lossy(0));
    // One twentieth of the bytes once more.
    assert!((420_000..=600_000).contains(&added(50)), "{}", added(50));
    assert_eq!(added(0), 0);
}

#[test]
fn ways_that_a_seat_lacks_are_out_without_measuring() {
    let of =
        |ways: &[Via]| MeasuredSeat { name: "pc".into(), ways: ways.to_vec(), ..seat(1, vec![]) };
    let known = |bytes, seats: &[MeasuredSeat]| {
        let seats: Vec<_> = (1..).map(SeatId).zip(seats).collect();
        without_measuring(bytes, seats.into_iter()).map(|(via, choice)| (via, choice.why))
    };
    let all = of(&AUTO_WAYS);
    assert_eq!(known(FILE, &[all.clone(), all.clone()]), None);
    let curl = known(FILE, &[all.clone(), of(&[])]).expect("clear");
    assert_eq!(curl.0, Via::Tcp);
    assert!(curl.1.starts_with("no multicast: seat 2 (pc) cannot use it"), "{}", curl.1);
    assert!(curl.1.ends_with("cannot use it"), "{}", curl.1);
    let own = known(FILE, &[all.clone(), of(&[Via::Swarm])]).expect("clear");
    assert_eq!(own.0, Via::Swarm);
    let none = known(FILE, &[of(&[Via::Multicast]), of(&[Via::Swarm])]).expect("clear");
    assert_eq!(none.0, Via::Tcp);
    assert!(none.1.ends_with("the seats have no way in common"), "{}", none.1);
    assert_eq!(
        known(FILE, std::slice::from_ref(&all)).expect("clear").1,
        "one client: no way is faster"
    );
    assert_eq!(known(1000, &[all.clone(), all]).expect("clear").1, "too small to measure for");
}

#[test]
fn rate_of_the_user_bounds_every_prediction() {
    let sent = train(4);
    let seats = vec![seat(48_000_000, heard(&sent, 96e6, 0.0)); 2];
    let (via, choice) = chosen(10_000_000, Some(8_000_000), &sent, &seats);
    assert_eq!(via, Via::Multicast);
    let figures = choice.figures;
    assert!(figures.tcp_us >= Some(20_000_000) && figures.multicast_us >= Some(10_000_000));
    assert!(figures.swarm_us >= Some(10_000_000), "{figures:?}");
}

#[test]
fn clients_on_this_machine_are_sent_to_by_tcp() {
    let sent = train(4);
    let local = |seat: MeasuredSeat| MeasuredSeat { is_local: true, ..seat };
    let seats = vec![local(seat(1_000_000, heard(&sent, 96e6, 0.0))); 3];
    let (via, choice) = chosen(FILE, None, &sent, &seats);
    assert_eq!(via, Via::Tcp);
    assert!(choice.why.contains("all clients are on this machine"), "{}", choice.why);
}

#[test]
fn thousand_seats_without_figures_are_sent_to_by_tcp() {
    let mute = MeasuredSeat { burst: None, ..seat(1, vec![]) };
    let (via, choice) = chosen(FILE, None, &[], &vec![mute; 1000]);
    assert_eq!((via, choice.figures), (Via::Tcp, AutoFigures::default()));
    assert!(choice.why.ends_with("does not tell what the connections delivered"));
}
