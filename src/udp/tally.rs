//! What is counted for one seat by the thread that sends to it.

use std::sync::OnceLock;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;

use crate::runtime::way::Failure;
use crate::transfer::Counts;

/// What is counted for one seat, read by its thread.
#[derive(Debug, Default)]
pub struct Tally {
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
    /// When the first went out, microseconds; zero before.
    pub first_us: AtomicU64,
    /// Why the client is not sent to any more.
    pub failure: OnceLock<Failure>,
}

impl Tally {
    /// Adds what the server knows to what the client has counted of a stream that was repaired
    /// or, `raw`, was not.
    pub(super) fn account(&self, counts: &mut Counts, raw: bool) {
        let load = |count: &AtomicU64| count.load(Ordering::Relaxed);
        let offered = load(&self.offered);
        // The client's figures are of what had been sent when it had everything.
        let known = counts.offered;
        counts.offered = Some(offered);
        counts.unheard = known.and_then(|known| offered.checked_sub(known));
        counts.local_drop = Some(load(&self.refused));
        counts.retransmitted = Some(load(&self.again));
        counts.network_lost = counts
            .lost
            .zip(counts.host_rx_drop)
            .and_then(|(lost, host)| lost.checked_sub(host)?.checked_sub(load(&self.refused)));
        if counts.lost.is_some() && counts.network_lost.is_none() && !raw {
            // Some of what this machine or the client's dropped came after the client was done.
            counts.host_rx_drop = None;
        }
    }
}
