//! What the tests share: a server for each test, a client that sends lines of the protocol one by
//! one, and waiting for conditions with a deadline.

use std::{
    fmt, fs,
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    path::{Path, PathBuf},
    sync::{Arc, mpsc},
    thread,
    thread::JoinHandle,
    time::{Duration, Instant},
};

use gatecast::internals::{
    client::{ClientReport, FetchConfig, FetchRun},
    digest::Digest,
    error::Result,
    proto::native::{FromClient, Receipt},
    report,
    server::{
        builder::{ServerCore, ServerCoreBuilder},
        catalog::Catalog,
        config::ServerConfig,
        gate::SeatConnection,
        sample,
        transport::{SendJob, SendPlan, SendResult, SendSession, Transport},
    },
    session::Via,
    transfer::{Counts, Evidence, Outcome, Record, Transfer},
    transport::{tcp, tcp::send::TcpTransport},
    units::Rate,
};
use tempfile::TempDir;

#[cfg(feature = "cli")]
pub(crate) mod browser;
pub(crate) mod http;
#[cfg(feature = "cli")]
#[cfg_attr(
    not(all(target_os = "linux", feature = "sockopt")),
    allow(dead_code, reason = "some tests of processes are of Linux with sockopt only")
)]
pub(crate) mod program;
#[cfg(feature = "cli")]
pub(crate) mod schema;
#[cfg(all(target_os = "linux", feature = "cli", feature = "sockopt"))]
pub(crate) mod star;
pub(crate) mod swarm;
pub(crate) mod turn;
pub(crate) mod udp;

/// Longer than any step of a test takes.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// Runs `body`, and fails if it takes longer than `limit`, so that no test hangs.
pub(crate) fn within(limit: Duration, body: impl FnOnce() + Send + 'static) {
    let (done, over) = mpsc::channel();
    let thread = thread::spawn(move || {
        body();
        let _ = done.send(());
    });
    match over.recv_timeout(limit) {
        Err(mpsc::RecvTimeoutError::Timeout) => panic!("not over after {limit:?}"),
        _ => {
            if let Err(panic) = thread.join() {
                std::panic::resume_unwind(panic);
            }
        }
    }
}

/// Waits until `condition` holds. A machine may be slow and busy: what passes never waits so long.
pub(crate) fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !condition() {
        assert!(begun.elapsed() < PATIENCE * 4, "waited in vain: {what}");
        thread::sleep(Duration::from_millis(2));
    }
}

/// Returns `there`. If it is false, says that the test is skipped for lack of `what`, and fails if
/// `GATECAST_PEERS` is `required`.
pub(crate) fn have(what: &str, there: bool) -> bool {
    if !there {
        let required = std::env::var_os("GATECAST_PEERS").is_some_and(|word| word == "required");
        assert!(!required, "GATECAST_PEERS=required, and there is no {what}");
        eprintln!("passed by: there is no {what}");
    }
    there
}

/// Whether a program is installed.
pub(crate) fn installed(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|folder| folder.join(program).is_file())
}

/// The SHA-1 of a file.
#[track_caller]
pub(crate) fn sha1_of(path: &Path) -> Digest {
    let file = fs::File::open(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    Digest::of_reader(file).expect("readable")
}

/// A server in this process, with one file, its log and a folder for copies.
pub(crate) struct Server {
    running: Option<ServerCore>,
    pub(crate) folder: TempDir,
    pub(crate) addr: SocketAddr,
    pub(crate) name: String,
    pub(crate) bytes: u64,
    pub(crate) sha1: Digest,
}

impl Server {
    /// Offers one pseudo-random file of `bytes` bytes.
    pub(crate) fn new(bytes: u64, set: impl FnOnce(&mut ServerConfig)) -> Self {
        Self::with(bytes, set, |host| tcp::serve(host).expect("TCP"))
    }

    /// The same, with the transports and services that `build` registers.
    pub(crate) fn with(
        bytes: u64,
        set: impl FnOnce(&mut ServerConfig),
        build: impl FnOnce(ServerCoreBuilder) -> ServerCoreBuilder,
    ) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let file = folder.path().join("offered/f.bin");
        fs::create_dir(folder.path().join("offered")).expect("room");
        sample::make(&file, bytes).expect("room");
        let sha1 = sha1_of(&file);
        let mut settings = ServerConfig { max_wait: PATIENCE, ..ServerConfig::default() };
        set(&mut settings);
        let catalog = Catalog::offer([folder.path().join("offered")]).expect("readable");
        let host = ServerCoreBuilder::new(catalog, settings).log_to(folder.path().join("logs"));
        host.digest(&|_, _, _| {}).expect("readable");
        let running = build(host).start(([127, 0, 0, 1], 0).into()).expect("a free port");
        Self {
            addr: running.addr(),
            running: Some(running),
            folder,
            name: "f.bin".to_owned(),
            bytes,
            sha1,
        }
    }

    pub(crate) fn running(&self) -> &ServerCore {
        self.running.as_ref().expect("not stopped")
    }

    /// The offered file.
    pub(crate) fn source(&self) -> PathBuf {
        self.folder.path().join("offered/f.bin")
    }

    /// A folder for copies.
    pub(crate) fn out(&self, name: &str) -> PathBuf {
        self.folder.path().join("out").join(name)
    }

    pub(crate) fn logs(&self) -> PathBuf {
        self.folder.path().join("logs")
    }

    /// The record of the session that ends next.
    pub(crate) fn record(&self) -> Record {
        self.running().records().recv_timeout(PATIENCE * 2).expect("a session that ends")
    }

    /// How many seats of the mustering sessions are taken, and how many of them are ready.
    pub(crate) fn seats(&self) -> (usize, usize) {
        let views = self.running().lobby().views();
        let seats = || views.iter().flat_map(|view| &view.seats);
        (seats().count(), seats().filter(|seat| seat.ready).count())
    }

    pub(crate) fn until_ready(&self, ready: usize) {
        until(&format!("{ready} clients ready"), || self.seats().1 == ready);
    }

    /// Payload bytes moved so far, of all seats.
    pub(crate) fn moved(&self) -> u64 {
        let views = self.running().lobby().views();
        views.iter().flat_map(|v| &v.seats).map(|s| s.moved).sum()
    }

    /// An order for one client that keeps its copy in `out(name)`.
    pub(crate) fn order(&self, name: &str) -> FetchConfig {
        let mut order = FetchConfig::new(vec![self.addr]);
        order.out = self.out(name);
        order.name = name.to_owned();
        order.durable = false;
        order
    }

    /// Fetches in a thread of its own.
    pub(crate) fn fetch(
        &self,
        name: &str,
        set: impl FnOnce(&mut FetchConfig),
    ) -> JoinHandle<Vec<ClientReport>> {
        let mut order = self.order(name);
        set(&mut order);
        thread::spawn(move || {
            FetchRun::new(&order)
                .run(&order, &[&tcp::receive::TCP])
                .expect("an order that can be begun")
        })
    }

    /// A client that sends lines one by one, connected.
    pub(crate) fn peer(&self) -> Peer {
        Peer::connect(self.addr)
    }

    /// A client that sends lines one by one, and was offered a seat.
    pub(crate) fn joined(&self, group: u16, name: &str) -> Peer {
        let mut peer = self.peer();
        peer.send(format!("GATECAST/1 JOIN group={group} name={name}\n"));
        let offer = peer.read_line();
        assert!(offer.starts_with("OFFER "), "{offer}");
        peer
    }

    /// A client that sends lines one by one, and waits at the gate.
    pub(crate) fn waiting(&self, group: u16, name: &str) -> Peer {
        let mut peer = self.joined(group, name);
        let ready = || {
            let views = self.running().lobby().views();
            let seats = views.iter().flat_map(|view| &view.seats);
            seats.filter(|seat| seat.ready && seat.name == name).count()
        };
        let before = ready();
        peer.send("READY offset=0\n");
        until("the client's READY", || ready() > before);
        peer
    }

    /// Stops it in the middle of whatever it does. The log is not checked.
    pub(crate) fn kill(&mut self) {
        self.stop_running().expect("a log");
    }

    pub(crate) fn stop_running(&mut self) -> Result<Vec<Record>> {
        self.running.take().expect("running").stop()
    }

    /// Starts it again, at the same address.
    pub(crate) fn revive(&mut self, set: impl FnOnce(&mut ServerConfig)) {
        let mut settings = ServerConfig::default();
        set(&mut settings);
        self.running = Some(self.start(settings, self.addr));
    }

    /// A second server of the same file that logs into the same folder.
    pub(crate) fn beside(&self) -> ServerCore {
        self.start(ServerConfig::default(), ([127, 0, 0, 1], 0).into())
    }

    fn start(&self, settings: ServerConfig, addr: SocketAddr) -> ServerCore {
        let catalog = Catalog::offer([self.folder.path().join("offered")]).expect("readable");
        let host = ServerCoreBuilder::new(catalog, settings).log_to(self.logs());
        tcp::serve(host).expect("TCP").start(addr).expect("a free port")
    }

    /// Stops it, and checks its logs: each can be read back and has one line for each row.
    pub(crate) fn stop(mut self) {
        self.running.take().expect("running").stop().expect("a log");
        let mut rows = 0;
        for path in entries(&self.logs()) {
            let log = fs::read_to_string(&path).expect("text");
            assert!(!log.contains(['\r', '\u{1b}', '\u{9b}']), "{log:?}");
            let records = report::read_log(&path).expect("a log that reads back");
            let transfers = records.iter().map(|r| r.transfers.len()).sum::<usize>();
            assert_eq!(log.lines().count(), transfers + 1, "{log}");
            rows += transfers;
        }
        assert!(rows > 0 || !self.logs().exists());
        self.only_whole_copies();
    }

    /// Asserts that every file in `out` that is no part is a whole copy.
    pub(crate) fn only_whole_copies(&self) {
        for copies in entries(&self.folder.path().join("out")) {
            for path in entries(&copies).into_iter().filter(|p| !is_part(p)) {
                assert_eq!(sha1_of(&path), self.sha1, "{}", path.display());
            }
        }
    }
}

/// A second server beside `server`, of the files `paths`, without a log.
pub(crate) fn offer(paths: &[PathBuf], set: impl FnOnce(&mut ServerConfig)) -> ServerCore {
    let mut settings = ServerConfig::default();
    set(&mut settings);
    let host = ServerCoreBuilder::new(Catalog::offer(paths).expect("there"), settings);
    let host = tcp::serve(host).expect("TCP");
    host.start(([127, 0, 0, 1], 0).into()).expect("a free port")
}

/// TCP, but the thread that sends to one seat panics.
#[derive(Debug)]
struct Panicking<W> {
    inner: W,
    seat: u16,
}

impl Transport for Panicking<TcpTransport> {
    fn via(&self) -> Via {
        self.inner.via()
    }

    fn prepare(&self, plan: &SendPlan) -> Result<Box<dyn SendSession>> {
        let inner = self.inner.prepare(plan)?;
        let seat = self.seat;
        Ok(Box::new(Panicking { inner, seat }))
    }
}

impl SendSession for Panicking<Box<dyn SendSession>> {
    fn prepare_connection(&self, stream: &TcpStream) -> Result<()> {
        self.inner.prepare_connection(stream)
    }

    fn description(&self, stream: &TcpStream) -> String {
        self.inner.description(stream)
    }

    fn send(&self, seat: &SeatConnection, cargo: SendJob<'_>) -> SendResult {
        assert_ne!(seat.id.0, self.seat, "a planted panic");
        self.inner.send(seat, cargo)
    }
}

/// A server in which the thread of one seat panics after the release.
pub(crate) fn server_whose_seat_panics(
    bytes: u64,
    seat: u16,
    set: impl FnOnce(&mut ServerConfig),
) -> Server {
    Server::with(bytes, set, |host| {
        let inner = TcpTransport::new(Via::Tcp, &host.settings).expect("TCP");
        host.transport(Box::new(Panicking { inner, seat }))
    })
}

/// Whether `path` is a copy that is not finished.
pub(crate) fn is_part(path: &Path) -> bool {
    path.extension().is_some_and(|end| end == "part")
}

/// What is in a folder; nothing where there is none.
pub(crate) fn entries(folder: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(folder) else {
        return Vec::new();
    };
    let mut paths: Vec<_> = entries.map(|e| e.expect("readable").path()).collect();
    paths.sort();
    paths
}

/// The sizes of the parts in a folder. One may be published, or removed, while they are looked at.
pub(crate) fn parts(folder: &Path) -> Vec<u64> {
    let parts = entries(folder).into_iter().filter(|path| is_part(path));
    parts.filter_map(|path| Some(fs::metadata(path).ok()?.len())).collect()
}

/// The row of the client `name`.
pub(crate) fn row<'a>(record: &'a Record, name: &str) -> &'a Transfer {
    let mut rows = record.transfers.iter().filter(|row| row.name == name);
    let row = rows.next().unwrap_or_else(|| panic!("no row of {name}"));
    assert!(rows.next().is_none(), "two rows of {name}");
    row
}

/// Asserts how the client `name` ended, and that the log says why.
#[track_caller]
pub(crate) fn ended(record: &Record, name: &str, outcome: Outcome, says: &str) {
    let row = row(record, name);
    let reason = row.reason.as_deref().unwrap_or_default();
    assert_eq!(row.outcome, outcome, "{reason}");
    assert!(reason.contains(says), "'{says}' is not in '{reason}'");
    assert!(!row.is_proven());
}

/// Asserts that a client that ran in a thread holds a whole copy.
#[track_caller]
pub(crate) fn whole(ends: Vec<ClientReport>, server: &Server) {
    for end in ends {
        if let Some(error) = end.error {
            panic!("{error}");
        }
        let path = end.path.expect("a copy");
        assert_eq!(sha1_of(&path), server.sha1);
        assert!(end.transfer.expect("a seat").is_proven());
    }
}

/// The error of a thread's only client.
#[track_caller]
pub(crate) fn failed(ends: Vec<ClientReport>) -> String {
    let [end] = <[ClientReport; 1]>::try_from(ends).expect("one client");
    assert!(end.path.is_none(), "{:?}", end.path);
    end.error.expect("an error").to_string()
}

/// So many bytes of payload a second.
pub(crate) fn bytes_per_second(bytes: u64) -> Option<Rate> {
    Some(Rate(bytes * 8))
}

/// A client that sends what the test wants, right or wrong, and reads line by line.
pub(crate) struct Peer {
    pub(crate) stream: Arc<TcpStream>,
    held: Vec<u8>,
}

impl Peer {
    pub(crate) fn connect(addr: SocketAddr) -> Self {
        Self::over(TcpStream::connect(addr).expect("a server that listens"))
    }

    pub(crate) fn over(stream: TcpStream) -> Self {
        stream.set_nodelay(true).expect("a setting");
        stream.set_read_timeout(Some(PATIENCE)).expect("a setting");
        stream.set_write_timeout(Some(PATIENCE)).expect("a setting");
        Self { stream: Arc::new(stream), held: Vec::new() }
    }

    pub(crate) fn send(&mut self, bytes: impl AsRef<[u8]>) {
        (&*self.stream).write_all(bytes.as_ref()).expect("a server that listens");
    }

    pub(crate) fn send_message(&mut self, message: &FromClient) {
        self.send(message.encode());
    }

    /// The next line; empty when the server closed.
    pub(crate) fn read_line(&mut self) -> String {
        loop {
            if let Some(end) = self.held.iter().position(|&byte| byte == b'\n') {
                let line = self.held.drain(..=end).collect::<Vec<_>>();
                return String::from_utf8(line[..end].to_vec()).expect("text");
            }
            if !self.more() {
                return String::from_utf8(std::mem::take(&mut self.held)).expect("text");
            }
        }
    }

    /// The next line that is no WAIT.
    pub(crate) fn read_past_wait(&mut self) -> String {
        loop {
            let line = self.read_line();
            if !line.starts_with("WAIT ") {
                return line;
            }
        }
    }

    /// The next `bytes` bytes of payload.
    pub(crate) fn read_payload(&mut self, bytes: u64) -> Vec<u8> {
        let bytes = usize::try_from(bytes).expect("small");
        while self.held.len() < bytes {
            assert!(self.more(), "closed after {} of {bytes}", self.held.len());
        }
        self.held.drain(..bytes).collect()
    }

    /// Everything until the server closes.
    pub(crate) fn read_to_close(&mut self) -> Vec<u8> {
        while self.more() {}
        std::mem::take(&mut self.held)
    }

    /// Reads once; false when the server closed, or reset, the connection.
    fn more(&mut self) -> bool {
        let mut bytes = [0; 64 * 1024];
        match (&*self.stream).read(&mut bytes) {
            Ok(len) => {
                self.held.extend_from_slice(&bytes[..len]);
                len > 0
            }
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => false,
            Err(error) => panic!("the server says nothing: {error}"),
        }
    }

    /// Receives the whole payload after GO as an honest client does, up to its LAST.
    pub(crate) fn receive_to_last(&mut self) -> Digest {
        let go = self.read_past_wait();
        let bytes = go.strip_prefix("GO bytes=").expect(&go);
        let bytes: u64 = bytes.parse().expect("a number");
        let first = self.read_payload(bytes.min(1024));
        self.send("HELD\n");
        let rest = self.read_payload(bytes - first.len() as u64);
        self.send_message(&FromClient::Last { bytes });
        Digest::of(&[first, rest].concat())
    }

    /// Ends the connection with RST, as the kernel of a client does that has crashed; with FIN
    /// where feature `sockopt` is missing.
    pub(crate) fn reset(self) {
        #[cfg(feature = "sockopt")]
        socket2::SockRef::from(&*self.stream).set_linger(Some(Duration::ZERO)).expect("a setting");
    }
}

impl fmt::Debug for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Peer({:?})", self.stream.local_addr())
    }
}

/// A receipt for `bytes` bytes with the digest `sha1`.
pub(crate) fn receipt(bytes: u64, sha1: Digest) -> FromClient {
    FromClient::Receipt(Receipt {
        bytes,
        sha1,
        last: Duration::from_millis(5),
        hashed: Duration::from_millis(6),
        durable: None,
        first: None,
        counts: Counts::default(),
        evidence: Evidence::default(),
    })
}
