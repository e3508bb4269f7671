//! Who watches: the roster of viewers, and the turns that control threads and the source thread
//! take.
//!
//! Control threads change the roster under its one lock; the source thread reads its own copy and
//! fetches a new one when `Hub::generation` moved.

use std::net::SocketAddr;
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::Condvar;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::Duration;

use crate::error::Error;
use crate::error::Result;
use crate::net::clock;
use crate::net::datagrams::BatchSocket;
use crate::net::datagrams::send_batch;
use crate::net::socket;
use crate::proto::stream::StreamCounts;
use crate::proto::relay::ViewerState;
use crate::proto::relay::log::ViewerEnd;
use crate::proto::relay::log::ViewerRecord;
use crate::proto::relay::reports::SenderReport;
use crate::relay::RelayConfig;
use crate::relay::viewer_log::ViewerLogHandle;
use crate::relay::viewer::Viewer;
use crate::session::SessionId;
use crate::units::Moment;

/// What the relay's threads share.
#[derive(Debug)]
pub(super) struct Hub {
    pub(super) relay: SessionId,
    pub(super) inbox: BatchSocket,
    pub(super) max_silence: Duration,
    max_viewers: usize,
    viewers_per_address: usize,
    pub(super) started: Moment,
    log: Mutex<Option<ViewerLogHandle>>,
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
    pub(super) input: InputCounters,
}

#[derive(Debug, Default)]
struct Roster {
    viewers: Vec<Arc<Viewer>>,
    last: u64,
}

/// What the source thread tells of its input.
#[derive(Debug, Default)]
pub(super) struct InputCounters {
    /// As of the last batch that found nobody reading it.
    pub(super) counts: Mutex<StreamCounts>,
    pub(super) foreign: AtomicU64,
    pub(super) stale: AtomicU64,
    pub(super) batches: AtomicU64,
    /// Datagrams that the system dropped while nobody watched, which nobody missed.
    pub(super) slept: AtomicU64,
    /// Those that somebody missed, when the relay last fell asleep.
    pub(super) missed: AtomicU64,
}

/// How long a viewer that comes is kept waiting for a source thread that cannot wake up.
const WAKE_LIMIT: Duration = Duration::from_secs(1);

impl Hub {
    pub(super) fn new(settings: &RelayConfig, inbox: BatchSocket, pen: ViewerLogHandle) -> Self {
        Self {
            relay: SessionId(clock::random()),
            inbox,
            max_silence: settings.max_silence,
            max_viewers: settings.max_viewers,
            viewers_per_address: settings.viewers_per_address,
            started: clock::now(),
            log: Mutex::new(Some(pen)),
            roster: Mutex::default(),
            awake: Condvar::new(),
            stopping: AtomicBool::new(false),
            running: AtomicUsize::new(0),
            generation: AtomicU64::new(0),
            round: AtomicU64::new(0),
            reading: AtomicBool::new(false),
            input: InputCounters::default(),
        }
    }

    /// Seats a viewer at `to`, controlled by `control`. It is running when this returns.
    ///
    /// # Errors
    /// There is no room, somebody has that address, or the system refuses a socket.
    pub(super) fn add_viewer(
        &self,
        to: SocketAddr,
        control: &Arc<TcpStream>,
    ) -> Result<Arc<Viewer>> {
        let local = control
            .local_addr()
            .map_err(Error::io("ask for our address", to))?;
        // From the address that the client came to: the only one that its firewall knows.
        let socket = parcel::connected_socket(socket::canonical(local), to)?;
        let mut roster = self.lock();
        if self.is_stopping() {
            return Err(Error::refused("the relay", "it is stopping"));
        }
        let taken = roster.viewers.iter().map(|viewer| viewer.to);
        check_capacity(taken, to, self.max_viewers, self.viewers_per_address)
            .map_err(|reason| Error::refused("the relay", reason))?;
        roster.last += 1;
        let viewer = Arc::new(Viewer::new(roster.last, to, socket, control));
        roster.viewers.push(Arc::clone(&viewer));
        self.apply_state(&viewer, ViewerState::Running);
        self.generation.fetch_add(1, Ordering::SeqCst);
        self.wait_until_reading(roster);
        Ok(viewer)
    }

    /// Changes where `viewer` stands. When this returns, nothing is being sent to it by what was,
    /// and what comes from now on is.
    pub(super) fn set_state(&self, viewer: &Viewer, standing: ViewerState) {
        let roster = self.lock();
        self.apply_state(viewer, standing);
        match standing {
            ViewerState::Running => self.wait_until_reading(roster),
            _ => drop(roster),
        }
        self.wait_round_end();
    }

    /// Waits until the source thread has woken up.
    fn wait_until_reading(&self, roster: MutexGuard<'_, Roster>) {
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
    pub(super) fn remove_viewer(&self, viewer: &Viewer, end: ViewerEnd, reason: Option<String>) {
        let mut roster = self.lock();
        self.apply_state(viewer, ViewerState::Unconnected);
        roster.viewers.retain(|other| other.number != viewer.number);
        self.generation.fetch_add(1, Ordering::SeqCst);
        drop(roster);
        self.wait_round_end();
        let (end, reason) = match viewer.expelled() {
            Some((end, reason)) => (end, Some(reason)),
            None => (end, reason),
        };
        let visit = ViewerRecord {
            relay: self.relay,
            viewer: viewer.number,
            at: viewer.at,
            to: viewer.to,
            watched: clock::now().since(viewer.joined),
            sent: self.sender_report(viewer),
            received: viewer.receiver_report(),
            end,
            reason,
        };
        // Held for as long as it takes to look: a slow disk holds who writes and nobody else.
        let pen = self
            .log
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        if let Some(pen) = pen {
            pen.write(visit);
        }
    }

    /// Lets `viewer` go, from the source thread: never waits for its control thread.
    pub(super) fn expel(&self, viewer: &Viewer, end: ViewerEnd, reason: String) {
        viewer.expel(end, reason);
        let roster = self.lock();
        self.apply_state(viewer, ViewerState::Unconnected);
        drop(roster);
        viewer.wake();
    }

    /// Under the roster's lock.
    fn apply_state(&self, viewer: &Viewer, standing: ViewerState) {
        let old = viewer.set_state(standing);
        match (
            old == ViewerState::Running,
            standing == ViewerState::Running,
        ) {
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
    fn wait_round_end(&self) {
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
    pub(super) fn wake_viewers(&self) {
        self.viewers().iter().for_each(|viewer| viewer.wake());
    }

    /// Nothing more will be logged.
    pub(super) fn close_log(&self) {
        *self.log.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// What was sent to `viewer`.
    pub(super) fn sender_report(&self, viewer: &Viewer) -> SenderReport {
        viewer.sender_report(&self.counts())
    }

    /// What the input is like, as far as it was read.
    pub(super) fn counts(&self) -> StreamCounts {
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

/// Whether there is a place for a viewer at `to` beside those that are `taken`.
///
/// # Errors
/// Why there is none, for the viewer.
fn check_capacity(
    taken: impl ExactSizeIterator<Item = SocketAddr> + Clone,
    to: SocketAddr,
    most: usize,
    most_per_address: usize,
) -> Result<(), String> {
    if taken.len() >= most {
        return Err(format!("there are {most} viewers already"));
    }
    if taken.clone().any(|other| other == to) {
        let port = to.port();
        return Err(format!("port {port} of your address has a viewer already"));
    }
    // Who is on this host is trusted not to keep others out, and measures with as many as it likes.
    let neighbours = taken.filter(|other| other.ip() == to.ip()).count();
    if neighbours >= most_per_address && !to.ip().is_loopback() {
        return Err(format!(
            "your address has {most_per_address} viewers already"
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(host: &str, ports: std::ops::Range<u16>) -> impl Iterator<Item = SocketAddr> {
        let host: std::net::IpAddr = host.parse().expect("an address");
        ports.map(move |port| SocketAddr::new(host, port))
    }

    #[test]
    fn one_address_takes_its_share_of_the_places_and_no_more() {
        let ask = |taken: &[SocketAddr], to: &str| {
            let to = to.parse().expect("an address");
            check_capacity(taken.iter().copied(), to, 256, 64)
        };
        let full: Vec<SocketAddr> = at("192.0.2.7", 5000..5064).collect();
        assert_eq!(ask(&full[1..], "192.0.2.7:6000"), Ok(()));
        let refused = Err("your address has 64 viewers already".to_owned());
        assert_eq!(ask(&full, "192.0.2.7:6000"), refused);
        // Which costs nobody else.
        assert_eq!(ask(&full, "192.0.2.8:6000"), Ok(()));
        // As many as there are places, on this host.
        for host in ["127.0.0.1", "::1"] {
            let own: Vec<SocketAddr> = at(host, 5000..5255).collect();
            let to = SocketAddr::new(own[0].ip(), 6000).to_string();
            assert_eq!(ask(&own, &to), Ok(()));
            let own: Vec<SocketAddr> = at(host, 5000..5256).collect();
            let refused = Err("there are 256 viewers already".to_owned());
            assert_eq!(ask(&own, &to), refused);
        }
    }
}
