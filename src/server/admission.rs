//! Who may connect, and who is closed to make room. `Places` is the rule; this applies it to the
//! connections of a port, and keeps descriptors for the sessions that they begin.

use std::{
    net::{Shutdown, SocketAddr},
    sync::{Arc, PoisonError},
    time::Duration,
};

use crate::{
    net::{
        clock, lock,
        primitives::{
            Condvar, Mutex, TcpStream,
            atomic::{AtomicBool, Ordering},
        },
        socket,
    },
    server::places::{GREETING_GRACE, PlaceLimits, Places, Stage},
};

/// The connections of one port.
#[derive(Debug)]
pub struct Admission {
    places: Mutex<Places<Arc<TcpStream>>>,
    /// Wakes whoever waits for a place.
    left: Condvar,
    stopping: AtomicBool,
}

/// A session's descriptors, until this is dropped.
#[derive(Debug)]
pub struct SessionDescriptors(Arc<Admission>, usize);

/// Most connections at once, whatever the limit of descriptors.
pub const CONNECTIONS_MAX: usize = 12_000;

/// Descriptors kept for what is open always: the standard streams, the port, a log being synced.
const RESERVED: u64 = 16;

/// What one session opens at most: its file, its log and two sockets.
const SESSION_DESCRIPTORS: usize = 4;

/// Descriptors that no connection takes, so that 16 sessions can begin at any moment; a quarter
/// where there are few.
const SPARE: u64 = 64;

/// For so many sessions at once descriptors are asked for beside those of all connections.
const SESSIONS_WANTED: u64 = 500;

/// For a session without descriptors so many connections at most are closed, ...
const EVICTIONS_MAX: u32 = 10;

/// ... and each is waited for so long.
const EVICTION_LIMIT: Duration = Duration::from_millis(20);

impl Admission {
    /// For a port whose connections begin sessions.
    pub fn of_server() -> Arc<Self> {
        let sessions = SESSION_DESCRIPTORS as u64 * SESSIONS_WANTED;
        Self::new(limits(descriptors(sessions), 0, SPARE))
    }

    /// For a port of which `sockets` connections need a second descriptor.
    pub fn of_port(sockets: u64) -> Arc<Self> {
        Self::new(limits(descriptors(sockets), sockets, 0))
    }

    fn new(limits: PlaceLimits) -> Arc<Self> {
        let places = Mutex::new(Places::new(limits));
        Arc::new(Self { places, left: Condvar::new(), stopping: AtomicBool::new(false) })
    }

    /// The client at `peer` is ready: it is not closed to make room any more.
    pub fn set_ready(&self, peer: SocketAddr) {
        lock(&self.places).set_ready(peer);
    }

    /// Whether the address of `peer` may ask for a seat now.
    pub fn join(&self, peer: SocketAddr) -> bool {
        lock(&self.places).join(peer, clock::now())
    }

    /// Descriptors for a session that is to begin, and `more` for the files that it reads at once;
    /// `None` where no connection can be closed for it.
    pub fn hold(self: &Arc<Self>, more: usize) -> Option<SessionDescriptors> {
        let count = SESSION_DESCRIPTORS + more;
        for _ in 0..EVICTIONS_MAX {
            if lock(&self.places).hold(count) {
                return Some(SessionDescriptors(Arc::clone(self), count));
            }
            self.evict();
            self.wait_for_one_less();
        }
        None
    }

    /// Adds a connection; where its address has too many that are not ready, one of them is closed.
    pub(super) fn add(&self, stream: &Arc<TcpStream>, peer: SocketAddr) -> u64 {
        let (mut places, now) = (lock(&self.places), clock::now());
        let id = places.add(Arc::clone(stream), peer, now);
        close(places.evict_of(peer, now));
        id
    }

    pub(super) fn set_stage(&self, id: u64, stage: Stage) {
        lock(&self.places).set_stage(id, stage);
    }

    pub(super) fn remove(&self, id: u64) {
        lock(&self.places).remove(id);
        self.left.notify_all();
    }

    pub(super) fn len(&self) -> usize {
        lock(&self.places).len()
    }

    pub(super) fn stop(&self) {
        self.stopping.store(true, Ordering::SeqCst);
        self.left.notify_all();
    }

    pub(super) fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::SeqCst)
    }

    /// Waits for a free place, and makes one where clients that are not ready hold them.
    pub(super) fn make_room(&self) {
        loop {
            let mut places = lock(&self.places);
            if places.has_room() || self.is_stopping() {
                return;
            }
            close(places.evict(clock::now()));
            let full = |places: &mut Places<_>| !places.has_room() && !self.is_stopping();
            drop(self.left.wait_timeout_while(places, GREETING_GRACE, full));
        }
    }

    /// Closes a connection to make room; false where none can be.
    pub(super) fn evict(&self) -> bool {
        close(lock(&self.places).evict(clock::now()))
    }

    /// Waits until something has been given back, for [`EVICTION_LIMIT`] at most.
    pub(super) fn wait_for_one_less(&self) {
        let places = lock(&self.places);
        let taken = places.taken();
        let all = |places: &mut Places<_>| places.taken() >= taken;
        drop(self.left.wait_timeout_while(places, EVICTION_LIMIT, all));
    }

    pub(super) fn shut(&self, which: impl Fn(Stage) -> bool) {
        for (_, stream) in lock(&self.places).handles().filter(|(stage, _)| which(*stage)) {
            close(Some(stream));
        }
    }

    /// Waits until no connection is left, for `patience` at most; returns how many there are.
    pub(super) fn wait_empty(&self, patience: Duration) -> usize {
        let open = |places: &mut Places<_>| places.len() > 0;
        let waited = self.left.wait_timeout_while(lock(&self.places), patience, open);
        waited.unwrap_or_else(PoisonError::into_inner).0.len()
    }
}

impl Drop for SessionDescriptors {
    fn drop(&mut self) {
        lock(&self.0.places).give_back(self.1);
        self.0.left.notify_all();
    }
}

fn close(stream: Option<&Arc<TcpStream>>) -> bool {
    // One that is gone already needs no closing.
    stream.map(|stream| stream.shutdown(Shutdown::Both)).is_some()
}

/// The descriptors that this process may open, beside all connections `more` if the system allows.
fn descriptors(more: u64) -> u64 {
    let wanted = (CONNECTIONS_MAX as u64 + RESERVED + SPARE).saturating_add(more);
    socket::descriptors(wanted).unwrap_or(1024)
}

/// How many connections there may be at once, of which `sockets` need a second descriptor, where
/// `spare` are for sessions.
fn limits(descriptors: u64, sockets: u64, spare: u64) -> PlaceLimits {
    let free = descriptors.saturating_sub(RESERVED).max(1);
    let spare = spare.min(free / 4);
    // With half of them each connection can have its second.
    let connections = (free - spare).saturating_sub(sockets).max(free / 2).max(1);
    let count = |count: u64| usize::try_from(count).unwrap_or(usize::MAX);
    PlaceLimits {
        connections: count(connections).min(CONNECTIONS_MAX),
        descriptors: count(free),
        spare: count(spare),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_leave_the_descriptors_that_others_need() {
        for (descriptors, sockets, spare, most) in [
            (1024, 0, 0, 1008),
            (1024, 256, 0, 752),
            // More viewers than descriptors: each connection can have its second all the same.
            (1024, 256_000, 0, 504),
            (1024, u64::MAX, 0, 504),
            (0, 0, 0, 1),
            (u64::MAX, 256, 0, CONNECTIONS_MAX),
            (1024, 0, SPARE, 944),
            (64, 0, SPARE, 36),
            (0, 0, SPARE, 1),
            (16_000, 0, SPARE, CONNECTIONS_MAX),
        ] {
            let limits = limits(descriptors, sockets, spare);
            assert_eq!(limits.connections, most, "{descriptors}, {sockets}, {spare}");
        }
    }

    #[test]
    fn session_gives_its_descriptors_back() {
        let admission = Admission::new(PlaceLimits { connections: 1, descriptors: 8, spare: 4 });
        let (one, two) = (admission.hold(0), admission.hold(0));
        assert!(one.is_some() && two.is_some());
        assert!(admission.hold(0).is_none());
        drop(one);
        assert!(admission.hold(0).is_some());
    }
}
