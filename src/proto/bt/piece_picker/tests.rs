use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::proto::bt::piece_picker::arrive::Arrival;

const T0: Moment = Moment(1_000_000);

fn at(ms: u64) -> Moment {
    T0.after(Duration::from_millis(ms))
}

/// Four pieces of four blocks, the last of them short.
fn picker() -> PiecePicker {
    let layout = PieceLayout::new(4 * 65536 - 20_000, 65536);
    PiecePicker::new(layout, Bitfield::new(4), 7)
}

fn peer(picker: &mut PiecePicker, key: u32, pieces: &[u32]) {
    picker.add_peer(key, 250);
    for &piece in pieces {
        picker.add_piece(key, piece).expect("in range");
    }
    picker.set_serving(key, true);
}

/// Lets `peer` send `block`.
fn send(picker: &mut PiecePicker, peer: u32, block: Block, now: Moment) -> Arrival {
    picker.receive_block(peer, block, now)
}

#[test]
fn layout_has_no_gaps_and_refuses_blocks_outside() {
    let layout = PieceLayout::new(4 * 65536 - 20_000, 65536);
    assert_eq!((layout.pieces(), layout.len(3), layout.blocks(3)), (4, 45_536, 3));
    let blocks = (0..4).flat_map(|p| (0..layout.blocks(p)).map(move |b| layout.block(p, b)));
    assert_eq!(blocks.clone().map(|b| u64::from(b.len)).sum::<u64>(), layout.bytes);
    assert!(blocks.clone().all(|block| layout.allows(block)));
    let block = |piece, begin, len| Block { piece, begin, len };
    assert!(layout.allows(block(0, 0, 65536)) && !layout.allows(block(0, 0, 65537)));
    for wrong in [
        block(4, 0, 1),
        block(0, 0, 0),
        block(0, 65536, 1),
        block(0, u32::MAX, 1),
        block(0, u32::MAX, u32::MAX),
        block(0, 1, 65536),
        block(3, 45_536 - 16384 + 1, 16384),
        block(u32::MAX, u32::MAX, u32::MAX),
        block(0, 0, 1 << 20),
    ] {
        assert!(!layout.allows(wrong), "{wrong:?}");
    }
}

#[test]
fn peer_that_chokes_or_has_nothing_new_gets_no_request() {
    let mut picker = picker();
    picker.add_peer(1, 250);
    picker.add_piece(1, 0).expect("in range");
    assert!(picker.next_requests(1, T0).is_empty(), "choked");
    picker.set_serving(1, true);
    assert_eq!(picker.next_requests(1, T0).len(), 4);
    assert!(picker.next_requests(1, T0).is_empty(), "all of it is asked for");
    assert!(picker.add_piece(1, 4).is_err());
    assert_eq!(picker.add_piece(1, 0), Ok(false), "a repeat");
}

#[test]
fn rarest_piece_comes_first() {
    let mut picker = picker();
    peer(&mut picker, 1, &[0, 1, 2, 3]);
    peer(&mut picker, 2, &[0, 1, 3]);
    peer(&mut picker, 3, &[0, 1, 3]);
    assert_eq!(picker.next_requests(1, T0)[0].piece, 2);
}

#[test]
fn no_block_is_requested_twice_before_the_end() {
    let mut picker = picker();
    for key in 1..4 {
        peer(&mut picker, key, &[0, 1, 2, 3]);
    }
    let mut asked: Vec<Block> = (1..4).flat_map(|key| picker.next_requests(key, T0)).collect();
    let all = asked.len();
    asked.sort_unstable();
    asked.dedup();
    assert_eq!((asked.len(), all), (15, 15), "every block, once");
    assert_eq!(picker.counts.endgame, 0);
}

#[test]
fn overdue_block_is_requested_once_more_at_the_end() {
    let mut picker = picker();
    peer(&mut picker, 1, &[0, 1, 2, 3]);
    peer(&mut picker, 2, &[0, 1, 2, 3]);
    peer(&mut picker, 3, &[0, 1, 2, 3]);
    let owed: Vec<Block> = [picker.next_requests(1, T0), picker.next_requests(2, T0)].concat();
    assert_eq!(owed.len(), 15);
    assert!(picker.next_requests(3, at(199)).is_empty(), "nothing is overdue yet");
    let again = picker.next_requests(3, at(200));
    assert_eq!(again.len(), 15);
    assert_eq!(picker.counts.endgame, 15);
    let block = again[0];
    let Arrival::Kept(others) = send(&mut picker, 3, block, at(210)) else {
        panic!("it is the first to come");
    };
    assert_eq!(others.len(), 1, "the peer that owes it is told");
    assert_eq!(send(&mut picker, others[0], block, at(520)), Arrival::Unwanted);
    assert_eq!(picker.counts.wasted, 1);
}

#[test]
fn unrequested_block_is_dropped() {
    let mut picker = picker();
    peer(&mut picker, 1, &[0]);
    let block = picker.next_requests(1, T0)[0];
    peer(&mut picker, 2, &[0]);
    assert_eq!(send(&mut picker, 2, block, T0), Arrival::Unwanted);
    let off = Block { begin: block.begin + 1, ..block };
    assert_eq!(send(&mut picker, 1, off, T0), Arrival::Unwanted);
    let long = Block { len: block.len + 1, ..block };
    assert_eq!(send(&mut picker, 1, long, T0), Arrival::Unwanted);
    assert_eq!(send(&mut picker, 1, block, T0), Arrival::Kept(vec![]));
    assert_eq!(send(&mut picker, 1, block, T0), Arrival::Unwanted, "twice");
    assert_eq!(picker.counts.wasted, 4);
}

#[test]
fn requests_of_lost_or_choking_peers_go_to_others() {
    for choke in [false, true] {
        let mut picker = picker();
        peer(&mut picker, 1, &[2]);
        let owed = picker.next_requests(1, T0);
        send(&mut picker, 1, owed[0], T0);
        if choke {
            picker.set_serving(1, false);
        } else {
            picker.remove_peer(1);
        }
        peer(&mut picker, 2, &[2]);
        assert_eq!(picker.next_requests(2, T0), owed[1..], "all but what came");
    }
}

#[test]
fn silent_peer_loses_its_requests_and_late_blocks_count() {
    let mut picker = picker();
    peer(&mut picker, 1, &[2]);
    let owed = picker.next_requests(1, T0);
    assert!(picker.snub_silent_peers(at(4000)).is_empty());
    assert_eq!(picker.snub_silent_peers(at(4001)), [1]);
    assert_eq!(send(&mut picker, 1, owed[1], at(4002)), Arrival::Kept(vec![]));
    peer(&mut picker, 2, &[2]);
    assert_eq!(picker.next_requests(2, at(4003)).len(), 3, "the others");
}

#[test]
fn rejected_block_is_requested_of_another_peer_only() {
    let mut picker = picker();
    peer(&mut picker, 1, &[2]);
    let owed = picker.next_requests(1, T0);
    picker.request_rejected(1, owed[0]);
    picker.request_rejected(1, Block { piece: 3, begin: 0, len: 16384 });
    assert!(picker.next_requests(1, T0).is_empty());
    assert_eq!(picker.copies(2), 0);
    peer(&mut picker, 2, &[2]);
    picker.remove_peer(1);
    assert_eq!(picker.next_requests(2, T0).len(), 4);
}

#[test]
fn wrong_piece_of_one_sender_names_it() {
    let mut picker = picker();
    peer(&mut picker, 1, &[2]);
    for block in picker.next_requests(1, T0) {
        send(&mut picker, 1, block, T0);
    }
    assert_eq!(picker.piece_corrupt(2, &[0; 65536]), Some(1));
    assert_eq!(picker.next_requests(1, T0).len(), 4, "it is to be fetched again");
    assert_eq!(picker.counts.wrong, 1);
}

#[test]
fn right_piece_shows_who_sent_wrong_blocks() {
    let mut picker = picker();
    let right = vec![5; 65536];
    let mut lied = right.clone();
    lied[20_000] = 6;
    peer(&mut picker, 1, &[2]);
    let owed = picker.next_requests(1, T0);
    send(&mut picker, 1, owed[0], T0);
    picker.set_serving(1, false);
    peer(&mut picker, 2, &[2]);
    for block in picker.next_requests(2, T0) {
        send(&mut picker, 2, block, T0);
    }
    assert_eq!(picker.piece_corrupt(2, &lied), None, "either may have lied");
    picker.set_serving(1, true);
    let again = picker.next_requests(1, T0);
    assert_eq!(again.len(), 4);
    assert!(picker.next_requests(2, T0).is_empty(), "this time it has one sender");
    for block in again {
        send(&mut picker, 1, block, T0);
    }
    assert_eq!(picker.piece_verified(2, &right), [2]);
}

#[test]
fn fast_peer_gets_more_requests_up_to_its_limit() {
    let layout = PieceLayout::new(100 << 20, 1 << 20);
    let mut picker = PiecePicker::new(layout, Bitfield::new(100), 7);
    picker.add_peer(1, 60);
    picker.add_pieces(1, &Bitfield::full(100));
    picker.set_serving(1, true);
    let mut owed: VecDeque<Block> = picker.next_requests(1, T0).into();
    assert_eq!(owed.len(), 60, "all that it allows, as it is the only one");
    (2..100).for_each(|other| picker.add_peer(other, 60));
    assert!(!picker.needs_requests(1), "one of a hundred is owed less");
    // One block each millisecond: 16 MB/s, so that 0.12 s hold 120 blocks.
    for ms in 0..600 {
        let block = owed.pop_front().expect("asked");
        if let Arrival::PieceComplete(_) = send(&mut picker, 1, block, at(ms)) {
            picker.piece_verified(block.piece, &[]);
        }
        owed.extend(picker.next_requests(1, at(ms)));
    }
    assert_eq!(owed.len(), 60);
    picker.set_request_limit(1, 400);
    picker.next_requests(1, at(600));
    assert!(
        (112..=125).contains(&picker.peers[&1].pending.len()),
        "{}",
        picker.peers[&1].pending.len()
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    /// Peers come, go, lie, choke, stall and send in any order; the copy still becomes whole as
    /// soon as one honest peer has everything, and the counts hold.
    #[test]
    fn copy_becomes_complete_whatever_peers_do(
        acts in prop::collection::vec((0u8..8, 1u32..5, any::<u64>()), 0..300), seed in any::<u64>()
    ) {
        let layout = PieceLayout::new(7 * 65536 - 20_000, 65536);
        let mut picker = PiecePicker::new(layout, Bitfield::new(7), seed);
        let mut owed: Vec<(u32, Block)> = Vec::new();
        let mut now = T0;
        for (act, key, number) in acts {
            now = now.after(Duration::from_millis(number % 700));
            match act {
                0 => picker.add_peer(key, 250),
                1 => picker.remove_peer(key),
                2 => { let _ = picker.add_piece(key, (number % 9) as u32); }
                3 => picker.set_serving(key, number % 3 > 0),
                4 => owed.extend(picker.next_requests(key, now).into_iter().map(|block| (key, block))),
                5 if !owed.is_empty() => {
                    let (from, block) = owed.swap_remove(number as usize % owed.len());
                    if let Arrival::PieceComplete(_) = send(&mut picker, from, block, now) {
                        if number % 2 == 0 {
                            picker.piece_verified(block.piece, &[0; 65536]);
                        } else {
                            picker.piece_corrupt(block.piece, &[1; 65536]);
                        }
                    }
                }
                6 if !owed.is_empty() => {
                    let (from, block) = owed.swap_remove(number as usize % owed.len());
                    picker.request_rejected(from, block);
                }
                _ => { picker.snub_silent_peers(now); }
            }
        }
        prop_assert_eq!(picker.missing, picker.partial.values().map(|piece| piece.missing).sum::<u32>());
        (1..5).for_each(|key| picker.remove_peer(key));
        prop_assert!((0..7).all(|piece| picker.copies(piece) == 0));
        picker.add_peer(9, 250);
        picker.add_pieces(9, &Bitfield::full(7));
        picker.set_serving(9, true);
        for _ in 0..200 {
            for block in picker.next_requests(9, now) {
                if let Arrival::PieceComplete(_) = send(&mut picker, 9, block, now) {
                    picker.piece_verified(block.piece, &[0; 65536]);
                }
            }
        }
        prop_assert!(picker.is_complete());
        prop_assert!(picker.partial.is_empty() && picker.started.is_empty());
        prop_assert_eq!(picker.missing, 0);
    }
}

/// Pieces of four blocks, so many.
fn wide(pieces: u32) -> PiecePicker {
    let layout = PieceLayout::new(u64::from(pieces) * 65536, 65536);
    PiecePicker::new(layout, Bitfield::new(pieces), 7)
}

#[test]
fn peer_that_finishes_no_piece_does_not_fill_the_memory() {
    let mut picker = wide(1000);
    peer(&mut picker, 1, &[]);
    for piece in 0..1000 {
        picker.add_piece(1, piece).expect("in range");
        picker.set_serving(1, true);
        let block = picker.next_requests(1, T0).into_iter().find(|b| b.piece == piece);
        if let Some(block) = block {
            send(&mut picker, 1, block, T0);
        }
        picker.set_serving(1, false);
    }
    // Two for each peer, and those whose blocks fill one pipeline.
    assert!(picker.partial_count() <= 2 + 64 / 3, "{} pieces", picker.partial_count());
    // What it has can still be had of somebody else, all of it.
    let all: Vec<u32> = (0..1000).collect();
    peer(&mut picker, 2, &all);
    while !picker.is_complete() {
        let asked = picker.next_requests(2, T0);
        assert!(!asked.is_empty());
        for block in asked {
            if let Arrival::PieceComplete(_) = send(&mut picker, 2, block, T0) {
                picker.piece_verified(block.piece, &[]);
            }
        }
    }
}

#[test]
fn every_peer_may_lead_a_piece_of_its_own() {
    let mut picker = wide(400);
    let all: Vec<u32> = (0..400).collect();
    for key in 0..200 {
        peer(&mut picker, key, &all);
        picker.set_request_limit(key, 1);
    }
    for key in 0..200 {
        assert_eq!(picker.next_requests(key, T0).len(), 1);
    }
    assert_eq!(picker.partial_count(), 200);
}

#[test]
fn block_of_a_withdrawn_request_is_not_unrequested() {
    let mut picker = picker();
    peer(&mut picker, 1, &[0, 1]);
    let asked = picker.next_requests(1, T0);
    assert_eq!(asked.len(), 8);
    picker.set_serving(1, false);
    for block in &asked {
        assert_eq!(send(&mut picker, 1, *block, T0), Arrival::Unwanted);
    }
    assert_eq!(picker.unrequested_blocks(1), 0, "all of them were on their way");
    assert_eq!(send(&mut picker, 1, asked[0], T0), Arrival::Unwanted);
    assert_eq!(picker.unrequested_blocks(1), 1);
}

#[test]
fn sender_of_a_wrong_piece_stays_suspect_after_it_left() {
    let mut picker = wide(1);
    peer(&mut picker, 1, &[0]);
    let asked = picker.next_requests(1, T0);
    send(&mut picker, 1, asked[0], T0);
    picker.set_serving(1, false);
    peer(&mut picker, 2, &[0]);
    for block in picker.next_requests(2, T0) {
        send(&mut picker, 2, block, T0);
    }
    picker.remove_peer(1);
    assert!(picker.is_suspect(1), "the piece is not verified yet");
    assert_eq!(picker.piece_corrupt(0, &vec![1; 65536]), None, "either of them");
    assert!(picker.is_suspect(1) && picker.is_suspect(2) && !picker.is_suspect(3));
    let mut right = vec![1; 65536];
    right[0] = 0;
    for block in picker.next_requests(2, T0) {
        send(&mut picker, 2, block, T0);
    }
    assert_eq!(picker.piece_verified(0, &right), [1]);
    assert!(!picker.is_suspect(1), "that is settled");
}

/// The rate that one of twenty peers comes to, bytes per second: its link takes ten megabytes a
/// second, and each answer so long.
fn rate_over(round_trip_ms: u64) -> f64 {
    const RATE: u64 = 10_000_000;
    let mut picker = wide(4000);
    let all: Vec<u32> = (0..4000).collect();
    (1..20).for_each(|key| picker.add_peer(key, 500));
    peer(&mut picker, 0, &all);
    picker.set_request_limit(0, 500);
    let mut coming = VecDeque::new();
    let mut link_free = 0;
    let mut late = 0;
    // Ten seconds, by milliseconds.
    for ms in 0..10_000u64 {
        while let Some(&(at_us, block)) = coming.front()
            && at_us <= ms * 1000
        {
            coming.pop_front();
            late += u64::from(ms >= 8000) * 16_384;
            if let Arrival::PieceComplete(_) = send(&mut picker, 0, block, at(ms)) {
                picker.piece_verified(block.piece, &[]);
            }
        }
        if picker.needs_requests(0) {
            for block in picker.next_requests(0, at(ms)) {
                link_free = link_free.max(ms * 1000) + 16_384 * 1_000_000 / RATE;
                coming.push_back((link_free + round_trip_ms * 1000, block));
            }
        }
    }
    late as f64 / 2.0
}

#[test]
fn pipeline_grows_with_the_round_trip_until_link_is_full() {
    for round_trip_ms in [0, 20, 90, 200, 400] {
        let rate = rate_over(round_trip_ms);
        // All that 500 requests, the most that a peer lets wait, can be on a long way.
        let most = 500.0 * 16_384.0 / (round_trip_ms as f64 / 1000.0).max(0.001);
        let full = most.min(10e6);
        assert!(rate > full * 0.85, "{rate} of {full} at {round_trip_ms} ms");
    }
}
