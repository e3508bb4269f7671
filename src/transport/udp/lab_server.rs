//! The lab's UDP server (wire format: `proto/lab_udp.rs`): bare datagrams for clients that can say
//! nothing of what they got.
//!
//! It sends megabytes to whoever asks, and a UDP address is easily forged, so it is off unless it
//! is asked for, and answers loopback and the addresses that are allowed by name and nobody else.
//! All transfers share one schedule, in bursts that fit an ordinary client's buffer.

use std::{
    collections::{HashMap, HashSet},
    net::{IpAddr, SocketAddr, UdpSocket},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    thread::JoinHandle,
    time::Duration,
};

use crate::{
    error::{Error, Result},
    net::{STACK, clock, copy, pacing::Pacer},
    proto::{lab, lab::udp::LabRequest},
    server::{
        catalog,
        catalog::Source,
        lobby::Lobby,
        session_log::{LogHandle, SessionHeader},
    },
    session::{SeatId, SessionId, Via},
    text::FileName,
    transfer::{Counts, Outcome, Transfer},
    transport::udp::{socket, socket::SendSocket},
    units::{Moment, Rate},
};

/// The lab's UDP server at work; dropping it ends it.
#[derive(Debug)]
pub struct LabServer {
    addr: SocketAddr,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

/// The rate of all transfers together, unless the server has one.
pub const RATE: Rate = Rate(100_000_000);

/// Most transfers at a time.
pub const TRANSFERS_MAX: usize = 256;

/// Most addresses whose configuration is kept; the one that has been silent longest goes.
pub const CONFIGS_MAX: usize = 1024;

/// How far the schedule may lag behind: a burst of so long fits a buffer of 200 kB up to 1 Gbit/s.
const BURST: Duration = Duration::from_millis(1);

/// How often the thread looks whether it is to end.
const POLL_EVERY: Duration = Duration::from_millis(50);

struct TransferConfig {
    file: FileName,
    clients: u16,
    asked_at: Moment,
    /// The test whose transfers are begun now, and how many of them are.
    test: Option<Arc<LabTest>>,
    begun: u16,
}

/// A session of the log. It is closed once nothing is begun in it any more and all that was has
/// ended, which may be long after the client has configured another.
struct LabTest {
    session: SessionId,
    log: LogHandle,
}

impl Drop for LabTest {
    fn drop(&mut self) {
        self.log.close(self.session);
    }
}

struct LabServerLoop {
    socket: UdpSocket,
    lobby: Arc<Lobby>,
    log: LogHandle,
    allowed: Vec<IpAddr>,
    datagram: usize,
    configs: HashMap<IpAddr, TransferConfig>,
    pacer: Arc<Pacer>,
    stop: Arc<AtomicBool>,
    running: Arc<Mutex<HashSet<SocketAddr>>>,
}

impl LabServer {
    /// Serves `lobby`'s files on `addr` to loopback and to `allowed`, in datagrams of `datagram` bytes
    /// at most, and logs with `log`.
    ///
    /// # Errors
    /// The address is taken, or the system refuses a thread.
    pub fn start(
        addr: SocketAddr,
        lobby: &Arc<Lobby>,
        log: LogHandle,
        allowed: Vec<IpAddr>,
        datagram: u16,
    ) -> Result<Self> {
        let failed = || Error::io("listen for datagrams", addr);
        let socket = UdpSocket::bind(addr).map_err(failed())?;
        socket.set_read_timeout(Some(POLL_EVERY)).map_err(failed())?;
        let addr = socket.local_addr().map_err(failed())?;
        let stop = Arc::new(AtomicBool::new(false));
        let rate = lobby.settings.rate.unwrap_or(RATE);
        let lab = LabServerLoop {
            socket,
            lobby: Arc::clone(lobby),
            log,
            allowed,
            datagram: usize::from(datagram),
            configs: HashMap::new(),
            pacer: Arc::new(Pacer::with_burst(rate, BURST)),
            stop: Arc::clone(&stop),
            running: Arc::default(),
        };
        let thread = thread::Builder::new()
            .name("lab-udp".to_owned())
            .spawn(move || lab.run())
            .map_err(Error::io("start the lab's thread", addr))?;
        Ok(Self { addr, stop, thread: Some(thread) })
    }

    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }
}

impl Drop for LabServer {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            log::error!("the lab's thread panicked");
        }
    }
}

impl LabServerLoop {
    fn run(mut self) {
        let mut buffer = [0; lab::udp::REQUEST_MAX + 1];
        while !self.stop.load(Ordering::SeqCst) {
            match socket::recv_from(&self.socket, &mut buffer) {
                Ok((len, from)) => self.handle_datagram(&buffer[..len], from),
                Err(error) if Error::is_timeout(&error) => {}
                Err(error) => log::debug!("the lab's socket: {error}"),
            }
        }
        // Every transfer's thread looks too.
        while !lock(&self.running).is_empty() {
            thread::sleep(POLL_EVERY);
        }
    }

    fn is_allowed(&self, ip: IpAddr) -> bool {
        let ip = ip.to_canonical();
        ip.is_loopback() || self.allowed.contains(&ip)
    }

    fn handle_datagram(&mut self, datagram: &[u8], from: SocketAddr) {
        if !self.is_allowed(from.ip()) {
            return log::info!("{from}: not allowed to use the lab's UDP server");
        }
        let Some(request) = LabRequest::decode(datagram) else {
            return log::debug!("{from}: no request of the lab's");
        };
        match request {
            LabRequest::List => {
                let names = self.lobby.catalog.names().map(FileName::as_str);
                self.answer(&lab::udp::encode_list(names), from);
            }
            LabRequest::BadConfig => self.answer(lab::udp::BAD_CONFIG, from),
            LabRequest::Config { file, clients } => {
                let offered = self.lobby.catalog.names().find(|name| name.as_str() == file);
                match offered.cloned() {
                    Some(file) => {
                        self.configure(from.ip(), file, clients);
                        self.answer(lab::udp::CONFIG_SET, from);
                    }
                    None => self.answer(&lab::udp::no_such_file(&file), from),
                }
            }
            LabRequest::Transfer => self.start_transfer(from),
            LabRequest::Disconnect => {}
        }
    }

    fn answer(&self, text: &str, to: SocketAddr) {
        if let Err(error) = self.socket.send_to(text.as_bytes(), to) {
            log::debug!("{to}: {error}");
        }
    }

    fn configure(&mut self, ip: IpAddr, file: FileName, clients: u16) {
        let config = TransferConfig { file, clients, asked_at: clock::now(), test: None, begun: 0 };
        if self.configs.len() >= CONFIGS_MAX && !self.configs.contains_key(&ip) {
            let oldest = self.configs.iter().min_by_key(|(_, config)| config.asked_at);
            if let Some((&oldest, _)) = oldest {
                self.configs.remove(&oldest);
            }
        }
        self.configs.insert(ip, config);
    }

    /// Starts sending the configured file.
    fn start_transfer(&mut self, to: SocketAddr) {
        let ip = to.ip();
        let Some(config) = self.configs.get_mut(&ip) else {
            return log::info!("{to}: asked for a transfer before it configured one");
        };
        let running = lock(&self.running);
        if running.contains(&to) {
            return log::info!("{to}: asked again for what is being sent to it");
        }
        if running.len() >= TRANSFERS_MAX {
            return log::warn!("{to}: refused, {TRANSFERS_MAX} transfers are running");
        }
        drop(running);
        let source = match self.lobby.catalog.open(&config.file, &catalog::silent) {
            Ok(source) => source,
            Err(error) => return log::warn!("{to}: {error}"),
        };
        // The number of clients says which transfers are one test.
        let current = config.test.take().filter(|_| config.begun < config.clients);
        let test = current.unwrap_or_else(|| {
            let session = SessionId(clock::random());
            let head =
                SessionHeader { via: Via::Raw, file: source.info.clone(), clients: config.clients };
            self.log.open(session, head);
            let sender = "the lab's UDP".to_owned();
            self.log.release(session, clock::wall(), sender);
            config.begun = 0;
            let log = self.log.clone();
            Arc::new(LabTest { session, log })
        });
        config.test = Some(Arc::clone(&test));
        config.begun += 1;
        let sending = LabTransfer {
            test,
            seat: SeatId(config.begun),
            to,
            from: self.socket.local_addr().ok(),
            datagram: self.datagram,
            pacer: Arc::clone(&self.pacer),
            stop: Arc::clone(&self.stop),
            source,
            running: RunningTransfer::new(&self.running, to),
        };
        let socket = match self.socket.try_clone() {
            Ok(socket) => socket,
            Err(error) => return log::warn!("{to}: {error}"),
        };
        let started = thread::Builder::new()
            .name(format!("lab-{to}"))
            .stack_size(STACK)
            .spawn(move || sending.run(&SendSocket::over(socket)));
        if let Err(error) = started {
            log::warn!("{to}: cannot start a thread: {error}");
        }
    }
}

/// Names a transfer's address while it lives: a second one to the same port would be mixed with it.
struct RunningTransfer(Arc<Mutex<HashSet<SocketAddr>>>, SocketAddr);

impl RunningTransfer {
    fn new(running: &Arc<Mutex<HashSet<SocketAddr>>>, to: SocketAddr) -> Self {
        lock(running).insert(to);
        Self(Arc::clone(running), to)
    }
}

impl Drop for RunningTransfer {
    fn drop(&mut self) {
        lock(&self.0).remove(&self.1);
    }
}

fn lock(running: &Mutex<HashSet<SocketAddr>>) -> MutexGuard<'_, HashSet<SocketAddr>> {
    running.lock().unwrap_or_else(PoisonError::into_inner)
}

/// One transfer.
struct LabTransfer {
    test: Arc<LabTest>,
    seat: SeatId,
    to: SocketAddr,
    from: Option<SocketAddr>,
    datagram: usize,
    pacer: Arc<Pacer>,
    stop: Arc<AtomicBool>,
    source: Source,
    running: RunningTransfer,
}

impl LabTransfer {
    fn run(self, outlet: &SendSocket) {
        let begun = clock::now();
        let mut transfer = Transfer::new(self.seat, "lab", Outcome::Complete);
        transfer.client = Some(self.to);
        transfer.server = self.from;
        let mut counts = Counts {
            offered: Some(0),
            local_drop: outlet.reports_refusals().then_some(0),
            ..Counts::default()
        };
        let (sent, ended) = self.send(outlet, &mut counts);
        transfer.counts = counts;
        transfer.bytes_server = Some(sent);
        transfer.seconds_server = Some(clock::now().since(begun));
        if let Err(reason) = ended {
            transfer.fail(Outcome::Cut, reason);
        }
        self.test.log.finish(self.test.session, transfer);
        // The server ends once nothing runs, and its log after that.
        drop(self.test);
        drop(self.running);
    }

    fn send(&self, outlet: &SendSocket, counts: &mut Counts) -> (u64, Result<(), String>) {
        let mut block = vec![0; self.datagram];
        let mut at = 0;
        while at < self.source.info.bytes {
            if self.stop.load(Ordering::SeqCst) {
                return (at, Err("the server is ending".to_owned()));
            }
            let left = usize::try_from(self.source.info.bytes - at).unwrap_or(usize::MAX);
            let want = left.min(block.len());
            let mut len = 0;
            while len < want {
                match copy::read_at(&self.source.file, &mut block[len..want], at + len as u64) {
                    Ok(read) => len += read,
                    Err(_) => return (at, Err(format!("the source ended at byte {at}"))),
                }
            }
            self.pacer.charge(len as u64);
            let refused = outlet.send(&block[..len], block.len(), self.to);
            counts.offered = counts.offered.map(|count| count + 1);
            counts.local_drop = counts.local_drop.map(|count| count + refused);
            at += len as u64;
        }
        (at, Ok(()))
    }
}
