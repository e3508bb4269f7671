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
use crate::net::datagrams::Batch;
use crate::net::datagrams::parcel::Parcel;
use crate::proto::feed::Counts;
use crate::proto::feed::Feed;
use crate::proto::relay::Standing;
use crate::proto::relay::log::End;
use crate::relay::hub::Hub;
use crate::relay::meter::bump;
use crate::relay::pace::ENOUGH;
use crate::relay::pace::Pace;
use crate::relay::tally;
use crate::relay::tally::Tally;
use crate::relay::viewer::Viewer;
use crate::units::Moment;

/// The thread's own.
#[derive(Debug)]
pub(super) struct Source {
    hub: Arc<Hub>,
    gather: Duration,
    feed: Feed,
    batch: Batch,
    viewers: Vec<Arc<Viewer>>,
    generation: Option<u64>,
    /// Which viewer is sent to first, so that none always waits for all others.
    turn: usize,
    /// Whose datagrams are the stream, and when the last one came.
    sender: Option<(SocketAddr, Moment)>,
    pace: Pace,
}

/// Most datagrams sent on together.
const BATCH: usize = 128;

/// How often the thread looks up when nothing comes.
const LOOK_UP: Duration = Duration::from_millis(100);

/// A second sender is not listened to until the first has been silent for so long.
const SENDER_HOLD: Duration = Duration::from_millis(500);

/// A viewer whose host has said for so long that nobody listens is let go.
const REFUSED_MAX: Duration = Duration::from_secs(4);

/// Linux says so once a second at most; after more than that without, somebody listens.
const REFUSAL_GAP: Duration = Duration::from_secs(2);

impl Source {
    pub(super) fn new(hub: Arc<Hub>, gather: Duration) -> Self {
        Self {
            hub,
            gather,
            feed: Feed::default(),
            batch: Batch::new(BATCH),
            viewers: Vec::new(),
            generation: None,
            turn: 0,
            sender: None,
            pace: Pace::default(),
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
                if let Err(error) = self.relay() {
                    log::warn!("the input cannot be read: {error}");
                    // It may be a passing state of the network; never a spin.
                    thread::sleep(LOOK_UP);
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
        self.feed.forget_tables();
        self.feed.rejoin();
        self.sender = None;
        self.publish(true);
        for viewer in self.hub.viewers() {
            let paused = viewer.standing() == Standing::Paused;
            viewer.slept.store(paused, Ordering::SeqCst);
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
            if viewer.slept.swap(false, Ordering::SeqCst) {
                bump(&viewer.lane.paused, thrown + unseen);
            }
        }
        self.hub.set_reading(true);
        if !self.batch.is_empty() {
            self.send_on();
        }
    }

    /// One batch, if one comes.
    fn relay(&mut self) -> io::Result<()> {
        self.batch.clear();
        let inbox = &self.hub.inbox;
        inbox.receive(&mut self.batch, LOOK_UP)?;
        let Some(first) = self.batch.iter().next().map(|datagram| datagram.at) else {
            self.publish(true);
            return Ok(());
        };
        if datagrams::BATCHED {
            let gather = self.pace.time_for(ENOUGH, self.gather);
            if let Some(wait) = clock::left(first.after(gather)) {
                thread::sleep(wait);
                inbox.collect(&mut self.batch)?;
            }
            self.pace.handle(first, self.batch.len());
        }
        self.send_on();
        Ok(())
    }

    fn send_on(&mut self) {
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
        let welcome = self.welcome();
        let before = self.feed.counts();
        for datagram in self.batch.iter() {
            self.feed.handle(datagram.at, datagram.bytes);
        }
        let found = Found::between(&before, &self.feed.counts());
        let parcel = Parcel::of(&self.batch);
        let many = self.viewers.len().max(1);
        self.turn = (self.turn + 1) % many;
        let (late, early) = self.viewers.split_at(self.turn.min(self.viewers.len()));
        self.hub.round(|| {
            for viewer in early.iter().chain(late) {
                self.serve(viewer, &parcel, &welcome, &found);
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
    fn welcome(&self) -> Vec<Vec<u8>> {
        let wanted = self
            .viewers
            .iter()
            .any(|viewer| viewer.lane.fresh.load(Ordering::Relaxed));
        let next = self.batch.iter().next().filter(|_| wanted);
        next.map_or_else(Vec::new, |next| self.feed.welcome(next.bytes))
    }

    fn serve(&self, viewer: &Viewer, parcel: &Parcel<'_>, welcome: &[Vec<u8>], found: &Found) {
        match viewer.standing() {
            Standing::Running => {}
            Standing::Paused => return bump(&viewer.lane.paused, self.batch.len() as u64),
            Standing::Out => return,
        }
        let mut tally = Tally::default();
        if viewer.lane.fresh.swap(false, Ordering::Relaxed) {
            for datagram in welcome {
                tally.note(1, datagram.len(), || {
                    viewer.lane.socket.send(datagram).map(drop)
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
                    viewer.lane.delay.add(now.since(datagram.at));
                }
            }
        }
        bump(&viewer.lane.sent, tally.sent);
        bump(&viewer.lane.bytes, tally.bytes);
        bump(&viewer.lane.dropped, tally.dropped);
        bump(&viewer.lane.cc, found.cc);
        bump(&viewer.lane.rtp_lost, found.rtp_lost);
        if tally.refused {
            self.heed_refusals(viewer);
        }
    }

    /// Lets a viewer go when its host has said for long enough that nobody listens there. Once is
    /// nothing: a player may start a moment after its client.
    fn heed_refusals(&self, viewer: &Viewer) {
        let now = clock::now();
        let last = Moment(viewer.refused_last.swap(now.0, Ordering::Relaxed));
        if now.since(last) > REFUSAL_GAP {
            viewer.refused_since.store(now.0, Ordering::Relaxed);
        }
        let since = Moment(viewer.refused_since.load(Ordering::Relaxed));
        if now.since(since) >= REFUSED_MAX {
            let reason = format!("nobody listens at port {}", viewer.to.port());
            log::info!("viewer {}: {reason}", viewer.number);
            self.hub.expel(viewer, End::Refused, reason);
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
            *shown = self.feed.counts();
        }
    }
}

/// What a batch lacked when it came.
struct Found {
    cc: u64,
    /// Below zero, wrapped, where a late datagram filled a gap of an earlier batch.
    rtp_lost: u64,
}

impl Found {
    fn between(before: &Counts, after: &Counts) -> Self {
        let lost = |counts: &Counts| counts.rtp.map_or(0, |rtp| rtp.lost);
        Self {
            cc: after.ts.errors - before.ts.errors,
            rtp_lost: lost(after).wrapping_sub(lost(before)),
        }
    }
}
