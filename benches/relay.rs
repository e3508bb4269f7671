//! One stream of 1316-byte datagrams to many viewers: the relay against the loops that it could
//! have been, alternated in one run.
//!
//! ```text
//! cargo bench --bench relay                  both tables
//! cargo bench --bench relay -- figures       loads that a relay must carry
//! cargo bench --bench relay -- limits        the highest rate without loss
//! cargo bench --bench relay --no-default-features      the relay on plain std
//! ```
//!
//! Source, relay and viewers share this machine. CPU is that of the relaying thread alone (all
//! threads, where there is one per viewer), by the scheduler's own count. The delay is from just
//! before the source's send to the arrival in the viewer's socket, by the kernel's stamp, so it is
//! measured alike for every way, and none of them measures itself.
//!
//! - `naive`: receive, then send to each from one socket; what system 5 does
//! - `threads`: a reader, and a queue and a thread per viewer; what system 5 hoped for
//! - `relay`: ours
//! - `relay 0`: ours, without waiting for others to send with
//! - `relay, one deaf`: ours, with one more viewer that never reads

use std::net::Ipv4Addr;
use std::net::SocketAddr;
use std::net::TcpStream;
use std::net::UdpSocket;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;
use std::thread;
use std::thread::JoinHandle;
use std::time::Duration;

use gatecast::proto::histogram::Histogram;
use gatecast::relay::GATHER;
use gatecast::relay::Relay;
use gatecast::relay::Settings;
use gatecast::runtime::clock;
use gatecast::runtime::datagrams::Batch;
use gatecast::runtime::datagrams::Inbox;
use gatecast::units::Moment;

const SIZE: usize = 1316;
const LOCAL: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

/// Ways of relaying.
#[derive(Clone, Copy, PartialEq)]
enum Way {
    Naive,
    Threads,
    Relay,
    RelayAtOnce,
    OneDeaf,
}

impl Way {
    fn name(self) -> &'static str {
        match self {
            Self::Naive => "naive",
            Self::Threads => "threads",
            Self::Relay => "relay",
            Self::RelayAtOnce => "relay 0",
            Self::OneDeaf => "relay, one deaf",
        }
    }
}

/// What one run was like.
struct Outcome {
    offered: u64,
    wanted: u64,
    received: u64,
    cpu: Option<Duration>,
    took: Duration,
    delay: Histogram,
    worst_us: u64,
}

impl Outcome {
    fn lost(&self) -> u64 {
        self.wanted.saturating_sub(self.received)
    }
}

fn main() {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let has = |word: &str| words.iter().any(|given| given == word);
    if !has("--bench") {
        // `cargo test --benches`: that it runs at all.
        let outcome = measure(Way::Relay, 2, 500, Duration::from_millis(200));
        assert_eq!(outcome.lost(), 0, "a relay at rest loses nothing");
        return;
    }
    let kind = if Relay::batched() {
        "batched"
    } else {
        "plain std"
    };
    println!(
        "relay of {SIZE}-byte datagrams, {kind} sends, {} cores",
        cores()
    );
    if !has("limits") {
        figures();
    }
    if !has("figures") {
        limits();
    }
}

fn cores() -> usize {
    thread::available_parallelism().map_or(1, usize::from)
}

/// The loads of the goals, each way in turn, three times.
fn figures() {
    const RUN: Duration = Duration::from_secs(3);
    let loads = [
        (25, 5_700, "60 Mbit/s"),
        (25, 19_000, "200 Mbit/s"),
        (25, 40_000, "421 Mbit/s"),
        (100, 760, "8 Mbit/s"),
    ];
    println!(
        "\n{:<17}{:>8}{:>12}{:>10}{:>9}{:>9}{:>9}{:>9}{:>9}",
        "way", "viewers", "rate", "lost", "cpu %", "us/dgram", "p50 us", "p99 us", "worst us"
    );
    // A number among the words takes only the loads of so many viewers.
    let only = std::env::args().find_map(|word| word.parse::<usize>().ok());
    for (viewers, rate, name) in loads {
        if only.is_some_and(|only| only != viewers) {
            continue;
        }
        let mut ways = vec![Way::Naive, Way::Relay, Way::RelayAtOnce];
        match rate {
            5_700 => ways.push(Way::Threads),
            19_000 => ways.push(Way::OneDeaf),
            _ => {}
        }
        for _ in 0..3 {
            for &way in &ways {
                let run = measure(way, viewers, rate, RUN);
                let cpu = run.cpu.map(|cpu| cpu.as_secs_f64());
                let show = |value: Option<f64>| {
                    value.map_or_else(|| "-".to_owned(), |v| format!("{v:.2}"))
                };
                let per_mille = |n| {
                    run.delay
                        .per_mille(n)
                        .map_or_else(|| "-".to_owned(), |us| us.to_string())
                };
                println!(
                    "{:<17}{viewers:>8}{name:>12}{:>10}{:>9}{:>9}{:>9}{:>9}{:>9}",
                    way.name(),
                    run.lost(),
                    show(cpu.map(|cpu| 100.0 * cpu / run.took.as_secs_f64())),
                    show(cpu.map(|cpu| 1e6 * cpu / run.wanted as f64)),
                    per_mille(500),
                    per_mille(990),
                    run.worst_us,
                );
            }
        }
    }
}

/// The highest rate at which nothing is lost, of two attempts at each step.
fn limits() {
    const RUN: Duration = Duration::from_secs(2);
    const STEPS: [u64; 12] = [
        2_500, 5_000, 10_000, 15_000, 20_000, 25_000, 30_000, 40_000, 50_000, 60_000, 80_000,
        100_000,
    ];
    println!(
        "\n{:<17}{:>8}{:>14}{:>14}{:>10}{:>18}",
        "way", "viewers", "datagrams/s", "to viewers/s", "us/dgram", "then lost"
    );
    for viewers in [1, 5, 25, 100] {
        // Each way's best rate so far, and what ended it.
        let mut best = [Way::Naive, Way::Relay].map(|way| (way, None, None::<String>));
        for rate in STEPS {
            for (way, best, over) in &mut best {
                if over.is_some() {
                    continue;
                }
                let mut run = measure(*way, viewers, rate, RUN);
                if run.lost() > 0 {
                    run = measure(*way, viewers, rate, RUN);
                }
                // A source that cannot keep its rate measures itself.
                let kept = run.offered as f64 >= 0.98 * rate as f64 * RUN.as_secs_f64();
                match (run.lost(), kept) {
                    (0, true) => *best = Some((rate, run)),
                    (0, false) => *over = Some("the source ends".to_owned()),
                    (lost, _) => {
                        let share = 100.0 * lost as f64 / run.wanted as f64;
                        *over = Some(format!("{share:.1} % at {rate}"));
                    }
                }
            }
        }
        for (way, best, over) in best {
            let (rate, cost) = best.map_or((0, None), |(rate, run)| {
                (
                    rate,
                    run.cpu
                        .map(|cpu| 1e6 * cpu.as_secs_f64() / run.wanted as f64),
                )
            });
            println!(
                "{:<17}{viewers:>8}{rate:>14}{:>14}{:>10}{:>18}",
                way.name(),
                rate * viewers as u64,
                cost.map_or_else(|| "-".to_owned(), |us| format!("{us:.2}")),
                over.unwrap_or_else(|| "-".to_owned()),
            );
        }
    }
}

/// Sends `rate` datagrams a second through `way` to `viewers` viewers.
fn measure(way: Way, viewers: usize, rate: u64, run: Duration) -> Outcome {
    let inboxes: Vec<Inbox> = (0..viewers)
        .map(|_| Inbox::bind(LOCAL, None).expect("a free port"))
        .collect();
    let ports: Vec<u16> = inboxes.iter().map(|inbox| inbox.addr().port()).collect();
    let deaf = UdpSocket::bind(LOCAL).expect("a free port");
    let deaf = (way == Way::OneDeaf).then_some(deaf);
    let relaying = Relaying::start(way, &ports, deaf.as_ref());
    let going = Arc::new(AtomicBool::new(true));
    let received = Arc::new(AtomicU64::new(0));
    let sinks = {
        let (going, received) = (Arc::clone(&going), Arc::clone(&received));
        thread::spawn(move || sink(&inboxes, &going, &received))
    };
    let cpu_before = relaying.cpu();
    let begun = clock::now();
    let offered = source(relaying.input(), rate, run);
    let took = clock::now().since(begun);
    let wanted = offered * viewers as u64;
    // What is still in a queue comes within the second, or never.
    let deadline = clock::now().after(Duration::from_secs(1));
    while received.load(Ordering::Relaxed) < wanted && clock::now() < deadline {
        thread::sleep(Duration::from_millis(5));
    }
    let cpu = relaying
        .cpu()
        .zip(cpu_before)
        .map(|(after, before)| after.saturating_sub(before));
    going.store(false, Ordering::Relaxed);
    let (delay, worst_us) = sinks.join().expect("the sinks count");
    relaying.stop();
    Outcome {
        offered,
        wanted,
        received: received.load(Ordering::Relaxed),
        cpu,
        took,
        delay,
        worst_us,
    }
}

/// Sends datagrams on an absolute schedule, each with the moment before its send.
fn source(to: SocketAddr, rate: u64, run: Duration) -> u64 {
    let socket = UdpSocket::bind(LOCAL).expect("a free port");
    socket.connect(to).expect("an address");
    let mut datagram: Vec<u8> = (0..7)
        .flat_map(|_| {
            let mut packet = [0xFF; 188];
            packet[..4].copy_from_slice(&[0x47, 0x1F, 0xFF, 0x10]);
            packet
        })
        .collect();
    assert_eq!(datagram.len(), SIZE);
    let begun = clock::now();
    let mut sent = 0;
    loop {
        let now = clock::now();
        let since = now.since(begun).min(run);
        let due = rate * u64::try_from(since.as_micros()).expect("seconds") / 1_000_000;
        while sent < due {
            datagram[8..16].copy_from_slice(&clock::now().0.to_be_bytes());
            if socket.send(&datagram).is_ok() {
                sent += 1;
            }
        }
        if since == run {
            return sent;
        }
        thread::sleep(Duration::from_micros(500));
    }
}

/// Takes what comes to all viewers; the delays.
fn sink(inboxes: &[Inbox], going: &AtomicBool, received: &AtomicU64) -> (Histogram, u64) {
    let mut batch = Batch::new(64);
    let (mut delay, mut worst) = (Histogram::default(), 0);
    while going.load(Ordering::Relaxed) {
        let mut some = false;
        for inbox in inboxes {
            batch.clear();
            if inbox.collect(&mut batch).unwrap_or(0) == 0 {
                continue;
            }
            some = true;
            for datagram in batch.iter() {
                let stamp = datagram.bytes[8..16].try_into().expect("eight");
                let sent = Moment(u64::from_be_bytes(stamp));
                let us = u64::try_from(datagram.at.since(sent).as_micros()).unwrap_or(u64::MAX);
                delay.add(us);
                worst = worst.max(us);
            }
            received.fetch_add(batch.len() as u64, Ordering::Relaxed);
        }
        if !some {
            thread::sleep(Duration::from_micros(500));
        }
    }
    (delay, worst)
}

/// Something that relays.
enum Relaying {
    Ours(Relay, Vec<TcpStream>),
    Loops(Arc<Loops>, Vec<JoinHandle<()>>),
}

struct Loops {
    input: UdpSocket,
    viewers: Vec<SocketAddr>,
    going: AtomicBool,
}

impl Relaying {
    fn start(way: Way, ports: &[u16], deaf: Option<&UdpSocket>) -> Self {
        let gather = match way {
            Way::Relay | Way::OneDeaf => GATHER,
            Way::RelayAtOnce => Duration::ZERO,
            Way::Naive | Way::Threads => return Self::loops(way, ports),
        };
        let settings = Settings {
            gather,
            ..Settings::new(LOCAL)
        };
        let relay = Relay::start(&settings, LOCAL).expect("free ports");
        let deaf = deaf.map(|socket| socket.local_addr().expect("bound").port());
        let controls = ports
            .iter()
            .copied()
            .chain(deaf)
            .map(|port| {
                use std::io::Read;
                use std::io::Write;
                let mut control = TcpStream::connect(relay.addr()).expect("listening");
                writeln!(control, "CONECTAR {port}").expect("connected");
                let mut answer = [0; 3];
                control.read_exact(&mut answer).expect("an answer");
                assert_eq!(&answer, b"OK\n");
                control
            })
            .collect();
        Self::Ours(relay, controls)
    }

    fn loops(way: Way, ports: &[u16]) -> Self {
        // With the queue that ours has.
        let input = Inbox::bind(LOCAL, None).expect("a free port");
        let input = input.socket().try_clone().expect("a socket");
        let patience = Some(Duration::from_millis(100));
        input.set_read_timeout(patience).expect("a socket");
        let viewers = ports
            .iter()
            .map(|&port| SocketAddr::from((Ipv4Addr::LOCALHOST, port)))
            .collect();
        let loops = Arc::new(Loops {
            input,
            viewers,
            going: AtomicBool::new(true),
        });
        let thread = |name: &str, body: Box<dyn FnOnce() + Send>| {
            let named = thread::Builder::new().name(name.to_owned());
            named.spawn(body).expect("a thread")
        };
        let reading = Arc::clone(&loops);
        let mut threads = Vec::new();
        if way == Way::Naive {
            threads.push(thread("loop", Box::new(move || reading.naive())));
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

    fn input(&self) -> SocketAddr {
        match self {
            Self::Ours(relay, _) => relay.input(),
            Self::Loops(loops, _) => loops.input.local_addr().expect("bound"),
        }
    }

    /// What the relaying threads have used, by the scheduler's count.
    fn cpu(&self) -> Option<Duration> {
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

    fn stop(self) {
        match self {
            Self::Ours(relay, controls) => {
                drop(controls);
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
            let Ok((len, _)) = self.input.recv_from(&mut bytes) else {
                continue;
            };
            for viewer in &self.viewers {
                let _ = socket.send_to(&bytes[..len], viewer);
            }
        }
    }

    fn threads(&self, queues: &[crossbeam_channel::Sender<Arc<[u8]>>]) {
        let mut bytes = vec![0; 65_536];
        while self.going.load(Ordering::Relaxed) {
            let Ok((len, _)) = self.input.recv_from(&mut bytes) else {
                continue;
            };
            let datagram: Arc<[u8]> = Arc::from(&bytes[..len]);
            for queue in queues {
                let _ = queue.try_send(Arc::clone(&datagram));
            }
        }
    }
}
