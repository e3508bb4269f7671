use super::*;
use crate::report::sample;

const SECOND: u64 = 1_000_000;

/// A session of `clients` seats that took two seconds each, waited for the network all the time, and
/// lost nothing.
fn healthy(clients: u16) -> Record {
    let mut record = sample::session(1, clients, 2_000);
    for transfer in &mut record.transfers {
        transfer.evidence = Evidence {
            read_us: Some(19 * SECOND / 10),
            write_us: Some(SECOND / 20),
            hash_us: Some(3_000),
            cpu_us: Some(SECOND / 10),
            cpu_wait_us: Some(SECOND / 20),
            busy_us: Some(2 * SECOND),
            rwnd_limited_us: Some(4_000),
            sndbuf_limited_us: Some(0),
            segments: Some(7_000),
            segments_again: Some(20),
            min_rtt_us: Some(40),
            rtt_us: Some(9_000),
            queued_bytes: Some(0),
            ..Evidence::default()
        };
    }
    record
}

/// The same with other evidence of its second seat.
fn with(change: impl FnOnce(&mut Transfer)) -> Record {
    let mut record = healthy(3);
    change(&mut record.transfers[1]);
    record
}

/// Makes a seat take `seconds`, all of them waiting for the network.
fn take(transfer: &mut Transfer, seconds: u64) {
    let span = Duration::from_secs(seconds);
    transfer.seconds_client = Some(span);
    transfer.seconds_server = Some(span);
    transfer.seconds_verified = Some(span);
    transfer.evidence.read_us = Some(seconds * SECOND);
    transfer.evidence.write_us = Some(0);
    transfer.evidence.busy_us = Some(seconds * SECOND);
}

fn sentences(record: &Record) -> Vec<String> {
    let seats = explain(record).seats;
    seats.into_iter().map(|cause| cause.map_or_else(String::new, |c| c.sentence)).collect()
}

/// The one seat that has a reason is the second; its sentence, and the advice.
fn second(record: &Record) -> (String, String) {
    let explanation = explain(record);
    let mut all = sentences(record);
    let sentence = all.remove(1);
    assert!(all.iter().all(String::is_empty), "{all:?}");
    assert_eq!(explanation.advice.is_some(), !sentence.is_empty());
    (sentence, explanation.advice.unwrap_or_default())
}

#[test]
fn healthy_session_has_no_reason_and_no_advice() {
    for clients in [1, 2, 25] {
        let record = healthy(clients);
        let explanation = explain(&record);
        assert!(explanation.seats.iter().all(Option::is_none), "{explanation:?}");
        assert_eq!((explanation.advice, lines(&record, 9)), (None, String::new()));
    }
    // On a busy machine a thread that waits for data waits for a CPU too, and loses little by it.
    assert_eq!(second(&with(|t| t.evidence.cpu_wait_us = Some(12 * SECOND / 10))).0, "");
    // Nothing observed, nobody there, and the logs of earlier versions.
    for record in [sample::session(1, 3, 5_000), sample::session(1, 0, 0), sample::troubled()] {
        assert!(explain(&record).seats.iter().all(Option::is_none));
    }
}

#[test]
fn each_cause_at_a_client_has_its_sentence() {
    type Change = fn(&mut Evidence);
    let of_time: [(Change, &str); 5] = [
        (|e| e.paced_us = Some(SECOND), "held to --rate: the server waited 50 % of the time"),
        (
            |e| e.cpu_us = Some(12 * SECOND / 10),
            "limited by its own CPU: it was busy 60 % of the time",
        ),
        (
            |e| {
                e.read_us = Some(SECOND / 10);
                e.write_us = Some(122 * SECOND / 100);
            },
            "limited by its disk: 61 % of the time in write",
        ),
        (
            |e| {
                e.read_us = Some(SECOND / 10);
                e.sync_us = Some(SECOND + 20_000);
            },
            "limited by its disk: 51 % of the time in sync",
        ),
        (
            |e| {
                e.read_us = Some(SECOND / 10);
                e.hash_us = Some(155 * SECOND / 100);
            },
            "limited by its disk: 70 % of the time reading its copy back",
        ),
    ];
    for (change, wanted) in of_time {
        let record = with(|transfer| {
            change(&mut transfer.evidence);
            transfer.seconds_verified = Some(Duration::from_secs(2));
            transfer.seconds_server = transfer.seconds_verified;
        });
        assert_eq!(second(&record).0, wanted);
    }
    // Who lacks a CPU and is no slower for it has no reason.
    let starve = |t: &mut Transfer| t.evidence.cpu_wait_us = Some(19 * SECOND / 10);
    assert_eq!(second(&with(starve)).0, "");
    let mut record = with(|t| take(t, 4));
    record.transfers[1].evidence.cpu_wait_us = Some(34 * SECOND / 10);
    assert_eq!(second(&record).0, "limited by its own CPU: it waited for it 85 % of the time");
}

#[test]
fn each_cause_on_the_way_has_its_sentence() {
    let window = with(|t| t.evidence.rwnd_limited_us = Some(18 * SECOND / 10));
    let (sentence, advice) = second(&window);
    assert!(sentence.starts_with("limited by its receive window: it was full 90 %"), "{sentence}");
    assert!(advice.contains("net.ipv4.tcp_rmem"), "{advice}");
    let buffer = with(|t| t.evidence.sndbuf_limited_us = Some(18 * SECOND / 10));
    assert!(second(&buffer).0.starts_with("limited by the server's send buffer"));

    let loss = with(|t| {
        take(t, 6);
        (t.evidence.segments_again, t.evidence.rtt_us) = (Some(126), Some(900));
    });
    assert_eq!(second(&loss).0, "1.8 % of segments retransmitted");
    // A full queue is no loss by itself: congestion control fills it and loses a little there.
    let full = with(|t| {
        take(t, 6);
        t.evidence.segments_again = Some(126);
    });
    assert!(second(&full).0.starts_with("limited by the link to it: 1.3 Mbit/s"), "{full:?}");
    let much = with(|t| {
        take(t, 6);
        t.evidence.segments_again = Some(1_400);
    });
    assert_eq!(second(&much).0, "20 % of segments retransmitted");
    let link = with(|t| take(t, 6));
    let wanted = "limited by the link to it: 1.3 Mbit/s, and the fastest client had 4.0";
    assert_eq!(
        second(&link),
        (wanted.to_owned(), "find what makes the link to seat 2 slow".to_owned())
    );
}

#[test]
fn clients_that_share_the_uplink_wait_like_everybody() {
    let mut record = healthy(25);
    for transfer in &mut record.transfers {
        transfer.evidence.queued_bytes = Some(40_000);
    }
    let all = sentences(&record);
    let wanted = "waits for the server's uplink like everybody: 98.8 Mbit/s for 25 clients";
    assert!(all.iter().all(|sentence| sentence == wanted), "{all:?}");
    insta::assert_snapshot!(lines(&record, 9), @r"
    why slow, seat 1-25 waits for the server's uplink like everybody: 98.8 Mbit/s for 25 clients
    to be faster        send each byte over the server's link once: --via multicast or --via swarm
    ");
    // One client shares it with nobody, and what is below two segments is no queue.
    let mut alone = healthy(1);
    alone.transfers[0].evidence.queued_bytes = Some(40_000);
    assert_eq!(sentences(&alone), [""]);
    record.transfers.iter_mut().for_each(|t| t.evidence.queued_bytes = Some(QUEUED_MIN - 1));
    assert!(sentences(&record).iter().all(String::is_empty));
}

#[test]
fn fast_seat_among_slow_ones_and_short_session_have_no_reason() {
    // The second seat's disk is busy half of its time, and it is done first all the same.
    let busy = |e: &mut Evidence| {
        (e.read_us, e.write_us) = (Some(SECOND / 10), Some(18 * SECOND / 10));
    };
    let mut record = with(|transfer| busy(&mut transfer.evidence));
    assert_ne!(second(&record).0, "");
    take(&mut record.transfers[2], 9);
    let all = sentences(&record);
    assert!(all[0].is_empty() && all[1].is_empty(), "{all:?}");
    assert!(all[2].starts_with("limited by the link to it"), "{all:?}");

    let mut short = with(|transfer| busy(&mut transfer.evidence));
    for transfer in &mut short.transfers {
        transfer.seconds_server = Some(SLOW_MIN / 2);
        transfer.seconds_verified = Some(SLOW_MIN - Duration::from_micros(1));
    }
    assert_eq!(sentences(&short), [""; 3]);
}

#[test]
fn figures_that_cannot_be_are_no_evidence() {
    // A client that claims more time than passed is not believed in anything it says.
    for part in [18 * SECOND / 10, u64::MAX] {
        let liar = with(|t| t.evidence.write_us = Some(part));
        assert_eq!(second(&liar).0, "", "{part}");
    }
    // More limited than busy, more lost than sent, none sent, and figures without their others.
    type Change = fn(&mut Evidence);
    let bent: [Change; 5] = [
        (|e| (e.rwnd_limited_us, e.sndbuf_limited_us) = (Some(u64::MAX), Some(1))),
        (|e| (e.segments_again, e.rtt_us) = (Some(8_000), Some(40))),
        (|e| (e.segments, e.segments_again) = (Some(0), Some(u64::MAX))),
        (|e| e.busy_us = None),
        (|e| *e = Evidence { rtt_us: Some(0), min_rtt_us: Some(u64::MAX), ..*e }),
    ];
    for (number, change) in bent.into_iter().enumerate() {
        assert_eq!(second(&with(|t| change(&mut t.evidence))).0, "", "{number}");
    }
    // No time at all, and all the time there is.
    for span in [Duration::ZERO, Duration::MAX] {
        let mut record = healthy(2);
        record.transfers.iter_mut().for_each(|t| {
            (t.seconds_verified, t.seconds_server) = (Some(span), Some(span));
            t.evidence = Evidence::from_values([Some(u64::MAX); Evidence::NAMES.len()]);
        });
        for cause in explain(&record).seats.into_iter().flatten() {
            assert!((0.0..=1.0).contains(&cause.share), "{cause:?}");
        }
    }
}

#[test]
fn slowest_seat_decides_the_advice_and_lines_are_bounded() {
    let mut record = healthy(30);
    for (transfer, seconds) in record.transfers.iter_mut().zip(4..).skip(1) {
        take(transfer, seconds);
    }
    let loss = &mut record.transfers[29];
    loss.evidence.segments_again = Some(3_500);
    let text = lines(&record, 3);
    assert_eq!(text.lines().count(), 5, "{text}");
    assert!(text.contains("26 more seats have a reason"), "{text}");
    assert!(text.ends_with("find what loses packets on the way to seat 30\n"), "{text}");
}

#[test]
fn seat_that_loses_most_datagrams_held_its_group_up() {
    let mut record = healthy(3);
    record.via = Via::Multicast;
    for transfer in &mut record.transfers {
        transfer.counts.offered = Some(10_000);
        (transfer.counts.lost, transfer.counts.network_lost) = (Some(20), Some(20));
    }
    assert_eq!(sentences(&record), [""; 3]);
    let counts = &mut record.transfers[1].counts;
    (counts.lost, counts.network_lost, counts.host_rx_drop) = (Some(420), Some(20), Some(400));
    let wanted = "4.0 % of datagrams dropped by its full buffer";
    assert_eq!(second(&record).0, wanted);
    let counts = &mut record.transfers[1].counts;
    (counts.network_lost, counts.host_rx_drop) = (Some(420), Some(0));
    let lost = "4.0 % of datagrams lost on the way to it alone";
    assert_eq!(second(&record).0, lost);
    // For how long the group waited for it, as the server saw.
    let repaired = |n| 100_000 + u64::from(n == 1) * 1_300_000;
    for (n, transfer) in record.transfers.iter_mut().enumerate() {
        transfer.evidence.repair_us = Some(repaired(n));
        transfer.evidence.rate_cuts = Some(5 * u64::from(n == 1));
    }
    let held = "; cuts of the rate for it: 5; repaired 1.3 s longer than the others";
    assert_eq!(second(&record).0, format!("{lost}{held}"));
    // A queue on the way to it alone is a narrow link, which loses what does not fit.
    let all_queue = |record: &mut Record, us: [u64; 3]| {
        let all = record.transfers.iter_mut().zip(us);
        all.for_each(|(transfer, us)| transfer.counts.delay_us = Some(us));
    };
    all_queue(&mut record, [8_000, 20_000, 9_000]);
    assert_eq!(second(&record).0, format!("{lost}{held}"));
    all_queue(&mut record, [8_000, 94_000, 9_000]);
    let link = "limited by the link to it: a queue of 94 ms, and of 9 ms to others";
    assert_eq!(second(&record).0, format!("{link}{held}"));
    // One client that says it has no queue, or far too much of one, changes nothing for the others.
    all_queue(&mut record, [0, 9_000, 9_000]);
    assert_eq!(second(&record).0, format!("{lost}{held}"));
    all_queue(&mut record, [u64::MAX, 9_000, 9_000]);
    assert_eq!(second(&record).0, format!("{lost}{held}"));
    // All lose as much: the session looked for its rate.
    for transfer in &mut record.transfers {
        (transfer.counts.lost, transfer.counts.network_lost) = (Some(4_000), Some(4_000));
    }
    assert_eq!(sentences(&record), [""; 3]);
    let own = &mut record.transfers[1];
    own.evidence.buffer_full_us = Some(SECOND + SECOND / 2);
    (own.evidence.buffer_bytes, own.bytes_client) = (Some(212_992), Some(20_000_000));
    // 9 ms of 10 MB a second are 90,000 bytes in a queue: the link is full, and the buffer with it.
    assert_eq!(sentences(&record), [""; 3]);
    all_queue(&mut record, [3_000, 9_000, 3_000]);
    let full = "limited by its buffer of 212992 bytes: it was full 75 % of the time";
    let (sentence, advice) = second(&record);
    assert_eq!(sentence, format!("{full}{held}"));
    assert!(advice.contains("net.core.rmem_max"), "{advice}");
    record.via = Via::Raw;
    assert_eq!(sentences(&record), [""; 3], "what repairs nothing is not slowed by loss");
}

#[test]
fn full_link_of_a_groups_server_is_what_everybody_waits_for() {
    let mut record = healthy(3);
    record.via = Via::Multicast;
    for transfer in &mut record.transfers {
        transfer.evidence.server_link_us = Some(SECOND / 2);
    }
    assert_eq!(sentences(&record), [""; 3], "a quarter of the time");
    for transfer in &mut record.transfers {
        transfer.evidence.server_link_us = Some(19 * SECOND / 10);
    }
    let full = "waits for the server's uplink like everybody: it was full 95 % of the time";
    assert_eq!(sentences(&record), [full; 3]);
    assert_eq!(explain(&record).advice.as_deref(), Some("give the server a faster link"));
    record.clients = 1;
    record.transfers.truncate(1);
    assert_eq!(sentences(&record), [""], "nobody else waits");
}

/// A swarm whose server sent so many `copies`, whose link was full for so long, and whose clients'
/// links were.
fn swarm(copies: f64, server_us: u64, clients_us: [Option<u64>; 3]) -> Record {
    let mut record = healthy(3);
    record.via = Via::Swarm;
    for (transfer, full) in record.transfers.iter_mut().zip(clients_us) {
        transfer.bytes_server = Some((record.file.bytes as f64 * copies / 3.0) as u64 + 1);
        transfer.evidence.busy_us = Some(0);
        (transfer.evidence.server_link_us, transfer.evidence.client_link_us) =
            (Some(server_us), full);
    }
    record
}

#[test]
fn swarm_names_whose_links_were_full_or_nobody() {
    let (full, free) = (19 * SECOND / 10, SECOND / 10);
    let server = "waits for the server's uplink like everybody: it was full 95 % of the time";
    let peers = "waits for the clients' uplinks: they were full, and the server sent 2.7 copies";
    for (copies, server_us, clients_us, wanted) in [
        (1.0, full, [Some(free); 3], server),
        (1.0, full, [Some(full); 3], server),
        (1.45, full, [None; 3], server),
        (1.0, free, [Some(full); 3], ""),
        // Between one copy and two nobody can tell.
        (1.7, full, [Some(full); 3], ""),
        (2.7, full, [Some(full); 3], peers),
        (2.7, free, [Some(full); 3], peers),
        // The peers could have sent more, and did not.
        (2.7, full, [Some(free); 3], server),
        (2.7, full, [Some(free), Some(full), Some(full)], peers),
        (2.7, full, [Some(full), Some(free), Some(full)], ""),
        (2.7, full, [Some(full), None, Some(full)], ""),
        // A server without a CPU, and one that nobody looked at.
        (2.7, free, [Some(free); 3], ""),
        (1.0, 0, [None; 3], ""),
    ] {
        let record = swarm(copies, server_us, clients_us);
        assert_eq!(sentences(&record), [wanted; 3], "{copies} {server_us} {clients_us:?}");
    }
    // More than there was of it is no evidence.
    let record = swarm(2.7, full, [Some(u64::MAX); 3]);
    assert_eq!(sentences(&record), [""; 3]);
    let explained = explain(&swarm(2.7, full, [Some(full); 3]));
    assert!(explained.advice.is_some_and(|advice| advice.contains("--via multicast")));
    let text = lines(&swarm(2.7, full, [Some(full); 3]), 9);
    assert!(text.starts_with("why slow, seat 1-3  waits for the clients'"), "{text}");
}

#[test]
fn narrow_link_in_a_swarm_is_named_while_both_ends_are_free() {
    // As measured: its queue loses a lot, and the others pass pieces on.
    let (full, free) = (Some(SECOND), Some(SECOND / 2));
    let mut record = swarm(1.3, 0, [full, free, full]);
    take(&mut record.transfers[1], 5);
    let own = &mut record.transfers[1].evidence;
    (own.segments_again, own.rtt_us) = (Some(1_000), Some(45_000));
    assert!(second(&record).0.starts_with("limited by the link to it"), "{record:?}");
    record.transfers[1].evidence.segments_again = Some(2_100);
    assert_eq!(second(&record).0, "30 % of segments retransmitted");
    for change in [
        |e: &mut Evidence| e.client_link_us = Some(2 * SECOND),
        |e: &mut Evidence| e.server_link_us = Some(2 * SECOND),
    ] {
        let mut record = record.clone();
        change(&mut record.transfers[1].evidence);
        assert_eq!(second(&record).0, "");
    }
}
