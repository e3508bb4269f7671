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

use crate::proto::feed::Counts;
use crate::proto::feed::Feed;
use crate::proto::relay::Standing;
use crate::proto::relay::log::End;
use crate::relay::hub::Hub;
use crate::relay::hub::Viewer;
use crate::relay::meter::bump;
use crate::runtime::clock;
use crate::runtime::datagrams;
use crate::runtime::datagrams::Batch;
use crate::runtime::datagrams::Parcel;
use crate::runtime::datagrams::Run;
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

/// How fast datagrams come, to tell how long to wait for enough of them.
#[derive(Debug, Default)]
struct Pace {
    last: Option<Moment>,
    /// Between two datagrams, smoothed, microseconds.
    apart_us: Option<f64>,
}

/// Most datagrams sent on together.
const BATCH: usize = 128;

/// Datagrams that are worth waiting for: a segmented send of so many costs a third for each of
/// what a plain send costs, and more save little.
const ENOUGH: f64 = 32.0;

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
            send(viewer, parcel, run, &mut tally);
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

impl Pace {
    /// A batch of `count` datagrams, the first of which came at `at`, has been taken.
    fn handle(&mut self, at: Moment, count: usize) {
        let Some(last) = self.last.replace(at) else {
            return;
        };
        // From one batch's first to the next one's: pauses between frames are part of the pace.
        let count = u32::try_from(count.max(1)).unwrap_or(u32::MAX);
        let apart = at.since(last).as_secs_f64() * 1e6 / f64::from(count);
        let before = self.apart_us.unwrap_or(apart);
        self.apart_us = Some(before + (apart - before) / 8.0);
    }

    /// How long `count` datagrams take to come, at most `limit`; that, where it is unknown.
    fn time_for(&self, count: f64, limit: Duration) -> Duration {
        let Some(apart) = self.apart_us else {
            return limit;
        };
        Duration::try_from_secs_f64(apart * count / 1e6).map_or(limit, |time| time.min(limit))
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

/// What became of a batch on its way to one viewer.
#[derive(Debug, Default)]
struct Tally {
    sent: u64,
    bytes: u64,
    dropped: u64,
    refused: bool,
}

impl Tally {
    /// Sends by `send` and counts `datagrams` of `bytes` by what came of it. Returns the error
    /// that is no full queue and no refusal.
    fn note(
        &mut self,
        datagrams: u64,
        bytes: usize,
        mut send: impl FnMut() -> io::Result<()>,
    ) -> Option<io::Error> {
        let mut result = send();
        // An error of an earlier datagram; this one has not been tried.
        if result.as_ref().is_err_and(is_refusal) {
            self.refused = true;
            result = send();
        }
        match result {
            Ok(()) => {
                self.sent += datagrams;
                self.bytes += bytes as u64;
                None
            }
            Err(error) => {
                self.dropped += datagrams;
                self.refused |= is_refusal(&error);
                Some(error)
            }
        }
    }
}

/// Sends `run` with one call, or, where the viewer's way takes no segmented sends, one by one.
fn send(viewer: &Viewer, parcel: &Parcel<'_>, run: &Run, tally: &mut Tally) {
    let many = run.datagrams.len();
    if many == 1 || viewer.lane.segmented.load(Ordering::Relaxed) {
        let failed = tally.note(many as u64, run.bytes, || {
            parcel.send(&viewer.lane.socket, run)
        });
        match failed {
            Some(error) if many > 1 && !is_full(&error) && !is_refusal(&error) => {
                log::info!("viewer {}: one by one from now on: {error}", viewer.number);
                viewer.lane.segmented.store(false, Ordering::Relaxed);
                tally.dropped -= many as u64;
            }
            Some(error) if !is_full(&error) => {
                return log::debug!("viewer {}: {error}", viewer.number);
            }
            _ => return,
        }
    }
    for single in parcel.singles(run) {
        tally.note(1, single.bytes, || {
            parcel.send(&viewer.lane.socket, &single)
        });
    }
}

/// The viewer's own queue, or the link's, has no room.
fn is_full(error: &io::Error) -> bool {
    // ENOBUFS has no kind; it is 105 on Linux and 55 on the BSDs.
    error.kind() == io::ErrorKind::WouldBlock || matches!(error.raw_os_error(), Some(105 | 55))
}

/// The viewer's host, or a router before it, says that nothing arrives there.
fn is_refusal(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionRefused
            | io::ErrorKind::HostUnreachable
            | io::ErrorKind::NetworkUnreachable
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_waits_for_enough_and_never_longer_than_it_may() {
        let limit = Duration::from_millis(3);
        let mut pace = Pace::default();
        assert_eq!(pace.time_for(ENOUGH, limit), limit, "nothing is known");
        // 50 us apart: 32 take 1.6 ms.
        (0..100).for_each(|n| pace.handle(Moment(n * 1_600), 32));
        assert_eq!(pace.time_for(ENOUGH, limit), Duration::from_micros(1_600));
        // A slow stream is not waited for beyond the limit, nor one that stopped for a while.
        (0..100).for_each(|n| pace.handle(Moment(1_000_000 + n * 1_300), 1));
        assert_eq!(pace.time_for(ENOUGH, limit), limit);
        pace.handle(Moment(u64::MAX), 1);
        assert_eq!(pace.time_for(ENOUGH, limit), limit);
        assert_eq!(pace.time_for(ENOUGH, Duration::ZERO), Duration::ZERO);
    }

    #[test]
    fn a_stale_refusal_costs_no_datagram() {
        let refused = || Err(io::ErrorKind::ConnectionRefused.into());
        let mut answers = vec![Ok(()), refused()];
        let mut tally = Tally::default();
        assert!(
            tally
                .note(3, 30, || answers.pop().expect("asked twice"))
                .is_none()
        );
        assert_eq!((tally.sent, tally.dropped, tally.refused), (3, 0, true));
        assert!(tally.note(2, 20, refused).is_some());
        assert_eq!((tally.sent, tally.bytes, tally.dropped), (3, 30, 2));
    }
}
