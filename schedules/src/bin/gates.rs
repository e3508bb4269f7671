//! Live gates of 25 clients over loopback, with kills at random moments: `gates COUNT SEED [AT ONCE]`.
//! docs/schedules.md tells more.
//!
//! Each gate has a server of its own, and clients that speak the native protocol by hand. What is judged
//! is what the clients saw and what the log says.

use std::{
    env,
    io::{Read, Write},
    net::{Shutdown, SocketAddr, TcpStream},
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
    process::ExitCode,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use gatecast::internals::{
    digest::Digest,
    error::Result,
    server::{
        builder::ServerCoreBuilder,
        catalog::Catalog,
        config::ServerConfig,
        gate::SeatConnection,
        transport::{SendJob, SendPlan, SendResult, SendSession, Transport},
    },
    session::Via,
    transfer::{Outcome, Record},
    transport::tcp::send::TcpTransport,
};

const SEATS: u16 = 25;

/// More than a first block.
const FILE: &[u8] = &[7; 2000];

/// A silent client is given up after this and two seconds more.
const STALL: Duration = Duration::from_secs(3);

/// What takes longer is stuck.
const STUCK: Duration = Duration::from_secs(60);

/// SplitMix64, so that a seed can be run again.
#[derive(Clone)]
struct Random(u64);

impl Random {
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % end
    }

    fn ms(&mut self, end: u64) -> Duration {
        Duration::from_micros(self.below(end * 1000))
    }
}

/// When a client dies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Moment {
    Never,
    /// So long after it connected, wherever it is.
    After(Duration),
    BeforeReady,
    AfterReady,
    AtGo,
    InPayload,
    BeforeReceipt,
}

/// How it dies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum How {
    Closes,
    Resets,
    /// It stays, says nothing and reads nothing.
    Silent,
    /// The server's thread that sends to it panics.
    ServerThread,
}

/// What one client saw of one connection.
#[derive(Debug)]
struct Saw {
    /// Its own: the system gives a port that was reset to another client.
    name: String,
    fate: (Moment, How),
    has_seat: bool,
    ready_at: Option<Instant>,
    go_at: Option<Instant>,
    is_complete: bool,
    /// The payload was not the file.
    is_wrong: bool,
}

static COUNTS: [AtomicU64; 9] = [const { AtomicU64::new(0) }; 9];
const NAMES: [&str; 9] = [
    "gates that opened full",
    "by hand",
    "at the deadline",
    "that did not open",
    "stopped meanwhile",
    "seats admitted",
    "copies complete",
    "seats lost before the release",
    "kills",
];

fn main() -> ExitCode {
    let number = |at: usize| env::args().nth(at).and_then(|arg| arg.parse::<u64>().ok());
    let (Some(count), Some(seed)) = (number(1), number(2)) else {
        eprintln!("usage: gates COUNT SEED [AT ONCE]");
        return ExitCode::from(2);
    };
    let at_once = number(3).unwrap_or(16);
    std::panic::set_hook(Box::new(|panic| {
        if panic.payload().downcast_ref::<&str>() != Some(&DIES) {
            eprintln!("{panic}");
        }
    }));
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("f");
    std::fs::write(&file, FILE).expect("room");
    let (next, done, begun) = (AtomicU64::new(0), AtomicU64::new(0), Instant::now());
    let failed = Mutex::new(Vec::new());
    let report = |done: u64| {
        let minutes = begun.elapsed().as_secs_f64() / 60.0;
        println!("{done} gates in {minutes:.1} min, {:.0} a minute", done as f64 / minutes);
    };
    thread::scope(|scope| {
        for _ in 0..at_once {
            scope.spawn(|| {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= count {
                        return;
                    }
                    let gate = AssertUnwindSafe(|| gate(seed.wrapping_add(number), &file));
                    if let Err(why) =
                        catch_unwind(gate).unwrap_or_else(|_| Err("panicked".to_owned()))
                    {
                        println!("FAILED: gates 1 {}: {why}", seed.wrapping_add(number));
                        failed.lock().expect("no panic").push(why);
                    }
                    let done = done.fetch_add(1, Ordering::Relaxed) + 1;
                    if done.is_multiple_of(500) {
                        report(done);
                    }
                }
            });
        }
    });
    report(count);
    for (count, name) in COUNTS.iter().zip(NAMES) {
        println!("{:>9} {name}", count.load(Ordering::Relaxed));
    }
    let failed = failed.into_inner().expect("no panic");
    let of = |word: &str| failed.iter().filter(|why| why.starts_with(word)).count();
    let (early, stuck) = (of("early"), of("stuck"));
    let other = failed.len() - early - stuck;
    println!(
        "{count} gates of {SEATS}, seed {seed}: {early} early, {stuck} stuck, {other} otherwise wrong"
    );
    ExitCode::from(u8::from(!failed.is_empty()))
}

fn add(counter: usize, count: usize) {
    COUNTS[counter].fetch_add(count as u64, Ordering::Relaxed);
}

/// One gate, from its first client to the end of its server.
fn gate(seed: u64, file: &Path) -> std::result::Result<(), String> {
    let mut random = Random(seed);
    let max_wait = Duration::from_millis(300) + random.ms(1200);
    let quorum = 1 + random.below(SEATS.into()) as u16;
    let hand = (random.below(4) == 0).then(|| random.ms(800));
    let stop = (random.below(20) == 0).then(|| random.ms(800));
    let settings = ServerConfig {
        clients: Some(SEATS),
        quorum: Some(quorum),
        max_wait,
        stall: STALL,
        one_off: true,
        ..ServerConfig::default()
    };
    let catalog = Catalog::offer([file]).expect("there");
    let way = Watched(TcpTransport::new(Via::Tcp, &settings).expect("plain"));
    let host = ServerCoreBuilder::new(catalog, settings).transport(Box::new(way));
    let begun = Instant::now();
    let server = host.start(([127, 0, 0, 1], 0).into()).expect("a free port");
    let (addr, records, lobby) = (server.addr(), server.records(), Arc::clone(server.lobby()));

    // In half of the gates others come for those that die, so that the gate can open full.
    let victims = random.below(8);
    let more = if random.below(2) == 0 { victims } else { 0 };
    let over = Arc::new(AtomicBool::new(false));
    let clients: Vec<_> = (0..u64::from(SEATS) + more)
        .map(|number| {
            let mut random = Random(seed ^ (number + 1) << 40);
            let fate =
                if number < victims { fate(&mut random) } else { (Moment::Never, How::Closes) };
            let (pause, over) = (random.ms(100), Arc::clone(&over));
            thread::spawn(move || {
                thread::sleep(pause);
                attend(addr, fate, &over, begun + max_wait)
            })
        })
        .collect();
    add(8, usize::try_from(victims).expect("few"));

    let mut hand_at = None;
    let mut acts: Vec<_> = [(hand, false), (stop, true)]
        .into_iter()
        .filter_map(|(after, stops)| Some((after?, stops)))
        .collect();
    acts.sort_unstable();
    let mut stopped = false;
    for (after, stops) in acts {
        thread::sleep((begun + after).saturating_duration_since(Instant::now()));
        if stops {
            stopped = true;
            lobby.stop();
        } else if !stopped {
            hand_at = Some(Instant::now());
            lobby.release_now();
        }
    }
    let deadline = begun + max_wait + STUCK;
    let record = loop {
        match records.recv_timeout(Duration::from_millis(200)) {
            Ok(record) => break Some(record),
            // Nobody had a seat, and nobody will have one.
            Err(_)
                if lobby.is_idle()
                    && (stopped || clients.iter().all(thread::JoinHandle::is_finished)) =>
            {
                break records.try_recv().ok();
            }
            Err(_) if Instant::now() > deadline => {
                return Err(format!("stuck: the session does not end: {:?}", lobby.views()));
            }
            Err(_) => {}
        }
    };
    over.store(true, Ordering::SeqCst);
    let deadline = Instant::now() + STUCK;
    while !clients.iter().all(thread::JoinHandle::is_finished) {
        if Instant::now() > deadline {
            return Err("stuck: a client waits for a session that has ended".to_owned());
        }
        thread::sleep(Duration::from_millis(1));
    }
    let saw: Vec<Saw> =
        clients.into_iter().flat_map(|client| client.join().expect("no panic")).collect();
    drop(lobby);
    let begins_to_stop = Instant::now();
    let mut more = server.stop().expect("no log to fail");
    // All may be over a moment before the logger hands the record on.
    let record = record.or_else(|| more.pop());
    if begins_to_stop.elapsed() > STUCK / 2 {
        return Err("stuck: the server does not end".to_owned());
    }
    if !more.is_empty() {
        return Err(format!("a second session: {more:?}"));
    }
    add(4, usize::from(stopped));
    let Some(record) = record else {
        add(3, 1);
        return Ok(());
    };
    judge(&record, &saw, Allowed { quorum, opens: begun + max_wait, hand_at, stopped })
        .map_err(|why| format!("{why}: quorum {quorum}, {record:?}, {saw:?}"))
}

struct Allowed {
    quorum: u16,
    opens: Instant,
    hand_at: Option<Instant>,
    stopped: bool,
}

/// Nobody early, exactly the admitted, and everybody else told.
fn judge(record: &Record, saw: &[Saw], allowed: Allowed) -> std::result::Result<(), String> {
    let broken = record.broken_identities();
    if !broken.is_empty() {
        return Err(format!("sums: {broken:?}"));
    }
    let is_admitted = |row: &&gatecast::internals::transfer::Transfer| {
        row.woke.is_some()
            || row.reason.as_deref().is_some_and(|why| why.starts_with("internal error"))
    };
    let mut rows: Vec<&str> = record.transfers.iter().map(|row| row.name.as_str()).collect();
    let count = rows.len();
    rows.sort_unstable();
    rows.dedup();
    if rows.len() != count {
        return Err("two rows for one client".to_owned());
    }
    if let Some(client) =
        saw.iter().find(|client| client.has_seat && !rows.contains(&client.name.as_str()))
    {
        return Err(format!("no row for {client:?}"));
    }
    let admitted: Vec<_> = record.transfers.iter().filter(is_admitted).collect();
    add(5, admitted.len());
    add(7, count - admitted.len());
    let complete =
        |row: &&gatecast::internals::transfer::Transfer| row.outcome == Outcome::Complete;
    add(6, record.transfers.iter().filter(complete).count());
    if record.released_at.is_some() == admitted.is_empty() {
        return Err("released, and nobody admitted, or the reverse".to_owned());
    }
    let names: Vec<&str> = admitted.iter().map(|row| row.name.as_str()).collect();
    let first = saw.iter().filter_map(|client| client.go_at).min();
    for client in saw {
        let is_admitted = names.contains(&client.name.as_str());
        if client.is_wrong {
            return Err(format!("wrong bytes: {client:?}"));
        }
        if client.go_at.is_some() && !is_admitted {
            return Err(format!("early: GO for a client that was not admitted: {client:?}"));
        }
        if is_admitted && client.ready_at.is_none_or(|ready| first.is_some_and(|go| go < ready)) {
            return Err(format!("early: GO before READY of {client:?}"));
        }
        let is_honest = client.fate.0 == Moment::Never;
        if is_admitted && is_honest && !client.is_complete && !allowed.stopped {
            return Err(format!("an honest client without its copy: {client:?}"));
        }
    }
    if let Some(row) =
        record.transfers.iter().find(|row| complete(row) && !names.contains(&row.name.as_str()))
    {
        return Err(format!("complete without a release: {row:?}"));
    }
    let Some(first) = first else {
        add(3, usize::from(admitted.is_empty()));
        return Ok(());
    };
    let is_over = first >= allowed.opens && admitted.len() >= usize::from(allowed.quorum);
    let by_hand = allowed.hand_at.is_some_and(|hand| first >= hand);
    let kind = match admitted.len() == usize::from(SEATS) {
        true => 0,
        false if is_over => 2,
        false if by_hand => 1,
        false => return Err(format!("early: {} seats released by nobody", admitted.len())),
    };
    add(kind, 1);
    Ok(())
}

fn fate(random: &mut Random) -> (Moment, How) {
    let moment = match random.below(8) {
        0..=2 => Moment::After(random.ms(300)),
        3 => Moment::BeforeReady,
        4 => Moment::AfterReady,
        5 => Moment::AtGo,
        6 => Moment::InPayload,
        _ => Moment::BeforeReceipt,
    };
    let how = match random.below(10) {
        0..=3 => How::Closes,
        4..=6 => How::Resets,
        7..=8 => How::Silent,
        _ => How::ServerThread,
    };
    (moment, how)
}

/// A client that comes, and comes again where all seats are taken; what it saw each time.
fn attend(addr: SocketAddr, fate: (Moment, How), over: &AtomicBool, until: Instant) -> Vec<Saw> {
    let mut all = Vec::new();
    loop {
        let Ok(stream) = TcpStream::connect(addr) else {
            return all;
        };
        let saw = talk(&stream, fate, over);
        let again = !saw.has_seat && saw.fate.0 == Moment::Never && Instant::now() < until;
        all.push(saw);
        if !again || over.load(Ordering::SeqCst) {
            return all;
        }
        drop(stream);
        thread::sleep(Duration::from_millis(20));
    }
}

/// What a client reads.
struct Lines<'a> {
    stream: &'a TcpStream,
    read: Vec<u8>,
    dies_at: Option<Instant>,
}

impl Lines<'_> {
    /// More bytes; false at the end, and at the client's own.
    fn more(&mut self) -> bool {
        let left = self.dies_at.map(|at| at.saturating_duration_since(Instant::now()));
        if left.is_some_and(|left| left.is_zero()) || self.stream.set_read_timeout(left).is_err() {
            return false;
        }
        let mut bytes = [0; 4096];
        match self.stream.read(&mut bytes) {
            Ok(len) if len > 0 => {
                self.read.extend(&bytes[..len]);
                true
            }
            _ => false,
        }
    }

    fn line(&mut self) -> Option<String> {
        loop {
            if let Some(end) = self.read.iter().position(|&byte| byte == b'\n') {
                let line: Vec<u8> = self.read.drain(..=end).take(end).collect();
                return String::from_utf8(line).ok();
            }
            if !self.more() {
                return None;
            }
        }
    }

    fn payload(&mut self, bytes: usize) -> Option<Vec<u8>> {
        while self.read.len() < bytes {
            if !self.more() {
                return None;
            }
        }
        Some(self.read.drain(..bytes).collect())
    }
}

fn talk(stream: &TcpStream, fate: (Moment, How), over: &AtomicBool) -> Saw {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let kind = if fate.1 == How::ServerThread { DIES } else { "client" };
    let name = format!("{kind}-{}", NEXT.fetch_add(1, Ordering::Relaxed));
    let mut saw = Saw {
        name,
        fate,
        has_seat: false,
        ready_at: None,
        go_at: None,
        is_complete: false,
        is_wrong: false,
    };
    let (moment, how) = fate;
    let dies_at = match moment {
        Moment::After(after) => Some(Instant::now() + after),
        _ => None,
    };
    let mut lines = Lines { stream, read: Vec::new(), dies_at };
    let dies = converse(&mut lines, moment, &mut saw).is_none() && moment != Moment::Never;
    if dies {
        match how {
            How::Closes | How::ServerThread => {}
            How::Resets => {
                let _ = socket2::SockRef::from(stream).set_linger(Some(Duration::ZERO));
            }
            How::Silent => {
                while !over.load(Ordering::SeqCst) {
                    thread::sleep(Duration::from_millis(5));
                }
            }
        }
    }
    saw
}

/// Talks until the summary; `None` where the connection or the client ends before.
fn converse(lines: &mut Lines<'_>, moment: Moment, saw: &mut Saw) -> Option<()> {
    let mut stream = lines.stream;
    let join = format!("GATECAST/1 JOIN group={SEATS} name={}\n", saw.name);
    stream.write_all(join.as_bytes()).ok()?;
    let sha1 = Digest::of(FILE);
    loop {
        let line = lines.line()?;
        match line.split(' ').next()? {
            "OFFER" => {
                saw.has_seat = true;
                if moment == Moment::BeforeReady {
                    return None;
                }
                saw.ready_at = Some(Instant::now());
                stream.write_all(b"READY offset=0\n").ok()?;
                if moment == Moment::AfterReady {
                    return None;
                }
            }
            "GO" => {
                saw.go_at = Some(Instant::now());
                if moment == Moment::AtGo {
                    return None;
                }
                let mut payload = lines.payload(1024)?;
                if moment == Moment::InPayload {
                    return None;
                }
                stream.write_all(b"HELD\n").ok()?;
                payload.extend(lines.payload(FILE.len() - 1024)?);
                saw.is_wrong = payload != FILE;
                if moment == Moment::BeforeReceipt {
                    return None;
                }
                let bytes = FILE.len();
                let last = format!(
                    "LAST bytes={bytes}\nHASHED sha1={sha1}\nRECEIPT bytes={bytes} sha1={sha1} last_us=1 \
                     hashed_us=1\n"
                );
                stream.write_all(last.as_bytes()).ok()?;
            }
            "SUMMARY" => {
                saw.is_complete = line.contains("outcome=complete");
                let _ = stream.shutdown(Shutdown::Write);
                return Some(());
            }
            "WAIT" => {}
            _ => return None,
        }
    }
}

/// The panic of a thread that is to die, and the name of its client.
const DIES: &str = "this-thread-dies";

/// TCP, but the threads that send to some clients panic.
#[derive(Debug)]
struct Watched(TcpTransport);

#[derive(Debug)]
struct WatchedSession(Box<dyn SendSession>);

impl Transport for Watched {
    fn via(&self) -> Via {
        Via::Tcp
    }

    fn prepare(&self, plan: &SendPlan) -> Result<Box<dyn SendSession>> {
        Ok(Box::new(WatchedSession(self.0.prepare(plan)?)))
    }
}

impl SendSession for WatchedSession {
    fn prepare_connection(&self, stream: &TcpStream) -> Result<()> {
        self.0.prepare_connection(stream)
    }

    fn description(&self, stream: &TcpStream) -> String {
        self.0.description(stream)
    }

    fn send(&self, seat: &SeatConnection, job: SendJob<'_>) -> SendResult {
        if seat.transfer().name.starts_with(DIES) {
            std::panic::panic_any(DIES);
        }
        self.0.send(seat, job)
    }
}
