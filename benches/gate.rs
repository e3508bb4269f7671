//! How far apart the seats of one release begin, with the fair start and with the bare barrier.
//!
//! Server and clients are the library's own, in processes of their own, on loopback: 5000 clients in
//! two. The two starts alternate, so that both meet the same machine. The server says each session's
//! figures, and the system its peak memory. `cargo bench --bench gate [-- --runs K] [25] [1000] [5000]`.

mod ground;

use std::{
    fs, io,
    io::{BufRead, BufReader, Lines, Read},
    net::SocketAddr,
    path::Path,
    process::{Child, ChildStdout, Command, Stdio},
    thread,
    time::Duration,
};

use gatecast::internals::{
    client::{FetchConfig, FetchRun},
    server::{builder::ServerCoreBuilder, catalog::Catalog, config::ServerConfig, sample},
    transport::tcp,
};

/// One kind of start.
struct Start {
    word: &'static str,
    server: Server,
    releases: Vec<Release>,
}

/// The figures of one release.
struct Release {
    wake_ms: f64,
    server_ms: f64,
    client_ms: f64,
    seconds: f64,
    verified: f64,
    whole: usize,
}

/// A server process.
struct Server {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
    addr: SocketAddr,
}

/// The words that make this program the server, and a process of clients.
const SERVE: &str = "serve-one-file";
const FETCH: &str = "fetch-it";

/// Most clients of one process.
const CLIENTS_MAX: u16 = 2500;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let [word, file, clients, fair] = &arguments[..]
        && word == SERVE
    {
        return serve(Path::new(file), clients, fair == "fair");
    }
    if let [word, addr, clients, out] = &arguments[..]
        && word == FETCH
    {
        let clients = clients.parse().expect("a number of clients");
        return fetch(addr.parse().expect("an address"), clients, Path::new(out));
    }
    if !ground::is_bench() {
        return measure(5, 1_000_000, 1);
    }
    ground::stamp();
    let runs = ground::runs(20);
    let half = runs.div_ceil(2);
    for (clients, bytes, runs) in
        [(25, 100_000_000, runs), (1000, 1_000_000, half), (5000, 100_000, half)]
    {
        if ground::chosen(&clients.to_string()) {
            measure(clients, bytes, runs);
        }
    }
}

/// Releases `clients` again and again with both starts, and prints what came of it.
fn measure(clients: u16, bytes: u64, runs: usize) {
    let work = ground::scratch("gate");
    let file = work.path().join("sample.bin");
    sample::make(&file, bytes).expect("room for the sample");
    ground::touch(work.path(), bytes * u64::from(clients));
    let mut starts = ["fair", "bare"].map(|word| Start {
        word,
        server: Server::spawn(&file, clients, word),
        releases: Vec::new(),
    });
    let mut dice = ground::Dice::new();
    for _ in 0..runs {
        let mut turn = [0, 1];
        dice.shuffle(&mut turn);
        for which in turn {
            let start = &mut starts[which];
            start.releases.push(release(&mut start.server, clients, work.path()));
        }
    }
    println!("\n{clients} clients x {bytes} bytes, {runs} releases each, load {}", ground::load());
    println!(
        "start  {:>24}  {:>24}  {:>24} {:>7}  {:>22}  {:>22}  {:>10}",
        "wake ms", "server ms", "client ms", "p99", "last byte s", "verified s", "peak MiB"
    );
    for start in &starts {
        let column = |of: fn(&Release) -> f64| start.releases.iter().map(of).collect::<Vec<_>>();
        println!(
            "{:<5}  {:>24}  {:>24}  {:>24} {:>7}  {:>22}  {:>22}  {:>10}",
            start.word,
            ground::spread(&column(|r| r.wake_ms), 2),
            ground::spread(&column(|r| r.server_ms), 2),
            ground::spread(&column(|r| r.client_ms), 2),
            ground::shown(ground::quantile(&column(|r| r.client_ms), 0.99), 2),
            ground::spread(&column(|r| r.seconds), 3),
            ground::spread(&column(|r| r.verified), 3),
            ground::shown(start.server.peak_mib(), 1),
        );
        let whole: usize = start.releases.iter().map(|r| r.whole).sum();
        let wanted = start.releases.len() * usize::from(clients);
        assert_eq!(whole, wanted, "every copy is whole and verified");
    }
    let seconds = |start: &Start| {
        ground::median(&start.releases.iter().map(|r| r.seconds).collect::<Vec<_>>())
    };
    let ratio = seconds(&starts[0]).zip(seconds(&starts[1])).map(|(fair, bare)| fair / bare);
    println!("fair / bare, last byte: {}", ground::shown(ratio, 3));
    starts.into_iter().for_each(|start| start.server.end());
}

/// One release to clients in other processes.
fn release(server: &mut Server, clients: u16, work: &Path) -> Release {
    let program = std::env::current_exe().expect("this program is a file");
    let processes = clients.div_ceil(CLIENTS_MAX);
    let out = |process: u16| work.join(format!("copies-{process}"));
    let fetching: Vec<Child> = (0..processes)
        .map(|process| {
            let (addr, some) = (server.addr.to_string(), (clients / processes).to_string());
            let mut fetch = Command::new(&program);
            fetch.args([FETCH, &addr, &some]).arg(out(process));
            fetch.spawn().expect("a process for clients")
        })
        .collect();
    let line = server.lines.next().expect("a line for a session").expect("a pipe");
    for mut child in fetching {
        assert!(child.wait().expect("a child of ours").success(), "every client has its copy");
    }
    for process in 0..processes {
        fs::remove_dir_all(out(process)).expect("made by the clients");
    }
    let figures: Vec<f64> = line.split(' ').map(|word| word.parse().expect("a figure")).collect();
    let [wake_ms, server_ms, client_ms, seconds, verified, whole] = figures[..] else {
        panic!("6 figures and not {line:?}");
    };
    Release { wake_ms, server_ms, client_ms, seconds, verified, whole: whole as usize }
}

/// A process of clients.
fn fetch(server: SocketAddr, clients: u16, out: &Path) {
    let order = FetchConfig {
        clients,
        out: out.to_owned(),
        durable: false,
        ..FetchConfig::new(vec![server])
    };
    let ends = FetchRun::new(&order).run(&order, &[&tcp::receive::TCP]).expect("a server is there");
    let errors: Vec<_> = ends.iter().filter_map(|end| end.error.as_ref()).collect();
    assert!(errors.is_empty(), "clients failed: {errors:?}");
}

impl Server {
    fn spawn(file: &Path, clients: u16, start: &str) -> Self {
        let program = std::env::current_exe().expect("this program is a file");
        let mut child = Command::new(program)
            .arg(SERVE)
            .arg(file)
            .arg(clients.to_string())
            .arg(start)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("a process for the server");
        let mut lines = BufReader::new(child.stdout.take().expect("piped")).lines();
        let line = lines.next().expect("the server's address").expect("a pipe");
        let addr = line.parse().expect("the server's address");
        Self { child, lines, addr }
    }

    /// The most memory it ever had resident, MiB.
    fn peak_mib(&self) -> Option<f64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id())).ok()?;
        let line = status.lines().find(|line| line.starts_with("VmHWM:"))?;
        let kib: f64 = line.split_whitespace().nth(1)?.parse().ok()?;
        Some(kib / 1024.0)
    }

    fn end(mut self) {
        drop(self.child.stdin.take());
        let status = self.child.wait().expect("a child of ours");
        assert!(status.success(), "the server ended with {status}");
    }
}

/// The server process: serves until its standard input ends.
fn serve(file: &Path, clients: &str, fair_start: bool) {
    let settings = ServerConfig {
        clients: Some(clients.parse().expect("a number of clients")),
        fair_start,
        ..ServerConfig::default()
    };
    let host = ServerCoreBuilder::new(Catalog::offer([file]).expect("a file"), settings);
    host.digest(&|_, _, _| {}).expect("a file");
    let server = tcp::serve(host)
        .and_then(|host| host.start(([127, 0, 0, 1], 0).into()))
        .expect("a free port");
    println!("{}", server.addr());
    let records = server.records();
    let reader = thread::spawn(move || {
        for record in records {
            let ms = |us: Option<u64>| us.map_or(f64::NAN, |us| us as f64 / 1e3);
            let seconds = |span: Option<Duration>| span.map_or(f64::NAN, |span| span.as_secs_f64());
            let global = record.global();
            println!(
                "{} {} {} {} {} {}",
                ms(record.wake_skew_us()),
                ms(record.skew_us()),
                ms(record.skew_client_us()),
                seconds(global.seconds),
                seconds(global.seconds_verified),
                record.proven()
            );
        }
    });
    let ended = io::stdin().read_to_end(&mut Vec::new());
    server.stop().expect("no log is written");
    reader.join().expect("it only prints");
    ended.expect("a pipe from the parent");
}
