//! Who watches: the roster of viewers, their standing, and what each was sent.
//!
//! Control threads change the roster under its one lock; the source thread reads its own copy and
//! fetches a new one when `Hub::generation` moved. A viewer's counters have one writer, the
//! source thread.

use std::net::SocketAddr;
use std::net::TcpStream;
use std::net::UdpSocket;
use std::sync::Arc;
use std::sync::Condvar;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::AtomicU8;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::Duration;

use time::OffsetDateTime;

use crate::error::Error;
use crate::error::Result;
use crate::proto::feed::Counts;
use crate::proto::histogram::Histogram;
use crate::proto::relay::Standing;
use crate::proto::relay::log::End;
use crate::proto::relay::log::Visit;
use crate::proto::relay::receipt::Receipt;
use crate::proto::relay::receipt::Statement;
use crate::proto::relay::receipt::whole_us;
use crate::relay::Settings;
use crate::relay::journal::Pen;
use crate::relay::meter::Meter;
use crate::runtime::clock;
use crate::runtime::datagrams;
use crate::runtime::datagrams::Inbox;
use crate::session::SessionId;
use crate::units::Moment;

/// What the relay's threads share.
#[derive(Debug)]
pub struct Hub {
    pub(super) relay: SessionId,
    pub(super) inbox: Inbox,
    pub(super) max_silence: Duration,
    max_viewers: usize,
    started: Moment,
    pen: Mutex<Option<Pen>>,
    roster: Mutex<Roster>,
    awake: Condvar,
    stopping: AtomicBool,
    /// Viewers that are running.
    running: AtomicUsize,
    /// Moves when the roster changes.
    generation: AtomicU64,
    /// Odd while a batch is being sent.
    round: AtomicU64,
    /// Whether the source thread reads the input, with everything old thrown away.
    reading: AtomicBool,
    pub(super) input: Input,
}

#[derive(Debug, Default)]
struct Roster {
    viewers: Vec<Arc<Viewer>>,
    last: u64,
}

/// What the source thread tells of its input.
#[derive(Debug, Default)]
pub(super) struct Input {
    /// As of the last batch that found nobody reading it.
    pub(super) counts: Mutex<Counts>,
    pub(super) foreign: AtomicU64,
    pub(super) stale: AtomicU64,
    pub(super) batches: AtomicU64,
    /// Datagrams that the system dropped while nobody watched, which nobody missed.
    pub(super) slept: AtomicU64,
    /// Those that somebody missed, when the relay last fell asleep.
    pub(super) missed: AtomicU64,
}

/// One viewer, from CONECTAR to its end.
#[derive(Debug)]
pub(super) struct Viewer {
    pub(super) lane: Lane,
    pub(super) number: u64,
    pub(super) to: SocketAddr,
    pub(super) control: Arc<TcpStream>,
    at: OffsetDateTime,
    joined: Moment,
    pub(super) native: AtomicBool,
    /// It paused when the relay fell asleep.
    pub(super) slept: AtomicBool,
    /// Since when, and when last, its host said that nobody listens; 0 for never.
    pub(super) refused_since: AtomicU64,
    pub(super) refused_last: AtomicU64,
    pub(super) receipt: Mutex<Option<Receipt>>,
    /// Why the source thread let it go.
    expelled: Mutex<Option<(End, String)>>,
}

/// What the source thread touches of a viewer for every batch: one line of the processor's cache.
/// Among a hundred viewers these lines, not the code, are what a small batch costs beside the
/// system's own work.
#[derive(Debug)]
#[repr(C, align(64))]
pub(super) struct Lane {
    pub(super) socket: UdpSocket,
    standing: AtomicU8,
    /// It has not been sent the tables.
    pub(super) fresh: AtomicBool,
    /// Its way takes segmented sends, as far as is known.
    pub(super) segmented: AtomicBool,
    pub(super) sent: AtomicU64,
    pub(super) bytes: AtomicU64,
    pub(super) dropped: AtomicU64,
    pub(super) paused: AtomicU64,
    pub(super) cc: AtomicU64,
    pub(super) rtp_lost: AtomicU64,
    pub(super) delay: Meter,
}

/// How a relay stands.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// Which run of a relay.
    pub relay: SessionId,
    /// How long it has run.
    pub up: Duration,
    /// Whether it reads its input.
    pub awake: bool,
    /// The input, as far as it was read.
    pub input: Counts,
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
    pub viewers: Vec<ViewerView>,
    /// Time through the relay, of every datagram to every viewer that is here.
    pub delay: Delay,
}

/// How one viewer stands.
#[derive(Clone, Debug)]
pub struct ViewerView {
    /// Its number, from 1.
    pub viewer: u64,
    /// Where datagrams go.
    pub to: SocketAddr,
    /// Running or paused.
    pub standing: Standing,
    /// Whether it tells what it receives.
    pub native: bool,
    /// How long it has been here.
    pub watched: Duration,
    /// What was sent to it.
    pub sent: Statement,
    /// What it received, as it last told.
    pub received: Option<Receipt>,
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

/// How long a viewer that comes is kept waiting for a source thread that cannot wake up.
const WAKE_LIMIT: Duration = Duration::from_secs(1);

const OUT: u8 = 0;
const RUNNING: u8 = 1;
const PAUSED: u8 = 2;

impl Hub {
    pub(super) fn new(settings: &Settings, inbox: Inbox, pen: Pen) -> Self {
        Self {
            relay: SessionId(clock::random()),
            inbox,
            max_silence: settings.max_silence,
            max_viewers: settings.max_viewers,
            started: clock::now(),
            pen: Mutex::new(Some(pen)),
            roster: Mutex::default(),
            awake: Condvar::new(),
            stopping: AtomicBool::new(false),
            running: AtomicUsize::new(0),
            generation: AtomicU64::new(0),
            round: AtomicU64::new(0),
            reading: AtomicBool::new(false),
            input: Input::default(),
        }
    }

    /// Seats a viewer at `to`, controlled by `control`. It is running when this returns.
    ///
    /// # Errors
    /// There is no room, somebody has that address, or the system refuses a socket.
    pub(super) fn seat(&self, to: SocketAddr, control: &Arc<TcpStream>) -> Result<Arc<Viewer>> {
        let local = control
            .local_addr()
            .map_err(Error::io("ask for our address", to))?;
        // From the address that the client came to: the only one that its firewall knows.
        let socket = datagrams::outbox(local.ip().to_canonical(), to)?;
        let mut roster = self.lock();
        if self.is_stopping() {
            return Err(Error::refused("the relay", "it is stopping"));
        }
        if roster.viewers.len() >= self.max_viewers {
            let most = self.max_viewers;
            return Err(Error::refused(
                "the relay",
                format!("there are {most} viewers already"),
            ));
        }
        if roster.viewers.iter().any(|viewer| viewer.to == to) {
            let reason = format!("port {} of your address has a viewer already", to.port());
            return Err(Error::refused("the relay", reason));
        }
        roster.last += 1;
        let viewer = Arc::new(Viewer::new(roster.last, to, socket, control));
        roster.viewers.push(Arc::clone(&viewer));
        self.change(&viewer, Standing::Running);
        self.generation.fetch_add(1, Ordering::SeqCst);
        self.await_reading(roster);
        Ok(viewer)
    }

    /// Changes where `viewer` stands. When this returns, nothing is being sent to it by what was,
    /// and what comes from now on is.
    pub(super) fn stand(&self, viewer: &Viewer, standing: Standing) {
        let roster = self.lock();
        self.change(viewer, standing);
        match standing {
            Standing::Running => self.await_reading(roster),
            _ => drop(roster),
        }
        self.settle();
    }

    /// Waits until the source thread has woken up.
    fn await_reading(&self, roster: MutexGuard<'_, Roster>) {
        let asleep = |_: &mut Roster| {
            !self.reading.load(Ordering::SeqCst) && self.running() > 0 && !self.is_stopping()
        };
        let awake = self.awake.wait_timeout_while(roster, WAKE_LIMIT, asleep);
        drop(awake.unwrap_or_else(PoisonError::into_inner));
    }

    /// Tells whether the source thread reads the input.
    pub(super) fn set_reading(&self, reading: bool) {
        let roster = self.lock();
        self.reading.store(reading, Ordering::SeqCst);
        self.awake.notify_all();
        drop(roster);
    }

    /// Takes `viewer` off the roster and writes its line; `end` is how it went, unless the source
    /// thread let it go.
    pub(super) fn leave(&self, viewer: &Viewer, end: End, reason: Option<String>) {
        let mut roster = self.lock();
        self.change(viewer, Standing::Out);
        roster.viewers.retain(|other| other.number != viewer.number);
        self.generation.fetch_add(1, Ordering::SeqCst);
        drop(roster);
        self.settle();
        let (end, reason) = match viewer.expelled() {
            Some((end, reason)) => (end, Some(reason)),
            None => (end, reason),
        };
        let visit = Visit {
            relay: self.relay,
            viewer: viewer.number,
            at: viewer.at,
            to: viewer.to,
            watched: clock::now().since(viewer.joined),
            sent: self.statement(viewer),
            received: viewer.received(),
            end,
            reason,
        };
        if let Some(pen) = &*self.pen.lock().unwrap_or_else(PoisonError::into_inner) {
            pen.write(visit);
        }
    }

    /// Lets `viewer` go, from the source thread: never waits for its control thread.
    pub(super) fn expel(&self, viewer: &Viewer, end: End, reason: String) {
        *viewer
            .expelled
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = Some((end, reason));
        let roster = self.lock();
        self.change(viewer, Standing::Out);
        drop(roster);
        viewer.wake();
    }

    /// Under the roster's lock.
    fn change(&self, viewer: &Viewer, standing: Standing) {
        let new = match standing {
            Standing::Out => OUT,
            Standing::Running => RUNNING,
            Standing::Paused => PAUSED,
        };
        let old = viewer.lane.standing.swap(new, Ordering::SeqCst);
        match (old == RUNNING, new == RUNNING) {
            (false, true) => {
                self.running.fetch_add(1, Ordering::SeqCst);
                self.awake.notify_all();
            }
            (true, false) => {
                self.running.fetch_sub(1, Ordering::SeqCst);
            }
            _ => {}
        }
    }

    /// Waits until the round that is under way, if one is, has ended.
    fn settle(&self) {
        let round = self.round.load(Ordering::SeqCst);
        // A batch to a hundred viewers takes about a millisecond.
        while round % 2 == 1 && self.round.load(Ordering::SeqCst) == round {
            thread::sleep(Duration::from_micros(100));
        }
    }

    /// Runs `send` as one round: who changed its standing before is not sent to in it.
    pub(super) fn round<T>(&self, send: impl FnOnce() -> T) -> T {
        self.round.fetch_add(1, Ordering::SeqCst);
        let sent = send();
        self.round.fetch_add(1, Ordering::SeqCst);
        sent
    }

    /// How many viewers are running.
    pub(super) fn running(&self) -> usize {
        self.running.load(Ordering::SeqCst)
    }

    /// Sleeps until a viewer is running; `false` when the relay stops.
    pub(super) fn wait_running(&self) -> bool {
        let roster = self
            .awake
            .wait_while(self.lock(), |_| self.running() == 0 && !self.is_stopping());
        drop(roster.unwrap_or_else(PoisonError::into_inner));
        !self.is_stopping()
    }

    /// The number that moves when the roster changes.
    pub(super) fn generation(&self) -> u64 {
        self.generation.load(Ordering::SeqCst)
    }

    /// The viewers, unless somebody holds the roster just now.
    pub(super) fn try_viewers(&self) -> Option<Vec<Arc<Viewer>>> {
        self.roster
            .try_lock()
            .ok()
            .map(|roster| roster.viewers.clone())
    }

    /// The viewers.
    pub(super) fn viewers(&self) -> Vec<Arc<Viewer>> {
        self.lock().viewers.clone()
    }

    /// Whether the relay is to end.
    pub(super) fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::SeqCst)
    }

    /// Tells everybody that the relay is to end.
    pub(super) fn stop(&self) {
        let roster = self.lock();
        self.stopping.store(true, Ordering::SeqCst);
        self.awake.notify_all();
        drop(roster);
    }

    /// Wakes the control threads of all viewers.
    pub(super) fn dismiss(&self) {
        self.viewers().iter().for_each(|viewer| viewer.wake());
    }

    /// Nothing more will be logged.
    pub(super) fn put_pen_down(&self) {
        *self.pen.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// What was sent to `viewer`.
    pub(super) fn statement(&self, viewer: &Viewer) -> Statement {
        let input = self.counts();
        let read = |number: &AtomicU64| number.load(Ordering::Relaxed);
        let histogram = viewer.lane.delay.histogram();
        // A datagram that came late after all takes its loss back, perhaps in another's time.
        let rtp_lost = read(&viewer.lane.rtp_lost)
            .cast_signed()
            .max(0)
            .cast_unsigned();
        Statement {
            sent: read(&viewer.lane.sent),
            bytes: read(&viewer.lane.bytes),
            dropped: read(&viewer.lane.dropped),
            paused: read(&viewer.lane.paused),
            cc: read(&viewer.lane.cc),
            rtp_lost: input.rtp.map(|_| rtp_lost),
            jitter_us: input.jitter_us.map(whole_us),
            p50_us: histogram.per_mille(500),
            p99_us: histogram.per_mille(990),
            worst_us: viewer.lane.delay.worst_us(&histogram),
        }
    }

    /// How everything stands.
    pub(super) fn snapshot(&self) -> Snapshot {
        let now = clock::now();
        let viewers = self.viewers();
        let mut all = Histogram::default();
        let mut worst = None;
        for viewer in &viewers {
            let one = viewer.lane.delay.histogram();
            worst = worst.max(viewer.lane.delay.worst_us(&one));
            all.merge(&one);
        }
        let slept = self.input.slept.load(Ordering::SeqCst);
        let awake = self.running() > 0;
        // While it sleeps the system drops what nobody misses.
        let dropped = datagrams::drops(self.inbox.socket()).map(|dropped| match awake {
            true => dropped.saturating_sub(slept),
            false => self.input.missed.load(Ordering::SeqCst),
        });
        Snapshot {
            relay: self.relay,
            up: now.since(self.started),
            awake,
            input: self.counts(),
            foreign: self.input.foreign.load(Ordering::Relaxed),
            stale: self.input.stale.load(Ordering::Relaxed),
            batches: self.input.batches.load(Ordering::Relaxed),
            dropped,
            delay: Delay {
                p50_us: all.per_mille(500),
                p99_us: all.per_mille(990),
                worst_us: worst,
            },
            viewers: viewers
                .iter()
                .map(|viewer| self.view(viewer, now))
                .collect(),
        }
    }

    fn view(&self, viewer: &Viewer, now: Moment) -> ViewerView {
        ViewerView {
            viewer: viewer.number,
            to: viewer.to,
            standing: viewer.standing(),
            native: viewer.native.load(Ordering::Relaxed),
            watched: now.since(viewer.joined),
            sent: self.statement(viewer),
            received: viewer.received(),
        }
    }

    fn counts(&self) -> Counts {
        *self
            .input
            .counts
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn lock(&self) -> MutexGuard<'_, Roster> {
        self.roster.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Viewer {
    fn new(number: u64, to: SocketAddr, socket: UdpSocket, control: &Arc<TcpStream>) -> Self {
        Self {
            lane: Lane {
                socket,
                standing: AtomicU8::new(OUT),
                fresh: AtomicBool::new(true),
                segmented: AtomicBool::new(true),
                sent: AtomicU64::new(0),
                bytes: AtomicU64::new(0),
                dropped: AtomicU64::new(0),
                paused: AtomicU64::new(0),
                cc: AtomicU64::new(0),
                rtp_lost: AtomicU64::new(0),
                delay: Meter::new(),
            },
            number,
            to,
            control: Arc::clone(control),
            at: clock::wall(),
            joined: clock::now(),
            native: AtomicBool::new(false),
            slept: AtomicBool::new(false),
            refused_since: AtomicU64::new(0),
            refused_last: AtomicU64::new(0),
            receipt: Mutex::default(),
            expelled: Mutex::default(),
        }
    }

    /// Where it stands.
    pub(super) fn standing(&self) -> Standing {
        match self.lane.standing.load(Ordering::SeqCst) {
            RUNNING => Standing::Running,
            PAUSED => Standing::Paused,
            _ => Standing::Out,
        }
    }

    /// Why the source thread let it go, if it did.
    pub(super) fn expelled(&self) -> Option<(End, String)> {
        self.expelled
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    pub(super) fn received(&self) -> Option<Receipt> {
        *self.receipt.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes its control thread look up: its read ends.
    fn wake(&self) {
        // One that is gone already needs no waking.
        let _ = self.control.shutdown(std::net::Shutdown::Read);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg(target_pointer_width = "64")]
    fn what_a_batch_touches_of_a_viewer_is_one_cache_line() {
        assert_eq!(size_of::<Lane>(), 64);
    }
}
