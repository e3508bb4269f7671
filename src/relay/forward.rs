//! The one thread of the data side: receives the stream, follows it, sends it to everybody.
//!
//! See the module above for the design. Here a datagram's way: the inbox's batch, the feed that
//! counts it, the parcel that is made once and sent to each running viewer.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::PoisonError;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::Duration;

use crate::net::clock;
use crate::net::datagrams;
use crate::net::datagrams::DatagramBatch;
use crate::net::datagrams::send_batch::SendBatch;
use crate::proto::stream::StreamCounts;
use crate::proto::stream::StreamMonitor;
use crate::proto::relay::ViewerState;
use crate::proto::relay::log::ViewerEnd;
use crate::relay::hub::Hub;
use crate::relay::atomic_histogram::bump;
use crate::relay::arrival_rate::ArrivalRate;
use crate::relay::arrival_rate::ENOUGH;
use crate::relay::send;
use crate::relay::send::SendCounts;
use crate::relay::viewer::Viewer;
use crate::units::Moment;

/// The thread's own.
#[derive(Debug)]
pub(super) struct Forwarder {
    hub: Arc<Hub>,
    gather: Duration,
    monitor: StreamMonitor,
    batch: DatagramBatch,
    viewers: Vec<Arc<Viewer>>,
    generation: Option<u64>,
    /// Which viewer is sent to first, so that none always waits for all others.
    turn: usize,
    /// Whose datagrams are the stream, and when the last one came.
    sender: Option<(SocketAddr, Moment)>,
    arrival_rate: ArrivalRate,
}

/// Most datagrams sent on together.
const BATCH: usize = 128;

/// How often the thread looks up when nothing comes.
const POLL_INTERVAL: Duration = Duration::from_millis(100);

/// A second sender is not listened to until the first has been silent for so long.
const SENDER_HOLD: Duration = Duration::from_millis(500);

/// A viewer whose host has said for so long that nobody listens is let go.
const REFUSED_MAX: Duration = Duration::from_secs(4);

/// Linux says so once a second at most; after more than that without, somebody listens.
const REFUSAL_GAP: Duration = Duration::from_secs(2);

impl Forwarder {
    pub(super) fn new(hub: Arc<Hub>, gather: Duration) -> Self {
        Self {
            hub,
            gather,
            monitor: StreamMonitor::default(),
            batch: DatagramBatch::new(BATCH),
            viewers: Vec::new(),
            generation: None,
            turn: 0,
            sender: None,
            arrival_rate: ArrivalRate::default(),
        }
    }

    /// Relays until the relay stops.
    pub(super) fn run(mut self) {
        loop {
            let drops = self.fall_asleep();
            if !self.hub.wait_running() {
                return;
            }
            self.wake_up(drops);
            while self.hub.running() > 0 && !self.hub.is_stopping() {
                if let Err(error) = self.forward_batch() {
                    log::warn!("the input cannot be read: {error}");
                    // It may be a passing state of the network; never a spin.
                    thread::sleep(POLL_INTERVAL);
                }
            }
        }
    }

    /// Forgets what is of no use to who comes next. Returns what the system has dropped so far.
    fn fall_asleep(&mut self) -> Option<u64> {
        self.hub.set_reading(false);
        // Sockets of viewers that left are closed with the last of these.
        self.viewers.clear();
        self.generation = None;
        self.monitor.forget_tables();
        self.monitor.rejoin();
        self.sender = None;
        self.publish(true);
        for viewer in self.hub.viewers() {
            let paused = viewer.state() == ViewerState::Paused;
            viewer.paused_in_sleep.store(paused, Ordering::SeqCst);
        }
        let drops = datagrams::drops(self.hub.inbox.socket());
        let input = &self.hub.input;
        if let Some(drops) = drops {
            let missed = drops.saturating_sub(input.slept.load(Ordering::SeqCst));
            input.missed.store(missed, Ordering::SeqCst);
        }
        drops
    }

    /// Throws away what came while nobody watched; whoever paused all that time passed it up.
    fn wake_up(&mut self, drops_before: Option<u64>) {
        let thrown = self.hub.inbox.discard(&mut self.batch, clock::now());
        let thrown = thrown.unwrap_or_else(|error| {
            log::warn!("the input cannot be read: {error}");
            0
        });
        let drops = datagrams::drops(self.hub.inbox.socket());
        let unseen = drops
            .zip(drops_before)
            .map_or(0, |(now, before)| now.saturating_sub(before));
        bump(&self.hub.input.stale, thrown);
        self.hub.input.slept.fetch_add(unseen, Ordering::SeqCst);
        for viewer in self.hub.viewers() {
            if viewer.paused_in_sleep.swap(false, Ordering::SeqCst) {
                bump(&viewer.hot.paused, thrown + unseen);
            }
        }
        self.hub.set_reading(true);
        if !self.batch.is_empty() {
            self.forward();
        }
    }

    /// One batch, if one comes.
    fn forward_batch(&mut self) -> io::Result<()> {
        self.batch.clear();
        let inbox = &self.hub.inbox;
        inbox.receive(&mut self.batch, POLL_INTERVAL)?;
        let Some(first) = self.batch.iter().next().map(|datagram| datagram.at) else {
            self.publish(true);
            return Ok(());
        };
        if datagrams::BATCHED {
            let gather = self.arrival_rate.time_for(ENOUGH, self.gather);
            if let Some(wait) = clock::left(first.after(gather)) {
                thread::sleep(wait);
                inbox.collect(&mut self.batch)?;
            }
            self.arrival_rate.record(first, self.batch.len());
        }
        self.forward();
        Ok(())
    }

    fn forward(&mut self) {
        self.keep_one_sender();
        if self.batch.is_empty() {
            return;
        }
        let generation = self.hub.generation();
        if self.generation != Some(generation)
            && let Some(viewers) = self.hub.try_viewers()
        {
            self.viewers = viewers;
            self.generation = Some(generation);
        }
        let welcome = self.tables_for_new_viewers();
        let before = self.monitor.counts();
        for datagram in self.batch.iter() {
            self.monitor.handle(datagram.at, datagram.bytes);
        }
        let found = SourceLoss::between(&before, &self.monitor.counts());
        let parcel = SendBatch::of(&self.batch);
        let many = self.viewers.len().max(1);
        self.turn = (self.turn + 1) % many;
        let (late, early) = self.viewers.split_at(self.turn.min(self.viewers.len()));
        self.hub.round(|| {
            for viewer in early.iter().chain(late) {
                self.send_to_viewer(viewer, &parcel, &welcome, &found);
            }
        });
        bump(&self.hub.input.batches, 1);
        self.publish(false);
    }

    /// Drops from the batch what a second sender sends while the first one does.
    fn keep_one_sender(&mut self) {
        let all = self.batch.len();
        let sender = &mut self.sender;
        self.batch.retain(|from, at| match sender {
            Some((known, last)) if *known != from && at.since(*last) < SENDER_HOLD => false,
            _ => {
                *sender = Some((from, at));
                true
            }
        });
        bump(&self.hub.input.foreign, (all - self.batch.len()) as u64);
    }

    /// The tables as they were before this batch, where somebody needs them.
    fn tables_for_new_viewers(&self) -> Vec<Vec<u8>> {
        let wanted = self
            .viewers
            .iter()
            .any(|viewer| viewer.hot.needs_tables.load(Ordering::Relaxed));
        let next = self.batch.iter().next().filter(|_| wanted);
        next.map_or_else(Vec::new, |next| self.monitor.tables_before(next.bytes))
    }

    fn send_to_viewer(
        &self,
        viewer: &Viewer,
        parcel: &SendBatch<'_>,
        welcome: &[Vec<u8>],
        found: &SourceLoss,
    ) {
        match viewer.state() {
            ViewerState::Running => {}
            ViewerState::Paused => return bump(&viewer.hot.paused, self.batch.len() as u64),
            ViewerState::Unconnected => return,
        }
        let mut tally = SendCounts::default();
        if viewer.hot.needs_tables.swap(false, Ordering::Relaxed) {
            for datagram in welcome {
                tally.attempt(1, datagram.len(), || {
                    viewer.hot.socket.send(datagram).map(drop)
                });
            }
        }
        for run in parcel.runs() {
            let at = tally.sent;
            tally::send(viewer, parcel, run, &mut tally);
            if tally.sent > at {
                let now = clock::now();
                for datagram in self
                    .batch
                    .iter()
                    .skip(run.datagrams.start)
                    .take(run.datagrams.len())
                {
                    viewer.hot.delay.add(now.since(datagram.at));
                }
            }
        }
        bump(&viewer.hot.sent, tally.sent);
        bump(&viewer.hot.bytes, tally.bytes);
        bump(&viewer.hot.dropped, tally.dropped);
        bump(&viewer.hot.cc, found.cc);
        bump(&viewer.hot.rtp_lost, found.rtp_lost);
        if tally.refused {
            self.check_refusals(viewer);
        }
    }

    /// Lets a viewer go when its host has said for long enough that nobody listens there. Once is
    /// nothing: a player may start a moment after its client.
    fn check_refusals(&self, viewer: &Viewer) {
        let now = clock::now();
        let last = Moment(viewer.refused_last.swap(now.0, Ordering::Relaxed));
        if now.since(last) > REFUSAL_GAP {
            viewer.refused_since.store(now.0, Ordering::Relaxed);
        }
        let since = Moment(viewer.refused_since.load(Ordering::Relaxed));
        if now.since(since) >= REFUSED_MAX {
            let reason = format!("nobody listens at port {}", viewer.to.port());
            log::info!("viewer {}: {reason}", viewer.number);
            self.hub.expel(viewer, ViewerEnd::Refused, reason);
        }
    }

    /// Shows what the input is like; `wait` for whoever reads it just now.
    fn publish(&self, wait: bool) {
        let shown = &self.hub.input.counts;
        let shown = match wait {
            true => Some(shown.lock().unwrap_or_else(PoisonError::into_inner)),
            false => shown.try_lock().ok(),
        };
        if let Some(mut shown) = shown {
            *shown = self.monitor.counts();
        }
    }
}

/// What a batch lacked when it came.
struct SourceLoss {
    cc: u64,
    /// Below zero, wrapped, where a late datagram filled a gap of an earlier batch.
    rtp_lost: u64,
}

impl SourceLoss {
    fn between(before: &StreamCounts, after: &StreamCounts) -> Self {
        let lost = |counts: &StreamCounts| counts.rtp.map_or(0, |rtp| rtp.lost);
        Self {
            cc: after.ts.errors - before.ts.errors,
            rtp_lost: lost(after).wrapping_sub(lost(before)),
        }
    }
}
