//! Takes snapshots. That costs the data side nothing: the source thread is never waited for.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::{
    net::{clock, datagrams, lock},
    proto::{
        histogram::Histogram,
        relay::status::{RelaySnapshot, ViewerSnapshot},
    },
    relay::{
        hub::{Hub, Input},
        viewer::Viewer,
    },
    units::Moment,
};

impl Hub {
    /// The relay and all viewers at this moment.
    pub(super) fn snapshot(&self) -> RelaySnapshot {
        let now = clock::now();
        let viewers = self.viewers();
        let mut all = Histogram::default();
        let mut longest_us = 0;
        for viewer in &viewers {
            longest_us = longest_us.max(viewer.hot.delay.longest_us());
            all.merge(&viewer.hot.delay.histogram());
        }
        let read = |number: &AtomicU64| number.load(Ordering::SeqCst);
        let input = &self.inputs[0].counted;
        let awake = self.running() > 0;
        let dropped = if awake {
            let dropped = datagrams::drops(self.inputs[0].socket.socket());
            dropped.map(|dropped| dropped.saturating_sub(read(&input.dropped_asleep)))
        } else {
            // What asks the system costs a relay that sleeps all that it uses.
            cfg!(target_os = "linux").then(|| read(&input.dropped_awake))
        };
        RelaySnapshot {
            relay: self.relay,
            up: now.since(self.started),
            awake,
            input: self.inputs[0].counts(),
            lower: self.inputs[1..].iter().map(Input::counts).collect(),
            foreign: read(&input.foreign),
            stale: read(&input.stale),
            batches: read(&input.batches),
            dropped,
            delay: all.delay(longest_us),
            streams: lock(&input.streams).clone(),
            recording: self.recording.get().map(|recording| recording.snapshot()),
            group: self.group.as_ref().map(|group| self.viewer_snapshot(&group.viewer, now)),
            viewers: viewers.iter().map(|viewer| self.viewer_snapshot(viewer, now)).collect(),
        }
    }

    fn viewer_snapshot(&self, viewer: &Viewer, now: Moment) -> ViewerSnapshot {
        let told = *lock(&viewer.receiver_report);
        ViewerSnapshot {
            viewer: viewer.number,
            name: viewer.name.get().cloned(),
            to: viewer.to,
            state: viewer.state(),
            input: (self.inputs.len() > 1).then(|| {
                (viewer.input() as u64 + 1, viewer.ladder.changes.load(Ordering::Relaxed))
            }),
            native: viewer.native.load(Ordering::Relaxed),
            watched: now.since(viewer.joined),
            sent: self.sender_report(viewer),
            received: told.map(|(report, _)| report),
            network_lost_at_most: told.and_then(|(_, lost)| lost),
        }
    }
}
