//! How a relay stands at a moment, for whoever looks. Costs the data side nothing: the source thread
//! is never waited for, so figures of one snapshot may be a batch apart.

use std::net::SocketAddr;
use std::sync::atomic::Ordering;
use std::time::Duration;

use crate::net::clock;
use crate::net::datagrams;
use crate::proto::stream::StreamCounts;
use crate::proto::histogram::Histogram;
use crate::proto::relay::ViewerState;
use crate::proto::relay::reports::ReceiverReport;
use crate::proto::relay::reports::SenderReport;
use crate::relay::hub::Hub;
use crate::relay::viewer::Viewer;
use crate::session::SessionId;
use crate::units::Moment;

/// How a relay stands.
#[derive(Clone, Debug)]
pub struct RelaySnapshot {
    /// Which run of a relay.
    pub relay: SessionId,
    /// How long it has run.
    pub up: Duration,
    /// Whether it reads its input.
    pub awake: bool,
    /// The input, as far as it was read.
    pub input: StreamCounts,
    /// Datagrams of a second sender, which are not sent on.
    pub foreign: u64,
    /// Datagrams that waited while nobody watched and were thrown away.
    pub stale: u64,
    /// Batches in which the input was read.
    pub batches: u64,
    /// Datagrams that the system dropped at the input while somebody watched; `None` where it does
    /// not tell.
    pub dropped: Option<u64>,
    /// The viewers, in the order in which they came.
    pub viewers: Vec<ViewerSnapshot>,
    /// Time through the relay, of every datagram to every viewer that is here.
    pub delay: Delay,
}

/// How one viewer stands.
#[derive(Clone, Debug)]
pub struct ViewerSnapshot {
    /// Its number, from 1.
    pub viewer: u64,
    /// Where datagrams go.
    pub to: SocketAddr,
    /// Running or paused.
    pub state: ViewerState,
    /// Whether it tells what it receives.
    pub native: bool,
    /// How long it has been here.
    pub watched: Duration,
    /// What was sent to it.
    pub sent: SenderReport,
    /// What it received, as it last told.
    pub received: Option<ReceiverReport>,
}

/// Percentiles of a delay, microseconds; `None` of nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Delay {
    /// Half took no longer.
    pub p50_us: Option<u64>,
    /// 99 of 100 took no longer.
    pub p99_us: Option<u64>,
    /// None took longer.
    pub worst_us: Option<u64>,
}

impl Delay {
    /// The percentiles of `times`, of which the longest took `longest_us`: a bucket's upper end is
    /// not said to be longer than that.
    pub(super) fn of(times: &Histogram, longest_us: u64) -> Self {
        let per_mille = |n| times.per_mille(n).map(|us| us.min(longest_us));
        Self {
            p50_us: per_mille(500),
            p99_us: per_mille(990),
            worst_us: per_mille(1000).map(|_| longest_us),
        }
    }
}

impl Hub {
    /// How everything stands.
    pub(super) fn snapshot(&self) -> RelaySnapshot {
        let now = clock::now();
        let viewers = self.viewers();
        let mut all = Histogram::default();
        let mut longest_us = 0;
        for viewer in &viewers {
            longest_us = longest_us.max(viewer.hot.delay.longest_us());
            all.merge(&viewer.hot.delay.histogram());
        }
        let slept = self.input.slept.load(Ordering::SeqCst);
        let awake = self.running() > 0;
        // While it sleeps the system drops what nobody misses.
        let dropped = datagrams::drops(self.inbox.socket()).map(|dropped| match awake {
            true => dropped.saturating_sub(slept),
            false => self.input.missed.load(Ordering::SeqCst),
        });
        RelaySnapshot {
            relay: self.relay,
            up: now.since(self.started),
            awake,
            input: self.counts(),
            foreign: self.input.foreign.load(Ordering::Relaxed),
            stale: self.input.stale.load(Ordering::Relaxed),
            batches: self.input.batches.load(Ordering::Relaxed),
            dropped,
            delay: Delay::of(&all, longest_us),
            viewers: viewers
                .iter()
                .map(|viewer| self.viewer_snapshot(viewer, now))
                .collect(),
        }
    }

    fn viewer_snapshot(&self, viewer: &Viewer, now: Moment) -> ViewerSnapshot {
        ViewerSnapshot {
            viewer: viewer.number,
            to: viewer.to,
            state: viewer.state(),
            native: viewer.native.load(Ordering::Relaxed),
            watched: now.since(viewer.joined),
            sent: self.sender_report(viewer),
            received: viewer.receiver_report(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_percentile_is_longer_than_the_longest() {
        let mut times = Histogram::default();
        assert_eq!(Delay::of(&times, 0), Delay::default());
        // Its bucket ends at 1,023.
        times.add(1_000);
        let one = Delay::of(&times, 1_000);
        assert_eq!([one.p50_us, one.p99_us, one.worst_us], [Some(1_000); 3]);
        times.add(5_000);
        let two = Delay::of(&times, 5_000);
        assert_eq!(two.p50_us, times.per_mille(500));
        assert_eq!([two.p99_us, two.worst_us], [Some(5_000); 2]);
    }
}
