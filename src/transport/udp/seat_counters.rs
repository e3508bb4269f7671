//! What is counted for one seat by the thread that sends to it.

use std::sync::{
    OnceLock,
    atomic::{AtomicBool, AtomicU64, Ordering},
};

use crate::{
    proto::udp::{before, control::Report},
    server::transport::TransferFailure,
    transfer::{Counts, Evidence},
};

/// What is counted for one seat; its own thread reads it.
#[derive(Debug, Default)]
pub struct SeatCounters {
    /// Payload bytes.
    pub payload: AtomicU64,
    /// Payload bytes that had been sent before.
    pub again: AtomicU64,
    /// Datagrams.
    pub offered: AtomicU64,
    /// Datagrams that the client has not received, by its last report.
    pub lost: AtomicU64,
    /// Datagrams that this host refused.
    pub refused: AtomicU64,
    /// This host refuses some datagrams without an error, so `refused` is not all of them.
    pub refusals_unknown: AtomicBool,
    /// When the first datagram was sent, microseconds; zero before.
    pub first_us: AtomicU64,
    /// What was seen of the way to it.
    pub evidence: OnceLock<Evidence>,
    /// Why the client was given up.
    pub failure: OnceLock<TransferFailure>,
}

impl SeatCounters {
    /// Notes how many datagrams the client lost, by its report. A report that claims more datagrams
    /// than it has seen does not count.
    pub(super) fn record_loss(&self, report: &Report) {
        if !before(report.seen, report.received) {
            let lost = report.seen.wrapping_sub(report.received);
            self.lost.store(u64::from(lost), Ordering::Relaxed);
        }
    }

    /// Adds what the server knows to what the client has counted of a stream that was repaired or,
    /// if it is `raw`, was not.
    pub(super) fn complete(&self, counts: &mut Counts, raw: bool) {
        let load = |count: &AtomicU64| count.load(Ordering::Relaxed);
        let offered = load(&self.offered);
        // The client knows what had been sent when it had everything. If it claims more than was
        // sent, nothing is left over, and the sum does not hold.
        let known = counts.offered.replace(offered);
        counts.unheard = known.map(|known| offered.saturating_sub(known));
        // Where this host refuses without an error, it is unknown where a datagram was lost.
        let refusals_known = !self.refusals_unknown.load(Ordering::Relaxed);
        counts.local_drop = refusals_known.then(|| load(&self.refused));
        counts.retransmitted = Some(load(&self.again));
        let elsewhere = counts.host_rx_drop.zip(counts.local_drop);
        counts.network_lost = counts
            .lost
            .zip(elsewhere)
            .and_then(|(lost, (host, local))| lost.checked_sub(host)?.checked_sub(local));
        if refusals_known && counts.lost.is_some() && counts.network_lost.is_none() && !raw {
            // Some of these drops happened after the client was done.
            counts.host_rx_drop = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::text::FileName;

    fn sent(offered: u64, refused: u64) -> SeatCounters {
        let counters = SeatCounters::default();
        counters.offered.store(offered, Ordering::Relaxed);
        counters.refused.store(refused, Ordering::Relaxed);
        counters
    }

    fn client_counts(unique: u64, lost: u64) -> Counts {
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
            auto: None,
            machine: None,
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
            key: false,
            transfers: vec![transfer],
        }
    }

    #[test]
    fn impossible_report_does_not_change_the_loss() {
        let counters = SeatCounters::default();
        let mut report =
            Report { seen: 10, received: 7, round: 0, cum: 0, more: false, missing: Vec::new() };
        counters.record_loss(&report);
        report.received = 11;
        counters.record_loss(&report);
        assert_eq!(counters.lost.load(Ordering::Relaxed), 3);
    }

    #[test]
    fn losses_are_split_by_where_they_happened() {
        let mut counts = client_counts(90, 8);
        sent(100, 3).complete(&mut counts, false);
        assert_eq!((counts.offered, counts.unheard), (Some(100), Some(2)));
        assert_eq!((counts.local_drop, counts.network_lost), (Some(3), Some(4)));
        assert_eq!(broken(counts), Vec::<String>::new());
    }

    #[test]
    fn unknown_refusals_leave_the_network_loss_unknown() {
        let counters = sent(100, 0);
        counters.refusals_unknown.store(true, Ordering::Relaxed);
        let mut counts = client_counts(90, 8);
        counters.complete(&mut counts, false);
        assert_eq!((counts.local_drop, counts.network_lost), (None, None));
        assert_eq!(counts.host_rx_drop, Some(1), "the client's own knowledge");
    }

    #[test]
    fn raw_client_that_ended_has_nothing_unheard() {
        let mut counts = client_counts(90, 8);
        sent(100, 0).complete(&mut counts, true);
        let mut record = record(crate::session::Via::Raw, counts);
        assert_eq!(record.broken_identities(), Vec::<String>::new(), "cut off");
        record.transfers[0].seconds_client = Some(std::time::Duration::from_secs(1));
        let broken = record.broken_identities();
        assert_eq!(broken.len(), 1, "{broken:?}");
        assert!(broken[0].contains("2 datagrams unheard"), "{broken:?}");
    }

    #[test]
    fn client_that_claims_too_much_breaks_the_sum() {
        let mut counts = client_counts(95, 8);
        sent(100, 0).complete(&mut counts, false);
        let broken = broken(counts);
        assert_eq!(broken.len(), 1, "{broken:?}");
        assert!(broken[0].contains("100 datagrams offered"), "{broken:?}");
    }
}
