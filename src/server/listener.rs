//! One port for every kind of client: accepts, reads the first bytes, hands the connection to
//! the handler that is registered for them. Knows no service.
//!
//! A protocol with a port of its own has no greeting: its handler gets each connection at once,
//! and says itself when the client has earned its place ([`ConnectionSlot::settle`]).
//!
//! A thread per connection. The whole greeting stands under one absolute deadline. At the cap of
//! connections the oldest that has not greeted is closed to make room, so that ten thousand
//! silent ones cannot keep an honest client out; one that has greeted is never touched.

use std::{
    collections::{BTreeMap, HashMap},
    fmt, io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread,
    thread::JoinHandle,
    time::Duration,
};

use crate::{
    error::{Error, Result},
    net::{STACK, clock, lock, socket},
    proto::greeting::Greeting,
    server::first_bytes,
    units::Moment,
};

/// A connection whose first bytes are known.
#[derive(Debug)]
pub struct Connection {
    /// The connection, blocking, without delay for small writes.
    pub stream: Arc<TcpStream>,
    /// Who is at the other end.
    pub peer: SocketAddr,
    /// What has been read of it.
    pub first: Vec<u8>,
    /// When the whole greeting (a first line, a request head) must be in.
    pub deadline: Moment,
}

/// What serves one kind of client.
pub type ConnectionHandler = Arc<dyn Fn(Connection) + Send + Sync>;

/// What serves every client of a port that has only one kind of them.
pub type RawHandler = Arc<dyn Fn(Connection, &ConnectionSlot) + Send + Sync>;

/// A port being listened to.
pub struct Listener {
    addr: SocketAddr,
    shared: Arc<ListenerState>,
    thread: Option<JoinHandle<()>>,
}

struct ListenerState {
    service: Accepting,
    cap: usize,
    registry: Mutex<Connections>,
    left: Condvar,
}

enum Accepting {
    Greeted(HashMap<Greeting, ConnectionHandler>),
    Bare(RawHandler),
}

#[derive(Default)]
struct Connections {
    connections: BTreeMap<u64, OpenConnection>,
    next: u64,
    stopping: bool,
}

struct OpenConnection {
    stream: Arc<TcpStream>,
    since: Moment,
    greeted: bool,
}

/// How long a client may take for its greeting.
pub const GREETING_LIMIT: Duration = Duration::from_secs(5);

/// Most connections at once, whatever the limit of descriptors.
pub const CONNECTIONS_MAX: usize = 12_000;

/// Descriptors kept for files, logs and the program itself.
const RESERVED: u64 = 16;

/// A connection younger than this is not closed to make room: an honest client's greeting is
/// under way when it is accepted, and its thread needs a moment to read it.
const GRACE: Duration = Duration::from_millis(5);

/// Connections that say nothing are closed for one that finds no thread, so many at most, ...
const EVICTIONS_MAX: u32 = 3;

/// ... and each is waited for so long.
const EVICTION_LIMIT: Duration = Duration::from_millis(20);

/// How long the listener's thread may take to see that it is to end.
const STOP_LIMIT: Duration = Duration::from_secs(2);

/// How long one attempt to wake it may take.
const WAKE_PAUSE: Duration = Duration::from_millis(500);

impl Listener {
    /// Listens on `addr` and serves each connection by the handler of its greeting.
    ///
    /// # Errors
    /// The address cannot be listened on; the system refuses a thread.
    pub fn start(addr: SocketAddr, handlers: HashMap<Greeting, ConnectionHandler>) -> Result<Self> {
        Self::open(addr, Accepting::Greeted(handlers), 0)
    }

    /// Listens on `addr` and gives each connection to `handler` before a byte of it is read. As many
    /// as `sockets` of them need a descriptor more, which no other connection shall take.
    ///
    /// # Errors
    /// As [`start`](Self::start).
    pub fn start_bare(addr: SocketAddr, handler: RawHandler, sockets: usize) -> Result<Self> {
        Self::open(addr, Accepting::Bare(handler), sockets as u64)
    }

    fn open(addr: SocketAddr, service: Accepting, sockets: u64) -> Result<Self> {
        let listener = socket::listen(addr)?;
        let addr = listener.local_addr().map_err(Error::io("listen", addr))?;
        let wanted = (CONNECTIONS_MAX as u64 + RESERVED).saturating_add(sockets);
        let descriptors = socket::descriptors(wanted).unwrap_or(1024);
        let shared = Arc::new(ListenerState {
            service,
            cap: cap(descriptors, sockets),
            registry: Mutex::default(),
            left: Condvar::new(),
        });
        let accepting = Arc::clone(&shared);
        let thread = thread::Builder::new()
            .name("listener".to_owned())
            .stack_size(STACK)
            .spawn(move || accepting.accept_all(&listener))
            .map_err(Error::io("start the listener's thread", addr))?;
        Ok(Self { addr, shared, thread: Some(thread) })
    }

    /// The address that is listened on, with the port that the system chose for port 0.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// How many connections are open.
    pub fn connections(&self) -> usize {
        self.shared.lock().connections.len()
    }

    /// Stops accepting. Connections that are being served go on.
    pub fn stop(&mut self) {
        self.shared.lock().stopping = true;
        self.shared.left.notify_all();
        // The thread sits in accept; a connection of our own wakes it.
        let here = match self.addr.ip() {
            IpAddr::V4(ip) if ip.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
            IpAddr::V6(ip) if ip.is_unspecified() => IpAddr::V6(Ipv6Addr::LOCALHOST),
            ip => ip,
        };
        let wake = SocketAddr::new(here, self.addr.port());
        let Some(thread) = self.thread.take() else {
            return;
        };
        let deadline = clock::now().after(STOP_LIMIT);
        while !thread.is_finished() {
            if let Err(error) = TcpStream::connect_timeout(&wake, WAKE_PAUSE) {
                log::debug!("cannot wake the listener: {error}");
            }
            if clock::left(deadline).is_none() {
                // No descriptor for that connection, or no way to ourselves: the thread holds
                // nothing but the port, and must not hold the end of the program.
                log::warn!("the port {} stays open: the listener sleeps", self.addr.port());
                return;
            }
            if !thread.is_finished() {
                thread::sleep(Duration::from_millis(1));
            }
        }
        if thread.join().is_err() {
            log::error!("the listener's thread panicked");
        }
    }

    /// Lets the connections that are being served come to their end for `patience`, then closes
    /// what is left and waits as long again. Returns how many are left even then.
    pub fn close_all(&self, patience: Duration) -> usize {
        // A last word is on its way to those that greeted; the silent ones wait for nothing.
        self.shared.shut(|entry| !entry.greeted);
        if self.shared.wait_empty(patience) == 0 {
            return 0;
        }
        self.shared.shut(|_| true);
        self.shared.wait_empty(patience)
    }
}

/// How many connections there may be at once, of which `sockets` need a second descriptor.
fn cap(descriptors: u64, sockets: u64) -> usize {
    let free = descriptors.saturating_sub(RESERVED);
    // With half of them each connection can have its second.
    let connections = free.saturating_sub(sockets).max(free / 2).max(1);
    usize::try_from(connections).map_or(CONNECTIONS_MAX, |cap| cap.min(CONNECTIONS_MAX))
}

impl Drop for Listener {
    fn drop(&mut self) {
        if self.thread.is_some() {
            self.stop();
        }
    }
}

impl ListenerState {
    fn accept_all(self: &Arc<Self>, listener: &TcpListener) {
        loop {
            self.make_room();
            let accepted = listener.accept();
            if self.lock().stopping {
                return;
            }
            match accepted {
                Ok((stream, peer)) => self.serve(stream, peer),
                Err(error) => {
                    log::debug!("cannot accept: {error}");
                    // Out of descriptors, or the client is gone again: room helps the first, and
                    // a short wait keeps either from spinning.
                    self.evict_oldest();
                    let registry = self.lock();
                    drop(self.left.wait_timeout(registry, Duration::from_millis(20)));
                }
            }
        }
    }

    /// Waits for a free place, making one every [`GRACE`] where silent connections hold them.
    fn make_room(&self) {
        loop {
            let registry = self.lock();
            if registry.connections.len() < self.cap || registry.stopping {
                return;
            }
            drop(registry);
            self.evict_oldest();
            let registry = self.lock();
            let full = |registry: &mut Connections| {
                registry.connections.len() >= self.cap && !registry.stopping
            };
            drop(self.left.wait_timeout_while(registry, GRACE, full));
        }
    }

    /// Closes the oldest connection that has not greeted, if it has had its grace; whether there
    /// was one.
    fn evict_oldest(&self) -> bool {
        let registry = self.lock();
        let oldest = registry.connections.values().find(|entry| !entry.greeted);
        let oldest = oldest.filter(|entry| clock::now().since(entry.since) >= GRACE);
        if let Some(entry) = oldest {
            let _ = entry.stream.shutdown(Shutdown::Both);
        }
        oldest.is_some()
    }

    /// Waits until a connection has ended, for [`EVICTION_LIMIT`] at most.
    fn wait_for_one_less(&self) {
        let registry = self.lock();
        let many = registry.connections.len();
        let all = |registry: &mut Connections| registry.connections.len() >= many;
        drop(self.left.wait_timeout_while(registry, EVICTION_LIMIT, all));
    }

    fn serve(self: &Arc<Self>, stream: TcpStream, peer: SocketAddr) {
        if let Err(error) = stream.set_nodelay(true) {
            log::debug!("{peer}: {error}");
            return;
        }
        socket::keep_alive(&stream);
        let stream = Arc::new(stream);
        for _ in 0..EVICTIONS_MAX {
            let Err(error) = self.spawn(&stream, peer) else {
                return;
            };
            log::debug!("{peer}: cannot start a thread: {error}");
            // A silent connection has one.
            if !self.evict_oldest() {
                break;
            }
            self.wait_for_one_less();
        }
        if let Err(error) = self.spawn(&stream, peer) {
            log::warn!("{peer}: cannot start a thread: {error}");
            first_bytes::refuse(&stream);
        }
    }

    /// Serves a connection by a thread of its own.
    fn spawn(self: &Arc<Self>, stream: &Arc<TcpStream>, peer: SocketAddr) -> io::Result<()> {
        let id = {
            let mut registry = self.lock();
            let id = registry.next;
            registry.next += 1;
            let entry =
                OpenConnection { stream: Arc::clone(stream), since: clock::now(), greeted: false };
            registry.connections.insert(id, entry);
            id
        };
        let slot = ConnectionSlot { shared: Arc::clone(self), id };
        let ours = Arc::clone(stream);
        thread::Builder::new()
            .name(format!("conn-{id}"))
            .stack_size(STACK)
            .spawn(move || slot.run(ours, peer))
            .map(drop)
    }

    fn shut(&self, which: impl Fn(&OpenConnection) -> bool) {
        for entry in self.lock().connections.values().filter(|entry| which(entry)) {
            // One that is gone already needs no closing.
            let _ = entry.stream.shutdown(Shutdown::Both);
        }
    }

    fn wait_empty(&self, patience: Duration) -> usize {
        let open = |registry: &mut Connections| !registry.connections.is_empty();
        let waited = self.left.wait_timeout_while(self.lock(), patience, open);
        waited.unwrap_or_else(PoisonError::into_inner).0.connections.len()
    }

    fn lock(&self) -> MutexGuard<'_, Connections> {
        lock(&self.registry)
    }
}

/// A connection's entry in the registry; dropping it, even in a panic, takes it out.
pub struct ConnectionSlot {
    shared: Arc<ListenerState>,
    id: u64,
}

impl ConnectionSlot {
    /// Says whether the client has earned its place: one that has not may be closed to make room.
    pub fn settle(&self, settled: bool) {
        if let Some(entry) = self.shared.lock().connections.get_mut(&self.id) {
            entry.greeted = settled;
        }
    }

    fn run(self, stream: Arc<TcpStream>, peer: SocketAddr) {
        let deadline = clock::now().after(GREETING_LIMIT);
        let connection = |first| Connection { stream: Arc::clone(&stream), peer, first, deadline };
        let handlers = match &self.shared.service {
            Accepting::Greeted(handlers) => handlers,
            Accepting::Bare(handler) => return handler(connection(Vec::new()), &self),
        };
        match first_bytes::read_greeting(&stream, deadline) {
            Ok(Some((greeting, first))) => {
                self.settle(true);
                if let Some(handler) = handlers.get(&greeting) {
                    handler(connection(first));
                }
            }
            Ok(None) => log::debug!("{peer}: closed, its first bytes are no greeting"),
            Err(error) => log::debug!("{peer}: {error}"),
        }
    }
}

impl Drop for ConnectionSlot {
    fn drop(&mut self) {
        self.shared.lock().connections.remove(&self.id);
        self.shared.left.notify_all();
    }
}

impl fmt::Debug for ConnectionSlot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConnectionSlot").field("id", &self.id).finish_non_exhaustive()
    }
}

impl fmt::Debug for Listener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Listener").field("addr", &self.addr).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn silent_connections_leave_the_descriptors_that_viewers_need() {
        for (descriptors, sockets, most) in [
            (1024, 0, 1008),
            (1024, 256, 752),
            // More viewers than descriptors: each connection can have its second all the same.
            (1024, 256_000, 504),
            (1024, u64::MAX, 504),
            (0, 0, 1),
            (u64::MAX, 256, CONNECTIONS_MAX),
        ] {
            assert_eq!(cap(descriptors, sockets), most, "{descriptors}, {sockets}");
        }
    }
}
