use std::time::Duration;

use super::*;
use crate::proto::udp::reports::PROGRESS;

const NOW: Moment = Moment(5_000_000);
const LAYOUT: BlockLayout = BlockLayout { bytes: 95, block_len: 10 };

fn receiver(how: RepairMode) -> BlockReceiver {
    BlockReceiver::new(7, LAYOUT, 0, how, 100, NOW)
}

fn datagram(pkt: u32, body: Body<'_>) -> Vec<u8> {
    let mut bytes = Vec::new();
    Packet { stream: 7, pkt, sent_us: 0, body }.encode(&mut bytes);
    bytes
}

fn data(pkt: u32, block: u32) -> Vec<u8> {
    let len = if block == 9 { 5 } else { 10 };
    datagram(pkt, Body::Data { block, again: false, payload: &[block as u8; 10][..len] })
}

#[test]
fn receiver_reports_only_blocks_that_were_overtaken() {
    let mut receiver = receiver(RepairMode::Unicast);
    for (pkt, block) in [(0, 0), (2, 2), (3, 3), (4, 4)] {
        receiver.handle(&data(pkt, block), NOW);
    }
    let later = NOW.after(PROGRESS);
    let reports = receiver.poll_reports(later);
    assert_eq!(reports.len(), 1);
    assert_eq!(reports[0].missing, [], "overtaken by two only");
    receiver.handle(&data(6, 6), NOW);
    let reports = receiver.poll_reports(later.after(PROGRESS));
    assert_eq!(reports[0].missing, [1..2], "5 is younger");
    assert_eq!((reports[0].seen, reports[0].cum), (7, 1));
    receiver.handle(&datagram(8, Body::End { upto: 8, round: 1 }), later);
    let reports = receiver.poll_reports(later);
    assert_eq!(reports[0].missing, [1..2, 5..6, 7..8]);
    assert_eq!((reports[0].seen, reports[0].round), (8, 1));
}

#[test]
fn answer_is_followed_by_reports_at_growing_pauses() {
    for (mode, pauses) in [
        (RepairMode::Multicast(Duration::ZERO), [2, 4, 8, 16]),
        (RepairMode::Unicast, [2, 4, 8, 16]),
        (RepairMode::Raw, [500; 4]),
    ] {
        let mut receiver = receiver(mode);
        receiver.handle(&datagram(8, Body::End { upto: 8, round: 1 }), NOW);
        assert_eq!(receiver.poll_reports(NOW)[0].round, 1, "the answer");
        let mut now = NOW;
        for pause in pauses.map(Duration::from_millis) {
            assert_eq!(receiver.poll_timeout(), now.after(pause), "{mode:?}");
            now = receiver.poll_timeout();
            assert_eq!(receiver.poll_reports(now)[0].round, 0, "only so that something follows");
        }
    }
}

#[test]
fn xor_delivers_the_one_missing_block() {
    let mut receiver = receiver(RepairMode::Multicast(Duration::ZERO));
    for block in [1, 2] {
        receiver.handle(&data(block, block), NOW);
    }
    let xor = |pkt, blocks: &[u32]| {
        datagram(pkt, Body::Xor { blocks: blocks.to_vec(), payload: &[9; 10] })
    };
    let bytes = xor(5, &[1, 2, 3]);
    let heard = receiver.handle(&bytes, NOW);
    assert_eq!(heard, Delivery::Coded { lacking: 3, others: vec![1, 2], payload: &[9; 10] });
    assert_eq!(receiver.handle(&xor(6, &[1, 4, 5]), NOW), Delivery::Nothing);
    assert_eq!(receiver.handle(&xor(7, &[1, 2]), NOW), Delivery::Nothing);
    receiver.repaired(3);
    assert!(receiver.blocks.held().has(3));
    assert_eq!(receiver.finish().corrupt, 0);
}

#[test]
fn foreign_and_impossible_datagrams_change_only_counts() {
    let mut receiver = receiver(RepairMode::Unicast);
    let mut other = data(0, 0);
    other[7] ^= 1;
    receiver.handle(&other, NOW);
    receiver.handle(b"\x47 a stray transport stream", NOW);
    receiver.handle_foreign();
    for bytes in [
        data(1, 10),
        data(1, u32::MAX),
        data(0, 0)[..30].to_vec(),
        datagram(0, Body::End { upto: 11, round: 1 }),
        datagram(1, Body::Data { block: 9, again: false, payload: &[0; 10] }),
        datagram(1, Body::Xor { blocks: vec![1, 10], payload: &[0; 10] }),
        data(1 << 30, 0),
    ] {
        assert_eq!(receiver.handle(&bytes, NOW), Delivery::Nothing, "{bytes:?}");
    }
    assert_eq!(receiver.blocks.held().count(), 0);
    let account = receiver.finish();
    assert_eq!((account.foreign, account.corrupt), (3, 7));
    assert_eq!(account.figures, StreamFigures::default());
}

#[test]
fn blocks_beyond_four_gibibytes_have_their_places() {
    let bytes = (1_u64 << 32) + 1;
    let layout = BlockLayout { bytes, block_len: 1448 };
    let count = layout.count();
    assert_eq!(layout.place(count - 1), (u64::from(count - 1) * 1448, (bytes % 1448) as usize));
    let mut receiver = BlockReceiver::new(7, layout, bytes - 5, RepairMode::Unicast, 100, NOW);
    let last = datagram(
        0,
        Body::Data { block: count - 1, again: false, payload: &vec![9; (bytes % 1448) as usize] },
    );
    assert!(
        matches!(receiver.handle(&last, NOW), Delivery::Block { offset, .. } if offset == u64::from(count - 1) * 1448)
    );
    assert!(receiver.is_whole());
}

#[test]
fn receiver_does_not_ask_for_blocks_it_had() {
    let held = |bytes| {
        let mut receiver = BlockReceiver::new(7, LAYOUT, bytes, RepairMode::Unicast, 100, NOW);
        receiver.handle(&datagram(0, Body::End { upto: 10, round: 1 }), NOW);
        receiver.poll_reports(NOW)[0].missing.clone()
    };
    assert_eq!(held(35), [3..10]);
    assert_eq!(held(0), [0..10]);
    assert_eq!(held(94), [9..10]);
    assert_eq!(held(95), []);
}

#[test]
fn true_end_corrects_a_forged_one() {
    let mut receiver = BlockReceiver::new(7, LAYOUT, 0, RepairMode::Unicast, 1, NOW);
    receiver.handle(&data(0, 0), NOW);
    receiver.handle(&datagram(900, Body::End { upto: 10, round: 9 }), NOW);
    let forged = receiver.poll_reports(NOW).remove(0);
    assert_eq!((forged.seen, forged.missing), (900, vec![1..10]));
    receiver.handle(&data(1, 1), NOW);
    receiver.handle(&datagram(3, Body::End { upto: 3, round: 1 }), NOW);
    let report = receiver.poll_reports(NOW).remove(0);
    assert_eq!((report.seen, report.missing), (3, vec![2..3]));
    let account = receiver.finish();
    assert_eq!((account.figures.unique, account.figures.lost), (2, 1));
}

#[test]
fn impossible_numbers_are_corrupt_and_cost_nothing() {
    let mut receiver = receiver(RepairMode::Unicast);
    let most = numbers_max(10).expect("a small file");
    receiver.handle(&datagram(most, Body::End { upto: 10, round: 1 }), NOW);
    assert_eq!(receiver.poll_reports(NOW)[0].seen, most);
    for bytes in [
        datagram(most + 1, Body::End { upto: 10, round: 2 }),
        datagram(1 << 31, Body::End { upto: 10, round: 2 }),
        data(1 << 31, 0),
        // The sixth block cannot be new in the third datagram.
        data(2, 5),
    ] {
        assert_eq!(receiver.handle(&bytes, NOW), Delivery::Nothing);
    }
    assert_eq!(receiver.strange(), 4);
    let account = receiver.finish();
    assert_eq!((account.corrupt, account.ends), (4, 1));
    assert_eq!(account.figures.lost, u64::from(most));
    // The largest file whose numbers do not wrap, and one of which nothing is known.
    assert!(numbers_max(90_000_000).is_some() && numbers_max(100_000_000).is_none());
}

#[test]
fn raw_accepts_a_total_only_if_it_fits_the_file() {
    let mut receiver = BlockReceiver::new(7, LAYOUT, 30, RepairMode::Raw, 100, NOW);
    receiver.handle(&datagram(6, Body::End { upto: 10, round: 1 }), NOW);
    assert!(!receiver.is_ended(), "three are there, and seven are sent");
    receiver.handle(&data(0, 3), NOW);
    receiver.handle(&datagram(7, Body::End { upto: 10, round: 2 }), NOW);
    assert!(receiver.is_ended());
    let account = receiver.finish();
    assert_eq!((account.figures.unique, account.figures.lost), (1, 6));
    assert_eq!(account.corrupt, 1);
}
