//! What is counted for one seat by the thread that sends to it.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crate::proto::udp::before;
use crate::proto::udp::control::Report;
use crate::server::transport::TransferFailure;
use crate::transfer::Counts;

/// What is counted for one seat, read by its thread.
#[derive(Debug, Default)]
pub struct SeatCounters {
    /// Payload bytes.
    pub payload: AtomicU64,
    /// Payload bytes that had been sent before.
    pub again: AtomicU64,
    /// Datagrams.
    pub offered: AtomicU64,
    /// Datagrams that the client has not got, as it said last.
    pub lost: AtomicU64,
    /// Datagrams that this host refused.
    pub refused: AtomicU64,
    /// It refuses some without a word, so `refused` is not all of them.
    pub refusals_unknown: AtomicBool,
    /// When the first went out, microseconds; zero before.
    pub first_us: AtomicU64,
    /// Why the client is not sent to any more.
    pub failure: OnceLock<TransferFailure>,
}

impl SeatCounters {
    /// Takes what a client says that it has not got; one that claims to have more than it has seen
    /// does not count.
    pub(super) fn record_loss(&self, report: &Report) {
        if !before(report.seen, report.received) {
            let lost = report.seen.wrapping_sub(report.received);
            self.lost.store(u64::from(lost), Ordering::Relaxed);
        }
    }

    /// Adds what the server knows to what the client has counted of a stream that was repaired
    /// or, `raw`, was not.
    pub(super) fn complete(&self, counts: &mut Counts, raw: bool) {
        let load = |count: &AtomicU64| count.load(Ordering::Relaxed);
        let offered = load(&self.offered);
        // The client's figures are of what had been sent when it had everything.
        let known = counts.offered;
        counts.offered = Some(offered);
        // More than was sent cannot have come: nothing is left over, and the sum does not hold.
        counts.unheard = known.map(|known| offered.saturating_sub(known));
        // What was refused without a word is lost somewhere, and nobody can say where.
        let told = !self.refusals_unknown.load(Ordering::Relaxed);
        counts.local_drop = told.then(|| load(&self.refused));
        counts.retransmitted = Some(load(&self.again));
        let elsewhere = counts.host_rx_drop.zip(counts.local_drop);
        counts.network_lost = counts
            .lost
            .zip(elsewhere)
            .and_then(|(lost, (host, local))| lost.checked_sub(host)?.checked_sub(local));
        if told && counts.lost.is_some() && counts.network_lost.is_none() && !raw {
            // Some of what this machine or the client's dropped came after the client was done.
            counts.host_rx_drop = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::text::FileName;

    fn tally(offered: u64, refused: u64) -> SeatCounters {
        let tally = SeatCounters::default();
        tally.offered.store(offered, Ordering::Relaxed);
        tally.refused.store(refused, Ordering::Relaxed);
        tally
    }

    fn said(unique: u64, lost: u64) -> Counts {
        Counts {
            unique: Some(unique),
            lost: Some(lost),
            offered: Some(unique + lost),
            host_rx_drop: Some(1),
            ..Counts::default()
        }
    }

    /// The sums of a session with one such client that do not hold.
    fn broken(counts: Counts) -> Vec<String> {
        record(crate::session::Via::Udp, counts).broken_identities()
    }

    fn record(via: crate::session::Via, counts: Counts) -> crate::transfer::Record {
        let mut transfer = crate::transfer::Transfer::new(
            crate::session::SeatId(1),
            "a",
            crate::transfer::Outcome::Cut,
        );
        transfer.counts = counts;
        crate::transfer::Record {
            session: crate::session::SessionId(1),
            via,
            file: crate::session::FileInfo {
                name: FileName::new("f").expect("plain"),
                bytes: 10,
                sha1: crate::digest::Digest::of(b"f"),
            },
            clients: 1,
            released_at: None,
            sender: None,
            transfers: vec![transfer],
        }
    }

    #[test]
    fn who_has_more_than_it_has_seen_has_lost_nothing_like_four_thousand_million() {
        let tally = SeatCounters::default();
        let mut report = Report {
            seen: 10,
            received: 7,
            round: 0,
            cum: 0,
            more: false,
            missing: Vec::new(),
        };
        tally.record_loss(&report);
        report.received = 11;
        tally.record_loss(&report);
        assert_eq!(tally.lost.load(Ordering::Relaxed), 3);
    }

    #[test]
    fn what_was_lost_is_placed() {
        let mut counts = said(90, 8);
        tally(100, 3).complete(&mut counts, false);
        assert_eq!((counts.offered, counts.unheard), (Some(100), Some(2)));
        assert_eq!((counts.local_drop, counts.network_lost), (Some(3), Some(4)));
        assert_eq!(broken(counts), Vec::<String>::new());
    }

    #[test]
    fn what_is_refused_without_a_word_is_not_told_as_the_networks() {
        let tally = tally(100, 0);
        tally.refusals_unknown.store(true, Ordering::Relaxed);
        let mut counts = said(90, 8);
        tally.complete(&mut counts, false);
        assert_eq!((counts.local_drop, counts.network_lost), (None, None));
        assert_eq!(counts.host_rx_drop, Some(1), "the client's own knowledge");
    }

    #[test]
    fn a_client_of_raw_that_was_told_the_total_has_heard_of_all() {
        let mut counts = said(90, 8);
        tally(100, 0).complete(&mut counts, true);
        let mut record = record(crate::session::Via::Raw, counts);
        assert_eq!(record.broken_identities(), Vec::<String>::new(), "cut off");
        record.transfers[0].seconds_client = Some(std::time::Duration::from_secs(1));
        let broken = record.broken_identities();
        assert_eq!(broken.len(), 1, "{broken:?}");
        assert!(broken[0].contains("2 datagrams unheard"), "{broken:?}");
    }

    #[test]
    fn more_than_was_sent_is_no_sum_that_holds() {
        let mut counts = said(95, 8);
        tally(100, 0).complete(&mut counts, false);
        let broken = broken(counts);
        assert_eq!(broken.len(), 1, "{broken:?}");
        assert!(broken[0].contains("100 datagrams offered"), "{broken:?}");
    }
}
