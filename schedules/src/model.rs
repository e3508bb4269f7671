//! One execution: a server with a lobby, clients that behave or do not, hands, an end, and a clock, all
//! of them threads of a scheduler.

use std::{
    io::{Read, Write},
    net::SocketAddr,
    path::Path,
    sync::Arc,
    time::Duration,
};

use shuttle::rand::{Rng, rngs::ThreadRng, thread_rng};

use crate::{
    digest::Digest,
    error::Result,
    judge,
    net::{
        clock, copy,
        primitives::{TcpStream, thread},
        shared_reply::SharedReply,
    },
    proto::native::{ClientHello, FromClient, Join, Receipt},
    server::{
        admission::Admission,
        catalog::Catalog,
        config::ServerConfig,
        conversation,
        echo::EchoLimits,
        gate::{ClientKind, GateView, PendingClient, SeatConnection},
        listener,
        lobby::{Lobby, SeatRequest},
        session_log::SessionLogger,
        transport::{SendJob, SendPlan, SendResult, SendSession, Transport},
    },
    session::Via,
    text::ClientName,
    transfer::{ClockId, Counts, Evidence},
    transport::tcp::TcpTransport,
    units::Moment,
};

/// What the executions of one kind have in common; what it leaves open each draws for itself.
#[derive(Clone, Copy, Debug)]
pub struct Scenario {
    pub name: &'static str,
    /// Seats, from and to.
    clients: (u16, u16),
    /// Clients beyond the seats, at most.
    more: u16,
    has_quorum: bool,
    max_wait: Duration,
    /// The server says how many clients there are.
    lasting: bool,
    one_off: bool,
    /// Clients try again until the gate has opened.
    again: bool,
    hands: u32,
    stops: bool,
    /// Connections that are not ready may be closed for others.
    crowd: bool,
    fates: &'static [Fate],
}

/// What a client does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// All that it should.
    Honest,
    /// Its process ends at any step: the connection is closed ...
    Killed,
    /// ... or reset.
    Reset,
    /// It sends nothing after JOIN.
    SilentBefore,
    /// It sends nothing after READY, and reads nothing.
    SilentAfter,
    /// It reads its first block, and nothing more.
    SilentHeld,
    /// It speaks between READY and the release.
    Speaks,
    /// It says that it cannot go on, before READY.
    Fails,
    /// It closes in answer to GO.
    ClosesAtGo,
    /// It has the whole file already.
    Resumes,
    /// The server's thread of this client ends at the gate, or behind it.
    ThreadDies,
}

use Fate::*;

const EVERY: &[Fate] = &[
    Honest,
    Honest,
    Honest,
    Honest,
    Honest,
    Honest,
    Killed,
    Killed,
    Reset,
    SilentBefore,
    SilentAfter,
    SilentHeld,
    Speaks,
    Fails,
    ClosesAtGo,
    Resumes,
    ThreadDies,
];

const SHORT: Duration = Duration::from_millis(350);
const LONG: Duration = Duration::from_secs(1_000_000);

const PLAIN: Scenario = Scenario {
    name: "muster",
    clients: (2, 3),
    more: 2,
    has_quorum: false,
    max_wait: SHORT,
    lasting: true,
    one_off: false,
    again: false,
    hands: 0,
    stops: false,
    crowd: false,
    fates: EVERY,
};

pub const SCENARIOS: &[Scenario] = &[
    // Clients die at any step while seats fill, and the deadline passes at any step.
    PLAIN,
    Scenario { name: "quorum", clients: (2, 4), more: 0, has_quorum: true, ..PLAIN },
    Scenario {
        name: "hand",
        clients: (2, 4),
        more: 0,
        hands: 2,
        max_wait: Duration::from_secs(20),
        ..PLAIN
    },
    Scenario { name: "stop", clients: (1, 3), more: 1, stops: true, has_quorum: true, ..PLAIN },
    // A seat that is lost is taken by another client, and nothing but a full gate opens.
    Scenario {
        name: "evict",
        more: 0,
        one_off: true,
        again: true,
        max_wait: LONG,
        fates: &[Honest, Honest, Honest, Killed, Killed, Reset, Speaks, Fails],
        ..PLAIN
    },
    // All are there, and some die behind the gate.
    Scenario {
        name: "fair",
        clients: (3, 4),
        more: 0,
        max_wait: Duration::from_secs(20),
        fates: &[
            Honest,
            Honest,
            Honest,
            Killed,
            Reset,
            SilentAfter,
            SilentHeld,
            ClosesAtGo,
            Resumes,
            ThreadDies,
        ],
        ..PLAIN
    },
    // The clients say how many they are; sessions begin and end side by side.
    Scenario { name: "lobby", clients: (1, 2), more: 4, lasting: false, crowd: true, ..PLAIN },
    // All of it at once.
    Scenario {
        name: "all",
        clients: (1, 4),
        has_quorum: true,
        hands: 1,
        stops: true,
        crowd: true,
        ..PLAIN
    },
];

/// The file that is sent: a first block, and a body of some writes.
pub const FILE: &[u8] = &[7; 4000];

const STALL: Duration = Duration::from_secs(2);

/// What the clients of one execution share.
struct World {
    lobby: Arc<Lobby>,
    admission: Arc<Admission>,
    offered: SharedReply,
    echoes: EchoLimits,
    sha1: Digest,
    group: u16,
    ports: std::sync::atomic::AtomicU16,
}

/// Runs one execution; `file` holds [`FILE`].
pub fn execute(scenario: &Scenario, file: &Path, sha1: Digest) {
    let mut rng = thread_rng();
    let clients = rng.gen_range(scenario.clients.0..=scenario.clients.1);
    let quorum = scenario.has_quorum.then(|| rng.gen_range(1..=clients));
    let settings = ServerConfig {
        clients: scenario.lasting.then_some(clients),
        max_wait: scenario.max_wait,
        quorum,
        stall: STALL,
        copy: copy::Method::Buffered,
        one_off: scenario.one_off,
        ..ServerConfig::default()
    };
    let is_kind = !scenario.crowd && scenario.max_wait == SHORT;
    judge::begin(judge::Allowed {
        quorum,
        max_wait: scenario.max_wait,
        is_kind,
        one_off: scenario.one_off,
    });
    let pause = [0, 2, 10, 40][rng.gen_range(0..4)];
    let clock = clock::begin(pause);
    let logger = SessionLogger::start(None).expect("a thread");
    let records = logger.records.clone();
    let admission = Admission::of_server();
    let transports: Vec<Box<dyn Transport>> =
        vec![Box::new(Watched(TcpTransport::new(Via::Tcp, &settings).expect("plain")))];
    let catalog = Catalog::offer([file]).expect("there");
    let (log, places) = (logger.log_handle(), Arc::clone(&admission));
    let lobby = Lobby::new(settings, catalog, transports, log, places);
    let ports = std::sync::atomic::AtomicU16::new(1000);
    let (group, offered) = (clients, SharedReply::new());
    let world =
        Arc::new(World { lobby, admission, offered, echoes: EchoLimits, sha1, group, ports });

    let mut threads = Vec::new();
    for _ in 0..clients + rng.gen_range(0..=scenario.more) {
        let (world, again, fates) = (Arc::clone(&world), scenario.again, scenario.fates);
        threads.push(thread::spawn(move || {
            while !attend(&world, fates[thread_rng().gen_range(0..fates.len())])
                && again
                && !judge::is_open()
            {}
        }));
    }
    let mut at_any_step = |count: u32, act: fn(&World)| {
        let world = Arc::clone(&world);
        threads.push(thread::spawn(move || {
            for _ in 0..count {
                rest();
                act(&world);
            }
        }));
    };
    at_any_step(scenario.hands, |world| {
        judge::hand();
        world.lobby.release_now();
        judge::hand_is_done();
    });
    at_any_step(scenario.stops.into(), |world| {
        judge::stop();
        world.lobby.stop();
    });
    at_any_step(3 * u32::from(scenario.crowd), |world| listener::evict(&world.admission));
    for thread in threads {
        thread.join().expect("no panic");
    }
    while !world.lobby.wait_idle(Duration::from_secs(60)) {
        // A muster that all its clients have left waits for others.
        let is_empty = |view: &GateView| view.seats.is_empty() && view.left.is_some();
        if world.lobby.views().iter().all(is_empty) {
            judge::stop();
            world.lobby.stop();
        }
    }
    assert_eq!(listener::connections(&world.admission), 0, "a place is given back");
    let views = world.lobby.views();
    assert!(views.is_empty(), "{views:?}");
    drop(world);
    logger.finish().expect("no log to fail");
    clock::end();
    clock.join().expect("no panic");
    judge::end(&std::iter::from_fn(|| records.try_recv()).collect::<Vec<_>>());
}

/// Some steps.
fn rest() {
    for _ in 0..thread_rng().gen_range(0..60_u32).pow(2) / 20 {
        thread::yield_now();
    }
}

/// A client comes with `fate`; true if it has its copy.
fn attend(world: &Arc<World>, fate: Fate) -> bool {
    let port = world.ports.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
    let (near, far) = TcpStream::pair(port);
    let far = Arc::new(far);
    let served = Arc::clone(world);
    let server = thread::spawn(move || {
        listener::serve(&served.admission, near, |connection| {
            if fate == ThreadDies {
                dies(&served.lobby, connection);
            } else {
                conversation::serve(connection, &served.lobby, &served.offered, &served.echoes);
            }
        });
    });
    let killer = matches!(fate, Killed | Reset).then(|| {
        let far = Arc::clone(&far);
        thread::spawn(move || {
            rest();
            far.kill(fate == Reset);
        })
    });
    let is_whole = talk(world, &far, port, fate);
    if matches!(fate, SilentBefore | SilentAfter | SilentHeld | ThreadDies) {
        server.join().expect("no panic");
        drop(far);
    } else {
        drop(far);
        server.join().expect("no panic");
    }
    if let Some(killer) = killer {
        killer.join().expect("no panic");
    }
    is_whole
}

/// What a client says and reads; true if its copy is whole and the server knows.
fn talk(world: &World, far: &TcpStream, port: u16, fate: Fate) -> bool {
    let mut say = |message: Vec<u8>| {
        let mut far = far;
        far.write_all(&message).is_ok()
    };
    let name = ClientName::new(&format!("{fate:?}")).expect("short");
    let (via, ways) = (None, Vec::new());
    let (auto, takes_trees) = (false, false);
    let join = Join { file: None, group: world.group, via, name, takes_trees, auto, ways };
    if fate != ThreadDies && !say(ClientHello::Join(join).encode()) || fate == SilentBefore {
        return false;
    }
    let whole = FILE.len() as u64;
    let offset = if fate == Resumes { whole } else { 0 };
    let mut lines = Lines { far, read: Vec::new() };
    while let Some(line) = lines.next() {
        let word = line.split(' ').next().unwrap_or_default();
        match word {
            "OFFER" if fate == Fails => {
                let fail = FromClient::Fail {
                    outcome: crate::transfer::Outcome::Cut,
                    bytes: 0,
                    reason: "no room".to_owned(),
                    last: None,
                    counts: Counts::default(),
                };
                say(fail.encode());
            }
            "OFFER" => {
                judge::ready(port);
                say(FromClient::Ready { offset }.encode());
                if fate == Speaks {
                    say(FromClient::Held.encode());
                }
                if fate == SilentAfter {
                    return false;
                }
            }
            "GO" if fate == ClosesAtGo => return false,
            "GO" => {
                if !receive(&mut lines, whole - offset, fate, &mut say) {
                    return false;
                }
                say(FromClient::Last { bytes: whole - offset }.encode());
                say(FromClient::Hashed { sha1: world.sha1 }.encode());
                judge::proven(port);
                let receipt = Receipt {
                    bytes: whole - offset,
                    sha1: world.sha1,
                    last: Duration::ZERO,
                    hashed: Duration::ZERO,
                    durable: None,
                    first: (offset == 0).then(|| (ClockId(1), clock::now())),
                    counts: Counts::default(),
                    evidence: Evidence::default(),
                };
                say(FromClient::Receipt(receipt).encode());
            }
            "SUMMARY" => return line.contains("outcome=complete"),
            "WAIT" => {}
            "ERROR" => return false,
            _ => panic!("what is '{line}'?"),
        }
    }
    false
}

/// Reads the payload, and answers its first block.
fn receive(
    lines: &mut Lines<'_>,
    bytes: u64,
    fate: Fate,
    say: &mut impl FnMut(Vec<u8>) -> bool,
) -> bool {
    let first = bytes.min(1024);
    if !lines.skip(first) {
        return false;
    }
    if fate == SilentHeld {
        return false;
    }
    if bytes > 0 {
        say(FromClient::Held.encode());
    }
    lines.skip(bytes - first)
}

/// The lines, and the payload, that a client reads.
struct Lines<'a> {
    far: &'a TcpStream,
    read: Vec<u8>,
}

impl Lines<'_> {
    fn more(&mut self) -> bool {
        let mut bytes = [0; 2048];
        match self.far.read(&mut bytes) {
            Ok(len) if len > 0 => {
                self.read.extend(&bytes[..len]);
                true
            }
            _ => false,
        }
    }

    fn next(&mut self) -> Option<String> {
        loop {
            if let Some(end) = self.read.iter().position(|&byte| byte == b'\n') {
                let line = self.read.drain(..=end).take(end).collect();
                return Some(String::from_utf8(line).expect("text"));
            }
            if !self.more() {
                return None;
            }
        }
    }

    fn skip(&mut self, bytes: u64) -> bool {
        let bytes = usize::try_from(bytes).expect("small");
        while self.read.len() < bytes {
            if !self.more() {
                return false;
            }
        }
        self.read.drain(..bytes);
        true
    }
}

/// A client's thread that takes a seat and ends at any step without a word, as one that panics.
fn dies(lobby: &Arc<Lobby>, connection: listener::Connection) {
    let listener::Connection { stream, peer, .. } = connection;
    let client = PendingClient {
        name: "dies".to_owned(),
        kind: ClientKind::Http,
        stream,
        peer,
        ways: Vec::new(),
    };
    let group = Some(1).filter(|_| lobby.settings.clients.is_none());
    let Ok(mut seat) = lobby.seat(&SeatRequest { group, ..SeatRequest::default() }, client) else {
        return;
    };
    if thread_rng().gen_range(0..4) == 0 {
        return;
    }
    judge::ready(peer.port());
    if seat.wait().is_ok() {
        let release = seat.release();
        judge::admitted(peer.port(), release.admitted, release.released_at().is_some());
        rest();
        judge::sent(peer.port());
        drop(release.fair_start.guard());
    }
}

/// TCP, with a judge that looks on.
#[derive(Debug)]
struct Watched(TcpTransport);

#[derive(Debug)]
struct WatchedSession {
    inner: Box<dyn SendSession>,
    prepared: Moment,
}

impl Transport for Watched {
    fn via(&self) -> Via {
        Via::Tcp
    }

    fn prepare(&self, plan: &SendPlan) -> Result<Box<dyn SendSession>> {
        let prepared = clock::now();
        Ok(Box::new(WatchedSession { inner: self.0.prepare(plan)?, prepared }))
    }

    fn serves_http(&self) -> bool {
        true
    }
}

impl SendSession for WatchedSession {
    fn prepare_connection(&self, stream: &TcpStream) -> Result<()> {
        self.inner.prepare_connection(stream)
    }

    fn on_seated(&self, seat: &SeatConnection) {
        let (session, port) = (&seat.session, port_of(seat));
        judge::seated(port, session.id, session.clients, self.prepared);
        self.inner.on_seated(seat);
    }

    fn description(&self, stream: &TcpStream) -> String {
        self.inner.description(stream)
    }

    fn send(&self, seat: &SeatConnection, job: SendJob<'_>) -> SendResult {
        let (port, release) = (port_of(seat), seat.release());
        judge::admitted(port, release.admitted, release.released_at().is_some());
        // Not later than the transport's own limit.
        judge::sends(port, clock::now().after(Duration::from_millis(50)));
        let result = self.inner.send(seat, job);
        judge::sent(port);
        result
    }
}

fn port_of(seat: &SeatConnection) -> u16 {
    seat.stream.peer_addr().as_ref().map_or(0, SocketAddr::port)
}
