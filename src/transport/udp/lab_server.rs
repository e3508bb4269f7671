//! The lab's UDP server (wire format: [`lab::udp`]): bare datagrams, for
//! clients that cannot say what they received.
//!
//! It sends megabytes to whoever asks, and a UDP address is easily forged. So it runs only if the
//! user asks for it, and answers only loopback and the addresses that the user allows. All transfers
//! share one schedule, in bursts that fit an ordinary client's buffer.

use std::{
    collections::{HashMap, HashSet},
    net::{IpAddr, SocketAddr, UdpSocket},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use crate::{
    error::{Error, Result},
    net::{self, clock, lock, pacing::Pacer},
    proto::{lab, lab::udp::LabRequest},
    server::{
        catalog::{self, Source},
        lobby::Lobby,
        session_log::LogHandle,
    },
    session::{SeatId, SessionId, Via},
    text::{FileName, excerpt},
    transfer::{Counts, Outcome, Record, Transfer},
    transport::{
        read_all,
        udp::socket::{self, SendSocket},
    },
    units::{Moment, Rate},
};

/// The running UDP server of the lab; dropping it ends it.
#[derive(Debug)]
pub struct LabServer {
    /// Where it listens.
    pub addr: SocketAddr,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

/// The rate of all transfers together, unless the server has one.
pub const RATE: Rate = Rate(100_000_000);

/// Most transfers at a time.
pub const TRANSFERS_MAX: usize = 256;

/// Most addresses whose configuration is kept; beyond that the oldest is dropped.
pub const CONFIGS_MAX: usize = 1024;

/// How far the schedule may lag behind: up to 1 Gbit/s such a burst fits a buffer of 200 kB.
const BURST: Duration = Duration::from_millis(1);

/// How often the threads check whether they are to end.
const POLL_EVERY: Duration = Duration::from_millis(50);

/// What an address has configured.
struct TransferConfig {
    file: FileName,
    clients: u16,
    asked_at: Moment,
    /// The test to which new transfers belong, and how many of its transfers have begun.
    test: Option<Arc<LabTest>>,
    begun: u16,
}

/// A session of the log. It is closed once no more transfers can begin in it and all of its have
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
    running: RunningAddrs,
}

/// The addresses to which transfers run.
type RunningAddrs = Arc<Mutex<HashSet<SocketAddr>>>;

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
        let timeout = socket.set_read_timeout(Some(POLL_EVERY));
        timeout.map_err(failed())?;
        let addr = socket.local_addr().map_err(failed())?;
        let stop = Arc::new(AtomicBool::new(false));
        let rate = lobby.settings.rate.unwrap_or(RATE);
        let server_loop = LabServerLoop {
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
        let thread = net::spawn("lab-udp", move || server_loop.run())
            .map_err(Error::io("start the lab's thread", addr))?;
        Ok(Self { addr, stop, thread: Some(thread) })
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
        // The transfers' threads end too.
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
            return log::debug!("{from}: not a request of the lab's protocol");
        };
        log::info!("{from}: {}", excerpt(datagram));
        match request {
            LabRequest::List => {
                let names = self.files().map(FileName::as_str);
                self.answer(&lab::udp::encode_list(names), from);
            }
            LabRequest::BadConfig => self.answer(lab::udp::BAD_CONFIG, from),
            LabRequest::Config { file, clients } => {
                let offered = self.files().find(|name| name.as_str() == file);
                if let Some(file) = offered.cloned() {
                    self.configure(from.ip(), file, clients);
                    self.answer(lab::udp::CONFIG_SET, from);
                } else {
                    self.answer(&lab::udp::no_such_file(&file), from);
                }
            }
            LabRequest::Transfer => {
                if let Err(why) = self.start_transfer(from) {
                    log::warn!("{from}: no transfer: {why}");
                }
            }
            LabRequest::Disconnect => {}
        }
    }

    fn answer(&self, text: &str, to: SocketAddr) {
        if let Err(error) = self.socket.send_to(text.as_bytes(), to) {
            log::debug!("{to}: {error}");
        }
    }

    fn configure(&mut self, ip: IpAddr, file: FileName, clients: u16) {
        if self.configs.len() >= CONFIGS_MAX && !self.configs.contains_key(&ip) {
            let configs = self.configs.iter();
            let oldest = configs.min_by_key(|(_, config)| config.asked_at);
            if let Some((&oldest, _)) = oldest {
                self.configs.remove(&oldest);
            }
        }
        let config = TransferConfig { file, clients, asked_at: clock::now(), test: None, begun: 0 };
        self.configs.insert(ip, config);
    }

    /// What is offered, without folders: the lab's clients take files only.
    fn files(&self) -> impl Iterator<Item = &FileName> {
        let catalog = &self.lobby.catalog;
        catalog.names().filter(|name| !catalog.is_tree(name))
    }

    /// Starts to send the configured file.
    fn start_transfer(&mut self, to: SocketAddr) -> Result<()> {
        let refused = |reason: String| Error::refused("the lab's UDP server", reason);
        let Some(config) = self.configs.get_mut(&to.ip()) else {
            return Err(refused("the client has configured no file".to_owned()));
        };
        let running = lock(&self.running);
        if running.contains(&to) {
            return Err(refused("a transfer to this address runs".to_owned()));
        }
        if running.len() >= TRANSFERS_MAX {
            return Err(refused(format!("{TRANSFERS_MAX} transfers run")));
        }
        drop(running);
        let source = self.lobby.catalog.open(&config.file, &catalog::silent)?;
        // The number of clients tells which transfers are one test.
        let current = config.test.take().filter(|_| config.begun < config.clients);
        let test = current.unwrap_or_else(|| {
            let session = SessionId(clock::random());
            let (file, clients) = (source.info.clone(), config.clients);
            self.log.open(Record::new(session, Via::Raw, file, clients));
            let sender = "the lab's UDP".to_owned();
            self.log.release(session, clock::wall(), sender);
            config.begun = 0;
            let log = self.log.clone();
            Arc::new(LabTest { session, log })
        });
        config.test = Some(Arc::clone(&test));
        config.begun += 1;
        let transfer = LabTransfer {
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
        let failed = || Error::io("start the transfer", to);
        let socket = self.socket.try_clone().map_err(failed())?;
        net::spawn(format!("lab-{to}"), move || {
            transfer.run(&SendSocket::over(socket));
        })
        .map_err(failed())?;
        Ok(())
    }
}

/// Marks a transfer's address as in use while it lives: a second transfer to the same port would be
/// mixed with it.
struct RunningTransfer(RunningAddrs, SocketAddr);

impl RunningTransfer {
    fn new(running: &RunningAddrs, to: SocketAddr) -> Self {
        lock(running).insert(to);
        Self(Arc::clone(running), to)
    }
}

impl Drop for RunningTransfer {
    fn drop(&mut self) {
        lock(&self.0).remove(&self.1);
    }
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
    fn run(self, socket: &SendSocket) {
        let begun = clock::now();
        let mut transfer = Transfer::new(self.seat, "lab", Outcome::Complete);
        transfer.client = Some(self.to);
        transfer.server = self.from;
        transfer.counts = Counts {
            offered: Some(0),
            local_drop: socket.reports_refusals.then_some(0),
            ..Counts::default()
        };
        let mut at = 0;
        if let Err(reason) = self.send(socket, &mut at, &mut transfer.counts) {
            transfer.fail(Outcome::Cut, reason);
        }
        transfer.bytes_server = Some(at);
        transfer.seconds_server = Some(clock::now().since(begun));
        self.test.log.finish(self.test.session, transfer);
        // The server ends once nothing runs, and its log after that.
        drop(self.test);
        drop(self.running);
    }

    /// Sends the file from byte `at` on; fails with the reason as one clause.
    fn send(&self, socket: &SendSocket, at: &mut u64, counts: &mut Counts) -> Result<(), String> {
        let mut block = vec![0; self.datagram];
        while *at < self.source.info.bytes {
            let left = usize::try_from(self.source.info.bytes - *at).unwrap_or(usize::MAX);
            let len = left.min(block.len());
            read_all(&self.source.file, &mut block[..len], *at)
                .map_err(|_| format!("the source ended at byte {at}"))?;
            if !self.pacer.charge_unless(len as u64, &self.stop) {
                return Err("the server is ending".to_owned());
            }
            let refused = socket.send(&block[..len], block.len(), self.to);
            counts.offered = counts.offered.map(|count| count + 1);
            counts.local_drop = counts.local_drop.map(|count| count + refused);
            *at += len as u64;
        }
        Ok(())
    }
}
