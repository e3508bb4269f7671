//! The viewers, and how control threads and the source thread take turns.
//!
//! Control threads change the roster under its one lock. The source thread reads its own copy and
//! fetches a new one when `Hub::generation` has changed.

use std::{
    net::{IpAddr, Ipv6Addr, SocketAddr, TcpStream},
    sync::{
        Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use crate::{
    error::{Error, Result},
    net::{
        address, clock,
        datagrams::{BatchSocket, send_batch},
        lock,
    },
    proto::{
        mpegts::tables::ElementaryStream,
        relay::{
            ViewerState,
            log::{ViewerEnd, ViewerRecord},
            reports::SenderReport,
        },
        stream::StreamCounts,
    },
    relay::{
        chunk::ChunkQueue, group::StreamGroup, record::Recording, viewer::Viewer,
        viewer_log::ViewerLogHandle,
    },
    session::SessionId,
    units::Moment,
};

/// What viewers may take.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// A lab viewer whose control connection is silent for so long is let go.
    pub(super) silence: Duration,
    pub(super) viewers: usize,
    pub(super) viewers_per_address: usize,
}

/// What the relay's threads share.
#[derive(Debug)]
pub(super) struct Hub {
    pub(super) relay: SessionId,
    pub(super) limits: Limits,
    pub(super) started: Moment,
    /// Where the stream goes beside the viewers.
    pub(super) group: Option<StreamGroup>,
    log: ViewerLogHandle,
    roster: Mutex<Roster>,
    awake: Condvar,
    stopping: AtomicBool,
    /// Viewers that are running.
    running: AtomicUsize,
    /// Changes when the roster does.
    generation: AtomicU64,
    /// Held while a batch is being sent, or a viewer's state changes; taken before the roster.
    turn: Mutex<()>,
    /// Best first; there is one at least.
    pub(super) inputs: Vec<Input>,
    pub(super) recording: OnceLock<Arc<Recording>>,
}

#[derive(Debug, Default)]
struct Roster {
    viewers: Vec<Arc<Viewer>>,
    last: u64,
}

/// An input, and what its thread counts there.
#[derive(Debug)]
pub(super) struct Input {
    pub(super) socket: BatchSocket,
    /// Whether its thread reads it, with everything old thrown away.
    reading: AtomicBool,
    /// When something came last, or it began to be read.
    pub(super) last: AtomicU64,
    pub(super) counted: InputCounters,
}

/// What is counted at an input.
#[derive(Debug, Default)]
pub(super) struct InputCounters {
    /// As of the last batch at whose end nobody was reading it.
    pub(super) counts: Mutex<StreamCounts>,
    /// What the stream holds, as far as its tables have come.
    pub(super) streams: Mutex<Vec<ElementaryStream>>,
    pub(super) foreign: AtomicU64,
    pub(super) stale: AtomicU64,
    pub(super) batches: AtomicU64,
    /// Datagrams that the system dropped while nobody watched: no loss to anybody.
    pub(super) dropped_asleep: AtomicU64,
    /// Datagrams that the system dropped while somebody watched, when the relay last fell asleep.
    pub(super) dropped_awake: AtomicU64,
}

/// How long a new viewer waits for a source thread that cannot wake up.
const WAKE_LIMIT: Duration = Duration::from_secs(1);

impl Hub {
    pub(super) fn new(
        limits: Limits,
        sockets: Vec<BatchSocket>,
        log: ViewerLogHandle,
        group: Option<StreamGroup>,
    ) -> Self {
        Self {
            relay: SessionId(clock::random()),
            limits,
            started: clock::now(),
            log,
            roster: Mutex::default(),
            awake: Condvar::new(),
            stopping: AtomicBool::new(false),
            // A group always is.
            running: AtomicUsize::new(group.iter().count()),
            group,
            generation: AtomicU64::new(0),
            turn: Mutex::default(),
            inputs: sockets.into_iter().map(Input::new).collect(),
            recording: OnceLock::new(),
        }
    }

    /// Adds a viewer at `to`, controlled by `control`, or one over HTTP that `queue` is for. It is
    /// running when this returns.
    ///
    /// # Errors
    /// There is no room, another viewer has that address, or the system refuses a socket.
    pub(super) fn add_viewer(
        &self,
        to: SocketAddr,
        control: &Arc<TcpStream>,
        queue: Option<ChunkQueue>,
    ) -> Result<Arc<Viewer>> {
        let local = control.local_addr().map_err(Error::io("ask for our address", to))?;
        // From the address that the client connected to: the only one that its firewall knows.
        let socket = || send_batch::connected_socket(address::canonical(local), to);
        let socket = queue.is_none().then(socket).transpose()?;
        let mut roster = lock(&self.roster);
        if self.is_stopping() {
            return Err(Error::refused("the relay", "it is stopping"));
        }
        // A port of TCP is another one than that of UDP.
        let has_it =
            |other: &Arc<Viewer>| other.to == to && other.hot.socket.is_some() == socket.is_some();
        let taken = roster.viewers.iter().map(|viewer| viewer.to);
        check_capacity(taken, roster.viewers.iter().any(has_it), to, self.limits)
            .map_err(|reason| Error::refused("the relay", reason))?;
        roster.last += 1;
        let viewer = Arc::new(Viewer::new(roster.last, to, (socket, queue), Some(control)));
        roster.viewers.push(Arc::clone(&viewer));
        self.apply_state(&viewer, ViewerState::Running);
        self.generation.fetch_add(1, Ordering::SeqCst);
        self.wait_until_reading(roster);
        Ok(viewer)
    }

    /// Changes the state of the viewers that are here and that `is_meant` names; returns how many,
    /// and the number of the group's next datagram. Then nothing is being sent to them because of
    /// their old state, and what comes from now on is handled by the new one: of the group, what has
    /// that number.
    pub(super) fn set_states(
        &self,
        is_meant: impl Fn(&Viewer) -> bool,
        state: ViewerState,
    ) -> (usize, u64) {
        let turn = lock(&self.turn);
        let roster = lock(&self.roster);
        let is_here = |viewer: &&Arc<Viewer>| viewer.state() != ViewerState::Unconnected;
        let meant = roster.viewers.iter().filter(is_here).filter(|viewer| is_meant(viewer));
        let count = meant.inspect(|viewer| self.apply_state(viewer, state)).count();
        if state == ViewerState::Grouped {
            // Which gets the best one.
            let grouped = roster.viewers.iter().filter(|viewer| viewer.state() == state);
            grouped.for_each(|viewer| viewer.set_input(0));
        }
        let next = self.group.as_ref().map_or(0, |group| group.next.load(Ordering::SeqCst));
        drop(turn);
        if state == ViewerState::Running {
            self.wait_until_reading(roster);
        }
        (count, next)
    }

    /// Waits until the source threads have woken up.
    fn wait_until_reading(&self, roster: MutexGuard<'_, Roster>) {
        let asleep = |_: &mut Roster| {
            let is_read = |input: &Input| input.reading.load(Ordering::SeqCst);
            !self.inputs.iter().all(is_read) && self.running() > 0 && !self.is_stopping()
        };
        let awake = self.awake.wait_timeout_while(roster, WAKE_LIMIT, asleep);
        drop(awake.unwrap_or_else(PoisonError::into_inner));
    }

    /// Says whether the thread of `input` reads it.
    pub(super) fn set_reading(&self, input: &Input, reading: bool) {
        let _roster = lock(&self.roster);
        input.last.store(clock::now().0, Ordering::SeqCst);
        input.reading.store(reading, Ordering::SeqCst);
        self.awake.notify_all();
    }

    /// Removes `viewer` and logs its record; `end` is how it ended, unless the source thread let
    /// it go.
    pub(super) fn remove_viewer(&self, viewer: &Viewer, end: ViewerEnd, reason: Option<String>) {
        let mut roster = lock(&self.roster);
        self.apply_state(viewer, ViewerState::Unconnected);
        roster.viewers.retain(|other| other.number != viewer.number);
        self.generation.fetch_add(1, Ordering::SeqCst);
        drop(roster);
        // A batch may be on its way to it.
        drop(lock(&self.turn));
        let expelled = viewer.expelled().map(|(end, reason)| (end, Some(reason)));
        let (end, reason) = expelled.unwrap_or((end, reason));
        let by_group = Some(viewer.by_group.load(Ordering::SeqCst)).filter(|sent| *sent > 0);
        let reason = reason.or_else(|| by_group.map(|sent| format!("{sent} by the group")));
        let changes = Some(viewer.ladder.changes.load(Ordering::SeqCst)).filter(|many| *many > 0);
        let changes = changes.map(|many| {
            let plural = if many == 1 { "" } else { "s" };
            format!("input {} after {many} change{plural}", viewer.input() + 1)
        });
        let reason = [reason, changes].into_iter().flatten().reduce(|all, one| all + "; " + &one);
        self.log.write(ViewerRecord {
            relay: self.relay,
            viewer: viewer.number,
            at: viewer.at,
            to: viewer.to,
            watched: clock::now().since(viewer.joined),
            sent: self.sender_report(viewer),
            received: lock(&viewer.receiver_report).map(|(report, _)| report),
            end,
            reason,
        });
    }

    /// Lets `viewer` go, from the source thread: never waits for its control thread.
    pub(super) fn expel(&self, viewer: &Viewer, end: ViewerEnd, reason: String) {
        viewer.expel(end, reason);
        let roster = lock(&self.roster);
        self.apply_state(viewer, ViewerState::Unconnected);
        drop(roster);
        viewer.wake();
    }

    /// Under the roster's lock.
    fn apply_state(&self, viewer: &Viewer, state: ViewerState) {
        let ran = viewer.set_state(state) == ViewerState::Running;
        let runs = state == ViewerState::Running;
        if runs && !ran {
            self.running.fetch_add(1, Ordering::SeqCst);
            self.awake.notify_all();
        } else if ran && !runs {
            self.running.fetch_sub(1, Ordering::SeqCst);
        }
    }

    /// Runs `send` as one round: a viewer that was paused or removed before it gets nothing in it.
    pub(super) fn round<T>(&self, send: impl FnOnce() -> T) -> T {
        let _turn = lock(&self.turn);
        send()
    }

    /// How many viewers are running; a recording is one too.
    pub(super) fn running(&self) -> usize {
        self.running.load(Ordering::SeqCst) + usize::from(self.recording_now().is_some())
    }

    /// Reads the input from now on as if one more watched, until the recording ends.
    pub(super) fn begin_recording(&self, recording: Arc<Recording>) {
        let _roster = lock(&self.roster);
        let _ = self.recording.set(recording);
        self.awake.notify_all();
    }

    /// The recording, while it takes what comes.
    pub(super) fn recording_now(&self) -> Option<&Arc<Recording>> {
        self.recording.get().filter(|recording| recording.is_on())
    }

    /// Whether what comes now is read for somebody.
    pub(super) fn is_watched(&self) -> bool {
        let is_read = self.inputs[0].reading.load(Ordering::SeqCst);
        is_read && self.running() > 0 && !self.is_stopping()
    }

    /// Sleeps until it is; `false` when the relay stops.
    pub(super) fn wait_watched(&self) -> bool {
        let nobody = |_: &mut Roster| !self.is_watched() && !self.is_stopping();
        let roster = self.awake.wait_while(lock(&self.roster), nobody);
        drop(roster.unwrap_or_else(PoisonError::into_inner));
        !self.is_stopping()
    }

    /// Sleeps until a viewer is running; `false` when the relay stops.
    pub(super) fn wait_running(&self) -> bool {
        let nobody = |_: &mut Roster| self.running() == 0 && !self.is_stopping();
        let roster = self.awake.wait_while(lock(&self.roster), nobody);
        drop(roster.unwrap_or_else(PoisonError::into_inner));
        !self.is_stopping()
    }

    /// The number that changes when the roster does.
    pub(super) fn generation(&self) -> u64 {
        self.generation.load(Ordering::SeqCst)
    }

    /// The viewers, unless another thread holds the roster just now.
    pub(super) fn try_viewers(&self) -> Option<Vec<Arc<Viewer>>> {
        let roster = self.roster.try_lock().ok()?;
        Some(roster.viewers.clone())
    }

    /// The viewers.
    pub(super) fn viewers(&self) -> Vec<Arc<Viewer>> {
        lock(&self.roster).viewers.clone()
    }

    /// Whether the relay is to end.
    pub(super) fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::SeqCst)
    }

    /// Tells all threads that the relay is to end.
    pub(super) fn stop(&self) {
        let _roster = lock(&self.roster);
        self.stopping.store(true, Ordering::SeqCst);
        self.awake.notify_all();
    }

    /// What was sent to `viewer`.
    pub(super) fn sender_report(&self, viewer: &Viewer) -> SenderReport {
        viewer.sender_report(&self.inputs[viewer.input()].counts())
    }
}

impl Input {
    fn new(socket: BatchSocket) -> Self {
        let (reading, last) = (AtomicBool::new(false), AtomicU64::new(0));
        Self { socket, reading, last, counted: InputCounters::default() }
    }

    /// What was counted, as far as it was read.
    pub(super) fn counts(&self) -> StreamCounts {
        *lock(&self.counted.counts)
    }
}

/// Checks that there is room for a viewer at `to`, which another one `has` or not, beside those that
/// are at `taken`.
///
/// # Errors
/// Why there is no room, for the viewer.
fn check_capacity(
    taken: impl ExactSizeIterator<Item = SocketAddr>,
    has: bool,
    to: SocketAddr,
    limits: Limits,
) -> Result<(), String> {
    let (most, most_per_address) = (limits.viewers, limits.viewers_per_address);
    if taken.len() >= most {
        return Err(format!("there are {most} viewers already"));
    }
    if has {
        let port = to.port();
        return Err(format!("port {port} of your address has a viewer already"));
    }
    // Viewers on this host are trusted not to keep others out; benches and tests have many.
    let neighbours = taken.filter(|other| network(other.ip()) == network(to.ip())).count();
    if neighbours >= most_per_address && !to.ip().is_loopback() {
        let whose = if to.is_ipv6() { "the /64 network of your address" } else { "your address" };
        return Err(format!("{whose} has {most_per_address} viewers already"));
    }
    Ok(())
}

/// What is counted as one address: of IPv6 its network of /64, in which a host has as many addresses
/// as it likes (RFC 4291, section 2.5.4).
fn network(ip: IpAddr) -> IpAddr {
    match ip {
        IpAddr::V4(_) => ip,
        IpAddr::V6(ip) => Ipv6Addr::from_bits(ip.to_bits() >> 64 << 64).into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(host: &str, ports: std::ops::Range<u16>) -> impl Iterator<Item = SocketAddr> {
        let host: IpAddr = host.parse().expect("an address");
        ports.map(move |port| SocketAddr::new(host, port))
    }

    #[test]
    fn one_address_gets_its_share_of_places() {
        let limits = Limits { silence: Duration::ZERO, viewers: 256, viewers_per_address: 64 };
        let ask = |taken: &[SocketAddr], to: &str| {
            let to = to.parse().expect("an address");
            check_capacity(taken.iter().copied(), taken.contains(&to), to, limits)
        };
        let full: Vec<SocketAddr> = at("192.0.2.7", 5000..5064).collect();
        assert_eq!(ask(&full[1..], "192.0.2.7:6000"), Ok(()));
        let refused = Err("your address has 64 viewers already".to_owned());
        assert_eq!(ask(&full, "192.0.2.7:6000"), refused);
        // Which costs nobody else.
        assert_eq!(ask(&full, "192.0.2.8:6000"), Ok(()));
        // A host has a whole /64 of IPv6.
        let hosts = (0..64).map(|n| {
            SocketAddr::new(format!("2001:db8::{n:x}").parse().expect("an address"), 5000)
        });
        let full: Vec<SocketAddr> = hosts.collect();
        assert_eq!(ask(&full[1..], "[2001:db8::ffff:1]:5000"), Ok(()));
        let refused = Err("the /64 network of your address has 64 viewers already".to_owned());
        assert_eq!(ask(&full, "[2001:db8::ffff:1]:5000"), refused);
        assert_eq!(ask(&full, "[2001:db8:0:1::1]:5000"), Ok(()));
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
