//! One port for every kind of client: accepts, reads the first bytes, hands the connection to
//! the handler that is registered for them. Knows no service.
//!
//! A protocol with a port of its own has no greeting: its handler gets each connection at once,
//! and says itself when the client has earned its place ([`ConnectionSlot::settle`]).
//!
//! A thread per connection. The whole greeting stands under one absolute deadline. Where there is no
//! place left, one whose client is not ready is closed ([`Admission`]), so that ten thousand of
//! them cannot keep an honest client out; one whose client is ready is never touched.

use std::{
    collections::HashMap,
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream},
    sync::Arc,
    thread,
    thread::JoinHandle,
    time::Duration,
};

use crate::{
    error::{Error, Result},
    net::{STACK, clock, socket},
    proto::greeting::Greeting,
    server::{admission::Admission, first_bytes, places::Stage},
    text::debug_fields,
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
    admission: Arc<Admission>,
}

enum Accepting {
    Greeted(HashMap<Greeting, ConnectionHandler>),
    Bare(RawHandler),
}

/// How long a client may take for its greeting.
pub const GREETING_LIMIT: Duration = Duration::from_secs(5);

/// Connections that are not ready are closed for one that finds no thread, so many at most.
const EVICTIONS_MAX: u32 = 3;

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
        Self::open(addr, Accepting::Greeted(handlers), Admission::of_port(0))
    }

    /// The same, by the limits of `admission`.
    ///
    /// # Errors
    /// As [`start`](Self::start).
    pub fn start_with(
        addr: SocketAddr,
        handlers: HashMap<Greeting, ConnectionHandler>,
        admission: Arc<Admission>,
    ) -> Result<Self> {
        Self::open(addr, Accepting::Greeted(handlers), admission)
    }

    /// Listens on `addr` and gives each connection to `handler` before a byte of it is read. As many
    /// as `sockets` of them need a descriptor more, which no other connection shall take.
    ///
    /// # Errors
    /// As [`start`](Self::start).
    pub fn start_bare(addr: SocketAddr, handler: RawHandler, sockets: usize) -> Result<Self> {
        Self::open(addr, Accepting::Bare(handler), Admission::of_port(sockets as u64))
    }

    fn open(addr: SocketAddr, service: Accepting, admission: Arc<Admission>) -> Result<Self> {
        let listener = socket::listen(addr)?;
        let addr = listener.local_addr().map_err(Error::io("listen", addr))?;
        let shared = Arc::new(ListenerState { service, admission });
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
        self.shared.admission.len()
    }

    /// Stops accepting. Connections that are being served go on.
    pub fn stop(&mut self) {
        self.shared.admission.stop();
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
        let admission = &self.shared.admission;
        admission.shut(|stage| stage == Stage::Silent);
        if admission.wait_empty(patience) == 0 {
            return 0;
        }
        admission.shut(|_| true);
        admission.wait_empty(patience)
    }
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
            self.admission.make_room();
            let accepted = listener.accept();
            if self.admission.is_stopping() {
                return;
            }
            match accepted {
                Ok((stream, peer)) => self.serve(stream, peer),
                Err(error) => {
                    log::debug!("cannot accept: {error}");
                    // Out of descriptors, or the client is gone again: room helps the first, and
                    // a short wait keeps either from spinning.
                    self.admission.evict();
                    self.admission.wait_for_one_less();
                }
            }
        }
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
            // A connection that is not ready has one.
            if !self.admission.evict() {
                break;
            }
            self.admission.wait_for_one_less();
        }
        if let Err(error) = self.spawn(&stream, peer) {
            log::warn!("{peer}: cannot start a thread: {error}");
            first_bytes::refuse(&stream);
        }
    }

    /// Serves a connection by a thread of its own.
    fn spawn(self: &Arc<Self>, stream: &Arc<TcpStream>, peer: SocketAddr) -> io::Result<()> {
        let id = self.admission.add(stream, peer);
        let slot = ConnectionSlot { shared: Arc::clone(self), id };
        let ours = Arc::clone(stream);
        thread::Builder::new()
            .name(format!("conn-{id}"))
            .stack_size(STACK)
            .spawn(move || slot.run(ours, peer))
            .map(drop)
    }
}

/// A connection's place; dropping it, even in a panic, gives it back.
pub struct ConnectionSlot {
    shared: Arc<ListenerState>,
    id: u64,
}

impl ConnectionSlot {
    /// Says whether the client has earned its place: one that has not may be closed to make room.
    pub fn settle(&self, settled: bool) {
        let stage = if settled { Stage::Ready } else { Stage::Silent };
        self.shared.admission.set_stage(self.id, stage);
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
                self.shared.admission.set_stage(self.id, Stage::Greeted);
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
        self.shared.admission.remove(self.id);
    }
}

debug_fields!(ConnectionSlot, id);
debug_fields!(Listener, addr);
