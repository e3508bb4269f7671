//! The ways: ours, and the loops that it could have been.

use std::{
    net::{Ipv4Addr, SocketAddr, TcpStream, UdpSocket},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    thread::JoinHandle,
    time::Duration,
};

use gatecast::internals::{
    net::datagrams::{BatchSocket, DatagramBatch},
    relay::{GATHER, Relay},
};

use crate::{
    ends,
    ends::{LOCAL, Stopped},
};

/// How long a loop waits before it looks whether it is over.
const PATIENCE: Duration = Duration::from_millis(100);

/// Ways of relaying.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Way {
    Naive,
    Batches,
    Threads,
    Relay,
    /// Ours, that waits for others to send with for so many microseconds.
    Gather(u64),
    OneStopped,
}

impl Way {
    pub(crate) fn name(self) -> String {
        let name = match self {
            Self::Naive => "naive",
            Self::Batches => "batches",
            Self::Threads => "threads",
            Self::Relay => "relay",
            Self::Gather(us) => return format!("relay {} ms", us as f64 / 1e3),
            Self::OneStopped => "relay, 1 stopped",
        };
        name.to_owned()
    }
}

/// Something that relays.
pub(crate) enum Relaying {
    Ours(Box<Relay>, Vec<TcpStream>, Option<Stopped>),
    Loops(Arc<Loops>, Vec<JoinHandle<()>>),
}

/// A loop at work, and what it is told.
pub(crate) struct Loops {
    input: BatchSocket,
    viewers: Vec<SocketAddr>,
    going: AtomicBool,
}

impl Relaying {
    /// Relays to `ports` of this host, and, where the way says so, to one more that is stopped.
    pub(crate) fn start(way: Way, ports: &[u16]) -> Self {
        let gather = match way {
            Way::Relay | Way::OneStopped => GATHER,
            Way::Gather(us) => Duration::from_micros(us),
            Way::Naive | Way::Batches | Way::Threads => return Self::loops(way, ports),
        };
        let relay = Relay::builder().input(LOCAL).listen(LOCAL).gather(gather);
        let relay = relay.start().expect("free ports");
        let at = relay.local_addr();
        let stopped = (way == Way::OneStopped).then(|| Stopped::at(at));
        let controls = ports.iter().map(|&port| ends::connect(at, port)).collect();
        Self::Ours(Box::new(relay), controls, stopped)
    }

    fn loops(way: Way, ports: &[u16]) -> Self {
        // With the queue that ours has.
        let input = BatchSocket::bind(LOCAL, None).expect("a free port");
        let patience = input.socket().set_read_timeout(Some(PATIENCE));
        patience.expect("a socket");
        let viewers =
            ports.iter().map(|&port| SocketAddr::from((Ipv4Addr::LOCALHOST, port))).collect();
        let loops = Arc::new(Loops { input, viewers, going: AtomicBool::new(true) });
        let thread = |name: &str, body: Box<dyn FnOnce() + Send>| {
            let named = thread::Builder::new().name(name.to_owned());
            named.spawn(body).expect("a thread")
        };
        let reading = Arc::clone(&loops);
        let mut threads = Vec::new();
        if way == Way::Naive {
            threads.push(thread("loop", Box::new(move || reading.naive())));
        } else if way == Way::Batches {
            threads.push(thread("loop", Box::new(move || reading.batches())));
        } else {
            let mut queues = Vec::new();
            for &viewer in &loops.viewers {
                let (give, take) = crossbeam_channel::bounded::<Arc<[u8]>>(512);
                queues.push(give);
                threads.push(thread(
                    "loop",
                    Box::new(move || {
                        let socket = UdpSocket::bind(LOCAL).expect("a free port");
                        for datagram in take {
                            let _ = socket.send_to(&datagram, viewer);
                        }
                    }),
                ));
            }
            threads.push(thread("loop", Box::new(move || reading.threads(&queues))));
        }
        Self::Loops(loops, threads)
    }

    pub(crate) fn input(&self) -> SocketAddr {
        match self {
            Self::Ours(relay, ..) => relay.input(),
            Self::Loops(loops, _) => loops.input.local_addr(),
        }
    }

    /// What the relaying threads have used, by the scheduler's count.
    pub(crate) fn cpu(&self) -> Option<Duration> {
        let name = match self {
            Self::Ours(..) => "relay-source\n",
            Self::Loops(..) => "loop\n",
        };
        let mut sum = Duration::ZERO;
        for task in std::fs::read_dir("/proc/self/task").ok()?.flatten() {
            let comm = std::fs::read_to_string(task.path().join("comm")).unwrap_or_default();
            if comm == name {
                let stat = std::fs::read_to_string(task.path().join("schedstat")).ok()?;
                let ns = stat.split_whitespace().next()?.parse().ok()?;
                sum += Duration::from_nanos(ns);
            }
        }
        Some(sum)
    }

    pub(crate) fn stop(self) {
        match self {
            Self::Ours(relay, controls, stopped) => {
                drop((controls, stopped));
                relay.stop().expect("no log to fail");
            }
            Self::Loops(loops, threads) => {
                loops.going.store(false, Ordering::Relaxed);
                for thread in threads {
                    thread.join().expect("it ends");
                }
            }
        }
    }
}

impl Loops {
    fn naive(&self) {
        let socket = UdpSocket::bind(LOCAL).expect("a free port");
        let mut bytes = vec![0; 65_536];
        while self.going.load(Ordering::Relaxed) {
            let Ok((len, _)) = self.input.socket().recv_from(&mut bytes) else {
                continue;
            };
            for viewer in &self.viewers {
                let _ = socket.send_to(&bytes[..len], viewer);
            }
        }
    }

    fn batches(&self) {
        let outboxes: Vec<UdpSocket> = self
            .viewers
            .iter()
            .map(|&viewer| {
                let socket = UdpSocket::bind(LOCAL).expect("a free port");
                socket.connect(viewer).expect("an address");
                socket
            })
            .collect();
        let mut batch = DatagramBatch::new(128);
        while self.going.load(Ordering::Relaxed) {
            batch.clear();
            if self.input.receive(&mut batch, PATIENCE).unwrap_or(0) == 0 {
                continue;
            }
            for outbox in &outboxes {
                for datagram in batch.iter() {
                    let _ = outbox.send(datagram.bytes);
                }
            }
        }
    }

    fn threads(&self, queues: &[crossbeam_channel::Sender<Arc<[u8]>>]) {
        let mut bytes = vec![0; 65_536];
        while self.going.load(Ordering::Relaxed) {
            let Ok((len, _)) = self.input.socket().recv_from(&mut bytes) else {
                continue;
            };
            let datagram: Arc<[u8]> = Arc::from(&bytes[..len]);
            for queue in queues {
                let _ = queue.try_send(Arc::clone(&datagram));
            }
        }
    }
}
