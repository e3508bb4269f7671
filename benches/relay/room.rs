//! A relay as a process of its own, beside everything that watches it: a whole class in every way,
//! two hundred players beside nginx, what recording costs, and how soon a late player has a picture.

use std::{
    fs,
    fs::File,
    io::{self, BufRead, BufReader, Read, Write},
    net::{Ipv4Addr, SocketAddr, TcpStream},
    path::Path,
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    thread,
    time::{Duration, Instant},
};

use gatecast::internals::{
    net::{
        clock, datagrams,
        datagrams::{BatchSocket, DatagramBatch},
    },
    proto::histogram::Histogram,
    relay::{GATHER, Relay},
    server::transport::GroupRoute,
    units::Moment,
};

use crate::{
    ends::{self, LOCAL, SIZE},
    ground,
};

/// The word by which this program is a relay in a process of its own.
pub(crate) const RELAY: &str = "be-a-relay";

/// How long a stream runs before it is measured: who watches over HTTP waits 5 s for a key frame, and
/// this stream has none.
const WARM: Duration = Duration::from_secs(6);

/// How long it is measured.
const RUN: Duration = Duration::from_secs(10);

/// Datagrams a second of 60 and of 8 Mbit/s.
const CLASS_RATE: u64 = 5_700;
const CROWD_RATE: u64 = 760;

/// The source sends what is due so often.
const EVERY: Duration = Duration::from_micros(500);

const CLOCK_TICK: f64 = 0.01;

/// A relay, or nginx; killed when dropped.
struct Served {
    child: Child,
    input: SocketAddr,
    at: SocketAddr,
}

impl Served {
    /// A relay with a group, or with a recording into a folder.
    fn relay(group: Option<SocketAddr>, record: Option<&Path>, gather: Duration) -> Self {
        let own = std::env::current_exe().expect("this program");
        let group = group.map_or_else(|| "-".to_owned(), |group| group.to_string());
        let record = record.unwrap_or_else(|| Path::new("-"));
        let mut child = Command::new(own)
            .args([RELAY, &group])
            .arg(record)
            .arg(gather.as_micros().to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("this program again");
        let mut line = String::new();
        let out = child.stdout.take().expect("piped");
        BufReader::new(out).read_line(&mut line).expect("its word");
        let (input, at) = line.trim().split_once(' ').expect("two addresses");
        let addr = |text: &str| text.parse().expect("an address");
        Self { child, input: addr(input), at: addr(at) }
    }

    /// Seconds of processor time of the process and of its children so far, by the system's ticks.
    fn cpu(&self) -> f64 {
        let own = self.child.id();
        let children = fs::read_to_string(format!("/proc/{own}/task/{own}/children"));
        let children = children.unwrap_or_default();
        let processes = children.split_whitespace().filter_map(|id| id.parse().ok());
        let ticks = |process: u32| {
            let stat = fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
            let fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace();
            fields.skip(11).take(2).filter_map(|ticks| ticks.parse::<f64>().ok()).sum::<f64>()
        };
        std::iter::once(own).chain(processes).map(ticks).sum::<f64>() * CLOCK_TICK
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        // nginx ends its workers only when it is asked to end.
        let asked = Command::new("kill").arg(self.child.id().to_string()).status();
        if !asked.is_ok_and(|status| status.success()) {
            let _ = self.child.kill();
        }
        let _ = self.child.wait();
    }
}

/// What that process does, until its standard input ends.
pub(crate) fn be_a_relay(words: &[String]) {
    let group = words[0].parse().ok().map(|group| GroupRoute {
        group,
        interface: Some(Ipv4Addr::LOCALHOST),
        ttl: 1,
    });
    let record = (words[1] != "-").then(|| words[1].clone().into());
    let gather = Duration::from_micros(words[2].parse().expect("microseconds"));
    let relay = Relay::builder().input(LOCAL).listen(LOCAL).group(group).gather(gather);
    let relay = relay.record(record, Duration::from_secs(60)).start().expect("free ports");
    println!("{} {}", relay.input(), relay.local_addr());
    let _ = io::stdin().read(&mut [0]);
    relay.stop().expect("no log to fail");
}

/// What viewers of one kind have seen while it counted.
#[derive(Default)]
struct Seen {
    datagrams: u64,
    lost: u64,
    delay: Histogram,
    worst_us: u64,
}

impl Seen {
    /// A datagram that a viewer had at `now`; its number and time are at `offset`.
    fn count(&mut self, bytes: &[u8], now: Moment, last: &mut Option<u64>, counts: bool) {
        let number = |from: usize| {
            let eight = bytes[from..from + 8].try_into();
            u64::from_be_bytes(eight.expect("eight"))
        };
        let (sent, number) = (Moment(number(8)), number(16));
        let missing = last.replace(number).map_or(0, |last| number.saturating_sub(last + 1));
        if counts {
            let us = u64::try_from(now.since(sent).as_micros()).unwrap_or(u64::MAX);
            self.datagrams += 1;
            self.lost += missing;
            self.delay.add(us);
            self.worst_us = self.worst_us.max(us);
        }
    }

    fn ms(&self, per_mille: u64) -> String {
        let ms = self.delay.per_mille(per_mille).map(|us| us as f64 / 1e3);
        ground::shown(ms, 2)
    }
}

/// Reads what comes to `inboxes`; `header` bytes are before the stream.
fn watch_datagrams(inboxes: &[BatchSocket], header: usize, phase: &Phase) -> (Seen, u64) {
    let (mut seen, mut batch) = (Seen::default(), DatagramBatch::new(64));
    let mut last = vec![None; inboxes.len()];
    while !phase.is_over() {
        let mut some = false;
        for (inbox, last) in inboxes.iter().zip(&mut last) {
            batch.clear();
            some |= inbox.collect(&mut batch).unwrap_or(0) > 0;
            for datagram in batch.iter() {
                seen.count(&datagram.bytes[header..], datagram.at, last, phase.counts());
            }
        }
        if !some {
            thread::sleep(EVERY);
        }
    }
    let unread = inboxes.iter().filter_map(|inbox| datagrams::drops(inbox.socket())).sum();
    (seen, unread)
}

/// A player: a connection that has asked for the stream.
fn player(at: SocketAddr) -> TcpStream {
    let mut stream = TcpStream::connect(at).expect("listening");
    stream.write_all(b"GET /live.ts HTTP/1.1\r\nHost: relay\r\n\r\n").expect("connected");
    stream
}

/// Reads what `players` are sent.
fn watch_streams(players: Vec<TcpStream>, phase: &Phase) -> Seen {
    let mut seen = Seen::default();
    // What each has read of a datagram, without the head of its answer, and its last number.
    let mut all: Vec<(TcpStream, Vec<u8>, bool, Option<u64>)> = Vec::new();
    for stream in players {
        stream.set_nonblocking(true).expect("a socket");
        all.push((stream, Vec::new(), false, None));
    }
    let nap = EVERY.max(Duration::from_micros(20) * u32::try_from(all.len()).expect("few"));
    let mut bytes = vec![0; 256 << 10];
    while !phase.is_over() {
        for (stream, rest, begun, last) in &mut all {
            let Ok(len) = stream.read(&mut bytes) else { continue };
            assert!(len > 0, "it is let go");
            let now = clock::now();
            rest.extend(&bytes[..len]);
            if !*begun {
                let Some(end) = rest.windows(4).position(|four| four == b"\r\n\r\n") else {
                    continue;
                };
                assert!(rest.starts_with(b"HTTP/1.1 200 "), "{}", rest[..end].escape_ascii());
                rest.drain(..end + 4);
                *begun = true;
            }
            let whole = rest.len() / SIZE * SIZE;
            for datagram in rest[..whole].chunks_exact(SIZE) {
                seen.count(datagram, now, last, phase.counts());
            }
            rest.drain(..whole);
        }
        thread::sleep(nap);
    }
    seen
}

/// Whether it is counted yet, and whether it is over.
#[derive(Default)]
struct Phase {
    counting: AtomicBool,
    over: AtomicBool,
}

impl Phase {
    fn counts(&self) -> bool {
        self.counting.load(Ordering::Relaxed)
    }

    fn is_over(&self) -> bool {
        self.over.load(Ordering::Relaxed)
    }

    /// Lets the stream warm up, and counts for a while. Returns what `cpu` used of a core, percent.
    fn pass(&self, cpu: impl Fn() -> f64) -> f64 {
        thread::sleep(WARM);
        let (before, begun) = (cpu(), Instant::now());
        self.counting.store(true, Ordering::Relaxed);
        thread::sleep(RUN);
        self.counting.store(false, Ordering::Relaxed);
        let used = 100.0 * (cpu() - before) / begun.elapsed().as_secs_f64();
        self.over.store(true, Ordering::Relaxed);
        used
    }
}

const STREAM: Duration = Duration::from_secs(WARM.as_secs() + RUN.as_secs());

/// A class: 25 by their own ports, 25 players, and the group, at 60 Mbit/s.
pub(crate) fn class() {
    println!(
        "\n25 viewers over UDP, 25 over HTTP and a group, 60 Mbit/s, {} s each",
        RUN.as_secs()
    );
    println!("{:<30}{:>8}", "", "cpu, %");
    let port = 20_000 + u16::try_from(std::process::id() % 20_000).expect("small");
    let group = SocketAddr::from(([239, 255, 60, 25], port));
    for round in 0..ground::runs(3) {
        let longer = ground::option("--gather-us").and_then(|text| text.parse().ok());
        let longer = Duration::from_micros(longer.unwrap_or(600));
        let longer_name = format!("all play, --gather {}us", longer.as_micros());
        for (name, stopped, gather) in [
            ("all play", false, GATHER),
            ("one player stopped", true, GATHER),
            (&*longer_name, false, longer),
        ] {
            let relay = Served::relay(Some(group), None, gather);
            let member = [BatchSocket::bind(group, Some(Ipv4Addr::LOCALHOST)).expect("multicast")];
            let inboxes = (0..25).map(|_| BatchSocket::bind(LOCAL, None).expect("a free port"));
            let inboxes: Vec<BatchSocket> = inboxes.collect();
            let ports = inboxes.iter().map(|inbox| inbox.local_addr().port());
            let _controls: Vec<TcpStream> =
                ports.map(|port| ends::connect(relay.at, port)).collect();
            let players = (0..if stopped { 24 } else { 25 }).map(|_| player(relay.at)).collect();
            // Of one that is stopped the system takes what it has room for, and nobody reads it.
            let _stopped = stopped.then(|| player(relay.at));
            let phase = Phase::default();
            let (cpu, own, group, by_url) = thread::scope(|scope| {
                let own = scope.spawn(|| watch_datagrams(&inboxes, 0, &phase));
                let group = scope.spawn(|| watch_datagrams(&member, 12, &phase));
                let by_url = scope.spawn(|| watch_streams(players, &phase));
                scope.spawn(|| ends::source(relay.input, (CLASS_RATE, EVERY), STREAM + EVERY));
                let cpu = phase.pass(|| relay.cpu());
                let join = |it: thread::ScopedJoinHandle<'_, (Seen, u64)>| it.join().expect("seen");
                (cpu, join(own), join(group), by_url.join().expect("seen"))
            });
            println!("{:<30}{cpu:>8.1}", format!("{round}: {name}"));
            for (what, seen, unread) in
                [("UDP", own.0, own.1), ("group", group.0, group.1), ("HTTP", by_url, 0)]
            {
                println!(
                    "    {what:<8}{:>9} datagrams{:>6} lost ({unread} unread)   p50 {} ms, p99 {} ms, \
                     worst {:.1} ms",
                    seen.datagrams,
                    seen.lost,
                    seen.ms(500),
                    seen.ms(990),
                    seen.worst_us as f64 / 1e3
                );
            }
        }
    }
}

/// What recording costs beside 25 viewers, at 60 Mbit/s.
pub(crate) fn recording() {
    println!("\n25 viewers over UDP, 60 Mbit/s, {} s each", RUN.as_secs());
    let scratch = ground::scratch("relay");
    for round in 0..ground::runs(3) {
        for record in [None, Some(scratch.path())] {
            let relay = Served::relay(None, record, GATHER);
            let inboxes = (0..25).map(|_| BatchSocket::bind(LOCAL, None).expect("a free port"));
            let inboxes: Vec<BatchSocket> = inboxes.collect();
            let ports = inboxes.iter().map(|inbox| inbox.local_addr().port());
            let _controls: Vec<TcpStream> =
                ports.map(|port| ends::connect(relay.at, port)).collect();
            let phase = Phase::default();
            let (cpu, (seen, unread)) = thread::scope(|scope| {
                let own = scope.spawn(|| watch_datagrams(&inboxes, 0, &phase));
                scope.spawn(|| ends::source(relay.input, (CLASS_RATE, EVERY), STREAM + EVERY));
                let cpu = phase.pass(|| relay.cpu());
                (cpu, own.join().expect("seen"))
            });
            println!(
                "{round}: {:<20}cpu {cpu:>5.1} %   {} lost ({unread} unread), p99 {} ms",
                if record.is_some() { "recording" } else { "not recording" },
                seen.lost,
                seen.ms(990)
            );
        }
    }
}

/// nginx that serves `folder`, in which a file grows.
fn nginx(folder: &Path) -> Option<Served> {
    let free = std::net::TcpListener::bind(LOCAL).ok()?.local_addr().ok()?;
    let path = folder.display();
    let user = if ground::said("id", &["-u"]) == "0" { "user root;" } else { "" };
    let text = format!(
        "{user}worker_processes 1; daemon off; pid {path}/pid; error_log {path}/error;\n\
         events {{ worker_connections 1024; }}\n\
         http {{ access_log off; sendfile on; tcp_nopush on; keepalive_requests 1000000;\n\
         client_body_temp_path {path}/a; proxy_temp_path {path}/b; fastcgi_temp_path {path}/c;\n\
         uwsgi_temp_path {path}/d; scgi_temp_path {path}/e;\n\
         server {{ listen {free}; root {path}; }} }}\n"
    );
    fs::write(folder.join("nginx.conf"), text).ok()?;
    let search = std::env::var("PATH").unwrap_or_default() + ":/usr/sbin:/sbin";
    let mut command = Command::new("nginx");
    command.env("PATH", search).arg("-p").arg(folder).arg("-c").arg(folder.join("nginx.conf"));
    let child = command.stderr(Stdio::null()).spawn().ok()?;
    let served = Served { child, input: LOCAL, at: free };
    let deadline = Instant::now() + Duration::from_secs(5);
    while TcpStream::connect(free).is_err() {
        if Instant::now() > deadline {
            return None;
        }
        thread::sleep(Duration::from_millis(10));
    }
    Some(served)
}

/// Asks for what `file` has grown by since `had`. Returns how many bytes came.
fn ask_more(stream: &mut BufReader<TcpStream>, had: u64) -> io::Result<u64> {
    let request = format!("GET /live.ts HTTP/1.1\r\nHost: h\r\nRange: bytes={had}-\r\n\r\n");
    stream.get_mut().write_all(request.as_bytes())?;
    let (mut len, mut status, mut line) = (0, String::new(), String::new());
    loop {
        line.clear();
        stream.read_line(&mut line)?;
        if line.trim().is_empty() {
            break;
        }
        if let Some(text) = line.strip_prefix("Content-Length: ") {
            len = text.trim().parse().map_err(io::Error::other)?;
        }
        if status.is_empty() {
            status.clone_from(&line);
        }
    }
    io::copy(&mut stream.take(len), &mut io::sink())?;
    Ok(if status.contains(" 206 ") { len } else { 0 })
}

/// 200 players at 8 Mbit/s: ours, and nginx with a file that grows, of which each asks for what is new.
pub(crate) fn crowd() {
    const PLAYERS: usize = 200;
    println!("\n{PLAYERS} players over HTTP, 8 Mbit/s, {} s each", RUN.as_secs());
    for round in 0..ground::runs(3) {
        let relay = Served::relay(None, None, GATHER);
        let players: Vec<TcpStream> = (0..PLAYERS).map(|_| player(relay.at)).collect();
        let phase = Phase::default();
        let (cpu, seen) = thread::scope(|scope| {
            let by_url = scope.spawn(|| watch_streams(players, &phase));
            scope.spawn(|| ends::source(relay.input, (CROWD_RATE, EVERY), STREAM + EVERY));
            let cpu = phase.pass(|| relay.cpu());
            (cpu, by_url.join().expect("seen"))
        });
        println!(
            "{round}: {:<26}cpu {cpu:>6.1} %, {:.3} % a player   {} lost, p50 {} ms, p99 {} ms",
            "relay",
            cpu / PLAYERS as f64,
            seen.lost,
            seen.ms(500),
            seen.ms(990)
        );
        drop(relay);
        for poll in [100, 1000].map(Duration::from_millis) {
            let scratch = ground::scratch("crowd");
            let file = File::create(scratch.path().join("live.ts")).expect("room");
            let Some(nginx) = nginx(scratch.path()) else {
                println!("nginx: skipped, it is not installed or does not start");
                continue;
            };
            let phase = Phase::default();
            let got = AtomicU64::new(0);
            let cpu = thread::scope(|scope| {
                scope.spawn(|| grow(&file, &phase));
                scope.spawn(|| follow(nginx.at, PLAYERS, poll, (&phase, &got)));
                phase.pass(|| nginx.cpu())
            });
            let rate = got.load(Ordering::Relaxed) as f64 * 8.0 / 1e6 / RUN.as_secs_f64();
            println!(
                "{round}: {:<26}cpu {cpu:>6.1} %, {:.3} % a player   {:.2} Mbit/s each",
                format!("nginx, asked each {} ms", poll.as_millis()),
                cpu / PLAYERS as f64,
                rate / PLAYERS as f64
            );
        }
    }
}

/// Lets `file` grow by 8 Mbit/s, each 10 ms a part.
fn grow(mut file: &File, phase: &Phase) {
    let (begun, mut written) = (Instant::now(), 0);
    while !phase.is_over() {
        let due = begun.elapsed().as_micros() as u64;
        let part = vec![0; usize::try_from(due - written).expect("little")];
        file.write_all(&part).expect("room");
        written = due;
        thread::sleep(Duration::from_millis(10));
    }
}

/// So many players of a file that grows: each asks for what is new every `poll`, in turn.
fn follow(at: SocketAddr, players: usize, poll: Duration, (phase, got): (&Phase, &AtomicU64)) {
    let mut all: Vec<(BufReader<TcpStream>, u64)> = (0..players)
        .map(|_| (BufReader::new(TcpStream::connect(at).expect("listening")), 0))
        .collect();
    let share = poll / u32::try_from(players).expect("few");
    let mut due = Instant::now();
    while !phase.is_over() {
        for (stream, had) in &mut all {
            due += share;
            thread::sleep(due.saturating_duration_since(Instant::now()));
            let more = ask_more(stream, *had).expect("an answer");
            *had += more;
            if phase.counts() {
                got.fetch_add(more, Ordering::Relaxed);
            }
        }
    }
}

/// How soon a player that opens the URL at a random moment has its first picture, and of which kind it
/// is, where the source sends a whole one each 2 s.
pub(crate) fn joins() {
    const JOINS: u64 = 20;
    let relay = Served::relay(None, None, GATHER);
    println!("\n{JOINS} joins at random moments, a whole picture each 2 s");
    let source = Command::new("ffmpeg")
        .args(["-v", "error", "-re", "-f", "lavfi", "-i", "testsrc2=size=1280x720:rate=25"])
        .args(["-c:v", "mpeg2video", "-g", "50", "-sc_threshold", "1000000000", "-b:v", "8M"])
        .args(["-f", "mpegts", &format!("udp://{}?pkt_size=1316", relay.input)])
        .stdin(Stdio::null())
        .spawn();
    let Ok(source) = source else {
        return println!("skipped: there is no ffmpeg");
    };
    let _source = Served { child: source, input: LOCAL, at: LOCAL };
    // One that always watches, so that the relay knows the tables.
    let mut early = player(relay.at);
    let early = thread::spawn(move || io::copy(&mut early, &mut io::sink()));
    thread::sleep(Duration::from_secs(4));
    let (mut came, mut shown) = (Vec::new(), Vec::new());
    for join in 0..JOINS {
        // A moment of the 2 s, in an order that is not the source's.
        let mut order: Vec<u64> = (0..100).collect();
        ground::Dice::of(join + 1).shuffle(&mut order);
        thread::sleep(Duration::from_millis(20 * order[0]));
        let begun = Instant::now();
        // It writes each picture as it shows it. ffmpeg and ffprobe begin a whole picture later.
        let child = Command::new("mpv")
            .args(["--really-quiet", "--no-config", "--no-audio", "--profile=low-latency"])
            .args(["--o=-", "--of=rawvideo", "--ovc=rawvideo"])
            .arg(format!("http://{}/live.ts", relay.at))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn();
        // Beside it, when all of the first picture is there: the next one begins.
        let first = thread::spawn({
            let mut stream = BufReader::new(player(relay.at));
            move || {
                let (mut head, mut packet, mut pictures) = (String::new(), [0; 188], 0);
                while head != "\r\n" {
                    head.clear();
                    stream.read_line(&mut head).expect("a head");
                }
                while pictures < 2 {
                    stream.read_exact(&mut packet).expect("the stream");
                    let begins = packet[1..3] == [0x41, 0];
                    // Its random access indicator: a whole picture.
                    assert!(!begins || pictures > 0 || packet[5] & 0x40 != 0, "no whole one");
                    pictures += u32::from(begins);
                }
                begun.elapsed()
            }
        });
        if let Ok(mut child) = child {
            let mut out = child.stdout.take().expect("piped");
            out.read_exact(&mut [0; 1]).expect("a picture");
            shown.push(begun.elapsed().as_secs_f64());
            let _ = child.kill();
            let _ = child.wait();
        }
        came.push(first.join().expect("the stream").as_secs_f64());
    }
    println!("whole picture came, s   {}", ground::spread(&came, 2));
    if shown.is_empty() {
        println!("mpv is not installed: when a player shows it is not known");
    } else {
        println!("mpv shows it, s         {}", ground::spread(&shown, 2));
    }
    println!("whole picture first     {} of {JOINS}", came.len());
    drop(relay);
    let _ = early.join();
}
