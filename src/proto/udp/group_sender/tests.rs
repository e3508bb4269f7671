use super::*;
use crate::proto::udp::{
    CONSENT, DOUBT, group_member::RANGES_MAX, liveness::SLACK, stall_detector::STUCK,
};

const NOW: Moment = Moment(1_000_000);

fn report(round: u32, seen: u32, missing: Vec<Range<u32>>) -> Report {
    Report { seen, received: seen, round, cum: 0, more: false, missing }
}

/// A group of three after the first pass over ten blocks and the first END.
fn asked() -> GroupSender {
    let mut cast = GroupSender::new(10, NOW);
    (1..=3).for_each(|client| cast.join(client, 100, NOW));
    for block in 0..10 {
        let data = Transmit::Data { pkt: block, block, again: false };
        assert_eq!(cast.poll_transmit(NOW), Some(data));
    }
    let end = Transmit::End { pkts: 10, upto: 10, round: 1 };
    assert_eq!(cast.poll_transmit(NOW), Some(end));
    cast
}

#[test]
fn one_datagram_repairs_three_losses_once_all_have_answered() {
    let mut cast = asked();
    cast.handle_report(1, &report(1, 10, vec![2..3]), NOW);
    cast.handle_report(2, &report(1, 10, vec![5..6]), NOW);
    assert_eq!(cast.poll_transmit(NOW), None, "the third owes its answer");
    cast.handle_report(3, &report(1, 10, vec![7..8]), NOW);
    let xor = Transmit::Xor { pkt: 10, blocks: vec![2, 5, 7] };
    assert_eq!(cast.poll_transmit(NOW), Some(xor));
    let end = Transmit::End { pkts: 11, upto: 10, round: 2 };
    assert_eq!(cast.poll_transmit(NOW), Some(end));
}

#[test]
fn silent_client_holds_no_other_and_is_dropped() {
    let mut cast = asked();
    cast.handle_report(1, &report(1, 10, vec![2..3]), NOW);
    cast.handle_report(2, &report(1, 10, vec![]), NOW);
    cast.leave(2);
    let later = NOW.after(LAG);
    let data = Transmit::Data { pkt: 10, block: 2, again: true };
    assert_eq!(cast.poll_transmit(later), Some(data), "without the third");
    cast.handle_report(1, &report(0, 11, vec![]), NOW.after(CONSENT));
    assert_eq!(cast.poll_fault(), None);
    cast.poll_transmit(NOW.after(CONSENT));
    assert_eq!(cast.poll_fault(), Some((3, Fault::Silent)));
}

#[test]
fn straggler_gets_its_own_stream_after_the_others() {
    let mut cast = asked();
    cast.handle_report(1, &report(1, 10, vec![2..3]), NOW);
    cast.handle_report(2, &report(1, 10, vec![]), NOW);
    cast.handle_report(3, &report(1, 10, vec![0..9]), NOW);
    let data = Transmit::Data { pkt: 10, block: 2, again: true };
    assert_eq!(cast.poll_transmit(NOW), Some(data));
    assert!(matches!(cast.poll_transmit(NOW), Some(Transmit::End { round: 2, .. })));
    assert_eq!(cast.poll_straggler(), None, "the others are not done");
    (1..=2).for_each(|client| cast.leave(client));
    assert_eq!(cast.poll_transmit(NOW), None);
    let aside = Straggler { client: 3, pkt: 11, missing: vec![0..9], full: Duration::ZERO };
    assert_eq!(cast.poll_straggler(), Some(aside));
    assert!(cast.is_over());
}

#[test]
fn slow_client_delays_the_group_by_a_second_at_most() {
    let mut cast = GroupSender::new(100_000, NOW);
    (1..=3).for_each(|client| cast.join(client, 100, NOW));
    let (mut now, mut sent) = (NOW, 0_u32);
    while now < NOW.after(HOLD_MAX * 2) {
        while let Some(Transmit::Data { .. }) = cast.poll_transmit(now) {
            sent += 1;
            // The third is there, and sees nothing but the first datagram.
            for (client, seen) in [(1, sent), (2, sent), (3, 1)] {
                cast.handle_report(client, &report(0, seen, vec![]), now);
            }
            if sent > 1000 {
                assert!(now >= NOW.after(HOLD_MAX), "not at once");
                return;
            }
        }
        now = now.after(Duration::from_millis(1));
        (1..=3).for_each(|client| {
            let seen = if client == 3 { 1 } else { sent };
            cast.handle_report(client, &report(0, seen, vec![]), now);
        });
    }
    panic!("held up at {sent}");
}

/// How many of `clients` are set aside because they see nothing but the first datagram, `slow` of
/// them, and when the others got on.
fn held_up(clients: u16, slow: u16) -> Option<Duration> {
    let mut cast = GroupSender::new(100_000, NOW);
    (1..=clients).for_each(|client| cast.join(client, 100, NOW));
    let (mut now, mut sent) = (NOW, 0_u32);
    while now < NOW.after(HOLD_MAX * 2) {
        while let Some(Transmit::Data { .. }) = cast.poll_transmit(now) {
            sent += 1;
            for client in 1..=clients {
                let seen = if client <= slow { 1 } else { sent };
                cast.handle_report(client, &report(0, seen, vec![]), now);
            }
            if sent > 1000 {
                return Some(now.since(NOW));
            }
        }
        now = now.after(Duration::from_millis(1));
        for client in 1..=clients {
            let seen = if client <= slow { 1 } else { sent };
            cast.handle_report(client, &report(0, seen, vec![]), now);
        }
    }
    None
}

#[test]
fn slow_half_of_a_group_is_no_longer_waited_for() {
    for (clients, slow) in [(2, 1), (4, 2)] {
        let span = held_up(clients, slow).expect("the others get on");
        assert!(span >= HOLD_MAX, "not at once");
    }
    assert_eq!(held_up(3, 2), None, "the slower ones are the more");
}

#[test]
fn clients_that_stall_each_other_in_turn_stay_in_the_group() {
    let mut cast = GroupSender::new(1_000_000, NOW);
    (1..=2).for_each(|client| cast.join(client, 100, NOW));
    let (mut now, mut seen) = (NOW, [0, 0]);
    // Each is the one that is behind for half of the time.
    for turn in 0..2000 {
        while let Some(Transmit::Data { .. }) = cast.poll_transmit(now) {}
        let fast = [0, 1, 1, 0][turn % 4];
        seen[fast] = cast.pkt;
        for client in 1..=2 {
            let seen = seen[usize::from(client) - 1];
            cast.handle_report(client, &report(0, seen, vec![]), now);
        }
        now = now.after(Duration::from_millis(5));
    }
    assert!(cast.members.values().all(|member| !member.aside));
    assert!(cast.pkt > 10_000, "{}", cast.pkt);
}

#[test]
fn lying_or_greedy_client_is_dropped() {
    let rising = report(1, 10, vec![8..9]);
    let falls = Report { more: true, ..rising.clone() };
    let mut cast = asked();
    cast.handle_report(2, &falls, NOW);
    cast.handle_report(2, &rising, NOW);
    assert_eq!(cast.poll_fault(), Some((2, Fault::Impossible)));
    for lie in [report(0, 11, vec![]), report(1, 10, vec![10..11])] {
        // One such word may be an honest client's, to whom somebody forged a datagram.
        let (mut cast, later) = (asked(), NOW.after(DOUBT));
        cast.handle_report(2, &lie, NOW);
        let mut honest = cast.clone();
        honest.handle_report(2, &report(0, 10, vec![]), NOW);
        honest.handle_report(2, &lie, later);
        assert_eq!(honest.poll_fault(), None);
        cast.handle_report(2, &lie, later);
        assert_eq!(cast.poll_fault(), Some((2, Fault::Impossible)));
    }
    let mut cast = asked();
    (1..=2).for_each(|client| cast.leave(client));
    let mut sent = 0_u32;
    while cast.poll_fault().is_none() {
        cast.handle_report(3, &report(cast.ends.round, cast.pkt, vec![0..10]), NOW);
        let transmit = cast.poll_transmit(cast.poll_timeout().max(NOW));
        sent += u32::from(matches!(transmit, Some(Transmit::Data { .. })));
        assert!(sent < 10_000, "no limit holds");
    }
    assert!(sent <= 10 * ROUNDS_MAX, "{sent}");
}

#[test]
fn client_that_receives_nothing_does_not_stop_the_others() {
    let mut cast = GroupSender::new(100_000, NOW);
    (1..=3).for_each(|client| cast.join(client, 1000, NOW));
    let mut now = NOW;
    let fault = loop {
        let sent = cast.poll_transmit(now).is_some();
        assert!(sent || now < NOW.after(STUCK), "nobody else is held up");
        now = now.after(Duration::from_millis(1));
        let pkt = cast.pkt;
        (1..=2).for_each(|client| cast.handle_report(client, &report(0, pkt, vec![]), now));
        // The third knows of everything, for the questions tell it, and has none of it.
        let nothing = Report { received: 0, ..report(0, pkt, vec![]) };
        cast.handle_report(3, &nothing, now);
        if let Some(fault) = cast.poll_fault() {
            break fault;
        }
    };
    assert_eq!(fault, (3, Fault::Unreached));
    assert!(now >= NOW.after(STUCK) && !cast.is_over(), "{now:?}");
}

#[test]
fn million_requests_cost_a_group_what_one_may_cost() {
    let mut cast = asked();
    let (mut now, mut sent, mut fault) = (NOW, 0_u64, None);
    for n in 0..1_000_000_u32 {
        now = now.after(Duration::from_micros(20));
        let everything = Report {
            more: n % 3 == 0,
            ..report(cast.ends.round.wrapping_sub(n % 2), cast.pkt, vec![0..10])
        };
        cast.handle_report(2, &everything, now);
        // The others have everything, and go as clients do that have.
        (n == 5).then(|| [1, 3].map(|honest| cast.leave(honest)));
        if let Some(Transmit::Data { .. } | Transmit::Xor { .. }) = cast.poll_transmit(now) {
            sent += 1;
        }
        fault = fault.or_else(|| cast.poll_fault());
    }
    let limit = 10 * u64::from(ROUNDS_MAX) + SLACK;
    assert!(fault.is_some_and(|(client, _)| client == 2), "{fault:?}");
    assert!(sent <= limit, "{sent}");
    assert!(cast.is_over() && cast.poll_straggler().is_none());
}

/// The next datagrams up to the END after them, and its round.
fn until_asked(cast: &mut GroupSender) -> (Vec<Vec<u32>>, u32) {
    let mut sent = Vec::new();
    loop {
        match cast.poll_transmit(NOW.after(Duration::from_millis(sent.len() as u64 / 1000))) {
            Some(Transmit::Data { block, .. }) => sent.push(vec![block]),
            Some(Transmit::Xor { blocks, .. }) => sent.push(blocks),
            Some(Transmit::End { round, .. }) => return (sent, round),
            None => panic!("{} were sent, and nothing is owed", sent.len()),
        }
    }
}

#[test]
fn clients_that_lack_much_are_repaired_together() {
    let mut cast = asked();
    cast.handle_report(1, &report(1, 10, vec![2..3]), NOW);
    for client in 2..=3 {
        cast.handle_report(client, &report(1, 10, vec![0..9]), NOW);
    }
    let (sent, round) = until_asked(&mut cast);
    assert_eq!((sent, round), (vec![vec![2]], 2), "the others first");
    cast.leave(1);
    // They are asked again, for what they lack may be less by now.
    for client in 2..=3 {
        let lacked = vec![0..2, 3..9];
        cast.handle_report(client, &report(round, cast.pkt, lacked), NOW);
    }
    let (sent, _) = until_asked(&mut cast);
    let each: Vec<_> = [0, 1, 3, 4, 5, 6, 7, 8].map(|block| vec![block]).into();
    assert_eq!(sent, each, "once for both");
    assert_eq!(cast.poll_straggler(), None);
}

#[test]
fn repair_of_a_large_file_is_planned_in_sections() {
    let blocks = 5 * SECTION + 7;
    let mut cast = GroupSender::new(blocks, NOW);
    cast.join(1, u32::MAX, NOW);
    (cast.next_new, cast.pkt) = (blocks, blocks);
    assert_eq!(until_asked(&mut cast), (vec![], 1));
    cast.handle_report(1, &report(1, blocks, vec![0..blocks]), NOW);
    let mut next = 0;
    while next < blocks {
        match cast.poll_transmit(NOW) {
            Some(Transmit::Data { block, again, .. }) => {
                assert_eq!((block, again), (next, true), "all of it, in order");
                assert!(cast.repair.len() <= SECTION as usize);
                next += 1;
            }
            other => assert!(matches!(other, Some(Transmit::End { .. })), "{other:?} at {next}"),
        }
    }
}

#[test]
fn answer_with_too_many_ranges_is_kept_in_part() {
    let mut cast = GroupSender::new(1_000_000, NOW);
    cast.join(1, u32::MAX, NOW);
    (cast.next_new, cast.pkt) = (1_000_000, 1_000_000);
    let (_, round) = until_asked(&mut cast);
    for line in 0..100 {
        let first = line * 10_000;
        let missing = (first..first + 10_000).step_by(2).map(|n| n..n + 1);
        let part = Report { more: line < 99, ..report(round, cast.pkt, missing.collect()) };
        cast.handle_report(1, &part, NOW);
    }
    assert_eq!(cast.poll_fault(), None);
    assert_eq!(cast.members[&1].missing.len(), RANGES_MAX);
}

/// What is sent until the next END, with `missing` as the answer of both clients to the last one.
fn answered(cast: &mut GroupSender, round: u32, missing: [Vec<Range<u32>>; 2]) -> Vec<Vec<u32>> {
    let pkt = cast.pkt;
    for (client, lacked) in (1..).zip(missing) {
        cast.handle_report(client, &report(round, pkt, lacked), NOW);
    }
    until_asked(cast).0
}

#[test]
fn losses_of_the_pass_are_repaired_within_it() {
    let mut cast = GroupSender::new(3 * EARLY, NOW);
    (1..=2).for_each(|client| cast.join(client, u32::MAX, NOW));
    let (pass, round) = until_asked(&mut cast);
    assert_eq!((pass.len(), round), (EARLY as usize, 1), "asked early");
    // Three losses of two clients are two datagrams; the pass goes on behind them.
    let sent = answered(&mut cast, 1, [vec![2..3, 9..10], vec![5..6]]);
    assert_eq!(sent[..3], [vec![2, 5], vec![9], vec![EARLY]]);
    assert_eq!(sent.len(), EARLY as usize);
    // Of the client that lost more the rest waits for losses of the other.
    let sent = answered(&mut cast, 2, [vec![20..24], vec![]]);
    assert_eq!(sent[..3], [vec![20], vec![21], vec![2 * EARLY - 2]]);
}

#[test]
fn early_question_repeats_nothing_that_is_about_to_be_sent() {
    let blocks = 1000;
    let mut cast = GroupSender::new(blocks, NOW);
    (1..=2).for_each(|client| cast.join(client, u32::MAX, NOW));
    assert_eq!(until_asked(&mut cast).0.len(), (blocks - AHEAD) as usize);
    assert_eq!(answered(&mut cast, 1, [vec![], vec![]]).len(), AHEAD as usize);
    // A round of 400 is asked about before its end too.
    let sent = answered(&mut cast, 2, [vec![0..400], vec![0..400]]);
    assert_eq!(sent.len(), AHEAD as usize);
    // What is still queued, from 256 on, is lacked by both, and is not planned a second time.
    let sent = answered(&mut cast, 3, [vec![7..8, 256..400], vec![256..400]]);
    assert_eq!(sent.first(), Some(&vec![256]), "what was planned first comes first");
    assert_eq!(sent.iter().filter(|blocks| blocks.contains(&399)).count(), 1);
    assert_eq!(sent.last(), Some(&vec![7]));
}

#[test]
fn silent_client_does_not_stop_the_early_repair() {
    let mut cast = GroupSender::new(3 * EARLY, NOW);
    (1..=3).for_each(|client| cast.join(client, u32::MAX, NOW));
    assert_eq!(until_asked(&mut cast).1, 1);
    let later = NOW.after(LAG);
    let pkt = cast.pkt;
    cast.handle_report(1, &report(1, pkt, vec![2..3]), later);
    cast.handle_report(2, &report(1, pkt, vec![]), later);
    let repair = Transmit::Data { pkt, block: 2, again: true };
    assert_eq!(cast.poll_transmit(later), Some(repair));
    assert!(cast.members.values().all(|member| !member.aside), "it has time until the end");
}
